//! A bag's journal on three members: the log of `mutirao-replica`, its disk, and what comes with it beside the
//! records, which is what tasks have written and the files they need and leave.

mod disk;
mod fetch;
mod files;
mod placing;
mod room;
mod state;
mod waiting;

pub use disk::{Damage, Read, journal_path, read, stands_still};
pub use room::is_full;
pub use state::Lying;

use super::keeper::Event;
use super::link::Link;
use super::outputs::Outputs;
use crate::output::remark;
use anyhow::{Context, Result, bail};
use disk::{Opened, Places, encoded, line_at, rewrite};
use fetch::{Fetch, Offered, Want};
use mutirao::raw::Succession;
use mutirao_bag::{Bag, Span};
use mutirao_replica::{Compact, Entry, Line, Member, Offer, Refused, Role, Timing};
use mutirao_store::{Journal, Records};
use mutirao_wire::bag::Keep;
use mutirao_wire::{AppId, Epoch};
use placing::Placing;
use room::Room;
use serde::{Deserialize, Serialize};
use state::{Files, Piece, State};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use waiting::Waiting;

/// How long a tick of the log is.
const TICK: Duration = Duration::from_millis(100);
/// A leader is heard every 300 ms, and replaced when it was not for 3 to 5 s: machines are busy, and a new one begins
/// again what ran on the node of the last. Leases lapse later than that, so it goes on with all others.
const TIMING: Timing = Timing { heartbeat: 3, election: 30 };
/// Most of one entry of the log: it travels in one message.
const PIECE_BYTES: usize = 14 * 1024;
/// Ticks that are made up for after a pause.
const TICKS_AT_ONCE: u32 = 2;
/// A journal is written anew when it is longer than this and what it says in short three times over.
const JOURNAL_BYTES_SPARE: u64 = 8 << 20;
/// What tasks have written waits for the disk each time that there is so much more of it, lest it takes long at the end.
const SYNC_BYTES: u64 = 32 << 20;
/// Entries kept beside what they have come to, bytes: a member that lags by more gets the whole bag.
const LAG_BYTES_MAX: u64 = 2 << 20;

/// What one member says to another.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Log(Vec<u8>),
    /// An order for the keeper, in pieces up to the last.
    Order {
        number: u64,
        last: bool,
        bytes: Vec<u8>,
    },
    /// What came of it.
    Answer {
        number: u64,
        line: String,
    },
    /// A part of what entries up to `base` have come to, or of what tasks have written, is wanted.
    Ask {
        base: u64,
        want: Want,
    },
    /// That part.
    Part {
        base: u64,
        number: u64,
        bytes: Vec<u8>,
    },
    /// What tasks have written from there on.
    Output {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// So much of it that nobody reads any more.
    Hole {
        offset: u64,
        bytes: u64,
    },
}

/// What was heard, beside the log.
pub enum Heard {
    Nothing,
    /// All that this member lacks is there: it is to be [unpacked](Shared::unpack).
    Fetched,
    /// Another wants to lead: it knows of nobody who does.
    Request,
    Order {
        from: usize,
        number: u64,
        last: bool,
        bytes: Vec<u8>,
    },
    Answer {
        number: u64,
        line: String,
    },
}

/// What a member is to write before it says that it did.
struct Held {
    base: Vec<Line>,
    lines: Vec<Line>,
    sync: bool,
    /// Where its lines lie, as far as they are appended.
    places: Vec<u64>,
}

/// This member.
pub struct Shared {
    member: Member,
    journal: Journal,
    outputs: Outputs,
    keep: Keep,
    /// Which of the members it is, from 0. The first is where the bag was submitted.
    me: usize,
    link: Link,
    events: Sender<Event>,
    files: Files,
    /// Pieces of a record whose last has not come.
    partial: Vec<u8>,
    /// Where the next output goes, of what counts.
    counted: u64,
    /// To be proposed.
    waiting: Waiting,
    /// It is proposed as far as may be at a time.
    is_ahead: bool,
    leads: Option<u64>,
    /// How often this process has begun to keep the bag.
    keepings: u32,
    sought: bool,
    /// Entries up to this one were settled, as the journal says, and what is to be.
    settled: u64,
    placing: Placing,
    place_again: Instant,
    /// What is to be written and was not, for want of room; nothing is heard or proposed before it is.
    held: Option<Held>,
    /// Entries that count and are not handed out yet.
    to_count: VecDeque<Entry>,
    room: Room,
    /// Why nothing more of what counts can be taken in here.
    senseless: Option<String>,
    next_tick: Instant,
    /// Reads lines by where they lie in the present journal.
    records: Arc<Mutex<Records>>,
    /// Where its parts lie, which say what the entries up to this one have come to.
    parts: Vec<u64>,
    base: u64,
    /// It is written anew when it is longer than this.
    long_from: u64,
    fetch: Option<Fetch>,
    /// Parts that came from another member, to be the head of the journal.
    fetched: Vec<Vec<u8>>,
    /// Members of whom something was refused, which is said once.
    refused: Vec<usize>,
    /// Where what was damaged is kept, and whether this member lacks it still, as far as that file says.
    damage: Damage,
    damaged: bool,
}

