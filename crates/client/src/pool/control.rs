//! What the node says, and what follows.

use super::core::{Core, Dead};
use super::lease::{LeaseEntry, Ring};
use super::options::LeaseState;
use mutirao_ring::{SpinBoard, Spinner};
use mutirao_schedule::hold::Input;
use mutirao_wire::frame::{Header, flags};
use mutirao_wire::kind::Kind;
use mutirao_wire::lease::LeaseEnd;
use mutirao_wire::local::{
    Allocated, ClientWelcome, EndGroup, GiveBack, LeaseChange, LeaseInfo, LeaseNews, LocalMessage, Rows,
};
use mutirao_wire::pipe::PipeMessage;
use mutirao_wire::stream::{StreamMessage, read_ids};
use mutirao_wire::{Handle, Tick};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// Rows one question may bring; more are dropped.
const ROWS_MAX: usize = 100_000;
/// Descriptors beside `Ready` for a local lease.
const RING_FDS: usize = 3;

impl Core {
    /// One frame from the node; `Err` says what is wrong with it.
    pub(super) fn frame(&mut self, now: Tick, header: &Header, body: Vec<u8>) -> Result<(), String> {
        let kind = header.kind.get();
        let handle = Handle(header.handle.get());
        if kind == Kind::Result as u16 {
            // For a lease that was given back: nobody waits for it.
            let Some(lease) = self.leases.get_mut(&handle) else { return Ok(()) };
            if !lease.receipts.owes() {
                self.owing.push(handle);
            }
            lease.receipts.received(body.len());
            match lease.partial.take(header, &body) {
                Ok(None) => {}
                Ok(Some(whole)) => {
                    match &mut self.unsure {
                        Some(unsure) if self.hold.wants(whole.call) => {
                            unsure.insert(whole.call, handle);
                        }
                        _ => lease.receipts.delivered(whole.call),
                    }
                    lease.finished += 1;
                    lease.used = now;
                    self.elastic.works();
                    let node = lease.node.clone();
                    self.result(now, handle, whole, node);
                }
                // One lender's mistake is no reason to do without the others.
                Err(why) => {
                    self.say(GiveBack { handles: vec![handle] });
                    self.lease_ended(now, handle, true, format!("its lender's results make no sense: {why}"));
                }
            }
            return Ok(());
        }
        if kind == Kind::Credit as u16 {
            if self.leases.get(&handle).is_some_and(|lease| lease.works) {
                self.tell(now, Input::Credit { handle, bytes: header.extent.get() });
            }
            return Ok(());
        }
        if kind == Kind::CallsWithdrawn as u16 {
            if self.leases.get(&handle).is_some_and(|lease| lease.works) {
                let calls = read_ids(header, &body).ok_or("the list of calls withdrawn does not add up")?;
                self.unplaced += calls.len();
                self.tell(now, Input::Withdrawn { handle, calls });
            }
            return Ok(());
        }
        if StreamMessage::has_kind(kind) {
            return self.stream(now, header, &body);
        }
        if PipeMessage::has_kind(kind) {
            self.pipe_frame(header, &body)?;
            self.control_changed();
            return Ok(());
        }
        if !LocalMessage::has_kind(kind) && header.has(flags::OPTIONAL) {
            return Ok(());
        }
        match LocalMessage::read(header, &body).map_err(|error| error.to_string())? {
            LocalMessage::ClientWelcome(welcome) => self.welcomed(welcome)?,
            LocalMessage::ClientRefused(refused) => self.die(Dead::Refused(refused.text)),
            LocalMessage::PluginOffered(offered) => self.link.plugin = Some(offered.plugin),
            LocalMessage::Allocated(allocated) => self.allocated(now, allocated),
            LocalMessage::LeaseNews(news) => return self.news(now, news),
            LocalMessage::Rows(rows) => self.rows(rows),
            LocalMessage::Resize(order) => self.ordered(now, order),
            LocalMessage::EndGroup(EndGroup { by }) => self.group_end(by),
            LocalMessage::LaneOpened(_) => self.lane_opened()?,
            LocalMessage::BlobOffered(offered) => self.blob_offered(offered),
            LocalMessage::BlobFetched(fetched) => self.blob_fetched(fetched)?,
            other => return Err(format!("a {:?} came from the node", other.kind())),
        }
        self.control_changed();
        Ok(())
    }

