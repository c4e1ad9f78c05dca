//! Streams of leases that pass through this node as a home, and where those it lends are bound.
//!
//! A frame is passed on untouched but for its handle. Whether it is, and what the program is told of its
//! lease here, [`schedule::relay`](mutirao_schedule::relay) knows.

use crate::conn::ConnId;
use crate::context::{Context, put_stream_message};
use mutirao_schedule::relay::{Output, Relay};
use mutirao_wire::frame::{FrameError, Header};
use mutirao_wire::kind::Kind;
use mutirao_wire::local::{LeaseChange, LeaseNews, LocalMessage};
use mutirao_wire::stream::{Bind, StreamMessage, Unbound};
use mutirao_wire::{AppId, Epoch, Handle, Incarnation, LeaseId, NodeId, NodeRef, Tick};
use std::collections::HashMap;
use std::time::Duration;
use zerocopy::byteorder::little_endian::U32;

/// A `Bind` may overtake the confirmation of its lease, which takes the control connection.
const EARLY: Duration = Duration::from_secs(2);
/// Bindings that wait for their leases.
const EARLY_MAX: usize = 4096;
/// One remote lease with workers that is held through this node.
struct Stream {
    client: ConnId,
    handle: Handle,
    app: AppId,
    epoch: Epoch,
    lender: NodeRef,
    serial: u64,
    /// Where it is bound; one that is lent here, on the program's own connection.
    wire: Option<(ConnId, Handle)>,
    relay: Relay,
}

/// Where a frame of a program goes.
enum Way {
    /// To a lender, under this handle.
    On(ConnId, u32),
    /// To the lease that is lent here under this serial.
    Here(u64),
}

/// A lease to be passed through.
pub(crate) struct NewStream {
    pub client: ConnId,
    pub handle: Handle,
    pub app: AppId,
    pub epoch: Epoch,
    pub lender: NodeRef,
    pub lease: LeaseId,
    /// The program held it before: it waits for `Restored`.
    pub held: bool,
}

/// All streams that pass through this node or end here.
#[derive(Default)]
pub(crate) struct Streams {
    streams: HashMap<LeaseId, Stream>,
    from_client: HashMap<(ConnId, u32), LeaseId>,
    from_lender: HashMap<(ConnId, u32), (ConnId, u32)>,
    next_handle: HashMap<ConnId, u32>,
    /// Leases lent here, by where they are bound.
    lent: HashMap<(ConnId, u32), u64>,
    early: Vec<(Tick, ConnId, NodeId, Bind)>,
    /// Nodes to which data connections are wanted.
    pub(crate) wanted: Vec<NodeRef>,
    /// Leases whose programs were told of their end.
    pub(crate) over: Vec<LeaseId>,
}

impl Streams {
    /// A remote lease with workers is held from now on.
    pub(crate) fn open(&mut self, ctx: &mut Context, new: NewStream) {
        let NewStream { client, handle, app, epoch, lender, lease, held } = new;
        let stream = Stream {
            client,
            handle,
            app,
            epoch,
            lender,
            serial: lease.serial,
            wire: None,
            relay: Relay::new(held),
        };
        self.streams.insert(lease, stream);
        self.from_client.insert((client, handle.0), lease);
        self.carry_out(ctx, lease, vec![Output::Bind]);
    }

    /// The lease is no longer held. Returns its serial if it is lent here and was bound.
    pub(crate) fn close(&mut self, ctx: &mut Context, lease: LeaseId) -> Option<u64> {
        let stream = self.streams.remove(&lease)?;
        self.from_client.remove(&(stream.client, stream.handle.0));
        let (conn, handle) = stream.wire?;
        self.from_lender.remove(&(conn, handle.0));
        // Another home may have bound it since.
        let is_bound = self.lent.remove(&(conn, handle.0)).is_some();
        let serial = stream.serial;
        is_bound.then(|| ctx.bound.remove(&serial)).flatten().map(|_| serial)
    }

    /// Who lent it.
    pub(crate) fn lender(&self, lease: LeaseId) -> Option<&NodeRef> {
        self.streams.get(&lease).map(|stream| &stream.lender)
    }

    pub(crate) fn has(&self, lease: LeaseId) -> bool {
        self.streams.contains_key(&lease)
    }

