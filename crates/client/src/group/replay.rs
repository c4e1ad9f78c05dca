//! Gives a process what it received when its record was made, without any other process.
//!
//! Each channel goes on by itself: the entries of a call on a channel are met in their order, whatever other channels
//! have done meanwhile. What the process sends goes nowhere; where it is not what was sent then, that is told.

use super::Error;
use super::error::{other_word, word};
use super::reader::{RecordReader, entry_at};
use super::recorder::message;
use mutirao_group::plan::ProcessPlan;
use mutirao_group::record::{Call, Entry, Failure, Message, Outcome, Preamble};
use rustix::event::{EventfdFlags, eventfd};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Differences that are told; more are only counted.
const DIFFERENCES_TOLD: u64 = 16;

/// A process that runs alone.
#[derive(Debug)]
pub(super) struct Replay {
    process: String,
    group: String,
    file: File,
    script: Mutex<Script>,
    events: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct Script {
    calls: HashMap<Call, Entries>,
    differences: u64,
}

/// The entries of one call.
#[derive(Debug, Default)]
struct Entries {
    /// Where in the file they begin.
    offsets: Vec<u64>,
    /// The next of them.
    next: usize,
    /// How often the one before is to be met again.
    again: u64,
    /// Messages that were sent so far.
    sent: u64,
}

impl Replay {
    /// Reads a record: what the process was told, and where each entry is.
    pub(super) fn open(path: &Path) -> Result<(Replay, ProcessPlan), Error> {
        let (mut reader, Preamble { plan, .. }) = RecordReader::open(path)?;
        let mut script = Script::default();
        while let Some((at, entry)) = reader.next_entry()? {
            script.calls.entry(entry.call).or_default().offsets.push(at);
        }
        let file = reader.into_file();
        // It stays readable: whoever is told to wait looks again at once.
        let events = eventfd(1, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(Error::system("make a descriptor for events"))?;
        let process = plan.process();
        let (script, events) = (Mutex::new(script), Arc::new(events));
        Ok((Replay { process, group: plan.name.clone(), file, script, events }, plan))
    }

    /// Always readable.
    pub(super) fn event_fd(&self) -> Arc<OwnedFd> {
        self.events.clone()
    }

    /// What came of a call then, which is of this channel. For what it sends, `sends` is compared.
    pub(super) fn outcome(&self, call: Call, channel: &str, sends: Option<&[u8]>) -> Result<Outcome, Error> {
        let (entry, _) = self.next(call, channel)?;
        if let Some(bytes) = sends.filter(|_| !matches!(entry.outcome, Outcome::Nothing(_))) {
            self.compare(call, channel, entry.message, message(bytes));
        }
        match entry.outcome {
            Outcome::Failed(failure) => Err(self.error(failure, channel, 0)),
            outcome => Ok(outcome),
        }
    }

    /// What was received then, for `room` bytes if that is not `None`; `None` if there was nothing in time.
    pub(super) fn receive(
        &self,
        call: Call,
        channel: &str,
        room: Option<u64>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let (entry, at) = self.next(call, channel)?;
        match entry.outcome {
            Outcome::Failed(failure) => Err(self.error(failure, channel, room.unwrap_or_default())),
            Outcome::Nothing(_) => Ok(None),
            _ => {
                let length = entry.message.map_or(0, |message| message.length);
                if entry.body_bytes < length {
                    let reason = "it has no messages: it was made for a timeline".to_owned();
                    return Err(Error::Record { record: self.process.clone(), reason });
                }
                if let Some(room) = room.filter(|room| *room < length) {
                    return Err(Error::TooLong { channel: channel.to_owned(), length, room });
                }
                let mut body = vec![0; length as usize];
                self.file.read_exact_at(&mut body, at).map_err(|source| self.unreadable(&source))?;
                Ok(Some(body))
            }
        }
    }

    /// The next entry of a call, and where the bytes after it are.
    fn next(&self, call: Call, channel: &str) -> Result<(Entry, u64), Error> {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = script.calls.entry(call).or_default();
        let place = if entries.again > 0 { entries.next - 1 } else { entries.next };
        let over = || Error::Unrecorded { process: self.process.clone(), channel: channel.to_owned() };
        let at = *entries.offsets.get(place).ok_or_else(over)?;
        let (entry, body_at) = entry_at(&self.file, at).map_err(|source| self.unreadable(&source))?;
        entries.again = match (entries.again, &entry.outcome) {
            (0, Outcome::Nothing(times)) => {
                entries.next += 1;
                times.saturating_sub(1)
            }
            (0, _) => {
                entries.next += 1;
                0
            }
            (left, _) => left - 1,
        };
        Ok((entry, body_at))
    }

    fn compare(&self, call: Call, channel: &str, then: Option<Message>, now: Message) {
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let entries = script.calls.entry(call).or_default();
        entries.sent += 1;
        let number = entries.sent;
        if then == Some(now) {
            return;
        }
        script.differences += 1;
        if script.differences > DIFFERENCES_TOLD {
            return;
        }
        let length = now.length;
        let what = match then.map(|then| then.length) {
            Some(then) if then == length => format!("its {length} bytes are not those of the record"),
            Some(then) => format!("it has {length} bytes, in the record {then}"),
            None => "the record has none".into(),
        };
        self.tell(&format!("message {number} over {channel} is another one: {what}"));
    }

    /// The process leaves its group.
    pub(super) fn close(&self) {
        let script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        match script.differences {
            0 => self.tell("all that it sent is as it was recorded"),
            count => self.tell(&format!("messages that are not as they were recorded: {count}")),
        }
    }

    fn tell(&self, text: &str) {
        // Whoever replays it looks there; a library has no other place.
        let _ = writeln!(io::stderr(), "mutirao: replay of {}: {text}", self.process);
    }

    fn unreadable(&self, source: &io::Error) -> Error {
        Error::Record { record: self.process.clone(), reason: source.to_string() }
    }

    fn error(&self, failure: Failure, channel: &str, room: u64) -> Error {
        let channel = channel.to_owned();
        match failure {
            Failure::Ended => Error::Ended { channel },
            Failure::PeerLost { peer, text } => Error::PeerLost { channel, peer, text },
            Failure::Damaged { peer, text } => Error::Damaged { channel, peer, text },
            Failure::TooLong(length) => Error::TooLong { channel, length, room },
            Failure::Mixed { here, peer } => {
                Error::Mixed { channel, here: word(here), there: other_word(here), peer }
            }
            Failure::MixedHere(here) => Error::MixedHere { channel, here: word(here) },
            Failure::GroupLost => Error::GroupLost { group: self.group.clone() },
            Failure::Other(text) => Error::Recorded { text },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::recorder::{Began, Recorder};
    use mutirao_group::plan::GroupId;
    use mutirao_group::record::{Depth, Origin};
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    fn plan() -> ProcessPlan {
        ProcessPlan {
            group: GroupId(7),
            name: "mandel".into(),
            program: "gmandel".into(),
            instance: 1,
            rank: 2,
            size: 3,
            inputs: Vec::new(),
            outputs: Vec::new(),
            collectives: Vec::new(),
            stored_bytes_max: 1 << 20,
            spill: false,
            record: Some(Depth::Messages),
        }
    }

    /// The record that `run` makes, as a file.
    fn recorded(depth: Depth, run: impl FnOnce(&Recorder)) -> tempfile::NamedTempFile {
        let (mut mine, its) = UnixStream::pair().unwrap();
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            mine.read_to_end(&mut bytes).unwrap();
            bytes
        });
        run(&Recorder::new(its.into(), depth));
        let origin = Origin {
            life: 1,
            node: "n1".into(),
            executable: "gmandel".into(),
            hash: String::new(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            files: Vec::new(),
        };
        let mut bytes = Vec::new();
        Preamble::new(plan(), origin).put(&mut bytes);
        bytes.extend(reader.join().unwrap());
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn note(recorder: &Recorder, call: Call, outcome: Outcome, received: Option<&[u8]>) {
        recorder.note(Began::now(), call, outcome, None, received);
    }

    #[test]
    fn each_call_meets_what_came_of_it_in_its_turn() {
        let (one, other) = (Call::Receive(0), Call::Receive(1));
        let large = vec![7; 300_000];
        let file = recorded(Depth::Messages, |recorder| {
            for _ in 0..1000 {
                note(recorder, one, Outcome::Nothing(1), None);
                note(recorder, other, Outcome::Received(0), Some(b"between"));
            }
            note(recorder, one, Outcome::Received(1), Some(&large));
            note(recorder, one, Outcome::Nothing(1), None);
            note(recorder, one, Outcome::Failed(Failure::Ended), None);
            recorder.note(Began::now(), Call::Post(0), Outcome::Done, Some(message(b"sent")), None);
        });
        let (replay, plan) = Replay::open(file.path()).unwrap();
        assert_eq!(plan, self::plan());
        for _ in 0..1000 {
            assert_eq!(replay.receive(one, "one", None).unwrap(), None);
        }
        assert_eq!(replay.receive(one, "one", None).unwrap(), Some(large));
        assert_eq!(replay.receive(one, "one", None).unwrap(), None);
        assert!(matches!(replay.receive(one, "one", None), Err(Error::Ended { .. })));
        assert!(matches!(replay.receive(one, "one", None), Err(Error::Unrecorded { .. })));
        for _ in 0..1000 {
            assert_eq!(replay.receive(other, "other", Some(7)).unwrap(), Some(b"between".into()));
        }
        assert!(matches!(replay.outcome(Call::Post(0), "post", Some(b"other")), Ok(Outcome::Done)));
        assert_eq!(replay.script.lock().unwrap().differences, 1);
    }

    #[test]
    fn a_record_ends_where_it_was_cut() {
        let file = recorded(Depth::Messages, |recorder| {
            (0..3).for_each(|_| note(recorder, Call::Receive(0), Outcome::Received(0), Some(b"message")));
        });
        let bytes = std::fs::read(file.path()).unwrap();
        let mut whole = 0;
        for cut in 0..bytes.len() {
            let mut part = tempfile::NamedTempFile::new().unwrap();
            part.write_all(&bytes[..cut]).unwrap();
            let Ok((replay, _)) = Replay::open(part.path()) else { continue };
            let there = (0..3).take_while(|_| replay.receive(Call::Receive(0), "one", None).is_ok()).count();
            assert!(there >= whole && there < 3, "{there} of {cut} bytes");
            whole = there;
        }
        assert_eq!(whole, 2);
    }
}
