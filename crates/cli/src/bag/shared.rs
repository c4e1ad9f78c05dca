//! A bag's journal on three members: the log of `mutirao-replica`, its disk, and what comes with it beside the
//! records, which is what tasks have written and the files they need and leave.

mod fetch;
mod state;

use super::link::Link;
use super::outputs::Outputs;
use anyhow::{Context, Result, bail};
use fetch::{Fetch, Offered, Want};
use mutirao_bag::{Bag, Span};
use mutirao_replica::{Compact, Kept, Line, Member, Offer, Refused, Role, Timing};
use mutirao_store::{Found, Journal, Records, read_journal};
use mutirao_wire::bag::Keep;
use serde::{Deserialize, Serialize};
use state::{File, Files, Piece, State};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a tick of the log is.
const TICK: Duration = Duration::from_millis(100);
/// A leader is heard every 300 ms, and replaced when it was not for 3 to 5 s: machines are busy, and a new one begins
/// again what runs.
const TIMING: Timing = Timing { heartbeat: 3, election: 30 };
/// Most of one entry of the log: it travels in one message.
const PIECE_BYTES: usize = 10 * 1024;
/// Ticks that are made up for after a pause.
const TICKS_AT_ONCE: u32 = 2;
/// A journal is written anew when it is longer than this and what it says in short three times over.
const JOURNAL_BYTES_SPARE: u64 = 8 << 20;
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

/// This member.
pub struct Shared {
    member: Member,
    journal: Journal,
    outputs: Outputs,
    keep: Keep,
    /// Which of the members it is, from 0. The first is where the bag was submitted.
    me: usize,
    link: Link,
    files: Files,
    /// Pieces of a record whose last has not come.
    partial: Vec<u8>,
    /// Where the next output goes: in what counts, and in what was proposed.
    counted: u64,
    proposed: u64,
    /// To be proposed.
    waiting: VecDeque<Piece>,
    leads: Option<u64>,
    sought: bool,
    /// Entries up to this one were settled before.
    settled: u64,
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
}

/// Path of the journal of a member.
pub fn journal_path(directory: &Path) -> PathBuf {
    directory.join("shared")
}

impl Shared {
    /// The member of the bag in this directory, and the bag as the parts of its journal say; what its entries say
    /// is yet to be [pumped](Shared::pump).
    pub fn open(directory: &Path, keep: Keep, me: usize, link: Link) -> Result<(Shared, Bag)> {
        let path = journal_path(directory);
        let (mut kept, mut at, mut settled, mut good) = (Kept::default(), Records::FIRST, 0, true);
        let (mut state, mut parts, mut head_end) = (State::default(), Vec::new(), Records::FIRST);
        let (journal, _) = Journal::open(&path, |bytes| {
            let line: Line = postcard::from_bytes(bytes).context("a line of the journal makes no sense")?;
            good &= kept.read(&line, at);
            match &line {
                Line::Own(own) => settled = postcard::from_bytes(own).unwrap_or(settled),
                Line::Part(part) => {
                    state.take(part)?;
                    parts.push(at);
                }
                Line::Base { .. } => head_end = at,
                Line::Entry { .. } | Line::State { .. } => {}
            }
            at = Records::after(at, bytes.len());
            anyhow::Ok(())
        })?;
        if !good || !kept.is_whole(keep.members.len() as u64) {
            bail!("{} contradicts itself; the other members go on without this one", path.display());
        }
        let records = Arc::new(Mutex::new(journal.records_by_place()?));
        let reader = records.clone();
        let cold = move |at| match line_at(&reader, at)? {
            Line::Entry { data, .. } => Some(data),
            _ => None,
        };
        let base = kept.base();
        let offer = Offered { parts: parts.len() as u64, outputs: state.outputs }.encode();
        let members = keep.members.len() as u64;
        let member = Member::new(me as u64 + 1, members, TIMING, kept, offer, Box::new(cold));
        let mut outputs = Outputs::open(&directory.join("outputs"))?;
        outputs.go_on_at(state.outputs);
        let shared = Shared {
            member,
            journal,
            outputs,
            keep,
            me,
            link,
            files: state.files,
            partial: Vec::new(),
            counted: state.outputs,
            proposed: state.outputs,
            waiting: VecDeque::new(),
            leads: None,
            sought: false,
            settled,
            next_tick: Instant::now() + TICK,
            records,
            parts,
            base,
            long_from: long_from(head_end),
            fetch: None,
            fetched: Vec::new(),
            refused: Vec::new(),
        };
        Ok((shared, state.bag))
    }

