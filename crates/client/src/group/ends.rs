//! What stands behind the channels of this process: their pipes, watched by a recorder if there is one; or the record of
//! a process that ran before.

use super::recorder::{Began, Recorder, failure, message};
use super::replay::Replay;
use super::shared::Shared;
use super::{Error, calls};
use mutirao_group::plan::Mode;
use mutirao_group::record::{Call, Collective, Message, Outcome};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

/// See above.
#[derive(Debug, Clone)]
pub(super) enum Ends {
    Live { shared: Arc<Shared>, recorder: Option<Arc<Recorder>> },
    Replayed(Arc<Replay>),
}

/// A message that is on its way to the record: none without a recorder.
type Noted = Option<(Began, Option<Message>)>;

impl Ends {
    /// Before a call that sends this, if it does.
    #[inline]
    fn began(&self, sent: Option<&[u8]>) -> Noted {
        match self {
            Ends::Live { recorder: Some(_), .. } => Some((Began::now(), sent.map(message))),
            _ => None,
        }
    }

    /// After it: what came of it.
    #[inline]
    fn note<'r, R>(
        &self,
        noted: Noted,
        call: Call,
        result: &'r Result<R, Error>,
        outcome: impl FnOnce(&'r R) -> (Outcome, Option<&'r [u8]>),
    ) {
        if let (Some((began, sent)), Ends::Live { recorder: Some(recorder), .. }) = (noted, self) {
            let (outcome, received) = match result {
                Ok(result) => outcome(result),
                Err(error) => (Outcome::Failed(failure(error)), None),
            };
            recorder.note(began, call, outcome, sent, received);
        }
    }

    /// See [`calls::send`].
    pub(super) fn send(
        &self,
        index: usize,
        name: &str,
        bytes: &[u8],
        timeout: Option<Duration>,
    ) -> Result<bool, Error> {
        let call = Call::Send(index as u32);
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(Some(bytes));
                let sent = calls::send(shared, index, bytes, timeout);
                self.note(noted, call, &sent, |in_time| {
                    (if *in_time { Outcome::Done } else { Outcome::Late }, None)
                });
                sent
            }
            Ends::Replayed(replay) => Ok(replay.outcome(call, name, Some(bytes))? == Outcome::Done),
        }
    }

    /// See [`calls::post`].
    pub(super) fn post(
        &self,
        index: usize,
        name: &str,
        bytes: &mut Vec<u8>,
        timeout: Option<Duration>,
    ) -> Result<bool, Error> {
        let call = Call::Post(index as u32);
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(Some(bytes));
                let posted = calls::post(shared, index, bytes, timeout);
                self.note(noted, call, &posted, |in_time| {
                    (if *in_time { Outcome::Done } else { Outcome::Nothing(1) }, None)
                });
                posted
            }
            Ends::Replayed(replay) => {
                let is_done = replay.outcome(call, name, Some(bytes))? == Outcome::Done;
                if is_done {
                    bytes.clear();
                }
                Ok(is_done)
            }
        }
    }

    /// See [`calls::buffer`].
    pub(super) fn buffer(&self, index: usize, length: usize) -> Vec<u8> {
        match self {
            Ends::Live { shared, .. } => calls::buffer(shared, index, length),
            Ends::Replayed(_) => Vec::with_capacity(length),
        }
    }

    /// See [`calls::stored`].
    pub(super) fn stored(&self, index: usize, name: &str) -> (usize, u64) {
        let call = Call::Stored(index as u32);
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(None);
                let (messages, bytes) = calls::stored(shared, index);
                let outcome = Outcome::Stored(messages as u64, bytes);
                self.note(noted, call, &Ok(()), |()| (outcome, None));
                (messages, bytes)
            }
            Ends::Replayed(replay) => match replay.outcome(call, name, None) {
                Ok(Outcome::Stored(messages, bytes)) => (messages as usize, bytes),
                _ => (0, 0),
            },
        }
    }

    /// See [`calls::receive`].
    pub(super) fn receive(
        &self,
        index: usize,
        name: &str,
        mode: Option<Mode>,
        timeout: Option<Duration>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let call = Call::Receive(index as u32);
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(None);
                let received = calls::receive(shared, index, mode, timeout);
                self.note(noted, call, &received, |received| match received {
                    Some((lane, bytes)) => (Outcome::Received(*lane as u32), Some(bytes)),
                    None => (Outcome::Nothing(1), None),
                });
                Ok(received?.map(|(_, bytes)| bytes))
            }
            Ends::Replayed(replay) => replay.receive(call, name, None),
        }
    }

    /// See [`calls::receive_into`].
    pub(super) fn receive_into(
        &self,
        index: usize,
        name: &str,
        mode: Option<Mode>,
        room: &mut [u8],
        timeout: Option<Duration>,
    ) -> Result<Option<usize>, Error> {
        let call = Call::Receive(index as u32);
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(None);
                let received = calls::receive_into(shared, index, mode, room, timeout);
                self.note(noted, call, &received, |received| match received {
                    Some((lane, length)) => (Outcome::Received(*lane as u32), Some(&room[..*length])),
                    None => (Outcome::Nothing(1), None),
                });
                Ok(received?.map(|(_, length)| length))
            }
            Ends::Replayed(replay) => {
                let received = replay.receive(call, name, Some(room.len() as u64))?;
                Ok(received.map(|bytes| {
                    room[..bytes.len()].copy_from_slice(&bytes);
                    bytes.len()
                }))
            }
        }
    }

    /// See [`calls::select`].
    pub(super) fn select(
        &self,
        indexes: &[usize],
        timeout: Option<Duration>,
    ) -> Result<Option<usize>, Error> {
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(None);
                let found = calls::select(shared, indexes, timeout);
                self.note(noted, Call::Select, &found, |found| match found {
                    Some(place) => (Outcome::Chosen(*place as u32), None),
                    None => (Outcome::Nothing(1), None),
                });
                found
            }
            Ends::Replayed(replay) => Ok(match replay.outcome(Call::Select, "select", None)? {
                Outcome::Chosen(place) => Some(place as usize),
                _ => None,
            }),
        }
    }

    /// See [`Shared::arm`].
    pub(super) fn arm(&self, indexes: &[usize]) -> Result<bool, Error> {
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(None);
                let armed = shared.arm(indexes);
                self.note(noted, Call::Arm, &armed, |is_ready| {
                    (if *is_ready { Outcome::Done } else { Outcome::Nothing(1) }, None)
                });
                armed
            }
            Ends::Replayed(replay) => Ok(replay.outcome(Call::Arm, "arm", None)? == Outcome::Done),
        }
    }

    /// See [`Shared::event_fd`].
    pub(super) fn event_fd(&self) -> Result<Arc<OwnedFd>, Error> {
        match self {
            Ends::Live { shared, .. } => shared.event_fd(),
            Ends::Replayed(replay) => Ok(replay.event_fd()),
        }
    }

    /// See [`calls::close`].
    pub(super) fn close(&self) -> Result<(), Error> {
        match self {
            Ends::Live { shared, .. } => {
                let noted = self.began(None);
                let closed = calls::close(shared);
                self.note(noted, Call::Close, &closed, |()| (Outcome::Done, None));
                closed
            }
            Ends::Replayed(replay) => {
                let closed = replay.outcome(Call::Close, "close", None).map(drop);
                replay.close();
                closed
            }
        }
    }

    /// Does a collective, which is told beside the messages it is made of.
    pub(super) fn collective<R>(
        &self,
        which: Collective,
        run: impl FnOnce() -> Result<R, Error>,
    ) -> Result<R, Error> {
        let noted = self.began(None);
        let result = run();
        self.note(noted, Call::Collective(which), &result, |_| (Outcome::Done, None));
        result
    }
}
