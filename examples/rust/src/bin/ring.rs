//! Sends a number once round a ring of processes; each adds one.
//!
//! `ring first|next`; the application file is `examples/groups/ring.toml`. The one that is told `first` begins, and
//! says what came back. Sending is synchronous: it returns when the next process has the number.

use mutirao::group::Group;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let is_first = std::env::args().nth(1).as_deref() == Some("first");
    let group = Group::open()?;
    let (input, output) = (group.input(0)?, group.output(0)?);
    if is_first {
        output.send(&0_i32.to_ne_bytes())?;
    }
    let mut number = [0; 4];
    input.receive_into(&mut number)?;
    let number = i32::from_ne_bytes(number) + 1;
    if is_first {
        println!("{number} processes");
    } else {
        output.send(&number.to_ne_bytes())?;
    }
    Ok(group.close()?)
}
