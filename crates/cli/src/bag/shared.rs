//! A bag's journal on three members: the log of `mutirao-replica`, its disk, and what comes with it beside the
//! records, which is what tasks have written and the files they need and leave.

use super::link::Link;
use super::outputs::Outputs;
use anyhow::{Context, Result, bail};
use mutirao_bag::{Bag, Record, Span};
use mutirao_replica::{Kept, Line, Member, Role, Timing};
use mutirao_store::{Found, Journal, Records, read_journal};
use mutirao_wire::bag::Keep;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
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

/// What an entry of the log says. Later versions append kinds; they change none.
#[derive(Debug, Serialize, Deserialize)]
enum Piece {
    /// Of a record of the bag, in pieces up to the last.
    Record { last: bool, bytes: Vec<u8> },
    /// What a task has written: behind what was written before, in the file of outputs.
    Output(Vec<u8>),
    /// A file that an attempt has left, which counts if its result does.
    File { attempt: u64, file: File },
    /// A file of the submitter that tasks need, as it was when the bag was submitted.
    Input(File),
}

/// A file, whose content is in the file of outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Of an attempt: its name in the directory of the task. Of an input: its path.
    pub name: String,
    pub executable: bool,
    pub content: Span,
}

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
}

/// What was heard, beside the log.
pub enum Heard {
    Nothing,
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

/// What is known beside the bag itself.
#[derive(Default)]
struct Files {
    /// By attempt.
    left: HashMap<u64, Vec<File>>,
    inputs: BTreeMap<String, File>,
    /// By path, of results that count.
    results: HashMap<PathBuf, File>,
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
}

/// Path of the journal of a member.
pub fn journal_path(directory: &Path) -> PathBuf {
    directory.join("shared")
}

impl Shared {
    /// The member of the bag in this directory.
    pub fn open(directory: &Path, keep: Keep, me: usize, link: Link) -> Result<Shared> {
        let path = journal_path(directory);
        let (mut kept, mut at, mut settled, mut good) = (Kept::default(), Records::FIRST, 0, true);
        let (journal, _) = Journal::open(&path, |bytes| {
            let line: Line = postcard::from_bytes(bytes).context("a line of the journal makes no sense")?;
            good &= kept.read(&line, at);
            if let Line::Own(own) = &line {
                settled = postcard::from_bytes(own).unwrap_or(settled);
            }
            at = Records::after(at, bytes.len());
            anyhow::Ok(())
        })?;
        if !good {
            bail!("{} contradicts itself; the other members go on without this one", path.display());
        }
        let records = journal.records_by_place()?;
        let cold = move |at| match postcard::from_bytes(&records.read(at).ok()?).ok()? {
            Line::Entry { data, .. } => Some(data),
            _ => None,
        };
        let member = Member::new(me as u64 + 1, keep.members.len() as u64, TIMING, kept, Box::new(cold));
        let mut outputs = Outputs::open(&directory.join("outputs"))?;
        outputs.rewind();
        Ok(Shared {
            member,
            journal,
            outputs,
            keep,
            me,
            link,
            files: Files::default(),
            partial: Vec::new(),
            counted: 0,
            proposed: 0,
            waiting: VecDeque::new(),
            leads: None,
            sought: false,
            settled,
            next_tick: Instant::now() + TICK,
        })
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
            }
        }
    }

    /// Takes what another member says.
    pub fn hear(&mut self, from: mutirao_wire::NodeId, bytes: &[u8]) -> Heard {
        let Some(member) = self.keep.members.iter().position(|node| node.id == from) else {
            return Heard::Nothing;
        };
        match postcard::from_bytes(bytes) {
            Ok(Said::Log(bytes)) => {
                // One of another version, or nonsense: as if it had been lost.
                let _ = self.member.hear(member as u64 + 1, &bytes);
                if mutirao_replica::asks_for_votes(&bytes) { Heard::Request } else { Heard::Nothing }
            }
            Ok(Said::Order { number, last, bytes }) => Heard::Order { from: member, number, bytes, last },
            Ok(Said::Answer { number, line }) => Heard::Answer { number, line },
            Err(_) => Heard::Nothing,
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
        let mut pieces = record.chunks(PIECE_BYTES).peekable();
        while let Some(bytes) = pieces.next() {
            let piece = Piece::Record { last: pieces.peek().is_none(), bytes: bytes.to_vec() };
            self.waiting.push_back(piece);
        }
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
        self.files.inputs.contains_key(path)
    }

    pub fn read_output(&self, span: Span) -> std::io::Result<Vec<u8>> {
        self.outputs.read(span)
    }

    /// A file that a task needs: what another task has made, or what came along when the bag was submitted.
    pub fn input(&self, path: &Path) -> Option<(Vec<u8>, bool)> {
        let came_along = || self.files.inputs.get(path.to_str()?);
        let file = self.files.results.get(path).or_else(came_along)?;
        Some((self.outputs.read(file.content).ok()?, file.executable))
    }

    /// The files of a result that counts.
    pub fn files_of(&self, attempt: u64) -> &[File] {
        self.files.left.get(&attempt).map_or(&[], Vec::as_slice)
    }

    /// The result counts of an attempt whose output files belong there.
    pub fn results_are(&mut self, attempt: u64, paths: &[(String, PathBuf, PathBuf)]) {
        for (there, path, _) in paths {
            let left = self.files.left.get(&attempt).map_or(&[][..], Vec::as_slice);
            if let Some(file) = left.iter().find(|file| file.name == *there) {
                self.files.results.insert(path.clone(), file.clone());
            }
        }
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
            Piece::File { attempt, file } => {
                // One that was lost may have had the same number.
                let left = self.files.left.entry(attempt).or_default();
                left.retain(|known| known.name != file.name);
                left.push(file);
            }
            Piece::Input(file) => drop(self.files.inputs.insert(file.name.clone(), file)),
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
            let own = Line::Own(postcard::to_stdvec(&index)?);
            self.journal.append(&postcard::to_stdvec(&own)?);
            self.journal.flush()?;
        }
        Ok(())
    }
}

/// The bag as what counts says, as far as the member with this journal knows. Changes nothing.
pub fn read(path: &Path) -> Result<(Bag, Found)> {
    let mut bag = Bag::new();
    let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut partial = Vec::new();
    let found = read_journal(path, |bytes| {
        match postcard::from_bytes(bytes).context("a line of the journal makes no sense")? {
            Line::Entry { index, data, .. } => {
                drop(waiting.split_off(&index));
                waiting.insert(index, data);
            }
            Line::State { commit, .. } => {
                while let Some(entry) = waiting.first_entry().filter(|entry| *entry.key() <= commit) {
                    let data = entry.remove();
                    if data.is_empty() {
                        partial.clear();
                    } else if let Piece::Record { last, bytes } = postcard::from_bytes(&data)? {
                        partial.extend(bytes);
                        if last {
                            bag.replay(Record::decode(&std::mem::take(&mut partial), bag.records() + 1)?)?;
                        }
                    }
                }
            }
            Line::Own(_) => {}
        }
        anyhow::Ok(())
    })?;
    Ok((bag, found))
}
