//! Whatever a home or a worker sends, `serve` does not panic and holds no more than it may.

use mutirao_schedule::serve::{Input, RETAINED_MAX, Serve};
use mutirao_wire::frame::Header;
use mutirao_wire::limits::{CALL_BYTES_MAX, LEASE_WINDOW_BYTES};
use mutirao_wire::{CallId, Handle, Tick};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_frames_are_served_or_refused(
        frames in prop::collection::vec(
            (0u8..4, 0x0401u16..0x040c, 0u16..16, 0u64..6, prop_oneof![0u64..80, any::<u64>()], 0usize..70),
            1..200,
        ),
    ) {
        let mut serve = Serve::new();
        let (mut home, mut out) = (Vec::new(), Vec::new());
        serve.handle(Tick(0), Input::StreamUp(Handle(1)), &mut home, &mut out);
        serve.handle(Tick(0), Input::WorkerReady, &mut home, &mut out);
        for (at, (what, kind, flags, sequence, extent, length)) in frames.into_iter().enumerate() {
            let now = Tick(at as u64 * 1000);
            let body = vec![sequence as u8; length];
            let header = Header {
                length: (length as u32).into(),
                kind: kind.into(),
                flags: flags.into(),
                handle: 1.into(),
                aux: ((length / 8) as u32).into(),
                sequence: sequence.into(),
                extent: extent.into(),
            };
            let (header, body) = (&header, body.as_slice());
            let running = Some(CallId(sequence));
            match what {
                0 | 1 => serve.handle(now, Input::FromHome { header, body }, &mut home, &mut out),
                2 => serve.handle(now, Input::FromWorker { header, body }, &mut home, &mut out),
                _ if length < 20 => serve.withdraw(|place| place % 2 == 0, &mut home),
                _ if length < 60 => serve.write_worker(now, |_, _| length % 3 > 0, &mut home),
                _ if length < 64 => {
                    let input = Input::WorkerGone { running, code: 5, cause: "é" };
                    serve.handle(now, input, &mut home, &mut out);
                    serve.handle(now, Input::WorkerReady, &mut home, &mut out);
                }
                _ => serve.handle(now, Input::StreamUp(Handle(2)), &mut home, &mut out),
            }
            let bound = 2 * LEASE_WINDOW_BYTES + RETAINED_MAX + 2 * CALL_BYTES_MAX;
            prop_assert!(serve.held_bytes() <= bound);
        }
    }
}
