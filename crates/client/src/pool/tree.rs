//! Orders of administrators about the tree. This machine's node signs them, where it keeps the key of an
//! administrator; each node checks the signature.

use super::Pool;
use crate::Error;
use mutirao_wire::limits::DEPTH_MAX;
use mutirao_wire::query::{NodeRow, Row, Topic};
use std::time::{Duration, Instant};

/// How long an order may take.
const ORDER: Duration = Duration::from_secs(10);
/// A pause between two looks at a tree that is about to change.
const LOOK: Duration = Duration::from_millis(50);

impl Pool {
    /// Moves the node called `node`, with all below it, under the node called `parent` (names or the
    /// beginnings of ids), and waits until it is there. It stays told so for this life: should `parent`
    /// be lost, it waits elsewhere and goes back. Work on the nodes is not disturbed.
    ///
    /// # Errors
    /// [`Error::TreeCycle`] if `parent` is `node` or below it, [`Error::UnknownNode`], and
    /// [`Error::OrderRefused`]; the tree is as it was.
    pub fn move_node(&self, node: &str, parent: &str) -> Result<(), Error> {
        let rows = self.nodes()?;
        let (moved, to) = (find(&rows, node)?, find(&rows, parent)?);
        let mut at = Some(to);
        for _ in 0..=DEPTH_MAX {
            let Some(row) = at else { break };
            if row.node.id == moved.node.id {
                return Err(Error::TreeCycle { node: moved.node.name.clone(), parent: to.node.name.clone() });
            }
            at = row.parent.as_ref().and_then(|name| rows.iter().find(|row| row.node.name == *name));
        }
        let (name, above) = (&moved.node.name, &to.node.name);
        if self.order(name, Topic::Move { to: to.node.clone() })?.is_some() {
            return Ok(());
        }
        // Its answer was under way on the edge that it left.
        self.until("the move", |rows| {
            rows.iter().any(|row| row.node.name == *name && row.parent.as_ref() == Some(above))
        })
    }

    /// Takes a node under the one called `parent` and waits until it is there: `child` is the name (or
    /// beginning of the id) of a node of this pool, or the `host:port` where one listens that has joined
    /// no tree yet.
    ///
    /// # Errors
    /// As [`move_node`](Pool::move_node); [`Error::TimedOut`] if the child was asked and did not come.
    pub fn add_node(&self, parent: &str, child: &str) -> Result<(), Error> {
        let rows = self.nodes()?;
        let to = find(&rows, parent)?;
        if find(&rows, child).is_ok() {
            return self.move_node(child, parent);
        }
        let listens = |row: &NodeRow| row.node.addresses.iter().any(|address| address.to_string() == child);
        if let Some(row) = rows.iter().find(|row| listens(row)) {
            return self.move_node(&row.node.name, parent);
        }
        if !child.contains(':') {
            return Err(Error::UnknownNode(child.to_owned()));
        }
        let name = to.node.name.clone();
        let below = |rows: &[NodeRow]| rows.iter().filter(|row| row.parent.as_ref() == Some(&name)).count();
        let before = below(&rows);
        self.order(&name, Topic::Adopt { place: child.to_owned() })?;
        self.until("the coming of the new child", |rows| below(rows) > before)
    }

    /// Removes the node called `node` from the pool: it goes down, and its children go to its parent. With
    /// `drain` it lends no more and waits until what it lent has come back; otherwise its leases end, and
    /// their holders run elsewhere what may run again. Says what it did.
    ///
    /// # Errors
    /// [`Error::UnknownNode`] and [`Error::OrderRefused`].
    pub fn remove_node(&self, node: &str, drain: bool) -> Result<String, Error> {
        let rows = self.nodes()?;
        let name = find(&rows, node)?.node.name.clone();
        if let Some(told) = self.order(&name, Topic::Remove { drain })? {
            return Ok(told);
        }
        // It may be gone before its answer is.
        self.until("the leaving of the node", |rows| rows.iter().all(|row| row.node.name != name))?;
        Ok("has left".into())
    }

    /// Looks at the tree until `what` has come about.
    fn until(&self, what: &'static str, has_come: impl Fn(&[NodeRow]) -> bool) -> Result<(), Error> {
        let start = Instant::now();
        while !has_come(&self.nodes()?) {
            if start.elapsed() > ORDER {
                return Err(Error::TimedOut { what, waited_ms: ORDER.as_millis() as u64 });
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    }

    /// What the node said to the order; `None` if its answer was lost.
    fn order(&self, node: &str, topic: Topic) -> Result<Option<String>, Error> {
        let answers = self.query(topic, Some(node.to_owned()), Vec::new(), ORDER)?;
        for row in answers.rows {
            match row {
                Row::Done { text, .. } => return Ok(Some(text)),
                Row::Failed { node, text } => return Err(Error::OrderRefused { node, text }),
                _ => {}
            }
        }
        if answers.missing > 0 {
            return Ok(None);
        }
        Err(Error::UnknownNode(node.to_owned()))
    }
}

/// The node of this name, or with the only id that begins so.
fn find<'a>(rows: &'a [NodeRow], name: &str) -> Result<&'a NodeRow, Error> {
    let digits = |row: &&NodeRow| name.len() >= 4 && row.node.id.to_string().starts_with(name);
    let named = rows.iter().find(|row| row.node.name == name);
    named.or_else(|| rows.iter().find(digits)).ok_or_else(|| Error::UnknownNode(name.to_owned()))
}
