//! One member, as a machine.

use crate::line::{Kept, Line, Point};
use crate::mend::{Mending, Note};
use crate::message;
use crate::sound::{self, NUMBER_MAX, Refused};
use crate::store::{Cold, Store};
use raft::eraftpb::{Message, MessageType};
use raft::{Config, RawNode, Ready, SnapshotStatus, StateRole};

/// Entries in one message, bytes; one entry alone may be longer.
const MESSAGE_BYTES: u64 = 8 * 1024;
/// Messages with entries on their way to a member that has not answered yet: few enough that none is dropped on the
/// way, which takes much longer to find out and to mend than waiting does.
const INFLIGHT: usize = 48;
/// Entries handed out at once, bytes.
const HANDED_BYTES: u64 = 4 << 20;

/// How a member keeps time, in ticks of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The leader is heard at least so often.
    pub heartbeat: usize,
    /// A leader not heard for so long is replaced; one that hears most others no more steps down.
    pub election: usize,
}

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It knows all that counts, and may propose. The number grows from leader to leader.
    Leads(u64),
    /// Another leads, as far as it knows.
    Follows(u64),
    /// Nobody it knows of.
    Seeks,
}

/// This member does not lead. Nothing was proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this member does not lead")]
pub struct NotLeading;

/// An entry that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place, counted from 1.
    pub index: u64,
    /// Of which leadership it is.
    pub term: u64,
    /// What it says; nothing, where a leader began.
    pub data: Vec<u8>,
}

/// What there is to do.
#[derive(Debug, Default)]
pub struct Work {
    /// Messages that may be sent at once, each with its member.
    pub send: Vec<(u64, Vec<u8>)>,
    /// Unless it is empty: the journal is to be replaced, at once and for good, by the parts of the
    /// [offer](Member::take) and these lines.
    pub base: Vec<Line>,
    /// What is to be appended to the journal, in this order.
    pub lines: Vec<Line>,
    /// The lines are to be on the disk before [`Member::written`] is said.
    pub sync: bool,
}

/// What follows once all that is written.
#[derive(Debug, Default)]
pub struct Written {
    /// Messages to send, each with its member.
    pub send: Vec<(u64, Vec<u8>)>,
    /// Entries that count, in order, each handed out once in the life of a member.
    pub entries: Vec<Entry>,
    /// To be appended to the journal, without waiting for the disk.
    pub line: Option<Line>,
}

/// What entries have come to, offered by a leader to this member, which lacks some that are not kept any more.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Whose it is.
    pub from: u64,
    /// The last of these entries.
    pub base: Point,
    /// What that member's owner says of it.
    pub data: Vec<u8>,
    message: Message,
}

/// A journal that says the same in fewer lines: the parts that its owner makes, and then these.
#[derive(Debug)]
pub struct Compact {
    base: Point,
    before: Point,
    /// The line behind the parts.
    pub head: Line,
    /// The entries that are kept.
    pub entries: Vec<Line>,
    /// The line behind these.
    pub state: Line,
}

/// A member of a journal that several keep.
pub struct Member {
    node: RawNode<Store>,
    /// Members are numbered from 1.
    me: u64,
    members: u64,
    under_way: Option<Ready>,
    /// Members to whom was offered what entries have come to.
    offered: Vec<u64>,
    /// Unless its disk has all that it should.
    mending: Option<Mending>,
    /// What is to be said beside the messages of Raft.
    notes: Vec<(u64, Vec<u8>)>,
}

