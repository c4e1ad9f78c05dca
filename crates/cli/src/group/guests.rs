//! Whoever attaches to the terminals of a group's processes, as its launcher has them.

use anyhow::{Context, Result};
use mutirao_group::attach::{Answer, Ask, Reader, frame};
use mutirao_group::console::{PIECE_BYTES_MAX, Size};
use mutirao_wire::AppId;
use rustix::event::{PollFd, PollFlags};
use rustix::net::sockopt::socket_peercred;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

/// Those who are let in at once, attached or not.
const GUESTS_MAX: usize = 256;
/// Bytes on their way to one who is attached, beyond which nothing more is taken from the process.
const SHOWN_BYTES_MAX: usize = 256 * 1024;
/// Bytes read from one who is attached, at most; and what these can hold with what came before them.
const READ_BYTES: usize = 4 * 1024;
const TYPED_BYTES_A_READ_MAX: u32 = 3 * READ_BYTES as u32;
/// Whoever does not read for so long is not told the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the launcher of a group listens: an abstract name, so that nothing of it is left however the launcher ends.
pub fn address(app: AppId) -> Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("mutirao-group-{app}")).context("cannot name a socket")
}

/// Whether whoever is at the other end runs as the same user as this program, or as the superuser; and its process.
pub fn is_same_user(stream: &UnixStream) -> Option<i32> {
    let peer = socket_peercred(stream).ok()?;
    (peer.uid == rustix::process::geteuid() || peer.uid.is_root()).then(|| peer.pid.as_raw_nonzero().get())
}

/// All who came.
#[derive(Debug)]
pub struct Guests {
    listener: UnixListener,
    guests: Vec<Guest>,
}

#[derive(Debug)]
struct Guest {
    stream: UnixStream,
    pid: i32,
    reader: Reader,
    unsent: VecDeque<u8>,
    /// The process it is attached to, by rank.
    rank: Option<u32>,
    /// It is to go when all was sent.
    leaves: bool,
    is_gone: bool,
}

/// What one of them wants.
#[derive(Debug)]
pub enum Wish {
    /// To attach to the process of this name.
    Attach {
        /// Who: good until the next call of [`Guests::hear`].
        guest: usize,
        process: String,
        size: Size,
    },
    /// To change the size of the terminal of the process of this rank.
    Resize { rank: u32, size: Size },
    /// To type this.
    Type { rank: u32, bytes: Vec<u8> },
}

impl Guests {
    /// Listens for those who want to attach to processes of this group.
    pub fn listen(app: AppId) -> Result<Guests> {
        let failed = "cannot listen for those who attach";
        let listener = UnixListener::bind_addr(&address(app)?).context(failed)?;
        listener.set_nonblocking(true).context(failed)?;
        Ok(Guests { listener, guests: Vec::new() })
    }

