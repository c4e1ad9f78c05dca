//! The connection to the node: how it begins, breaks, and begins again.

use super::core::{Core, Dead, now};
use super::find::connect_to;
use super::offer::Offer;
use super::options::LeaseState;
use crate::Error;
use crate::socket::{Received, Socket};
use mutirao_schedule::hold::Input;
use mutirao_wire::frame::{Header, flags, put_frame};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{CONTROL_BODY_MAX, PROTOCOL};
use mutirao_wire::local::{ClientHello, ClientWelcome, HeldLease, LocalMessage};
use mutirao_wire::{AppId, Epoch, Handle, NodeId, PluginId, Tick};
use std::path::PathBuf;
use std::time::Duration;

/// A node that went away is waited for so long: as long as its lenders keep its leases.
const RECONNECT: Duration = Duration::from_secs(10);
/// First and longest wait between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// Reads at one look at the socket, so that rings get their turn.
const READS_A_LOOK: usize = 16;
/// Leases fit into one hello; those beyond are lost with the connection.
const HELD_MAX: usize = CONTROL_BODY_MAX;

/// How the connection is.
#[derive(Debug)]
enum State {
    /// It stands.
    Up,
    /// It broke, at this time, and is to be tried again.
    Lost { since: Tick, again: Tick, delay: Duration, reason: String },
    /// It is given up.
    Shut,
}

#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: Socket,
    state: State,
    /// Where the node's socket is; a private node has none, and does not come back.
    path: Option<PathBuf>,
    pub(super) app: AppId,
    name: String,
    epoch: Epoch,
    /// Where the application may go on, if that is not here only.
    homes: Vec<NodeId>,
    offer: Option<Offer>,
    as_user: bool,
    /// The node was asked for a lane.
    lane_asked: bool,
    pub(super) welcome: Option<ClientWelcome>,
    /// What became of the offer.
    pub(super) plugin: Option<Result<PluginId, String>>,
}

impl Link {
    pub(super) fn new(
        socket: Socket,
        path: Option<PathBuf>,
        app: AppId,
        name: String,
        offer: Option<Offer>,
        as_user: bool,
    ) -> Link {
        Link {
            socket,
            state: State::Up,
            path,
            app,
            name,
            epoch: Epoch(0),
            homes: Vec::new(),
            offer,
            as_user,
            lane_asked: false,
            welcome: None,
            plugin: None,
        }
    }

    /// With leases that outlive this program, of an application whose homes these are.
    pub(super) fn one_of(self, epoch: Epoch, homes: Vec<NodeId>) -> Link {
        Link { epoch, homes, ..self }
    }

    /// Whether others may go on in this program's place.
    pub(super) fn has_homes(&self) -> bool {
        !self.homes.is_empty()
    }