impl Shared {
    /// The member of the bag in this directory, and the bag as the parts of its journal say; what its entries say
    /// is yet to be [pumped](Shared::pump).
    pub fn open(
        directory: &Path,
        keep: Keep,
        me: usize,
        link: Link,
        events: &Sender<Event>,
    ) -> Result<(Shared, Bag)> {
        let damage = Damage::of(directory);
        let members = keep.members.len() as u64;
        let Opened { journal, kept, state, senseless, settled, parts, head_end } =
            disk::open(directory, members, &damage)?;
        let records = Arc::new(Mutex::new(journal.records_by_place()?));
        let reader = records.clone();
        let cold = move |at| match line_at(&reader, at)? {
            Line::Entry { data, .. } => Some(data),
            _ => None,
        };
        let base = kept.base();
        let offer = Offered { parts: parts.len() as u64, outputs: state.outputs }.encode();
        let mut member = Member::new(me as u64 + 1, members, TIMING, kept, offer, Box::new(cold));
        let damaged = damage.is_there();
        if damaged {
            remark!("mutirao: {}", damage.text());
            member.mend(nonce()?);
        }
        let mut outputs = Outputs::open(&disk::outputs_path(directory))?;
        outputs.go_on_at(state.outputs);
        let shared = Shared {
            member,
            journal,
            outputs,
            keep,
            me,
            link,
            events: events.clone(),
            files: state.files,
            partial: Vec::new(),
            counted: state.outputs,
            waiting: Waiting::default(),
            is_ahead: false,
            leads: None,
            keepings: 0,
            sought: false,
            settled,
            placing: Placing::default(),
            place_again: Instant::now(),
            held: None,
            to_count: VecDeque::new(),
            room: Room::default(),
            senseless: None,
            next_tick: Instant::now() + TICK,
            records,
            parts,
            base,
            long_from: long_from(head_end),
            fetch: None,
            fetched: Vec::new(),
            refused: Vec::new(),
            damage,
            damaged,
        };
        let mut shared = shared;
        if let Some(why) = senseless {
            shared.is_senseless(&why);
        }
        Ok((shared, state.bag))
    }

    /// Whether the bag was submitted here, where its files are.
    pub fn is_origin(&self) -> bool {
        self.me == 0
    }

    /// Whether this member leads, and has led without a break since it first did.
    pub fn leads(&self) -> bool {
        let can = !self.room.is_long() && self.senseless.is_none();
        can && matches!((self.member.role(), self.leads), (Role::Leads(term), Some(since)) if term == since)
    }

    /// Leads, if the others have made it the leader.
    pub fn begin_to_lead(&mut self) -> bool {
        let Role::Leads(term) = self.member.role() else { return false };
        if self.held.is_some() {
            return false;
        }
        if self.leads != Some(term) {
            self.leads = Some(term);
            self.waiting.begin_at(self.counted);
        }
        true
    }

    /// As what this member, which leads, holds leases: as the one application that the bag is for all its keepers. A
    /// later term counts more, and within one term the later time that the bag is kept.
    pub fn succession(&mut self) -> Succession {
        self.keepings += 1;
        let term = self.leads.unwrap_or_default() as u32;
        // Between two there is room for losses of this machine's node.
        let epoch = Epoch(term << 8 | self.keepings.min(31) << 3);
        let homes = self.keep.members.iter().map(|node| node.id).collect();
        Succession { app: AppId(self.keep.bag.0), epoch, homes }
    }

    /// The member that leads, if it is another.
    pub fn leader(&self) -> Option<usize> {
        match self.member.role() {
            Role::Follows(member) => Some(member as usize - 1),
            _ => None,
        }
    }

