//! Searches for slots: here, then below, and only for what is then missing above.

use crate::core::{Core, Timer};
use crate::hint;
use crate::io::{Output, Table};
use crate::summary::Child;
use crate::wait::Asked;
use core::time::Duration;
use mutirao_wire::limits::{GRANTS_A_REPLY, SEARCH, WANT_MAX};
use mutirao_wire::node::{Asker, Grant, Hindrance, NodeRef, Note, Want};
use mutirao_wire::tree::{Search, SearchCancel, SearchReply};
use mutirao_wire::wait::{Wait, WaitEnd};
use mutirao_wire::{AppId, NodeId, RequestId, Tick};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Notes kept of one search, and the longest text of one, bytes.
const NOTES_MAX: usize = 8;
const NOTE_BYTES_MAX: usize = 200;
/// Grants in one reply, bytes: leaves room for notes and the rest of a control frame.
const GRANT_BYTES_A_REPLY: usize = 12 * 1024;
/// A neighbour is not asked when less time than this is left.
const LEAST_BUDGET: Duration = Duration::from_millis(1);

/// The searches this node takes part in, or did lately.
#[derive(Default)]
pub(crate) struct Searches {
    jobs: BTreeMap<RequestId, Job>,
}

impl Searches {
    /// See [`Core::rest`].
    pub(crate) fn rest(&mut self) {
        if self.jobs.is_empty() {
            self.jobs = BTreeMap::new();
        }
    }
}

/// One search, as seen from one node.
#[derive(Clone)]
struct Job {
    request: RequestId,
    /// Who asked; `None`: a local application.
    from: Option<NodeId>,
    asker: Arc<Asker>,
    want: Want,
    at_least: u32,
    /// The asker's round.
    round: u8,
    /// Bundles still to be found in this round.
    missing: u32,
    deadline: Tick,
    done: bool,
    /// Once done: when it is forgotten.
    until: Tick,
    /// Own rounds in this one.
    rounds: u8,
    asked_parent: bool,
    edges: BTreeMap<NodeId, Edge>,
    /// Bundles granted on this node itself, over all rounds.
    here: u32,
    /// Found in this round.
    grants: Vec<Grant>,
    notes: Vec<Note>,
}

/// Where a node is, seen from the only subtree that will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// In it, and not its top; or any subtree will do.
    Inside,
    /// Its top.
    Top,
    /// Elsewhere.
    Outside,
}

/// A neighbour asked.
#[derive(Clone)]
struct Edge {
    /// The round it is asked in, or was.
    round: u8,
    waiting: bool,
    quota: u32,
    got: Vec<Grant>,
    /// Found there over all rounds.
    total: u32,
    /// It found less than it was asked for: it has no more.
    exhausted: bool,
}

impl Job {
    /// What would have to be asked to have it done once more.
    fn asked(&self, now: Tick) -> Asked {
        Asked {
            request: self.request,
            want: self.want.clone(),
            at_least: self.at_least,
            asker: self.asker.clone(),
            budget: self.deadline - now,
        }
    }

    fn note(&mut self, mut note: Note) {
        match &mut note.hindrance {
            Hindrance::AwaitsApproval | Hindrance::ComesBack { .. } => {}
            Hindrance::Refused(text)
            | Hindrance::Unfit(text)
            | Hindrance::Lacking(text)
            | Hindrance::Busy(text) => text.truncate(text.floor_char_boundary(NOTE_BYTES_MAX)),
        }
        // What may yet come is worth more to the asker than a refusal, and so is what the whole
        // pool lacks.
        let comes = matches!(note.hindrance, Hindrance::AwaitsApproval | Hindrance::ComesBack { .. });
        let first = comes || sums_up(&note);
        if first && self.notes.len() >= NOTES_MAX {
            self.notes.pop();
        }
        if first {
            self.notes.insert(0, note);
        } else if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }

    /// Whether the top of the only subtree that will do has said that it has no more.
    fn met_its_top(&self) -> bool {
        let top = self.want.below.as_ref();
        let is_top = |note: &Note| matches!(note.hindrance, Hindrance::Lacking(_)) && Some(&note.node) == top;
        top.is_some() && self.notes.iter().any(is_top)
    }
}

impl Core {
    pub(crate) fn request(&mut self, asked: Asked, wait: Option<(Wait, u64)>, out: &mut Vec<Output>) {
        let request = asked.request;
        if self.waits_for(request) || self.is_sought_again(request) {
            return;
        }
        if let Some(job) = self.searches.jobs.get(&request) {
            if job.done {
                let (grants, notes) = (job.grants.clone(), job.notes.clone());
                self.found(request, grants, notes, out);
            }
            return;
        }
        let hops = || match asked.want.hops.and(wait) {
            Some(_) => Err("a request that may wait goes as far as need be: give no limit of hops".into()),
            None => Ok(()),
        };
        if let Err(text) = asked.want.check().and_then(|()| hops()) {
            let note = Note { node: self.me.name.clone(), hindrance: Hindrance::Lacking(text) };
            return self.found(request, Vec::new(), vec![note], out);
        }
        if let Some(wait) = wait
            && !self.wait_begin(&asked, wait, out)
        {
            let waited = Some(WaitEnd::Full(self.me.name.clone()));
            return self.tell_found(request, Vec::new(), Vec::new(), 0, waited, out);
        }
        if !self.search(asked, out) {
            self.wait_cancelled(request, out);
            self.found(request, Vec::new(), Vec::new(), out);
        }
    }

    /// Begins a search for a local application; `false` if it cannot be.
    pub(crate) fn search(&mut self, asked: Asked, out: &mut Vec<Output>) -> bool {
        let Asked { request, mut want, at_least, asker, budget } = asked;
        let room = self.held_room().min(WANT_MAX as usize) as u32;
        if room < want.count.min(WANT_MAX) {
            out.push(Output::Full(Table::Held));
        }
        want.count = want.count.min(room);
        let plugin = asker.plugin.as_ref().map(|plugin| plugin.id);
        let known = self.know_app(request.app, plugin, out);
        if !known || self.leaving || want.count == 0 || asker.home.id != self.me.id {
            return false;
        }
        let deadline = self.now + budget;
        match self.new_job(None, asker, want, at_least, 0, deadline, request, out) {
            Some(job) => self.run(request, job, out),
            None => return false,
        }
        true
    }

    pub(crate) fn found(
        &self,
        request: RequestId,
        grants: Vec<Grant>,
        notes: Vec<Note>,
        out: &mut Vec<Output>,
    ) {
        let found = grants.len() as u32;
        self.tell_found(request, grants, notes, found, None, out);
    }

    /// `found` leases were found, of which `grants` are kept.
    fn tell_found(
        &self,
        request: RequestId,
        grants: Vec<Grant>,
        notes: Vec<Note>,
        found: u32,
        waited: Option<WaitEnd>,
        out: &mut Vec<Output>,
    ) {
        let free_hint = self.summarise().slots_free;
        out.push(Output::Found { request, grants, notes, found, free_hint, waited });
    }

    #[allow(clippy::too_many_arguments)] // They are the fields of the job.
    fn new_job(
        &mut self,
        from: Option<NodeId>,
        asker: Arc<Asker>,
        mut want: Want,
        at_least: u32,
        round: u8,
        deadline: Tick,
        request: RequestId,
        out: &mut Vec<Output>,
    ) -> Option<Job> {
        if self.searches.jobs.len() >= self.settings.searches_max {
            out.push(Output::Full(Table::Searches));
            return None;
        }
        want.count = want.count.min(WANT_MAX);
        want.bundle.slots = want.bundle.slots.max(1);
        self.arm(deadline, Timer::Search(request));
        Some(Job {
            request,
            from,
            asker,
            missing: want.count,
            want,
            at_least,
            round,
            deadline,
            done: false,
            until: deadline,
            rounds: 0,
            asked_parent: false,
            edges: BTreeMap::new(),
            here: 0,
            grants: Vec::new(),
            notes: Vec::new(),
        })
    }

