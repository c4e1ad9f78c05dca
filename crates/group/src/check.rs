//! Whether what a file says can be run; everything that is wrong is told at once.

use crate::application::{Application, Channel, End, Process};
use crate::draft::{self, Draft, Named, Place, Program, Wire};
use crate::limits::{ENDS_MAX, PROCESSES_MAX};
use crate::problem::{At, Mistake, Problem, Side, shown};
use mutirao_text::alike;
use std::collections::{BTreeMap, BTreeSet};

/// Makes an application of a draft, or says what is in the way, in the order of the file.
pub(crate) fn check(
    draft: Draft,
    look: impl Fn(&str, bool) -> Option<String>,
) -> Result<Application, Vec<Problem>> {
    let unreadable = !draft.problems.is_empty();
    let mut check = Check { problems: draft.problems, programs: BTreeMap::new(), wired: BTreeMap::new() };
    let stations = check.stations(&draft.stations);
    let first_ranks = check.programs(draft.programs, unreadable);
    let mut places = check.places(&draft.places, &stations);
    check.files(&draft.places, look);
    let mut channels = Vec::new();
    for wire in &draft.wires {
        channels.extend(check.wire(wire, &first_ranks));
    }
    let pairs = channels.iter().map(|channel| channel.inputs.len() * channel.outputs.len()).sum::<usize>();
    if pairs > ENDS_MAX {
        let at = draft.wires[0].at;
        check.wrong(at, Mistake::TooMany { what: "channels" });
    }
    let mut processes = Vec::new();
    let programs = std::mem::take(&mut check.programs);
    let mut in_order: Vec<&Program> = programs.values().collect();
    in_order.sort_by_key(|program| first_ranks.get(&program.name));
    for program in in_order {
        for instance in 0..program.instances {
            match places.remove(&(program.name.as_str(), instance)) {
                Some(place) => processes.push(process(program, place)),
                // A line that could not be read may have been its place.
                None if unreadable => {}
                None => {
                    let process = format!("{}.{instance}", program.name);
                    check.wrong(program.at, Mistake::Unplaced { process });
                }
            }
            if !unreadable {
                check.unwired(program, instance);
            }
        }
    }
    if !check.problems.is_empty() {
        check.problems.sort();
        check.problems.dedup();
        return Err(check.problems);
    }
    let stations = draft.stations.into_iter().map(|station| station.name).collect();
    Ok(Application { settings: draft.settings, stations, processes, channels })
}

fn process(program: &Program, place: &Place) -> Process {
    Process {
        program: program.name.clone(),
        instance: place.instance,
        executable: place.executable.name.clone(),
        arguments: place.arguments.clone(),
        environment: place.environment.clone(),
        directory: place.directory.clone(),
        files: place.files.iter().map(|file| file.name.clone()).collect(),
        station: place.station.as_ref().map(|station| station.name.clone()),
        slots: place.slots,
        memory_mib: place.memory_mib,
        terminal: place.terminal,
        inputs: program.inputs,
        outputs: program.outputs,
    }
}

struct Check {
    problems: Vec<Problem>,
    programs: BTreeMap<String, Program>,
    /// Ends of channels that are wired, by process, side and number, with the place.
    wired: BTreeMap<(String, u32, Side, u32), At>,
}

impl Check {
    fn wrong(&mut self, at: At, mistake: Mistake) {
        self.problems.push(mistake.at(at));
    }

