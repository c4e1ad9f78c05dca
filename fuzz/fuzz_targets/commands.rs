//! Commands as a worker reads them and ends of commands as a caller does: what is read can be written and is
//! read the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_runner::{Command, Ended, Place};

fuzz_target!(|data: &[u8]| {
    if let Ok(command) = Command::decode(data) {
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    }
    if let Ok(ended) = Ended::decode(data) {
        assert_eq!(Ended::decode(&ended.encode()), Ok(ended));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        Place::parse(text);
    }
});