    fn stream(&mut self, now: Tick, header: &Header, body: &[u8]) -> Result<(), String> {
        match StreamMessage::read(header, body).map_err(|error| error.to_string())? {
            StreamMessage::Resumed(resumed) if self.leases.contains_key(&resumed.handle) => {
                self.tell(now, Input::Resumed { handle: resumed.handle, unknown: resumed.unknown });
            }
            StreamMessage::WorkerEnded(ended) if self.leases.contains_key(&ended.handle) => {
                self.tell(now, Input::WorkerEnded { handle: ended.handle, not_started: ended.not_started });
            }
            // Of leases that were given back meanwhile.
            StreamMessage::Resumed(_) | StreamMessage::WorkerEnded(_) | StreamMessage::Unbound(_) => {}
            other => return Err(format!("a {:?} came from the node", other.kind())),
        }
        Ok(())
    }

    fn welcomed(&mut self, welcome: ClientWelcome) -> Result<(), String> {
        // Without a board, or without a place on it, this program never spins.
        let board = self.link.socket.take_fds(1).and_then(|mut fds| fds.pop());
        let board = board.map(SpinBoard::map).transpose().map_err(|error| error.to_string())?;
        let number = u16::try_from(welcome.spinner).ok();
        let seat = board.zip(number).and_then(|(board, number)| Arc::new(board).seat(number));
        self.spinner = seat.map_or_else(Spinner::asleep, Spinner::new);
        self.link.welcome = Some(welcome);
        Ok(())
    }

    fn lane_opened(&mut self) -> Result<(), String> {
        let fds = self.link.socket.take_fds(2).and_then(|fds| <[OwnedFd; 2]>::try_from(fds).ok());
        let [memory, bell] = fds.ok_or("a lane came without its descriptors")?;
        self.link.socket.open_lane(memory, bell).map_err(|error| error.to_string())
    }

    fn allocated(&mut self, now: Tick, allocated: Allocated) {
        let Some(request) = self.requests.get_mut(&allocated.sequence) else {
            // Nobody waits any more; but rings may be on their way.
            self.parted.extend(allocated.leases.iter().filter(|lease| lease.local).map(|lease| lease.handle));
            let handles = allocated.leases.iter().map(|lease| lease.handle).collect();
            return self.say(GiveBack { handles });
        };
        let works = matches!(&request.message, LocalMessage::Allocate(allocate) if allocate.workers);
        request.answer.leases.extend(allocated.leases.iter().map(|lease| lease.handle));
        request.answer.notes.extend(allocated.notes);
        request.answer.free_hint = allocated.free_hint;
        request.answer.found = allocated.found;
        request.answer.waited = allocated.waited;
        request.done = !allocated.more;
        for info in allocated.leases {
            self.add_lease(now, info, works);
        }
        if !allocated.more {
            self.request_answered(now, allocated.sequence);
        }
    }

    fn add_lease(&mut self, now: Tick, info: LeaseInfo, works: bool) {
        let (handle, local) = (info.handle, info.local);
        self.leases.insert(handle, LeaseEntry::new(now, info, works));
        self.leases_changed();
        if works {
            self.tell(now, Input::LeaseAdded { handle, local });
        }
    }

    fn rows(&mut self, rows: Rows) {
        let Some(question) = self.questions.get_mut(&rows.number) else { return };
        let room = ROWS_MAX.saturating_sub(question.answer.rows.len());
        question.answer.rows.extend(rows.rows.into_iter().take(room));
        question.answer.missing = question.answer.missing.max(rows.missing);
        question.done = !rows.more;
    }