impl Member {
    /// Member `me` of `members`, who are numbered from 1, with what it knows from its disk, which is
    /// [whole](Kept::is_whole). `offer` is what is to be said of the parts there to members that lack entries.
    pub fn new(me: u64, members: u64, timing: Timing, kept: Kept, offer: Vec<u8>, cold: Cold) -> Member {
        assert!((1..=members).contains(&me), "members are numbered from 1");
        assert!(kept.is_whole(members), "looked at before");
        // Each waits for another span before it wants to lead, so that they do not want to at once, and the first
        // of them most often leads. So nothing here is left to chance.
        let first = timing.election + (me as usize - 1) * timing.election / 3;
        let config = Config {
            id: me,
            election_tick: timing.election,
            heartbeat_tick: timing.heartbeat,
            min_election_tick: first,
            max_election_tick: first + 1,
            max_size_per_msg: MESSAGE_BYTES,
            max_inflight_msgs: INFLIGHT,
            max_committed_size_per_ready: HANDED_BYTES,
            check_quorum: true,
            pre_vote: true,
            applied: kept.base.index,
            ..Config::default()
        };
        let store = Store::new(kept, offer, (1..=members).collect(), cold);
        let quiet = slog::Logger::root(slog::Discard, slog::o!());
        let node = RawNode::new(&config, store, &quiet).expect("the configuration is in order");
        Member { node, me, members, under_way: None, offered: Vec::new(), mending: None, notes: Vec::new() }
    }

    /// The disk lacks something that was there. Until the member has it from the others, who must all be there for
    /// it, it votes for nobody and cannot lead. `nonce` is like no other: answers to earlier questions do not count.
    pub fn mend(&mut self, nonce: u64) {
        let raft = &mut self.node.raft;
        raft.become_follower(raft.term, 0);
        self.mending = Some(Mending::new(nonce, self.members));
        self.ask_others();
    }

    /// Whether the disk lacks something still.
    pub fn mends(&self) -> bool {
        self.mending.is_some()
    }

    fn ask_others(&mut self) {
        let last = self.node.store().last();
        let Some(note) = self.mending.as_mut().and_then(|mending| mending.tick(last)) else { return };
        for member in (1..=self.members).filter(|member| *member != self.me) {
            self.notes.push((member, note.encode()));
        }
    }

    /// Time passes.
    pub fn tick(&mut self) {
        if self.mends() {
            // It waits for no leader, since it cannot become one.
            return self.ask_others();
        }
        // An offer counts as lost until it is taken: it is made again with the next beats.
        for member in std::mem::take(&mut self.offered) {
            self.node.report_snapshot(member, SnapshotStatus::Failure);
        }
        self.node.tick();
    }

    /// Wants to lead without waiting: nobody can lead yet.
    pub fn campaign(&mut self) {
        if self.mends() {
            return;
        }
        // Refused only while a change of the members is under way, of which there is none.
        let _ = self.node.campaign();
    }

    /// Member `from` has sent this. Nothing follows from what is refused. With an offer nothing follows either,
    /// until all that is offered is there and it is [taken](Member::take).
    pub fn hear(&mut self, from: u64, bytes: &[u8]) -> Result<Option<Offer>, Refused> {
        if let Some(note) = Note::decode(bytes) {
            return self.hear_note(from, note?).map(|()| None);
        }
        let message = message::decode(from, self.me, self.members, bytes)?;
        if self.mending.as_ref().is_some_and(|mending| !mending.admits(message.get_msg_type())) {
            return Ok(None);
        }
        sound::check(&self.node.raft, self.me, self.members, &message)?;
        if let Some(offer) = self.offer(&message) {
            return Ok(Some(offer));
        }
        // What an earlier leader still says is refused in there, and needs no answer here.
        let _ = self.node.step(message);
        Ok(None)
    }

    fn hear_note(&mut self, from: u64, note: Note) -> Result<(), Refused> {
        if from == self.me || !(1..=self.members).contains(&from) {
            return Err(Refused::Stranger);
        }
        match note {
            // What it has lost itself it may have promised to whoever asks.
            Note::Mends { .. } if self.mends() => {}
            Note::Mends { nonce, last } => {
                let leads = self.lacks_from(from, last);
                let stands = Note::Stands { nonce, term: self.node.raft.term, leads };
                self.notes.push((from, stands.encode()));
            }
            Note::Stands { term, leads, .. } if term.max(leads.unwrap_or(0)) > NUMBER_MAX => {
                return Err(Refused::Numbers);
            }
            Note::Stands { nonce, term, leads } => {
                let begins = self.mending.as_mut().and_then(|mending| mending.hear(from, nonce, term, leads));
                if let Some(term) = begins {
                    let raft = &mut self.node.raft;
                    raft.become_follower(term.max(raft.term), 0);
                    raft.vote = self.me;
                }
                self.see_whether_mended();
            }
        }
        Ok(())
    }

