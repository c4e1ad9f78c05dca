//! `socket` alone: it is part of an integration test too, so its own tests lie here.

use crate::socket::{Received, Socket};
use mutirao_wire::Handle;
use mutirao_wire::local::{GiveBack, LocalMessage};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::io::{Read, Write};

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
