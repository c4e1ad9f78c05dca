//! How a lender gets a plugin it lacks: manifest from the home, files from whoever the home names. A blob of an
//! application is one file, and has no manifest.
//!
//! A pure machine, one for each plugin or blob under way, whatever number of leases wait for it. It says
//! what to ask of whom; the caller stores what comes.

use core::time::Duration;
use mutirao_wire::plugin::Manifest;
use mutirao_wire::{BlobHash, NodeId, NodeRef, Tick};

/// An answer from the home to a question about the manifest comes within this time.
const ANSWER: Duration = Duration::from_secs(3);
/// A source has sent nothing for so long: it is given up.
const STALL: Duration = Duration::from_secs(3);
/// A connection to a source stands within this time.
const CONNECT: Duration = Duration::from_secs(5);
/// The turn for a source may be far: it is asked for again, lest the question was lost.
const TURN: Duration = Duration::from_secs(15);
/// The only source there is gets so much time to come back.
const PAUSE: Duration = Duration::from_secs(1);
/// Sources that may fail before it is given up.
const FAILURES_MAX: u32 = 12;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask this home for the manifest.
    AskManifest(NodeId),
    /// Ask this home for a source.
    AskSource {
        /// The home.
        home: NodeId,
        /// A source that failed.
        failed: Option<NodeId>,
    },
    /// Open a data connection to the source.
    Open(NodeRef),
    /// Ask the source for a file. Chunks of earlier transfers are not wanted any more.
    Get {
        /// Which.
        hash: BlobHash,
    },
    /// What was stored of the current file is to be thrown away.
    Drop,
    /// All files are stored: keep it, then tell each of these homes.
    Keep(Vec<NodeId>),
    /// It cannot be had; the text says why.
    Fail(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// A home was asked for the manifest.
    Manifest { home: NodeId },
    /// A home was asked for a source.
    Turn { home: NodeId },
    /// The only source there is has failed, and is tried again in a while.
    Pause,
    /// The connection to the source is being opened.
    Connecting { source: NodeId },
    /// Chunks of a file come, or are being stored.
    Receiving { source: NodeId, storing: bool },
    /// It is being put on its shelf, or is given up.
    Over,
}

/// One plugin or blob on its way.
#[derive(Debug)]
pub struct Fetch {
    /// What stands before the reason why it cannot be had.
    what: String,
    /// A home out of reach is waited for: the lease ends if it stays so.
    waits_for_home: bool,
    homes: Vec<NodeId>,
    /// The only one who has it, whom no home needs to name.
    keeper: Option<NodeRef>,
    stage: Stage,
    since: Tick,
    failures: u32,
    manifest: Option<Manifest>,
    /// Contents still to come, the current one last.
    missing: Vec<BlobHash>,
}

impl Fetch {
    fn begin(now: Tick, stage: Stage) -> Fetch {
        Fetch {
            what: String::new(),
            waits_for_home: false,
            homes: Vec::new(),
            keeper: None,
            stage,
            since: now,
            failures: 0,
            manifest: None,
            missing: Vec::new(),
        }
    }

    /// Starts: plugin `name`, which an application at `home` uses.
    pub fn new(now: Tick, name: &str, home: NodeId, steps: &mut Vec<Step>) -> Fetch {
        steps.push(Step::AskManifest(home));
        let what = format!("plugin `{name}`: ");
        Fetch { what, homes: vec![home], ..Fetch::begin(now, Stage::Manifest { home }) }
    }

    /// Starts: a blob that the application at `home` offers.
    pub fn of_blob(now: Tick, home: NodeId, hash: BlobHash, steps: &mut Vec<Step>) -> Fetch {
        steps.push(Step::AskSource { home, failed: None });
        let (homes, missing) = (vec![home], vec![hash]);
        Fetch { waits_for_home: true, homes, missing, ..Fetch::begin(now, Stage::Turn { home }) }
    }

    /// Starts: a blob that `keeper` keeps for an application here.
    pub fn of_kept(now: Tick, keeper: NodeRef, hash: BlobHash, steps: &mut Vec<Step>) -> Fetch {
        steps.push(Step::Open(keeper.clone()));
        let begun = Fetch::begin(now, Stage::Connecting { source: keeper.id });
        Fetch { keeper: Some(keeper), missing: vec![hash], ..begun }
    }

