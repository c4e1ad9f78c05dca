//! A member of a bag's journal that three keep: follows, and leads when the others have made it the leader.

use super::control::{self, Asked, Back, Order, Watcher};
use super::inputs::InputFile;
use super::keeper::{self, Event, Kept};
use super::link::Link;
use super::outputs;
use super::place::Place;
use super::programs;
use super::session;
use super::shared::{Heard, Lying, Shared, is_full};
use super::sites::{self, Sites};
use super::work::output_paths;
use crate::output::remark;
use anyhow::{Context, Result, bail};
use mutirao_bag::{Bag, Record, TaskView};
use mutirao_wire::bag::Keep;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Once the bag is over, a member stays for so long for those that have not heard yet: one that leads, one that
/// follows, one that knows of no leader.
const LINGER: [Duration; 3] = [Duration::from_secs(10), Duration::from_millis(1500), Duration::from_secs(15)];
/// One that leads and cannot keep the bag gives the lead away so often.
const HAND_ON: Duration = Duration::from_secs(10);
/// A bag that a program wants to open is asked for so often.
const WANT_AGAIN: Duration = Duration::from_secs(3);
/// An order waits so long for a keeper.
const ORDER_PATIENCE: Duration = Duration::from_secs(20);
/// Orders that wait at one member.
const ORDERS_MAX: usize = 1024;

/// A member that does not keep the bag.
pub struct Follower {
    place: Place,
    bag: Bag,
    shared: Shared,
    watchers: Vec<Watcher>,
    /// Orders that nobody has taken yet, and those that another has.
    waiting: Vec<(Asked, Instant)>,
    passed: BTreeMap<u64, (Back, Instant)>,
    next_order: u64,
    drafted: bool,
    /// When it gave the lead away last, since it cannot keep the bag.
    handed: Option<Instant>,
    /// When it last asked the keeper for the bag, which a program wants to open here.
    wanted: Option<Instant>,
    over_since: Option<Instant>,
    /// The bag was over when this began, and nobody has asked for anything yet.
    rests: bool,
}

enum Next {
    Lead,
    Over,
    Stop,
}

/// Is a member until the bag is over, or another is to begin anew in its place.
pub fn keep(place: Place, keep: Keep, me: usize, node: &str) -> Result<Kept> {
    let (sender, events) = channel();
    let link = Link::open(keep.bag, node, &sender)?;
    let (shared, bag) = Shared::open(place.directory(), keep, me, link, &sender)?;
    control::listen(&place, &sender)?;
    keeper::signals(&sender)?;
    mutirao::raw::init(crate::operations())?;
    let mut follower = Follower::new(place, bag, shared);
    follower.settle_parts();
    follower.take_all()?;
    follower.rests = follower.bag.is_over() && !follower.shared.mends();
    follower.sites().mark();
    loop {
        match follower.run(&events)? {
            Next::Over => {
                follower.tidy();
                return Ok(Kept::Over(follower.bag.counts()));
            }
            Next::Stop => {
                follower.tidy();
                return Ok(Kept::Stopped);
            }
            Next::Lead => {
                for (asked, _) in std::mem::take(&mut follower.waiting) {
                    let _ = sender.send(Event::Order(asked));
                }
                follower.forget_passed();
                let Follower { place, bag, shared, watchers, .. } = follower;
                remark!("mutirao: `{node}` keeps bag {} now", place.id);
                let led = keeper::lead(place, bag, shared, watchers, node, &sender, &events)?;
                let Some((place, bag, shared)) = led.back else { return Ok(led.kept) };
                follower = Follower { drafted: true, ..Follower::new(place, bag, shared) };
            }
        }
    }
}

impl Follower {
    fn new(place: Place, bag: Bag, shared: Shared) -> Follower {
        Follower {
            place,
            bag,
            shared,
            watchers: Vec::new(),
            waiting: Vec::new(),
            passed: BTreeMap::new(),
            next_order: 0,
            drafted: false,
            handed: None,
            wanted: None,
            over_since: None,
            rests: false,
        }
    }