    pub(crate) fn on_search(&mut self, from: NodeId, m: Search, out: &mut Vec<Output>) {
        if !self.is_neighbour(from) {
            self.not_my_neighbour(from, out);
            return self.reply(from, m.request, m.round, Vec::new(), Vec::new(), out);
        }
        let budget = Duration::from_millis(m.budget_ms.into()).min(SEARCH);
        let deadline = self.now + budget;
        // What concerns this node's own applications never comes from outside.
        let foreign = m.asker.home.id != self.me.id && m.asker.app == m.request.app && !self.leaving;
        let foreign = foreign && m.want.check().is_ok();
        let job = match self.searches.jobs.remove(&m.request) {
            Some(job) if job.from != Some(from) => {
                self.searches.jobs.insert(m.request, job);
                None
            }
            Some(job) if m.round <= job.round => {
                if m.round == job.round && job.done {
                    self.reply(from, m.request, m.round, job.grants.clone(), job.notes.clone(), out);
                }
                self.searches.jobs.insert(m.request, job);
                return;
            }
            Some(mut job) => {
                // What an unfinished earlier round has found so far belongs to this one.
                if job.done {
                    job.grants.clear();
                    job.notes.clear();
                }
                self.give_up_edges(&mut job);
                let count = m.want.count.min(WANT_MAX);
                job.missing = count.saturating_sub(job.grants.len() as u32);
                job.round = m.round;
                job.want.count = count;
                self.disarm(job.deadline, Timer::Search(m.request));
                job.deadline = deadline;
                job.done = false;
                job.rounds = 0;
                job.asked_parent = false;
                self.arm(deadline, Timer::Search(m.request));
                Some(job)
            }
            None if foreign => {
                self.new_job(Some(from), m.asker, m.want, 0, m.round, deadline, m.request, out)
            }
            None => None,
        };
        match job {
            Some(job) => self.run(m.request, job, out),
            None => self.reply(from, m.request, m.round, Vec::new(), Vec::new(), out),
        }
    }

    /// Takes what is here, then asks around.
    fn run(&mut self, request: RequestId, mut job: Job, out: &mut Vec<Output>) {
        let (asker, want) = (job.asker.clone(), job.want.clone());
        let missing = if self.is_inside(&want) { job.missing } else { 0 };
        let (grants, note) = self.grant(request, &asker, &want, missing, job.here, out);
        job.here += grants.len() as u32;
        job.missing = job.missing.saturating_sub(grants.len() as u32);
        job.grants.extend(grants);
        if let Some(note) = note {
            job.note(note);
        }
        self.advance(request, job, out);
    }

    /// Asks whoever is to be asked next, or finishes; keeps the job.
    fn advance(&mut self, request: RequestId, mut job: Job, out: &mut Vec<Output>) {
        if job.edges.values().any(|edge| edge.waiting) {
            self.searches.jobs.insert(request, job);
            return;
        }
        let left = job.deadline - self.now;
        let budget = (left * 9 / 10).saturating_sub(LEAST_BUDGET);
        let scope = self.scope(&job.want);
        if job.missing > 0 && budget >= LEAST_BUDGET && job.want.hops != Some(0) && !job.met_its_top() {
            let mut shares = Vec::new();
            if job.rounds < self.settings.rounds_max {
                job.rounds += 1;
                shares = self.share_out(&job, scope);
            }
            if shares.is_empty() && scope != Scope::Top {
                let parent = self.place.parent.as_ref().map(|parent| parent.id);
                if let Some(parent) = parent.filter(|id| !job.asked_parent && job.from != Some(*id)) {
                    job.asked_parent = true;
                    shares.push((parent, job.missing));
                }
            }
            if !shares.is_empty() {
                for (id, quota) in shares {
                    self.ask_edge(request, &mut job, id, quota, budget, out);
                }
                self.searches.jobs.insert(request, job);
                return;
            }
        }
        self.finish_search(request, job, out);
    }

