//! Finding a first parent: the nodes this one was told to join.

use super::Daemon;
use crate::context::Done;
use crate::options::{JoinTarget, Ready};
use crate::runtime;
use mutirao_tree::Input;
use mutirao_wire::{NodeRef, Tick};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Whom to join, and how far that has come.
pub(super) struct Joining {
    targets: Vec<JoinTarget>,
    here: bool,
    /// The pool's part of the runtime directory, where names are looked up.
    runtime: PathBuf,
    /// Those that answered: the core asks them.
    found: Vec<NodeRef>,
    next: Option<Tick>,
    pause: Duration,
    parent: Option<String>,
    /// Who was to be the parent, and is below this node.
    contradicts: Option<String>,
}

/// What a node was told to join before.
pub(super) struct Before {
    targets: Vec<JoinTarget>,
    found: Vec<NodeRef>,
    here: bool,
}

impl Joining {
    /// From now on, and for this life: exactly this parent.
    pub(super) fn only(&mut self, to: &NodeRef) -> Before {
        let places = to.addresses.iter().map(|address| JoinTarget::Place(address.to_string())).collect();
        let before = Before {
            targets: core::mem::replace(&mut self.targets, places),
            found: core::mem::replace(&mut self.found, vec![to.clone()]),
            here: self.here,
        };
        self.here = true;
        before
    }

    /// As it was; says whom to join.
    pub(super) fn restore(&mut self, before: Before) -> Input {
        self.targets = before.targets;
        self.found = before.found;
        self.here = before.here;
        Input::Join { to: self.found.clone(), here: self.here }
    }

    pub(super) fn new(targets: Vec<JoinTarget>, here: bool, runtime: PathBuf) -> Joining {
        Joining {
            targets,
            here,
            runtime,
            found: Vec::new(),
            next: None,
            pause: FIRST_PAUSE,
            parent: None,
            contradicts: None,
        }
    }

    pub(super) fn has_targets(&self) -> bool {
        !self.targets.is_empty()
    }

    /// A node that it was to join is below this one. Whether only that was to be its parent.
    pub(super) fn is_below(&mut self, node: &NodeRef) -> bool {
        self.contradicts = self.here.then(|| node.name.clone());
        self.here
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        self.next
    }

    pub(super) fn joined(&mut self, parent: Option<String>) {
        self.parent = parent;
        self.next = None;
        self.pause = FIRST_PAUSE;
    }

    /// The parent is lost. The core asks those it knows; this looks whether they are elsewhere now.
    pub(super) fn alone(&mut self, now: Tick) {
        self.parent = None;
        if self.has_targets() {
            self.next = Some(now + self.pause);
        }
    }
}

impl Daemon {
    /// The first thing a node does.
    pub(super) fn begin(&mut self) {
        if self.joining.has_targets() {
            self.join_again();
        } else {
            self.say_ready(false);
        }
    }

    /// Looks for all targets once, and plans to do so again.
    pub(super) fn join_again(&mut self) {
        self.joining.next = Some(self.ctx.now + self.joining.pause);
        self.joining.pause = (self.joining.pause * 2).min(LONGEST_PAUSE);
        for target in self.joining.targets.clone() {
            self.look_for(target);
        }
    }

    /// Dials whoever is at a place or has a name here.
    pub(super) fn look_for(&mut self, target: JoinTarget) {
        match target {
            JoinTarget::Place(place) => match place.parse::<SocketAddr>() {
                Ok(address) => self.dial_place(&place, &[address]),
                Err(_) => self.ctx.jobs.run(move || {
                    let addresses = place.to_socket_addrs().map(Iterator::collect);
                    Done::Resolved { place, addresses }
                }),
            },
            JoinTarget::Name(name) => match runtime::addresses_of(&self.joining.runtime, &name) {
                Some(addresses) => self.dial_place(&name, &addresses),
                None => {
                    tracing::info!("no node `{name}` of this user and pool runs here yet");
                    self.place_failed(&name, "no node of that name runs on this machine");
                }
            },
        }
    }

    fn dial_place(&mut self, place: &str, addresses: &[SocketAddr]) {
        if let Some(links) = &mut self.links {
            links.dial_place(&mut self.ctx, place, addresses);
        }
    }

    pub(super) fn resolved(&mut self, place: String, addresses: io::Result<Vec<SocketAddr>>) {
        match addresses {
            Ok(addresses) => self.dial_place(&place, &addresses),
            Err(error) => {
                tracing::warn!("`{place}` cannot be looked up: {error}");
                self.place_failed(&place, &error.to_string());
            }
        }
    }

    /// A node at a place answered.
    pub(super) fn place_up(&mut self, place: &str, node: NodeRef) {
        if self.summon(place, &node) {
            return;
        }
        let found = &mut self.joining.found;
        if found.contains(&node) {
            return; // the core seeks it
        }
        found.retain(|other| other.id != node.id);
        found.push(node);
        let (to, here) = (found.clone(), self.joining.here);
        self.tell_core(Input::Join { to, here });
    }

    pub(super) fn say_ready(&mut self, still_alone: bool) {
        let Some((_, ready)) = self.ready.take() else { return };
        ready(Ready {
            node: self.ctx.me.clone(),
            socket: self.place.as_ref().map(|place| place.socket().to_owned()),
            parent: self.joining.parent.clone(),
            still_alone,
            contradicts: self.joining.contradicts.clone(),
            turned_away: self.rules.turned_away.as_ref().map(|(by, why)| format!("node `{by}`: {why}")),
        });
    }
}