    /// The name of a member's node.
    pub fn name_of(&self, member: usize) -> &str {
        &self.keep.members[member].name
    }

    /// Gives the lead to the member where the bag was submitted.
    pub fn hand_to_origin(&mut self) {
        self.hand_to(0);
    }

    /// Whether the member where the bag was submitted is another, and there to keep it.
    pub fn origin_can_lead(&self) -> bool {
        !self.is_origin() && self.member.has_all(1)
    }

    /// Gives the lead to the next member.
    pub fn hand_on(&mut self) {
        self.hand_to((self.me + 1) % self.keep.members.len());
    }

    fn hand_to(&mut self, member: usize) {
        if self.held.is_none() {
            self.member.hand_to(member as u64 + 1);
        }
    }

    /// Wants to lead now, if nobody does.
    pub fn seek(&mut self) {
        if self.member.role() == Role::Seeks && self.held.is_none() {
            self.member.campaign();
        }
    }

    /// The first member wants to lead at once while there is nothing yet.
    pub fn seek_first(&mut self) {
        if self.is_origin() && self.member.commit() == 0 && !std::mem::replace(&mut self.sought, true) {
            self.member.campaign();
        }
    }

    /// Whether all members have all there is.
    pub fn all_have_all(&self) -> bool {
        self.waiting.is_empty() && self.member.all_have() >= self.member.commit()
    }

    /// When time is to be [told](Shared::tick).
    pub fn next_tick(&self) -> Instant {
        self.next_tick
    }

    /// Lets time pass, if it has; at a member that rests nothing follows from it.
    pub fn tick(&mut self, counts: bool) -> Result<()> {
        let mut ticks = 0;
        while self.next_tick <= Instant::now() {
            self.next_tick += TICK;
            ticks += 1;
            if counts && ticks <= TICKS_AT_ONCE && self.held.is_none() {
                self.member.tick();
                self.propose()?;
                if let Some(fetch) = &mut self.fetch {
                    fetch.tick();
                }
            }
        }
        self.ask();
        Ok(())
    }

    /// Takes what another member says.
    pub fn hear(&mut self, from: mutirao_wire::NodeId, bytes: &[u8]) -> Result<Heard> {
        let Some(member) = self.keep.members.iter().position(|node| node.id == from) else {
            return Ok(Heard::Nothing);
        };
        Ok(match postcard::from_bytes(bytes) {
            // As good as lost: it is said again.
            Ok(Said::Log(_) | Said::Part { .. } | Said::Hole { .. } | Said::Output { .. })
                if self.held.is_some() =>
            {
                Heard::Nothing
            }
            Ok(Said::Log(bytes)) => {
                match self.member.hear(member as u64 + 1, &bytes) {
                    Ok(None) => {}
                    Ok(Some(offer)) => return Ok(self.offered(offer)),
                    Err(refused) => self.refuse(member, refused)?,
                }
                if mutirao_replica::needs_others(&bytes) { Heard::Request } else { Heard::Nothing }
            }
            Ok(Said::Order { number, last, bytes }) => Heard::Order { from: member, number, bytes, last },
            Ok(Said::Answer { number, line }) => Heard::Answer { number, line },
            Ok(Said::Ask { base, want }) => {
                self.give(member, base, want);
                Heard::Nothing
            }
            Ok(Said::Part { base, number, bytes }) => self.got(|fetch, _| {
                fetch.part(base, number, bytes);
                Ok(())
            }),
            Ok(Said::Hole { offset, bytes }) => self.got(|fetch, outputs| {
                if fetch.output(offset, bytes) {
                    outputs.free(offset, bytes);
                }
                Ok(())
            }),
            Ok(Said::Output { offset, bytes }) => self.got(|fetch, outputs| {
                if fetch.output(offset, bytes.len() as u64) {
                    outputs.write_at(&bytes, offset)?;
                }
                Ok(())
            }),
            Err(_) => Heard::Nothing,
        })
    }

    /// What contradicts is as good as lost; it is said once of each member.
    fn refuse(&mut self, member: usize, refused: Refused) -> Result<()> {
        let lacks = matches!(refused, Refused::Lacking { .. });
        if lacks && self.member.mends() {
            // It is known, and soon to whoever says so.
            return Ok(());
        }
        if !self.refused.contains(&member) {
            self.refused.push(member);
            let name = &self.keep.members[member].name;
            remark!("mutirao: what `{name}` says of the journal of this bag is not believed: {refused}");
        }
        if lacks {
            self.damage.note()?;
            remark!("mutirao: {}", self.damage.text());
            self.damaged = true;
            self.member.mend(nonce()?);
        }
        Ok(())
    }

