//! Programs of this machine, on the local socket.

use crate::conn::ConnId;
use crate::context::Context;
use mutirao_ring::Consumer;
use mutirao_wire::local::{
    Allocate, Allocated, ClientRefused, LeaseChange, LeaseInfo, LeaseNews, LocalMessage, PluginOffered,
};
use mutirao_wire::node::{Arch, Asker, Grant, Hindrance, Note, PluginRef};
use mutirao_wire::wait::WaitEnd;
use mutirao_wire::{AppId, BagId, Epoch, Handle, LeaseId, NodeId, Tick, VisitId};
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// Leases told of in one message.
const LEASES_A_MESSAGE: usize = 64;
/// Requests a program may have under way.
const REQUESTS_MAX: usize = 1024;
/// Questions it may have under way: each one takes a place at every node.
const QUESTIONS_MAX: usize = 64;

/// Highest handle under which a program may return with a lease: there is room above for new ones.
const HANDLE_RETURNED_MAX: u32 = u32::MAX / 2;
/// Programs connected at a time.
const PROGRAMS_MAX: usize = 1024;

/// The plugin a program runs operations of.
#[derive(Debug)]
pub(crate) enum Offer {
    /// None was offered.
    None,
    /// Its files are being looked at; these requests wait for that.
    Pending(Vec<Allocate>),
    /// It is kept here.
    Known(PluginRef),
    /// It cannot be used; the text says why.
    Bad(String),
}

/// A program that introduced itself.
pub(crate) struct Client {
    pub app: AppId,
    pub name: String,
    pub user: String,
    pub pid: u32,
    pub epoch: Epoch,
    pub token: Vec<u8>,
    pub token_made: Tick,
    pub offer: Offer,
    pub seat: Option<u32>,
    /// Its workers here are to act as its user, who is the node's.
    pub as_user: bool,
    /// It shares memory with its workers here.
    pub rings: bool,
    pub since: Tick,
    /// Where the bodies of its large parts come.
    pub lane: Option<Consumer>,
    /// To whose launcher it has asked to be joined last.
    pub attach: Option<Attach>,
    next_handle: u32,
    leases: HashMap<u32, Held>,
    requests: HashMap<u32, Allocate>,
}

/// A lease a program holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Held {
    pub lease: LeaseId,
    pub slots: u16,
}

/// That a program wants to be joined to the launcher of a group.
#[derive(Debug)]
pub(crate) struct Attach {
    /// The node that was asked: the home of the group, by name.
    home: String,
    group: AppId,
    /// The number of the pipe, once it has one.
    pipe: Option<u64>,
}

impl Attach {
    pub(crate) fn new(home: String, group: AppId) -> Attach {
        Attach { home, group, pipe: None }
    }

    /// Whether this pipe is what it wants: the first one that the node it has asked offers, and no other.
    pub(crate) fn is_this(&mut self, home: &str, group: AppId, pipe: u64) -> bool {
        self.home == home && self.group == group && *self.pipe.get_or_insert(pipe) == pipe
    }
}

/// What a request came to, besides its leases.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Leases found.
    pub found: u32,
    /// Slots free in the pool.
    pub free_hint: u32,
    /// Why it waited in vain.
    pub waited: Option<WaitEnd>,
}

/// A process whose words the node carries to another node, unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// A member of a bag that this node keeps.
    Member(BagId),
    /// One of the two of a visit.
    Visit(VisitId),
}

/// All programs connected.
#[derive(Default)]
pub(crate) struct Clients {
    /// Connected and silent so far.
    strangers: HashMap<ConnId, Tick>,
    /// Those whose words are carried to others.
    speakers: HashMap<ConnId, Speaker>,
    clients: HashMap<ConnId, Client>,
    by_app: HashMap<AppId, ConnId>,
    holders: HashMap<LeaseId, (ConnId, Handle)>,
    questions: HashMap<u64, (ConnId, u32)>,
    next_question: u64,
}

impl Client {
    pub(crate) fn new(app: AppId, name: String, user: String, pid: u32, epoch: Epoch, now: Tick) -> Client {
        Client {
            app,
            name,
            user,
            pid,
            epoch,
            token: Vec::new(),
            token_made: now,
            offer: Offer::None,
            seat: None,
            as_user: false,
            rings: true,
            since: now,
            lane: None,
            attach: None,
            next_handle: 0,
            leases: HashMap::new(),
            requests: HashMap::new(),
        }
    }

    pub(crate) fn plugin(&self) -> Option<&PluginRef> {
        match &self.offer {
            Offer::Known(plugin) => Some(plugin),
            _ => None,
        }
    }

    /// Who asks, for `plugin`.
    pub(crate) fn asker(&self, home: mutirao_wire::NodeRef, plugin: Option<PluginRef>) -> Asker {
        Asker {
            app: self.app,
            app_name: self.name.clone(),
            local_user: self.user.clone(),
            token: self.token.clone(),
            home,
            plugin,
        }
    }

    pub(crate) fn held(&self, handle: Handle) -> Option<Held> {
        self.leases.get(&handle.0).copied()
    }

