//! `mutirao group attach`: this terminal becomes that of a process of a group.

use super::guests::{address, is_same_user};
use super::list::find;
use super::signals::Signals;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mutirao::raw::Pool;
use mutirao_group::attach::{Answer, Ask, Reader, TYPED_BYTES_MAX, frame};
use mutirao_group::console::Size;
use mutirao_wire::query::GroupRow;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{ErrorKind, Read, Write, stdin, stdout};
use std::os::unix::net::UnixStream;

/// What leaves the process alone again, unless another key is named.
const ESCAPE: &str = "^]";

/// Options of `group attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
The process needs a terminal, which it is given when it starts: `terminal = true` in its table of the
application file, or `group run --terminal PROCESS`. What is typed goes to the process, Ctrl-C too;
Ctrl-] leaves it, and it runs on. One at a time can be attached to a process. While nobody is, what it
writes comes out of `group run`. When the process ends, its exit code is passed on.

Attach on the machine where `group run` was started, as the same user.

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
    let stream = connect(&group)?;
    let signals = Signals::listen_for_size()?;
    let mut session = Session {
        stream,
        signals,
        reader: Reader::default(),
        unsent: Vec::new(),
        raw: None,
        is_attached: false,
    };
    session.say(&Ask::Attach { process: args.process.clone(), size: size() });
    let end = session.run(args.escape);
    let was_attached = session.is_attached;
    drop(session);
    let process = format!("`{}` of the group `{}`", args.process, group.name);
    match end? {
        End::Refused(why) => bail!("cannot attach to {process}: {why}"),
        End::Left => {
            eprintln!("mutirao: {process} runs on without this terminal");
            Ok(0)
        }
        End::Ended { text, code } => {
            eprintln!("mutirao: {process} has ended: {text}");
            Ok(code)
        }
        End::Signal(signal) => Ok(128_u8.saturating_add(signal as u8)),
        End::Gone if was_attached => bail!("the group `{}` has ended", group.name),
        End::Gone => bail!("cannot attach to {process}: its launcher did not answer"),
    }
}

fn connect(group: &GroupRow) -> Result<UnixStream> {
    let elsewhere = || {
        format!(
            "the launcher of the group `{}` cannot be reached from here: attach on the machine of node {}, where it \
             was started, as user {}",
            group.name, group.home, group.user
        )
    };
    let stream = UnixStream::connect_addr(&address(group.app)?).with_context(elsewhere)?;
    ensure!(is_same_user(&stream).is_some(), "what listens in the place of the launcher is another user's");
    stream.set_nonblocking(true).context("cannot talk to the launcher")?;
    Ok(stream)
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
    stream: UnixStream,
    signals: Signals,
    reader: Reader,
    unsent: Vec<u8>,
    raw: Option<Raw>,
    is_attached: bool,
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
            if typed && self.read_keys(escape)? {
                return Ok(End::Left);
            }
        }
    }

    /// Waits; whether something was typed, and whether the launcher said something.
    fn sleep(&self) -> Result<(bool, bool)> {
        let keys = stdin();
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.unsent.is_empty());
        // No more is read than goes on.
        let reads = self.is_attached && self.unsent.is_empty();
        let keys_wanted = if reads { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.stream, wanted),
            PollFd::new(&keys, keys_wanted),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).context("cannot wait for the process"),
        }
        let came = |fd: &PollFd<'_>| fd.revents().intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        Ok((reads && came(&fds[2]), came(&fds[1])))
    }

    /// Shows what the process wrote.
    fn hear(&mut self) -> Result<Option<End>> {
        let mut bytes = [0; 64 * 1024];
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => return Ok(Some(End::Gone)),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(_) => return Ok(Some(End::Gone)),
        };
        let mut answers = Vec::new();
        self.reader.hear(&bytes[..count], &mut answers)?;
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
                Answer::Ended { text, code } => return Ok(Some(End::Ended { text, code })),
            }
        }
        Ok(None)
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
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.unsent.clear(),
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
