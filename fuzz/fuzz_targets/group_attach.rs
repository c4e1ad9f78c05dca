//! What comes from who attaches to the terminal of a process: refused, or no more than came, however it is cut.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_group::attach::{Ask, Reader};

fuzz_target!(|pieces: Vec<Vec<u8>>| {
    let (mut one, mut asks) = (Reader::default(), Vec::<Ask>::new());
    let whole = pieces.iter().all(|piece| one.hear(piece, &mut asks).is_ok());
    let typed = |ask: &Ask| if let Ask::Typed(bytes) = ask { bytes.len() } else { 0 };
    let came: usize = pieces.iter().map(Vec::len).sum();
    assert!(asks.iter().map(typed).sum::<usize>() <= came);
    let mut again = Vec::<Ask>::new();
    assert_eq!(Reader::default().hear(&pieces.concat(), &mut again).is_ok(), whole);
    assert!(!whole || again == asks);
});