    /// Whether a data connection to `peer` carries or awaits a stream.
    pub(crate) fn uses(&self, peer: NodeId) -> bool {
        self.streams.values().any(|stream| stream.lender.id == peer)
    }

    fn bind(&mut self, ctx: &mut Context, lease: LeaseId, conn: ConnId) {
        let Some(stream) = self.streams.get_mut(&lease) else { return };
        let next = self.next_handle.entry(conn).or_insert(0);
        *next += 1;
        let handle = Handle(*next);
        let bind = Bind { handle, serial: stream.serial, app: stream.app, epoch: stream.epoch };
        if !ctx.conns.put_with(conn, |out| put_stream_message(out, bind.into(), handle)) {
            return;
        }
        stream.wire = Some((conn, handle));
        let mut out = Vec::new();
        stream.relay.bound(&mut out);
        // It may be left unread because of a program that was alone on it until now.
        ctx.conns.unpause(conn);
        self.from_lender.insert((conn, handle.0), (stream.client, stream.handle.0));
        self.carry_out(ctx, lease, out);
    }

    /// Binds a lease that is lent here and that a program at home here holds without a ring, since another may go on
    /// in its place, or it did in another's: what its worker says goes to the program's connection. Returns the serial
    /// once it is bound.
    pub(crate) fn bind_here(&mut self, ctx: &mut Context, lease: LeaseId) -> Option<u64> {
        let here = lease.lender == ctx.me.id;
        let stream = self.streams.get_mut(&lease).filter(|stream| here && stream.wire.is_none())?;
        let wire = (stream.client, stream.handle);
        stream.wire = Some(wire);
        let serial = stream.serial;
        if let Some((old, handle)) = ctx.bound.insert(serial, wire) {
            self.lent.remove(&(old, handle.0));
        }
        self.lent.insert((wire.0, wire.1.0), serial);
        let mut out = Vec::new();
        stream.relay.bound(&mut out);
        self.carry_out(ctx, lease, out);
        Some(serial)
    }

    fn unbind(&mut self, ctx: &mut Context, lease: LeaseId) {
        let Some(stream) = self.streams.get_mut(&lease) else { return };
        if let Some((conn, handle)) = stream.wire.take() {
            self.from_lender.remove(&(conn, handle.0));
        }
        let mut out = Vec::new();
        stream.relay.unbound(ctx.now, &mut out);
        self.carry_out(ctx, lease, out);
    }

    fn carry_out(&mut self, ctx: &mut Context, lease: LeaseId, outputs: Vec<Output>) {
        for output in outputs {
            let Some(stream) = self.streams.get(&lease) else { return };
            match output {
                Output::Tell(change) => put_news(ctx, stream, change),
                // That is done when the core has taken it over.
                Output::Bind if stream.lender.id == ctx.me.id => {}
                Output::Bind => match data_of(ctx, stream.lender.id) {
                    Some((conn, life)) if life == stream.lender.incarnation => self.bind(ctx, lease, conn),
                    // The core will know of that other life in a moment.
                    Some(_) => self.data_failed(ctx.now, stream.lender.id),
                    None => self.wanted.push(stream.lender.clone()),
                },
                Output::Over => {
                    self.over.push(lease);
                    self.close(ctx, lease);
                }
            }
        }
    }

    /// The data connection this node dialled to `peer` stands.
    pub(crate) fn data_up(&mut self, ctx: &mut Context, peer: NodeId, conn: ConnId) {
        let life = data_of(ctx, peer).map(|(_, life)| life);
        let same = |stream: &Stream| Some(stream.lender.incarnation) == life;
        for lease in self.of(peer, |stream| stream.wire.is_none() && same(stream)) {
            self.bind(ctx, lease, conn);
        }
    }

    /// It could not be had.
    pub(crate) fn data_failed(&mut self, now: Tick, peer: NodeId) {
        for stream in self.streams.values_mut().filter(|stream| stream.lender.id == peer) {
            stream.relay.no_connection(now);
        }
    }

