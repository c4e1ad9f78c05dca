//! Calls a second through `Hold` alone and through `Serve` alone, on one core, without any I/O.

use mutirao_schedule::hold::{Call, Hold, Input, Options, Output};
use mutirao_schedule::serve::{self, Serve};
use mutirao_wire::frame::{HEADER_BYTES, Header};
use mutirao_wire::stream::{self, CallExtent};
use mutirao_wire::{CallId, Handle, Tick};
use std::time::Instant;

const CALLS: usize = 4_000_000;

fn main() {
    for leases in [1, 8, 205, 2000] {
        let per_s = hold(leases);
        println!("hold, {leases} leases: {per_s:.0} calls/s");
    }
    println!("serve: {:.0} calls/s", serve());
}

/// Submits, places, and answers in bunches of 256, as a library under load does.
fn hold(leases: u32) -> f64 {
    let mut hold = Hold::new(Options::default());
    let mut out = Vec::new();
    for handle in (0..leases).map(Handle) {
        hold.handle(Tick(0), Input::LeaseAdded { handle, local: false }, &mut out);
        hold.handle(Tick(0), Input::LeaseReady { handle, room: 0 }, &mut out);
    }
    let call = Call { operation: 0, bytes: 8, repeatable: false, limit_ms: 0, only: None };
    let (mut submitted, mut done) = (0, 0);
    let mut at_leases = std::collections::VecDeque::new();
    let begin = Instant::now();
    while done < CALLS {
        let now = Tick(begin.elapsed().as_micros() as u64);
        while submitted < CALLS && submitted - done < 4096 {
            hold.submit(call.clone()).expect("fewer than the limit");
            submitted += 1;
        }
        hold.place(now, &mut out);
        for output in out.drain(..) {
            if let Output::Send(part) = output {
                at_leases.push_back(part);
            }
        }
        for part in at_leases.drain(..at_leases.len().min(256)) {
            let bytes = HEADER_BYTES as u64 + u64::from(part.bytes);
            done += usize::from(hold.result(now, part.handle, part.call, None, &mut out));
            hold.handle(now, Input::Credit { handle: part.handle, bytes }, &mut out);
        }
    }
    CALLS as f64 / begin.elapsed().as_secs_f64()
}

/// Calls from the home into the ring, results from the worker to the home, acknowledged in bunches.
fn serve() -> f64 {
    let mut serve = Serve::new();
    let (mut home, mut out) = (Vec::new(), Vec::new());
    serve.handle(Tick(0), serve::Input::StreamUp(Handle(1)), &mut home, &mut out);
    serve.handle(Tick(0), serve::Input::WorkerReady, &mut home, &mut out);
    let extent = CallExtent { bytes: 8, limit_ms: 0 };
    let mut ring = Vec::new();
    let mut acknowledged = Vec::new();
    let begin = Instant::now();
    for first in (0..CALLS as u64).step_by(256) {
        let now = Tick(begin.elapsed().as_micros() as u64);
        for id in first..first + 256 {
            let header = stream::call_header(Handle(1), CallId(id), 0, extent, false, 8, false);
            let input = serve::Input::FromHome { header: &header, body: &[7; 8] };
            serve.handle(now, input, &mut home, &mut out);
        }
        let write = |header: &[u8], body: &[u8]| {
            ring.extend_from_slice(header);
            ring.extend_from_slice(body);
            true
        };
        serve.write_worker(now, write, &mut home);
        acknowledged.clear();
        for frame in ring.as_chunks::<{ HEADER_BYTES + 8 }>().0 {
            let id = Header::from_bytes(frame.first_chunk().expect("the chunk is longer")).sequence.get();
            let header = stream::result_header(Handle(1), CallId(id), 8, 8, false);
            let input = serve::Input::FromWorker { header: &header, body: &[9; 8] };
            serve.handle(now, input, &mut home, &mut out);
            acknowledged.extend_from_slice(&id.to_le_bytes());
        }
        ring.clear();
        let header = stream::credit_header(Handle(1), 256 * (HEADER_BYTES as u64 + 8), 256);
        serve.handle(
            now,
            serve::Input::FromHome { header: &header, body: &acknowledged },
            &mut home,
            &mut out,
        );
        assert!(out.is_empty() && !home.is_empty(), "{out:?}");
        home.clear();
    }
    CALLS as f64 / begin.elapsed().as_secs_f64()
}
