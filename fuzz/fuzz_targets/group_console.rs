//! What comes over the console of a process of a group: refused, or heard in order and without holding more than came.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_group::console::{Console, Saying, Stream};

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let mut console = Console::default();
    console.say(Saying::Wrote { stream: Stream::Out, bytes: vec![1; 100] });
    console.opened();
    let mut heard = Vec::new();
    let mut came = 0;
    for piece in &pieces {
        came += piece.len();
        if console.hear(piece, &mut heard).is_err() {
            console.broken();
            console.opened();
        }
    }
    let bytes = |saying: &Saying| match saying {
        Saying::Wrote { bytes, .. } | Saying::Input(bytes) => bytes.len(),
        _ => 0,
    };
    assert!(heard.iter().map(bytes).sum::<usize>() <= came);
});
