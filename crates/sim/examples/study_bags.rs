//! Lets schedulers run drawn bags and prints what each made of each: a line of JSON a bag and scheduler, for
//! `plot_bags`. Pieces of a study, some seeds each, can simply be put together.
//!
//! ```sh
//! cargo build --release -p mutirao-sim --examples
//! target/release/examples/study_bags compute 1..1000 wqr:2,fpltf:now machines=100 > figures.json
//! target/release/examples/plot_bags docs < figures.json
//! ```

use mutirao_sim::bags::{Contender, Scenario, Study};
use serde_json::json;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [study, seeds, contenders, settings @ ..] = args.as_slice() else {
        eprintln!("study_bags compute|data FIRST..LAST SCHEDULER,.. [SETTING=VALUE ..]");
        std::process::exit(2);
    };
    let of = match study.as_str() {
        "compute" => Study::Compute,
        "data" => Study::Data,
        _ => panic!("{study}: compute or data"),
    };
    let contenders: Vec<Contender> =
        contenders.split(',').map(|name| name.parse().unwrap_or_else(|why| panic!("{why}"))).collect();
    let (first, last) = seeds.split_once("..").expect("seeds are FIRST..LAST");
    let number = |text: &str| text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
    for seed in number(first)..=number(last) {
        let mut scenario = Scenario::new(of, seed);
        for setting in settings {
            set(&mut scenario, setting);
        }
        let all = scenario.run(&contenders).unwrap_or_else(|why| panic!("{scenario:?}: {why}"));
        for (contender, ran) in contenders.iter().zip(all) {
            let row = json!({
                "name": "bag", "study": study, "seed": seed, "machines": scenario.machines,
                "machine spread": scenario.machine_spread, "task size": scenario.task_size,
                "task spread": scenario.task_spread, "work a MB": scenario.work_a_mb,
                "common": scenario.common, "runs": scenario.runs, "scheduler": contender.to_string(),
                "makespan_s": ran.makespan_s, "wasted_work": ran.wasted_work, "wasted_time": ran.wasted_time,
                "wasted_bytes": ran.wasted_bytes, "brought_mb": ran.brought_bytes as f64 / 1e6,
            });
            println!("{row}");
        }
    }
}

fn set(scenario: &mut Scenario, setting: &str) {
    let (name, text) = setting.split_once('=').expect("settings are NAME=VALUE");
    let value: f64 = text.parse().unwrap_or_else(|why| panic!("{setting}: {why}"));
    match name {
        "machines" => scenario.machines = value as u32,
        "machine-spread" => scenario.machine_spread = value,
        "task-size" => scenario.task_size = value,
        "task-spread" => scenario.task_spread = value,
        "loaded" => scenario.loaded = value != 0.0,
        "common" => scenario.common = value != 0.0,
        "runs" => scenario.runs = value as u32,
        _ => panic!("{setting}: no such setting"),
    }
}
