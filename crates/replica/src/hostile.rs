//! A member that hears whatever others may say, and reads whatever a disk may hold: nothing of it ends its process.

use crate::mend::Note;
use crate::message::Said;
use crate::{Kept, Line, Member, Offer, Point, Refused, Role, Timing};
use proptest::prelude::*;

const TIMING: Timing = Timing { heartbeat: 2, election: 10 };
/// Kinds of messages, and one that is none.
const KINDS: u8 = 11;

fn bytes(said: &Said) -> Vec<u8> {
    postcard::to_stdvec(said).unwrap()
}

#[derive(Debug, Clone)]
enum Step {
    Hear(u64, Said),
    Note(u64, Note),
    Mend(u64),
    Tick(u8),
    Propose,
    Campaign,
    Compact,
    Take,
    Restart,
}

/// Small numbers contradict each other most often; large ones overflow.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![30 => 0..6u64, 1 => Just(1 << 62), 1 => Just(u64::MAX - 1), 1 => Just(u64::MAX)]
}

fn said() -> impl Strategy<Value = Said> {
    let entry = (number(), prop::collection::vec(any::<u8>(), 0..3));
    let numbers = (number(), number(), number(), number(), number());
    let context =
        prop_oneof![4 => Just(Vec::new()), 1 => Just(b"CampaignTransfer".to_vec()), 1 => Just(vec![7])];
    let rest = (0..KINDS, any::<bool>(), context, prop::collection::vec(entry, 0..4));
    (numbers, rest).prop_map(|((term, log_term, index, commit, hint), (kind, reject, context, entries))| {
        Said {
            kind,
            term,
            log_term,
            index,
            commit,
            commit_term: log_term,
            reject,
            reject_hint: hint,
            priority: 0,
            context,
            entries,
        }
    })
}

fn note() -> impl Strategy<Value = Note> {
    let leads = prop_oneof![Just(None), number().prop_map(Some)];
    let stands =
        (number(), number(), leads).prop_map(|(nonce, term, leads)| Note::Stands { nonce, term, leads });
    prop_oneof![(number(), number()).prop_map(|(nonce, last)| Note::Mends { nonce, last }), stands]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (0..5u64, said()).prop_map(|(from, said)| Step::Hear(from, said)),
        5 => (0..5u64, note()).prop_map(|(from, note)| Step::Note(from, note)),
        1 => number().prop_map(Step::Mend),
        3 => (1..20u8).prop_map(Step::Tick),
        2 => Just(Step::Propose),
        1 => Just(Step::Campaign),
        1 => Just(Step::Compact),
        2 => Just(Step::Take),
        1 => Just(Step::Restart),
    ]
}

/// The second of three members, and its disk.
struct Lone {
    member: Member,
    lines: Vec<Line>,
    offer: Option<Offer>,
}

fn start(lines: &[Line]) -> Option<Member> {
    let mut kept = Kept::default();
    let is_read = lines.iter().enumerate().all(|(at, line)| kept.read(line, at as u64));
    (is_read && kept.is_whole(3)).then(|| {
        let data: Vec<Option<Vec<u8>>> = lines
            .iter()
            .map(|line| match line {
                Line::Entry { data, .. } => Some(data.clone()),
                _ => None,
            })
            .collect();
        let cold = Box::new(move |at: u64| data.get(at as usize).cloned().flatten());
        Member::new(2, 3, TIMING, kept, vec![1], cold)
    })
}

impl Lone {
    fn new(lines: Vec<Line>) -> Option<Lone> {
        Some(Lone { member: start(&lines)?, lines, offer: None })
    }

    fn settle(&mut self) {
        while let Some(work) = self.member.work() {
            if !work.base.is_empty() {
                self.lines = vec![Line::Part(vec![1])];
                self.lines.extend(work.base);
            }
            let places: Vec<u64> = (self.lines.len() as u64..).take(work.lines.len()).collect();
            self.lines.extend(work.lines);
            let written = self.member.written(&places);
            self.lines.extend(written.line);
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Hear(from, said) => {
                if let Ok(Some(offer)) = self.member.hear(from, &bytes(&said)) {
                    self.offer = Some(offer);
                }
            }
            Step::Note(from, note) => drop(self.member.hear(from, &note.encode())),
            Step::Mend(nonce) => self.member.mend(nonce),
            Step::Tick(count) => (0..count).for_each(|_| self.member.tick()),
            Step::Propose => drop(self.member.propose(b"x".to_vec())),
            Step::Campaign => self.member.campaign(),
            Step::Compact => self.compact(),
            Step::Take => {
                if let Some(offer) = self.offer.take() {
                    self.member.take(offer);
                }
            }
            Step::Restart => {
                let lines = std::mem::take(&mut self.lines);
                let again = Lone::new(lines.clone());
                *self = again.unwrap_or_else(|| panic!("its own disk makes no sense: {lines:?}"));
            }
        }
        self.settle();
    }

