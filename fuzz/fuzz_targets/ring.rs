//! A ring whose other side writes whatever it likes anywhere in the shared memory: reads and writes end
//! in bytes or an error, never beyond the memory, and a corrupt pipe stays so.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_ring::{Bell, CAPACITY_MIN, CallerEnd, Error, RingMemory};
use std::os::fd::AsFd;

/// Where the words lie that both sides look at: positions, flags, what runs.
const WORDS: [u64; 10] = [0x100, 0x108, 0x180, 0x188, 0x200, 0x208, 0x280, 0x288, 0x300, 0x308];

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let memory = RingMemory::create(CAPACITY_MIN).unwrap();
    let scribble = memory.as_fd().try_clone_to_owned().unwrap();
    let (_bell, ringer) = Bell::pair().unwrap();
    let mut end = CallerEnd::map(&memory, ringer).unwrap();
    let mut corrupt = [false; 2];
    let mut note = |pipe: usize, is_error: bool| {
        assert!(is_error || !corrupt[pipe], "a corrupt pipe came to life again");
        corrupt[pipe] |= is_error;
    };
    let failed = |error: &Error| matches!(error, Error::Corrupt { .. });
    while !bytes.is_empty() {
        let amount = bytes.number() as usize % (2 * CAPACITY_MIN);
        match bytes.byte() % 10 {
            0..3 => {
                let at = WORDS[usize::from(bytes.byte()) % WORDS.len()];
                rustix::io::pwrite(&scribble, &bytes.number().to_le_bytes(), at).unwrap();
            }
            3 => {
                let at = u64::from(bytes.short()) % (4096 + 2 * CAPACITY_MIN as u64 - 16) + 8;
                rustix::io::pwrite(&scribble, &[bytes.byte(); 8], at).unwrap();
            }
            4 => {
                let mut out = vec![0; amount];
                let read = end.replies.read(&mut out);
                assert!(read.as_ref().map_or(true, |count| *count <= amount.min(CAPACITY_MIN)));
                note(0, read.as_ref().is_err_and(failed));
            }
            5 => {
                let mut out = Vec::new();
                let read = end.replies.read_to(&mut out, amount);
                assert!(out.len() <= amount.min(CAPACITY_MIN));
                note(0, read.as_ref().is_err_and(failed));
            }
            6 => {
                note(0, end.replies.arm(amount).as_ref().is_err_and(failed));
            }
            7 => {
                let written = end.calls.write(&vec![7; amount]);
                assert!(written.as_ref().map_or(true, |count| *count <= amount.min(CAPACITY_MIN)));
                // Writing nothing looks at nothing.
                if amount > 0 {
                    note(1, written.as_ref().is_err_and(failed));
                }
            }
            8 if amount <= CAPACITY_MIN => {
                let part = vec![8; amount];
                note(1, end.calls.write_parts(&[&part]).as_ref().is_err_and(failed));
            }
            _ => {
                note(1, end.calls.arm_for_room(amount).as_ref().is_err_and(failed));
                let _ = (end.progress.running(), end.progress.finished());
            }
        }
    }
});