    pub(crate) fn scope(&self, want: &Want) -> Scope {
        match &want.below {
            None => Scope::Inside,
            Some(top) if *top == self.me.name => Scope::Top,
            Some(top) => {
                let above = self.place.above.lineage().ancestors;
                if above.iter().any(|node| node.name == *top) { Scope::Inside } else { Scope::Outside }
            }
        }
    }

    /// Whether this node is in the only subtree that will do.
    pub(crate) fn is_inside(&self, want: &Want) -> bool {
        self.scope(want) != Scope::Outside
    }

    /// Whether a request that names nodes, or excludes some, can mean this one.
    pub(crate) fn is_named(&self, want: &Want) -> bool {
        (want.among.is_empty() || want.among.contains(&self.me.name)) && !want.avoid.contains(&self.me.id)
    }

    /// What to tell the asker of a search that found too little.
    fn shortfall(&self, job: &Job) -> Option<Note> {
        if job.missing == 0 || job.met_its_top() {
            return None;
        }
        let near =
            |hops| Hindrance::Busy(format!("within {hops} hops of {} no more was found", self.me.name));
        let hops = job.want.hops.filter(|_| job.from.is_none() && !job.notes.iter().any(sums_up));
        let hindrance = self.end_of_search(job).or_else(|| hops.map(near))?;
        Some(Note { node: self.me.name.clone(), hindrance })
    }

    /// What this node knows of all there is, if the search went no further because it is the top of the
    /// tree or of the only subtree that will do.
    fn end_of_search(&self, job: &Job) -> Option<Hindrance> {
        let want = &job.want;
        let below = |top, summary| {
            let lack = hint::lack(summary, want).unwrap_or_else(|| Hindrance::Busy("no more is free".into()));
            Some(prefixed(&format!("below {top}"), lack))
        };
        let from_above = job.from.is_some_and(|from| self.place.is_parent(from));
        match &want.below {
            Some(top) if self.scope(want) == Scope::Top => below(top, &self.summarise()),
            _ if from_above || self.place.parent.is_some() => None,
            Some(top) => {
                let mut children = self.place.children.values();
                if let Some(child) = children.clone().find(|child| child.knows(top) == Some(true)) {
                    return below(top, child.summary());
                }
                let anywhere = children.any(|child| child.knows(top).is_none());
                let none = || Hindrance::Lacking(format!("no node called `{top}` was found"));
                (want.hops.is_none() || !anywhere).then(none)
            }
            // Where hops are counted, what is free somewhere need not be near enough.
            None => hint::lack(&self.summarise(), want)
                .filter(|lack| want.hops.is_none() || matches!(lack, Hindrance::Lacking(_))),
        }
    }

    /// Whether what is wanted may be found by way of this neighbour.
    pub(crate) fn leads_to(&self, neighbour: NodeId, want: &Want, free: bool) -> bool {
        let scope = self.scope(want);
        if want.hops == Some(0) || want.check().is_err() {
            return false;
        }
        let Some(child) = self.place.children.get(&neighbour) else { return scope != Scope::Top };
        let on_the_way = match &want.below {
            Some(top) if scope == Scope::Outside => child.knows(top) != Some(false),
            _ => true,
        };
        on_the_way && child.has(want, free)
    }

