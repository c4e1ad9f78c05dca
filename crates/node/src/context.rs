//! What the parts of the daemon share during a turn of its loop.

pub use crate::conn::{ConnId, Conns};
pub use crate::jobs::{Done, Jobs};
use crate::options::{Config, Paths};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use mutirao_wire::bag::MemberMessage;
use mutirao_wire::frame::Header;
use mutirao_wire::lease::{LeaseEnd, LeaseMessage, WorkerState};
use mutirao_wire::node::{Bundle, Instances, PluginRef};
use mutirao_wire::pipe::PipeOrder;
use mutirao_wire::plugin::{PluginMessage, Ticket};
use mutirao_wire::stream::StreamMessage;
use mutirao_wire::tree::TreeMessage;
use mutirao_wire::{AppId, BlobHash, Handle, Incarnation, NodeId, NodeRef, PluginId, Tick};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use zerocopy::byteorder::little_endian::U32;

/// Whom the readiness of a descriptor concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// A framed connection; the key is a [`ConnId`].
    Conn = 1,
    /// The daemon itself: listeners, signals, helper threads.
    Daemon = 2,
    /// The lender.
    Lender = 3,
    /// The plugins.
    Plugins = 4,
    /// The pipes.
    Pipes = 5,
}

/// Keys are 56 bits wide.
const KEY_BITS: u32 = 56;

pub(crate) fn token(owner: Owner, key: u64) -> Token {
    debug_assert!(key >> KEY_BITS == 0);
    Token((owner as usize) << KEY_BITS | key as usize)
}

pub(crate) fn owner_and_key(token: Token) -> Option<(Owner, u64)> {
    let owner = match token.0 >> KEY_BITS {
        1 => Owner::Conn,
        2 => Owner::Daemon,
        3 => Owner::Lender,
        4 => Owner::Plugins,
        5 => Owner::Pipes,
        _ => return None,
    };
    Some((owner, token.0 as u64 & ((1 << KEY_BITS) - 1)))
}

/// What a watched descriptor is ready for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Readiness {
    /// Reading, which includes the end and an error.
    pub readable: bool,
    /// Writing.
    pub writable: bool,
    /// The other side writes no more, or there is an error: reading will meet the end.
    pub closed: bool,
}

/// A lease of this node that begins: make it a worker.
#[derive(Debug, Clone)]
pub struct Assignment {
    /// The lease's serial here.
    pub serial: u64,
    /// Whose it is.
    pub app: AppId,
    /// The application's name.
    pub app_name: String,
    /// The user, as far as proven: a pool-wide name, or `name@node`.
    pub user: String,
    /// What the lease holds.
    pub bundle: Bundle,
    /// Which instances of the named resources it holds.
    pub instances: Vec<Instances>,
    /// Slots it holds (for an exclusive one, those of the whole node).
    pub slots: u16,
    /// The plugin to serve; `None`: slots only, there is no worker.
    pub plugin: Option<PluginRef>,
    /// The node the application talks through.
    pub home: NodeRef,
    /// Whether that is this node and stays it: the worker is then reached through a ring, without a stream.
    pub local: bool,
    /// Whether the worker may act as the node's own user, whose program it serves: only if its home is this node.
    pub as_user: bool,
}

/// What a part wants of the others. Carried out in the same turn, in order.
#[derive(Debug)]
pub enum Action {
    /// How the worker of a lease lent here is doing. For a local lease, `Ready` makes the daemon
    /// fetch the descriptors from the lender and hand them to the program.
    Worker {
        /// The lease.
        serial: u64,
        /// How it is doing.
        state: WorkerState,
    },
    /// The worker of a lease is no more; how it ended may not be known yet.
    WorkerGone {
        /// The lease.
        serial: u64,
    },
    /// The worker of a local lease ended and will be replaced.
    WorkerEnded {
        /// The lease.
        serial: u64,
        /// See `mutirao_wire::stream::failure`.
        code: u32,
        /// For people.
        cause: String,
    },
    /// A lease cannot be served any longer: end it.
    End {
        /// The lease.
        serial: u64,
        /// Why.
        end: LeaseEnd,
    },
    /// All that served a finished lease is no more: its slots are free.
    Gone {
        /// The lease.
        serial: u64,
    },
    /// A plugin that the lender asked for is here, or cannot be had (the text says why).
    PluginHere {
        /// Which.
        plugin: PluginId,
        /// Whether it is here.
        result: Result<(), String>,
    },
    /// What became of a program's offer.
    PluginOffered {
        /// The program's connection.
        client: ConnId,
        /// The identity, or for people what is wrong.
        plugin: Result<PluginRef, String>,
    },
    /// What became of a program's offer of a blob.
    BlobOffered {
        /// The program's connection.
        client: ConnId,
        /// The program's number for it.
        number: u32,
        /// The blob and its length, or for people what is wrong.
        blob: Result<(BlobHash, u64), String>,
    },
    /// What a worker wanted kept is kept, or why not.
    BlobKept {
        /// The worker's line.
        line: ConnId,
        /// The worker's number for it.
        number: u32,
        /// The blob, and what its program needs to fetch it; or for people what is wrong.
        blob: Result<(BlobHash, Ticket), String>,
    },
    /// What a program wanted fetched is here, opened, or cannot be had (the text says why).
    BlobFetched {
        /// The program's connection.
        client: ConnId,
        /// The program's number for it.
        number: u32,
        /// Whether it is here.
        result: Result<std::fs::File, String>,
    },
    /// A blob that a worker asked for is here, opened, or cannot be had (the text says why).
    BlobHere {
        /// The worker's line.
        line: ConnId,
        /// Which blob.
        hash: BlobHash,
        /// Whether it is here.
        result: Result<std::fs::File, String>,
    },
    /// Approvals have changed; the plugins' `policy()` gives the new state.
    PolicyChanged,
    /// Open a data connection to this node, for its files.
    OpenData(NodeRef),
}

