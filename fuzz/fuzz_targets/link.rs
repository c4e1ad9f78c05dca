//! The handshake and the beats, from both ends, fed with frames and events in any order: a link comes up
//! at most once, ends at most once, and says nothing after its end.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_wire::frame::{Decoder, Header};
use mutirao_wire::limits::PROTOCOL;
use mutirao_wire::link::{
    Input, Link, LinkMessage, Me, Output, Pace, Purpose, Refuse, RefuseReason, Welcome,
};
use mutirao_wire::{Incarnation, NodeId, NodeRef, PoolId, Tick};

fn node(tag: u8) -> NodeRef {
    NodeRef {
        id: NodeId([tag; 32]),
        incarnation: Incarnation(1),
        name: format!("n{tag}"),
        addresses: Vec::new(),
    }
}

fn me(tag: u8) -> Me {
    Me {
        node: node(tag),
        pool: PoolId([9; 32]),
        machine: [tag; 16],
        protocol: PROTOCOL,
        pace: Pace::default(),
    }
}

/// A frame that is mostly what might come, with some of it replaced.
fn frame(bytes: &mut Bytes<'_>) -> (Header, Vec<u8>) {
    let who = bytes.byte() % 4;
    let protocol = (bytes.short() % 4, bytes.short() % 4);
    let message = match bytes.byte() % 4 {
        0 => LinkMessage::Hello(mutirao_wire::link::Hello {
            protocol,
            pool: PoolId([if bytes.byte() == 0 { 8 } else { 9 }; 32]),
            node: node(who),
            purpose: if bytes.byte() % 2 == 0 { Purpose::Control } else { Purpose::Data },
            machine: [who; 16],
        }),
        1 => LinkMessage::Welcome(Welcome { protocol: protocol.0, node: node(who), machine: [who; 16] }),
        2 => LinkMessage::Refuse(Refuse { reason: RefuseReason::Full }),
        _ => LinkMessage::Beat(mutirao_wire::link::Beat {}),
    };
    let mut whole = Vec::new();
    message.put(&mut whole);
    if bytes.byte() % 4 == 0 && !whole.is_empty() {
        let at = usize::from(bytes.short()) % whole.len();
        whole[at] = bytes.byte();
    }
    let mut decoder = Decoder::new(1 << 16);
    decoder.push(&whole);
    match decoder.next_frame() {
        Ok(Some((header, body))) => (header, body.to_vec()),
        _ => (Header::default(), bytes.take(8).to_vec()),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let (me, dialled) = (me(1), bytes.byte() % 2 == 0);
    let mut link =
        Link::new(Tick(0), dialled, if bytes.byte() % 2 == 0 { Purpose::Control } else { Purpose::Data });
    let (mut now, mut ups, mut downs, mut opened, mut greeted) = (Tick(0), 0, 0, false, false);
    let mut out = Vec::new();
    while !bytes.is_empty() {
        now.0 += bytes.number() % 1_000_000;
        let held;
        let input = match bytes.byte() % 8 {
            // A connection opens once.
            0 if !opened => Input::Opened { peer: NodeId([bytes.byte() % 4; 32]) },
            0 => Input::Time,
            1 | 2 => {
                held = frame(&mut bytes);
                Input::Frame(&held.0, &held.1)
            }
            3 => Input::Heard,
            4 => Input::Sent,
            // Its owner answers a greeting, and says nothing of the kind otherwise.
            5 if greeted => Input::Accept,
            5 => Input::Time,
            6 => Input::Refuse(RefuseReason::Denied { why: "fuzzed".into() }),
            _ if bytes.byte() % 8 == 0 => Input::Closed,
            _ => Input::Time,
        };
        let ended = downs > 0;
        opened |= matches!(input, Input::Opened { .. });
        greeted &= !matches!(input, Input::Accept);
        link.handle(now, &me, input, &mut out);
        assert!(!ended || out.is_empty(), "a link that ended says {out:?}");
        for output in out.drain(..) {
            match output {
                Output::Up { peer, .. } => {
                    assert_ne!(peer.id, me.node.id);
                    ups += 1;
                }
                Output::Down(_) => downs += 1,
                Output::Greeted(_) => greeted = true,
                Output::Send(_) => {}
            }
        }
        assert!(ups <= 1 && downs <= 1);
        assert_eq!(link.is_up(), ups == 1 && downs == 0);
        assert!(downs == 0 || link.deadline(&me.pace).is_none());
    }
});
