//! What comes from programs of this machine.

use super::Daemon;
use crate::authority::{self, TOKEN_MS};
use crate::clients::{self, Attach, Client, Offer, Speaker};
use crate::conn::{ConnId, Transport};
use crate::groups::Launcher;
use crate::streams::NewStream;
use crate::sys;
use mutirao_ring::{Bell, Consumer, Error as RingError, RingMemory, lane_reader};
use mutirao_tree::{Input, pipe};
use mutirao_wire::bag::MemberMessage;
use mutirao_wire::frame::{FrameError, Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::limits::{NAME_BYTES_MAX, PLUGIN_FILES_MAX, PROTOCOL, SEARCH, TEXT_BYTES_MAX, WANT_MAX};
use mutirao_wire::local::{
    Allocate, BlobFetched, BlobOffered, ClientHello, ClientWelcome, DropBlob, FetchBlob, GiveBack, GroupNews,
    KillWorker, LaneOpened, LeaseChange, LocalMessage, OfferBlob, OfferPlugin, ProcessNews, Query, Rows,
    WithdrawBlob,
};
use mutirao_wire::node::PluginRef;
use mutirao_wire::pipe::PipeMessage;
use mutirao_wire::query::{Row, Topic};
use mutirao_wire::stream::{failure, read_aside};
use mutirao_wire::{AppId, BlobHash, Handle, LeaseId, NodeId, NodeRef, RequestId};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long answers to a question may take.
const QUESTION: Duration = Duration::from_secs(2);
/// A program that has come back has offered again after so long what it had offered.
const COMES_BACK: Duration = Duration::from_secs(30);
/// Bytes that a lane holds: few enough that the processor's caches hold them too.
const LANE_BYTES: usize = 256 * 1024;

impl Daemon {
    pub(super) fn program_frame(
        &mut self,
        conn: ConnId,
        header: &Header,
        body: &[u8],
    ) -> Result<(), FrameError> {
        if PipeMessage::has_kind(header.kind.get()) {
            self.program_pipe(conn, PipeMessage::read(header, body)?)?;
            self.carry_out();
            return Ok(());
        }
        if MemberMessage::has_kind(header.kind.get()) {
            self.member_here(conn, MemberMessage::read(header, body)?)?;
            self.carry_out();
            return Ok(());
        }
        if header.has(flags::ASIDE) {
            return self.frame_aside(conn, header, body);
        }
        if !LocalMessage::has_kind(header.kind.get()) {
            return self.stream_frame(conn, header, body);
        }
        let message = LocalMessage::read(header, body)?;
        let known = self.clients.get(conn).is_some();
        if self.clients.speaker(conn).is_some() {
            return Err(FrameError::OutOfPlace { kind: message.kind() });
        }
        match message {
            LocalMessage::ClientHello(hello) if !known => self.program_hello(conn, hello),
            LocalMessage::OfferPlugin(offer) if known => self.program_offers(conn, offer),
            LocalMessage::Allocate(allocate) if known => self.allocate(conn, allocate),
            LocalMessage::GiveBack(GiveBack { handles }) if known => self.give_back(conn, handles),
            LocalMessage::KillWorker(kill) if known => self.kill_worker(conn, kill),
            LocalMessage::Query(query) if known => self.query(conn, query),
            LocalMessage::OpenLane(_) if known => self.open_lane(conn),
            LocalMessage::GroupNews(news) if known => self.group_news(conn, news),
            LocalMessage::ProcessNews(news) if known => self.process_news(conn, news),
            LocalMessage::OfferBlob(OfferBlob { number }) if known => self.blob_offer(conn, number),
            LocalMessage::FetchBlob(fetch) if known => self.fetch_blob(conn, fetch),
            LocalMessage::DropBlob(DropBlob { handle, hash }) if known => {
                if let Some((app, lender)) = self.lender_of(conn, handle) {
                    self.plugins.drop_kept(&mut self.ctx, app, lender.id, hash);
                }
            }
            LocalMessage::WithdrawBlob(WithdrawBlob { hash }) if known => {
                if let Some(client) = self.clients.get(conn) {
                    self.plugins.withdraw_blob(client.app, hash);
                }
            }
            other => return Err(FrameError::OutOfPlace { kind: other.kind() }),
        }
        self.carry_out();
        Ok(())
    }

    /// A program wants to hand over large bodies in memory.
    fn open_lane(&mut self, conn: ConnId) {
        let Some(client) = self.clients.get_mut(conn).filter(|client| client.lane.is_none()) else { return };
        match lane() {
            Ok((lane, fds)) => {
                client.lane = Some(lane);
                self.ctx.conns.put_with_fds(conn, fds, |out| LocalMessage::from(LaneOpened {}).put(out));
            }
            // The socket serves as well, with more copies.
            Err(error) => tracing::warn!(app = %client.app, "a program gets no lane: {error}"),
        }
    }

    /// A program launches a group.
    fn group_news(&mut self, conn: ConnId, news: GroupNews) {
        let Some(client) = self.clients.get(conn) else { return };
        let launcher =
            Launcher { app: client.app, user: client.user.clone(), pid: client.pid, since: client.since };
        self.groups.group(launcher, news);
    }

    fn process_news(&mut self, conn: ConnId, news: ProcessNews) {
        let Some(client) = self.clients.get(conn) else { return };
        self.groups.process(client.app, news);
    }

    /// A frame whose body lies in the program's lane.
    fn frame_aside(&mut self, conn: ConnId, header: &Header, body: &[u8]) -> Result<(), FrameError> {
        let malformed = FrameError::Malformed { kind: Kind::Call };
        let header = read_aside(header, body).ok_or(malformed.clone())?;
        let lane = self.clients.get_mut(conn).and_then(|client| client.lane.as_mut());
        let mut aside = core::mem::take(&mut self.aside);
        aside.clear();
        let read = lane.map(|lane| lane.read_to(&mut aside, header.body_len()));
        let result = match read {
            Some(Ok(count)) if count == header.body_len() => self.stream_frame(conn, &header, &aside),
            _ => Err(malformed),
        };
        self.aside = aside;
        result
    }

    /// A frame of a lease's stream came.
    fn stream_frame(&mut self, conn: ConnId, header: &Header, body: &[u8]) -> Result<(), FrameError> {
        if let Some(serial) = self.streams.client_frame(&mut self.ctx, conn, header, body)? {
            self.lender.stream_frame(&mut self.ctx, serial, header, body);
        }
        Ok(())
    }

    fn program_hello(&mut self, conn: ConnId, hello: ClientHello) {
        let Some(Transport::Unix(unix)) = self.ctx.conns.transport(conn) else { return };
        let (pid, uid) = (unix.peer_pid, unix.peer_uid);
        let ctx = &mut self.ctx;
        if hello.protocol.0 > PROTOCOL.1 || hello.protocol.1 < PROTOCOL.0 {
            let text = format!(
                "the program's library speaks protocol versions {}-{}, node `{}` {}-{}; upgrade the older one",
                hello.protocol.0, hello.protocol.1, ctx.me.name, PROTOCOL.0, PROTOCOL.1
            );
            return clients::refuse(ctx, conn, text);
        }
        if self.leaving.is_some() {
            return clients::refuse(ctx, conn, format!("node `{}` is going down", ctx.me.name));
        }
        if hello.name.is_empty() || hello.name.len() > NAME_BYTES_MAX {
            let text = format!("the application's name must have 1 to {NAME_BYTES_MAX} bytes");
            return clients::refuse(ctx, conn, text);
        }
        if let Some(other) = self.clients.by_app(hello.app) {
            let is_later = self.clients.get(other).is_some_and(|client| client.epoch < hello.epoch);
            if !is_later || hello.homes.is_empty() {
                return clients::refuse(ctx, conn, "an application of that id is connected already");
            }
            // It goes on here, and nobody has noticed yet that the program before it is gone.
            self.program_gone(other, "another program goes on in its place");
        }
        let ctx = &mut self.ctx;
        let same_user = uid == self.uid;
        let user = if same_user {
            self.rights.local_user.clone()
        } else {
            format!("{}@{}", sys::user_name(uid), ctx.me.name)
        };
        let mut client = Client::new(hello.app, hello.name, user, pid, hello.epoch, ctx.now);
        client.as_user = hello.as_user && same_user && self.lender.lets_act_as_user();
        // Where another may go on in its place it shares no memory with workers. But nobody else, at whatever home of
        // its, is to have those that act as its user.
        client.rings = hello.homes.is_empty() || client.as_user;
        if let Some(identity) = self.user.as_ref().filter(|_| same_user) {
            client.token = authority::sign_token(identity, hello.app, ctx.me.id).unwrap_or_default();
        }
        if let Some(plugin) = hello.plugin.and_then(|plugin| self.plugins.reference(plugin)) {
            client.offer = Offer::Known(plugin);
        }
        let board = self.lender.take_seat();
        client.seat = board.as_ref().map(|(seat, _)| *seat);
        let (spinner, fds) = board.map_or((0, Vec::new()), |(seat, board)| (seat, vec![board]));
        let welcome = ClientWelcome {
            protocol: hello.protocol.1.min(PROTOCOL.1),
            node: ctx.me.clone(),
            pool: self.pool,
            user: client.user.clone(),
            spinner,
        };
        ctx.conns.put_with_fds(conn, fds, |out| LocalMessage::from(welcome).put(out));
        tracing::debug!(app = %client.app, name = client.name, pid, "a program came");
        let epoch = client.epoch;
        self.clients.insert(conn, client);
        if hello.leases.is_empty() && hello.homes.is_empty() {
            return;
        }
        let mut held = Vec::new();
        for lease in hello.leases {
            let id = LeaseId {
                lender: lease.lender.id,
                incarnation: lease.lender.incarnation,
                serial: lease.serial,
            };
            if !self.clients.hold(conn, lease.handle, id, lease.slots) {
                // Not if it has named the handle twice: then that is another lease's.
                if self.clients.get(conn).is_some_and(|client| client.held(lease.handle).is_none()) {
                    let ended = LeaseChange::Ended(LeaseEnd::Unknown);
                    clients::put_news(&mut self.ctx, conn, lease.handle, ended, Vec::new());
                }
                continue;
            }
            held.push((lease.serial, lease.lender.clone()));
            if lease.works {
                let new = NewStream {
                    client: conn,
                    handle: lease.handle,
                    app: hello.app,
                    epoch,
                    lender: lease.lender,
                    lease: id,
                    held: true,
                };
                self.streams.open(&mut self.ctx, new);
            }
        }
        let rings = self.clients.get(conn).is_none_or(|client| client.rings);
        let ClientHello { app, homes, plugin, .. } = hello;
        self.tell_core(Input::Held { app, epoch, homes, rings, plugin, leases: held });
    }

    fn program_offers(&mut self, conn: ConnId, offer: OfferPlugin) {
        let count = offer.files.len();
        let files = if count <= PLUGIN_FILES_MAX { self.ctx.conns.take_fds(conn, count) } else { None };
        let Some(client) = self.clients.get_mut(conn) else { return };
        let bad = match (&client.offer, files) {
            (Offer::Pending(_), _) => "another plugin is being looked at; wait for the answer",
            (_, None) => "the files do not come with the offer, or are too many",
            (_, Some(files)) => {
                client.offer = Offer::Pending(Vec::new());
                return self.plugins.offer(&mut self.ctx, conn, offer, files);
            }
        };
        clients::put_offered(&mut self.ctx, conn, &Err(bad.into()));
    }

    pub(super) fn plugin_offered(&mut self, conn: ConnId, plugin: Result<PluginRef, String>) {
        let Some(client) = self.clients.get_mut(conn) else { return };
        clients::put_offered(&mut self.ctx, conn, &plugin);
        let offer = match plugin {
            Ok(plugin) => Offer::Known(plugin),
            Err(why) => Offer::Bad(why),
        };
        if let Offer::Pending(waiting) = core::mem::replace(&mut client.offer, offer) {
            for allocate in waiting {
                self.allocate(conn, allocate);
            }
        }
    }

    /// A program offers a file to its workers.
    fn blob_offer(&mut self, conn: ConnId, number: u32) {
        let file = self.ctx.conns.take_fds(conn, 1).and_then(|mut files| files.pop());
        match (self.clients.get(conn).map(|client| client.app), file) {
            (Some(app), Some(file)) => self.plugins.offer_blob(&mut self.ctx, conn, app, number, file),
            _ => {
                let blob = Err("the file does not come with the offer".to_owned());
                clients::put(&mut self.ctx, conn, BlobOffered { number, blob });
            }
        }
    }

    /// The application of a program, and the lender of a lease that it holds.
    fn lender_of(&self, conn: ConnId, handle: Handle) -> Option<(AppId, NodeRef)> {
        let client = self.clients.get(conn)?;
        let lease = client.held(handle)?.lease;
        let me = &self.ctx.me;
        let lender = if lease.lender == me.id { me } else { self.streams.lender(lease)? };
        Some((client.app, lender.clone()))
    }

    /// A program wants what a worker of its had kept.
    fn fetch_blob(&mut self, conn: ConnId, fetch: FetchBlob) {
        let FetchBlob { number, handle, hash, ticket } = fetch;
        match self.lender_of(conn, handle) {
            Some((app, lender)) => {
                let asked = (conn, app, number);
                self.plugins.fetch_kept(&mut self.ctx, asked, &lender, hash, ticket);
            }
            None => self.blob_fetched(conn, number, Err("its lease is over".into())),
        }
    }

    /// Hands a program what it wanted fetched.
    pub(super) fn blob_fetched(&mut self, conn: ConnId, number: u32, result: Result<File, String>) {
        let (refused, fds) = match result {
            Ok(file) => (None, vec![file.into()]),
            Err(why) => (Some(sys::shortened(why, TEXT_BYTES_MAX)), Vec::new()),
        };
        let answer = LocalMessage::from(BlobFetched { number, refused });
        self.ctx.conns.put_with_fds(conn, fds, |out| answer.put(out));
    }

    /// A lender asks for a blob of an application: why it gets none, if so. `None` in the error: it may ask again.
    pub(super) fn may_have_blob(
        &self,
        lender: NodeId,
        app: AppId,
        hash: BlobHash,
    ) -> Result<(), Option<&'static str>> {
        let Some(client) = self.clients.by_app(app).and_then(|conn| self.clients.get(conn)) else {
            return Err(None);
        };
        if !client.holds_at(lender) {
            return Err(Some("no lease of its program is held there"));
        }
        match self.plugins.offers_blob(app, hash) {
            true => Ok(()),
            // One that has come back offers again what it has offered.
            false if client.epoch.0 > 0 && self.ctx.now - client.since < COMES_BACK => Err(None),
            false => Err(Some("its program does not offer it")),
        }
    }

    fn allocate(&mut self, conn: ConnId, mut allocate: Allocate) {
        let Some(client) = self.clients.get_mut(conn) else { return };
        if allocate.want.count == 0 || allocate.want.count > WANT_MAX || allocate.want.bundle.slots == 0 {
            let why = format!("a request is for 1 to {WANT_MAX} leases of at least one slot");
            return clients::put_unfit(&mut self.ctx, conn, &allocate, &why);
        }
        let mut plugin = None;
        if allocate.workers {
            match &mut client.offer {
                Offer::Known(known) => plugin = Some(known.clone()),
                Offer::Pending(waiting) if waiting.len() < 64 => return waiting.push(allocate),
                Offer::Pending(_) => {
                    return clients::put_unfit(&mut self.ctx, conn, &allocate, "too many requests wait");
                }
                Offer::None => {
                    let why = "the program has not offered a plugin: call mutirao_init first";
                    return clients::put_unfit(&mut self.ctx, conn, &allocate, why);
                }
                Offer::Bad(why) => {
                    let why = why.clone();
                    return clients::put_unfit(&mut self.ctx, conn, &allocate, &why);
                }
            }
        }
        let half = Duration::from_millis(TOKEN_MS / 2);
        if let Some(identity) = &self.user
            && !client.token.is_empty()
            && self.ctx.now - client.token_made >= half
        {
            client.token_made = self.ctx.now;
            client.token = authority::sign_token(identity, client.app, self.ctx.me.id).unwrap_or_default();
        }
        let rights = self.within_rights(conn, &mut allocate);
        if let Err(why) = rights {
            return clients::put_refused(&mut self.ctx, conn, &allocate, why);
        }
        let Some(client) = self.clients.get(conn) else { return };
        let asker = client.asker(self.ctx.me.clone(), plugin);
        let request = RequestId { app: client.app, sequence: allocate.sequence, attempt: client.epoch.0 };
        if !self.clients.request(conn, &allocate) {
            let why = "too many requests are under way, or two of one number";
            return clients::put_unfit(&mut self.ctx, conn, &allocate, why);
        }
        let wait = allocate.wait.map(|wait| (wait, sys::unix_ms()));
        let (want, at_least) = (allocate.want, allocate.at_least);
        self.tell_core(Input::Request { request, want, at_least, asker, budget: SEARCH, wait });
    }

    fn give_back(&mut self, conn: ConnId, handles: Vec<Handle>) {
        let Some(app) = self.clients.get(conn).map(|client| client.app) else { return };
        let leases: Vec<LeaseId> =
            handles.into_iter().filter_map(|handle| self.clients.drop_lease(conn, handle)).collect();
        for lease in &leases {
            self.close_stream(*lease);
            self.lease_over(conn, *lease);
        }
        self.tell_core(Input::GiveBack { app, leases });
    }

    fn kill_worker(&mut self, conn: ConnId, kill: KillWorker) {
        let Some(held) = self.clients.get(conn).and_then(|client| client.held(kill.handle)) else { return };
        // A program may also find that the worker breaks the protocol; other reasons are for the node to
        // find out.
        const REASONS: [u32; 3] = [failure::CANCELLED, failure::TIME_LIMIT, failure::WORKER_ENDED];
        if held.lease.lender == self.ctx.me.id && REASONS.contains(&kill.code) {
            self.lender.kill_worker(&mut self.ctx, held.lease.serial, kill.call, kill.code);
        }
    }

    fn query(&mut self, conn: ConnId, query: Query) {
        let Some(client) = self.clients.get(conn) else { return };
        let Query { number, mut question } = query;
        if question.topic.is_local() {
            return self.local_question(conn, number, question.topic);
        }
        question.user.clone_from(&client.user);
        if let Topic::Attach { group, .. } = &question.topic {
            self.attaches(conn, *group, question.to.clone());
        }
        let Some(client) = self.clients.get(conn) else { return };
        if question.topic.needs_order()
            && question.order.is_empty()
            && client.user == self.rights.local_user
            && let Some(identity) = &self.user
        {
            question.order = authority::sign_order(identity, &question).unwrap_or_default();
        }
        if question.to.as_ref().is_some_and(|to| to.len() > TEXT_BYTES_MAX) {
            question.to = Some(String::new());
        }
        match self.clients.question(conn, number) {
            Some(number) => self.tell_core(Input::Ask { number, question, budget: QUESTION }),
            None => {
                let text = "too many questions are under way".to_owned();
                let rows = vec![Row::Failed { node: self.ctx.me.name.clone(), text }];
                clients::put(&mut self.ctx, conn, Rows { number, rows, more: false, missing: 0 });
            }
        }
    }

    fn close_stream(&mut self, lease: LeaseId) {
        if let Some(serial) = self.streams.close(&mut self.ctx, lease) {
            self.lender.unbound(&mut self.ctx, serial);
        }
    }

    /// A program asks the home of a group to be joined to its launcher: what that home makes of it is welcome.
    fn attaches(&mut self, conn: ConnId, group: AppId, home: Option<String>) {
        if let (Some(client), Some(home)) = (self.clients.get_mut(conn), home) {
            client.attach = Some(Attach::new(home, group));
        }
    }

    /// The program's connection is at its end: so is the application, unless it goes on elsewhere.
    pub(super) fn program_gone(&mut self, conn: ConnId, why: &str) {
        self.ctx.conns.close(conn);
        match self.clients.remove_speaker(conn) {
            Some(Speaker::Member(bag)) => self.members.went(bag, conn),
            Some(Speaker::Visit(visit)) => self.visits.went(&mut self.ctx, visit, Some(conn)),
            None => {}
        }
        if let Some((client, leases)) = self.clients.remove(conn) {
            tracing::debug!(app = %client.app, name = client.name, "a program went: {why}");
            for lease in leases {
                self.close_stream(lease);
            }
            if let Some(seat) = client.seat {
                self.lender.free_seat(seat);
            }
            self.plugins.app_gone(&mut self.ctx, client.app);
            self.tell_core(Input::AppGone(client.app));
            self.tell_pipes(pipe::Input::AppGone(client.app));
            self.lender.app_gone(client.app);
            self.groups.gone(self.ctx.now, client.app, why);
        }
        if self.only == Some(conn) {
            self.leave("its program ended");
        }
    }
}

/// A lane, and what its writer needs of it: the memory, and the bell that rings when it has room again.
fn lane() -> Result<(Consumer, Vec<OwnedFd>), RingError> {
    let memory = RingMemory::create(LANE_BYTES)?;
    let (bell, ringer) = Bell::pair()?;
    Ok((lane_reader(&memory, ringer)?, vec![memory.into_fd(), bell.into_fd()]))
}