    fn compact(&mut self) {
        let Some(compact) = self.member.compact(2) else { return };
        self.lines = vec![Line::Part(vec![1]), compact.head.clone()];
        let places: Vec<u64> = (2..).take(compact.entries.len()).collect();
        self.lines.extend(compact.entries.iter().cloned());
        self.lines.push(compact.state.clone());
        self.member.compacted(&compact, vec![1], &places);
    }
}

fn line() -> impl Strategy<Value = Line> {
    let point = || (number(), number()).prop_map(|(index, term)| Point { index, term });
    prop_oneof![
        4 => (number(), number()).prop_map(|(index, term)| Line::Entry { index, term, data: vec![1] }),
        3 => (number(), number(), number())
            .prop_map(|(term, vote, commit)| Line::State { term, vote, commit }),
        1 => Just(Line::Own(vec![1])),
        1 => Just(Line::Part(vec![1])),
        1 => (point(), point()).prop_map(|(base, before)| Line::Base { base, before }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_others_say_a_member_lives_on(steps in prop::collection::vec(step(), 0..60)) {
        let mut lone = Lone::new(Vec::new()).unwrap();
        steps.into_iter().for_each(|step| lone.take(step));
    }

    #[test]
    fn whatever_a_disk_holds_is_taken_or_refused(
        lines in prop::collection::vec(line(), 0..8),
        steps in prop::collection::vec(step(), 0..10),
    ) {
        // As they may be cut, a first one of each kind is likelier to be followed by sense.
        if let Some(mut lone) = Lone::new(lines) {
            steps.into_iter().for_each(|step| lone.take(step));
        }
    }

    #[test]
    fn any_bytes_are_a_message_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let mut lone = Lone::new(Vec::new()).unwrap();
        let _ = lone.member.hear(1, &bytes);
        lone.settle();
    }
}

fn beat(from: u64, term: u64, commit: u64) -> (u64, Said) {
    let said = Said { kind: 4, term, commit, ..Said::default() };
    (from, said)
}

#[test]
fn what_contradicts_is_refused_by_name_and_changes_nothing() {
    let mut lone = Lone::new(Vec::new()).unwrap();
    let mut hear = |(from, said): (u64, Said)| lone.member.hear(from, &bytes(&said)).map(|_| ());
    assert_eq!(hear(beat(1, 3, 9)), Err(Refused::Lacking { commit: 9, last: 0 }));
    assert_eq!(hear(beat(2, 3, 0)), Err(Refused::Stranger));
    assert_eq!(hear(beat(1, 0, 0)), Err(Refused::Numbers));
    assert_eq!(hear(beat(1, u64::MAX, 0)), Err(Refused::Numbers));
    assert_eq!(hear(beat(1, 3, 0)), Ok(()));
    assert_eq!(hear(beat(3, 3, 0)), Err(Refused::TwoLead { term: 3 }));
    let (from, mut append) = beat(1, 3, 0);
    (append.kind, append.entries) = (0, vec![(2, vec![1]), (1, vec![2])]);
    assert_eq!(hear((from, append)), Err(Refused::Order));
    lone.settle();
    assert_eq!(lone.member.role(), Role::Follows(1));
    assert_eq!(lone.member.commit(), 0);
}

#[test]
fn a_leader_believes_nobody_to_have_what_it_has_not_sent() {
    let mut lone = Lone::new(Vec::new()).unwrap();
    lone.member.campaign();
    for kind in [7, 3] {
        lone.settle();
        let (from, mut vote) = beat(1, 1, 0);
        vote.kind = kind;
        lone.member.hear(from, &bytes(&vote)).unwrap();
    }
    lone.settle();
    let (from, mut has) = beat(1, 1, 0);
    (has.kind, has.index) = (1, 9);
    assert_eq!(lone.member.hear(from, &bytes(&has)), Err(Refused::Ahead { index: 9, last: 1 }));
    has.index = 1;
    assert_eq!(lone.member.hear(from, &bytes(&has)), Ok(None));
    lone.settle();
    assert_eq!(lone.member.role(), Role::Leads(1));
}
