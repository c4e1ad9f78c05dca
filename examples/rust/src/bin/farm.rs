//! A master and its workers count primes.
//!
//! `farm master [TASKS] | worker`; the application file is `examples/groups/farm.toml`. One channel leads from the
//! master to all workers: a task waits at the master until a worker asks, so that a slow worker holds up none but
//! itself. One channel leads back. Channels carry values here; a worker in C would read their bytes.

use mutirao::group::{Error, Group};

/// Numbers of one task.
const STEP: u32 = 1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let role = arguments.next().unwrap_or_default();
    let group = Group::open()?;
    if role == "master" {
        let (tasks, results) = (group.sender::<u32>(0)?, group.receiver::<u32>(0)?);
        let count: u32 = arguments.next().map_or(Ok(100), |count| count.parse())?;
        for task in 0..count {
            tasks.post(&(task * STEP))?;
        }
        let mut sum = 0;
        for _ in 0..count {
            sum += results.receive()?;
        }
        println!("{sum} primes below {}", count * STEP);
    } else {
        let (tasks, results) = (group.receiver::<u32>(0)?, group.sender::<u32>(0)?);
        loop {
            match tasks.receive() {
                Ok(first) => results.post(&primes_from(first))?,
                // The master has all it wanted, and has left.
                Err(Error::Ended { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(group.close()?)
}

/// How many of the numbers of a task are prime.
fn primes_from(first: u32) -> u32 {
    let is_prime = |n: &u32| *n > 1 && (2..).take_while(|d| d * d <= *n).all(|d| !n.is_multiple_of(d));
    (first..first + STEP).filter(is_prime).count() as u32
}
