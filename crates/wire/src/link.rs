//! One connection between two nodes: handshake, beats, silence.
//!
//! A pure state machine. It is given what arrived and how late it is, and says what to send and
//! whether the other side is there. Everything but the frames of this module passes it by; the
//! owner only reports that bytes came and went.

use crate::frame::{FrameError, Header};
use crate::id::{NodeId, PoolId};
use crate::kind::{Kind, messages};
use crate::limits::{ADDRESSES_MAX, BEAT, HANDSHAKE, NAME_BYTES_MAX, SILENCE};
use crate::node::NodeRef;
use crate::tick::Tick;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Purpose {
    /// Tree and leases: small frames, beats.
    Control,
    /// Streams and blobs. Without beats: the control connection vouches for the other side.
    Data,
}

/// Dialler to listener, first of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Versions spoken, oldest and newest.
    pub protocol: (u16, u16),
    /// The pool.
    pub pool: PoolId,
    /// Who dials.
    pub node: NodeRef,
    /// What the connection is for.
    pub purpose: Purpose,
    /// A hash of the machine's id, to tell a cloned disk from the original.
    pub machine: [u8; 16],
}

/// Listener to dialler: agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The version both speak.
    pub protocol: u16,
    /// Who listens.
    pub node: NodeRef,
    /// A hash of the listener's machine id.
    pub machine: [u8; 16],
}

/// Why a handshake is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum RefuseReason {
    /// The other side belongs to another pool.
    #[error("it belongs to pool {theirs}, this node to pool {ours}")]
    OtherPool {
        /// The refuser's pool.
        ours: PoolId,
        /// The refused one's.
        theirs: PoolId,
    },
    /// No common protocol version.
    #[error("it speaks protocol versions {}-{}, this node {}-{}; upgrade the older one", theirs.0, theirs.1, ours.0, ours.1)]
    OtherVersion {
        /// The refuser's versions.
        ours: (u16, u16),
        /// The refused one's.
        theirs: (u16, u16),
    },
    /// Two machines use one identity.
    #[error(
        "another machine already uses the identity of node `{name}`; give one of the two an identity of its own (a cloned disk?)"
    )]
    SameIdentity {
        /// The name both use.
        name: String,
    },
    /// The certificate names somebody else, or the reference is malformed.
    #[error("its certificate does not belong to the node it says it is")]
    NotItself,
    /// It dialled itself.
    #[error("a node cannot link to itself")]
    Itself,
    /// A life of that node that has since been replaced.
    #[error("a later life of that node is already linked")]
    Outdated,
    /// The node has as many links as it may.
    #[error("the node has as many links as it may have; raise `max_links` in its configuration")]
    Full,
    /// The charter denies the identity.
    #[error(
        "the pool's charter denies this node: {why}; an administrator can let it in again with `mutirao charter restore`"
    )]
    Denied {
        /// What the charter says about it.
        why: String,
    },
}

/// Listener to dialler: no. The listener closes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// Why.
    pub reason: RefuseReason,
}

/// Either to the other, when nothing else was sent for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {}

messages! {
    /// The messages of the link itself.
    LinkMessage { Hello, Welcome, Refuse, Beat }
}

/// What a link is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// The connection stands and the other side's certificate names `peer`.
    Opened {
        /// The identity its certificate proves.
        peer: NodeId,
    },
    /// A frame of this module's kinds arrived.
    Frame(&'a Header, &'a [u8]),
    /// Other bytes arrived.
    Heard,
    /// Other bytes were sent.
    Sent,
    /// Nothing but time has passed.
    Time,
    /// The owner refuses the handshake under way (listener, after `Greeted`).
    Refuse(RefuseReason),
    /// The owner accepts it.
    Accept,
    /// The connection closed.
    Closed,
}

/// What a link says.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send this.
    Send(LinkMessage),
    /// A dialler introduced itself properly: answer with `Accept` or `Refuse`.
    Greeted(Hello),
    /// The link is up.
    Up {
        /// The other side.
        peer: NodeRef,
        /// Its machine.
        machine: [u8; 16],
    },
    /// The link is lost: close the connection once what was to be sent is sent.
    Down(LinkEnd),
}