/// The connections to one other node.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peer {
    /// The control connection, when up.
    pub control: Option<ConnId>,
    /// The data connection this node dialled, when up.
    pub data: Option<ConnId>,
    /// With which life of the other that was made: leases of an earlier one are none of this one's, even if their
    /// serials are the same.
    pub data_life: Option<Incarnation>,
    /// The data connection the other dialled, when up.
    pub data_in: Option<ConnId>,
}

impl Peer {
    pub(crate) fn is_empty(&self) -> bool {
        self.control.is_none() && self.data.is_none() && self.data_in.is_none()
    }
}

/// What all parts share.
pub struct Context {
    /// Now, the same for a whole turn of the loop.
    pub now: Tick,
    /// This node, as others know it.
    pub me: NodeRef,
    /// Where its files lie.
    pub paths: Paths,
    /// What the owner wrote down.
    pub config: Config,
    /// Whether waiting processes of this node may spin.
    pub spin: bool,
    /// All framed connections.
    pub conns: Conns,
    /// Helper threads.
    pub jobs: Jobs,
    /// What parts want of one another.
    pub actions: Vec<Action>,
    pub(crate) registry: Registry,
    pub(crate) peers: HashMap<NodeId, Peer>,
    /// Streams of leases lent here: where each is bound.
    pub(crate) bound: HashMap<u64, (ConnId, Handle)>,
    /// Data connections that carry pipes, and how many: they are never left unread.
    pub(crate) piped: HashMap<ConnId, usize>,
}

impl Context {
    /// Reports the readiness of `fd` to `owner` under `key` (below 2^56), from now on. Edge-triggered.
    pub fn watch(&self, fd: BorrowedFd<'_>, owner: Owner, key: u64, interest: Interest) -> io::Result<()> {
        self.registry.register(&mut SourceFd(&fd.as_raw_fd()), token(owner, key), interest)
    }

    /// Stops reporting on `fd`. To be called before it is closed if a copy of it lives elsewhere.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.registry.deregister(&mut SourceFd(&fd.as_raw_fd()))
    }

    /// Sends a message on the control connection to `peer`; `false` if there is none.
    pub fn send_control(&mut self, peer: NodeId, message: impl Into<ControlMessage>) -> bool {
        let Some(conn) = self.peers.get(&peer).and_then(|peer| peer.control) else { return false };
        match message.into() {
            ControlMessage::Tree(message) => self.conns.put_with(conn, |out| message.put(out)),
            ControlMessage::Lease(message) => self.conns.put_with(conn, |out| message.put(out)),
            ControlMessage::Plugin(message) => self.conns.put_with(conn, |out| message.put(out)),
            ControlMessage::Pipe(message) => self.conns.put_with(conn, |out| message.put(out)),
            ControlMessage::Member(message) => self.conns.put_with(conn, |out| message.put(out)),
        }
    }

    /// Wants a data connection to `node`. `Plugins::data_up` or `data_down` follows.
    pub fn open_data(&mut self, node: NodeRef) {
        self.actions.push(Action::OpenData(node));
    }

    /// Writes a frame to the stream of a lease lent here; `false` if the stream is not bound now
    /// (nothing is kept then: the home will send `Resume`).
    pub fn stream_put(&mut self, serial: u64, mut header: Header, body: &[u8]) -> bool {
        let Some(&(conn, handle)) = self.bound.get(&serial) else { return false };
        header.handle = U32::new(handle.0);
        self.conns.put(conn, header, body)
    }

    /// Writes a message that has a struct to the stream of a lease lent here; as
    /// [`stream_put`](Context::stream_put). The message's own handle is filled in.
    pub fn stream_message(&mut self, serial: u64, message: StreamMessage) -> bool {
        let Some(&(conn, handle)) = self.bound.get(&serial) else { return false };
        self.conns.put_with(conn, |out| put_stream_message(out, message, handle))
    }

    /// Bytes that are welcome on the stream of a lease now; 0 also when it is not bound.
    pub fn stream_room(&self, serial: u64) -> usize {
        self.bound.get(&serial).map_or(0, |&(conn, _)| self.conns.room(conn))
    }
}