    fn run(&mut self, events: &Receiver<Event>) -> Result<Next> {
        loop {
            self.take_all()?;
            place_files(&mut self.shared, self.place.id, &self.bag)?;
            if let Some(next) = self.next()? {
                return Ok(next);
            }
            self.pass_orders_on();
            if !self.watchers.is_empty() {
                let is_settled = self.shared.is_placed_or_tried();
                let line = control::progress(&self.bag, &[], is_settled, self.shared.unplaced());
                self.watchers.retain_mut(|watcher| watcher.tell(&line));
            }
            let patience = self.shared.next_tick().saturating_duration_since(Instant::now());
            let first = match events.recv_timeout(patience) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => bail!("all who tell the member something are gone"),
            };
            for event in first.into_iter().chain(events.try_iter().take(keeper::BATCH)) {
                if let Some(next) = self.take(event)? {
                    return Ok(next);
                }
            }
            self.shared.tick(!self.rests)?;
        }
    }

    /// What is to be done as things stand, if not to go on.
    fn next(&mut self) -> Result<Option<Next>> {
        let leads = self.shared.begin_to_lead();
        if self.shared.senseless().is_some() {
            if leads && self.handed.is_none_or(|handed| handed.elapsed() > HAND_ON) {
                self.handed = Some(Instant::now());
                self.shared.hand_on();
            }
            return Ok(None);
        }
        if self.bag.is_over() && self.waiting.is_empty() && !self.shared.mends() {
            if self.shared.lacks_room() || self.shared.unplaced().is_some() || self.shared.is_copying() {
                return Ok(None);
            }
            let over = self.over_since.get_or_insert_with(Instant::now).elapsed();
            let long = match (leads, self.shared.leader()) {
                // All have it, and the next beat tells them that it counts.
                (true, _) if self.shared.all_have_all() => LINGER[1],
                (true, _) => LINGER[0],
                (false, Some(_)) => LINGER[1],
                (false, None) => LINGER[2],
            };
            return Ok((over >= long).then_some(Next::Over));
        }
        self.over_since = None;
        if !leads {
            self.shared.seek_first();
            return Ok(None);
        }
        if self.bag.is_complete() {
            return Ok(Some(Next::Lead));
        }
        if !self.shared.is_origin() {
            self.shared.hand_to_origin();
        } else if !std::mem::replace(&mut self.drafted, true) {
            self.propose_draft()?;
        }
        Ok(None)
    }

    /// Where tasks work in place, if this member is the one that looks after that.
    fn sites(&self) -> Sites {
        let mark = self.shared.mark().filter(|_| self.shared.is_origin());
        mark.map_or_else(Sites::none, |mark| Sites::marked(&self.bag, mark.clone(), 0))
    }

    /// Removes what working in place has left, once nobody does any more.
    fn tidy(&mut self) {
        let mut sites = self.sites();
        if sites.is_used() && self.bag.is_over() && self.shared.placing().is_empty() {
            outputs::sweep(self.place.id, &self.bag);
            sites.remove();
        }
    }

    /// Takes all that counts by now.
    fn take_all(&mut self) -> Result<()> {
        for (index, bytes) in self.shared.pump()? {
            if self.shared.senseless().is_some() {
                break;
            }
            let taken = Record::decode(&bytes, self.bag.records() + 1).and_then(|record| {
                let counts = record.counts();
                self.bag.replay(record).map(|()| counts)
            });
            let counts = match taken {
                Ok(counts) => counts,
                Err(error) => {
                    let why = format!("entry {index} of the journal makes no sense: {error}");
                    self.shared.is_senseless(&why);
                    break;
                }
            };
            self.bag.take_freed().into_iter().for_each(|span| self.shared.free(span));
            if let Some((task, attempt)) = counts
                && let Some(view) = self.bag.task(task)
            {
                let again = self.shared.is_to_settle(index);
                settle(&mut self.shared, self.place.id, &self.bag, &view, attempt, again);
                self.shared.settled(index)?;
            }
        }
        if self.shared.is_long() && self.bag.is_complete() {
            self.shared.compact(&mut self.bag)?;
        }
        Ok(())
    }

    /// Files of results that are in the parts of the journal may still be to be put in their places.
    fn settle_parts(&mut self) {
        if !self.shared.parts_are_to_settle() {
            return;
        }
        for view in self.bag.tasks() {
            if let Some((attempt, ..)) = view.result() {
                settle(&mut self.shared, self.place.id, &self.bag, &view, attempt, true);
            }
        }
    }

    /// Goes on with the bag as it was fetched, since the entries that made it so are no more.
    fn install(&mut self) -> Result<()> {
        let Some(bag) = self.shared.unpack()? else { return Ok(()) };
        if self.shared.is_origin() {
            let result = |view: &TaskView<'_>| view.result().map(|(attempt, ..)| attempt);
            for (number, view) in (0..).zip(bag.tasks()) {
                let known = self.bag.task(number).and_then(|view| result(&view));
                if let Some(attempt) = result(&view).filter(|attempt| known != Some(*attempt)) {
                    settle(&mut self.shared, self.place.id, &bag, &view, attempt, true);
                }
            }
        }
        self.bag = bag;
        self.take_all()
    }

    /// The bag as it was submitted becomes the beginning of the log, with the files that it needs.
    fn propose_draft(&mut self) -> Result<()> {
        let (draft, records) = self.place.draft()?;
        let mark = sites::mark(&self.place, &draft)?;
        let is_in_place = mark.is_some();
        if let Some(mark) = mark {
            self.shared.put_mark(mark, inputs(&draft, Wanted::Lying).iter().filter_map(lying).collect());
        }
        for path in inputs(&draft, if is_in_place { Wanted::Content } else { Wanted::All }) {
            if self.shared.has_input(&path) {
                continue;
            }
            // One that is not there yet may be there when it is needed.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let executable =
                std::fs::metadata(&path).is_ok_and(|facts| facts.permissions().mode() & 0o100 != 0);
            let content = self.shared.put_output(&bytes);
            self.shared.put_input(path, executable, content);
        }
        records.iter().skip(self.bag.records() as usize).for_each(|record| self.shared.append(record));
        self.shared.propose()
    }

    fn take(&mut self, event: Event) -> Result<Option<Next>> {
        match event {
            Event::Said { from, bytes } => match self.shared.hear(from, &bytes)? {
                Heard::Request => self.rests = false,
                Heard::Fetched => self.install()?,
                Heard::Answer { number, line } => {
                    if let Some((back, _)) = self.passed.remove(&number) {
                        back.say(&mut self.shared, &line);
                    }
                }
                Heard::Order { from, number, last: true, .. } if self.shared.senseless().is_some() => {
                    let line = control::answer_line(&Err(self.cannot_keep()));
                    self.shared.answer(from, number, line);
                }
                // It was meant for a keeper: whoever asked finds the present one.
                Heard::Nothing | Heard::Order { .. } => {}
            },
            Event::NodeLost(why) => bail!("its node went away: {why}"),
            Event::Order(Asked { order: Order::Watch, back: Back::Stream(stream) }) => {
                self.watchers.push(Watcher::new(stream));
            }
            Event::Order(asked) => {
                self.rests = false;
                if self.waiting.len() < ORDERS_MAX {
                    self.waiting.push((asked, Instant::now()));
                }
                self.shared.seek();
            }
            Event::Copied { attempt, result } => self.shared.placing().is_copied(attempt, result),
            Event::Stop => return Ok(Some(Next::Stop)),
            // Of a pool that this member does not use now.
            Event::Ended { .. }
            | Event::Inputs { .. }
            | Event::Fetched { .. }
            | Event::NoRoom(_)
            | Event::Leases
            | Event::Granted(_)
            | Event::Short { .. }
            | Event::Nowhere(_)
            | Event::PoolLost(_)
            | Event::Program(_)
            | Event::State { .. } => {}
        }
        Ok(None)
    }

    /// Nobody answers any more what another was to carry out, whose place this one takes.
    fn forget_passed(&mut self) {
        for (_, (back, _)) in std::mem::take(&mut self.passed) {
            back.say(&mut self.shared, &control::answer_line(&Err(control::keeper_changed())));
        }
    }

    fn cannot_keep(&self) -> anyhow::Error {
        anyhow::anyhow!("{}", self.shared.senseless().unwrap_or_default())
    }

    /// Asks whoever keeps the bag to give it to this member.
    fn want_bag(&mut self) {
        let is_due = self.wanted.is_none_or(|wanted| wanted.elapsed() > WANT_AGAIN);
        let Some(leader) = self.shared.leader().filter(|_| is_due && self.shared.is_origin()) else { return };
        self.wanted = Some(Instant::now());
        if let Ok(order) = serde_json::to_vec(&Order::GiveBack) {
            self.next_order += 1;
            self.shared.pass_on(leader, self.next_order, &order);
        }
    }

    /// Orders go to whoever keeps the bag.
    fn pass_orders_on(&mut self) {
        if self.shared.senseless().is_some() && self.shared.leader().is_none() {
            for (asked, _) in std::mem::take(&mut self.waiting) {
                let error = self.cannot_keep();
                match (&asked.order, &asked.back) {
                    (Order::Session, Back::Stream(stream)) => session::refuse(stream, &error),
                    _ => asked.back.say(&mut self.shared, &control::answer_line(&Err(error))),
                }
            }
        }
        if let Some(leader) = self.shared.leader() {
            for (asked, since) in std::mem::take(&mut self.waiting) {
                if let Order::Session = asked.order {
                    self.waiting.push((asked, since));
                    continue;
                }
                let Ok(order) = serde_json::to_vec(&asked.order) else { continue };
                self.next_order += 1;
                self.shared.pass_on(leader, self.next_order, &order);
                self.passed.insert(self.next_order, (asked.back, since));
            }
        }
        if self.waiting.iter().any(|(asked, _)| matches!(asked.order, Order::Session)) {
            self.want_bag();
        }
        let late = |since: &Instant| since.elapsed() > ORDER_PATIENCE;
        let none = || anyhow::anyhow!("no keeper has answered; look with `mutirao bag show` and try again");
        let elsewhere = self.shared.leader().map(|leader| self.shared.name_of(leader).to_owned());
        let not_here = || match &elsewhere {
            Some(keeper) => anyhow::anyhow!(
                "bag {0} is kept by `{keeper}` and has not come here, where programs can open it; try again, or see \
                 `mutirao bag results {0}`",
                self.place.id
            ),
            None => none(),
        };
        for (asked, _) in self.waiting.extract_if(.., |(_, since)| late(since)) {
            match (&asked.order, &asked.back) {
                (Order::Session, Back::Stream(stream)) => session::refuse(stream, &not_here()),
                _ => asked.back.say(&mut self.shared, &control::answer_line(&Err(none()))),
            }
        }
        for (_, (back, _)) in self.passed.extract_if(.., |_, (_, since)| late(since)) {
            back.say(&mut self.shared, &control::answer_line(&Err(none())));
        }
    }
}

