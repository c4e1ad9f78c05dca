//! Journals that no keeper has written.

use super::*;
use crate::bag::state::{Closed, Done, Ending, Standing, State};
use crate::end::Evidence;

/// A record about one of a few tasks, sensible or not.
fn record() -> impl Strategy<Value = Record> {
    let (task, attempt) = (0_u32..8, prop_oneof![8 => 0_u64..6, 1 => Just(u64::MAX)]);
    (0_u8..13, task, attempt, any::<bool>(), 0_u32..3).prop_map(|(kind, task, attempt, odd, count)| {
        let node = String::from("n1");
        let added = vec![NewTask { template: count, values: Vec::new() }; usize::from(odd)];
        let closed = if odd { Closed::Failed } else { Closed::Withdrawn };
        let vote = || Vote {
            attempt,
            node: node_of(count.into()),
            name: "n1".into(),
            cost: Cost::default(),
            stdout: Span::default(),
            stderr: Span::default(),
            result: BlobHash([0; 32]),
            said: "".into(),
        };
        match kind {
            0 => Record::Started { task, attempt, node },
            1 => Record::Failed {
                task,
                evidence: evidence(attempt, if odd { End::Code(1) } else { End::NoAgreement }),
            },
            2 | 3 => Record::Committed {
                task,
                attempt,
                node,
                cost: Cost::default(),
                stdout: Span::default(),
                stderr: Span::default(),
                templates: Vec::new(),
                added,
            },
            4 => Record::Voted { task, vote: vote() },
            5 => Record::Accepted { task, attempt, templates: Vec::new(), added },
            6 => Record::Undone { task },
            7 => Record::Closed { task, closed },
            8 => Record::Again { task },
            9 => Record::Caught { node: node_of(count.into()), name: node },
            10 => Record::Standings {
                first: task,
                standings: vec![standing(attempt, count, odd, vec![vote()])],
            },
            11 => Record::NextAttempt(attempt),
            _ => Record::Life { at_ms: 0 },
        }
    })
}

fn evidence(attempt: u64, end: End) -> Evidence {
    Evidence { attempt, node: "n1".into(), end, cost: Cost::default(), last_words: String::new() }
}

fn standing(attempt: u64, count: u32, odd: bool, votes: Vec<Vote>) -> Standing {
    let done = Done {
        attempt,
        node: "n1".into(),
        cost: Cost::default(),
        stdout: Span::default(),
        stderr: Span::default(),
        added: (count, count),
        voters: Box::default(),
    };
    let result = match count {
        0 => Ending::None,
        1 => Ending::Closed(Closed::Cancelled),
        _ => Ending::Done(Box::new(done)),
    };
    let evidence = odd.then(|| Box::new(evidence(attempt, End::Code(1))));
    Standing { failures: 1, crashes: 0, result, evidence, votes: if odd { votes } else { Vec::new() } }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]
    #[test]
    fn whatever_a_journal_says_it_is_taken_or_refused_and_the_counts_are_right(
        records in prop::collection::vec(record(), 0..40),
    ) {
        let templates = vec![
            shell("a"),
            Template { after: vec![0], ..shell("b") },
            Template { after_each: vec![0], ..shell("c") },
        ];
        let mut bag = Bag::new();
        for record in draft(templates, &[2, 1, 2]).into_records(5) {
            bag.replay(record).unwrap();
        }
        for record in records {
            if let Err(error) = bag.replay(record) {
                prop_assert!(!error.to_string().is_empty());
                return Ok(());
            }
            let withdrawn = |task: &&Task| task.state != State::Closed(Closed::Withdrawn);
            prop_assert_eq!(bag.counts().all(), bag.tasks.iter().filter(withdrawn).count() as u64);
            for (number, family) in bag.families.iter().enumerate() {
                let tasks = || family.tasks.iter().map(|task| &bag.tasks[*task as usize]);
                let open = tasks().filter(|task| !task.is_over()).count();
                prop_assert_eq!(open as u32, family.open, "template {}", number);
            }
        }
        let mut out = Vec::new();
        bag.begin(Tick(1), 7, Trust::default(), &mut out).unwrap();
    }
}