    /// What they want; of those who are attached only where `may_type` says of the rank that so many bytes can be taken.
    pub fn hear(&mut self, may_type: impl Fn(u32, u32) -> bool) -> Vec<Wish> {
        self.accept();
        self.guests.retain(|guest| !guest.is_gone);
        let mut wishes = Vec::new();
        for (number, guest) in self.guests.iter_mut().enumerate() {
            guest.hear(number, &may_type, &mut wishes);
        }
        wishes
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let Some(pid) = is_same_user(&stream) else { continue };
            if self.guests.len() < GUESTS_MAX && stream.set_nonblocking(true).is_ok() {
                self.guests.push(Guest {
                    stream,
                    pid,
                    reader: Reader::default(),
                    unsent: VecDeque::new(),
                    rank: None,
                    leaves: false,
                    is_gone: false,
                });
            }
        }
    }

    /// The process that is attached to the process of this rank.
    pub fn at(&self, rank: u32) -> Option<i32> {
        self.guests.iter().find(|guest| guest.is_at(rank)).map(|guest| guest.pid)
    }

    /// Attaches a guest, and shows it what the process wrote last.
    pub fn attach(&mut self, guest: usize, rank: u32, last: Vec<u8>) {
        let guest = &mut self.guests[guest];
        guest.rank = Some(rank);
        guest.say(&Answer::Attached);
        guest.show(&last);
    }

    /// Sends a guest away.
    pub fn refuse(&mut self, guest: usize, why: String) {
        self.guests[guest].say(&Answer::Refused(why));
        self.guests[guest].leaves = true;
        self.guests[guest].send();
    }

    /// Shows what the process of this rank wrote to who is attached; false if nobody is.
    pub fn show(&mut self, rank: u32, bytes: &[u8]) -> bool {
        let Some(guest) = self.guests.iter_mut().find(|guest| guest.is_at(rank)) else { return false };
        guest.show(bytes);
        true
    }

    /// Whether who is attached has not read what the process wrote long since.
    pub fn is_full(&self, rank: u32) -> bool {
        self.guests.iter().any(|guest| guest.is_at(rank) && guest.unsent.len() > SHOWN_BYTES_MAX)
    }

    /// The process of this rank has ended.
    pub fn end(&mut self, rank: u32, text: String, code: u8) {
        for guest in self.guests.iter_mut().filter(|guest| guest.is_at(rank)) {
            guest.say(&Answer::Ended { text: text.clone(), code });
            guest.leaves = true;
            guest.send();
        }
    }

    /// What to wait for.
    pub fn interests<'a>(&'a self, may_type: impl Fn(u32, u32) -> bool, fds: &mut Vec<PollFd<'a>>) {
        fds.push(PollFd::new(&self.listener, PollFlags::IN));
        for guest in self.guests.iter().filter(|guest| !guest.is_gone) {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, guest.may_be_read(&may_type));
            flags.set(PollFlags::OUT, !guest.unsent.is_empty());
            fds.push(PollFd::new(&guest.stream, flags));
        }
    }

    /// Before the launcher ends: what they were told is theirs.
    pub fn see_off(&mut self) {
        for guest in self.guests.iter_mut().filter(|guest| !guest.is_gone) {
            let ready = guest.stream.set_nonblocking(false);
            let ready = ready.and_then(|()| guest.stream.set_write_timeout(Some(PATIENCE)));
            if ready.is_ok() {
                // Whoever does not listen is told nothing.
                let _ = guest.stream.write_all(guest.unsent.make_contiguous());
            }
            guest.is_gone = true;
        }
    }
}

impl Guest {
    fn is_at(&self, rank: u32) -> bool {
        self.rank == Some(rank) && !self.is_gone && !self.leaves
    }

    fn may_be_read(&self, may_type: &impl Fn(u32, u32) -> bool) -> bool {
        !self.leaves && self.rank.is_none_or(|rank| may_type(rank, TYPED_BYTES_A_READ_MAX))
    }

    fn hear(&mut self, number: usize, may_type: &impl Fn(u32, u32) -> bool, wishes: &mut Vec<Wish>) {
        self.send();
        if self.is_gone || !self.may_be_read(may_type) {
            return;
        }
        let mut bytes = [0; READ_BYTES];
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => return self.is_gone = true,
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.is_gone = true,
        };
        let mut asks = Vec::new();
        if self.reader.hear(&bytes[..count], &mut asks).is_err() {
            return self.is_gone = true;
        }
        for ask in asks {
            match (ask, self.rank) {
                (Ask::Attach { process, size }, None) => {
                    wishes.push(Wish::Attach { guest: number, process, size });
                }
                (Ask::Resize(size), Some(rank)) => wishes.push(Wish::Resize { rank, size }),
                (Ask::Typed(bytes), Some(rank)) => wishes.push(Wish::Type { rank, bytes }),
                // Before it is attached it has nothing to say, and afterwards it is.
                _ => {}
            }
        }
    }

    fn show(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(PIECE_BYTES_MAX) {
            self.say(&Answer::Shown(piece.to_vec()));
        }
        self.send();
    }

    fn say(&mut self, answer: &Answer) {
        self.unsent.extend(frame(answer));
    }

    /// Sends what the socket takes.
    fn send(&mut self) {
        while !self.unsent.is_empty() && !self.is_gone {
            match self.stream.write(self.unsent.as_slices().0) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.is_gone = true,
            }
        }
        self.is_gone |= self.leaves;
    }
}