/// Appends `message` under `handle`, which both its header and its body then carry.
pub(crate) fn put_stream_message(out: &mut Vec<u8>, mut message: StreamMessage, handle: Handle) {
    match &mut message {
        StreamMessage::Bind(m) => m.handle = handle,
        StreamMessage::Resume(m) => m.handle = handle,
        StreamMessage::Resumed(m) => m.handle = handle,
        StreamMessage::WorkerEnded(m) => m.handle = handle,
        StreamMessage::Unbound(m) => m.handle = handle,
    }
    let start = out.len();
    message.put(out);
    let at = start + core::mem::offset_of!(Header, handle);
    out[at..at + 4].copy_from_slice(&handle.0.to_le_bytes());
}

/// A message for a control connection.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)]
pub enum ControlMessage {
    /// Of the tree.
    Tree(TreeMessage),
    /// About leases.
    Lease(LeaseMessage),
    /// About plugins.
    Plugin(PluginMessage),
    /// About pipes.
    Pipe(PipeOrder),
    /// Of members of a bag.
    Member(MemberMessage),
}

impl From<TreeMessage> for ControlMessage {
    fn from(message: TreeMessage) -> Self {
        ControlMessage::Tree(message)
    }
}

impl From<LeaseMessage> for ControlMessage {
    fn from(message: LeaseMessage) -> Self {
        ControlMessage::Lease(message)
    }
}

impl From<PluginMessage> for ControlMessage {
    fn from(message: PluginMessage) -> Self {
        ControlMessage::Plugin(message)
    }
}

impl From<PipeOrder> for ControlMessage {
    fn from(message: PipeOrder) -> Self {
        ControlMessage::Pipe(message)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::conn::{Transport, UnixTransport};
    use mio::{Poll, Waker};
    use mutirao_wire::frame::Decoder;
    use mutirao_wire::limits::DATA_BODY_MAX;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::path::Path;
    use std::sync::Arc;

    /// A context without a daemon around it. Nothing is read: what matters is what is written.
    pub(crate) fn context(poll: &Poll, directory: &Path) -> Context {
        let waker = Waker::new(poll.registry(), token(Owner::Daemon, 0)).unwrap();
        let paths = Paths {
            state: directory.join("state"),
            cache: directory.join("cache"),
            spool: directory.join("spool"),
            runtime: directory.join("run"),
        };
        Context {
            now: Tick(1_000_000),
            me: node(0),
            paths,
            config: Config::default(),
            spin: false,
            conns: Conns::new(),
            jobs: Jobs::new(Arc::new(waker)),
            actions: Vec::new(),
            registry: poll.registry().try_clone().unwrap(),
            peers: HashMap::new(),
            bound: HashMap::new(),
            piped: HashMap::new(),
        }
    }

    pub(crate) fn node(number: u8) -> NodeRef {
        NodeRef {
            id: NodeId([number; 32]),
            incarnation: Incarnation(1),
            name: format!("n{number}"),
            addresses: Vec::new(),
        }
    }

    /// The other end of a connection of the context.
    pub(crate) struct Other {
        stream: UnixStream,
        decoder: Decoder,
    }

    impl Other {
        pub(crate) fn connect(ctx: &mut Context) -> (ConnId, Other) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            for end in [&ours, &theirs] {
                end.set_nonblocking(true).unwrap();
            }
            let transport = UnixTransport::new(mio::net::UnixStream::from_std(ours)).unwrap();
            let conn = ctx.conns.insert(&ctx.registry, Transport::Unix(transport), DATA_BODY_MAX).unwrap();
            (conn, Other { stream: theirs, decoder: Decoder::new(DATA_BODY_MAX) })
        }

        /// All frames that the context has written by now.
        pub(crate) fn frames(&mut self, ctx: &mut Context) -> Vec<(Header, Vec<u8>)> {
            ctx.conns.flush(&ctx.registry);
            let mut bytes = vec![0; 1 << 20];
            while let Ok(count) = self.stream.read(&mut bytes) {
                if count == 0 {
                    break;
                }
                self.decoder.push(&bytes[..count]);
            }
            let mut frames = Vec::new();
            while let Some((header, body)) = self.decoder.next_frame().unwrap() {
                frames.push((header, body.to_vec()));
            }
            frames
        }
    }
}
