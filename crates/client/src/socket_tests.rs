//! `socket` alone: it is part of an integration test too, so its own tests lie here.

use crate::socket::{Received, Socket};
use mutirao_ring::{Bell, RingMemory, lane_reader};
use mutirao_wire::Handle;
use mutirao_wire::frame::Header;
use mutirao_wire::kind::Kind;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::local::{GiveBack, LocalMessage};
use mutirao_wire::stream::read_aside;
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

#[test]
fn a_frame_is_sent_only_once_its_body_is_in_the_lane() {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    let (mut a, mut b) = (Socket::new(a), Socket::new(b));
    let memory = RingMemory::create(128 * 1024).unwrap();
    let (bell, ringer) = Bell::pair().unwrap();
    let mut lane = lane_reader(&memory, ringer).unwrap();
    a.open_lane(memory.into_fd(), bell.into_fd()).unwrap();
    let large: Arc<Vec<u8>> = Arc::new((0..DATA_BODY_MAX * 8).map(|i| (i / 7) as u8).collect());
    let mut sent = Vec::new();
    for i in 0..40usize {
        let range = i * 1000..i * 1000 + (i * 7919) % DATA_BODY_MAX;
        let mut header = Header::new(Kind::Call, range.len());
        header.sequence = (i as u64).into();
        match i % 4 {
            0 => {
                let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
                a.attach(vec![file]);
                mutirao_wire::frame::put_frame(a.out(), header, &large[range.clone()]);
            }
            1 => {
                a.out().extend_from_slice(header.bytes());
                a.append(large.clone(), range.clone());
            }
            _ if a.put_aside(header, &large[range.clone()]) => {}
            _ => a.append_aside(header, large.clone(), range.clone()),
        }
        sent.push(range);
    }
    let (mut came, mut waited) = (0, 0);
    while came < sent.len() {
        if !a.flush().unwrap() && !a.awaits_reader() {
            waited += 1;
        }
        if b.receive().unwrap() != Received::Some {
            // All that waits does so for room, which there is: then the bell has rung.
            assert!(a.lane_bell().unwrap().wait(None).unwrap());
            continue;
        }
        while let Some((header, body)) = b.next_frame().unwrap() {
            assert_eq!(header.sequence.get() as usize, came);
            let mut aside = Vec::new();
            let body = match read_aside(&header, body) {
                Some(header) => {
                    assert_eq!(lane.read_to(&mut aside, header.body_len()).unwrap(), header.body_len());
                    &aside
                }
                None => body,
            };
            assert_eq!(body, &large[sent[came].clone()]);
            came += 1;
        }
    }
    assert_eq!((a.flush(), a.unsent()), (Ok(true), 0));
    assert!(waited > 0, "the lane was never full");
    assert!(b.take_fds(10).is_some());
}
