//! What each process of a group is told: who it is, and where each of its channels leads.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A running group, unique in the pool.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GroupId(pub u128);

/// A process's place in its group. It travels to the process before anything else does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The group it belongs to.
    pub group: GroupId,
    /// The group's name, for people.
    pub name: String,
    /// The program it is an instance of.
    pub program: String,
    /// Which instance of the program, from 0.
    pub instance: u32,
    /// Its number among all processes of the group, from 0.
    pub rank: u32,
    /// Processes of the group.
    pub size: u32,
    /// Its input channels; the index is the number the program uses.
    pub inputs: Vec<PortPlan>,
    /// Its output channels, numbered apart from the inputs.
    pub outputs: Vec<PortPlan>,
    /// Pipes to other ranks for collectives; empty unless the group asked for them.
    pub collectives: Vec<Edge>,
    /// Bytes of messages that one channel end stores at most.
    pub stored_bytes_max: u64,
    /// Whether what is stored beyond that goes to disk instead of making the sender wait.
    pub spill: bool,
    /// Directory where what the process receives is recorded, if it is.
    pub record: Option<String>,
}

/// One channel of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPlan {
    /// The mode, when the application file says so; else the first message decides.
    pub mode: Option<Mode>,
    /// Whether this side is the "one" side, where messages wait. True at both ends of 1:1.
    pub one: bool,
    /// How many ends the channel has on either side.
    pub shape: Shape,
    /// The ends on the other side.
    pub peers: Vec<Peer>,
}

/// Whether the two ends of a channel meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The sender waits until its message is received.
    Sync,
    /// Messages are stored until they are received.
    Async,
}

/// How many senders and receivers a channel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// One sender, one receiver.
    OneToOne,
    /// One sender; whichever receiver asks first gets the message.
    OneToMany,
    /// Several senders, one receiver.
    ManyToOne,
}

/// The other end of a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Number of the pipe that leads there.
    pub pipe: u64,
    /// The program there.
    pub program: String,
    /// Its instance.
    pub instance: u32,
    /// The channel's number there.
    pub port: u32,
    /// The rank of the process there.
    pub rank: u32,
}

/// A pipe between two ranks that collectives use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Number of the pipe.
    pub pipe: u64,
    /// The rank at its other end.
    pub rank: u32,
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({self})")
    }
}
