//! Large calls that the worker reads while they still arrive: cut off, cancelled, or with a worker that ends.

use mutirao_schedule::serve::{Input, Output, Serve};
use mutirao_wire::frame::{Decoder, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::stream::{
    CallExtent, Resume, StreamMessage, call_header, cancel_header, failure, failure_header, result_header,
};
use mutirao_wire::{CallId, Handle, Tick};
use proptest::prelude::*;

const LEASE: Handle = Handle(1);
const CALL: CallId = CallId(7);

/// A lender, with what its worker has read and what its home has heard.
struct Lender {
    serve: Serve,
    worker: Vec<(Header, Vec<u8>)>,
    home: Vec<(Header, Vec<u8>)>,
}

impl Lender {
    fn new() -> Lender {
        let mut lender = Lender { serve: Serve::new(), worker: Vec::new(), home: Vec::new() };
        lender.hear(Input::StreamUp(LEASE));
        lender.hear(Input::WorkerReady);
        lender
    }

    fn hear(&mut self, input: Input<'_>) {
        let (mut home, mut out) = (Vec::new(), Vec::new());
        self.serve.handle(Tick(0), input, &mut home, &mut out);
        assert!(!out.iter().any(|output| matches!(output, Output::Violation(_))), "{out:?}");
        self.fill(home);
    }

    fn fill(&mut self, mut home: Vec<u8>) {
        let worker = &mut self.worker;
        let write = |head: &[u8], body: &[u8]| {
            worker.push((Header::from_bytes(head.first_chunk().unwrap()), body.to_vec()));
            true
        };
        self.serve.write_worker(Tick(0), write, &mut home);
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        decoder.push(&home);
        while let Some((header, body)) = decoder.next_frame().unwrap() {
            self.home.push((header, body.to_vec()));
        }
    }

    /// The home sends `range` of the argument.
    fn part(&mut self, argument: &[u8], range: core::ops::Range<usize>) {
        let extent = CallExtent { bytes: argument.len() as u32, limit_ms: 0 };
        let more = range.end < argument.len();
        let header = call_header(LEASE, CALL, 0, extent, true, range.len(), more);
        self.hear(Input::FromHome { header: &header, body: &argument[range] });
    }

    fn answer(&mut self, header: Header, body: &[u8]) {
        self.hear(Input::FromWorker { header: &header, body });
    }

    /// The argument as the worker has it: what it was told to forget is not in it. With it, whether it is whole.
    fn argument(&self) -> (Vec<u8>, bool) {
        let (mut argument, mut whole) = (Vec::new(), false);
        for (header, body) in &self.worker {
            if header.kind.get() == Kind::Cancel as u16 {
                assert!(!whole, "a whole call is not taken back");
                argument.clear();
            } else {
                argument.extend_from_slice(body);
                whole = !header.has(flags::MORE);
            }
        }
        (argument, whole)
    }

    /// Those that the home heard did not start.
    fn not_started(&self) -> Vec<CallId> {
        let messages = self.home.iter().filter_map(|(header, body)| StreamMessage::read(header, body).ok());
        let ended = messages.filter_map(|message| match message {
            StreamMessage::WorkerEnded(ended) => Some(ended.not_started),
            _ => None,
        });
        ended.flatten().collect()
    }

    fn results(&self) -> Vec<(CallId, Option<u32>)> {
        let results = self.home.iter().filter(|(header, _)| header.kind.get() == Kind::Result as u16);
        let failed = |header: &Header| header.has(flags::FAILED).then(|| header.aux.get());
        results.map(|(header, _)| (CallId(header.sequence.get()), failed(header))).collect()
    }
}

fn argument() -> Vec<u8> {
    (0..200_000u32).map(|i| (i / 3) as u8).collect()
}

#[test]
fn a_worker_reads_while_the_rest_arrives() {
    let (mut lender, argument) = (Lender::new(), argument());
    lender.part(&argument, 0..60_000);
    assert_eq!(lender.argument(), (argument[..60_000].to_vec(), false));
    lender.part(&argument, 60_000..120_000);
    lender.part(&argument, 120_000..argument.len());
    assert_eq!(lender.argument(), (argument, true));
    lender.answer(result_header(Handle(0), CALL, 0, 0, false), &[]);
    assert_eq!(lender.results(), [(CALL, None)]);
}

#[test]
fn a_call_cancelled_while_it_arrives_is_taken_back_from_the_worker() {
    let (mut lender, argument) = (Lender::new(), argument());
    lender.part(&argument, 0..60_000);
    lender.hear(Input::FromHome { header: &cancel_header(LEASE, CALL), body: &[] });
    assert_eq!(lender.argument(), (Vec::new(), false));
    assert_eq!(lender.serve.deadline(), None, "what never runs needs no worker killed");
    assert_eq!(lender.results(), []);
    lender.answer(failure_header(Handle(0), CALL, failure::CANCELLED, 0), &[]);
    assert_eq!(lender.results(), [(CALL, Some(failure::CANCELLED))]);
}

#[test]
fn what_a_worker_had_in_part_when_it_ended_did_not_start_and_is_sent_again() {
    let (mut lender, argument) = (Lender::new(), argument());
    let ended = Input::WorkerGone { running: None, code: failure::WORKER_ENDED, cause: "it ended" };
    lender.part(&argument, 0..60_000);
    lender.hear(ended);
    assert_eq!(lender.not_started(), [], "more of it is on its way");
    lender.part(&argument, 60_000..120_000);
    lender.worker.clear();
    lender.hear(Input::WorkerReady);
    lender.part(&argument, 120_000..argument.len());
    assert_eq!(lender.not_started(), [CALL]);
    assert_eq!((lender.worker.len(), lender.serve.held_bytes(), lender.serve.calls()), (0, 0, 0));
    for start in (0..argument.len()).step_by(40_000) {
        lender.part(&argument, start..start + 40_000);
    }
    assert_eq!(lender.argument(), (argument, true));
}

#[test]
fn what_came_for_a_worker_that_had_none_of_it_is_for_the_next() {
    let (mut lender, argument) = (Lender::new(), argument());
    lender.hear(Input::WorkerGone { running: None, code: failure::WORKER_ENDED, cause: "it ended" });
    lender.part(&argument, 0..60_000);
    lender.hear(Input::WorkerReady);
    lender.part(&argument, 60_000..argument.len());
    assert_eq!((lender.argument(), lender.not_started()), ((argument, true), vec![]));
}

#[test]
fn a_call_cancelled_after_its_worker_ended_is_cancelled_at_once() {
    let (mut lender, argument) = (Lender::new(), argument());
    lender.part(&argument, 0..60_000);
    lender.hear(Input::WorkerGone { running: None, code: failure::WORKER_ENDED, cause: "it ended" });
    lender.hear(Input::FromHome { header: &cancel_header(LEASE, CALL), body: &[] });
    assert_eq!(lender.results(), [(CALL, Some(failure::CANCELLED))]);
    lender.worker.clear();
    lender.hear(Input::WorkerReady);
    assert_eq!(lender.worker.len(), 0, "the next worker has nothing to forget");
}

#[test]
fn parts_that_add_up_too_early_are_refused() {
    let argument = argument();
    let extent = CallExtent { bytes: 1000, limit_ms: 0 };
    let mut lender = Lender::new();
    let header = call_header(LEASE, CALL, 0, extent, true, 1000, true);
    let (mut home, mut out) = (Vec::new(), Vec::new());
    let input = Input::FromHome { header: &header, body: &argument[..1000] };
    lender.serve.handle(Tick(0), input, &mut home, &mut out);
    assert!(matches!(out[..], [Output::Violation(_)]));
}

proptest! {
    #[test]
    fn a_call_cut_anywhere_is_sent_again_and_runs_once(cut in 1usize..200_000, late in any::<bool>()) {
        let (mut lender, argument) = (Lender::new(), argument());
        let parts = |lender: &mut Lender, whole: &[u8], up_to: usize| {
            for start in (0..up_to).step_by(DATA_BODY_MAX) {
                lender.part(whole, start..(start + DATA_BODY_MAX).min(up_to));
            }
        };
        parts(&mut lender, &argument, cut.min(argument.len() - 1));
        lender.hear(Input::StreamDown);
        if !late {
            // The worker has answered that it forgot the part before the home is back.
            lender.answer(failure_header(Handle(0), CALL, failure::CANCELLED, 0), &[]);
        }
        lender.hear(Input::StreamUp(LEASE));
        let mut resume = Vec::new();
        StreamMessage::from(Resume { handle: LEASE, outstanding: vec![CALL] }).put(&mut resume);
        let mut decoder = Decoder::new(DATA_BODY_MAX);
        decoder.push(&resume);
        let (header, body) = decoder.next_frame().unwrap().unwrap();
        lender.home.clear();
        lender.hear(Input::FromHome { header: &header, body });
        let (header, body) = &lender.home[0];
        let StreamMessage::Resumed(resumed) = StreamMessage::read(header, body).unwrap() else { panic!() };
        prop_assert_eq!(resumed.unknown, vec![CALL]);
        parts(&mut lender, &argument, argument.len());
        prop_assert_eq!(lender.argument(), (argument, true));
        if late {
            lender.answer(failure_header(Handle(0), CALL, failure::CANCELLED, 0), &[]);
        }
        prop_assert_eq!(lender.results(), vec![]);
        lender.answer(result_header(Handle(0), CALL, 0, 0, false), &[]);
        prop_assert_eq!(lender.results(), vec![(CALL, None)]);
    }
}

/// Found by the seed 651 with calls: that call failed of a limit that it did not have.
#[test]
fn a_call_hit_instead_of_one_that_was_just_over_runs_again_or_fails_as_what_it_is() {
    for repeatable in [true, false] {
        let mut lender = Lender::new();
        let extent = CallExtent { bytes: 0, limit_ms: 0 };
        let header = call_header(LEASE, CALL, 0, extent, repeatable, 0, false);
        lender.hear(Input::FromHome { header: &header, body: &[] });
        let (running, code) = (Some(CALL), failure::TIME_LIMIT);
        lender.hear(Input::WorkerGone { running, code, cause: "its time limit passed" });
        let failures = lender.home.iter().filter(|(header, _)| header.has(flags::FAILED));
        let failures: Vec<u32> = failures.map(|(header, _)| header.aux.get()).collect();
        let ended = lender.home.iter().find_map(|(header, body)| match StreamMessage::read(header, body) {
            Ok(StreamMessage::WorkerEnded(ended)) => Some(ended.not_started),
            _ => None,
        });
        match repeatable {
            true => assert_eq!((failures, ended), (vec![], Some(vec![CALL]))),
            false => assert_eq!((failures, ended), (vec![failure::WORKER_ENDED], Some(vec![]))),
        }
    }
}