    /// In which order of the application's homes this is.
    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    pub(super) fn offers(&self) -> bool {
        self.offer.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Tick> {
        match &self.state {
            State::Lost { again, .. } => Some(*again),
            _ => None,
        }
    }

    pub(super) fn shut(&mut self) {
        self.state = State::Shut;
        // The node learns of it although a sleeping driver still holds the descriptor.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// Asks the node for a lane, once. A node that knows of none does not answer.
    pub(super) fn ask_for_lane(&mut self) {
        if !std::mem::replace(&mut self.lane_asked, true) {
            let mut header = Header::new(Kind::OpenLane, 0);
            header.flags.set(flags::OPTIONAL);
            put_frame(self.socket.out(), header, &[]);
        }
    }

    /// Says hello and offers the program, in one go.
    pub(super) fn greet(&mut self, leases: Vec<HeldLease>) -> Result<(), Error> {
        let hello = ClientHello {
            protocol: PROTOCOL,
            app: self.app,
            name: self.name.clone(),
            epoch: self.epoch,
            homes: self.homes.clone(),
            leases,
            plugin: self.plugin.as_ref().and_then(|plugin| plugin.as_ref().ok()).copied(),
            as_user: self.as_user,
        };
        LocalMessage::from(hello).put(self.socket.out());
        if let Some(offer) = &self.offer {
            self.socket.attach(offer.files()?);
            LocalMessage::from(offer.message.clone()).put(self.socket.out());
        }
        Ok(())
    }
}

impl Core {
    /// Reads what the node has sent and acts on it.
    pub(super) fn look_at_socket(&mut self, now: Tick) {
        for _ in 0..READS_A_LOOK {
            if !self.link.is_up() || self.socket_is_full() {
                return;
            }
            match self.link.socket.receive() {
                Ok(Received::Some) => {
                    self.take_frames(now);
                    if self.link.socket.is_drained() {
                        self.socket_ready = false;
                        return;
                    }
                }
                Ok(Received::Nothing) => {
                    self.socket_ready = false;
                    return;
                }
                Ok(Received::Closed) => self.link_lost(now, "it closed the connection".into()),
                Err(errno) => self.link_lost(now, errno.to_string()),
            }
        }
    }

    fn take_frames(&mut self, now: Tick) {
        loop {
            let taken = match self.link.socket.next_frame() {
                Ok(None) => return,
                Ok(Some((header, body))) => {
                    let body = body.to_vec();
                    self.frame(now, &header, body)
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(what) = taken {
                self.die(Dead::Protocol(what));
            }
            if self.dead.is_some() {
                return;
            }
        }
    }

    pub(super) fn flush_socket(&mut self, now: Tick) {
        if self.link.is_up()
            && self.link.socket.unsent() > 0
            && let Err(errno) = self.link.socket.flush()
        {
            // What the node said before it closed, such as why, is still to be read.
            while self.link.is_up() && self.link.socket.receive() == Ok(Received::Some) {
                self.take_frames(now);
            }
            if self.link.is_up() {
                self.link_lost(now, errno.to_string());
            }
        }
    }

    fn link_lost(&mut self, now: Tick, reason: String) {
        if !self.link.is_up() {
            return;
        }
        if self.link.path.is_none() || self.link.welcome.is_none() {
            self.die(Dead::Lost { waited_s: 0, reason });
            return;
        }
        self.link.state = State::Lost { since: now, again: now, delay: RETRY.0, reason };
        // Workers here die with their node; lenders elsewhere keep what they have.
        let handles: Vec<(Handle, bool)> =
            self.leases.iter().map(|(handle, lease)| (*handle, lease.info.local)).collect();
        for (handle, local) in handles {
            if local {
                self.lease_ended(now, handle, true, "the node of this machine went away".into());
            } else {
                self.lease_broken(now, handle);
            }
        }
        self.pipes.node_lost();
        for question in self.questions.values_mut() {
            question.done = true;
        }
        self.control_changed();
    }

    pub(super) fn lease_broken(&mut self, now: Tick, handle: Handle) {
        let Some(lease) = self.leases.get_mut(&handle) else { return };
        if lease.state != LeaseState::Broken {
            lease.state = LeaseState::Broken;
            self.tally = None;
            if lease.works {
                self.tell(now, Input::LeaseBroken(handle));
            }
        }
    }

    /// Tries to connect again when it is time to.
    pub(super) fn mind_link(&mut self, now_: Tick) {
        let State::Lost { since, again, delay, reason } = &mut self.link.state else { return };
        if now_ < *again {
            return;
        }
        let (waited, reason) = (now_ - *since, reason.clone());
        *delay = (*delay * 2).min(RETRY.1);
        *again = now_ + *delay;
        let Some(path) = &self.link.path else { return };
        let fd = match connect_to(path) {
            Ok(fd) => fd,
            Err(_) if waited < RECONNECT => return,
            Err(_) => return self.die(Dead::Lost { waited_s: RECONNECT.as_secs(), reason }),
        };
        self.link.socket = Socket::new(fd);
        self.link.lane_asked = false;
        self.parted.clear();
        self.link.state = State::Up;
        self.link.epoch = Epoch(self.link.epoch.0 + 1);
        self.socket_ready = true;
        let leases = self.held();
        match self.link.greet(leases).and_then(|()| self.offer_again()) {
            Ok(()) => {
                for request in self.requests.values().filter(|request| !request.done) {
                    request.message.put(self.link.socket.out());
                }
                self.pipes.order_again(self.link.socket.out());
                self.told.tell_again(self.link.socket.out());
                self.flush_socket(now());
            }
            Err(error) => self.die(Dead::Protocol(error.to_string())),
        }
    }

    /// The leases, as a node is told of them that does not know them.
    pub(super) fn held(&self) -> Vec<HeldLease> {
        let held = |(handle, lease): (&Handle, &super::lease::LeaseEntry)| HeldLease {
            handle: *handle,
            serial: lease.info.lease.serial,
            lender: lease.info.lender.clone(),
            slots: lease.info.slots,
            works: lease.works,
        };
        self.leases.iter().take(HELD_MAX).map(held).collect()
    }
}
