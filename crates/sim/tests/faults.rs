//! Pools under faults, hundreds of seeds. A seed that fails is replayed with
//! `MUTIRAO_SEED=<seed> cargo test -p mutirao-sim --test faults`.

use mutirao_sim::{Plan, run_faults};

fn seeds() -> Vec<u64> {
    match std::env::var("MUTIRAO_SEED").map(|seed| seed.parse()) {
        Ok(Ok(seed)) => vec![seed],
        _ => (0..300).collect(),
    }
}

#[test]
fn after_faults_a_pool_is_whole_again() {
    let mut failed = Vec::new();
    for seed in seeds() {
        let plan = Plan::new(seed);
        let ran = std::panic::catch_unwind(|| run_faults(&plan));
        let why = match ran {
            Ok(Ok(_)) => continue,
            Ok(Err(why)) => why,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                text.or(panic.downcast_ref::<&str>().map(|s| s.to_string())).unwrap_or_default()
            }
        };
        println!("MUTIRAO_SEED={seed} cargo test -p mutirao-sim --test faults   # {why}");
        failed.push(seed);
    }
    assert!(
        failed.is_empty(),
        "{} seeds failed: {failed:?}; each is replayed as printed above",
        failed.len()
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let plan = Plan { keep_trace: true, ..Plan::new(17) };
    let (a, b) = (run_faults(&plan).unwrap(), run_faults(&plan).unwrap());
    assert_eq!(a.trace, b.trace);
    assert_eq!(a.fingerprint(), b.fingerprint());
    let other = run_faults(&Plan::new(18)).unwrap();
    assert_ne!(a.fingerprint(), other.fingerprint());
}