    /// Whether this member lacks something that was on its disk.
    pub fn mends(&self) -> bool {
        self.member.mends()
    }

    fn say(&self, member: usize, said: &Said) {
        if let Ok(bytes) = postcard::to_stdvec(said) {
            self.link.say(self.keep.members[member].id, bytes);
        }
    }

    /// Passes an order on to the keeper.
    pub fn pass_on(&self, to: usize, number: u64, order: &[u8]) {
        let mut pieces = order.chunks(PIECE_BYTES).peekable();
        while let Some(bytes) = pieces.next() {
            let (last, bytes) = (pieces.peek().is_none(), bytes.to_vec());
            self.say(to, &Said::Order { number, last, bytes });
        }
    }

    /// Tells another member what came of an order.
    pub fn answer(&self, to: usize, number: u64, line: String) {
        self.say(to, &Said::Answer { number, line });
    }

    /// Wants a record to count; it is proposed with the next that is urgent, or with the next tick.
    pub fn append(&mut self, record: &[u8]) {
        self.waiting.record(record);
    }

    /// Proposes what waits, as far as may be at a time; the rest follows with what counts.
    pub fn propose(&mut self) -> Result<()> {
        if !self.leads() || self.held.is_some() {
            return Ok(());
        }
        loop {
            self.is_ahead = self.waiting.is_ahead(self.counted);
            if self.is_ahead {
                return Ok(());
            }
            let failed = "cannot read what is to be kept";
            let Some(entry) = self.waiting.next().context(failed)? else { return Ok(()) };
            if self.member.propose(entry).is_err() {
                // It may just be giving the lead away, which can come to nothing.
                return Ok(());
            }
            self.waiting.is_proposed();
        }
    }