    /// The blob was here already, to which the home has given the right just now.
    pub fn here_already(&mut self, steps: &mut Vec<Step>) {
        if let Stage::Turn { .. } = self.stage {
            self.keep(steps);
        }
    }

    /// Whether `from` was asked for a source and has not named one.
    pub fn awaits_source(&self, from: NodeId) -> bool {
        self.stage == Stage::Turn { home: from }
    }

    /// Another application, at `home`, waits for it too.
    pub fn also_for(&mut self, home: NodeId) {
        if !self.homes.contains(&home) {
            self.homes.push(home);
        }
    }

    /// The manifest came, was found right and fitting; `missing` are the contents not yet here.
    pub fn accept(&mut self, now: Tick, manifest: Manifest, missing: Vec<BlobHash>, steps: &mut Vec<Step>) {
        let Stage::Manifest { home } = self.stage else { return };
        self.manifest = Some(manifest);
        self.missing = missing;
        self.missing.reverse();
        if self.missing.is_empty() {
            self.keep(steps);
        } else {
            self.ask_source(now, home, None, steps);
        }
    }

    /// Whether `from` was asked for the manifest and has not answered.
    pub fn awaits_manifest(&self, from: NodeId) -> bool {
        self.stage == Stage::Manifest { home: from }
    }

    /// `from` has no such manifest.
    pub fn no_manifest(&mut self, now: Tick, from: NodeId, steps: &mut Vec<Step>) {
        if self.awaits_manifest(from) {
            self.leave_home(now, from, "the home of the application does not have it any more", steps);
        }
    }

    /// The home named a source.
    pub fn source(&mut self, now: Tick, from: NodeId, node: NodeRef, steps: &mut Vec<Step>) {
        if self.stage == (Stage::Turn { home: from }) {
            self.enter(now, Stage::Connecting { source: node.id });
            steps.push(Step::Open(node));
        }
    }

    /// The data connection to `peer` stands.
    pub fn connected(&mut self, now: Tick, peer: NodeId, steps: &mut Vec<Step>) {
        if self.stage == (Stage::Connecting { source: peer }) {
            self.get(now, peer, steps);
        }
    }

    /// The source from which chunks are expected.
    pub fn receives_from(&self) -> Option<NodeId> {
        match self.stage {
            Stage::Receiving { source, storing: false } => Some(source),
            _ => None,
        }
    }

    /// Whether a data connection to `peer` is needed.
    pub fn uses(&self, peer: NodeId) -> bool {
        match self.stage {
            Stage::Connecting { source } | Stage::Receiving { source, .. } => source == peer,
            _ => false,
        }
    }

    /// A chunk of the current file came; `last`: all that was asked for has come, and is being stored.
    pub fn heard(&mut self, now: Tick, last: bool) {
        if let Stage::Receiving { storing, .. } = &mut self.stage {
            *storing = last;
            self.since = now;
        }
    }

    /// The next part of the current file, which this is, is asked for.
    pub fn goes_on(&mut self, now: Tick) -> Option<BlobHash> {
        let Stage::Receiving { storing, .. } = &mut self.stage else { return None };
        *storing = false;
        self.since = now;
        self.missing.last().copied()
    }

    /// The current file is stored and is what was wanted.
    pub fn stored(&mut self, now: Tick, steps: &mut Vec<Step>) {
        let Stage::Receiving { source, .. } = self.stage else { return };
        self.missing.pop();
        if self.missing.is_empty() {
            self.keep(steps);
        } else {
            self.get(now, source, steps);
        }
    }

    /// The source does not deliver: refused, broke off, sent something else.
    pub fn source_failed(&mut self, now: Tick, steps: &mut Vec<Step>) {
        let source = match self.stage {
            Stage::Connecting { source } | Stage::Receiving { source, .. } => source,
            _ => return,
        };
        steps.push(Step::Drop);
        self.failures += 1;
        if self.failures >= FAILURES_MAX {
            let why = match &self.keeper {
                Some(keeper) => format!("node `{}` does not deliver it", keeper.name),
                None => format!("{} sources named by its home did not deliver it", self.failures),
            };
            self.fail(why, steps);
        } else if self.keeper.is_some() {
            self.enter(now, Stage::Pause);
        } else if let Some(home) = self.homes.first().copied() {
            self.ask_source(now, home, Some(source), steps);
        }
    }

