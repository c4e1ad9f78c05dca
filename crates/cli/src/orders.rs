//! Orders: what is asked of nodes rather than about them.

use crate::list::ask;
use anyhow::{Result, bail};
use mutirao::raw::Pool;
use mutirao_trust::{Home, Role, SignedOrder};
use mutirao_wire::query::{Order, Row, Topic};
use std::time::{SystemTime, UNIX_EPOCH};

/// Gives an order to the node called `to`, or to all, and says what each did. Fails when none did anything.
pub fn give(pool: &Pool, home: &Home, topic: Topic, to: Option<String>) -> Result<()> {
    let order = signature(home, &topic, to.as_deref())?;
    let mut done = 0;
    let mut refusals = Vec::new();
    for row in ask(pool, topic, to.clone(), order)? {
        match row {
            Row::Done { node, text } => {
                done += 1;
                eprintln!("{node}: {text}");
            }
            Row::Failed { node, text } => refusals.push(format!("{node}: {text}")),
            _ => {}
        }
    }
    if done > 0 {
        refusals.iter().for_each(|text| eprintln!("{text}"));
        return Ok(());
    }
    match (refusals.is_empty(), to) {
        (false, _) => bail!("{}", refusals.join("\n")),
        (true, Some(node)) => {
            bail!("node `{node}` is not in the pool, or knows nothing of it; see `mutirao nodes`")
        }
        (true, None) => bail!("no node of the pool knows it"),
    }
}

/// The order signed by an administrator whose key is kept here; empty where there is none, and the
/// node judges by the local user alone.
fn signature(home: &Home, topic: &Topic, to: Option<&str>) -> Result<Vec<u8>> {
    let Ok(users) = home.users() else { return Ok(Vec::new()) };
    for name in users {
        let user = home.user(&name)?;
        if user.me().role == Role::Admin {
            let order = Order { topic: topic.clone(), to: to.map(str::to_owned), signed_unix_ms: unix_ms() };
            return Ok(SignedOrder::sign(&user, order.bytes())?.to_bytes());
        }
    }
    Ok(Vec::new())
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
