//! `mutirao group attach`: this terminal becomes that of a process of a group.

use super::list::find;
use super::signals::Signals;
use crate::list::ask;
use crate::output::remark;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mutirao::raw::{Gone, PipeEvent, PipeStream, Pool};
use mutirao_group::attach::{Answer, Ask, Reader, TYPED_BYTES_MAX, frame};
use mutirao_group::console::Size;
use mutirao_wire::query::{GroupRow, Row, Topic};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{Write, stdin, stdout};
use std::time::{Duration, Instant};

/// What leaves the process alone again, unless another key is named.
const ESCAPE: &str = "^]";
/// How long a way to the launcher may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Who leaves waits so long for what was typed to have come.
const FAREWELL: Duration = Duration::from_secs(2);

/// Options of `group attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
The process needs a terminal, which it is given when it starts: `terminal = true` in its table of the
application file, or `group run --terminal PROCESS`. What is typed goes to the process, Ctrl-C too;
Ctrl-] leaves it, and it runs on. One at a time can be attached to a process. While nobody is, what it
writes comes out of `group run`. When the process ends, its exit code is passed on.

It works on every node of the pool, for the user who launched the group.

Examples:
  mutirao group attach mandel gmandel.1
  mutirao group attach mandel gmandel.1 --escape ^A")]
pub struct AttachArgs {
    /// The group's name, or the beginning of its id
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// The process, such as `gmandel.1`
    #[arg(value_name = "PROCESS")]
    pub process: String,
    /// The key that leaves the process: a control character, such as ^A
    #[arg(long, value_name = "KEY", default_value = ESCAPE, value_parser = control_key)]
    pub escape: u8,
}

/// The byte of a control character that is written as `^A`.
fn control_key(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'^', key @ b'@'..=b'_'] => Ok(key & 0x1f),
        [b'^', key @ b'a'..=b'z'] => Ok(key & 0x1f),
        _ => Err("a control character is written as ^A".into()),
    }
}

/// Attaches until the process ends or the key comes; the exit code.
pub fn run(pool: &Pool, args: &AttachArgs) -> Result<u8> {
    ensure!(
        isatty(stdin()) && isatty(stdout()),
        "`group attach` needs a terminal: its standard input or standard output is none"
    );
    let group = find(pool, &args.group)?;
    let pipe = connect(pool, &group)
        .with_context(|| format!("cannot attach to `{}` of the group `{}`", args.process, group.name))?;
    let signals = Signals::listen_for_size()?;
    let mut session = Session {
        pipe,
        signals,
        reader: Reader::default(),
        unsent: Vec::new(),
        raw: None,
        is_attached: false,
        leaves_by: None,
    };
    let from = format!("process {} on node {}", std::process::id(), pool.node().name);
    session.say(&Ask::Attach { process: args.process.clone(), size: size(), from });
    let end = session.run(args.escape);
    let was_attached = session.is_attached;
    drop(session);
    let process = format!("`{}` of the group `{}`", args.process, group.name);
    match end? {
        End::Refused(why) => bail!("cannot attach to {process}: {why}"),
        End::Left => {
            remark!("mutirao: {process} runs on without this terminal");
            Ok(0)
        }
        End::Ended { text, code } => {
            remark!("mutirao: {process} has ended: {text}");
            Ok(code)
        }
        End::Signal(signal) => Ok(128_u8.saturating_add(signal as u8)),
        End::Gone if was_attached => bail!(
            "the way to {process} broke, or its launcher is gone; if the group runs on (`mutirao group ls`), attach again"
        ),
        End::Gone => bail!("cannot attach to {process}: its launcher did not answer"),
    }
}

/// Asks the home of the group for a pipe to its launcher.
fn connect(pool: &Pool, group: &GroupRow) -> Result<PipeStream> {
    let attach = Topic::Attach { group: group.app, guest: pool.app(), node: pool.node() };
    let answers = ask(pool, attach, Some(group.home.clone()))?;
    for row in &answers {
        if let Row::Failed { node, text } = row {
            bail!("{node}: {text}");
        }
    }
    ensure!(!answers.is_empty(), "node `{}`, where it was launched, does not answer", group.home);
    match pool.next_pipe_event(Some(PATIENCE))? {
        Some(PipeEvent::Opened { way, .. }) => Ok(PipeStream::open(way)?),
        Some(PipeEvent::Failed { text, .. }) => bail!("{text}"),
        Some(PipeEvent::Broken { .. }) => bail!("the way to its launcher broke"),
        None => bail!("no way to node `{}`, where it was launched, was found", group.home),
    }
}

/// How it ended.
enum End {
    Refused(String),
    /// The key was typed.
    Left,
    Ended {
        text: String,
        code: u8,
    },
    /// Of this program.
    Signal(i32),
    /// The launcher is no more.
    Gone,
}

struct Session {
    pipe: PipeStream,
    signals: Signals,
    reader: Reader,
    unsent: Vec<u8>,
    raw: Option<Raw>,
    is_attached: bool,
    /// It leaves, by then at the latest.
    leaves_by: Option<Instant>,
}