    /// The connection to `peer`, on which files came, is gone.
    pub fn disconnected(&mut self, now: Tick, peer: NodeId, steps: &mut Vec<Step>) {
        let concerns = match self.stage {
            Stage::Connecting { source } => source == peer,
            // What is whole and being stored needs the connection no more.
            Stage::Receiving { source, storing } => source == peer && !storing,
            _ => false,
        };
        if concerns {
            self.source_failed(now, steps);
        }
    }

    /// The control link to `peer` is lost.
    pub fn home_lost(&mut self, now: Tick, peer: NodeId, steps: &mut Vec<Step>) {
        match self.stage {
            Stage::Turn { home } if home == peer && self.waits_for_home && self.homes.len() == 1 => {
                self.since = now;
            }
            Stage::Manifest { home } | Stage::Turn { home } if home == peer => {
                self.leave_home(now, peer, "the home of the application is out of reach", steps);
            }
            // The files come from elsewhere and are of use to the others.
            _ if self.homes.len() > 1 => self.homes.retain(|home| *home != peer),
            _ => {}
        }
    }

    /// The control link to `peer` stands again.
    pub fn home_back(&mut self, now: Tick, peer: NodeId, steps: &mut Vec<Step>) {
        if self.waits_for_home && self.awaits_source(peer) {
            self.ask_source(now, peer, None, steps);
        }
    }

    /// The application of a blob goes on at another home, which alone knows sources from now on.
    pub fn moved(&mut self, now: Tick, home: NodeId, steps: &mut Vec<Step>) {
        if !self.waits_for_home || self.homes == [home] {
            return;
        }
        self.homes = vec![home];
        if let Stage::Turn { .. } = self.stage {
            self.ask_source(now, home, None, steps);
        }
    }

    /// It cannot be stored, or does not fit.
    pub fn fail(&mut self, why: String, steps: &mut Vec<Step>) {
        if self.stage != Stage::Over {
            self.stage = Stage::Over;
            steps.push(Step::Fail(format!("{}{why}", self.what)));
        }
    }

    /// The deadline has passed.
    pub fn time(&mut self, now: Tick, steps: &mut Vec<Step>) {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match self.stage {
            Stage::Manifest { home } => {
                self.leave_home(now, home, "the home of the application does not answer", steps);
            }
            Stage::Turn { home } => self.ask_source(now, home, None, steps),
            Stage::Pause => {
                if let Some(keeper) = self.keeper.clone() {
                    self.enter(now, Stage::Connecting { source: keeper.id });
                    steps.push(Step::Open(keeper));
                }
            }
            Stage::Connecting { .. } | Stage::Receiving { .. } => self.source_failed(now, steps),
            Stage::Over => {}
        }
    }

    /// When to call [`Fetch::time`].
    pub fn deadline(&self) -> Option<Tick> {
        match self.stage {
            Stage::Manifest { .. } => Some(self.since + ANSWER),
            Stage::Turn { .. } => Some(self.since + TURN),
            Stage::Pause => Some(self.since + PAUSE),
            Stage::Connecting { .. } => Some(self.since + CONNECT),
            Stage::Receiving { storing: false, .. } => Some(self.since + STALL),
            Stage::Receiving { storing: true, .. } | Stage::Over => None,
        }
    }