    /// Whether the bag was submitted here, where its files are.
    pub fn is_origin(&self) -> bool {
        self.me == 0
    }

    /// Whether this member leads, and has led without a break since it first did.
    pub fn leads(&self) -> bool {
        matches!((self.member.role(), self.leads), (Role::Leads(term), Some(since)) if term == since)
    }

    /// Leads, if the others have made it the leader.
    pub fn begin_to_lead(&mut self) -> bool {
        let Role::Leads(term) = self.member.role() else { return false };
        if self.leads != Some(term) {
            self.leads = Some(term);
            self.proposed = self.counted;
            self.waiting.clear();
        }
        true
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
        self.member.hand_to(1);
    }

    /// Wants to lead now, if nobody does.
    pub fn seek(&mut self) {
        if self.member.role() == Role::Seeks {
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
    pub fn tick(&mut self, counts: bool) {
        let mut ticks = 0;
        while self.next_tick <= Instant::now() {
            self.next_tick += TICK;
            ticks += 1;
            if counts && ticks <= TICKS_AT_ONCE {
                self.member.tick();
                self.propose();
                if let Some(fetch) = &mut self.fetch {
                    fetch.tick();
                }
            }
        }
        self.ask();
    }

    /// Takes what another member says.
    pub fn hear(&mut self, from: mutirao_wire::NodeId, bytes: &[u8]) -> Heard {
        let Some(member) = self.keep.members.iter().position(|node| node.id == from) else {
            return Heard::Nothing;
        };
        match postcard::from_bytes(bytes) {
            Ok(Said::Log(bytes)) => {
                match self.member.hear(member as u64 + 1, &bytes) {
                    Ok(None) => {}
                    Ok(Some(offer)) => return self.offered(offer),
                    Err(refused) => self.refuse(member, refused),
                }
                if mutirao_replica::asks_for_votes(&bytes) { Heard::Request } else { Heard::Nothing }
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
            Ok(Said::Output { offset, bytes }) => self.got(|fetch, outputs| {
                if fetch.output(offset, bytes.len()) {
                    outputs.write_at(&bytes, offset)?;
                }
                Ok(())
            }),
            Err(_) => Heard::Nothing,
        }
    }

    /// What contradicts is as good as lost; it is said once of each member.
    fn refuse(&mut self, member: usize, refused: Refused) {
        if !self.refused.contains(&member) {
            self.refused.push(member);
            let name = &self.keep.members[member].name;
            eprintln!("mutirao: what `{name}` says of the journal of this bag is not believed: {refused}");
        }
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
        self.waiting.extend(state::cut(record, PIECE_BYTES));
    }

    /// Keeps what a task has written, with whatever is appended next.
    pub fn put_output(&mut self, bytes: &[u8]) -> Span {
        let span = Span { offset: self.proposed, bytes: bytes.len() as u32 };
        self.proposed += bytes.len() as u64;
        let pieces = bytes.chunks(PIECE_BYTES).map(|bytes| Piece::Output(bytes.to_vec()));
        self.waiting.extend(pieces);
        span
    }

    /// Keeps a file that an attempt has left.
    pub fn put_file(&mut self, attempt: u64, name: &str, executable: bool, bytes: &[u8]) {
        let content = self.put_output(bytes);
        let file = File { name: name.into(), executable, content };
        self.waiting.push_back(Piece::File { attempt, file });
    }

    /// Keeps a file that tasks need.
    pub fn put_input(&mut self, path: &str, executable: bool, bytes: &[u8]) {
        let content = self.put_output(bytes);
        self.waiting.push_back(Piece::Input(File { name: path.into(), executable, content }));
    }

    /// Whether an input is kept already.
    pub fn has_input(&self, path: &str) -> bool {
        self.files.has_input(path)
    }

    pub fn read_output(&self, span: Span) -> std::io::Result<Vec<u8>> {
        self.outputs.read(span)
    }

    /// A file that a task needs: what another task has made, or what came along when the bag was submitted.
    pub fn input(&self, path: &Path) -> Option<(Vec<u8>, bool)> {
        let file = self.files.needed(path)?;
        Some((self.outputs.read(file.content).ok()?, file.executable))
    }

    /// The file of a result that counts.
    pub fn result(&self, path: &Path) -> Option<&File> {
        self.files.result(path)
    }

    /// The result counts of an attempt whose output files belong there.
    pub fn results_are(&mut self, attempt: u64, paths: &[(String, PathBuf, PathBuf)]) {
        self.files.results_are(attempt, paths);
    }

    /// Proposes all that waits.
    pub fn propose(&mut self) {
        if !self.leads() {
            return;
        }
        while let Some(piece) = self.waiting.pop_front() {
            let Ok(bytes) = postcard::to_stdvec(&piece) else { continue };
            if self.member.propose(bytes).is_err() {
                return;
            }
        }
    }

    /// Does all there is to do; records of the bag that count now, each with the entry whose it is.
    pub fn pump(&mut self) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut counted = Vec::new();
        while let Some(work) = self.member.work() {
            self.send(work.send);
            if !work.base.is_empty() {
                self.begin_anew(&work.base)?;
            }
            let mut places = Vec::with_capacity(work.lines.len());
            for line in &work.lines {
                places.push(self.journal.append(&postcard::to_stdvec(line)?));
            }
            if work.sync {
                self.journal.commit()?
            } else {
                self.journal.flush()?
            }
            let written = self.member.written(&places);
            if let Some(line) = &written.line {
                self.journal.append(&postcard::to_stdvec(line)?);
                self.journal.flush()?;
            }
            self.send(written.send);
            for entry in written.entries {
                if let Some(record) = self.count(entry.index, &entry.data)? {
                    counted.push((entry.index, record));
                }
            }
        }
        Ok(counted)
    }

    fn send(&self, messages: Vec<(u64, Vec<u8>)>) {
        for (member, bytes) in messages {
            self.say(member as usize - 1, &Said::Log(bytes));
        }
    }

    /// An entry counts.
    fn count(&mut self, index: u64, data: &[u8]) -> Result<Option<Vec<u8>>> {
        if data.is_empty() {
            // Another begins to lead: what the one before had not finished saying is not said.
            self.partial.clear();
            return Ok(None);
        }
        let piece = postcard::from_bytes(data).with_context(|| format!("entry {index} makes no sense"))?;
        match piece {
            Piece::Record { last, bytes } => {
                self.partial.extend(bytes);
                return Ok(last.then(|| std::mem::take(&mut self.partial)));
            }
            Piece::Output(bytes) => {
                self.outputs.append(&bytes).context("cannot keep what a task has written")?;
                self.counted += bytes.len() as u64;
            }
            piece => self.files.take(piece),
        }
        Ok(None)
    }

    /// Whether the files of a result that counts since that entry are still to be put in their places.
    pub fn is_to_settle(&self, index: u64) -> bool {
        self.is_origin() && index > self.settled
    }

    /// They are there.
    pub fn settled(&mut self, index: u64) -> Result<()> {
        if self.is_origin() && index > self.settled {
            self.settled = index;
            self.journal.append(&encoded(&self.own_line()));
            self.journal.flush()?;
        }
        Ok(())
    }

    fn own_line(&self) -> Line {
        Line::Own(postcard::to_stdvec(&self.settled).unwrap_or_default())
    }

    /// Whether the journal has become much longer than what it says.
    pub fn is_long(&self) -> bool {
        self.journal.bytes() > self.long_from
    }

    /// Writes the journal anew, with the bag in the place of the entries that have made it what it is: all that
    /// [`pump`](Shared::pump) has handed out, and no more. Does nothing while there is something else to do first.
    pub fn compact(&mut self, bag: &mut Bag) -> Result<()> {
        if !self.partial.is_empty() || !self.waiting.is_empty() {
            return Ok(());
        }
        let Some(compact) = self.member.compact(LAG_BYTES_MAX) else { return Ok(()) };
        // What tasks have written will no longer be in the entries.
        self.outputs.sync().context("cannot keep what tasks have written")?;
        match self.write_compact(bag, &compact) {
            Err(mutirao_store::Error::DiskFull(_)) => {
                // It is as good as it was, and there may be room later.
                self.long_from = self.journal.bytes() + JOURNAL_BYTES_SPARE;
                Ok(())
            }
            written => written.context("cannot write the journal anew"),
        }
    }

    fn write_compact(&mut self, bag: &mut Bag, compact: &Compact) -> Result<(), mutirao_store::Error> {
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
                if let Some(bytes) =
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
            eprintln!("mutirao: cannot keep what tasks have written: {error}; it is asked for again");
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
        parts.iter().try_for_each(|part| state.take(part))?;
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
        let fetched = std::mem::take(&mut self.fetched);
        if fetched.is_empty() {
            bail!("the log goes on where nothing was fetched");
        }
        self.outputs.sync().context("cannot keep what tasks have written")?;
        let lines = fetched.into_iter().map(Line::Part).chain(base.iter().cloned()).chain([self.own_line()]);
        let places = rewrite(&mut self.journal, lines)?;
        self.goes_on(places, &base[0])?;
        Ok(())
    }
}

/// Where the lines of a journal lie.
struct Places {
    parts: Vec<u64>,
    /// Behind the parts.
    head_end: u64,
    entries: Vec<u64>,
}

/// Replaces all that is in the journal by these lines.
fn rewrite(journal: &mut Journal, lines: impl Iterator<Item = Line>) -> Result<Places, mutirao_store::Error> {
    let mut places = Places { parts: Vec::new(), head_end: Records::FIRST, entries: Vec::new() };
    let mut at = Records::FIRST;
    journal.rewrite(lines.map(|line| {
        let bytes = encoded(&line);
        match line {
            Line::Part(_) => places.parts.push(at),
            Line::Base { .. } => places.head_end = at,
            Line::Entry { .. } => places.entries.push(at),
            Line::State { .. } | Line::Own(_) => {}
        }
        at = Records::after(at, bytes.len());
        bytes
    }))?;
    Ok(places)
}

/// A journal is long from there on whose head ends here.
fn long_from(head_end: u64) -> u64 {
    JOURNAL_BYTES_SPARE + 3 * head_end
}

fn encoded(line: &Line) -> Vec<u8> {
    postcard::to_stdvec(line).expect("a line is plain data, which can always be written")
}

/// The line that lies there.
fn line_at(records: &Mutex<Records>, at: u64) -> Option<Line> {
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    postcard::from_bytes(&records.read(at).ok()?).ok()
}

/// The bag as what counts says, as far as the member with this journal knows. Changes nothing.
pub fn read(path: &Path) -> Result<(Bag, Found)> {
    let mut state = State::default();
    let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut said = 0;
    let found = read_journal(path, |bytes| {
        match postcard::from_bytes(bytes).context("a line of the journal makes no sense")? {
            Line::Part(part) => state.take(&part)?,
            Line::Base { base, .. } => said = base.index,
            // What it says is in the parts already.
            Line::Entry { index, .. } if index <= said => {}
            Line::Entry { index, data, .. } => {
                drop(waiting.split_off(&index));
                waiting.insert(index, data);
            }
            Line::State { commit, .. } => {
                while let Some(entry) = waiting.first_entry().filter(|entry| *entry.key() <= commit) {
                    let data = entry.remove();
                    if data.is_empty() {
                        state.leave_off();
                    } else {
                        state.take(&data)?;
                    }
                }
            }
            Line::Own(_) => {}
        }
        anyhow::Ok(())
    })?;
    Ok((state.bag, found))
}
