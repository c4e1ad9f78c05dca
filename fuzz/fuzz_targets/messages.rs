//! Every message of every family: what is read is written and read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_fuzz::Bytes;
use mutirao_wire::bag::MemberMessage;
use mutirao_wire::frame::{Decoder, HEADER_BYTES, Header};
use mutirao_wire::lease::LeaseMessage;
use mutirao_wire::limits::DATA_BODY_MAX;
use mutirao_wire::link::LinkMessage;
use mutirao_wire::local::LocalMessage;
use mutirao_wire::pipe::{PipeBinding, PipeMessage, PipeOrder};
use mutirao_wire::plugin::PluginMessage;
use mutirao_wire::query::Order;
use mutirao_wire::session::{self, FromKeeper, ToKeeper};
use mutirao_wire::stream::{StreamMessage, put_aside, read_aside};
use mutirao_wire::tree::TreeMessage;
use mutirao_wire::worker::{LineMessage, WorkerMessage};

macro_rules! families {
    ($header:expr, $body:expr, $($family:ident)*) => {$(
        if let Ok(message) = $family::read($header, $body) {
            assert!($family::has_kind($header.kind.get()));
            let mut frame = Vec::new();
            message.put(&mut frame);
            // Not longer than what was read: the encoding written is the shortest.
            assert!(frame.len() <= HEADER_BYTES + $body.len());
            let mut decoder = Decoder::new(DATA_BODY_MAX);
            decoder.push(&frame);
            let (header, body) = decoder.next_frame().unwrap().unwrap();
            assert_eq!($family::read(&header, body).unwrap(), message);
            let _ = format!("{message:?}");
        }
    )*};
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = Bytes(data);
    let mut header = Header::default();
    // The group, then the number in it, so that all kinds are found soon.
    header.kind.set(u16::from(bytes.byte() % 10) << 8 | u16::from(bytes.byte() % 16));
    header.flags.set(u16::from(bytes.byte()));
    let body = bytes.0;
    if body.len() > DATA_BODY_MAX {
        return;
    }
    header.length.set(body.len() as u32);
    families!(&header, body, LinkMessage TreeMessage LeaseMessage PluginMessage StreamMessage LocalMessage LineMessage WorkerMessage
        PipeMessage PipeOrder PipeBinding MemberMessage);
    if let Some(part) = read_aside(&header, body) {
        assert!(part.body_len() <= DATA_BODY_MAX);
        let mut frame = Vec::new();
        put_aside(&mut frame, part);
        assert_eq!(frame, [header.bytes(), body].concat());
    }
    if let Ok(message) = session::decode::<ToKeeper>(body) {
        assert_eq!(session::decode(&session::encode(&message)[4..]), Ok(message));
    }
    if let Ok(message) = session::decode::<FromKeeper>(body) {
        assert_eq!(session::decode(&session::encode(&message)[4..]), Ok(message));
    }
    let question = mutirao_wire::query::Question {
        to: None,
        user: String::new(),
        order: Vec::new(),
        topic: mutirao_wire::query::Topic::Nodes,
    };
    let _ = Order::matches(body, &question, 1_700_000_000_000);
});