    fn see_whether_mended(&mut self) {
        let state = self.node.store().state();
        if self.mending.as_ref().is_some_and(|mending| mending.is_over(state.term, state.commit)) {
            self.mending = None;
        }
    }

    /// A member has entries up to `last` only, whatever it has said before. Of a leader: its last entry.
    fn lacks_from(&mut self, member: u64, last: u64) -> Option<u64> {
        let raft = &mut self.node.raft;
        let own = raft.raft_log.last_index();
        if raft.state != StateRole::Leader {
            return None;
        }
        if let Some(progress) = raft.mut_prs().get_mut(member).filter(|progress| progress.matched > last) {
            progress.matched = 0;
            progress.become_probe();
            progress.next_idx = last.min(own) + 1;
        }
        Some(own)
    }

    /// What is offered in a message, if it is of use here.
    fn offer(&self, message: &Message) -> Option<Offer> {
        let raft = &self.node.raft;
        let metadata = message.get_snapshot().get_metadata();
        let is_new = message.get_msg_type() == MessageType::MsgSnapshot
            && message.term >= raft.term
            && metadata.index > raft.raft_log.committed
            && !raft.raft_log.match_term(metadata.index, metadata.term);
        let base = Point { index: metadata.index, term: metadata.term };
        let data = message.get_snapshot().data.to_vec();
        is_new.then(|| Offer { from: message.from, base, data, message: message.clone() })
    }

    /// All that was offered is there. If it is still of use, [`Work::base`] follows; false if it is not.
    pub fn take(&mut self, offer: Offer) -> bool {
        let is_new = self.offer(&offer.message).is_some();
        is_new && self.node.step(offer.message).is_ok()
    }

    /// What becomes of the journal if its owner makes parts that say what all entries handed out so far have come
    /// to; `None` while there is something else to do first. Of these entries the last `spare_bytes` are kept, for
    /// members that lag by no more.
    pub fn compact(&self, spare_bytes: u64) -> Option<Compact> {
        if self.under_way.is_some() || self.node.has_ready() {
            return None;
        }
        let (log, store) = (&self.node.raft.raft_log, self.node.store());
        let base = store.point(log.applied).filter(|base| base.index > 0)?;
        let before = store.beginning(base.index, spare_bytes)?;
        let entry = |index| Some(line(&store.entry(index).ok()?));
        let entries: Option<Vec<Line>> = (before.index + 1..=store.last()).map(entry).collect();
        let state = store.state();
        Some(Compact {
            base,
            before,
            head: Line::Base { base, before },
            entries: entries?,
            state: Line::State { term: state.term, vote: state.vote, commit: state.commit },
        })
    }

    /// The journal is replaced; the entries lie at these places. `offer` is what is to be said of the parts to
    /// members that lack entries.
    pub fn compacted(&mut self, compact: &Compact, offer: Vec<u8>, places: &[u64]) {
        self.node.mut_store().compact(compact.base, compact.before, offer, places);
    }

