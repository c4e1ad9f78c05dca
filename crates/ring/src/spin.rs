use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use crate::Error;
use crate::memory::{check_magic, create_sealed, sealed_size};
use crate::shm::Shared;

/// How many processes or threads of a machine can have a seat on its [`SpinBoard`].
pub const SEATS: u16 = 512;

const MAGIC: u64 = u64::from_le_bytes(*b"mutspin\x02");
const BOARD_BYTES: usize = 4096;
const LIMIT: usize = 8;
const SEAT_WORDS: usize = SEATS as usize / 64;
const SPINNING: usize = 0x80;
const WORKING: usize = 0x100;

/// Says who spins on this machine and who is known to want a core, so that both together stay fewer than cores.
///
/// One page, made by the node and mapped by every participant. What it says is a hint: a hostile participant
/// that scribbles on it can make others sleep where they would spin or spin for a bounded time where they would
/// sleep, no more.
#[derive(Debug)]
pub struct SpinBoard {
    file: OwnedFd,
    shared: Shared,
    /// So many may spin at once.
    limit: u32,
}

impl SpinBoard {
    /// Makes the board of a machine whose node may use `cores`. On a single core nobody spins: whom one waits
    /// for could not run.
    pub fn create(cores: usize) -> Result<Self, Error> {
        let file = create_sealed("mutirao-spin", BOARD_BYTES)?;
        let shared = Shared::map(&file, BOARD_BYTES)?;
        let limit = if cores < 2 { 0 } else { cores.min(usize::from(SEATS)) as u32 };
        shared.word(LIMIT).store(u64::from(limit), Relaxed);
        shared.word(0).store(MAGIC, Release);
        Ok(Self { file, shared, limit })
    }

    /// Checks and maps a board that the node has handed over.
    pub fn map(file: OwnedFd) -> Result<Self, Error> {
        const WHAT: &str = "spin board";
        let bytes = sealed_size(&file, WHAT)?;
        if bytes != BOARD_BYTES as u64 {
            return Err(Error::Size { what: WHAT, bytes });
        }
        let shared = Shared::map(&file, BOARD_BYTES)?;
        check_magic(&shared, WHAT, MAGIC)?;
        let limit = shared.word(LIMIT).load(Acquire).min(u64::from(SEATS)) as u32;
        Ok(Self { file, shared, limit })
    }

    /// How many spin now, or are [at work](Spinner::working): those who want a core, as far as is known.
    pub fn wanting(&self) -> u32 {
        let load = |at: usize| self.shared.word(at).load(Relaxed);
        (0..SEAT_WORDS).map(|word| (load(SPINNING + 8 * word) | load(WORKING + 8 * word)).count_ones()).sum()
    }

    /// The seat with this number, which the node gives to one participant only. None from [`SEATS`] on.
    pub fn seat(self: &Arc<Self>, number: u16) -> Option<Seat> {
        (number < SEATS).then(|| Seat { board: self.clone(), number })
    }

    /// Clears the seat of a participant that has died. None of its business from [`SEATS`] on.
    pub fn clear(&self, number: u16) {
        if number < SEATS {
            self.set(SPINNING, number, false);
            self.set(WORKING, number, false);
        }
    }

    fn set(&self, what: usize, number: u16, is_so: bool) {
        let word = self.shared.word(what + usize::from(number / 64) * 8);
        let bit = 1 << (number % 64);
        if is_so {
            word.fetch_or(bit, Relaxed);
        } else {
            word.fetch_and(!bit, Relaxed);
        }
    }
}

impl AsFd for SpinBoard {
    /// The file, to be handed to the participants.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// One participant's place on a [`SpinBoard`].
#[derive(Debug, Clone)]
pub struct Seat {
    board: Arc<SpinBoard>,
    number: u16,
}

impl Seat {
    /// Marks this participant as spinning until the guard is dropped, unless all cores are wanted already.
    fn enter(&self) -> Option<Spinning<'_>> {
        self.board.set(SPINNING, self.number, true);
        let spinning = Spinning(self);
        (self.board.wanting() <= self.board.limit).then_some(spinning)
    }
}

struct Spinning<'a>(&'a Seat);

impl Drop for Spinning<'_> {
    fn drop(&mut self) {
        self.0.board.set(SPINNING, self.0.number, false);
    }
}

