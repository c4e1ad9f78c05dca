//! Whoever attaches to the terminals of a group's processes, as its launcher has them.

use mutirao::raw::{Gone, PipeStream};
use mutirao_group::attach::{Answer, Ask, FROM_BYTES_MAX, Reader, frame};
use mutirao_group::console::{PIECE_BYTES_MAX, Size};
use rustix::event::{PollFd, Timespec, poll};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Those who are let in at once, attached or not.
const GUESTS_MAX: usize = 256;
/// Bytes on their way to one who is attached, beyond which nothing more is taken from the process.
const SHOWN_BYTES_MAX: usize = 256 * 1024;
/// Bytes read from one who is attached, at most; and what these can hold with what came before them.
const READ_BYTES: usize = 4 * 1024;
const TYPED_BYTES_A_READ_MAX: u32 = 3 * READ_BYTES as u32;
/// Whoever does not read for so long is not told the end.
const PATIENCE: Duration = Duration::from_secs(2);

/// All who came.
#[derive(Debug, Default)]
pub struct Guests {
    guests: Vec<Guest>,
}

#[derive(Debug)]
struct Guest {
    /// The number of its pipe.
    number: u64,
    pipe: PipeStream,
    /// Who it says it is.
    from: String,
    reader: Reader,
    unsent: VecDeque<u8>,
    /// The process it is attached to, by rank.
    rank: Option<u32>,
    /// It has been told all, and is to go.
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
    /// Somebody has come over this pipe; false if there is no room.
    pub fn come(&mut self, number: u64, pipe: PipeStream) -> bool {
        let has_room = self.guests.len() < GUESTS_MAX;
        if has_room {
            self.guests.push(Guest {
                number,
                pipe,
                from: String::new(),
                reader: Reader::default(),
                unsent: VecDeque::new(),
                rank: None,
                leaves: false,
                is_gone: false,
            });
        }
        has_room
    }

    /// The pipe of one of them is of no further use.
    pub fn went(&mut self, number: u64) {
        self.guests.retain(|guest| guest.number != number);
    }

    /// Forgets those who have gone; the numbers of their pipes.
    pub fn sweep(&mut self) -> Vec<u64> {
        self.guests.extract_if(.., |guest| guest.is_gone).map(|guest| guest.number).collect()
    }

    /// What they want; of those who are attached only where `may_type` says of the rank that so many bytes can be taken.
    pub fn hear(&mut self, may_type: impl Fn(u32, u32) -> bool) -> Vec<Wish> {
        let mut wishes = Vec::new();
        for (number, guest) in self.guests.iter_mut().enumerate() {
            guest.hear(number, &may_type, &mut wishes);
        }
        wishes
    }

    /// Who is attached to the process of this rank.
    pub fn at(&self, rank: u32) -> Option<&str> {
        self.guests.iter().find(|guest| guest.is_at(rank)).map(|guest| guest.from.as_str())
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
        self.guests[guest].say_last(&Answer::Refused(why));
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
            guest.say_last(&Answer::Ended { text: text.clone(), code });
        }
    }

    /// Before sleeping: asks to be woken; true if there is something to do already.
    pub fn arm(&mut self, may_type: impl Fn(u32, u32) -> bool) -> bool {
        self.guests.iter_mut().filter(|guest| !guest.is_gone).any(|guest| {
            let (reads, wants_room) = (guest.may_be_read(&may_type), !guest.unsent.is_empty());
            guest.pipe.arm(reads, wants_room)
        })
    }

    /// What to wait for.
    pub fn interests<'a>(&'a self, may_type: impl Fn(u32, u32) -> bool, fds: &mut Vec<PollFd<'a>>) {
        for guest in self.guests.iter().filter(|guest| !guest.is_gone) {
            let (reads, wants_room) = (guest.may_be_read(&may_type), !guest.unsent.is_empty());
            if reads || wants_room {
                fds.push(PollFd::new(&guest.pipe, guest.pipe.interest(reads, wants_room)));
            }
        }
    }

    /// After sleeping.
    pub fn disarm(&mut self) {
        self.guests.iter_mut().for_each(|guest| guest.pipe.disarm());
    }

    /// Before the launcher ends: what they were told is theirs, so they go first.
    pub fn see_off(&mut self) {
        let until = Instant::now() + PATIENCE;
        self.guests.retain(|guest| guest.leaves);
        loop {
            self.hear(|_, _| false);
            self.guests.retain(|guest| !guest.is_gone);
            let left = until.saturating_duration_since(Instant::now());
            if self.guests.is_empty() || left.is_zero() {
                return;
            }
            if !self.arm(|_, _| false) {
                let mut fds = Vec::new();
                self.interests(|_, _| false, &mut fds);
                // Woken early or not, it is looked again.
                let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
            }
            self.disarm();
        }
    }
}

impl Guest {
    fn is_at(&self, rank: u32) -> bool {
        self.rank == Some(rank) && !self.is_gone && !self.leaves
    }

    /// Of one that is to leave, its going is read.
    fn may_be_read(&self, may_type: &impl Fn(u32, u32) -> bool) -> bool {
        self.leaves || self.rank.is_none_or(|rank| may_type(rank, TYPED_BYTES_A_READ_MAX))
    }

    fn hear(&mut self, number: usize, may_type: &impl Fn(u32, u32) -> bool, wishes: &mut Vec<Wish>) {
        self.send();
        if self.is_gone || !self.may_be_read(may_type) {
            return;
        }
        let mut bytes = Vec::new();
        let heard = self.pipe.read_up_to(&mut bytes, READ_BYTES);
        let mut asks = Vec::new();
        let made_sense = self.leaves || self.reader.hear(&bytes, &mut asks).is_ok();
        self.is_gone |= heard == Err(Gone) || !made_sense;
        for ask in asks {
            match (ask, self.rank) {
                (Ask::Attach { process, size, mut from }, None) => {
                    from.truncate(from.floor_char_boundary(FROM_BYTES_MAX));
                    self.from = from;
                    wishes.push(Wish::Attach { guest: number, process, size });
                }
                (Ask::Resize(size), Some(rank)) => wishes.push(Wish::Resize { rank, size }),
                (Ask::Typed(bytes), Some(rank)) => wishes.push(Wish::Type { rank, bytes }),
                (Ask::Leave, _) => self.say_last(&Answer::Left),
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

    fn say_last(&mut self, answer: &Answer) {
        self.say(answer);
        self.leaves = true;
        self.send();
    }

    /// Sends what the pipe takes.
    fn send(&mut self) {
        while !self.unsent.is_empty() && !self.is_gone {
            match self.pipe.write(self.unsent.as_slices().0) {
                Ok(0) => return,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(Gone) => self.is_gone = true,
            }
        }
    }
}
