//! What comes over a pipe about saved state is taken or refused, at both its ends, and never more than was announced.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_wire::checkpoint::{Asked, STATE_BYTES_MAX, Saver, Taker};

fuzz_target!(|bytes: &[u8]| {
    let (mut saver, mut taker, mut asked) = (Saver::default(), Taker::default(), Vec::new());
    taker.opened();
    for piece in bytes.chunks(7) {
        if taker.hear(piece, &mut asked).is_err() {
            break;
        }
        assert!(taker.coming() <= STATE_BYTES_MAX);
    }
    for asked in asked {
        if let Asked::Save { state, .. } = asked {
            assert!(state.len() <= bytes.len());
        }
    }
    saver.opened();
    saver.want(1);
    let _ = saver.hear(bytes);
});