    /// Splits what is missing over the children that probably have it. On the way down to the only
    /// subtree that will do, those that certainly know of it come before those that may.
    fn share_out(&self, job: &Job, scope: Scope) -> Vec<(NodeId, u32)> {
        let split = |estimates: Vec<(u32, NodeId)>| {
            let mut order = estimates;
            order.retain(|(estimate, _)| *estimate > 0);
            order.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
            let mut missing = job.missing;
            let mut shares = Vec::new();
            for (estimate, id) in order {
                if missing == 0 {
                    break;
                }
                let share = estimate.min(missing);
                missing -= share;
                shares.push((id, share));
            }
            shares
        };
        let way = job.want.below.as_deref().filter(|_| scope == Scope::Outside);
        let able = |certain: bool| {
            self.place.children.iter().filter(move |(id, child)| {
                job.from != Some(**id)
                    && job.edges.get(id).is_none_or(|edge| !edge.exhausted)
                    && way.is_none_or(|top| child.knows(top) == certain.then_some(true))
            })
        };
        for certain in [true, false] {
            // What is kept for it is certain, the rest is hope.
            let kept = |(id, _): (&NodeId, &Child)| {
                let had = job.edges.get(id).map_or(0, |edge| edge.total);
                (self.kept_below(job.request, &job.want, *id).saturating_sub(had), *id)
            };
            let shares = split(able(certain).map(kept).collect());
            if !shares.is_empty() {
                return shares;
            }
            let shares = split(able(certain).map(|(id, child)| (child.estimate(&job.want), *id)).collect());
            if !shares.is_empty() {
                return shares;
            }
            let possible = |(id, child): (&NodeId, &Child)| {
                let had = job.edges.get(id).map_or(0, |edge| edge.total);
                (child.possible(&job.want, self.now, &self.settings).saturating_sub(had), *id)
            };
            let shares = split(able(certain).map(possible).collect());
            if !shares.is_empty() || way.is_none() {
                return shares;
            }
        }
        Vec::new()
    }

    fn ask_edge(
        &mut self,
        request: RequestId,
        job: &mut Job,
        id: NodeId,
        quota: u32,
        budget: Duration,
        out: &mut Vec<Output>,
    ) {
        let edge = job.edges.entry(id).or_insert(Edge {
            round: u8::MAX,
            waiting: false,
            quota: 0,
            got: Vec::new(),
            total: 0,
            exhausted: false,
        });
        edge.round = edge.round.wrapping_add(1);
        edge.waiting = true;
        edge.quota = quota;
        edge.got.clear();
        if let Some(child) = self.place.children.get_mut(&id) {
            child.debit(&job.want.bundle, quota);
        }
        let mut want = Want { count: quota, ..job.want.clone() };
        want.hops = want.hops.map(|hops| hops.saturating_sub(1));
        if !self.place.is_parent(id) && self.scope(&want) != Scope::Outside {
            // All that is below is in the only subtree that will do; it need not know how far up that goes.
            want.below = None;
        }
        let search = Search {
            request,
            want,
            asker: job.asker.clone(),
            budget_ms: budget.as_millis().min(u32::MAX.into()) as u32,
            round: edge.round,
        };
        self.send_tree(id, search, out);
    }

    pub(crate) fn on_search_reply(&mut self, from: NodeId, m: SearchReply, out: &mut Vec<Output>) {
        let mut job = self.searches.jobs.remove(&m.request);
        let expected = job
            .as_mut()
            .and_then(|job| job.edges.get_mut(&from).filter(|edge| edge.waiting && edge.round == m.round));
        let Some(edge) = expected else {
            if let Some(job) = job {
                self.searches.jobs.insert(m.request, job);
            }
            if !m.grants.is_empty() {
                self.send_tree(from, SearchCancel { request: m.request }, out);
            }
            return;
        };
        let me = self.me.id;
        let room = (edge.quota as usize).saturating_sub(edge.got.len());
        edge.got.extend(m.grants.into_iter().filter(|grant| grant.lender.id != me).take(room));
        let more = m.more;
        let Some(mut job) = job else { return };
        for note in m.notes.into_iter().take(NOTES_MAX) {
            job.note(note);
        }
        if more {
            self.searches.jobs.insert(m.request, job);
            return;
        }
        self.close_edge(&mut job, from);
        self.advance(m.request, job, out);
    }

