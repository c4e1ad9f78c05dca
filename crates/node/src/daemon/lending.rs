//! What the owner and administrators say about lending: draining, taking back, and to programs, to grow or
//! to shrink. What they said outlives the daemon.

use super::Daemon;
use crate::clients;
use crate::error::Error;
use crate::presence::Presence;
use crate::sys;
use core::time::Duration;
use mutirao_tree::{Input, Lending, Reclaim};
use mutirao_wire::local::Resize;
use mutirao_wire::query::{NodeState, Question, Row, Topic};
use mutirao_wire::tree::AskId;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::PathBuf;

/// Longest grace that an order may give.
const GRACE_MAX_MS: u32 = 60 * 60 * 1000;

/// What is kept of orders over a restart.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Kept {
    draining: bool,
    /// Slots kept for the owner,
    reclaimed: u16,
    /// until then, milliseconds since 1970.
    until_unix_ms: Option<u64>,
}

impl Daemon {
    /// Carries out an order about lending, if whoever gives it may.
    pub(super) fn lending_order(&mut self, id: &AskId, question: &Question) -> Vec<Row> {
        if question.to.is_none() {
            return Vec::new();
        }
        if let Err(text) = self.rights.check(question, id.origin, &[]) {
            return vec![self.failed(text)];
        }
        let grace = |ms: u32| Duration::from_millis(ms.min(GRACE_MAX_MS).into());
        let said = match question.topic {
            Topic::Drain { grace_ms } => {
                self.tell_core(Input::Drain { grace: grace_ms.map(grace) });
                "lends no more".to_owned()
            }
            Topic::Reclaim { slots, grace_ms, for_s } => {
                let span = for_s.map(|seconds| Duration::from_secs(seconds.into()));
                self.tell_core(Input::Reclaim(Reclaim { slots, grace: grace(grace_ms), span }));
                format!("keeps {} slots for its owner", self.core.lending().reclaimed)
            }
            _ => {
                self.tell_core(Input::Resume);
                "lends again".to_owned()
            }
        };
        tracing::info!("by order of {}: {said}", question.user);
        vec![match self.keep_lending() {
            Ok(()) => self.done(said),
            Err(error) => self.done(format!("{said}, but only until it is restarted: {error}")),
        }]
    }

    /// Tells a program to grow or to shrink.
    pub(super) fn resize_app(
        &mut self,
        id: &AskId,
        question: &Question,
        app: &str,
        order: Resize,
    ) -> Vec<Row> {
        let conn = match self.one_app(app) {
            Ok(Some(conn)) => conn,
            Ok(None) => return Vec::new(),
            Err(text) => return vec![self.failed(text)],
        };
        let Some(name) = self.clients.get(conn).map(|client| client.name.clone()) else { return Vec::new() };
        if let Err(text) = self.may_order_app(id, question, conn) {
            return vec![self.failed(text)];
        }
        clients::put(&mut self.ctx, conn, order);
        vec![self.done(format!("application {name} was told"))]
    }

    /// The state of this node, in a word.
    pub(super) fn state(&self, lending: &Lending) -> NodeState {
        match (self.leaving, lending.draining, lending.empty) {
            (Some(_), ..) => NodeState::Leaving,
            (None, true, true) => NodeState::Drained,
            (None, true, false) => NodeState::Draining,
            (None, false, _) => NodeState::Up,
        }
    }

    fn lending_file(&self) -> PathBuf {
        self.ctx.paths.state.join("lending.toml")
    }

    fn keep_lending(&self) -> Result<(), Error> {
        let lending = self.core.lending();
        let (reclaimed, until) = lending.ordered;
        let now = sys::unix_ms();
        let kept = Kept {
            draining: lending.draining,
            reclaimed,
            until_unix_ms: until.map(|until| now + (until - self.ctx.now).as_millis() as u64),
        };
        let path = self.lending_file();
        let failed = Error::file("cannot write", &path);
        if kept == Kept::default() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let text = toml::to_string(&kept).map_err(|error| failed(io::Error::other(error)))?;
        let fresh = path.with_extension("new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(Error::file("cannot write", &path))
    }

    /// What was said before the daemon was started again still holds.
    pub(super) fn restore_lending(&mut self) {
        let path = self.lending_file();
        let kept: Kept = match fs::read_to_string(&path).map(|text| toml::from_str(&text)) {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => return tracing::warn!("{} is not read: {error}", path.display()),
            Err(_) => return,
        };
        let left =
            kept.until_unix_ms.map(|until| Duration::from_millis(until.saturating_sub(sys::unix_ms())));
        if kept.reclaimed > 0 && left.is_none_or(|left| !left.is_zero()) {
            let slots = Some(kept.reclaimed);
            self.tell_core(Input::Reclaim(Reclaim { slots, grace: Duration::ZERO, span: left }));
        }
        if kept.draining {
            self.tell_core(Input::Drain { grace: None });
        }
    }

    /// Looks whether the owner's rules let this node lend.
    pub(super) fn mind_presence(&mut self) {
        let lent = self.core.leases().map(|lease| lease.bundle.slots).fold(0, u16::saturating_add);
        let Some(may) = self.presence.look(self.ctx.now, lent, &self.pipes.terminals()) else { return };
        tracing::info!("by the owner's rules this node {}", if may { "lends" } else { "does not lend" });
        self.tell_core(Input::MayLend { may, grace: self.presence.grace });
    }
}

impl Presence {
    /// By what the owner wrote down.
    pub(super) fn of(config: &crate::options::LendConfig, path: &std::path::Path) -> Result<Presence, Error> {
        let rules = config.rules().map_err(|reason| Error::Config { path: path.to_owned(), reason })?;
        Ok(Presence::new(rules, config.grace()))
    }
}
