//! Kinds of frames, and the macro that ties each to the struct in its body.

/// What a frame is. A number, once released, keeps its meaning; a changed body takes a new number.
///
/// | range | between |
/// | --- | --- |
/// | `0x00..` | the two ends of any link: handshake and beats |
/// | `0x01..` | neighbours in the tree |
/// | `0x02..` | home and lender, about leases (control) |
/// | `0x03..` | nodes, about plugins and blobs |
/// | `0x04..` | library, home, lender and worker: the stream of a lease (data) |
/// | `0x05..` | a local program and its node |
/// | `0x06..` | a node and its workers |
/// | `0x07..` | about pipes: a node and the ends on its machine, home and lender, two lenders |
/// | `0x08..` | a process of a group and what started it |
/// | `0x09..` | the members of a bag, those who visit one, and their nodes |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
#[allow(missing_docs)] // Each is documented at the struct of the same name, data kinds in `stream`.
pub enum Kind {
    Hello = 0x0001,
    Welcome = 0x0002,
    Refuse = 0x0003,
    Beat = 0x0004,

    Attach = 0x0101,
    Redirect = 0x0102,
    AttachRefused = 0x0103,
    Climb = 0x0104,
    Verdict = 0x0105,
    Attached = 0x0106,
    Detach = 0x0107,
    Lineage = 0x0108,
    Summary = 0x0109,
    Search = 0x010a,
    SearchReply = 0x010b,
    SearchCancel = 0x010c,
    Ask = 0x010d,
    Answer = 0x010e,
    Summon = 0x010f,
    Shift = 0x0110,
    Seek = 0x0111,

    Present = 0x0120,
    Turned = 0x0121,
    Withdraw = 0x0122,
    Reserve = 0x0123,
    Unreserve = 0x0124,
    Gathered = 0x0125,

    CharterVersion = 0x0130,
    CharterDocument = 0x0131,

    Confirm = 0x0201,
    Confirmed = 0x0202,
    Release = 0x0203,
    Revoked = 0x0204,
    WorkerNews = 0x0205,
    PluginApproved = 0x0206,
    Reclaiming = 0x0207,

    NeedPlugin = 0x0301,
    PluginManifest = 0x0302,
    NeedSource = 0x0303,
    Source = 0x0304,
    HaveItem = 0x0305,
    BlobGet = 0x0306,
    BlobChunk = 0x0307,
    BlobMissing = 0x0308,
    NoSource = 0x0309,
    ReleaseBlob = 0x030a,

    Bind = 0x0401,
    Call = 0x0402,
    Result = 0x0403,
    Credit = 0x0404,
    Cancel = 0x0405,
    Resume = 0x0406,
    Resumed = 0x0407,
    WorkerEnded = 0x0408,
    Unbound = 0x0409,
    WithdrawCalls = 0x040a,
    CallsWithdrawn = 0x040b,

    ClientHello = 0x0501,
    ClientWelcome = 0x0502,
    ClientRefused = 0x0503,
    OfferPlugin = 0x0504,
    PluginOffered = 0x0505,
    Allocate = 0x0506,
    Allocated = 0x0507,
    GiveBack = 0x0508,
    LeaseNews = 0x0509,
    Query = 0x050a,
    Rows = 0x050b,
    KillWorker = 0x050c,
    Resize = 0x050d,
    OpenLane = 0x050e,
    LaneOpened = 0x050f,
    GroupNews = 0x0510,
    ProcessNews = 0x0511,
    EndGroup = 0x0512,
    OfferBlob = 0x0518,
    BlobOffered = 0x0519,
    WithdrawBlob = 0x051a,
    FetchBlob = 0x051b,
    BlobFetched = 0x051c,
    DropBlob = 0x051d,

    WorkerHello = 0x0601,
    Fork = 0x0602,
    Forked = 0x0603,
    Exited = 0x0604,
    NeedTerminal = 0x0605,
    TerminalMade = 0x0606,
    NeedBlob = 0x0608,
    BlobHere = 0x0609,
    KeepBlob = 0x060a,
    BlobKept = 0x060b,

    OpenPipe = 0x0701,
    ClosePipe = 0x0702,
    PipeOpened = 0x0703,
    PipeBroken = 0x0704,
    PipeFailed = 0x0705,
    JoinPipe = 0x0706,
    LeavePipe = 0x0707,
    PipeNews = 0x0708,
    BindPipe = 0x0709,
    PipeBound = 0x070a,
    PipeUnbound = 0x070b,
    PipeBytes = 0x070c,
    PipeCredit = 0x070d,

    ProcessPlan = 0x0801,

    MemberHello = 0x0901,
    MemberBytes = 0x0902,
    VisitHello = 0x0903,
    VisitBytes = 0x0904,
}

/// Declares an enum of messages: for each its kind and its struct.
macro_rules! messages {
    ($(#[$doc:meta])* $name:ident { $($kind:ident),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, clippy::large_enum_variant)] // The structs carry the documentation.
        pub enum $name { $($kind($kind)),* }

        impl $name {
            /// The kind of the frame that carries this message.
            pub fn kind(&self) -> $crate::kind::Kind {
                match self { $(Self::$kind(_) => $crate::kind::Kind::$kind),* }
            }

            /// Whether frames of this kind carry one of these messages.
            pub fn has_kind(kind: u16) -> bool {
                $(kind == $crate::kind::Kind::$kind as u16)||*
            }

            /// Appends the message as a whole frame.
            pub fn put(&self, out: &mut Vec<u8>) {
                let start = out.len();
                out.extend_from_slice(&[0; $crate::frame::HEADER_BYTES]);
                let written = match self {
                    $(Self::$kind(message) => $crate::kind::append(message, out)),*
                };
                let header = $crate::frame::Header::new(self.kind(), written);
                out[start..start + $crate::frame::HEADER_BYTES].copy_from_slice(header.bytes());
            }

            /// Reads the message out of a frame.
            pub fn read(
                header: &$crate::frame::Header,
                body: &[u8],
            ) -> Result<Self, $crate::frame::FrameError> {
                $(if header.kind.get() == $crate::kind::Kind::$kind as u16 {
                    return match postcard::take_from_bytes(body) {
                        Ok((message, [])) => Ok(Self::$kind(message)),
                        _ => Err($crate::frame::FrameError::Malformed { kind: $crate::kind::Kind::$kind }),
                    };
                })*
                Err($crate::frame::FrameError::UnknownKind { kind: header.kind.get() })
            }
        }

        $(impl From<$kind> for $name {
            fn from(message: $kind) -> Self { Self::$kind(message) }
        })*
    };
}
pub(crate) use messages;

/// Appends the body of `message` to `out`; returns its length.
pub(crate) fn append<T: serde::Serialize>(message: &T, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let taken = core::mem::take(out);
    // Serialising into a growing vector fails only for types postcard cannot express (maps of
    // unknown length), and the messages have none.
    *out = postcard::to_extend(message, taken).expect("messages are expressible in postcard");
    out.len() - start
}
