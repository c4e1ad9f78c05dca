//! A visit to a bag on another node: a process that its member's node starts does there what is asked, and what it
//! prints comes here, by way of both nodes.

use super::ask::Ask;
use super::{kept, link};
use crate::args::Output as Form;
use crate::list::ask as ask_pool;
use crate::output::remark;
use anyhow::{Context, Result, bail};
use mutirao::raw::Pool;
use mutirao_wire::bag::{MemberMessage, VisitBytes, VisitHello};
use mutirao_wire::frame::Decoder;
use mutirao_wire::limits::{DATA_BODY_MAX, PROTOCOL};
use mutirao_wire::local::LocalMessage;
use mutirao_wire::query::{Row, Topic};
use mutirao_wire::{BagId, Incarnation, NodeId, NodeRef, VisitId};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, PipeReader, Read, Write, pipe};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Most of what is printed that one message carries, bytes.
const PIECE_BYTES: usize = 12 * 1024;
/// Messages under way that were not taken yet.
const WINDOW: u32 = 8;
/// So many that were taken are told of at once.
const TAKEN: u32 = 2;
/// Longest question, bytes: it is said without waiting for the other to take it.
const ASK_BYTES_MAX: usize = 256 * 1024;
/// Both nodes are linked, and the process that answers is up, within so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// What one says to the other.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    /// The process that answers is there.
    Ready,
    /// A piece of the question.
    Ask { last: bool, bytes: Vec<u8> },
    /// Something it printed; the how many-th piece that is.
    Out { number: u64, error: bool, bytes: Vec<u8> },
    /// So many of these were taken.
    Taken(u32),
    /// It ended, after so many pieces, with this exit code.
    End { pieces: u64, code: u8 },
}

#[derive(Debug, Serialize)]
struct Asked<'a> {
    ask: &'a Ask,
    json: bool,
}

/// The same, read.
#[derive(Debug, Deserialize)]
struct Question {
    ask: Ask,
    json: bool,
}

/// The way to the other, through this machine's node.
struct Line {
    visit: VisitId,
    stream: UnixStream,
    decoder: Decoder,
}

impl Line {
    fn open(node: &str, visit: VisitId, with: NodeRef) -> Result<Line> {
        let failed = || format!("node `{node}` does not answer");
        let mut stream = UnixStream::connect(link::socket_of(node)?).with_context(failed)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        link::say(&mut stream, VisitHello { protocol: PROTOCOL, visit, with }).with_context(failed)?;
        Ok(Line { visit, stream, decoder: Decoder::new(DATA_BODY_MAX) })
    }

    fn say(&mut self, said: &Said) -> Result<()> {
        say(&mut self.stream, self.visit, said)
    }