impl Session {
    fn run(&mut self, escape: u8) -> Result<End> {
        loop {
            self.send();
            let (typed, heard) = self.sleep()?;
            if let Some(signal) = self.signals.take() {
                if signal != signal_hook::consts::SIGWINCH {
                    return Ok(End::Signal(signal));
                }
                if self.is_attached {
                    self.say(&Ask::Resize(size()));
                }
            }
            if heard && let Some(end) = self.hear()? {
                return Ok(end);
            }
            if typed && self.leaves_by.is_none() && self.read_keys(escape)? {
                self.say(&Ask::Leave);
                self.leaves_by = Some(Instant::now() + FAREWELL);
            }
            if self.leaves_by.is_some_and(|by| by <= Instant::now()) {
                return Ok(End::Left);
            }
        }
    }

    /// Waits; whether something was typed, and whether the launcher said something.
    fn sleep(&mut self) -> Result<(bool, bool)> {
        let wants_room = !self.unsent.is_empty();
        let at_once = self.pipe.arm(true, wants_room);
        let left = self.leaves_by.map(|by| by.saturating_duration_since(Instant::now()));
        let left = if at_once { Some(Duration::ZERO) } else { left };
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let slept = self.sleep_armed(wants_room, timeout.as_ref());
        self.pipe.disarm();
        slept.map(|(typed, heard)| (typed, heard || at_once))
    }

    fn sleep_armed(&self, wants_room: bool, timeout: Option<&Timespec>) -> Result<(bool, bool)> {
        let keys = stdin();
        // No more is read than goes on.
        let reads = self.is_attached && self.leaves_by.is_none() && self.unsent.is_empty();
        let keys_wanted = if reads { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.pipe, self.pipe.interest(true, wants_room)),
            PollFd::new(&keys, keys_wanted),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the process"),
        }
        let came = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        Ok((reads && came(&fds[2]), came(&fds[1])))
    }

    /// Shows what the process wrote.
    fn hear(&mut self) -> Result<Option<End>> {
        let mut bytes = Vec::new();
        let read = self.pipe.read(&mut bytes);
        let mut answers = Vec::new();
        self.reader.hear(&bytes, &mut answers)?;
        for answer in answers {
            match answer {
                Answer::Attached => {
                    self.raw = Some(Raw::enter()?);
                    self.is_attached = true;
                }
                Answer::Refused(why) => return Ok(Some(End::Refused(why))),
                Answer::Shown(bytes) => {
                    let mut out = stdout().lock();
                    out.write_all(&bytes)
                        .and_then(|()| out.flush())
                        .context("cannot write to the terminal")?;
                }
                Answer::Left => return Ok(Some(End::Left)),
                Answer::Ended { text, code } => return Ok(Some(End::Ended { text, code })),
            }
        }
        let gone = if self.leaves_by.is_some() { End::Left } else { End::Gone };
        Ok((read == Err(Gone)).then_some(gone))
    }

    /// Sends on what was typed; true if the key was among it.
    fn read_keys(&mut self, escape: u8) -> Result<bool> {
        let mut bytes = [0; TYPED_BYTES_MAX];
        // Not by way of a buffer, in which `poll` would see nothing.
        let count = match rustix::io::read(stdin(), &mut bytes) {
            Ok(0) => return Ok(true),
            Ok(count) => count,
            Err(Errno::INTR | Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(errno).context("cannot read from the terminal"),
        };
        let typed = &bytes[..count];
        let until = typed.iter().position(|key| *key == escape);
        let sent = &typed[..until.unwrap_or(count)];
        if !sent.is_empty() {
            self.say(&Ask::Typed(sent.to_vec()));
            self.send();
        }
        Ok(until.is_some())
    }

    fn say(&mut self, ask: &Ask) {
        self.unsent.extend(frame(ask));
    }

    /// Sends what the launcher takes. That it is gone is heard.
    fn send(&mut self) {
        while !self.unsent.is_empty() {
            match self.pipe.write(&self.unsent) {
                Ok(0) => return,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Gone) => self.unsent.clear(),
            }
        }
    }
}

/// The terminal hands on each key as it is typed, for as long as this lives.
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> Result<Raw> {
        let failed = "cannot set up the terminal";
        let before = tcgetattr(stdin()).context(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).context(failed)?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // After what was shown last. There is nobody to tell that it failed.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
    }
}

fn size() -> Size {
    let size = tcgetwinsize(stdout()).ok();
    size.map_or(Size { rows: 24, columns: 80 }, |size| Size { rows: size.ws_row, columns: size.ws_col })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_written_with_a_caret() {
        assert_eq!(control_key(ESCAPE), Ok(0x1d));
        assert_eq!((control_key("^A"), control_key("^a"), control_key("^@")), (Ok(1), Ok(1), Ok(0)));
        assert!(control_key("A").is_err() && control_key("^1").is_err() && control_key("^AB").is_err());
    }
}
