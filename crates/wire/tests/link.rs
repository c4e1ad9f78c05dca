//! The link machine, one pair at a time, through the real codec.

use mutirao_wire::frame::{Decoder, FrameError};
use mutirao_wire::limits::{BEAT, CONTROL_BODY_MAX, HANDSHAKE, SILENCE};
use mutirao_wire::link::{Input, Link, LinkEnd, Me, Output, Pace, Purpose, RefuseReason};
use mutirao_wire::{Incarnation, NodeId, NodeRef, PoolId, Tick};
use std::time::Duration;

fn me(tag: u8) -> Me {
    Me {
        node: NodeRef {
            id: NodeId([tag; 32]),
            incarnation: Incarnation(1),
            name: format!("n{tag}"),
            addresses: vec![],
        },
        pool: PoolId([9; 32]),
        machine: [tag; 16],
        protocol: (1, 1),
        pace: Pace::default(),
    }
}

/// Two ends of one connection, and what each has said.
struct Pair {
    now: Tick,
    ends: [(Me, Link, Vec<Output>); 2],
}

impl Pair {
    fn new(dialler: Me, listener: Me) -> Pair {
        let now = Tick(1_000_000);
        let end = |me: Me, dials| (me, Link::new(now, dials, Purpose::Control), Vec::new());
        Pair { now, ends: [end(dialler, true), end(listener, false)] }
    }

    fn open(&mut self) {
        for i in [1, 0] {
            let peer = self.ends[1 - i].0.node.id;
            self.feed(i, Input::Opened { peer });
        }
    }

    fn feed(&mut self, i: usize, input: Input<'_>) {
        let (me, link, out) = &mut self.ends[i];
        link.handle(self.now, me, input, out);
    }

    /// Carries what was sent until nothing more is; acceptance is automatic.
    fn settle(&mut self) -> [Vec<Output>; 2] {
        let mut said = [Vec::new(), Vec::new()];
        loop {
            let mut quiet = true;
            for i in [0, 1] {
                for output in core::mem::take(&mut self.ends[i].2) {
                    quiet = false;
                    match &output {
                        Output::Send(message) => {
                            let mut bytes = Vec::new();
                            message.put(&mut bytes);
                            let mut decoder = Decoder::new(CONTROL_BODY_MAX);
                            decoder.push(&bytes);
                            let (header, body) = decoder.next_frame().unwrap().unwrap();
                            self.feed(1 - i, Input::Frame(&header, body));
                        }
                        Output::Greeted(_) => self.feed(i, Input::Accept),
                        _ => {}
                    }
                    said[i].push(output);
                }
            }
            if quiet {
                return said;
            }
        }
    }

    fn wait(&mut self, span: Duration) {
        self.now = self.now + span;
        self.feed(0, Input::Time);
        self.feed(1, Input::Time);
    }
}

fn end_of(said: &[Output]) -> Option<&LinkEnd> {
    said.iter().find_map(|output| match output {
        Output::Down(end) => Some(end),
        _ => None,
    })
}

#[test]
fn two_nodes_of_one_pool_link_and_beat_for_ever() {
    let mut pair = Pair::new(me(1), me(2));
    pair.open();
    let said = pair.settle();
    for (i, said) in said.iter().enumerate() {
        let other = pair.ends[1 - i].0.node.clone();
        assert!(said.iter().any(|o| matches!(o, Output::Up { peer, .. } if *peer == other)));
    }
    for _ in 0..100 {
        pair.wait(BEAT);
        let said = pair.settle();
        assert!(said.iter().all(|said| said.len() == 1 && end_of(said).is_none()));
    }
}

#[test]
fn a_link_that_stalls_without_closing_is_lost() {
    let mut pair = Pair::new(me(1), me(2));
    pair.open();
    pair.settle();
    for _ in 0..3 {
        pair.now = pair.now + BEAT;
        pair.feed(0, Input::Time);
        pair.ends[0].2.retain(|output| !matches!(output, Output::Send(_)));
    }
    pair.feed(1, Input::Time);
    assert_eq!(end_of(&pair.ends[1].2), Some(&LinkEnd::Silent(SILENCE)));
    assert!(pair.now - Tick(1_000_000) >= SILENCE);
}

#[test]
fn another_pool_is_refused_by_name_on_both_sides() {
    let mut stranger = me(1);
    stranger.pool = PoolId([7; 32]);
    let mut pair = Pair::new(stranger, me(2));
    pair.open();
    let said = pair.settle();
    let reason = RefuseReason::OtherPool { ours: PoolId([9; 32]), theirs: PoolId([7; 32]) };
    assert_eq!(end_of(&said[1]), Some(&LinkEnd::Refused(reason.clone())));
    assert_eq!(end_of(&said[0]), Some(&LinkEnd::RefusedByPeer(reason)));
}

#[test]
fn versions_that_overlap_agree_and_others_are_told() {
    let mut newer = me(1);
    newer.protocol = (1, 2);
    let mut pair = Pair::new(newer.clone(), me(2));
    pair.open();
    assert!(pair.settle().iter().all(|said| end_of(said).is_none()));

    newer.protocol = (2, 3);
    let mut pair = Pair::new(newer, me(2));
    pair.open();
    let said = pair.settle();
    let text = end_of(&said[0]).unwrap().to_string();
    assert!(text.contains("2-3") && text.contains("1-1"), "{text}");
}

#[test]
fn a_certificate_of_somebody_else_is_refused() {
    let mut pair = Pair::new(me(1), me(2));
    pair.feed(1, Input::Opened { peer: NodeId([3; 32]) });
    pair.feed(0, Input::Opened { peer: NodeId([2; 32]) });
    let said = pair.settle();
    assert_eq!(end_of(&said[1]), Some(&LinkEnd::Refused(RefuseReason::NotItself)));
}

#[test]
fn a_node_does_not_link_to_itself() {
    let mut pair = Pair::new(me(1), me(1));
    pair.open();
    assert_eq!(end_of(&pair.settle()[1]), Some(&LinkEnd::Refused(RefuseReason::Itself)));
}

#[test]
fn a_silent_dialler_is_given_up() {
    let mut pair = Pair::new(me(1), me(2));
    pair.feed(1, Input::Opened { peer: NodeId([1; 32]) });
    assert_eq!(pair.ends[1].1.deadline(&Pace::default()), Some(pair.now + HANDSHAKE));
    pair.wait(HANDSHAKE);
    assert_eq!(end_of(&pair.ends[1].2), Some(&LinkEnd::HandshakeTimeout(HANDSHAKE)));
    assert_eq!(pair.ends[1].1.deadline(&Pace::default()), None);
}

#[test]
fn a_second_hello_breaks_the_protocol() {
    let mut pair = Pair::new(me(1), me(2));
    pair.open();
    let hello = pair.ends[0].2.clone();
    pair.settle();
    pair.ends[0].2.extend(hello);
    let said = pair.settle();
    assert!(matches!(end_of(&said[1]), Some(LinkEnd::Protocol(FrameError::OutOfPlace { .. }))));
}
