//! Records of processes: read or refused, whatever a file has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_group::record::{ENTRY_BYTES_MAX, Entry, Preamble};
use mutirao_wire::prefixed::{LENGTH_BYTES, length};

fuzz_target!(|bytes: &[u8]| {
    let _ = Preamble::read(bytes);
    let mut rest = bytes;
    while let Some((head, body)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let Ok(size) = length(*head, ENTRY_BYTES_MAX) else { return };
        let Some((body, after)) = body.split_at_checked(size) else { return };
        let Ok(entry) = Entry::read(body) else { return };
        let mut again = Vec::new();
        entry.put(&mut again);
        assert_eq!(Entry::read(&again[LENGTH_BYTES..]), Ok(entry));
        rest = after;
    }
});
