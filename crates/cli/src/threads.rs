//! Threads.

use anyhow::{Context, Result};

/// Starts a thread, which ends by itself. What it does is boxed, so that starting one is compiled once and not for each.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let work: Box<dyn FnOnce() + Send> = Box::new(work);
    std::thread::Builder::new().name(name.into()).spawn(work).context("cannot start a thread")?;
    Ok(())
}