    /// A data connection is lost. Returns the leases lent here that were bound to it.
    pub(crate) fn data_down(&mut self, ctx: &mut Context, peer: NodeId, conn: ConnId) -> Vec<u64> {
        for lease in self.of(peer, |stream| stream.wire.is_some_and(|(wire, _)| wire == conn)) {
            self.unbind(ctx, lease);
        }
        self.next_handle.remove(&conn);
        self.early.retain(|(_, early, ..)| *early != conn);
        let lent: Vec<u64> =
            self.lent.extract_if(|(lent, _), _| *lent == conn).map(|(_, serial)| serial).collect();
        for serial in &lent {
            ctx.bound.remove(serial);
        }
        lent
    }

    fn of(&self, peer: NodeId, matches: impl Fn(&Stream) -> bool) -> Vec<LeaseId> {
        let of_peer = self.streams.iter().filter(|(_, stream)| stream.lender.id == peer && matches(stream));
        of_peer.map(|(lease, _)| *lease).collect()
    }

    /// What the core says of a lease passed through here. `hurry`: there is no time for last words.
    pub(crate) fn news(&mut self, ctx: &mut Context, lease: LeaseId, change: LeaseChange, hurry: bool) {
        let Some(stream) = self.streams.get_mut(&lease) else { return };
        let mut out = Vec::new();
        stream.relay.news(ctx.now, change, hurry, &mut out);
        self.carry_out(ctx, lease, out);
    }

    /// Where a frame of the program goes, if anywhere. `resume`: it is a `Resume`.
    fn way(&mut self, me: NodeId, client: ConnId, handle: u32, resume: bool) -> Option<Way> {
        let lease = self.from_client.get(&(client, handle))?;
        let stream = self.streams.get_mut(lease)?;
        // Also of a stream that broke again meanwhile: each `Restored` that was told has its `Resume`.
        let passes = stream.relay.passes(resume);
        let (conn, handle) = stream.wire?;
        let way = if stream.lender.id == me { Way::Here(stream.serial) } else { Way::On(conn, handle.0) };
        passes.then_some(way)
    }

    /// A frame of a stream came from a program. Returns the serial of the lease it is for if that is lent here.
    pub(crate) fn client_frame(
        &mut self,
        ctx: &mut Context,
        client: ConnId,
        header: &Header,
        body: &[u8],
    ) -> Result<Option<u64>, FrameError> {
        if header.kind.get() == Kind::Resume as u16 {
            let message = StreamMessage::read(header, body)?;
            let StreamMessage::Resume(resume) = &message else { return Ok(None) };
            return Ok(match self.way(ctx.me.id, client, resume.handle.0, true) {
                Some(Way::Here(serial)) => Some(serial),
                Some(Way::On(to, handle)) => {
                    ctx.conns.put_with(to, |out| put_stream_message(out, message, Handle(handle)));
                    None
                }
                None => None,
            });
        }
        if is_raw(header) {
            return Ok(match self.way(ctx.me.id, client, header.handle.get(), false) {
                Some(Way::Here(serial)) => Some(serial),
                Some(Way::On(to, handle)) => {
                    if forward(ctx, (to, handle), *header, body) == Room::Full {
                        ctx.conns.pause(client, to);
                    }
                    None
                }
                None => None,
            });
        }
        Err(FrameError::UnknownKind { kind: header.kind.get() })
    }