/// A result counts: its files are those that others read from now on and, where the bag was submitted, are to be put in
/// their places, unless they were before.
pub fn settle(shared: &mut Shared, number: u32, bag: &Bag, task: &TaskView<'_>, attempt: u64, place: bool) {
    shared.results_are(attempt, &output_paths(number, bag.settings(), task, (attempt, 0)));
    if place && !task.template.outputs.is_empty() {
        shared.place_later(task.number, attempt);
    }
}

/// Puts files of results in their places, as far as that can be done now.
pub fn place_files(shared: &mut Shared, number: u32, bag: &Bag) -> Result<()> {
    if shared.placing().is_empty() || shared.waits_to_place() {
        return Ok(());
    }
    while let Some((task, attempt)) = shared.placing().next() {
        let view = bag.task(task).filter(|view| view.result().is_some_and(|(of, ..)| of == attempt));
        match view.map_or(Ok(true), |view| place_of(shared, number, bag, &view, attempt)) {
            Ok(true) => shared.placing().is_placed(),
            Ok(false) => return Ok(()),
            Err(error) => {
                let is_full = is_full(&error);
                shared.placing().fails(&error, is_full);
            }
        }
    }
    shared.note_settled()
}

/// False while the files are being copied.
fn place_of(shared: &mut Shared, number: u32, bag: &Bag, task: &TaskView<'_>, attempt: u64) -> Result<bool> {
    let paths = output_paths(number, bag.settings(), task, (attempt, 0));
    let mut moves = paths.iter().filter_map(|(_, path, _)| Some((shared.waits_as(path)?, path)));
    moves.try_for_each(|(waiting, path)| outputs::move_there(&waiting, path))?;
    let files =
        paths.into_iter().filter_map(|(_, path, waiting)| Some((shared.find_result(&path)?, waiting)));
    let files: Vec<_> = files.collect();
    if !shared.copy_results(attempt, files)? {
        return Ok(false);
    }
    outputs::settle(number, bag, task, attempt).map(|()| true)
}

