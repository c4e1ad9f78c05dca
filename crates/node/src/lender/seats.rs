//! Who sits where on the spin board.

use mutirao_ring::{Error, SEATS, SpinBoard};
use std::os::fd::{AsFd, OwnedFd};

/// The machine's spin board as this node made it, and its free seats.
#[derive(Debug)]
pub struct Seats {
    board: SpinBoard,
    free: Vec<u16>,
}

impl Seats {
    /// A board for the processors this process may use; without `spin` nobody ever spins.
    pub fn new(spin: bool) -> Result<Seats, Error> {
        let cores =
            if spin { std::thread::available_parallelism().map_or(1, |cores| cores.get()) } else { 1 };
        Ok(Seats { board: SpinBoard::create(cores)?, free: (0..SEATS).rev().collect() })
    }

    /// A seat; [`SEATS`], which is none, when all are taken: whoever has it sleeps instead of spinning.
    pub fn take(&mut self) -> u16 {
        self.free.pop().unwrap_or(SEATS)
    }

    /// Whoever had the seat is gone.
    pub fn give_back(&mut self, seat: u16) {
        if seat < SEATS && !self.free.contains(&seat) {
            self.board.clear(seat);
            self.free.push(seat);
        }
    }

    /// A descriptor of the board, to be handed over.
    pub fn board(&self) -> std::io::Result<OwnedFd> {
        self.board.as_fd().try_clone_to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_seat_is_given_twice_and_more_than_there_are_can_ask() {
        let mut seats = Seats::new(true).unwrap();
        let mut taken: Vec<u16> = (0..SEATS).map(|_| seats.take()).collect();
        assert_eq!(seats.take(), SEATS);
        seats.give_back(SEATS);
        seats.give_back(7);
        seats.give_back(7);
        assert_eq!((seats.take(), seats.take()), (7, SEATS));
        taken.sort();
        taken.dedup();
        assert_eq!(taken.len(), usize::from(SEATS));
    }
}
