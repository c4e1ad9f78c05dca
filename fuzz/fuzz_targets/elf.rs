//! A program file as somebody offers it: facts or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;

/// The daemon's own module, which is private to it, taken by itself.
#[path = "../../crates/node/src/plugins/elf.rs"]
#[allow(dead_code)]
mod elf;

/// What that module asks of the rest of the daemon.
mod sys {
    pub fn libc_version() -> Option<(u16, u16)> {
        Some((2, 36))
    }
}

fuzz_target!(|data: &[u8]| {
    match elf::read("fuzzed", std::io::Cursor::new(data)) {
        Ok(facts) => {
            let _ = elf::Host::here().fits("fuzzed", facts.arch, facts.interpreter.as_deref(), facts.libc);
        }
        Err(error) => assert!(error.to_string().contains("fuzzed")),
    }
});
