//! Who may link to a node, and what becomes of the others.

#[allow(dead_code)] // Made for all tests of this crate.
mod common;

use common::{PATIENCE, Pool, Program, Running};
use mutirao_trust::{Admit, Home, Identity, Name, Role, server_name};
use mutirao_wire::frame::{Decoder, Header, put_frame};
use mutirao_wire::limits::{CONTROL_BODY_MAX, PROTOCOL};
use mutirao_wire::link::{Hello, LinkMessage, Purpose, RefuseReason, Welcome};
use mutirao_wire::pipe::{
    BindPipe, JoinPipe, PipeBinding, PipeNews, PipeOrder, PipePlace, PipeState, PipeUnbound, pipe_header,
};
use mutirao_wire::{AppId, Epoch, Handle, Incarnation, NodeRef};
use rustls::{ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpStream;

/// A node of the tests' own making, at the other end of an encrypted connection.
struct Stranger {
    stream: StreamOwned<ClientConnection, TcpStream>,
    decoder: Decoder,
    hello: Hello,
}

impl Stranger {
    fn dial(pool: &Pool, identity: &Identity, to: &Running) -> Stranger {
        let stream = TcpStream::connect(to.node.addresses[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let config = identity.client_config(None, Admit::all()).unwrap();
        let tls = ClientConnection::new(config, server_name(pool.id())).unwrap();
        let me = identity.me();
        let node = NodeRef {
            id: me.node,
            incarnation: Incarnation(1),
            name: me.name.as_str().into(),
            addresses: Vec::new(),
        };
        let hello =
            Hello { protocol: PROTOCOL, pool: pool.id(), node, purpose: Purpose::Control, machine: [1; 16] };
        Stranger { stream: StreamOwned::new(tls, stream), decoder: Decoder::new(CONTROL_BODY_MAX), hello }
    }

    /// Introduces itself and returns the answer.
    fn greet(&mut self) -> Result<Welcome, RefuseReason> {
        let mut bytes = Vec::new();
        LinkMessage::from(self.hello.clone()).put(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
        loop {
            if let Some((header, body)) = self.decoder.next_frame().unwrap() {
                return match LinkMessage::read(&header, body).unwrap() {
                    LinkMessage::Welcome(welcome) => Ok(welcome),
                    LinkMessage::Refuse(refuse) => Err(refuse.reason),
                    other => panic!("unexpected {other:?}"),
                };
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "neither welcomed nor told why not");
            self.decoder.push(&bytes[..count]);
        }
    }

    /// The next frame that `read` makes something of.
    fn hear<M>(&mut self, read: impl Fn(&Header, &[u8]) -> Option<M>) -> M {
        loop {
            while let Some((header, body)) = self.decoder.next_frame().unwrap() {
                if let Some(message) = read(&header, body) {
                    return message;
                }
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).unwrap();
            assert!(count > 0, "cut off");
            self.decoder.push(&bytes[..count]);
        }
    }

    fn is_cut_off(&mut self) -> bool {
        let mut bytes = [0; 4096];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
    }
}

fn node(pool: &Pool, name: &str) -> Identity {
    pool.enrol(Role::Node, name);
    Home::at(pool.state()).node(&Name::new(name).unwrap()).unwrap()
}

#[test]
fn a_node_goes_by_the_name_it_is_certified_for() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let x = node(&pool, "x");
    let mut liar = Stranger::dial(&pool, &x, &a);
    // Users are believed as `name@b` only by the word of b.
    liar.hello.node.name = "b".into();
    assert_eq!(liar.greet(), Err(RefuseReason::NotItself));
    assert_eq!(Stranger::dial(&pool, &x, &a).greet().unwrap().node.name, "a");
}

#[test]
fn another_version_is_refused_by_name() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let mut newer = Stranger::dial(&pool, &node(&pool, "x"), &a);
    newer.hello.protocol = (PROTOCOL.1 + 1, PROTOCOL.1 + 2);
    let refused = newer.greet().unwrap_err();
    assert!(refused.to_string().contains("upgrade the older one"), "{refused}");
    assert!(matches!(refused, RefuseReason::OtherVersion { .. }));
}

#[test]
fn a_user_is_no_node() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    pool.enrol(Role::User, "eve");
    let eve = Home::at(pool.state()).user(&Name::new("eve").unwrap()).unwrap();
    let mut stranger = Stranger::dial(&pool, &eve, &a);
    let mut bytes = Vec::new();
    LinkMessage::from(stranger.hello.clone()).put(&mut bytes);
    // In TLS 1.3 the dialler learns only afterwards that its certificate was not taken.
    let _ = stranger.stream.write_all(&bytes);
    assert!(stranger.is_cut_off());
    assert_eq!(Program::connect(&a.socket, 1).nodes().len(), 1);
}

#[test]
fn two_machines_with_one_identity_are_told_apart() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let x = node(&pool, "x");
    let mut first = Stranger::dial(&pool, &x, &a);
    first.greet().unwrap();
    let mut clone = Stranger::dial(&pool, &x, &a);
    clone.hello.machine = [2; 16];
    clone.hello.node.incarnation = Incarnation(2);
    assert_eq!(clone.greet(), Err(RefuseReason::SameIdentity { name: "x".into() }));
    // A clone of the node itself is not told that it dials itself.
    let own = Home::at(pool.state()).node(&Name::new("a").unwrap()).unwrap();
    let refused = Stranger::dial(&pool, &own, &a).greet();
    assert_eq!(refused, Err(RefuseReason::SameIdentity { name: "a".into() }));
}

