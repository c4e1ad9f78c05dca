//! What the machine of pipes is told and what it says.

use mutirao_wire::node::NodeRef;
use mutirao_wire::pipe::{BindPipe, JoinPipe, LeavePipe, PipeBound, PipeNews, PipeOrder, PipePlace};
use mutirao_wire::pipe::{PipeState, PipeUnbound, PlainSocket};
use mutirao_wire::{AppId, Epoch, Handle, NodeId};

/// An end of a pipe and its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spot {
    /// The node.
    pub node: NodeRef,
    /// The end there.
    pub place: PipePlace,
}

/// What the machine is told. `C` names a data connection.
#[derive(Debug, Clone)]
pub enum Input<C> {
    /// A program here orders a pipe.
    Open {
        /// Which program.
        app: AppId,
        /// In which order of homes this is one.
        epoch: Epoch,
        /// The pipe's number.
        number: u64,
        /// One end.
        a: Spot,
        /// The other.
        b: Spot,
    },
    /// A program here no longer needs a pipe.
    Close {
        /// Which program.
        app: AppId,
        /// The pipe's number.
        number: u64,
    },
    /// A program here is gone.
    AppGone(AppId),
    /// A lease held by a program here is over.
    LeaseOver {
        /// Whose.
        app: AppId,
        /// Who lent it.
        lender: NodeId,
        /// The lender's serial.
        serial: u64,
    },
    /// The control link to a node stands.
    LinkUp(NodeId),
    /// A home says that a worker here is an end of a pipe. `is_its`: the lease (both, if the other end is
    /// here too) is lent here, to that home and application.
    Join {
        /// The home.
        from: NodeId,
        /// What it says.
        join: JoinPipe,
        /// Whether it may.
        is_its: bool,
    },
    /// A home says that a pipe is no more.
    Leave {
        /// The home.
        from: NodeId,
        /// What it says.
        leave: LeavePipe,
    },
    /// A lender says how a pipe is doing.
    News {
        /// The lender.
        from: NodeId,
        /// What it says.
        news: PipeNews,
    },
    /// A worker of a lease lent here serves.
    Ready {
        /// The lease.
        serial: u64,
    },
    /// It is no more; another one may follow.
    WorkerGone {
        /// The lease.
        serial: u64,
    },
    /// A lease lent here is over.
    LeaseGone {
        /// The lease.
        serial: u64,
    },
    /// A data connection that this node dialled stands.
    DataUp {
        /// To whom.
        peer: NodeId,
        /// Which.
        conn: C,
    },
    /// A data connection, whoever dialled it, is lost.
    DataDown {
        /// Which.
        conn: C,
    },
    /// A data connection could not be had.
    DataFailed(NodeId),
    /// The node that dialled `conn` binds a pipe. That it may be plain has been checked.
    Bind {
        /// Who.
        peer: NodeId,
        /// Where.
        conn: C,
        /// What it says.
        bind: BindPipe,
    },
    /// The other side of a connection that this node dialled has its end.
    Bound {
        /// Where.
        conn: C,
        /// What it says.
        bound: PipeBound,
    },
    /// The other side gives a binding up.
    Unbound {
        /// Where.
        conn: C,
        /// What it says.
        unbound: PipeUnbound,
    },
    /// What became of a plain socket.
    Plain {
        /// The connection of its binding,
        conn: C,
        /// and its handle there.
        handle: Handle,
        /// Whether it stands.
        stands: bool,
    },
    /// What the ends of a pipe were to be given could not be made; it is tried again.
    Undone {
        /// Whose.
        app: AppId,
        /// The pipe's number.
        number: u64,
    },
    /// The link to a node is trusted no longer.
    Distrust(NodeId),
    /// Nothing but time has passed.
    Time,
}

/// What the machine says.
#[derive(Debug, Clone, PartialEq)]
pub enum Output<C> {
    /// Send this on the control link to that node, if it stands.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: PipeOrder,
    },
    /// A data connection dialled by this node is needed, and a control link that vouches for it.
    Want(NodeRef),
    /// Send on a connection this node dialled. Plain only where the pool trusts the link.
    Bind {
        /// Where.
        conn: C,
        /// What.
        bind: BindPipe,
    },
    /// Tell the binder that its bytes are welcome here.
    Bound {
        /// Where.
        conn: C,
        /// Which.
        handle: Handle,
    },
    /// Await a plain socket, and tell the binder where. `Input::Plain` follows.
    Offer {
        /// Where.
        conn: C,
        /// Which.
        handle: Handle,
    },
    /// Bring a plain socket. `Input::Plain` follows.
    Connect {
        /// The connection of the binding.
        conn: C,
        /// Its handle there.
        handle: Handle,
        /// Where to.
        plain: PlainSocket,
    },
    /// Tell the other side that the binding is given up, and forget what belongs to it.
    Unbind {
        /// Where.
        conn: C,
        /// What to say.
        unbound: PipeUnbound,
    },
    /// Join two ends here by a ring.
    Ring {
        /// Whose pipe.
        app: AppId,
        /// Its number.
        number: u64,
        /// One end.
        a: PipePlace,
        /// The other.
        b: PipePlace,
    },
    /// Give an end here a socket, and move its bytes to and from the binding, unless it is plain.
    Socket {
        /// Whose pipe.
        app: AppId,
        /// Its number.
        number: u64,
        /// The end.
        at: PipePlace,
        /// The connection of the binding.
        conn: C,
        /// Its handle there.
        handle: Handle,
        /// The plain socket that stands for this binding is the one to give.
        plain: bool,
    },
    /// Take back what an end here was given, and tell it.
    Break {
        /// Whose pipe.
        app: AppId,
        /// Its number.
        number: u64,
        /// The end.
        at: PipePlace,
    },
    /// The same, for good. Not said to a program: see `Tell`.
    Fail {
        /// Whose pipe.
        app: AppId,
        /// Its number.
        number: u64,
        /// The end.
        at: PipePlace,
        /// For people: why.
        text: String,
    },
    /// Tell the program that ordered the pipe.
    Tell {
        /// The program.
        app: AppId,
        /// The pipe's number.
        number: u64,
        /// `Broken`, of one that has no end at the program, or `Failed`.
        state: PipeState,
    },
}