    /// A frame of a stream came on a data connection this node dialled: from a lender.
    pub(crate) fn lender_frame(
        &mut self,
        ctx: &mut Context,
        conn: ConnId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FrameError> {
        if is_raw(header) {
            if let Some(&to) = self.from_lender.get(&(conn, header.handle.get()))
                && forward(ctx, to, *header, body) == Room::Full
                && self.is_alone_on(ctx, to.0, conn)
            {
                ctx.conns.pause(conn, to.0);
            }
            return Ok(());
        }
        let message = StreamMessage::read(header, body)?;
        let handle = match &message {
            StreamMessage::Resumed(m) => m.handle,
            StreamMessage::WorkerEnded(m) => m.handle,
            StreamMessage::Unbound(m) => m.handle,
            other => return Err(FrameError::OutOfPlace { kind: other.kind() }),
        };
        let Some(&to) = self.from_lender.get(&(conn, handle.0)) else { return Ok(()) };
        if let StreamMessage::Unbound(_) = message {
            let unbound = self.streams.iter().find(|(_, s)| s.wire == Some((conn, handle)));
            if let Some((&lease, _)) = unbound {
                self.unbind(ctx, lease);
            }
        } else {
            ctx.conns.put_with(to.0, |out| put_stream_message(out, message, Handle(to.1)));
        }
        Ok(())
    }

    /// Whether all that comes on `conn` is for this program. Only then it is left unread while the
    /// program does not read: others must not wait for it. What its leases may send without its
    /// acknowledgement is bounded, and a program with too much unread is cut off.
    fn is_alone_on(&self, ctx: &Context, client: ConnId, conn: ConnId) -> bool {
        if ctx.piped.contains_key(&conn) {
            return false;
        }
        let here = |stream: &&Stream| stream.wire.is_some_and(|(wire, _)| wire == conn);
        self.streams.values().filter(here).all(|stream| stream.client == client)
    }

    /// A home binds a lease lent here. `is_its` tells whether it is that home's, if the lease exists.
    /// Returns the serial once it is bound.
    pub(crate) fn bind_lent(
        &mut self,
        ctx: &mut Context,
        conn: ConnId,
        peer: NodeId,
        bind: Bind,
        is_its: Option<bool>,
    ) -> Option<u64> {
        match is_its {
            Some(true) => {
                if let Some((old, handle)) = ctx.bound.insert(bind.serial, (conn, bind.handle)) {
                    self.lent.remove(&(old, handle.0));
                }
                self.lent.insert((conn, bind.handle.0), bind.serial);
                Some(bind.serial)
            }
            None if self.early.len() < EARLY_MAX => {
                self.early.push((ctx.now + EARLY, conn, peer, bind));
                None
            }
            _ => {
                refuse(ctx, conn, bind.handle);
                None
            }
        }
    }

    /// Bindings that came before their lease `serial`, which now exists.
    pub(crate) fn take_early(&mut self, serial: u64) -> Vec<(ConnId, NodeId, Bind)> {
        let early = self.early.extract_if(.., |(.., bind)| bind.serial == serial);
        early.map(|(_, conn, peer, bind)| (conn, peer, bind)).collect()
    }

    /// The lease lent under `handle` of an accepted data connection.
    pub(crate) fn lent(&self, conn: ConnId, handle: u32) -> Option<u64> {
        self.lent.get(&(conn, handle)).copied()
    }

    /// A lease lent here is over.
    pub(crate) fn finish_lent(&mut self, ctx: &mut Context, serial: u64) {
        if let Some((conn, handle)) = ctx.bound.remove(&serial) {
            self.lent.remove(&(conn, handle.0));
            match self.from_client.get(&(conn, handle.0)).copied() {
                Some(lease) => self.unbind(ctx, lease),
                None => refuse(ctx, conn, handle),
            }
        }
    }

    /// The leases bound to `conn`.
    pub(crate) fn lent_on(&self, conn: ConnId) -> Vec<u64> {
        self.lent.iter().filter(|((lent, _), _)| *lent == conn).map(|(_, serial)| *serial).collect()
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        let early = self.early.iter().map(|(until, ..)| *until);
        let due = self.streams.values().filter_map(|stream| stream.relay.deadline());
        early.chain(due).min()
    }

    pub(crate) fn time(&mut self, ctx: &mut Context) {
        let now = ctx.now;
        for (_, conn, _, bind) in self.early.extract_if(.., |(until, ..)| *until <= now) {
            refuse(ctx, conn, bind.handle);
        }
        let due = self.streams.iter().filter(|(_, s)| s.relay.deadline().is_some_and(|at| at <= now));
        for lease in due.map(|(lease, _)| *lease).collect::<Vec<LeaseId>>() {
            let Some(stream) = self.streams.get_mut(&lease) else { continue };
            let mut out = Vec::new();
            stream.relay.time(now, &mut out);
            self.carry_out(ctx, lease, out);
        }
    }
}

/// The frames of a stream that have no struct.
fn is_raw(header: &Header) -> bool {
    const RAW: [u16; 6] = [
        Kind::Call as u16,
        Kind::Result as u16,
        Kind::Credit as u16,
        Kind::Cancel as u16,
        Kind::WithdrawCalls as u16,
        Kind::CallsWithdrawn as u16,
    ];
    RAW.contains(&header.kind.get())
}

/// Whether more can follow a frame passed on.
#[derive(PartialEq, Eq)]
enum Room {
    Open,
    Full,
}

fn forward(ctx: &mut Context, to: (ConnId, u32), mut header: Header, body: &[u8]) -> Room {
    header.handle = U32::new(to.1);
    ctx.conns.put(to.0, header, body);
    if ctx.conns.room(to.0) == 0 { Room::Full } else { Room::Open }
}

/// The data connection this node dialled to a lender, and in which life of it.
fn data_of(ctx: &Context, lender: NodeId) -> Option<(ConnId, Incarnation)> {
    let peer = ctx.peers.get(&lender)?;
    Some((peer.data?, peer.data_life?))
}

fn refuse(ctx: &mut Context, conn: ConnId, handle: Handle) {
    ctx.conns.put_with(conn, |out| put_stream_message(out, Unbound { handle }.into(), handle));
}

fn put_news(ctx: &mut Context, stream: &Stream, change: LeaseChange) {
    let news = LeaseNews { handle: stream.handle, change };
    ctx.conns.put_with(stream.client, |out| LocalMessage::from(news).put(out));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Other, context, node};
    use mio::Poll;
    use mutirao_schedule::relay::LAST_WORDS;
    use mutirao_wire::CallId;
    use mutirao_wire::frame::put_frame;
    use mutirao_wire::lease::LeaseEnd;
    use mutirao_wire::limits::DATA_BODY_MAX;
    use mutirao_wire::stream::{Resume, Resumed, WorkerEnded, credit_header, result_header};

