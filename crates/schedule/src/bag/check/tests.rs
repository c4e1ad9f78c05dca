use super::*;

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

fn result(what: u8) -> BlobHash {
    BlobHash([what; 32])
}

fn vote(by: u8, attempt: u64, what: u8) -> Vote {
    Vote { node: node(by), attempt, result: result(what) }
}

fn judge(rule: Rule, checks: f64) -> Judge {
    let standings = Standings::new(0.2).expect("a sound part");
    Judge::new(rule, checks, standings, 7).expect("a sound rule")
}

#[test]
fn the_first_result_stands() {
    let mut judge = judge(Rule::First, 0.0);
    assert_eq!(judge.votes(), 1);
    assert_eq!(judge.vote(1, vote(1, 10, 0)), Verdict::Accept { attempt: 10 });
}

#[test]
fn a_majority_asks_for_no_more_than_it_takes() {
    let mut judge = judge(Rule::Majority { of: 3 }, 0.0);
    assert_eq!(judge.votes(), 2);
    assert_eq!(judge.vote(1, vote(1, 10, 0)), Verdict::More { votes: 2 });
    assert_eq!(judge.vote(1, vote(1, 11, 0)), Verdict::More { votes: 2 }, "one node, one vote");
    assert_eq!(judge.vote(1, vote(2, 12, 9)), Verdict::More { votes: 3 });
    assert_eq!(judge.vote(1, vote(3, 13, 0)), Verdict::Accept { attempt: 10 });
    assert_eq!(judge.standings().of(node(2)).outvoted, 1);
}

#[test]
fn who_always_differs_ends_undecided() {
    let mut judge = judge(Rule::Majority { of: 3 }, 0.0);
    let mut last = Verdict::More { votes: 2 };
    for one in 0..VOTES_MAX {
        assert!(matches!(last, Verdict::More { votes } if votes > one && votes <= VOTES_MAX));
        last = judge.vote(1, vote(one, one.into(), one));
    }
    assert_eq!(last, Verdict::Undecided);
}

#[test]
fn who_passed_checks_is_believed_alone() {
    let mut judge = judge(Rule::Credible { at_least: 0.99 }, 0.1);
    assert_eq!(judge.vote(1, vote(1, 1, 0)), Verdict::More { votes: 2 });
    assert_eq!(judge.vote(1, vote(2, 2, 0)), Verdict::More { votes: 3 }, "0.8² of 0.8² + 0.2² is 0.94");
    assert_eq!(judge.vote(1, vote(3, 3, 0)), Verdict::More { votes: 4 }, "0.985");
    assert_eq!(judge.vote(1, vote(4, 4, 0)), Verdict::Accept { attempt: 1 }, "0.996");
    for _ in 0..10 {
        assert!(judge.checked(node(5), true).is_empty());
    }
    assert!(judge.standings().credibility(node(5)) > 0.99);
    assert_eq!(judge.vote(2, vote(5, 5, 0)), Verdict::Accept { attempt: 5 });
}

#[test]
fn what_a_caught_node_said_is_done_again() {
    let mut judge = judge(Rule::Majority { of: 3 }, 0.1);
    judge.vote(1, vote(1, 1, 0));
    assert_eq!(judge.vote(1, vote(2, 2, 0)), Verdict::Accept { attempt: 1 });
    judge.vote(2, vote(1, 3, 0));
    judge.vote(3, vote(3, 4, 0));
    let changed = judge.checked(node(1), false);
    assert_eq!(changed, [(1, Verdict::Redo), (2, Verdict::More { votes: 2 })]);
    assert_eq!(judge.vote(2, vote(1, 5, 0)), Verdict::More { votes: 2 }, "counts nothing any more");
    assert!(!judge.wants_check(node(1)));
}

#[test]
fn spot_checks_come_as_often_as_wanted() {
    let mut judge = judge(Rule::First, 0.1);
    let checks = (0..10_000).filter(|_| judge.wants_check(node(1))).count();
    assert!((900..1100).contains(&checks), "{checks}");
}

