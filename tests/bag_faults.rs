//! Bags kept by three nodes, of which whatever there is to be killed is killed at moments drawn from a seed: the
//! keeper, a member, a node with all that it runs, one that only lends, the command that submits, all at once.
//!
//! `make test-bag-faults` runs 100 rounds; MUTIRAO_BAG_FAULTS_SEED=n replays the round of that seed, and
//! MUTIRAO_BAG_FAULTS_ROUNDS=n runs so many from there on.

mod lab;

use lab::random::Random;
use lab::{Lab, Said};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

const ROUNDS: u64 = 100;
/// The nodes that keep the bag, and one that only lends.
const NODES: [&str; 3] = ["n1", "n2", "n3"];
const LENDER: &str = "n4";
const TASKS: usize = 160;
/// Faults of one round.
const FAULTS: usize = 5;
/// A bag that is not done so long after the last fault stands still. Generous: machines are busy.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The process that keeps the bag.
    Keeper,
    /// That of some member.
    Member,
    /// The daemon of some node, for so many ms.
    Node(u64),
    /// A daemon and a member elsewhere at once.
    NodeAndMember(u64),
    /// The daemon of the node that only lends, for so many ms.
    Lender(u64),
    /// All daemons and all members, as when the power fails.
    All,
}

impl Fault {
    fn draw(random: &mut Random) -> Fault {
        let ms = 50 + random.below(4000) as u64;
        match random.below(12) {
            0..4 => Fault::Keeper,
            4 | 5 => Fault::Member,
            6..9 => Fault::Node(ms),
            9 => Fault::Lender(ms),
            10 => Fault::All,
            _ => Fault::NodeAndMember(ms),
        }
    }
}

/// Says, when the test fails, how to see that again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: MUTIRAO_BAG_FAULTS_SEED={} make test-bag-faults", self.0);
        }
    }
}

struct Round {
    lab: Lab,
    random: Random,
    faults: BTreeMap<&'static str, u32>,
}

impl Round {
    fn bag(&self, args: &[&str]) -> Command {
        let mut command = self.lab.mutirao(["--node", "n1", "bag"].iter().chain(args));
        command.current_dir(self.lab.path(""));
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        self.lab.spawn(self.bag(args)).wait()
    }

    fn pause(&mut self, most_ms: usize) {
        std::thread::sleep(Duration::from_millis(self.random.below(most_ms) as u64));
    }

    /// Submits the bag, now and then with the command killed over it; what a user would do then is done.
    fn submit(&mut self) -> String {
        if self.random.below(2) == 0 {
            let submitter = self.lab.spawn(self.bag(&["submit", "f.toml"]));
            self.pause(600);
            submitter.kill();
            self.count("submitter");
        }
        let rows = self.run(&["--output", "json", "ls"]).json();
        for row in rows.as_array().unwrap() {
            let id = row["bag"].to_string();
            let resumed = self.run(&["resume", "--detach", &id]);
            if resumed.code == Some(0) {
                return id;
            }
            println!("bag {id} does not go on: {}", resumed.err.trim());
            // Of what was not submitted to its end nothing has begun.
            self.run(&["rm", "--unfinished", &id]).well();
        }
        self.run(&["submit", "f.toml"]).well().trim().to_owned()
    }

    fn count(&mut self, what: &'static str) {
        *self.faults.entry(what).or_default() += 1;
    }

