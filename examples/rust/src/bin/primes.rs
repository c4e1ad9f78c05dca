//! Counts primes in a bag of tasks, a thousand numbers each: a node that is lost costs no more than what ran there.
//!
//! `primes 1000000`, with or without a pool.

use mutirao::bag::Bag;

/// Primes from a number up to below another.
#[mutirao::operation]
fn primes(from: u64, below: u64) -> u64 {
    let is_prime = |number: &u64| (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor));
    (from.max(2)..below).filter(is_prime).count() as u64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    mutirao::init(); // on other machines this program stays here and counts
    let below: u64 = std::env::args().nth(1).map_or(Ok(100_000), |below| below.parse())?;
    let mut bag = Bag::of(primes)?;
    for from in (0..below).step_by(1000) {
        bag.push((from, below.min(from + 1000)))?;
    }
    let mut count = 0;
    for ended in bag.results() {
        count += ended?.result?;
    }
    println!("{count} primes below {below}");
    Ok(())
}