/// Why a link ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// The connection closed.
    #[error("the connection closed")]
    Closed,
    /// Nothing was heard for too long.
    #[error("nothing was heard for {} ms", .0.as_millis())]
    Silent(Duration),
    /// The handshake took too long.
    #[error("the handshake took more than {} ms", .0.as_millis())]
    HandshakeTimeout(Duration),
    /// The other side refused.
    #[error("the other side refuses: {0}")]
    RefusedByPeer(RefuseReason),
    /// This side refused.
    #[error("refused: {0}")]
    Refused(RefuseReason),
    /// The other side broke the protocol.
    #[error("the other side broke the protocol: {0}")]
    Protocol(#[from] FrameError),
}

#[derive(Debug, Clone, PartialEq)]
enum State {
    /// Before `Opened`.
    Opening,
    /// Dialler: `Hello` sent. Listener: waiting for it.
    Greeting,
    /// Listener: the owner has to decide.
    Deciding(Hello),
    Up,
    Down,
}

/// How links keep time; the pool's charter may change it while they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A beat is sent when nothing else was for this long.
    pub beat: Duration,
    /// A control link that was silent for this long is lost.
    pub silence: Duration,
    /// A handshake that takes longer is given up.
    pub handshake: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { beat: BEAT, silence: SILENCE, handshake: HANDSHAKE }
    }
}

/// Who this side is, the same for all its links.
#[derive(Debug, Clone)]
pub struct Me {
    /// This node.
    pub node: NodeRef,
    /// Its pool.
    pub pool: PoolId,
    /// A hash of its machine's id.
    pub machine: [u8; 16],
    /// Versions it speaks.
    pub protocol: (u16, u16),
    /// How its links keep time.
    pub pace: Pace,
}

/// One connection's state.
#[derive(Debug)]
pub struct Link {
    state: State,
    dialled: bool,
    purpose: Purpose,
    proven: Option<NodeId>,
    heard: Tick,
    sent: Tick,
    opened: Tick,
}

impl Link {
    /// A connection that this side dials (`dialled`) for `purpose`, or that it accepted (the
    /// purpose is then what the dialler says).
    pub fn new(now: Tick, dialled: bool, purpose: Purpose) -> Link {
        Link { state: State::Opening, dialled, purpose, proven: None, heard: now, sent: now, opened: now }
    }

    /// What the connection is for. For an accepted one, true from `Greeted` on.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether frames of `kind` are for [`Input::Frame`].
    pub fn owns(kind: u16) -> bool {
        LinkMessage::has_kind(kind)
    }

    /// Takes one input; appends what follows from it to `out`.
    pub fn handle(&mut self, now: Tick, me: &Me, input: Input<'_>, out: &mut Vec<Output>) {
        if self.state == State::Down {
            return;
        }
        match input {
            Input::Opened { peer } if self.state == State::Opening => {
                self.proven = Some(peer);
                self.heard = now;
                self.state = State::Greeting;
                if self.dialled {
                    self.send(now, self.hello(me).into(), out);
                }
            }
            Input::Frame(header, body) => {
                self.heard = now;
                match LinkMessage::read(header, body) {
                    Ok(message) => self.frame(now, me, message, out),
                    Err(error) => self.end(LinkEnd::Protocol(error), out),
                }
            }
            Input::Opened { .. } => {}
            Input::Heard => self.heard = now,
            Input::Sent => self.sent = now,
            Input::Time => self.time(now, &me.pace, out),
            Input::Accept => {
                let State::Deciding(hello) = &self.state else { return };
                let hello = hello.clone();
                self.state = State::Up;
                let protocol = hello.protocol.1.min(me.protocol.1);
                let welcome = Welcome { protocol, node: me.node.clone(), machine: me.machine };
                self.send(now, welcome.into(), out);
                out.push(Output::Up { peer: hello.node, machine: hello.machine });
            }
            Input::Refuse(reason) => self.refuse(now, reason, out),
            Input::Closed => self.end(LinkEnd::Closed, out),
        }
    }

    /// When to call with [`Input::Time`] next.
    pub fn deadline(&self, pace: &Pace) -> Option<Tick> {
        match self.state {
            State::Down => None,
            State::Up if self.purpose == Purpose::Data => None,
            State::Up => Some((self.sent + pace.beat).min(self.heard + pace.silence)),
            _ => Some(self.opened + pace.handshake),
        }
    }

