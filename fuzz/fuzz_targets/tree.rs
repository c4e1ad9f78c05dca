//! A node's machine, fed with messages of the tree and about leases from three peers that say whatever
//! they like: no panic, no more slots lent than there are, no message over a link that does not stand,
//! and every frame within the limit of a control connection.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_tree::{Accept, Capacity, Core, Input, Output, Policy, Settings, Verified};
use mutirao_wire::frame::{HEADER_BYTES, Header};
use mutirao_wire::lease::LeaseMessage;
use mutirao_wire::limits::CONTROL_BODY_MAX;
use mutirao_wire::node::Arch;
use mutirao_wire::tree::TreeMessage;
use mutirao_wire::{Incarnation, NodeId, NodeRef, Tick};
use std::collections::BTreeSet;

const SLOTS: u16 = 4;

fn node(tag: u8) -> NodeRef {
    let addresses = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 7000 + u16::from(tag)))];
    NodeRef { id: NodeId([tag; 32]), incarnation: Incarnation(1), name: format!("n{tag}"), addresses }
}

fn core() -> Core {
    let capacity = Capacity {
        slots: SLOTS,
        memory_mib: 1024,
        resources: Vec::new(),
        arch: Arch::X86_64,
        libc: Some((2, 36)),
        labels: Vec::new(),
    };
    let policy = Policy { accept: Accept::All, ..Policy::default() };
    Core::new(node(0), Settings::default(), capacity, policy, Box::new(|_| Verified::Local))
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let mut core = core();
    let mut now = Tick(1);
    let mut links = BTreeSet::new();
    let mut out = Vec::new();
    let mut steps = 0;
    while !bytes.is_empty() && steps < 500 {
        steps += 1;
        now.0 += bytes.number() % 3_000_000;
        let peer = NodeId([1 + bytes.byte() % 3; 32]);
        let mut header = Header::default();
        let input = match bytes.byte() % 8 {
            0 => {
                links.insert(peer);
                Input::LinkUp(node(peer.0[0]))
            }
            1 if bytes.byte() % 4 == 0 => {
                links.remove(&peer);
                Input::LinkDown(peer)
            }
            2 => Input::Join { to: vec![node(peer.0[0])], here: bytes.byte() % 2 == 0 },
            3 => Input::Time,
            choice => {
                let length = usize::from(bytes.short()) % 2048;
                let group = if choice < 6 { 0x0100 } else { 0x0200 };
                header.kind.set(group | u16::from(bytes.byte() % 16));
                let body = bytes.take(length);
                if !links.contains(&peer) {
                    continue;
                }
                match (TreeMessage::read(&header, body), LeaseMessage::read(&header, body)) {
                    (Ok(message), _) => Input::Tree { from: peer, message },
                    (_, Ok(message)) => Input::Lease { from: peer, message },
                    _ => continue,
                }
            }
        };
        core.handle(now, input, &mut out);
        let mut answers = Vec::new();
        for output in out.drain(..) {
            match output {
                Output::Send { to, message } => {
                    assert!(links.contains(&to), "{message:?} to {to}, with whom no link stands");
                    let mut frame = Vec::new();
                    message.put(&mut frame);
                    assert!(
                        frame.len() <= HEADER_BYTES + CONTROL_BODY_MAX,
                        "{} bytes: {message:?}",
                        frame.len()
                    );
                }
                Output::Finish { serial, .. } => answers.push(Input::Gone { serial }),
                Output::Answer { id, .. } => answers.push(Input::Answered { id, rows: Vec::new() }),
                _ => {}
            }
        }
        for answer in answers {
            core.handle(now, answer, &mut out);
        }
        out.clear();
        let (free, total) = core.slots();
        assert!(free <= total && total == SLOTS);
        let lent: u32 = core.granted().map(|lease| u32::from(lease.bundle.slots)).sum();
        assert!(lent + u32::from(free) <= u32::from(total), "{lent} lent and {free} free of {total}");
    }
});
