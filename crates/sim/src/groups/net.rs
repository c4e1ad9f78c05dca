//! What carries messages: in order, each after a drawn time, unless a link is cut.

use super::launcher::ToLauncher;
use super::lender::ToWorker;
use super::pipes::{Conn, EndId};
use super::world::World;
use core::time::Duration;
use mutirao_group::master::End;
use mutirao_wire::Tick;
use mutirao_wire::frame::{HEADER_BYTES, Header};
use mutirao_wire::pipe::{PipeBinding, PipeOrder};

/// A way along which nothing overtakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    /// From one node to another.
    Control(usize, usize),
    /// To one of the two nodes of a data connection.
    Data(Conn, usize),
    /// From the launcher's node to it, and back.
    Launcher,
    Home,
    /// To a worker.
    Worker(u64),
    /// To an end of a ring.
    Ring(EndId),
}

/// What is to happen.
#[derive(Debug)]
pub(super) enum Next {
    Order {
        from: usize,
        to: usize,
        cut: u64,
        order: PipeOrder,
    },
    /// A word of home or lender; those kept are said again after a cut.
    Word {
        from: usize,
        to: usize,
        cut: u64,
        number: u64,
        word: Word,
    },
    /// A data connection stands.
    Dialled {
        from: usize,
        to: usize,
        cut: u64,
    },
    Frame {
        conn: Conn,
        to: usize,
        frame: Frame,
    },
    /// A node notices that a data connection is lost.
    DataDown {
        conn: Conn,
        at: usize,
    },
    /// Bytes come to an end of a ring, or room.
    RingBytes {
        end: EndId,
        bytes: Vec<u8>,
    },
    RingRoom {
        end: EndId,
        bytes: usize,
    },
    ToLauncher(ToLauncher),
    ToHome(ToHome),
    ToWorker {
        worker: u64,
        told: ToWorker,
    },
    /// The launcher, a worker or a machine of pipes looks at what there is.
    Launcher,
    Worker(u64),
    PipesTime {
        at: usize,
        life: u64,
    },
    /// A worker of a lease is ready.
    Ready {
        at: usize,
        life: u64,
        serial: u64,
    },
    /// One side of a lease gives it up, unless the link stands again.
    LenderLapse {
        at: usize,
        cut: u64,
    },
    HomeLapse {
        at: usize,
        cut: u64,
    },
    Heal {
        at: usize,
        other: usize,
    },
    Returns(usize),
    Fault,
    /// Faults are over.
    Calm,
}

/// Said between a home and a lender.
#[derive(Debug, Clone)]
pub(super) enum Word {
    Begin {
        serial: u64,
        rank: u32,
        life: u32,
    },
    Cancel {
        serial: u64,
        life: u32,
    },
    Release {
        serial: u64,
    },
    /// The call of this life is over.
    Over {
        serial: u64,
        rank: u32,
        life: u32,
        end: End,
    },
    /// The lender has ended the lease.
    LeaseOver {
        serial: u64,
    },
}

impl Word {
    /// Said by a home; others are said by lenders.
    pub(super) fn is_of_home(&self) -> bool {
        matches!(self, Word::Begin { .. } | Word::Cancel { .. } | Word::Release { .. })
    }
}

/// The launcher to its node.
#[derive(Debug)]
pub(super) enum ToHome {
    Say { lender: usize, word: Word },
    Open { number: u64, lender: usize, serial: u64 },
    Close { number: u64 },
    Lease { rank: u32 },
    Gone,
}

/// On a data connection.
#[derive(Debug)]
pub(super) enum Frame {
    Binding(PipeBinding),
    Bytes(mutirao_wire::Handle, Vec<u8>),
    Room(mutirao_wire::Handle, usize),
}

/// Words that the other side may not have.
#[derive(Debug, Default)]
pub(super) struct Kept {
    said: u64,
    heard: u64,
    words: Vec<(u64, Word)>,
}

impl World {
    /// Something happens along a way, after what is under way there.
    pub(super) fn along(&mut self, way: Way, next: Next) {
        let delay = match way {
            Way::Control(..) | Way::Data(..) => self.random.between(self.plan.latency.0, self.plan.latency.1),
            _ => self.random.between(Duration::from_micros(1), Duration::from_micros(50)),
        };
        let before = self.spoken.get(&way).map_or(Tick(0), |at| *at + Duration::from_micros(1));
        let at = (self.now + delay).max(before);
        self.spoken.insert(way, at);
        self.at(at, next);
    }

    /// A message of pipes, through its codec.
    pub(super) fn send_order(&mut self, from: usize, to: usize, order: PipeOrder) {
        if self.linked(from, to) {
            let mut bytes = Vec::new();
            order.put(&mut bytes);
            let (header, body) = parted(&bytes);
            let order = PipeOrder::read(&header, body).expect("an order can be read");
            let cut = self.cuts_of(from, to);
            self.along(Way::Control(from, to), Next::Order { from, to, cut, order });
        }
    }

    pub(super) fn send_frame(&mut self, from: usize, conn: Conn, frame: Frame) {
        let frame = match frame {
            Frame::Binding(binding) => {
                let mut bytes = Vec::new();
                binding.put(&mut bytes);
                let (header, body) = parted(&bytes);
                Frame::Binding(PipeBinding::read(&header, body).expect("a binding can be read"))
            }
            other => other,
        };
        if self.data.get(&conn).is_some_and(|data| !data.is_down(from)) {
            let to = if conn.0 == from { conn.1 } else { conn.0 };
            self.along(Way::Data(conn, to), Next::Frame { conn, to, frame });
        }
    }

    /// Says something that arrives for certain, as long as both nodes live.
    pub(super) fn say(&mut self, from: usize, to: usize, word: Word) {
        let kept = self.kept.entry((from, to)).or_default();
        kept.said += 1;
        let number = kept.said;
        kept.words.push((number, word.clone()));
        if self.linked(from, to) {
            let cut = self.cuts_of(from, to);
            self.along(Way::Control(from, to), Next::Word { from, to, cut, number, word });
        }
    }

    /// What one side may have missed is said again.
    pub(super) fn say_again(&mut self, from: usize, to: usize) {
        let cut = self.cuts_of(from, to);
        let words = self.kept.get(&(from, to)).map(|kept| kept.words.clone()).unwrap_or_default();
        for (number, word) in words {
            self.along(Way::Control(from, to), Next::Word { from, to, cut, number, word });
        }
    }

    /// A word has come; false if it had come before.
    pub(super) fn is_new(&mut self, from: usize, to: usize, number: u64) -> bool {
        let kept = self.kept.entry((from, to)).or_default();
        kept.words.retain(|(kept, _)| *kept > number);
        let is_new = number > kept.heard;
        kept.heard = kept.heard.max(number);
        is_new
    }
}

fn parted(bytes: &[u8]) -> (Header, &[u8]) {
    let (head, body) = bytes.split_first_chunk::<HEADER_BYTES>().expect("a frame has a header");
    (Header::from_bytes(head), body)
}