    fn time(&mut self, now: Tick, pace: &Pace, out: &mut Vec<Output>) {
        match self.state {
            State::Up if self.purpose == Purpose::Control => {
                if now - self.heard >= pace.silence {
                    self.end(LinkEnd::Silent(pace.silence), out);
                } else if now - self.sent >= pace.beat {
                    self.send(now, Beat {}.into(), out);
                }
            }
            State::Up => {}
            _ if now - self.opened >= pace.handshake => {
                self.end(LinkEnd::HandshakeTimeout(pace.handshake), out);
            }
            _ => {}
        }
    }

    fn frame(&mut self, now: Tick, me: &Me, message: LinkMessage, out: &mut Vec<Output>) {
        match (&self.state, message) {
            (State::Up, LinkMessage::Beat(_)) => {}
            (State::Greeting, LinkMessage::Hello(hello)) if !self.dialled => {
                self.purpose = hello.purpose;
                match self.judge(me, hello.pool, hello.protocol, &hello.node, hello.machine) {
                    Ok(()) => {
                        self.state = State::Deciding(hello.clone());
                        out.push(Output::Greeted(hello));
                    }
                    Err(reason) => self.refuse(now, reason, out),
                }
            }
            (State::Greeting, LinkMessage::Welcome(welcome)) if self.dialled => {
                let versions = (welcome.protocol, welcome.protocol);
                match self.judge(me, me.pool, versions, &welcome.node, welcome.machine) {
                    Ok(()) => {
                        self.state = State::Up;
                        out.push(Output::Up { peer: welcome.node, machine: welcome.machine });
                    }
                    Err(reason) => self.end(LinkEnd::Refused(reason), out),
                }
            }
            (State::Greeting, LinkMessage::Refuse(refuse)) if self.dialled => {
                self.end(LinkEnd::RefusedByPeer(refuse.reason), out);
            }
            (_, message) => {
                let kind = message.kind();
                self.end(LinkEnd::Protocol(FrameError::OutOfPlace { kind }), out);
            }
        }
    }

    fn judge(
        &self,
        me: &Me,
        pool: PoolId,
        protocol: (u16, u16),
        node: &NodeRef,
        machine: [u8; 16],
    ) -> Result<(), RefuseReason> {
        if pool != me.pool {
            return Err(RefuseReason::OtherPool { ours: me.pool, theirs: pool });
        }
        if protocol.0 > me.protocol.1 || protocol.1 < me.protocol.0 {
            return Err(RefuseReason::OtherVersion { ours: me.protocol, theirs: protocol });
        }
        if Some(node.id) != self.proven
            || node.addresses.len() > ADDRESSES_MAX
            || node.name.is_empty()
            || node.name.len() > NAME_BYTES_MAX
        {
            return Err(RefuseReason::NotItself);
        }
        if node.id == me.node.id {
            return Err(if machine == me.machine {
                RefuseReason::Itself
            } else {
                RefuseReason::SameIdentity { name: node.name.clone() }
            });
        }
        Ok(())
    }

    fn hello(&self, me: &Me) -> Hello {
        Hello {
            protocol: me.protocol,
            pool: me.pool,
            node: me.node.clone(),
            purpose: self.purpose,
            machine: me.machine,
        }
    }

    fn send(&mut self, now: Tick, message: LinkMessage, out: &mut Vec<Output>) {
        self.sent = now;
        out.push(Output::Send(message));
    }

    fn refuse(&mut self, now: Tick, reason: RefuseReason, out: &mut Vec<Output>) {
        self.send(now, Refuse { reason: reason.clone() }.into(), out);
        self.end(LinkEnd::Refused(reason), out);
    }

    fn end(&mut self, end: LinkEnd, out: &mut Vec<Output>) {
        self.state = State::Down;
        out.push(Output::Down(end));
    }
}

/// Whether `kind` may be skipped by one who does not know it.
pub fn may_skip(header: &Header) -> bool {
    header.has(crate::frame::flags::OPTIONAL)
}

/// Kinds that have no struct and pass through nodes as raw bytes.
pub const RAW_KINDS: [Kind; 7] = [
    Kind::Call,
    Kind::Result,
    Kind::Credit,
    Kind::Cancel,
    Kind::BlobChunk,
    Kind::PipeBytes,
    Kind::PipeCredit,
];
