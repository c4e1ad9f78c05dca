//! The two ends of a channel, each beside a process that writes whatever it likes, in any pieces, over pipes that
//! come and go: no panic, and nothing but a fault that stays.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_group::channel::{Body, Inlet, Outlet, PipeId, Reading};
use mutirao_group::plan::{GroupId, Mode};

const STORED_BYTES_MAX: u64 = 10_000;
const LANES: u8 = 3;

fn mode(bytes: &mut Bytes<'_>) -> Mode {
    if bytes.byte() % 2 == 0 { Mode::Sync } else { Mode::Async }
}

/// Bytes from the other side: a frame that could be right, or anything.
fn written(bytes: &mut Bytes<'_>, lane: u8) -> Vec<u8> {
    if bytes.byte() % 4 == 0 {
        let count = bytes.byte() as usize;
        return bytes.take(count).to_vec();
    }
    let (kind, flags) = (bytes.byte() % 9, bytes.byte() % 16);
    let number = bytes.number() % 8;
    let mut frame = (number << 16 | u64::from(flags) << 8 | u64::from(kind)).to_le_bytes().to_vec();
    let length = if kind == 1 {
        32
    } else if kind == 2 {
        bytes.number()
    } else {
        0
    };
    frame.extend(length.to_le_bytes());
    if kind == 1 {
        frame.extend(1u128.to_le_bytes());
        frame.extend(u64::from(lane).to_le_bytes());
        frame.extend((bytes.number() % 8).to_le_bytes());
    }
    frame
}

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let several = bytes.byte() % 2 == 0;
    let ids: Vec<PipeId> = (0..LANES).map(|lane| PipeId { group: GroupId(1), number: lane.into() }).collect();
    let (outs, ins) = if several { (&ids[..], &ids[..1]) } else { (&ids[..1], &ids[..]) };
    let mut outlet: Outlet<Vec<u8>> = Outlet::new(outs, several, None, STORED_BYTES_MAX);
    let mut inlet = Inlet::new(ins, several, None);
    while !bytes.is_empty() {
        let (choice, lane) = (bytes.byte() % 11, bytes.byte() % LANES);
        let (out, into) = (usize::from(lane) % outs.len(), usize::from(lane) % ins.len());
        match choice {
            0 => {
                let body = vec![0; bytes.short() as usize % 4000];
                if outlet.use_mode(mode(&mut bytes)).is_ok() && outlet.has_room(body.length()) {
                    outlet.send(body);
                    assert!(outlet.stored().0 == 1 || outlet.stored().1 <= STORED_BYTES_MAX);
                }
            }
            1 => outlet.opened(out),
            2 => inlet.opened(into),
            3 if lane == 0 => outlet.broken(out),
            3 => inlet.broken(into),
            4 => {
                let mut rest = &written(&mut bytes, out as u8)[..];
                while !rest.is_empty() {
                    let room = outlet.head_room(out);
                    let count = room.len().min(rest.len());
                    room[..count].copy_from_slice(&rest[..count]);
                    rest = &rest[count..];
                    if outlet.head_filled(out, count).is_err() {
                        break;
                    }
                }
            }
            5 | 6 => {
                let mut rest = &written(&mut bytes, into as u8)[..];
                while !rest.is_empty() {
                    let count = match inlet.reading(into) {
                        Reading::Head => {
                            let room = inlet.head_room(into);
                            let count = room.len().min(rest.len());
                            room[..count].copy_from_slice(&rest[..count]);
                            if inlet.head_filled(into, count).is_err() {
                                break;
                            }
                            count
                        }
                        Reading::Body { got, length } => {
                            let count = (length - got).min(rest.len() as u64);
                            inlet.body_came(into, count);
                            count as usize
                        }
                        Reading::Whole { .. } | Reading::Nothing => break,
                    };
                    rest = &rest[count..];
                }
                inlet.settle(into);
            }
            7 => {
                if let Ok(Some(lane)) = inlet.front() {
                    inlet.take(lane);
                }
            }
            8 => {
                inlet.want(bytes.byte() % 2 == 0);
                if bytes.byte() % 8 == 0 {
                    let _ = inlet.use_mode(mode(&mut bytes));
                }
            }
            9 if lane == 0 => outlet.close(),
            9 => inlet.close(),
            _ => {
                if let Some(next) = outlet.next(out) {
                    let all =
                        next.head.len() as u64 + next.body.map_or(0, |(body, from)| body.length() - from);
                    outlet.wrote(out, all.min(u64::from(bytes.byte())));
                }
                if let Some(next) = inlet.next(into) {
                    let all = next.len();
                    inlet.wrote(into, all.min(bytes.byte() as usize));
                }
            }
        }
    }
});