    /// A home with programs, and a lender that all their leases are with.
    struct Home {
        _poll: Poll,
        _directory: tempfile::TempDir,
        ctx: Context,
        streams: Streams,
        data: ConnId,
        lender: Other,
    }

    impl Home {
        fn new() -> Home {
            let (poll, directory) = (Poll::new().unwrap(), tempfile::tempdir().unwrap());
            let mut ctx = context(&poll, directory.path());
            let (data, lender) = Other::connect(&mut ctx);
            Home { _poll: poll, _directory: directory, ctx, streams: Streams::default(), data, lender }
        }

        fn lease(&mut self, client: ConnId, serial: u64) -> LeaseId {
            let lender = node(1);
            let lease = LeaseId { lender: lender.id, incarnation: lender.incarnation, serial };
            let (handle, app) = (Handle(serial as u32), AppId(u128::from(serial)));
            let new = NewStream { client, handle, app, epoch: Epoch(0), lender, lease, held: false };
            self.streams.open(&mut self.ctx, new);
            lease
        }

        fn up(&mut self) {
            let lender = node(1);
            let peer = self.ctx.peers.entry(lender.id).or_default();
            (peer.data, peer.data_life) = (Some(self.data), Some(lender.incarnation));
            self.streams.data_up(&mut self.ctx, node(1).id, self.data);
        }

        /// The data connection breaks and another one stands.
        fn again(&mut self) {
            self.streams.data_down(&mut self.ctx, node(1).id, self.data);
            (self.data, self.lender) = Other::connect(&mut self.ctx);
            self.up();
        }

        /// What the lender got: `Bind` handles, and the kinds of all other frames.
        fn at_lender(&mut self) -> (Vec<u32>, Vec<u16>) {
            let (mut bound, mut others) = (Vec::new(), Vec::new());
            for (header, body) in self.lender.frames(&mut self.ctx) {
                match StreamMessage::read(&header, &body) {
                    Ok(StreamMessage::Bind(bind)) => bound.push(bind.handle.0),
                    _ => others.push(header.kind.get()),
                }
            }
            (bound, others)
        }

        fn program_says(&mut self, client: ConnId, bytes: &[u8]) {
            let mut decoder = mutirao_wire::frame::Decoder::new(DATA_BODY_MAX);
            decoder.push(bytes);
            while let Some((header, body)) = decoder.next_frame().unwrap() {
                self.streams.client_frame(&mut self.ctx, client, &header, body).unwrap();
            }
        }

