//! Whether the pool has seen those whom a command names. A name that nobody has may be meant for later, or
//! be mistyped: so it is said, and taken all the same.

use crate::list::{ask, node_rows};
use crate::membership::home;
use anyhow::Result;
use mutirao::raw::Pool;
use mutirao_trust::Charter;
use mutirao_wire::query::{Row, Topic};
use std::collections::BTreeSet;

/// Who can be seen in the pool at present.
pub struct Known {
    nodes: BTreeSet<String>,
    users: BTreeSet<String>,
}

impl Known {
    /// Asks the nodes.
    pub fn look(pool: &Pool, charter: &Charter) -> Result<Known> {
        let nodes = node_rows(pool)?.into_iter().map(|row| row.node.name).collect();
        let theirs = ask(pool, Topic::Apps, None)?.into_iter().filter_map(|row| match row {
            Row::App(app) => Some(app.user),
            _ => None,
        });
        let listed = charter.admitted.users.keys().chain(charter.deny.users.keys()).cloned();
        let kept = home()?.users()?.into_iter().map(|name| name.as_str().to_owned());
        Ok(Known { nodes, users: theirs.chain(listed).chain(kept).collect() })
    }

    /// What is to be said of a user who has not been seen.
    pub fn user(&self, name: &str) -> Option<String> {
        if self.users.contains(name) {
            return None;
        }
        match name.rsplit_once('@') {
            Some((_, node)) if !self.nodes.contains(node) => Some(format!(
                "no node `{node}` is in the pool now; `{name}` is taken for a user of one that may come"
            )),
            Some(_) => None,
            None => Some(format!(
                "no program of a user `{name}` runs now, and no application's id begins so; it is taken for the name \
                 of a user of the pool"
            )),
        }
    }

    /// What is to be said of a node that is not there.
    pub fn node(&self, name: &str) -> Option<String> {
        let gone = || format!("no node `{name}` is in the pool now; should one come, it will be refused");
        (!self.nodes.contains(name)).then(gone)
    }
}

/// Whether a text can be (the beginning of) a key's id.
pub fn is_id(text: &str) -> bool {
    (16..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
