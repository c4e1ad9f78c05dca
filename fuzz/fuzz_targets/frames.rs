//! A stream of bytes, cut anywhere: frames come out, or an error; never a body beyond the cap, and the
//! same ones however the stream was cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_wire::frame::{Decoder, HEADER_BYTES};
use mutirao_wire::limits::{CONTROL_BODY_MAX, DATA_BODY_MAX};

/// Lengths of the bodies, bytes taken in all, and whether it ended in an error.
fn read(stream: &[u8], piece: usize, body_max: usize) -> (Vec<usize>, usize, bool) {
    let mut decoder = Decoder::new(body_max);
    let (mut lengths, mut taken) = (Vec::new(), 0);
    for bytes in stream.chunks(piece.max(1)) {
        decoder.push(bytes);
        loop {
            match decoder.next_frame() {
                Ok(Some((header, body))) => {
                    assert!(body.len() <= body_max && header.body_len() == body.len());
                    lengths.push(body.len());
                    taken += HEADER_BYTES + body.len();
                }
                Ok(None) => break,
                Err(_) => return (lengths, taken, true),
            }
        }
    }
    assert_eq!(taken + decoder.pending(), stream.len());
    (lengths, taken, false)
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let body_max = [64, CONTROL_BODY_MAX, DATA_BODY_MAX][usize::from(bytes.byte() % 3)];
    let piece = usize::from(bytes.byte());
    let stream = bytes.0;
    assert_eq!(read(stream, piece, body_max), read(stream, stream.len(), body_max));
});
