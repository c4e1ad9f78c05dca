//! Administration: whom the pool lets in, and whom it lets allocate.
//!
//! All of this changes the pool's charter. The node of this machine signs the new version, where the key of an
//! administrator lies in its directory and this program is of the user who runs it; all nodes that can be reached
//! keep to it within seconds, the others when they are met again.

use super::Pool;
use crate::Error;
use mutirao_wire::AppId;
use mutirao_wire::charter::{CharterChange, CharterRow, Who};
use mutirao_wire::query::{AppRow, Row, Topic};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Every node that can be reached answers long before.
const ANSWER: Duration = Duration::from_secs(10);
/// Fewest digits by which an application is named.
const DIGITS_MIN: usize = 4;

impl Pool {
    /// Gives `who` the right to hold up to `slots` slots for so long, where admission is by administrators.
    /// `who` as for [`who`](Pool::who). Returns the number of the charter's new version.
    pub fn grant(&self, who: &str, slots: u32, time: Duration) -> Result<u64, Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let until_unix_s = Some(now.saturating_add(time).as_secs());
        self.change_charter(vec![CharterChange::Admit { who: self.who(who)?, slots, until_unix_s }])
    }

    /// The same until it is [taken away](Pool::remove).
    pub fn insert(&self, who: &str, slots: u32) -> Result<u64, Error> {
        self.change_charter(vec![CharterChange::Admit { who: self.who(who)?, slots, until_unix_s: None }])
    }

    /// Takes the right away; the leases held under it end.
    pub fn remove(&self, who: &str) -> Result<u64, Error> {
        self.change_charter(vec![CharterChange::Dismiss(self.who(who)?)])
    }

    /// Lets a node, a user or (unless `who` is like `name@node`) both of that name in no longer: links to it are
    /// closed, its leases end. `who` may also be 16 or more digits of an id. `reason` is what they are told.
    pub fn revoke(&self, who: &str, reason: &str) -> Result<u64, Error> {
        let revoke = |who| CharterChange::Revoke { who, reason: reason.to_owned() };
        let mut changes = vec![revoke(Who::User(who.to_owned()))];
        if !who.contains('@') {
            changes.push(revoke(Who::Node(who.to_owned())));
        }
        self.change_charter(changes)
    }

    /// Lets them in again, named as they were revoked.
    pub fn restore(&self, who: &str) -> Result<u64, Error> {
        let user = self.change_charter(vec![CharterChange::Restore(Who::User(who.to_owned()))]);
        if who.contains('@') {
            return user;
        }
        let node = self.change_charter(vec![CharterChange::Restore(Who::Node(who.to_owned()))]);
        node.or(user)
    }

    /// Makes changes to the charter, all or none; the number of the new version. Nothing has changed when it fails.
    pub fn change_charter(&self, changes: Vec<CharterChange>) -> Result<u64, Error> {
        for row in self.query(Topic::ChangeCharter(changes), None, Vec::new(), ANSWER)?.rows {
            match row {
                Row::Charter(row) => return Ok(row.version.number),
                Row::Failed { node, text } => return Err(Error::OrderRefused { node, text }),
                _ => {}
            }
        }
        Err(Error::Protocol("it did not say what became of the change".into()))
    }

    /// The charter in force at this machine's node; `None` where the pool has none yet.
    pub fn charter(&self) -> Result<Option<CharterRow>, Error> {
        let rows = self.query(Topic::CharterHistory, None, Vec::new(), ANSWER)?.rows;
        let charter = |row| if let Row::Charter(row) = row { Some(row) } else { None };
        Ok(rows.into_iter().find_map(charter))
    }

    /// Whom a text names: the application that runs, if its id begins so (4 digits or more), an application by its
    /// whole id, else a user: of the pool, or `name@node`.
    pub fn who(&self, text: &str) -> Result<Who, Error> {
        let app = |row| if let Row::App(row) = row { Some(row) } else { None };
        let rows = self.query(Topic::Apps, None, Vec::new(), ANSWER)?.rows;
        let begins = |app: &AppRow| text.len() >= DIGITS_MIN && app.app.to_string().starts_with(text);
        let running: Vec<AppRow> = rows.into_iter().filter_map(app).filter(begins).collect();
        match running[..] {
            [] => match u128::from_str_radix(text, 16) {
                Ok(id) if text.len() == 32 => Ok(Who::App(AppId(id))),
                _ => Ok(Who::User(text.to_owned())),
            },
            [ref one] => Ok(Who::App(one.app)),
            _ => {
                let text =
                    format!("`{text}` names {} applications that run; give more digits", running.len());
                Err(Error::OrderRefused { node: self.node().name, text })
            }
        }
    }
}