/// Nobody spins for longer at a time.
const SPIN_MAX: Duration = Duration::from_micros(50);
/// A longer wait says no more than this one.
const NOTE_MAX: Duration = Duration::from_micros(400);
/// Looks between two looks at the clock. The first so many are over before anybody else can use the core.
const LOOKS: u32 = 16;
/// After spinning in vain again and again, so many waits pass before it is tried once more.
const PENALTY_MAX: u32 = 1024;
/// After so many waits that were too long to spin, it is tried once all the same: to be woken takes so long that waits
/// never look short to one who sleeps.
const PROBE_AFTER: u32 = 16;

/// Decides whether to spin before sleeping, by what recent waits have cost.
///
/// It spins only while waits are short on average (however they were spent; now and then it is tried whether they have
/// become so), while spinning is not mostly in vain (as when both sides share a core), and while the board has room.
#[derive(Debug)]
pub struct Spinner {
    seat: Option<Seat>,
    /// Whether it is said on the board when this participant wants a core.
    works: bool,
    /// Moving average of what a wait takes.
    usual: Duration,
    /// What was spun in vain since the last note.
    in_vain: Duration,
    /// Waits in a row that were passed asleep since they are long on average.
    slept: u32,
    /// Waits to let pass without spinning.
    pause: u32,
    /// What the next spin in vain sets `pause` to.
    penalty: u32,
}

impl Spinner {
    /// One that spins when it pays and the board allows.
    pub fn new(seat: Seat) -> Self {
        Self { seat: Some(seat).filter(|seat| seat.board.limit > 0), ..Self::asleep() }
    }

    /// The same, for a process that computes while it does not wait: the others see on the board that it wants a core
    /// until it [dozes](Self::dozes).
    pub fn working(seat: Seat) -> Self {
        let spinner = Self { works: true, ..Self::new(seat) };
        spinner.say(true);
        spinner
    }

    /// One that never spins: for a process that was given no seat.
    pub fn asleep() -> Self {
        Self {
            seat: None,
            works: false,
            usual: Duration::ZERO,
            in_vain: Duration::ZERO,
            slept: 0,
            pause: 0,
            penalty: 1,
        }
    }

    /// Spins until `is_ready`, if spinning is worth it now, for at most 50 microseconds. False when it did not
    /// spin or spun in vain: go to sleep, then [`note`](Self::note) how long that took.
    pub fn spin(&mut self, mut is_ready: impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
        let Some(seat) = &self.seat else { return Ok(false) };
        if self.pause > 0 {
            self.pause -= 1;
            return Ok(false);
        }
        let is_probe = self.usual > SPIN_MAX;
        if is_probe && self.slept < PROBE_AFTER {
            self.slept += 1;
            return Ok(false);
        }
        self.slept = 0;
        // Clock and board cost as much as a short wait, so the first looks do without them.
        if look(&mut is_ready)? {
            self.found(Duration::ZERO, is_probe);
            return Ok(true);
        }
        let Some(spinning) = seat.enter() else { return Ok(false) };
        let began = Instant::now();
        let mut took = Duration::ZERO;
        while took < SPIN_MAX {
            let is_there = look(&mut is_ready)?;
            took = began.elapsed();
            if is_there {
                drop(spinning);
                self.found(took, is_probe);
                return Ok(true);
            }
        }
        drop(spinning);
        self.in_vain = took;
        self.pause = self.penalty;
        self.penalty = (self.penalty * 2).min(PENALTY_MAX);
        Ok(false)
    }

    /// Spinning has paid.
    fn found(&mut self, took: Duration, is_probe: bool) {
        self.penalty = (self.penalty / 2).max(1);
        if is_probe {
            self.usual = took;
        }
        self.note(took);
    }

    /// Before sleeping: this participant wants no core until it [wakes](Self::wakes).
    pub fn dozes(&mut self) {
        self.say(false);
    }

    /// After sleeping: how long that took, which is [noted](Self::note).
    pub fn wakes(&mut self, took: Duration) {
        self.say(true);
        self.note(took);
    }

    /// Tells how long a wait has taken after spinning, if it did; [`wait`](crate::wait) does so itself.
    pub fn note(&mut self, took: Duration) {
        let took = took + std::mem::take(&mut self.in_vain);
        self.usual = (self.usual * 7 + took.min(NOTE_MAX)) / 8;
    }

    fn say(&self, works: bool) {
        if let Some(seat) = self.seat.as_ref().filter(|_| self.works) {
            seat.board.set(WORKING, seat.number, works);
        }
    }
}

/// Looks again and again, for a moment.
fn look(is_ready: &mut impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
    for _ in 0..LOOKS {
        if is_ready()? {
            return Ok(true);
        }
        std::hint::spin_loop();
    }
    Ok(false)
}