    fn stations<'a>(&mut self, stations: &'a [Named]) -> BTreeSet<&'a str> {
        let mut known: BTreeMap<&str, At> = BTreeMap::new();
        for station in stations {
            if let Some(first) = known.get(station.name.as_str()).copied() {
                self.wrong(station.at, Mistake::Twice { what: "station", name: station.name.clone(), first });
            }
            known.entry(&station.name).or_insert(station.at);
        }
        known.into_keys().collect()
    }

    /// Takes the programs in; the rank of the first instance of each.
    fn programs(&mut self, programs: Vec<Program>, unreadable: bool) -> BTreeMap<String, u32> {
        if programs.is_empty() && !unreadable {
            self.wrong(At { line: 1, column: 1 }, Mistake::Empty);
        }
        let mut ranks = BTreeMap::new();
        let mut total = 0_u32;
        for program in programs {
            if let Some(first) = self.programs.get(&program.name) {
                let first = first.at;
                self.wrong(program.at, Mistake::Twice { what: "program", name: program.name, first });
                continue;
            }
            if program.instances == 0 {
                self.wrong(program.at, Mistake::NoInstances { program: program.name.clone() });
            }
            ranks.insert(program.name.clone(), total);
            total = total.saturating_add(program.instances);
            if total > PROCESSES_MAX {
                self.wrong(program.at, Mistake::TooMany { what: "processes" });
                total = 0;
                continue;
            }
            self.programs.insert(program.name.clone(), program);
        }
        ranks
    }

    /// Whether there is such an instance; says so if not.
    fn exists(&mut self, at: At, program: &str, instance: u32) -> bool {
        let Some(known) = self.programs.get(program) else {
            let meant = alike(program, self.programs.keys().map(String::as_str));
            self.wrong(at, Mistake::UnknownProgram { name: shown(program), meant });
            return false;
        };
        let (count, declared) = (known.instances, known.at);
        if instance >= count {
            self.wrong(at, Mistake::NoInstance { program: program.into(), instance, count, declared });
        }
        instance < count
    }

    fn places<'a>(
        &mut self,
        places: &'a [Place],
        stations: &BTreeSet<&str>,
    ) -> BTreeMap<(&'a str, u32), &'a Place> {
        let mut placed: BTreeMap<(&str, u32), &Place> = BTreeMap::new();
        for place in places {
            if let Some(station) = place.station.as_ref().filter(|one| !stations.contains(one.name.as_str()))
            {
                let meant = alike(&station.name, stations.iter().copied());
                self.wrong(station.at, Mistake::UnknownStation { name: shown(&station.name), meant });
            }
            if !self.exists(place.at, &place.program, place.instance) {
                continue;
            }
            let key = (place.program.as_str(), place.instance);
            if let Some(first) = placed.get(&key) {
                let (process, first) = (format!("{}.{}", key.0, key.1), first.at);
                self.wrong(place.at, Mistake::PlacedTwice { process, first });
                continue;
            }
            placed.insert(key, place);
        }
        placed
    }

    /// Looks once at each file that is named.
    fn files(&mut self, places: &[Place], look: impl Fn(&str, bool) -> Option<String>) {
        let mut seen = BTreeSet::new();
        for place in places {
            let files = place.files.iter().map(|file| (file, false));
            for (file, executable) in std::iter::once((&place.executable, true)).chain(files) {
                if !seen.insert((file.name.as_str(), executable)) {
                    continue;
                }
                if let Some(why) = look(&file.name, executable) {
                    self.wrong(file.at, Mistake::Unusable { path: shown(&file.name), why });
                }
            }
        }
    }

    fn wire(&mut self, wire: &Wire, first_ranks: &BTreeMap<String, u32>) -> Option<Channel> {
        if wire.inputs.len() > 1 && wire.outputs.len() > 1 {
            self.wrong(wire.at, Mistake::BothSides);
        }
        let before = self.problems.len();
        let inputs = self.ends(&wire.inputs, Side::Input, first_ranks);
        let outputs = self.ends(&wire.outputs, Side::Output, first_ranks);
        for end in &wire.inputs {
            let same = |other: &&draft::End| (&other.program, other.instance) == (&end.program, end.instance);
            if wire.outputs.iter().any(|other| same(&other)) {
                let process = format!("{}.{}", shown(&end.program), end.instance);
                self.wrong(end.at, Mistake::Itself { process });
            }
        }
        (self.problems.len() == before).then_some(Channel { inputs, outputs, mode: wire.mode })
    }

    fn ends(&mut self, ends: &[draft::End], side: Side, first_ranks: &BTreeMap<String, u32>) -> Vec<End> {
        let mut sound = Vec::new();
        for end in ends {
            if !self.exists(end.at, &end.program, end.instance) {
                continue;
            }
            let program = &self.programs[&end.program];
            let count = if side == Side::Input { program.inputs } else { program.outputs };
            let process = format!("{}.{}", end.program, end.instance);
            if end.port >= count {
                let declared = program.at;
                self.wrong(end.at, Mistake::NoPort { process, side, port: end.port, count, declared });
                continue;
            }
            let key = (end.program.clone(), end.instance, side, end.port);
            if let Some(first) = self.wired.get(&key).copied() {
                self.wrong(end.at, Mistake::WiredTwice { process, side, port: end.port, first });
                continue;
            }
            self.wired.insert(key, end.at);
            let first = first_ranks.get(&end.program).copied().unwrap_or_default();
            sound.push(End { rank: first + end.instance, port: end.port });
        }
        sound
    }

    fn unwired(&mut self, program: &Program, instance: u32) {
        for (side, count) in [(Side::Input, program.inputs), (Side::Output, program.outputs)] {
            for port in 0..count {
                if !self.wired.contains_key(&(program.name.clone(), instance, side, port)) {
                    let process = format!("{}.{instance}", program.name);
                    self.wrong(program.at, Mistake::Unwired { process, side, port });
                }
            }
        }
    }
}
