use mutirao_wire::CallId;
use mutirao_wire::frame::{HEADER_BYTES, put_frame};
use mutirao_wire::limits::LEASE_WINDOW_BYTES;
use mutirao_wire::{Handle, stream};

/// Acknowledgements due after so many results.
const CALLS_DUE: usize = 512;

/// What the library owes a remote lender for results it has taken: credit and acknowledgements, gathered
/// so that one `Credit` frame pays for many.
///
/// Count each `Result` frame with [`received`](Receipts::received) and each whole result with
/// [`delivered`](Receipts::delivered); write what [`due`](Receipts::due) gives, at least after each batch of
/// frames read. Replace it by a new one when the stream is restored.
#[derive(Debug, Default)]
pub struct Receipts {
    bytes: u64,
    calls: Vec<u8>,
}

impl Receipts {
    /// A `Result` frame with a body of `body` bytes was taken over.
    pub fn received(&mut self, body: usize) {
        self.bytes += (HEADER_BYTES + body) as u64;
    }

    /// The last frame of the result of `call` was taken over, and will not be asked for again: the lender may forget it.
    pub fn delivered(&mut self, call: CallId) {
        self.calls.extend_from_slice(&call.0.to_le_bytes());
    }

    /// Whether anything is owed.
    pub fn owes(&self) -> bool {
        self.bytes > 0 || !self.calls.is_empty()
    }

    /// Appends a `Credit` frame if enough has gathered, or anything at all and `now`. What is less than
    /// enough never makes a lender wait.
    pub fn due(&mut self, handle: Handle, now: bool, out: &mut Vec<u8>) {
        let count = self.calls.len() / 8;
        let enough = self.bytes >= LEASE_WINDOW_BYTES / 4 || count >= CALLS_DUE;
        if enough || (now && self.owes()) {
            put_frame(out, stream::credit_header(handle, self.bytes, count), &self.calls);
            self.bytes = 0;
            self.calls.clear();
        }
    }
}