    /// Processes of the bag's members, with the nodes that started them.
    fn members(&self, id: &str) -> Vec<(String, i32)> {
        let path = self.lab.home().join("bags").join(id).join("kept.json");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        // Too large a number for a `Value`.
        let digits = kept.split_once("\"bag\": ").and_then(|(_, rest)| rest.split_once(','));
        let Some(number) = digits.and_then(|(digits, _)| digits.parse::<u128>().ok()) else {
            return Vec::new();
        };
        let bag = format!("{number:032x}");
        let member = |entry: std::fs::DirEntry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let line = std::fs::read_to_string(entry.path().join("cmdline")).ok()?;
            let words: Vec<&str> = line.split('\0').collect();
            let is_it = words.contains(&"keeper") && words.contains(&bag.as_str());
            let node = words.iter().position(|word| *word == "--node")? + 1;
            is_it.then(|| Some((words.get(node)?.to_string(), pid)))?
        };
        std::fs::read_dir("/proc").unwrap().flatten().filter_map(member).collect()
    }

    /// The process that keeps the bag, as some node knows it.
    fn keeper(&self) -> Option<i32> {
        let ask = |node: &&str| {
            let said = self.lab.run(["--output", "json", "--node", node, "apps"]);
            let rows: Value = serde_json::from_str(&said.out).ok()?;
            let app = rows.as_array()?.iter().find(|app| app["name"] == "bag-f")?.clone();
            app["pid"].as_i64().map(|pid| pid as i32)
        };
        NODES.iter().find_map(ask)
    }

    fn kill_member(&mut self, id: &str, but: &str) {
        let members: Vec<_> = self.members(id).into_iter().filter(|(node, _)| node != but).collect();
        if !members.is_empty() {
            kill(members[self.random.below(members.len())].1);
            self.count("member");
        }
    }

    fn inject(&mut self, fault: Fault, id: &str) {
        match fault {
            Fault::Keeper => {
                if let Some(pid) = self.keeper() {
                    kill(pid);
                    self.count("keeper");
                }
            }
            Fault::Member => self.kill_member(id, ""),
            Fault::Node(ms) | Fault::NodeAndMember(ms) => {
                let place = self.random.below(NODES.len());
                let (node, other) = (NODES[place], NODES[(place + 1) % NODES.len()]);
                self.lab.kill(node);
                self.count("node");
                if matches!(fault, Fault::NodeAndMember(_)) {
                    self.kill_member(id, node);
                }
                std::thread::sleep(Duration::from_millis(ms));
                self.up(node, other);
            }
            Fault::Lender(ms) => {
                self.lab.kill(LENDER);
                self.count("lender");
                std::thread::sleep(Duration::from_millis(ms));
                self.up(LENDER, "n1");
            }
            Fault::All => {
                let members = self.members(id);
                NODES.iter().chain([&LENDER]).for_each(|node| self.lab.kill(node));
                members.into_iter().for_each(|(_, process)| kill(process));
                self.count("all");
                self.lab.run(["up", "--name", "n1", "--slots", "2"]).well();
                NODES[1..].iter().chain([&LENDER]).for_each(|node| self.up(node, "n1"));
            }
        }
    }

    fn up(&self, node: &str, other: &str) {
        self.lab.run(["up", "--name", node, "--slots", "2", "--join", other]).well();
    }

    fn done(&self, id: &str) -> u64 {
        let said = self.run(&["show", id, "--output", "json"]);
        serde_json::from_str::<Value>(&said.out)
            .map_or(0, |shown| shown["counts"]["done"].as_u64().unwrap_or(0))
    }
}

fn kill(pid: i32) {
    // It may have ended by itself.
    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
}

fn round(seed: u64) {
    let _replay = Replay(seed);
    let begun = Instant::now();
    let lab = Lab::with_pool(4, 2);
    lab.file(
        "f.toml",
        format!(
            "[task.a]\ncommand = 'sleep 0.3; echo {{n}} > out; echo {{n}}'\n\
             grid = {{ n = {{ from = 1, to = {TASKS} }} }}\noutputs = [{{ here = 'made/{{n}}', there = 'out' }}]\n\
             [task.end]\ncommand = 'echo end'\nafter = ['a']\n"
        ),
    );
    let mut round = Round { lab, random: Random(seed), faults: BTreeMap::new() };
    let id = round.submit();
    for _ in 0..FAULTS {
        round.pause(2500);
        let fault = Fault::draw(&mut round.random);
        round.inject(fault, &id);
    }
    let faults_s = begun.elapsed().as_secs_f64();
    let all = TASKS as u64 + 1;
    round.lab.until_within(PATIENCE, "all is done", || round.done(&id) == all);
    let made = |n: usize| round.lab.path(&format!("made/{n}"));
    for n in 1..=TASKS {
        let is_there = || std::fs::read_to_string(made(n)).is_ok_and(|text| text == format!("{n}\n"));
        round.lab.until_within(PATIENCE, "files are in their places", is_there);
    }
    let is_clean = || std::fs::read_dir(round.lab.path("made")).unwrap().count() == TASKS;
    round.lab.until_within(PATIENCE, "no attempt's own files are left", is_clean);
    let results = round.run(&["results", &id]).well();
    let expected: Vec<String> = (1..=TASKS).map(|n| n.to_string()).chain(["end".into()]).collect();
    assert_eq!(results.lines().collect::<Vec<_>>(), expected, "each once");
    round.run(&["check", &id]).well();
    let killed: Vec<String> = round.faults.iter().map(|(what, count)| format!("{what} {count}")).collect();
    let s = begun.elapsed().as_secs_f64();
    println!("round {seed}: {s:.1} s, of these {faults_s:.1} with faults; killed: {}", killed.join(", "));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn whatever_keeps_it_is_killed_a_bag_is_done_and_each_result_counts_once() {
    // One that is quick is run with all other tests.
    round(number("MUTIRAO_BAG_FAULTS_SEED").unwrap_or(7));
}

#[test]
#[ignore = "takes half an hour; `make test-bag-faults`"]
fn a_hundred_rounds_of_kills() {
    let seed = number("MUTIRAO_BAG_FAULTS_SEED");
    let first = seed.unwrap_or(1);
    let rounds = number("MUTIRAO_BAG_FAULTS_ROUNDS").unwrap_or(if seed.is_some() { 1 } else { ROUNDS });
    (first..first + rounds).for_each(round);
}