        fn lender_says(&mut self, bytes: &[u8]) {
            let mut decoder = mutirao_wire::frame::Decoder::new(DATA_BODY_MAX);
            decoder.push(bytes);
            while let Some((header, body)) = decoder.next_frame().unwrap() {
                self.streams.lender_frame(&mut self.ctx, self.data, &header, body).unwrap();
            }
        }

        fn news(&mut self, lease: LeaseId, change: LeaseChange) {
            self.streams.news(&mut self.ctx, lease, change, false);
        }
    }

    /// A home whose program has a lease, and whose lender is linked.
    fn of_one_lease() -> (Home, ConnId, Other, LeaseId) {
        let mut home = Home::new();
        let (client, program) = Other::connect(&mut home.ctx);
        let lease = home.lease(client, 1);
        home.up();
        (home, client, program, lease)
    }

    fn changes(program: &mut Other, ctx: &mut Context) -> Vec<LeaseChange> {
        let frames = program.frames(ctx);
        let change = |(header, body): &(Header, Vec<u8>)| match LocalMessage::read(header, body) {
            Ok(LocalMessage::LeaseNews(news)) => Some(news.change),
            _ => None,
        };
        frames.iter().filter_map(change).collect()
    }

    fn message(message: impl Into<StreamMessage>) -> Vec<u8> {
        let mut bytes = Vec::new();
        message.into().put(&mut bytes);
        bytes
    }

    fn frame(header: Header, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        put_frame(&mut bytes, header, body);
        bytes
    }

    #[test]
    fn a_stream_bound_anew_is_restored_even_if_it_was_never_ready() {
        let (mut home, _client, mut program, lease) = of_one_lease();
        home.again();
        assert_eq!(changes(&mut program, &mut home.ctx), [LeaseChange::Restored]);
        home.news(lease, LeaseChange::Ready);
        assert_eq!(changes(&mut program, &mut home.ctx), [LeaseChange::Ready]);
    }

    #[test]
    fn a_lease_of_an_earlier_life_of_its_lender_is_not_bound_in_a_later_one() {
        let mut home = Home::new();
        let (client, _program) = Other::connect(&mut home.ctx);
        let lender = NodeRef { incarnation: Incarnation(0), ..node(1) };
        let lease = LeaseId { lender: lender.id, incarnation: lender.incarnation, serial: 1 };
        let (handle, app, epoch) = (Handle(1), AppId(1), Epoch(0));
        home.streams
            .open(&mut home.ctx, NewStream { client, handle, app, epoch, lender, lease, held: false });
        home.up();
        assert_eq!(home.at_lender(), (vec![], vec![]));
        home.lease(client, 1);
        assert_eq!(home.at_lender(), (vec![1], vec![]));
    }

    #[test]
    fn only_the_resume_for_the_present_stream_goes_on_and_nothing_before_it() {
        let (mut home, client, mut program, lease) = of_one_lease();
        use LeaseChange::{Broken, Ready, Restored};
        home.news(lease, Ready);
        home.again();
        home.again();
        assert_eq!(changes(&mut program, &mut home.ctx), [Ready, Broken, Restored, Broken, Restored]);
        assert_eq!(home.at_lender(), (vec![1], vec![]));
        let resume = message(Resume { handle: Handle(1), outstanding: vec![CallId(5)] });
        let credit = frame(credit_header(Handle(1), 100, 0), &[]);
        // Written before the program heard of anything, and in answer to the first `Restored`.
        home.program_says(client, &[&credit[..], &resume, &credit].concat());
        assert_eq!(home.at_lender(), (vec![], vec![]));
        home.program_says(client, &[resume, credit].concat());
        assert_eq!(home.at_lender().1, [Kind::Resume as u16, Kind::Credit as u16]);
    }

    #[test]
    fn a_resume_that_comes_while_the_stream_is_broken_again_is_not_waited_for_later() {
        let (mut home, client, mut program, lease) = of_one_lease();
        use LeaseChange::{Broken, Ready, Restored};
        home.news(lease, Ready);
        home.again();
        let unbound = message(Unbound { handle: Handle(1) });
        home.lender_says(&unbound);
        assert_eq!(changes(&mut program, &mut home.ctx), [Ready, Broken, Restored, Broken]);
        let resume = message(Resume { handle: Handle(1), outstanding: vec![CallId(5)] });
        home.program_says(client, &resume);
        home.ctx.now = home.ctx.now + Duration::from_secs(1);
        home.streams.time(&mut home.ctx);
        assert_eq!(changes(&mut program, &mut home.ctx), [Restored]);
        home.at_lender();
        home.program_says(client, &resume);
        assert_eq!(home.at_lender().1, [Kind::Resume as u16]);
    }

