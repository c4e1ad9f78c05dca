//! Bags of this program's operations.

use crate::operations::{attend, square_root};
use mutirao::Error;
use mutirao::bag::{Bag, Options};
use serde_json::{Value, json};

/// Pushes roots of squares, more of them as results come; what came of all.
pub fn roots(count: u64) -> Result<Value, Error> {
    let mut bag = Bag::of(square_root)?;
    for number in 0..count {
        bag.push(number * number)?;
    }
    let (mut right, mut failures, mut pushed) = (0, Vec::new(), count);
    while let Some(ended) = bag.next_end()? {
        match ended.result {
            Ok(root) if root == ended.task => right += 1,
            Ok(root) => failures.push(format!("{root} is not {}", ended.task)),
            Err(error) => failures.push(error.to_string()),
        }
        // One that is no square, and one that ends its worker, besides.
        if pushed == count {
            bag.push(3)?;
            bag.push(u64::MAX)?;
            pushed += 2;
        }
    }
    failures.sort_unstable();
    Ok(json!({ "bag": bag.number(), "right": right, "failures": failures }))
}

/// Pushes tasks that wait until a file is there, and lets go of the bag; its number.
pub fn leave(count: u64, file: &str) -> Result<Value, Error> {
    let options = Options { name: Some("left".into()), lives_on: true, ..Options::default() };
    let mut bag = Bag::with(attend, &options)?;
    for number in 0..count {
        bag.push((number, file.to_owned()))?;
    }
    // The first result says that what was pushed is there.
    bag.push((count, "/".to_owned()))?;
    let first = bag.results().next().transpose()?.map(|ended| ended.task);
    Ok(json!({ "bag": bag.number(), "first": first }))
}

/// Opens a bag that was left, and adds its results up.
pub fn find(number: u32) -> Result<Value, Error> {
    let mut bag = Bag::attach(attend, number)?;
    let mut results = Vec::new();
    for ended in bag.results() {
        results.push(ended?.result?);
    }
    results.sort_unstable();
    Ok(json!({ "bag": bag.number(), "results": results }))
}

/// Pushes tasks that would last for ever, and stays until its standard input closes.
pub fn hold(count: u64) -> Result<Value, Error> {
    let mut bag = Bag::of(attend)?;
    for number in 0..count {
        bag.push((number, "/never".to_owned()))?;
    }
    println!("{}", bag.number());
    let mut nothing = String::new();
    // However it ends, it is at its end.
    let _ = std::io::stdin().read_line(&mut nothing);
    Ok(Value::Null)
}
