//! A stage of a pipeline: numbers are made, squared and added up, each by a process of its own.
//!
//! `pipeline source [COUNT] | square | sum`; the application file is `examples/groups/pipeline.toml`. Messages are
//! posted: a stage goes on while the next one is still busy, until as much is stored as the file allows.

use mutirao::group::{Error, Group, Input};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let group = Group::open()?;
    match arguments.first().map(String::as_str) {
        Some("source") => {
            let output = group.output(0)?;
            let count: u64 = arguments.get(1).map_or(Ok(1000), |count| count.parse())?;
            for number in 1..=count {
                output.post(number.to_ne_bytes())?;
            }
        }
        Some("square") => {
            let (input, output) = (group.input(0)?, group.output(0)?);
            while let Some(number) = next(&input)? {
                output.post(number.wrapping_mul(number).to_ne_bytes())?;
            }
        }
        _ => {
            let input = group.input(0)?;
            let mut sum = 0_u64;
            while let Some(number) = next(&input)? {
                sum = sum.wrapping_add(number);
            }
            println!("sum of squares: {sum}");
        }
    }
    Ok(group.close()?)
}

/// The next number of a channel; `None` when no more comes.
fn next(input: &Input) -> Result<Option<u64>, Error> {
    let mut number = [0; 8];
    match input.receive_into(&mut number) {
        Ok(_) => Ok(Some(u64::from_ne_bytes(number))),
        Err(Error::Ended { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
