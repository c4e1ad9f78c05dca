//! `socket` alone: it is part of an integration test too, so its own tests lie here.

use crate::socket::{Received, Socket};
use mutirao_wire::Handle;
use mutirao_wire::frame::Header;
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::local::{GiveBack, LocalMessage};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::{Read, Write};
use std::sync::Arc;

#[test]
fn frames_and_descriptors_arrive_in_order() {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let (mut a, mut b) = (Socket::new(a), Socket::new(b));
    for i in 0..3u32 {
        let mut file =
            std::fs::File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.write_all(&[i as u8]).unwrap();
        a.attach(vec![file.into()]);
        LocalMessage::from(GiveBack { handles: vec![Handle(i)] }).put(a.out());
        LocalMessage::from(GiveBack { handles: vec![] }).put(a.out());
    }
    assert_eq!(a.flush(), Ok(true));
    drop(a);
    let mut seen = 0;
    while b.receive().unwrap() == Received::Some {
        while let Some((header, body)) = b.next_frame().unwrap() {
            let LocalMessage::GiveBack(message) = LocalMessage::read(&header, body).unwrap() else {
                panic!()
            };
            let Some(handle) = message.handles.first() else { continue };
            let file = b.take_fds(1).unwrap().remove(0);
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
            let mut byte = [0];
            std::fs::File::from(file).read_exact(&mut byte).unwrap();
            assert_eq!(u32::from(byte[0]), handle.0);
            seen += 1;
        }
    }
    assert_eq!(seen, 3);
    assert!(b.take_fds(1).is_none());
}

#[test]
fn bytes_that_are_not_copied_keep_their_place_among_the_others() {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let (mut a, mut b) = (Socket::new(a), Socket::new(b));
    let large: Arc<Vec<u8>> = Arc::new((0..DATA_BODY_MAX * 8).map(|i| (i / 7) as u8).collect());
    let mut sent = Vec::new();
    for i in 0..40usize {
        let length = (i * 7919) % DATA_BODY_MAX;
        let range = i * 1000..i * 1000 + length;
        if i % 3 == 0 {
            let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
            a.attach(vec![file]);
        }
        let mut header = Header::new(Kind::Call, length);
        header.sequence = (i as u64).into();
        a.out().extend_from_slice(header.bytes());
        if i % 2 == 0 {
            a.append(large.clone(), range.clone());
        } else {
            a.out().extend_from_slice(&large[range.clone()]);
        }
        sent.push(range);
    }
    let mut came = 0;
    while came < sent.len() {
        // The socket takes only some at a time.
        let _ = a.flush().unwrap();
        if b.receive().unwrap() != Received::Some {
            continue;
        }
        while let Some((header, body)) = b.next_frame().unwrap() {
            assert_eq!(header.sequence.get() as usize, came);
            assert_eq!(body, &large[sent[came].clone()]);
            came += 1;
        }
    }
    assert_eq!(a.unsent(), 0);
    assert!(b.take_fds(14).is_some());
}
