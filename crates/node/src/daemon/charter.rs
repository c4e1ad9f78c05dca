//! The charter at work: versions that come, that are made here, and what follows from them.

use super::Daemon;
use crate::charter::{self, Charters};
use crate::clients;
use crate::conn::ConnId;
use crate::context::Done;
use crate::sys;
use mutirao_tree::Input;
use mutirao_trust::{Charter, Identity, Role, SignedCharter, change};
use mutirao_wire::charter::{CharterChange, CharterDocument, CharterVersion};
use mutirao_wire::limits::TEXT_BYTES_MAX;
use mutirao_wire::local::{Allocate, LeaseChange, Rows};
use mutirao_wire::query::{Row, Topic};
use mutirao_wire::{Handle, NodeId, Tick};
use std::time::Duration;

/// Ends of rights farther off are looked at again after this.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 3600);

/// What the daemon knows of the charter.
pub(super) struct Rules {
    /// `None` in an embedded node, which has no pool.
    pub charters: Option<Charters>,
    pub denied: charter::Denied,
    /// Settings as the node was started with.
    pub started: mutirao_tree::Settings,
    /// The links have not heard of the version in force yet.
    pub links_due: bool,
    /// When a right to allocate ends.
    pub due: Option<Tick>,
    /// By whom, and why, this node was last turned away.
    pub turned_away: Option<(String, String)>,
}

impl Rules {
    /// What the version in force says.
    pub(super) fn charter(&self) -> Charter {
        self.charters.as_ref().map(Charters::rules).unwrap_or_default()
    }
}

impl Daemon {
    /// Puts the charter that the node kept in force, when it starts.
    pub(super) fn begin_charter(&mut self) {
        if let Some(document) = self.rules.charters.as_ref().and_then(Charters::document) {
            self.tell_core(Input::Charter(document));
        }
        self.enforce();
    }

    /// A newer version came from a neighbour.
    pub(super) fn charter_came(&mut self, from: NodeId, came: CharterDocument) {
        if let Err(why) = self.take_charter(came.document) {
            tracing::warn!(from = %from.short(), "a charter came that is none of this pool: {why}");
        }
    }

    /// Takes a version, if it is in order and newer; whether it is in force now.
    fn take_charter(&mut self, document: Vec<u8>) -> Result<bool, String> {
        let Some(charters) = &mut self.rules.charters else { return Ok(false) };
        let before = charters.edition().cloned();
        let Some(writing) = charters.take(document).map_err(|refusal| refusal.to_string())? else {
            return Ok(false);
        };
        self.ctx.jobs.run(move || Done::CharterKept(writing.run().map_err(|error| error.to_string())));
        let Some(now) = charters.edition() else { return Ok(false) };
        tracing::info!(version = now.version.number, by = %now.by.name, "a new charter is in force");
        if let Some(lost) = before.filter(|before| before.version.number == now.version.number) {
            tracing::warn!(
                "version {} of the charter by {} lost to another version {} by {}: what it changed is not in force; \
                 see `mutirao charter history`",
                lost.version.number,
                lost.by.name,
                now.version.number,
                now.by.name
            );
        }
        if let Some(document) = charters.document() {
            self.tell_core(Input::Charter(document));
        }
        self.enforce();
        Ok(true)
    }

    /// Makes all parts keep to the version in force. Links are told last, when what is to be said over
    /// those that will close is said.
    pub(super) fn enforce(&mut self) {
        let charter = self.rules.charter();
        let deny = charter::deny(&charter);
        let me = self.ctx.me.clone();
        if let Some(why) = deny.node(me.id, &me.name) {
            tracing::error!("the other nodes let this one in no longer: {why}");
        }
        self.rules.denied.set(deny);
        self.rules.links_due = true;
        let settings = charter::settings(&self.rules.started, &charter);
        self.tell_core(Input::Settings(settings.into()));
        self.place_by_charter();
        self.admission_changed();
    }

    /// Rights to allocate begin or end.
    pub(super) fn admission_changed(&mut self) {
        let now = sys::unix_ms() / 1000;
        let next = charter::next_end(&self.rules.charter(), now);
        self.rules.due = next.map(|wait| self.ctx.now + wait.min(LOOK_AGAIN));
        let policy = self.policy();
        self.tell_core(Input::Policy(policy));
        // Whoever was refused may be let in now.
        let programs: Vec<ConnId> = self.clients.iter().map(|(conn, _)| conn).collect();
        for conn in programs {
            clients::put_news(&mut self.ctx, conn, Handle(0), LeaseChange::Approved, Vec::new());
        }
    }

    pub(super) fn rule_links(&mut self) {
        let charter = self.rules.charter();
        if let Some(links) = &mut self.links {
            links.rule(&mut self.ctx, charter::pace(&charter), charter::deny(&charter));
        }
        self.distrust();
    }

    /// Another node does not let this one in.
    pub(super) fn turned_away(&mut self, by: String, why: String) {
        let said = Some((by, why));
        if self.rules.turned_away == said {
            return;
        }
        self.rules.turned_away = said;
        if let Some((by, why)) = &self.rules.turned_away {
            tracing::error!("node `{by}` turns this node away: {why}");
        }
        if self.core.parent().is_none() {
            self.say_ready(true);
        }
    }