    /// What the other says next; an error if that is nothing any more.
    fn hear(&mut self) -> Result<Said> {
        let mut bytes = vec![0; 64 * 1024];
        loop {
            while let Some((header, body)) = self.decoder.next_frame()? {
                if let Ok(MemberMessage::VisitBytes(said)) = MemberMessage::read(&header, body) {
                    if said.bytes.is_empty() {
                        bail!("it ended without saying so");
                    }
                    return postcard::from_bytes(&said.bytes)
                        .context("is the other node of another version?");
                }
                if let Ok(LocalMessage::ClientRefused(refused)) = LocalMessage::read(&header, body) {
                    bail!(refused.text);
                }
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => bail!("it ended without saying so"),
                Ok(count) => self.decoder.push(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    bail!("nobody answered within {} s", PATIENCE.as_secs())
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn say(stream: &mut UnixStream, visit: VisitId, said: &Said) -> Result<()> {
    let bytes = postcard::to_stdvec(said)?;
    Ok(link::say(stream, VisitBytes { visit, bytes })?)
}

/// Why a visit came to nothing.
pub struct Lost {
    pub why: anyhow::Error,
    /// Something may have been done there.
    pub was_asked: bool,
}

/// Asks at a member; `out` takes what is printed there, to standard error or not. The exit code.
pub fn ask(
    pool: &Pool,
    member: &NodeRef,
    bag: BagId,
    ask: &Ask,
    form: Form,
    out: &mut dyn FnMut(bool, &[u8]) -> Result<()>,
) -> Result<u8, Lost> {
    let before = |why| Lost { why, was_asked: false };
    let mut line = begin(pool, member, bag, ask, form).map_err(before)?;
    let mut taken = 0;
    loop {
        let mut next = || -> Result<Option<u8>> {
            match line.hear()? {
                Said::Out { number, error, bytes } => {
                    check_whole(number, taken)?;
                    out(error, &bytes)?;
                    taken += 1;
                    if taken % u64::from(TAKEN) == 0 {
                        // Whether it still hears this shows in what it says.
                        let _ = line.say(&Said::Taken(TAKEN));
                    }
                    Ok(None)
                }
                Said::End { pieces, code } => check_whole(pieces, taken).map(|()| Some(code)),
                Said::Ready | Said::Ask { .. } | Said::Taken(_) => Ok(None),
            }
        };
        match next() {
            Ok(None) => {}
            Ok(Some(code)) => return Ok(code),
            Err(why) => return Err(Lost { why, was_asked: true }),
        }
    }
}

/// Nodes lose nothing while a visit lasts; should they, it must not pass for an answer.
fn check_whole(number: u64, taken: u64) -> Result<()> {
    if number != taken {
        bail!("a part of the answer was lost on its way");
    }
    Ok(())
}

/// Begins a visit, up to the question.
fn begin(pool: &Pool, member: &NodeRef, bag: BagId, ask: &Ask, form: Form) -> Result<Line> {
    let question = serde_json::to_vec(&Asked { ask, json: form == Form::Json })?;
    if question.len() > ASK_BYTES_MAX {
        bail!("this is too long for a bag elsewhere; do it where the bag was submitted");
    }
    let visit = VisitId(u128::from_le_bytes(mutirao_trust::random()?));
    let home = pool.node();
    let mut line = Line::open(&home.name, visit, member.clone())?;
    let topic = Topic::Visit { bag, visit, home };
    let rows = ask_pool(pool, topic, Some(member.id.to_string()))?;
    match rows.into_iter().find(|row| matches!(row, Row::Done { .. } | Row::Failed { .. })) {
        Some(Row::Done { .. }) => {}
        Some(Row::Failed { text, .. }) => bail!(text),
        _ => bail!("it did not answer"),
    }
    while !matches!(line.hear()?, Said::Ready) {}
    // From now on it may be silent as long as it likes; the nodes tell when one of them is lost.
    line.stream.set_read_timeout(None)?;
    let mut pieces = question.chunks(PIECE_BYTES).peekable();
    while let Some(bytes) = pieces.next() {
        let last = pieces.peek().is_none();
        line.say(&Said::Ask { last, bytes: bytes.to_vec() })?;
    }
    Ok(line)
}

/// Where what is printed goes.
struct Way {
    stream: UnixStream,
    visit: VisitId,
    pieces: u64,
}

impl Way {
    fn out(&mut self, error: bool, bytes: Vec<u8>) -> Result<()> {
        self.pieces += 1;
        say(&mut self.stream, self.visit, &Said::Out { number: self.pieces - 1, error, bytes })
    }

    fn end(&mut self, code: u8) -> Result<()> {
        say(&mut self.stream, self.visit, &Said::End { pieces: self.pieces, code })
    }
}

/// Room for what is printed: it waits until the other has taken enough.
#[derive(Default)]
struct Window {
    under_way: Mutex<u32>,
    less: Condvar,
}

impl Window {
    fn enter(&self) {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |under_way: &mut u32| *under_way >= WINDOW;
        *self.less.wait_while(under_way, is_full).unwrap_or_else(PoisonError::into_inner) += 1;
    }

    fn taken(&self, count: u32) {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        *under_way = under_way.saturating_sub(count);
        self.less.notify_all();
    }
}

/// The process that a node has started to answer a visit from the node `home`.
pub fn answer(bag: &str, visit: &str, home: &str, node: &str) -> Result<u8> {
    let bag: BagId = bag.parse()?;
    let visit = VisitId(visit.parse::<BagId>()?.0);
    let home = NodeRef {
        id: home.parse::<NodeId>()?,
        incarnation: Incarnation(0),
        name: String::new(),
        addresses: Vec::new(),
    };
    let mut line = Line::open(node, visit, home)?;
    let way = Arc::new(Mutex::new(Way { stream: line.stream.try_clone()?, visit, pieces: 0 }));
    line.say(&Said::Ready)?;
    let mut question = Vec::new();
    loop {
        let Said::Ask { last, bytes } = line.hear()? else { continue };
        question.extend(bytes);
        if last {
            break;
        }
        if question.len() > ASK_BYTES_MAX {
            bail!("too long a question");
        }
    }
    line.stream.set_read_timeout(None)?;
    let window = Arc::new(Window::default());
    listen(line, window.clone())?;
    let (shown, said) = (pipe()?, pipe()?);
    rustix::stdio::dup2_stdout(&shown.1)?;
    rustix::stdio::dup2_stderr(&said.1)?;
    drop((shown.1, said.1));
    let ended = [pass_on(shown.0, false, &way, &window)?, pass_on(said.0, true, &way, &window)?];
    let code = carry_out(bag, node, &question).unwrap_or_else(|error| {
        remark!("mutirao: {error:#}");
        1
    });
    // What was printed is at its end.
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    for ended in ended {
        // Its end, not what it said, is waited for.
        let _ = ended.recv();
    }
    way.lock().unwrap_or_else(PoisonError::into_inner).end(code)?;
    Ok(0)
}

fn carry_out(bag: BagId, node: &str, question: &[u8]) -> Result<u8> {
    let question: Question = serde_json::from_slice(question)
        .context("what is asked cannot be understood; is that node of another version?")?;
    let (place, _) = kept::taken_up(bag, node)?.context("it was removed where it was submitted")?;
    let keep = place.kept()?.context("nobody is said to keep it")?;
    let origin = keep.members.first().context("it has no members")?;
    let form = if question.json { Form::Json } else { Form::Text };
    question.ask.carry_out(&place.visited(&origin.name, node), Some(node), form)
}

/// Hears what was taken, and ends this process when the other is gone.
fn listen(mut line: Line, window: Arc<Window>) -> Result<()> {
    let hear = move || {
        loop {
            match line.hear() {
                Ok(Said::Taken(count)) => window.taken(count),
                Ok(_) => {}
                Err(_) => std::process::exit(0),
            }
        }
    };
    crate::threads::start("visit", hear)
}

/// Passes on what is printed; the channel closes when that is at its end.
fn pass_on(
    mut from: PipeReader,
    error: bool,
    way: &Arc<Mutex<Way>>,
    window: &Arc<Window>,
) -> Result<Receiver<()>> {
    let (way, window) = (way.clone(), window.clone());
    let (ended, end) = channel();
    let pass = move || {
        let _ended = ended;
        let mut bytes = vec![0; PIECE_BYTES];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            window.enter();
            let mut way = way.lock().unwrap_or_else(PoisonError::into_inner);
            if way.out(error, bytes[..count].to_vec()).is_err() {
                return;
            }
        }
    };
    crate::threads::start("printed", pass)?;
    Ok(end)
}

/// Prints what comes from elsewhere as if it had been said here.
pub fn print(error: bool, bytes: &[u8]) -> Result<()> {
    if error {
        return Ok(std::io::stderr().write_all(bytes)?);
    }
    crate::output::put_bytes(bytes)
}
