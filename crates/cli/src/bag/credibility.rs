//! What this user knows of nodes from bags whose results are checked: `bags/credibility.json` in the state directory.

use crate::args::Output as Form;
use crate::output::{put, table};
use anyhow::{Context, Result, bail};
use clap::Args;
use mutirao_bag::{NodeStanding, Trust};
use mutirao_wire::NodeId;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

/// Largest file that is read, bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Options of `bag nodes`.
#[derive(Debug, Args)]
pub struct NodesArgs {
    /// Forget what is known of this node: it counts as one never seen before
    #[arg(long, value_name = "NODE")]
    pub forget: Option<String>,
}

/// What is known of a node, as it is kept.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Known {
    name: String,
    passed: u32,
    failed: u32,
    outvoted: u32,
}

impl Known {
    fn standing(&self) -> NodeStanding {
        NodeStanding { passed: self.passed, failed: self.failed, outvoted: self.outvoted }
    }
}

/// By the node's identity.
type Nodes = BTreeMap<String, Known>;

fn path() -> Result<PathBuf> {
    Ok(super::place::all()?.join("credibility.json"))
}

fn read() -> Result<Nodes> {
    let path = path()?;
    let bytes = match mutirao_store::read_limited(&path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.is_missing() => return Ok(Nodes::new()),
        Err(error) => return Err(error.into()),
    };
    let hint = "what is known of nodes; remove the file to begin anew";
    serde_json::from_slice(&bytes).with_context(|| format!("{} cannot be understood: {hint}", path.display()))
}

/// Changes what is kept. Keepers of several bags may want to at once.
fn change(how: impl FnOnce(&mut Nodes) -> Result<()>) -> Result<()> {
    let path = path()?;
    let failed = || format!("cannot change {}", path.display());
    let directory = super::place::all()?;
    DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(failed)?;
    let mut open = OpenOptions::new();
    let lock = open.write(true).create(true).truncate(false).mode(0o600).open(path.with_extension("lock"));
    let lock: File = lock.with_context(failed)?;
    flock(&lock, FlockOperation::LockExclusive).with_context(failed)?;
    let mut nodes = read()?;
    how(&mut nodes)?;
    mutirao_store::write_atomic(&path, &serde_json::to_vec(&nodes)?, 0o600)?;
    Ok(())
}

/// What a keeper begins with.
pub fn trust() -> Result<Trust> {
    let secret = u64::from_ne_bytes(mutirao_trust::random()?);
    let nodes = read()?;
    let known = |(id, known): (&String, &Known)| Some((id.parse::<NodeId>().ok()?, known.standing()));
    Ok(Trust { standings: nodes.iter().filter_map(known).collect(), secret })
}

/// Adds what was learnt.
pub fn add(news: &[(NodeId, String, NodeStanding)]) -> Result<()> {
    change(|nodes| {
        for (node, name, standing) in news {
            let known = nodes.entry(node.to_string()).or_default();
            let sum = known.standing().plus(*standing);
            (known.passed, known.failed, known.outvoted) = (sum.passed, sum.failed, sum.outvoted);
            if !name.is_empty() {
                known.name.clone_from(name);
            }
        }
        Ok(())
    })
}

/// `mutirao bag nodes`
pub fn run(args: &NodesArgs, form: Form) -> Result<()> {
    if let Some(name) = &args.forget {
        return change(|nodes| {
            let before = nodes.len();
            nodes.retain(|id, known| known.name != *name && id != name);
            match nodes.len() < before {
                true => Ok(()),
                false => bail!("nothing is known of a node `{name}`; see `mutirao bag nodes`"),
            }
        });
    }
    let nodes = read()?;
    let word = |known: &Known| if known.standing().is_caught() { "lies" } else { "believed" };
    match form {
        Form::Json => {
            let value = |(id, known): (&String, &Known)| {
                json!({
                    "node": known.name, "id": id, "passed": known.passed, "failed": known.failed,
                    "outvoted": known.outvoted, "state": word(known),
                })
            };
            put(&format!("{}\n", nodes.iter().map(value).collect::<serde_json::Value>()))
        }
        Form::Text => {
            let row = |(id, known): (&String, &Known)| {
                let short: String = id.chars().take(8).collect();
                let counts = [known.passed, known.failed, known.outvoted].map(|count| count.to_string());
                let [passed, failed, outvoted] = counts;
                [known.name.clone(), short, word(known).into(), passed, failed, outvoted]
            };
            let rows: Vec<[String; 6]> = nodes.iter().map(row).collect();
            let head = ["NODE", "ID", "STATE", "PASSED", "FAILED", "OUTVOTED"];
            put(&table(head, [false, false, false, true, true, true], &rows))
        }
    }
}