#[test]
fn a_node_that_breaks_the_protocol_is_cut_off_and_others_are_not() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let _b = pool.start("b", 1, &["a"]);
    for bytes in [vec![0xff; 4096], vec![0; 4096]] {
        let mut bad = Stranger::dial(&pool, &node(&pool, "x"), &a);
        bad.greet().unwrap();
        bad.stream.write_all(&bytes).unwrap();
        assert!(bad.is_cut_off());
        let mut early = Stranger::dial(&pool, &node(&pool, "y"), &a);
        early.stream.write_all(&bytes).unwrap();
        assert!(early.is_cut_off());
    }
    assert_eq!(Program::connect(&a.socket, 1).nodes().len(), 2);
}

#[test]
fn a_pipe_that_no_home_has_announced_is_refused_by_name() {
    let pool = Pool::new();
    let a = pool.start("a", 1, &[]);
    let x = node(&pool, "x");
    let mut data = Stranger::dial(&pool, &x, &a);
    data.hello.purpose = Purpose::Data;
    data.greet().unwrap();
    let (app, number, handle) = (AppId(7), 1, Handle(1));
    let (from, to) = (PipePlace::Lease(1), PipePlace::Lease(1));
    let mut bytes = Vec::new();
    PipeBinding::from(BindPipe { handle, app, number, from, to, plain: true }).put(&mut bytes);
    // What it says under a handle that means nothing goes nowhere.
    put_frame(&mut bytes, pipe_header(handle, 5), b"hello");
    data.stream.write_all(&bytes).unwrap();
    let answer = data.hear(|header, body| PipeBinding::read(header, body).ok());
    assert_eq!(answer, PipeUnbound { handle, unknown: true }.into());

    // Nor can it announce one to a lease of which it is not the home, or to a program that has not asked for it.
    let mut control = Stranger::dial(&pool, &x, &a);
    control.greet().unwrap();
    let me = control.hello.node.clone();
    let mut program = Program::connect(&a.socket, 1);
    for (mine, number) in [(from, 1), (PipePlace::Guest(AppId(1)), 2), (PipePlace::Program, 3)] {
        let node = me.clone();
        let join = JoinPipe { app, epoch: Epoch(0), number, mine, node, other: PipePlace::Program };
        let mut bytes = Vec::new();
        PipeOrder::from(join).put(&mut bytes);
        control.stream.write_all(&bytes).unwrap();
        let answer = control.hear(|header, body| PipeOrder::read(header, body).ok());
        let PipeOrder::PipeNews(PipeNews { number: of, state: PipeState::Failed(why), .. }) = answer else {
            panic!("{answer:?}")
        };
        assert!(of == number && why.contains("knows nothing of that end"), "{mine:?}: {why}");
    }
    assert_eq!(program.nodes().len(), 1);
}