    /// Does all there is to do; records of the bag that count now, each with the entry whose it is. Without room on the
    /// disk it is done when there is some.
    pub fn pump(&mut self) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut counted = Vec::new();
        if self.room.waits() {
            return Ok(counted);
        }
        match self.pump_into(&mut counted) {
            Ok(()) => self.room.is_there(),
            Err(error) if is_full(&error) => self.room.is_missing(&error),
            Err(error) => return Err(error),
        }
        if self.damaged && !self.member.mends() && self.held.is_none() {
            self.damage.mended()?;
            self.damaged = false;
            remark!("mutirao: this member has all again, and votes");
        }
        Ok(counted)
    }

    fn pump_into(&mut self, counted: &mut Vec<(u64, Vec<u8>)>) -> Result<()> {
        if self.held.is_none() {
            self.flush()?;
        }
        loop {
            while let Some(entry) = self.to_count.pop_front() {
                match self.count(entry.index, &entry.data) {
                    Ok(record) => counted.extend(record.map(|record| (entry.index, record))),
                    Err(error) => {
                        self.to_count.push_front(entry);
                        return Err(error);
                    }
                }
            }
            if self.is_ahead {
                self.propose()?;
            }
            if self.held.is_none() {
                let Some(work) = self.member.work() else { return Ok(()) };
                self.send(work.send);
                let (base, lines, sync) = (work.base, work.lines, work.sync);
                self.held = Some(Held { base, lines, sync, places: Vec::new() });
            }
            self.write_held()?;
            let places = self.held.take().map(|held| held.places).unwrap_or_default();
            let written = self.member.written(&places);
            if let Some(line) = &written.line {
                // Whether it is there matters to nobody else: it goes with what is written next.
                self.journal.append(&encoded(line));
            }
            self.send(written.send);
            self.to_count.extend(written.entries);
            self.flush()?;
        }
    }

    /// Writes what is to be; what could not be written may be tried again.
    fn write_held(&mut self) -> Result<()> {
        let Some(mut held) = self.held.take() else { return Ok(()) };
        let mut write = || -> Result<()> {
            if !held.base.is_empty() {
                self.begin_anew(&held.base)?;
                held.base.clear();
            }
            for line in held.lines.drain(..) {
                held.places.push(self.journal.append(&encoded(&line)));
            }
            if held.sync {
                self.journal.commit()?
            } else {
                self.journal.flush()?
            }
            Ok(())
        };
        let written = write();
        self.held = Some(held);
        written
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.journal.flush()?)
    }

    fn send(&self, messages: Vec<(u64, Vec<u8>)>) {
        for (member, bytes) in messages {
            self.say(member as usize - 1, &Said::Log(bytes));
        }
    }

    /// An entry counts.
    fn count(&mut self, index: u64, data: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.senseless.is_some() {
            return Ok(None);
        }
        if data.is_empty() {
            // Another begins to lead: what the one before had not finished saying is not said.
            self.partial.clear();
            return Ok(None);
        }
        let Ok(piece) = postcard::from_bytes(data) else {
            self.is_senseless(&format!("entry {index} of the journal cannot be read"));
            return Ok(None);
        };
        match piece {
            Piece::Record { last, bytes } => {
                self.partial.extend(bytes);
                return Ok(last.then(|| std::mem::take(&mut self.partial)));
            }
            Piece::Output(bytes) => {
                let failed = "cannot keep what a task has written";
                let counted = self.counted + bytes.len() as u64;
                if counted / SYNC_BYTES > self.counted / SYNC_BYTES {
                    self.outputs.sync().context(failed)?;
                }
                self.outputs.append(&bytes).context(failed)?;
                self.counted = counted;
            }
            piece => self.files.take(piece),
        }
        Ok(None)
    }

    /// What counts makes no sense here from now on: this member goes on keeping the journal with the others, and keeps
    /// the bag no more.
    pub fn is_senseless(&mut self, why: &str) {
        if self.senseless.is_none() {
            let text = stands_still(self.keep.number, why);
            remark!("mutirao: {text}");
            self.senseless = Some(text);
        }
    }

    /// Why this member cannot keep the bag, if it cannot.
    pub fn senseless(&self) -> Option<&str> {
        self.senseless.as_deref()
    }

    fn own_line(&self) -> Line {
        Line::Own(postcard::to_stdvec(&self.settled).unwrap_or_default())
    }

    /// Whether the journal has become much longer than what it says.
    pub fn is_long(&self) -> bool {
        self.journal.bytes() > self.long_from && self.senseless.is_none()
    }

    /// Writes the journal anew, with the bag in the place of the entries that have made it what it is: all that
    /// [`pump`](Shared::pump) has handed out, and no more. Does nothing while there is something else to do first.
    pub fn compact(&mut self, bag: &mut Bag) -> Result<()> {
        if !self.partial.is_empty() || !self.waiting.is_empty() {
            return Ok(());
        }
        let Some(compact) = self.member.compact(LAG_BYTES_MAX) else { return Ok(()) };
        match self.write_compact(bag, &compact) {
            Err(error) if is_full(&error) => {
                // It is as good as it was, and there may be room later.
                self.long_from = self.journal.bytes() + JOURNAL_BYTES_SPARE;
                Ok(())
            }
            written => written.context("cannot write the journal anew"),
        }
    }

    fn write_compact(&mut self, bag: &mut Bag, compact: &Compact) -> Result<()> {
        self.flush()?;
        // What tasks have written will no longer be in the entries.
        self.outputs.sync().context("cannot keep what tasks have written")?;
        if let (Line::Base { base, .. }, true) = (&compact.head, self.placing.is_empty()) {
            self.settled = self.settled.max(base.index);
        }
        self.files.keep_only(&bag.unsettled());
        let pieces = state::pieces(bag, &self.files, self.counted, PIECE_BYTES);
        let part = |piece: Piece| Line::Part(postcard::to_stdvec(&piece).unwrap_or_default());
        let tail = [compact.state.clone(), self.own_line()];
        let lines =
            pieces.map(part).chain([compact.head.clone()]).chain(compact.entries.iter().cloned()).chain(tail);
        let places = rewrite(&mut self.journal, lines)?;
        let entries = self.goes_on(places, &compact.head)?;
        let offer = Offered { parts: self.parts.len() as u64, outputs: self.counted }.encode();
        self.member.compacted(compact, offer, &entries);
        Ok(())
    }

    /// The journal is another file now; where its entries lie.
    fn goes_on(&mut self, places: Places, head: &Line) -> Result<Vec<u64>, mutirao_store::Error> {
        let records = self.journal.records_by_place()?;
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = records;
        (self.parts, self.long_from) = (places.parts, long_from(places.head_end));
        if let Line::Base { base, .. } = head {
            self.base = base.index;
        }
        Ok(places.entries)
    }

    /// A leader offers what this member lacks.
    fn offered(&mut self, offer: Offer) -> Heard {
        if self.room.waits() || self.senseless.is_some() {
            return Heard::Nothing;
        }
        let is_known = |fetch: &Fetch| (fetch.offer().from, fetch.offer().base) == (offer.from, offer.base);
        if !self.fetch.as_ref().is_some_and(is_known) {
            let outputs = self.fetch.as_ref().map_or(self.counted, Fetch::outputs).max(self.counted);
            self.fetch = Fetch::new(offer, outputs);
        }
        self.ask();
        Heard::Nothing
    }

    /// Asks for what is still to come.
    fn ask(&mut self) {
        let Some(fetch) = &mut self.fetch else { return };
        let (from, base) = (fetch.offer().from as usize - 1, fetch.offer().base.index);
        for want in fetch.wants() {
            self.say(from, &Said::Ask { base, want });
        }
    }

    /// Gives another member a piece of what it lacks; nothing if there is none.
    fn give(&self, to: usize, base: u64, want: Want) {
        match want {
            Want::Part(number) if base == self.base => {
                let at = self.parts.get(usize::try_from(number).unwrap_or(usize::MAX));
                if let Some(Line::Part(bytes)) = at.and_then(|at| line_at(&self.records, *at)) {
                    self.say(to, &Said::Part { base, number, bytes });
                }
            }
            Want::Part(_) => {}
            Want::Output { offset, bytes } => {
                let is_there = bytes as usize <= PIECE_BYTES
                    && offset.checked_add(bytes.into()).is_some_and(|end| end <= self.counted);
                let hole = self.outputs.hole(offset, self.counted);
                if is_there && hole >= bytes.into() {
                    self.say(to, &Said::Hole { offset, bytes: hole });
                } else if let Some(bytes) =
                    is_there.then(|| self.outputs.read(Span { offset, bytes }).ok()).flatten()
                {
                    self.say(to, &Said::Output { offset, bytes });
                }
            }
        }
    }

    /// A piece of what this member lacks has come.
    fn got(&mut self, take: impl FnOnce(&mut Fetch, &mut Outputs) -> std::io::Result<()>) -> Heard {
        let Some(fetch) = &mut self.fetch else { return Heard::Nothing };
        if let Err(error) = take(fetch, &mut self.outputs) {
            let error = anyhow::Error::from(error).context("cannot keep what tasks have written");
            self.room.is_missing(&error);
            self.fetch = None;
            return Heard::Nothing;
        }
        if fetch.is_whole() {
            return Heard::Fetched;
        }
        self.ask();
        Heard::Nothing
    }

    /// The bag as it was fetched, if it is still of use: with the next [pump](Shared::pump) the journal says so, too.
    pub fn unpack(&mut self) -> Result<Option<Bag>> {
        let Some(fetch) = self.fetch.take() else { return Ok(None) };
        let (offer, parts) = fetch.into_parts();
        let mut state = State::default();
        if let Err(error) = parts.iter().try_for_each(|part| state.take(part)) {
            self.is_senseless(&format!("{error:#}, in what another member sent"));
            return Ok(None);
        }
        if !self.member.take(offer) {
            return Ok(None);
        }
        (self.files, self.counted, self.fetched) = (state.files, state.outputs, parts);
        self.partial.clear();
        self.outputs.go_on_at(self.counted);
        Ok(Some(state.bag))
    }

    /// The head of the journal is what was fetched.
    fn begin_anew(&mut self, base: &[Line]) -> Result<()> {
        let Some(Line::Base { base: point, .. }) = base.first().filter(|_| !self.fetched.is_empty()) else {
            bail!("the log goes on where nothing was fetched");
        };
        self.flush()?;
        self.outputs.sync().context("cannot keep what tasks have written")?;
        let parts = self.fetched.iter().cloned().map(Line::Part);
        let lines = parts.chain(base.iter().cloned()).chain([self.own_line()]);
        let places = rewrite(&mut self.journal, lines)?;
        self.fetched.clear();
        self.placing.counts_up_to(point.index);
        self.goes_on(places, &base[0])?;
        Ok(())
    }
}

/// A number like no other.
fn nonce() -> Result<u64> {
    Ok(u64::from_le_bytes(mutirao_trust::random()?))
}

/// A journal is long from there on whose head ends here.
fn long_from(head_end: u64) -> u64 {
    JOURNAL_BYTES_SPARE + 3 * head_end
}