    /// Takes what an edge has brought, whether it is complete or not.
    fn close_edge(&mut self, job: &mut Job, id: NodeId) {
        let Some(edge) = job.edges.get_mut(&id).filter(|edge| edge.waiting) else { return };
        edge.waiting = false;
        let got = core::mem::take(&mut edge.got);
        edge.total += got.len() as u32;
        edge.exhausted = (got.len() as u32) < edge.quota;
        job.missing = job.missing.saturating_sub(got.len() as u32);
        if let Some(child) = self.place.children.get_mut(&id) {
            child.settle(&job.want.bundle, edge.quota, &got);
            self.upward.touched = true;
        }
        job.grants.extend(got);
    }

    /// Waits for nobody any longer. What still comes is cancelled when it comes.
    fn give_up_edges(&mut self, job: &mut Job) {
        let waiting: Vec<NodeId> =
            job.edges.iter().filter(|(_, edge)| edge.waiting).map(|(id, _)| *id).collect();
        for id in waiting {
            // A reply cut off in the middle is cancelled as a whole by its last part.
            if let Some(edge) = job.edges.get_mut(&id) {
                edge.got.clear();
            }
            self.close_edge(job, id);
        }
    }

    fn finish_search(&mut self, request: RequestId, mut job: Job, out: &mut Vec<Output>) {
        self.give_up_edges(&mut job);
        if let Some(note) = self.shortfall(&job) {
            job.note(note);
        }
        self.search_over(request, &mut job);
        match job.from {
            Some(from) => {
                if self.place.is_parent(from) && !job.grants.is_empty() {
                    self.upward.owed = true;
                    self.upward.touched = true;
                }
                self.reply(from, request, job.round, job.grants.clone(), job.notes.clone(), out);
                self.searches.jobs.insert(request, job);
            }
            None => {
                let found = job.grants.len() as u32;
                let waits = self.waits_by(request);
                let enough = found >= job.at_least.max(waits.is_some().into());
                if !enough {
                    job.grants.clear();
                    self.cancel_edges(request, &job, out);
                    self.take_back(request, out);
                }
                let notes = job.notes.clone();
                // First: a request that goes on may be served in this very turn, and its answer has the same name.
                self.searches.jobs.insert(request, job.clone());
                if waits.is_some() && !enough {
                    self.wait_goes_on(request, found, notes, out);
                } else if enough || !self.search_again(job.asked(self.now)) {
                    let name = waits.or_else(|| self.again_over(request)).unwrap_or(request);
                    self.tell_found(name, job.grants.clone(), notes, found, None, out);
                    self.take_grants(request.app, &job.grants, job.asker.plugin.is_none(), out);
                    self.wait_served(request, &job.grants, out);
                    // Asked again under its own name, the request gets this answer.
                    self.arm_loosely(job.until, Timer::Search(name));
                    self.searches.jobs.insert(name, job);
                }
            }
        }
    }

    /// It waits for nothing more, and is remembered for a while.
    fn search_over(&mut self, request: RequestId, job: &mut Job) {
        self.disarm(job.deadline, Timer::Search(request));
        job.done = true;
        job.until = self.now + self.settings.first_life;
        self.arm_loosely(job.until, Timer::Search(request));
    }

    /// Sends a reply, in as many messages as it needs.
    fn reply(
        &self,
        to: NodeId,
        request: RequestId,
        round: u8,
        grants: Vec<Grant>,
        mut notes: Vec<Note>,
        out: &mut Vec<Output>,
    ) {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        for grant in grants {
            let size = 16 + size_of_ref(&grant.lender);
            if chunk.len() >= GRANTS_A_REPLY || bytes + size > GRANT_BYTES_A_REPLY {
                let grants = core::mem::take(&mut chunk);
                self.send_tree(
                    to,
                    SearchReply { request, round, grants, notes: core::mem::take(&mut notes), more: true },
                    out,
                );
                bytes = 0;
            }
            bytes += size;
            chunk.push(grant);
        }
        self.send_tree(to, SearchReply { request, round, grants: chunk, notes, more: false }, out);
    }