#[test]
fn unsound_rules_are_refused() {
    let standings = || Standings::new(0.1).expect("a sound part");
    for (rule, checks) in [
        (Rule::Majority { of: 1 }, 0.0),
        (Rule::Majority { of: 16 }, 0.0),
        (Rule::Credible { at_least: 1.0 }, 0.0),
        (Rule::Credible { at_least: f64::NAN }, 0.0),
        (Rule::First, 1.0),
    ] {
        assert!(Judge::new(rule, checks, standings(), 1).is_err(), "{rule:?} {checks}");
    }
    assert!(Standings::new(0.5).is_err());
}

/// A pool in which some nodes lie, always the same lie, each with a chance of its own. Returns how many
/// wrong results were accepted in the end, how many attempts it took, and the judge.
fn pool(rule: Rule, checks: f64, liars: u8, seed: u64) -> (usize, usize, Judge) {
    let standings = Standings::new(0.2).expect("a sound part");
    let mut judge = Judge::new(rule, checks, standings, seed).expect("a sound rule");
    let (nodes, tasks) = (20_u8, 2000_u64);
    let mut chance = seed;
    let mut draw = |below: u64| {
        chance = chance.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (chance >> 33) % below
    };
    let mut accepted: BTreeMap<u64, u8> = BTreeMap::new();
    let mut said: BTreeMap<u64, u8> = BTreeMap::new();
    let (mut attempt, mut attempts) = (0, 0);
    let mut todo: Vec<u64> = (0..tasks).collect();
    while let Some(task) = todo.pop() {
        loop {
            let by = draw(nodes.into()) as u8;
            if judge.standings().of(node(by)).is_caught() {
                continue;
            }
            // Liars lie about a third to all of their results.
            let lies = by < liars && draw(3 + u64::from(by)) < 3;
            attempts += 1;
            if judge.wants_check(node(by)) {
                for (task, verdict) in judge.checked(node(by), !lies) {
                    match verdict {
                        Verdict::Redo => {
                            accepted.remove(&task);
                            todo.push(task);
                        }
                        Verdict::Accept { attempt } => drop(accepted.insert(task, said[&attempt])),
                        Verdict::More { .. } | Verdict::Undecided => {}
                    }
                }
                if accepted.contains_key(&task) {
                    break;
                }
                continue;
            }
            attempt += 1;
            said.insert(attempt, u8::from(lies));
            match judge.vote(task, vote(by, attempt, u8::from(lies))) {
                Verdict::Accept { attempt } => {
                    accepted.insert(task, said[&attempt]);
                    break;
                }
                Verdict::More { .. } => {}
                Verdict::Undecided | Verdict::Redo => panic!("twenty nodes with four liars can agree"),
            }
        }
    }
    assert_eq!(accepted.len() as u64, tasks);
    (accepted.values().filter(|lie| **lie == 1).count(), attempts, judge)
}

#[test]
fn lying_nodes_are_found_and_their_results_redone() {
    let (mut first, mut checked, mut majority, mut credible) = ((0, 0), (0, 0), (0, 0), (0, 0));
    for seed in 1..=20 {
        let add = |sum: &mut (usize, usize), (wrong, attempts, _): (usize, usize, Judge)| {
            *sum = (sum.0 + wrong, sum.1 + attempts);
        };
        add(&mut first, pool(Rule::First, 0.0, 4, seed));
        let (wrong, attempts, judge) = pool(Rule::First, 0.1, 4, seed);
        assert!(judge.standings().iter().all(|(id, standing)| id < node(4) || !standing.is_caught()));
        add(&mut checked, (wrong, attempts, judge));
        add(&mut majority, pool(Rule::Majority { of: 3 }, 0.0, 4, seed));
        add(&mut credible, pool(Rule::Credible { at_least: 0.999 }, 0.1, 4, seed));
    }
    assert!(first.0 > 4000, "unchecked, lies are taken for results: {first:?}");
    assert!(checked.0 * 10 < first.0, "most liars are caught: {checked:?}");
    assert!(majority.0 * 2 < first.0, "two of four liars must meet: {majority:?}");
    assert!(credible.0 <= 20 * 2000 / 500, "about one in a thousand, as was asked: {credible:?}");
    assert!(checked.1 < majority.1, "checks cost less than votes: {checked:?} {majority:?}");
}