    /// Wants this to count, behind all that was proposed before. It is lost if the member stops leading.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(), NotLeading> {
        match self.role() {
            Role::Leads(_) => self.node.propose(Vec::new(), data).map_err(|_| NotLeading),
            Role::Follows(_) | Role::Seeks => Err(NotLeading),
        }
    }

    /// Gives the lead to another member, if that knows all there is.
    pub fn hand_to(&mut self, member: u64) {
        self.node.transfer_leader(member);
    }

    /// What this member is.
    pub fn role(&self) -> Role {
        let raft = &self.node.raft;
        match raft.state {
            StateRole::Leader if raft.commit_to_current_term() => Role::Leads(raft.term),
            _ if raft.leader_id != 0 && raft.leader_id != self.me => Role::Follows(raft.leader_id),
            _ => Role::Seeks,
        }
    }

    /// Up to which entry they count, as far as this member knows.
    pub fn commit(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// Of a leader: the last entry that all members are known to have.
    pub fn all_have(&self) -> u64 {
        self.node.raft.prs().iter().map(|(_, progress)| progress.matched).min().unwrap_or(0)
    }

    /// Of a leader: whether another member is known to have all that counts.
    pub fn has_all(&self, member: u64) -> bool {
        self.node.raft.prs().get(member).is_some_and(|progress| progress.matched >= self.commit())
    }

    /// What there is to do; [`written`](Member::written) must follow before anything else is said to the member.
    pub fn work(&mut self) -> Option<Work> {
        if self.under_way.is_some() {
            return None;
        }
        let mut send = std::mem::take(&mut self.notes);
        if !self.node.has_ready() {
            return (!send.is_empty()).then(|| Work { send, ..Work::default() });
        }
        let mut ready = self.node.ready();
        send.extend(self.encoded(ready.take_messages()));
        let mut work = Work { send, sync: ready.must_sync(), ..Work::default() };
        if let Some(base) = base(&ready) {
            // Its promises outlive the lines that are replaced.
            let state = ready.hs().unwrap_or(self.node.store().state());
            work.base = vec![
                Line::Base { base, before: base },
                Line::State { term: state.term, vote: state.vote, commit: state.commit.max(base.index) },
            ];
        }
        work.lines.extend(ready.entries().iter().map(line));
        if let Some(state) = ready.hs() {
            work.lines.push(Line::State { term: state.term, vote: state.vote, commit: state.commit });
        }
        self.under_way = Some(ready);
        Some(work)
    }

    /// The lines of [`work`](Member::work) are written, each at the place given here.
    pub fn written(&mut self, places: &[u64]) -> Written {
        let mut written = Written::default();
        let Some(mut ready) = self.under_way.take() else { return written };
        let store = self.node.mut_store();
        if let Some(base) = base(&ready) {
            store.restore(base, ready.snapshot().data.to_vec());
        }
        for (entry, at) in ready.entries().iter().zip(places) {
            store.append(entry, *at);
        }
        if let Some(state) = ready.hs() {
            store.set_state(state.clone());
        }
        written.send = self.encoded(ready.take_persisted_messages());
        let mut entries = ready.take_committed_entries();
        let mut light = self.node.advance(ready);
        entries.extend(light.take_committed_entries());
        written.send.extend(self.encoded(light.take_messages()));
        if let Some(commit) = light.commit_index() {
            let store = self.node.mut_store();
            let mut state = store.state().clone();
            state.commit = commit;
            written.line = Some(Line::State { term: state.term, vote: state.vote, commit });
            store.set_state(state);
        }
        self.node.advance_apply();
        self.see_whether_mended();
        let entry = |entry: raft::eraftpb::Entry| Entry {
            index: entry.index,
            term: entry.term,
            data: entry.data.to_vec(),
        };
        written.entries = entries.into_iter().map(entry).collect();
        written
    }

    fn encoded(&mut self, messages: Vec<Message>) -> Vec<(u64, Vec<u8>)> {
        let is_offer = |message: &&Message| message.get_msg_type() == MessageType::MsgSnapshot;
        self.offered.extend(messages.iter().filter(is_offer).map(|message| message.to));
        messages.iter().filter_map(|message| Some((message.to, message::encode(message)?))).collect()
    }
}

fn line(entry: &raft::eraftpb::Entry) -> Line {
    Line::Entry { index: entry.index, term: entry.term, data: entry.data.to_vec() }
}

/// Up to where an offer is taken.
fn base(ready: &Ready) -> Option<Point> {
    let metadata = ready.snapshot().get_metadata();
    (metadata.index > 0).then_some(Point { index: metadata.index, term: metadata.term })
}
