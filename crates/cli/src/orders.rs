//! Orders: what is asked of nodes rather than about them.

use crate::args::TreeCommand;
use crate::list::ask;
use crate::output::put;
use crate::output::remark;
use anyhow::{Result, bail};
use mutirao::raw::Pool;
use mutirao_wire::query::{Row, Topic};

/// Gives an order to the node called `to`, or to all, and says what each did. Fails when none did anything.
/// This machine's node signs it, where it keeps the key of an administrator or of the nodes' owner.
pub fn give(pool: &Pool, topic: Topic, to: Option<String>) -> Result<()> {
    let what = match &topic {
        Topic::Kill { what } | Topic::Approve { plugin: what, .. } | Topic::RemovePlugin { plugin: what } => {
            what.clone()
        }
        Topic::Resize { app, .. } => app.clone(),
        _ => String::new(),
    };
    let mut done = 0;
    let mut refusals = Vec::new();
    for row in ask(pool, topic, to.clone())? {
        match row {
            Row::Done { node, text } => {
                done += 1;
                remark!("{node}: {text}");
            }
            Row::Failed { node, text } => refusals.push(format!("{node}: {text}")),
            _ => {}
        }
    }
    if done > 0 {
        refusals.iter().for_each(|text| remark!("{text}"));
        return Ok(());
    }
    match (refusals.is_empty(), to) {
        (false, _) => bail!("{}", refusals.join("\n")),
        (true, Some(node)) => {
            bail!("node `{node}` is not in the pool, or knows nothing of it; see `mutirao nodes`")
        }
        (true, None) => bail!("no node of the pool knows `{what}`"),
    }
}

/// `mutirao logs`
pub fn logs(pool: &Pool, worker: &str) -> Result<()> {
    for row in ask(pool, Topic::Stderr { worker: worker.to_owned() }, None)? {
        match row {
            Row::Done { text, .. } if text.is_empty() => return Ok(()),
            Row::Done { text, .. } => return put(&format!("{text}\n")),
            Row::Failed { node, text } => bail!("{node}: {text}"),
            _ => {}
        }
    }
    bail!("no node of the pool has a worker `{worker}`; see `mutirao ps`")
}

/// `mutirao tree add | remove | move`
pub fn change_tree(pool: &Pool, change: &TreeCommand) -> Result<()> {
    match change {
        TreeCommand::Add { parent, child } => {
            pool.add_node(parent, child)?;
            remark!("`{child}` is below `{parent}`");
        }
        TreeCommand::Remove { member, drain, .. } => {
            remark!("{member}: {}", pool.remove_node(member, *drain)?);
        }
        TreeCommand::Move { member, new_parent } => {
            pool.move_node(member, new_parent)?;
            remark!("`{member}` is below `{new_parent}`");
        }
    }
    Ok(())
}
