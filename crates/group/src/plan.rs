//! What each process of a group is told: who it is, and where each of its channels leads.

use crate::record::Depth;
use mutirao_wire::frame::{FrameError, Header, put_frame};
use mutirao_wire::kind::Kind;
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
    /// Pipes for collectives: the one at index `k` leads to and from the ranks 2^k away, for as many as are less
    /// than the size. Empty unless the group asked for them.
    pub collectives: Vec<Step>,
    /// Bytes of messages that one channel end stores at most.
    pub stored_bytes_max: u64,
    /// Whether what is stored beyond that goes to disk instead of making the sender wait.
    pub spill: bool,
    /// Whether the process writes down what it does, over the socket that [`RECORD_ENV`] names.
    pub record: Option<Depth>,
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

/// The two pipes of one distance that collectives use. Each carries messages in one direction only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// To the rank that is so much further, round the circle.
    pub to: Edge,
    /// From the rank that is so much back.
    pub from: Edge,
}

/// A pipe between two ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Number of the pipe.
    pub pipe: u64,
    /// The rank at its other end.
    pub rank: u32,
}

/// The environment variable that tells a process of a group where it finds what started it: the number of a
/// connected stream socket. The first frame there is the [`ProcessPlan`]; then come messages about pipes with descriptors
/// beside, as a worker is told of them.
pub const GROUP_ENV: &str = "MUTIRAO_GROUP_FD";
/// Variable of a process's environment: the descriptor of its machine's spin board and its seat there, parted by a
/// colon.
pub const SPIN_ENV: &str = "MUTIRAO_GROUP_SPIN";
/// Variable of a process's environment: the number of a connected stream socket that takes its record.
pub const RECORD_ENV: &str = "MUTIRAO_GROUP_RECORD_FD";
/// Variable of a process that is to run alone: the file with the record of what it did.
pub const REPLAY_ENV: &str = "MUTIRAO_GROUP_REPLAY";

/// Largest body of a frame on that socket, bytes: a plan names every peer.
pub const PLAN_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Peer {
    /// The process, as people call it.
    pub fn process(&self) -> String {
        format!("{}.{}", self.program, self.instance)
    }
}

impl ProcessPlan {
    /// The process, as people call it.
    pub fn process(&self) -> String {
        format!("{}.{}", self.program, self.instance)
    }

    /// Variables that tell a program who it is in its group, whether or not it has channels.
    pub fn variables(&self) -> [(&'static str, String); 6] {
        [
            ("MUTIRAO_GROUP", self.name.clone()),
            ("MUTIRAO_GROUP_ID", self.group.to_string()),
            ("MUTIRAO_PROGRAM", self.program.clone()),
            ("MUTIRAO_INSTANCE", self.instance.to_string()),
            ("MUTIRAO_RANK", self.rank.to_string()),
            ("MUTIRAO_PROCESSES", self.size.to_string()),
        ]
    }

    /// Appends the plan as a whole frame.
    pub fn put(&self, out: &mut Vec<u8>) {
        // Serialising into a growing vector fails only for types postcard cannot express, and a plan has none.
        let body = postcard::to_allocvec(self).expect("a plan is expressible in postcard");
        put_frame(out, Header::new(Kind::ProcessPlan, body.len()), &body);
    }

    /// Reads the plan out of a frame.
    pub fn read(header: &Header, body: &[u8]) -> Result<ProcessPlan, FrameError> {
        if header.kind.get() != Kind::ProcessPlan as u16 {
            return Err(FrameError::UnknownKind { kind: header.kind.get() });
        }
        match postcard::take_from_bytes(body) {
            Ok((plan, [])) => Ok(plan),
            _ => Err(FrameError::Malformed { kind: Kind::ProcessPlan }),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::frame::Decoder;

    fn plan() -> ProcessPlan {
        let peer = Peer { pipe: 3, program: "gmandel".into(), instance: 1, port: 0, rank: 2 };
        ProcessPlan {
            group: GroupId(7),
            name: "mandel".into(),
            program: "xmandel".into(),
            instance: 0,
            rank: 0,
            size: 3,
            inputs: vec![PortPlan {
                mode: Some(Mode::Sync),
                one: true,
                shape: Shape::ManyToOne,
                peers: vec![peer],
            }],
            outputs: Vec::new(),
            collectives: vec![Step { to: Edge { pipe: 9, rank: 1 }, from: Edge { pipe: 11, rank: 2 } }],
            stored_bytes_max: 1 << 20,
            spill: false,
            record: None,
        }
    }

    #[test]
    fn a_plan_travels_as_a_frame() {
        let mut bytes = Vec::new();
        plan().put(&mut bytes);
        let mut decoder = Decoder::new(PLAN_BYTES_MAX);
        decoder.push(&bytes);
        let (header, body) = decoder.next_frame().unwrap().expect("a whole frame");
        assert_eq!(ProcessPlan::read(&header, body), Ok(plan()));
        assert!(ProcessPlan::read(&header, &body[1..]).is_err());
        assert!(ProcessPlan::read(&Header::new(Kind::Beat, body.len()), body).is_err());
    }
}