    fn news(&mut self, now: Tick, LeaseNews { handle, change }: LeaseNews) -> Result<(), String> {
        if change == LeaseChange::Approved {
            self.elastic.ask_again(now);
            return Ok(());
        }
        let Some(lease) = self.leases.get_mut(&handle) else {
            // Given back meanwhile; but what came beside the message must not be taken for another's.
            match change {
                LeaseChange::Ready if self.parted.contains(&handle) => {
                    drop(self.link.socket.take_fds(RING_FDS));
                }
                LeaseChange::Ended(_) => drop(self.parted.remove(&handle)),
                _ => {}
            }
            return Ok(());
        };
        match change {
            LeaseChange::Fetching => lease.state = LeaseState::Fetching,
            LeaseChange::Ready => {
                lease.used = now;
                let local = lease.info.local;
                lease.state = LeaseState::Ready;
                lease.began = true;
                self.elastic.lease_works(&lease.info.lender.name);
                if local {
                    self.new_ring(now, handle)?;
                } else {
                    self.tell(now, Input::LeaseReady { handle, room: 0 });
                }
            }
            LeaseChange::Broken => self.lease_broken(now, handle),
            LeaseChange::Restored => {
                lease.state = if lease.began { LeaseState::Ready } else { LeaseState::Granted };
                if lease.works {
                    self.tell(now, Input::LeaseRestored(handle));
                }
            }
            LeaseChange::WorkerEnded { code, cause } => self.local_worker_ended(now, handle, code, cause),
            LeaseChange::Ended(end) => {
                // A lender that says why is alive: whatever ran there has not taken it along.
                let lost = matches!(end, LeaseEnd::LenderLost | LeaseEnd::Unknown);
                let text = end_text(&end);
                self.elastic.lease_failed(now, &lease.info.lender.name, &end, &text);
                self.lease_ended(now, handle, lost, text);
            }
            LeaseChange::Reclaiming { .. } => self.wanted_back(now, handle),
            LeaseChange::Approved => {}
        }
        self.leases_changed();
        self.control_changed();
        Ok(())
    }

    fn new_ring(&mut self, now: Tick, handle: Handle) -> Result<(), String> {
        let fds = self.link.socket.take_fds(RING_FDS).and_then(|fds| <[_; RING_FDS]>::try_from(fds).ok());
        let Some([memory, call_bell, reply_bell]) = fds else {
            return Err("a local worker is ready, but its ring did not come along".into());
        };
        let mut ring =
            Ring::new(memory, call_bell, reply_bell, &self.bells()).map_err(|error| error.to_string())?;
        if !self.bells.iter().any(|bell| Arc::ptr_eq(bell, &ring.bell)) {
            self.bells.push(ring.bell.clone());
        }
        let room = ring.end.calls.room().map_err(|error| error.to_string())? as u64;
        if let Some(lease) = self.leases.get_mut(&handle) {
            lease.ring = Some(ring);
        }
        self.tell(now, Input::LeaseReady { handle, room });
        Ok(())
    }
}

/// Why a lease ended, for people.
fn end_text(end: &LeaseEnd) -> String {
    match end {
        LeaseEnd::Released => "its lease was given back".into(),
        LeaseEnd::Lapsed => "its lease lapsed: the lender could not reach this node".into(),
        LeaseEnd::Unconfirmed => "its lease was not confirmed in time".into(),
        LeaseEnd::LimitReached => "its lease reached its longest life".into(),
        LeaseEnd::Reclaimed => "the owner of the machine took the slot back".into(),
        LeaseEnd::Leaving => "the lender is going down".into(),
        LeaseEnd::Killed(why) => format!("its lease was ended: {why}"),
        LeaseEnd::LenderLost => "the lender was lost".into(),
        LeaseEnd::CannotRun(why) => format!("the program cannot run there: {why}"),
        LeaseEnd::Unknown => "the lender knows nothing of the lease".into(),
        LeaseEnd::TakenOver => "another home of the application has taken its lease over".into(),
    }
}