/// Which files that tasks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    All,
    /// Those of tasks that work in place.
    Lying,
    /// Those of all others.
    Content,
}

/// Paths of files that the tasks of a bag need and no task of it makes.
pub fn inputs(bag: &Bag, wanted: Wanted) -> BTreeSet<String> {
    let (mut needed, mut made) = (BTreeSet::new(), BTreeSet::new());
    if wanted != Wanted::Lying {
        needed.extend(programs::files(bag.settings()).map(str::to_owned));
    }
    let path = |name: &str| Path::new(&bag.settings().directory).join(name).to_string_lossy().into_owned();
    for task in bag.tasks() {
        if wanted == Wanted::All || (wanted == Wanted::Lying) == task.template.in_place {
            needed.extend(task.template.inputs.iter().map(|file| path(&file.here.fill(&task.named))));
        }
        made.extend(task.template.outputs.iter().map(|file| path(&file.here.fill(&task.named))));
        if let (mutirao_bag::Work::Ipar { files, .. }, true) = (&task.template.work, wanted != Wanted::Lying)
        {
            needed.extend(files.iter().map(|file| path(file)));
        }
    }
    needed.difference(&made).cloned().collect()
}

/// A file as it lies there now. One that is not there yet may be when it is needed.
fn lying(path: &String) -> Option<Lying> {
    let InputFile { bytes, modified_s, .. } = InputFile::here(Path::new(path)).ok()?;
    Some(Lying { name: path.clone(), bytes, modified_s, waiting: String::new() })
}

/// What comes back from [`keeper::lead`].
pub struct Led {
    pub kept: Kept,
    /// For whoever goes on as a member.
    pub back: Option<(Place, Bag, Shared)>,
}

/// Hears a sender's orders as if they came from here.
pub fn order_of(bytes: &[u8]) -> Result<Order> {
    serde_json::from_slice(bytes).context("the order cannot be understood; is that node of another version?")
}