    /// Whether it holds a lease of that lender.
    pub(crate) fn holds_at(&self, lender: NodeId) -> bool {
        self.leases.values().any(|held| held.lease.lender == lender)
    }

    /// Slots of the requests under way.
    pub(crate) fn awaits(&self) -> u32 {
        let slots = |request: &Allocate| request.want.count.saturating_mul(request.want.bundle.slots.into());
        self.requests.values().map(slots).fold(0, u32::saturating_add)
    }

    /// Leases and the slots in them.
    pub(crate) fn holds(&self) -> (u32, u32) {
        (self.leases.len() as u32, self.leases.values().map(|held| u32::from(held.slots)).sum())
    }
}

impl Clients {
    pub(crate) fn stranger(&mut self, now: Tick, conn: ConnId) {
        self.strangers.insert(conn, now);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.clients.len() + self.speakers.len() + self.strangers.len() >= PROGRAMS_MAX
    }

    pub(crate) fn has(&self, conn: ConnId) -> bool {
        self.clients.contains_key(&conn)
            || self.strangers.contains_key(&conn)
            || self.speakers.contains_key(&conn)
    }

    pub(crate) fn get(&self, conn: ConnId) -> Option<&Client> {
        self.clients.get(&conn)
    }

    pub(crate) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Client> {
        self.clients.get_mut(&conn)
    }

    pub(crate) fn by_app(&self, app: AppId) -> Option<ConnId> {
        self.by_app.get(&app).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &Client)> {
        self.clients.iter().map(|(conn, client)| (*conn, client))
    }

    /// A member of a bag, or one of a visit, introduced itself.
    pub(crate) fn insert_speaker(&mut self, conn: ConnId, speaker: Speaker) {
        self.strangers.remove(&conn);
        self.speakers.insert(conn, speaker);
    }

    /// Who is heard there, of those whose words are carried.
    pub(crate) fn speaker(&self, conn: ConnId) -> Option<Speaker> {
        self.speakers.get(&conn).copied()
    }

    /// It is heard no more.
    pub(crate) fn remove_speaker(&mut self, conn: ConnId) -> Option<Speaker> {
        self.speakers.remove(&conn)
    }

    /// The program introduced itself.
    pub(crate) fn insert(&mut self, conn: ConnId, client: Client) {
        self.strangers.remove(&conn);
        self.by_app.insert(client.app, conn);
        self.clients.insert(conn, client);
    }

    /// The connection closed. Returns the program, if it had introduced itself, and its leases.
    pub(crate) fn remove(&mut self, conn: ConnId) -> Option<(Client, Vec<LeaseId>)> {
        self.strangers.remove(&conn);
        let client = self.clients.remove(&conn)?;
        self.by_app.remove(&client.app);
        self.questions.retain(|_, (asker, _)| *asker != conn);
        let leases: Vec<LeaseId> = client.leases.values().map(|held| held.lease).collect();
        for lease in &leases {
            self.holders.remove(lease);
        }
        Some((client, leases))
    }

    /// Remembers a request; `false` if there are too many or the number is in use.
    pub(crate) fn request(&mut self, conn: ConnId, allocate: &Allocate) -> bool {
        let Some(client) = self.clients.get_mut(&conn) else { return false };
        if client.requests.len() >= REQUESTS_MAX || client.requests.contains_key(&allocate.sequence) {
            return false;
        }
        client.requests.insert(allocate.sequence, allocate.clone());
        true
    }

    /// What came of a request: gives handles to the leases and returns them, with whether workers
    /// were wanted. `None` if nobody waits for it any more.
    pub(crate) fn found(
        &mut self,
        conn: ConnId,
        sequence: u32,
        grants: &[Grant],
    ) -> Option<(Allocate, Vec<Handle>)> {
        let client = self.clients.get_mut(&conn)?;
        let allocate = client.requests.remove(&sequence)?;
        let mut handles = Vec::with_capacity(grants.len());
        for grant in grants {
            client.next_handle += 1;
            let handle = Handle(client.next_handle);
            let lease = grant.lease();
            client.leases.insert(handle.0, Held { lease, slots: grant.slots });
            self.holders.insert(lease, (conn, handle));
            handles.push(handle);
        }
        Some((allocate, handles))
    }

    /// A returning program says it holds `lease` under `handle`; `false` if that handle is taken or
    /// none that a node gives.
    pub(crate) fn hold(&mut self, conn: ConnId, handle: Handle, lease: LeaseId, slots: u16) -> bool {
        let Some(client) = self.clients.get_mut(&conn) else { return false };
        let given = 1..=HANDLE_RETURNED_MAX;
        if !given.contains(&handle.0)
            || client.leases.contains_key(&handle.0)
            || self.holders.contains_key(&lease)
        {
            return false;
        }
        client.next_handle = client.next_handle.max(handle.0);
        client.leases.insert(handle.0, Held { lease, slots });
        self.holders.insert(lease, (conn, handle));
        true
    }

    /// The lease under `handle` is over for the program.
    pub(crate) fn drop_lease(&mut self, conn: ConnId, handle: Handle) -> Option<LeaseId> {
        let held = self.clients.get_mut(&conn)?.leases.remove(&handle.0)?;
        self.holders.remove(&held.lease);
        Some(held.lease)
    }