    pub(crate) fn on_search_cancel(&mut self, from: NodeId, request: RequestId, out: &mut Vec<Output>) {
        if self.searches.jobs.get(&request).is_some_and(|job| job.from == Some(from)) {
            self.cancel_search(request, out);
        }
    }

    pub(crate) fn cancel_request(&mut self, request: RequestId, out: &mut Vec<Output>) {
        if self.wait_cancelled(request, out) || self.again_cancelled(request, out) {
            return;
        }
        let Some(job) = self.searches.jobs.get(&request).filter(|job| job.from.is_none()) else { return };
        let leases = job.grants.iter().map(Grant::lease).collect();
        self.give_back(request.app, leases, out);
        self.cancel_search(request, out);
    }

    /// Takes back what was granted here and is not confirmed, and has it taken back further on.
    pub(crate) fn cancel_search(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let Some(mut job) = self.searches.jobs.remove(&request) else { return };
        self.cancel_edges(request, &job, out);
        self.take_back(request, out);
        self.give_up_edges(&mut job);
        job.grants.clear();
        self.search_over(request, &mut job);
        if job.from.is_some_and(|from| self.place.is_parent(from)) {
            self.upward.owed = true;
        }
        self.upward.touched = true;
        self.searches.jobs.insert(request, job);
    }

    fn cancel_edges(&self, request: RequestId, job: &Job, out: &mut Vec<Output>) {
        for id in job.edges.keys() {
            self.send_tree(*id, SearchCancel { request }, out);
        }
    }

    pub(crate) fn cancel_requests_of(&mut self, app: AppId, out: &mut Vec<Output>) {
        self.waits_of_cancelled(app, out);
        self.agains_of_cancelled(app, out);
        let theirs: Vec<RequestId> = (self.searches.jobs.iter())
            .filter(|(request, job)| request.app == app && job.from.is_none())
            .map(|(request, _)| *request)
            .collect();
        for request in theirs {
            self.cancel_search(request, out);
        }
    }

    /// The edge to `id` is lost: nothing comes from there, and nothing found can be sent there.
    pub(crate) fn searches_lost(&mut self, id: NodeId, out: &mut Vec<Output>) {
        let concerned: Vec<RequestId> = (self.searches.jobs.iter())
            .filter(|(_, job)| !job.done && (job.from == Some(id) || job.edges.contains_key(&id)))
            .map(|(request, _)| *request)
            .collect();
        for request in concerned {
            if self.searches.jobs.get(&request).is_some_and(|job| job.from == Some(id)) {
                self.cancel_search(request, out);
                continue;
            }
            let Some(mut job) = self.searches.jobs.remove(&request) else { continue };
            if let Some(edge) = job.edges.get_mut(&id) {
                edge.got.clear();
            }
            self.close_edge(&mut job, id);
            self.advance(request, job, out);
        }
    }

    pub(crate) fn search_time(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let Some(job) = self.searches.jobs.get(&request) else { return };
        if job.done {
            if job.until <= self.now {
                self.searches.jobs.remove(&request);
            }
        } else if job.deadline <= self.now
            && let Some(job) = self.searches.jobs.remove(&request)
        {
            self.finish_search(request, job, out);
        }
    }
}

/// Whether the note speaks of more than one node.
fn sums_up(note: &Note) -> bool {
    matches!(note.hindrance, Hindrance::Lacking(_) | Hindrance::Busy(_))
}

fn prefixed(place: &str, hindrance: Hindrance) -> Hindrance {
    match hindrance {
        Hindrance::Lacking(text) => Hindrance::Lacking(format!("{place}, {text}")),
        Hindrance::Busy(text) => Hindrance::Busy(format!("{place}, {text}")),
        other => other,
    }
}

/// An upper bound of the bytes a reference takes in a message.
fn size_of_ref(node: &NodeRef) -> usize {
    // Id, incarnation, lengths; an address is at most a tag, 16 bytes and a port.
    32 + 10 + 4 + node.name.len() + 20 * node.addresses.len()
}
