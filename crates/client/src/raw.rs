//! Everything as bytes: what bindings of other languages build on.

pub use crate::error::Error;
pub use crate::operation::{Failure, OperationEntry, Run};
pub use crate::pipe::{KeptBlob, Line, LineEvent, PipeEvent, RingEnds, RingWay, Terminal, Way};
pub use crate::pipe_stream::{Gone, PipeStream};
pub use crate::pool::{
    Adopted, Allocation, Answers, Call, CallError, CallErrorKind, CallOptions, CallResult, Counts, Deliver,
    Finished, ForeignProgram, LEFT_MAX, Lease, LeaseKey, LeaseState, Left, OfferedBlob, Options, PipeEnd,
    Pool, Private, Request, Slots, Succession, note_text,
};
pub use crate::saving::SavingWay;
pub use crate::worker::{clear_spin_seat, current_call, init, line, retire, spin_seat};
pub use mutirao_ring as ring;
pub use mutirao_wire as wire;
pub use mutirao_wire::local::{Leave, Resize, Size};
