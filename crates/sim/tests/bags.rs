//! What the published studies claim of schedulers of bags, on some hundred drawn scenarios. The page
//! docs/scheduling.md has the same of thousands.

use mutirao_sim::bags::{Contender, Ran, Scenario, Study};

fn contenders<const N: usize>(names: [&str; N]) -> [Contender; N] {
    names.map(|name| name.parse().expect("a known scheduler"))
}

/// The mean of what each contender made of the scenarios.
fn mean<const N: usize>(scenarios: impl Iterator<Item = Scenario>, names: [&str; N]) -> [Ran; N] {
    let contenders = contenders(names);
    let mut sums = [Ran::default(); N];
    let mut count = 0.0;
    for scenario in scenarios {
        let all = scenario.run(&contenders).unwrap_or_else(|why| panic!("{scenario:?}: {why}"));
        for (sum, ran) in sums.iter_mut().zip(all) {
            sum.makespan_s += ran.makespan_s;
            sum.wasted_work += ran.wasted_work;
            sum.wasted_bytes += ran.wasted_bytes;
            sum.brought_bytes += ran.brought_bytes;
        }
        count += 1.0;
    }
    for sum in &mut sums {
        sum.makespan_s /= count;
        sum.wasted_work /= count;
        sum.wasted_bytes /= count;
    }
    sums
}

/// Tasks that compute, on small grids.
fn compute(scenarios: u64) -> impl Iterator<Item = Scenario> {
    (0..scenarios).map(|seed| Scenario { machines: 10, ..Scenario::new(Study::Compute, seed) })
}

#[test]
fn two_at_once_bring_most_of_what_copies_bring() {
    let [plain, two, four] = mean(compute(100), ["workqueue", "wqr:2", "wqr:4"]).map(|ran| ran.makespan_s);
    assert!(two < 0.9 * plain, "copies gain much: {plain} {two}");
    assert!(plain - two > 0.6 * (plain - four), "and two most of it: {plain} {two} {four}");
}

#[test]
fn two_at_once_are_on_par_with_perfect_information() {
    let [two, fpltf, sufferage] =
        mean(compute(100), ["wqr:2", "fpltf", "sufferage"]).map(|ran| ran.makespan_s);
    assert!(two < 1.1 * fpltf.min(sufferage), "all the future: {two} {fpltf} {sufferage}");
    let [fpltf, sufferage] = mean(compute(100), ["fpltf:now", "sufferage:now"]).map(|ran| ran.makespan_s);
    assert!(two < fpltf.min(sufferage), "all the present: {two} {fpltf} {sufferage}");
}

#[test]
fn copies_of_many_small_tasks_waste_little() {
    let many = |spread| compute(60).map(move |s| Scenario { task_size: 5000.0, task_spread: spread, ..s });
    let [alike] = mean(many(0.0), ["wqr:2"]).map(|ran| ran.wasted_work);
    let [unlike] = mean(many(1.0), ["wqr:2"]).map(|ran| ran.wasted_work);
    let [all] = mean(compute(100), ["wqr:2"]).map(|ran| ran.wasted_work);
    assert!(alike < 0.15 && unlike < 0.2, "{alike} {unlike}");
    assert!(all < 0.4, "{all}");
}

/// Tasks that read much.
fn data() -> impl Iterator<Item = Scenario> {
    (0..60).map(|seed| Scenario::new(Study::Data, seed))
}

#[test]
fn storage_affinity_brings_less_and_is_faster_than_copies_anywhere() {
    let [wqr, affinity] = mean(data(), ["wqr:2", "storage-affinity:2"]);
    assert!(affinity.makespan_s < 0.85 * wqr.makespan_s, "{affinity:?} {wqr:?}");
    assert!(affinity.brought_bytes * 10 < wqr.brought_bytes * 7, "{affinity:?} {wqr:?}");
    assert!(affinity.wasted_work > wqr.wasted_work, "what that costs: {affinity:?} {wqr:?}");
}

#[test]
fn storage_affinity_is_on_par_with_perfect_information() {
    let names = ["storage-affinity:2", "storage-affinity:4", "xsufferage:now", "xsufferage"];
    let small = data().map(|scenario| Scenario { machines: 10, ..scenario });
    let [two, four, present, future] = mean(small, names).map(|ran| ran.makespan_s);
    assert!(two < 1.02 * present, "{two} {present}");
    assert!(four < 0.95 * present && four < 1.05 * future, "{four} {present} {future}");
}

#[test]
fn the_same_seed_gives_the_same() {
    let scenario = Scenario::new(Study::Data, 7);
    let contenders = contenders(["storage-affinity:3", "wqr:3"]);
    assert_eq!(scenario.run(&contenders), scenario.run(&contenders));
}
