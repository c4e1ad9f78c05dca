//! A pool that C holds by a pointer.

use crate::board::{Board, Call};
use crate::error::{Code, Error};
use mutirao::raw::{self, CallOptions, Deliver, Error as LibraryError};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long to wait for room among the unfinished calls before asking again.
const ROOM: Duration = Duration::from_millis(20);

/// `mutirao_pool`.
#[derive(Debug)]
pub struct Pool {
    pub library: raw::Pool,
    pub board: Arc<Board>,
    /// Runs `done` functions; started for the first.
    teller: Mutex<Option<Teller>>,
}

#[derive(Debug)]
struct Teller {
    finished: Sender<Arc<Call>>,
    thread: JoinHandle<()>,
}

impl Pool {
    pub fn open(options: raw::Options) -> Result<Pool, Error> {
        let board = Board::new()?;
        Ok(Pool { library: raw::Pool::open(options)?, board, teller: Mutex::default() })
    }

    /// Ends everything. Calls that were not finished are from here on, and `done` has been run for them.
    pub fn close(self) {
        self.library.close();
        self.board.close();
        let teller = self.teller.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(Teller { finished, thread }) = teller {
            // It ends when the last call that had a `done` has been handed to it.
            drop(finished);
            if thread.thread().id() != std::thread::current().id() {
                // If it panicked, that was told when it did.
                let _ = thread.join();
            }
        }
    }

    /// Starts a call; `done` is run on a thread of the pool's own.
    pub fn start(
        &self,
        call: &Arc<Call>,
        operation: u32,
        argument: &[u8],
        limit: Option<Duration>,
        done: Option<fn(Arc<Call>)>,
    ) -> Result<(), Error> {
        let teller = done.map(|done| self.teller(done)).transpose()?;
        loop {
            let (finished, teller) = (call.clone(), teller.clone());
            let deliver = Deliver::Callback(Box::new(move |end| {
                if finished.finish(end)
                    && let Some(teller) = teller
                {
                    // The thread ends only after this sender is gone.
                    let _ = teller.send(finished);
                }
            }));
            let options = CallOptions { limit, deliver, ..CallOptions::default() };
            match self.library.submit(operation, argument.to_vec(), options) {
                Ok(submitted) => {
                    call.submitted(submitted);
                    return Ok(());
                }
                Err(LibraryError::TooManyCalls(_)) => self.board.wait_a_while(ROOM),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn teller(&self, done: fn(Arc<Call>)) -> Result<Sender<Arc<Call>>, Error> {
        let mut teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(teller) = &*teller {
            return Ok(teller.finished.clone());
        }
        let (sender, receiver) = channel::<Arc<Call>>();
        let run = move || receiver.into_iter().filter(|call| !call.is_deleted()).for_each(done);
        let thread = std::thread::Builder::new().name("mutirao-done".into()).spawn(run).map_err(|error| {
            Error::new(Code::System, &format!("could not start the thread that runs `done`: {error}"))
        })?;
        *teller = Some(Teller { finished: sender.clone(), thread });
        Ok(sender)
    }
}
