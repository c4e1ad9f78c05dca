//! Everything as bytes: what bindings of other languages build on.

pub use crate::error::Error;
pub use crate::operation::{Failure, OperationEntry, Run};
pub use crate::pipe::{Line, LineEvent, PipeEvent, RingEnds, RingWay, Terminal, Way};
pub use crate::pool::{
    Allocation, Answers, Call, CallError, CallErrorKind, CallOptions, CallResult, Counts, Deliver, Finished,
    ForeignProgram, Lease, LeaseKey, LeaseState, Options, PipeEnd, Pool, Private, Request, Slots, note_text,
};
pub use crate::worker::{init, line, retire, spin_seat};
pub use mutirao_ring as ring;
pub use mutirao_wire as wire;
pub use mutirao_wire::local::{Leave, Resize, Size};