    /// Who holds `lease`.
    pub(crate) fn holder(&self, lease: LeaseId) -> Option<(ConnId, Handle)> {
        self.holders.get(&lease).copied()
    }

    /// A new number for a question; `None` if there are too many.
    pub(crate) fn question(&mut self, conn: ConnId, number: u32) -> Option<u64> {
        if self.questions.values().filter(|(asker, _)| *asker == conn).count() >= QUESTIONS_MAX {
            return None;
        }
        self.next_question += 1;
        self.questions.insert(self.next_question, (conn, number));
        Some(self.next_question)
    }

    /// A new number for a question of the node's own.
    pub(crate) fn own_question(&mut self) -> u64 {
        self.next_question += 1;
        self.next_question
    }

    /// Who asked; forgotten with the last answer.
    pub(crate) fn asker(&mut self, question: u64, last: bool) -> Option<(ConnId, u32)> {
        if last { self.questions.remove(&question) } else { self.questions.get(&question).copied() }
    }

    /// Connections that said nothing since before `when`.
    pub(crate) fn silent_since(&self, when: Tick) -> Vec<ConnId> {
        self.strangers.iter().filter(|(_, since)| **since <= when).map(|(conn, _)| *conn).collect()
    }

    pub(crate) fn oldest_stranger(&self) -> Option<Tick> {
        self.strangers.values().min().copied()
    }
}

/// Writes a message to a program.
pub(crate) fn put(ctx: &mut Context, conn: ConnId, message: impl Into<LocalMessage>) {
    let message = message.into();
    ctx.conns.put_with(conn, |out| message.put(out));
}

/// Writes news of a lease, with descriptors beside it.
pub(crate) fn put_news(
    ctx: &mut Context,
    conn: ConnId,
    handle: Handle,
    change: LeaseChange,
    fds: Vec<OwnedFd>,
) {
    let message = LocalMessage::from(LeaseNews { handle, change });
    ctx.conns.put_with_fds(conn, fds, |out| message.put(out));
}

/// Turns a program away.
pub(crate) fn refuse(ctx: &mut Context, conn: ConnId, text: impl Into<String>) {
    let text = text.into();
    tracing::warn!("a program was turned away: {text}");
    put(ctx, conn, ClientRefused { text });
    ctx.conns.close_after_flush(conn);
}

/// Tells a program what came of its offer.
pub(crate) fn put_offered(ctx: &mut Context, conn: ConnId, plugin: &Result<PluginRef, String>) {
    let plugin = plugin.as_ref().map(|plugin| plugin.id).map_err(Clone::clone);
    put(ctx, conn, PluginOffered { plugin });
}

/// What a program is given.
pub(crate) struct Given<'a> {
    pub leases: &'a [(Handle, Grant)],
    pub arch: Arch,
    /// It shares memory with workers of this node.
    pub rings: bool,
}

impl Given<'_> {
    const NOTHING: Given<'static> = Given { leases: &[], arch: Arch::Other, rings: false };
}

/// Tells a program what came of its request, in as many messages as that takes.
pub(crate) fn put_allocated(
    ctx: &mut Context,
    conn: ConnId,
    allocate: &Allocate,
    given: &Given<'_>,
    mut notes: Vec<Note>,
    outcome: Outcome,
) {
    let me = ctx.me.id;
    let mut rest = given.leases;
    loop {
        let (now, later) = rest.split_at(rest.len().min(LEASES_A_MESSAGE));
        let leases = now.iter().map(|(handle, grant)| LeaseInfo {
            handle: *handle,
            lease: grant.lease(),
            lender: grant.lender.clone(),
            slots: grant.slots,
            local: given.rings && grant.lender.id == me,
            arch: given.arch,
        });
        let message = Allocated {
            sequence: allocate.sequence,
            leases: leases.collect(),
            notes: core::mem::take(&mut notes),
            more: !later.is_empty(),
            found: outcome.found,
            free_hint: outcome.free_hint,
            waited: outcome.waited.clone(),
        };
        put(ctx, conn, message);
        rest = later;
        if rest.is_empty() {
            return;
        }
    }
}

/// Tells a program that a request cannot even be searched for.
pub(crate) fn put_unfit(ctx: &mut Context, conn: ConnId, allocate: &Allocate, why: &str) {
    let note = Note { node: ctx.me.name.clone(), hindrance: Hindrance::Unfit(why.into()) };
    put_allocated(ctx, conn, allocate, &Given::NOTHING, vec![note], Outcome::default());
}

/// Tells a program that the pool's charter leaves nothing of a request. That slots may be free tells the
/// library that waiting is of no use.
pub(crate) fn put_refused(ctx: &mut Context, conn: ConnId, allocate: &Allocate, why: String) {
    let note = Note { node: ctx.me.name.clone(), hindrance: Hindrance::Refused(why) };
    let outcome = Outcome { free_hint: 1, ..Outcome::default() };
    put_allocated(ctx, conn, allocate, &Given::NOTHING, vec![note], outcome);
}
