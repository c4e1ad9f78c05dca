//! The calls of one lease at its lender, between a home and a worker that both send whatever they like:
//! no panic, memory within the promised bounds, nothing sent without credit.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_schedule::serve::{Input, Output, RETAINED_MAX, Serve};
use mutirao_wire::frame::{Decoder, HEADER_BYTES, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::{CALL_BYTES_MAX, DATA_BODY_MAX, LEASE_CALLS_MAX, LEASE_WINDOW_BYTES};
use mutirao_wire::stream::{CallExtent, Resume, StreamMessage};
use mutirao_wire::{CallId, Handle, Tick};

/// A header with the fields that matter drawn, and a body of its own length.
fn drawn(bytes: &mut Bytes<'_>, kind: Kind) -> (Header, Vec<u8>) {
    let length = bytes.number() as usize % 5000;
    let body = vec![bytes.byte(); length];
    let mut header = Header::new(kind, length);
    header.flags.set(u16::from(bytes.byte() & 0x1f));
    header.sequence.set(bytes.number() % 8);
    header.aux.set(bytes.number() as u32);
    header.extent.set(match bytes.byte() % 4 {
        0 => bytes.number(),
        // Most often as the length says, or some more where parts follow.
        choice => {
            let more = if header.has(flags::MORE) { bytes.number() % 100_000 } else { 0 };
            let whole = (length as u64 + more).min(u64::from(u32::MAX)) as u32;
            let limit_ms = if choice == 1 && kind == Kind::Call { u32::from(bytes.byte()) } else { 0 };
            CallExtent { bytes: whole, limit_ms }.pack()
        }
    });
    (header, body)
}

fn from_home(bytes: &mut Bytes<'_>) -> (Header, Vec<u8>) {
    match bytes.byte() % 8 {
        0..4 => drawn(bytes, Kind::Call),
        4 => {
            let count = bytes.byte() % 4;
            let body: Vec<u8> = (0..count).flat_map(|_| (bytes.number() % 8).to_le_bytes()).collect();
            let mut header = Header::new(Kind::Credit, body.len());
            header.aux.set(if bytes.byte() == 0 { bytes.number() as u32 } else { u32::from(count) });
            header.extent.set(bytes.number());
            (header, body)
        }
        5 => drawn(bytes, Kind::Cancel),
        6 => {
            let outstanding = (0..bytes.byte() % 8).map(|_| CallId(bytes.number() % 8)).collect();
            let mut frame = Vec::new();
            StreamMessage::from(Resume { handle: Handle(1), outstanding }).put(&mut frame);
            let header = Header::from_bytes(frame[..HEADER_BYTES].try_into().unwrap());
            (header, frame[HEADER_BYTES..].to_vec())
        }
        _ => {
            let mut header = Header::default();
            header.kind.set(bytes.short() & 0x060f);
            let body = bytes.take(usize::from(header.kind.get() & 0xff)).to_vec();
            header.length.set(body.len() as u32);
            (header, body)
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let mut serve = Serve::new();
    let mut now = Tick(0);
    // What may still be sent to the home, by the home's count; `None` while no stream stands.
    let mut window: Option<u64> = None;
    let mut steps = 0;
    while !bytes.is_empty() && steps < 2000 {
        steps += 1;
        now.0 += bytes.number() % 100_000;
        let (mut home, mut out) = (Vec::new(), Vec::new());
        match bytes.byte() % 16 {
            0 => {
                serve.handle(now, Input::StreamUp(Handle(1)), &mut home, &mut out);
                window = Some(LEASE_WINDOW_BYTES);
            }
            1 if bytes.byte() % 4 == 0 => {
                serve.handle(now, Input::StreamDown, &mut home, &mut out);
                window = None;
            }
            2 => serve.handle(now, Input::WorkerReady, &mut home, &mut out),
            3 if bytes.byte() % 4 == 0 => {
                let running = Some(CallId(bytes.number() % 8)).filter(|_| bytes.byte() % 2 == 0);
                serve.handle(
                    now,
                    Input::WorkerGone { running, code: 5, cause: "é killed" },
                    &mut home,
                    &mut out,
                );
            }
            4 => serve.handle(now, Input::Time, &mut home, &mut out),
            5 | 6 => {
                let room = bytes.byte();
                let mut written = 0;
                let write = |header: &[u8], body: &[u8]| {
                    assert_eq!(header.len(), HEADER_BYTES);
                    assert!(body.len() <= DATA_BODY_MAX);
                    written += 1;
                    written <= room
                };
                serve.write_worker(now, write, &mut home);
            }
            7 | 8 => {
                let (header, body) = drawn(&mut bytes, Kind::Result);
                if serve.wants_worker_input() {
                    let (header, body) = (&header, &body[..]);
                    serve.handle(now, Input::FromWorker { header, body }, &mut home, &mut out);
                }
            }
            9 if bytes.byte() == 0 => {
                serve.handle(now, Input::LeaseEnds { running: None, cause: "over" }, &mut home, &mut out);
                break;
            }
            _ => {
                let (header, body) = from_home(&mut bytes);
                if window.is_none() {
                    continue;
                }
                if header.kind.get() == Kind::Credit as u16 {
                    window = window.map(|window| window.saturating_add(header.extent.get()));
                } else if header.kind.get() == Kind::Resume as u16 {
                    window = Some(LEASE_WINDOW_BYTES);
                }
                serve.handle(now, Input::FromHome { header: &header, body: &body }, &mut home, &mut out);
            }
        }
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        decoder.push(&home);
        while let Some((header, body)) = decoder.next_frame().expect("what it writes are frames") {
            if header.kind.get() == Kind::Result as u16 {
                let cost = (HEADER_BYTES + body.len()) as u64;
                let left = window.expect("results are for a stream that stands").checked_sub(cost);
                window = Some(left.expect("a result was sent without credit"));
            }
        }
        assert_eq!(decoder.pending(), 0);
        if out.iter().any(|output| matches!(output, Output::Violation(_))) {
            serve.handle(now, Input::StreamDown, &mut home, &mut out);
            window = None;
        }
        assert!(serve.calls() <= LEASE_CALLS_MAX as usize);
        // Arguments: a window and one large call. Results: what makes the worker wait, and one large one.
        let bound = LEASE_WINDOW_BYTES + CALL_BYTES_MAX + RETAINED_MAX + CALL_BYTES_MAX;
        assert!(serve.held_bytes() <= bound, "{} bytes are held", serve.held_bytes());
    }
});