    #[test]
    fn the_end_of_a_lease_waits_for_the_last_words_of_its_lender() {
        let (mut home, _client, mut program, lease) = of_one_lease();
        home.news(lease, LeaseChange::Ready);
        home.news(lease, LeaseChange::Ended(LeaseEnd::Reclaimed));
        assert_eq!(changes(&mut program, &mut home.ctx), [LeaseChange::Ready, LeaseChange::Broken]);
        assert!(home.streams.over.is_empty());
        home.lender_says(&frame(result_header(Handle(1), CallId(3), 0, 0, false), &[]));
        let not_started = vec![CallId(4)];
        home.lender_says(&message(WorkerEnded { handle: Handle(1), not_started, cause: "so".into() }));
        home.lender_says(&message(Unbound { handle: Handle(1) }));
        let kinds: Vec<u16> =
            program.frames(&mut home.ctx).iter().map(|(header, _)| header.kind.get()).collect();
        assert_eq!(kinds, [Kind::Result as u16, Kind::WorkerEnded as u16, Kind::LeaseNews as u16]);
        assert_eq!(home.streams.over, [lease]);
        assert!(!home.streams.has(lease));
    }

    #[test]
    fn the_end_of_a_lease_does_not_wait_for_ever_nor_for_what_cannot_come() {
        let mut home = Home::new();
        let (client, mut program) = Other::connect(&mut home.ctx);
        let (silent, cut) = (home.lease(client, 1), home.lease(client, 2));
        home.up();
        for lease in [silent, cut] {
            home.news(lease, LeaseChange::Ready);
            home.news(lease, LeaseChange::Ended(LeaseEnd::Reclaimed));
        }
        home.ctx.now = home.ctx.now + LAST_WORDS;
        assert!(home.streams.deadline().is_some_and(|at| at <= home.ctx.now));
        home.streams.time(&mut home.ctx);
        assert_eq!(home.streams.over.len(), 2);
        assert_eq!(home.streams.deadline(), None);

        let (lost, gone) = (home.lease(client, 3), home.lease(client, 4));
        home.up();
        home.news(lost, LeaseChange::Ready);
        home.news(lost, LeaseChange::Ended(LeaseEnd::LenderLost));
        home.news(gone, LeaseChange::Ready);
        home.news(gone, LeaseChange::Ended(LeaseEnd::Reclaimed));
        home.streams.data_down(&mut home.ctx, node(1).id, home.data);
        assert_eq!(home.streams.over.len(), 4);
        let ends = changes(&mut program, &mut home.ctx);
        assert_eq!(ends.iter().filter(|change| matches!(change, LeaseChange::Ended(_))).count(), 4);
    }

    #[test]
    fn a_program_that_does_not_read_holds_up_its_own_results_only() {
        let (mut home, stuck, _unread, lease) = of_one_lease();
        home.news(lease, LeaseChange::Ready);
        let part =
            frame(result_header(Handle(1), CallId(1), 1 << 20, DATA_BODY_MAX, true), &[0; DATA_BODY_MAX]);
        for _ in 0..20 {
            home.lender_says(&part);
        }
        assert!(home.ctx.conns.is_paused(home.data), "it is alone there: the lender has to wait");

        let (other, mut program) = Other::connect(&mut home.ctx);
        home.lease(other, 2);
        home.up();
        home.lender_says(&part);
        assert!(!home.ctx.conns.is_paused(home.data), "another program waits for its results");
        home.lender_says(&message(Resumed { handle: Handle(2), unknown: Vec::new() }));
        let came = program.frames(&mut home.ctx);
        assert!(came.iter().any(|(header, _)| header.kind.get() == Kind::Resumed as u16));
        // Who leaves more unread than all its leases together may send is cut off.
        while home.ctx.conns.take_broken().is_empty() {
            home.lender_says(&part);
            assert!(home.ctx.conns.room(stuck) == 0);
        }
    }
}