    /// The manifest, once it was accepted.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    fn ask_source(&mut self, now: Tick, home: NodeId, failed: Option<NodeId>, steps: &mut Vec<Step>) {
        self.enter(now, Stage::Turn { home });
        steps.push(Step::AskSource { home, failed });
    }

    fn get(&mut self, now: Tick, source: NodeId, steps: &mut Vec<Step>) {
        // There is one: `keep` is taken as soon as there is none.
        if let Some(&hash) = self.missing.last() {
            self.enter(now, Stage::Receiving { source, storing: false });
            steps.push(Step::Get { hash });
        }
    }

    fn keep(&mut self, steps: &mut Vec<Step>) {
        self.stage = Stage::Over;
        steps.push(Step::Keep(self.homes.clone()));
    }

    /// Turns to another home, if there is one.
    fn leave_home(&mut self, now: Tick, home: NodeId, why: &str, steps: &mut Vec<Step>) {
        self.homes.retain(|other| *other != home);
        let Some(next) = self.homes.first().copied() else { return self.fail(why.to_owned(), steps) };
        if self.manifest.is_some() || self.waits_for_home {
            self.ask_source(now, next, None, steps);
        } else {
            self.enter(now, Stage::Manifest { home: next });
            steps.push(Step::AskManifest(next));
        }
    }

    fn enter(&mut self, now: Tick, stage: Stage) {
        self.stage = stage;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_wire::Incarnation;
    use mutirao_wire::node::Arch;
    use proptest::prelude::*;

    fn id(number: u8) -> NodeId {
        NodeId([number; 32])
    }

    fn node(number: u8) -> NodeRef {
        NodeRef { id: id(number), incarnation: Incarnation(1), name: "n".into(), addresses: Vec::new() }
    }

    fn manifest() -> Manifest {
        Manifest {
            layout: 1,
            name: "tool".into(),
            version: String::new(),
            arch: Arch::X86_64,
            interpreter: None,
            libc: None,
            operations: Vec::new(),
            files: Vec::new(),
        }
    }

    fn hashes(count: u8) -> Vec<BlobHash> {
        (0..count).map(|number| BlobHash([number; 32])).collect()
    }

    const NOW: Tick = Tick(0);

    #[test]
    fn files_come_one_after_the_other_and_the_home_is_told() {
        let mut steps = Vec::new();
        let mut fetch = Fetch::new(NOW, "tool", id(1), &mut steps);
        fetch.also_for(id(2));
        fetch.accept(NOW, manifest(), hashes(2), &mut steps);
        fetch.source(NOW, id(9), node(8), &mut steps);
        fetch.source(NOW, id(1), node(3), &mut steps);
        fetch.connected(NOW, id(3), &mut steps);
        fetch.heard(NOW, true);
        fetch.stored(NOW, &mut steps);
        fetch.heard(NOW, true);
        fetch.stored(NOW, &mut steps);
        assert_eq!(
            steps,
            [
                Step::AskManifest(id(1)),
                Step::AskSource { home: id(1), failed: None },
                Step::Open(node(3)),
                Step::Get { hash: hashes(2)[0] },
                Step::Get { hash: hashes(2)[1] },
                Step::Keep(vec![id(1), id(2)]),
            ]
        );
    }

    #[test]
    fn a_source_that_stalls_is_reported_and_another_one_takes_over() {
        let mut steps = Vec::new();
        let mut fetch = Fetch::new(NOW, "tool", id(1), &mut steps);
        fetch.accept(NOW, manifest(), hashes(1), &mut steps);
        fetch.source(NOW, id(1), node(3), &mut steps);
        fetch.connected(NOW, id(3), &mut steps);
        steps.clear();
        fetch.time(NOW + (STALL - Duration::from_millis(1)), &mut steps);
        assert!(steps.is_empty());
        fetch.time(NOW + STALL, &mut steps);
        assert_eq!(steps, [Step::Drop, Step::AskSource { home: id(1), failed: Some(id(3)) }]);
    }

    #[test]
    fn a_home_that_is_lost_is_replaced_by_another_or_the_plugin_given_up() {
        let mut steps = Vec::new();
        let mut fetch = Fetch::new(NOW, "tool", id(1), &mut steps);
        fetch.also_for(id(2));
        steps.clear();
        fetch.home_lost(NOW, id(1), &mut steps);
        assert_eq!(steps, [Step::AskManifest(id(2))]);
        fetch.no_manifest(NOW, id(2), &mut steps);
        assert!(matches!(&steps[1], Step::Fail(why) if why.contains("`tool`")));
        assert_eq!(fetch.deadline(), None);
    }

    #[test]
    fn a_blob_waits_for_its_home_and_comes_without_a_manifest() {
        let mut steps = Vec::new();
        let mut fetch = Fetch::of_blob(NOW, id(1), hashes(1)[0], &mut steps);
        fetch.home_lost(NOW, id(1), &mut steps);
        fetch.home_back(NOW, id(2), &mut steps);
        fetch.home_back(NOW, id(1), &mut steps);
        fetch.source(NOW, id(1), node(3), &mut steps);
        fetch.home_lost(NOW, id(1), &mut steps);
        fetch.connected(NOW, id(3), &mut steps);
        fetch.heard(NOW, true);
        fetch.stored(NOW, &mut steps);
        let asked = || Step::AskSource { home: id(1), failed: None };
        let expected = [
            asked(),
            asked(),
            Step::Open(node(3)),
            Step::Get { hash: hashes(1)[0] },
            Step::Keep(vec![id(1)]),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn a_blob_whose_application_goes_on_at_another_home_is_asked_for_there() {
        let hash = hashes(1)[0];
        let asked = |home, failed| Step::AskSource { home, failed };
        let mut steps = Vec::new();
        let mut fetch = Fetch::of_blob(NOW, id(1), hash, &mut steps);
        fetch.home_lost(NOW, id(1), &mut steps);
        fetch.moved(NOW, id(2), &mut steps);
        fetch.moved(NOW, id(2), &mut steps);
        fetch.source(NOW, id(1), node(3), &mut steps);
        fetch.source(NOW, id(2), node(3), &mut steps);
        fetch.connected(NOW, id(3), &mut steps);
        // What comes goes on to come.
        fetch.moved(NOW, id(4), &mut steps);
        fetch.disconnected(NOW, id(3), &mut steps);
        let expected = [
            asked(id(1), None),
            asked(id(2), None),
            Step::Open(node(3)),
            Step::Get { hash },
            Step::Drop,
            asked(id(4), Some(id(3))),
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn what_one_node_keeps_is_asked_of_that_node_again_and_in_the_end_given_up() {
        let mut steps = Vec::new();
        let mut fetch = Fetch::of_kept(NOW, node(3), hashes(1)[0], &mut steps);
        fetch.connected(NOW, id(3), &mut steps);
        fetch.disconnected(NOW, id(3), &mut steps);
        let mut now = NOW + PAUSE;
        fetch.time(now, &mut steps);
        let again = [Step::Open(node(3)), Step::Get { hash: hashes(1)[0] }, Step::Drop, Step::Open(node(3))];
        assert_eq!(steps, again);
        for _ in 1..FAILURES_MAX {
            fetch.disconnected(now, id(3), &mut steps);
            now = now + PAUSE;
            fetch.time(now, &mut steps);
        }
        assert!(matches!(steps.last(), Some(Step::Fail(why)) if why.contains("`n`")), "{steps:?}");
    }

    proptest! {
        /// Whatever happens, it ends or has something to wait for; and it gives up in the end.
        #[test]
        fn it_never_waits_for_ever(happenings in prop::collection::vec((0u8..11, 1u8..4), 0..300), kind in 0u8..3) {
            let mut steps = Vec::new();
            let mut now = NOW;
            let mut fetch = match kind {
                0 => Fetch::of_blob(now, id(1), hashes(1)[0], &mut steps),
                1 => Fetch::of_kept(now, node(1), hashes(1)[0], &mut steps),
                _ => Fetch::new(now, "tool", id(1), &mut steps),
            };
            for (what, peer) in happenings {
                now = now + Duration::from_millis(1100);
                match what {
                    0 => fetch.accept(now, manifest(), hashes(3), &mut steps),
                    1 => fetch.no_manifest(now, id(peer), &mut steps),
                    2 => fetch.source(now, id(peer), node(peer), &mut steps),
                    3 => fetch.connected(now, id(peer), &mut steps),
                    4 => fetch.heard(now, peer == 1),
                    5 => fetch.stored(now, &mut steps),
                    6 => fetch.disconnected(now, id(peer), &mut steps),
                    7 => fetch.home_lost(now, id(peer), &mut steps),
                    8 => fetch.home_back(now, id(peer), &mut steps),
                    9 => fetch.moved(now, id(peer), &mut steps),
                    _ => fetch.time(now, &mut steps),
                }
                let over = steps.iter().filter(|step| matches!(step, Step::Keep(_) | Step::Fail(_))).count();
                prop_assert!(over <= 1);
                let storing = matches!(fetch.stage, Stage::Receiving { storing: true, .. });
                prop_assert_eq!(fetch.deadline().is_none(), over == 1 || storing);
            }
        }
    }
}