    /// Answers what concerns this node alone, without the tree.
    pub(super) fn local_question(&mut self, conn: ConnId, number: u32, topic: Topic) {
        let rows = match topic {
            Topic::EditCharter { text, base } => self.next_charter(conn, |charters| {
                let now = charters.version();
                if base != now {
                    let by = charters.edition().map_or("nobody", |edition| edition.by.name.as_str());
                    return Err(format!(
                        "version {} of the charter by {by} is in force by now, but you edited version {}: nothing \
                         was changed; edit again",
                        now.number, base.number
                    ));
                }
                Charter::parse(&text).map_err(|error| error.to_string())?;
                Ok(text)
            }),
            Topic::ChangeCharter(changes) => self.next_charter(conn, |charters| changed(charters, &changes)),
            _ => self.rules.charters.as_ref().map(|kept| kept.rows(&self.ctx.me.name)).map(charter_rows),
        };
        let rows = rows.unwrap_or_else(|| vec![self.failed("a private node has no charter".into())]);
        if rows.is_empty() {
            clients::put(&mut self.ctx, conn, Rows { number, rows, more: false, missing: 0 });
            return;
        }
        // A row may fill a frame.
        let last = rows.len() - 1;
        for (index, row) in rows.into_iter().enumerate() {
            let answer = Rows { number, rows: vec![row], more: index < last, missing: 0 };
            clients::put(&mut self.ctx, conn, answer);
        }
    }

    /// Makes the next version for a program: of the user who runs this node, where that is an administrator.
    fn next_charter(
        &mut self,
        conn: ConnId,
        text: impl FnOnce(&Charters) -> Result<String, String>,
    ) -> Option<Vec<Row>> {
        let charters = self.rules.charters.as_ref()?;
        let own = self.clients.get(conn).is_some_and(|client| client.user == self.rights.local_user);
        let is_admin = |user: &&Identity| user.me().role == Role::Admin;
        let made = match self.user.as_ref().filter(is_admin).filter(|_| own) {
            None => Err(format!(
                "the charter takes the signature of an administrator, and no administrator's key of `{}` lies in the \
                 pool's directory of this machine; run this where `mutirao init` was run, or where an administrator \
                 joined",
                self.rights.local_user
            )),
            Some(admin) => text(charters).and_then(|text| {
                if let Some(why) = self.rules.denied.user(Some(admin.me().node), admin.me().name.as_str()) {
                    return Err(why);
                }
                if text == charters.text() && charters.edition().is_some() {
                    return Err("nothing was changed".into());
                }
                let signed = SignedCharter::sign(admin, charters.version(), sys::unix_ms(), &text);
                signed.map_err(|refusal| refusal.to_string())
            }),
        };
        let taken = made.and_then(|signed| self.take_charter(signed.to_bytes()));
        Some(match taken {
            Ok(true) => {
                let row = self.charter_row();
                let version = row.version.number;
                vec![Row::Charter(row), self.done(format!("version {version} of the charter is in force"))]
            }
            Ok(false) => vec![self.failed("a newer version of the charter is in force; try again".into())],
            Err(text) => vec![self.failed(sys::shortened(text, TEXT_BYTES_MAX))],
        })
    }

    /// Which version is in force here.
    pub(super) fn charter_row(&self) -> mutirao_wire::charter::CharterRow {
        let name = &self.ctx.me.name;
        let none = || mutirao_wire::charter::CharterRow {
            node: name.clone(),
            version: CharterVersion::default(),
            previous: [0; 32],
            by: String::new(),
            signed_unix_ms: 0,
            text: String::new(),
        };
        self.rules.charters.as_ref().map_or_else(none, |charters| charters.row(name))
    }

    /// What of a request the pool's charter leaves: with fewer bundles where its ceiling is lower, or why
    /// nothing. The lenders judge it once more.
    pub(super) fn within_rights(&self, conn: ConnId, allocate: &mut Allocate) -> Result<(), String> {
        let Some(client) = self.clients.get(conn) else { return Ok(()) };
        let wide = self.user.as_ref().filter(|_| !client.token.is_empty()).map(Identity::me);
        let user = wide.map_or(client.user.as_str(), |me| me.name.as_str());
        if let Some(why) = self.rules.denied.user(wide.map(|me| me.node), user) {
            return Err(why);
        }
        let charter = self.rules.charter();
        let Some(admission) = charter::admission(&charter, sys::unix_ms() / 1000) else { return Ok(()) };
        let right = admission.right(client.app, user);
        let right = right.ok_or_else(|| mutirao_tree::not_admitted(client.app, &client.name, user))?;
        let counted = self.clients.iter().filter(|(_, other)| {
            let same = if other.user == client.user { user } else { other.user.as_str() };
            admission.counts(right, (client.app, user), (other.app, same))
        });
        let held: u32 = counted.map(|(_, other)| other.holds().1.saturating_add(other.awaits())).sum();
        let room = right.ceiling().saturating_sub(held) / u32::from(allocate.want.bundle.slots.max(1));
        if room == 0 || room < allocate.at_least {
            return Err(mutirao_tree::at_ceiling(&client.name, right.ceiling()));
        }
        allocate.want.count = allocate.want.count.min(room);
        Ok(())
    }
}

/// The text with small changes made to it.
fn changed(charters: &Charters, changes: &[CharterChange]) -> Result<String, String> {
    let text = change(&charters.text(), changes, sys::unix_ms() / 1000).map_err(|error| error.to_string())?;
    Ok(text)
}

fn charter_rows(rows: Vec<mutirao_wire::charter::CharterRow>) -> Vec<Row> {
    rows.into_iter().map(Row::Charter).collect()
}
