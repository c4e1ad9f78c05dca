//! The TOML form, which says less about machines and more about everything else:
//!
//! ```toml
//! [program.xmandel]
//! executable = "aplic/mandel/xmandel"
//! arguments = ["-2.5", "0.5", "-1", "1"]
//!
//! [program.gmandel]
//! executable = "aplic/mandel/gmandel"
//! instances = 2
//!
//! [[channel]]
//! from = "xmandel.0:0"
//! to = "gmandel.*:0"
//!
//! [[channel]]
//! from = "gmandel.*:0"
//! to = "xmandel.0:0"
//! ```
//!
//! How many channels a program has follows from the channels.

use crate::draft::{Draft, End, Named, Place, Program, Restart, Strategy, Wire};
use crate::limits::{ENDS_MAX, PORTS_MAX, PROCESSES_MAX, RESTARTS, RESTARTS_WITHIN_S};
use crate::plan::Mode;
use crate::problem::{At, Mistake, shown};
use core::fmt;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error, ValueDeserializer};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    group: Group,
    #[serde(default)]
    program: BTreeMap<Spanned<String>, ProgramTable>,
    #[serde(default)]
    channel: Vec<Spanned<ChannelTable>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Group {
    name: Option<Spanned<String>>,
    #[serde(default)]
    collectives: bool,
    stored_mib: Option<u32>,
    #[serde(default)]
    spill: bool,
    restart: Option<Strategy>,
    restarts: Option<u32>,
    within_s: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ProgramTable {
    executable: Spanned<String>,
    instances: Option<Spanned<u32>>,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    environment: BTreeMap<String, String>,
    directory: Option<String>,
    #[serde(default)]
    files: Vec<Spanned<String>>,
    stations: Option<Spanned<Vec<Spanned<String>>>>,
    slots: Option<u16>,
    memory_mib: Option<u32>,
    #[serde(default)]
    terminal: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChannelTable {
    from: Spanned<Ends>,
    to: Spanned<Ends>,
    mode: Option<ModeWord>,
}

/// One end, or a list. Read by hand, since an untagged enum loses the places.
enum Ends {
    One(String),
    Several(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for Ends {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EndsVisitor;
        impl<'de> Visitor<'de> for EndsVisitor {
            type Value = Ends;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an end of a channel such as \"xmandel.0:0\", or a list of them")
            }

            fn visit_str<E>(self, word: &str) -> Result<Ends, E> {
                Ok(Ends::One(word.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<Ends, A::Error> {
                let mut ends = Vec::new();
                while let Some(end) = words.next_element()? {
                    ends.push(end);
                }
                Ok(Ends::Several(ends))
            }
        }
        deserializer.deserialize_any(EndsVisitor)
    }
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum ModeWord {
    Sync,
    Async,
}

/// Whether a text is meant to be of this form: its first word begins with `[`, or is given a value.
pub(crate) fn is_one(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.next().is_some_and(|line| {
        let mut words = line.split_whitespace();
        line.starts_with('[')
            || words.next().is_some_and(|word| word.contains('='))
            || words.next() == Some("=")
    })
}

/// Reads a file's text.
pub(crate) fn read(text: &str) -> Draft {
    let mut draft = Draft::default();
    let document: Document = match toml::from_str(text) {
        Ok(document) => document,
        Err(error) => {
            for error in errors(text, error) {
                let at = At::of(text, error.span().map_or(0, |span| span.start));
                draft.wrong(at, Mistake::Document { reason: mutirao_text::in_words(error.message()) });
            }
            return draft;
        }
    };
    let mut reader = Reader { text, draft, ports: BTreeMap::new(), ends: 0 };
    reader.group(&document.group);
    // As they stand in the file: ranks follow that order.
    let mut programs: Vec<_> = document.program.iter().collect();
    programs.sort_by_key(|(name, _)| name.span().start);
    let counts: BTreeMap<&str, u32> =
        programs.iter().map(|(name, table)| (name.get_ref().as_str(), table.count())).collect();
    for channel in &document.channel {
        reader.channel(channel, &counts);
    }
    for (name, table) in programs {
        reader.program(name, table);
    }
    reader.draft
}

/// What keeps a text from being a document, of which `first` is known: of each table what is wrong there first.
fn errors(text: &str, first: Error) -> Vec<Error> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return errors;
    }
    let mut errors = Vec::new();
    for (key, value) in document.into_inner() {
        let tables: Vec<Spanned<DeValue<'_>>> = match (key.get_ref().as_ref(), value.get_ref()) {
            ("program", DeValue::Table(programs)) => programs.values().cloned().collect(),
            ("channel", DeValue::Array(channels)) => channels.iter().cloned().collect(),
            _ => vec![value],
        };
        for table in tables.into_iter().map(ValueDeserializer::from) {
            errors.extend(match key.get_ref().as_ref() {
                "group" => Group::deserialize(table).err(),
                "program" => ProgramTable::deserialize(table).err(),
                "channel" => ChannelTable::deserialize(table).err(),
                _ => None,
            });
        }
    }
    // What is wrong with the whole is none of theirs.
    if errors.iter().all(|error| error.span() != first.span()) {
        errors.push(first);
    }
    errors
}

impl ProgramTable {
    fn count(&self) -> u32 {
        self.instances.as_ref().map_or(1, |instances| *instances.get_ref())
    }
}

struct Reader<'a> {
    text: &'a str,
    draft: Draft,
    /// Input and output channels of each program, by the highest number that a channel names.
    ports: BTreeMap<String, (u32, u32)>,
    /// Ends of channels so far.
    ends: usize,
}

impl Reader<'_> {
    fn at<T>(&self, word: &Spanned<T>) -> At {
        At::of(self.text, word.span().start)
    }

    fn group(&mut self, group: &Group) {
        if let Some(name) = &group.name {
            self.draft.name(self.at(name), "group", name.get_ref());
        }
        let settings = &mut self.draft.settings;
        settings.name = group.name.as_ref().map(|name| name.get_ref().clone());
        settings.collectives = group.collectives;
        settings.spill = group.spill;
        if let Some(mib) = group.stored_mib {
            settings.stored_bytes_max = u64::from(mib) << 20;
        }
        settings.restart = Restart {
            strategy: group.restart.unwrap_or(Strategy::None),
            most: group.restarts.unwrap_or(RESTARTS),
            within_s: group.within_s.unwrap_or(RESTARTS_WITHIN_S),
        };
    }

    fn program(&mut self, name: &Spanned<String>, table: &ProgramTable) {
        let (at, instances) = (self.at(name), table.count());
        let name = name.get_ref();
        self.draft.name(at, "program", name);
        if let Some(count) = table.instances.as_ref().filter(|_| instances > PROCESSES_MAX) {
            let word = instances.to_string();
            let what = "instances";
            return self.draft.wrong(self.at(count), Mistake::Number { word, what, most: PROCESSES_MAX });
        }
        if self.draft.places.len() + instances as usize > PROCESSES_MAX as usize {
            return self.draft.wrong(at, Mistake::TooMany { what: "processes" });
        }
        let (inputs, outputs) = self.ports.get(name).copied().unwrap_or_default();
        self.draft.programs.push(Program { at, name: name.clone(), instances, inputs, outputs });
        let named = |word: &Spanned<String>| Named { at: self.at(word), name: word.get_ref().clone() };
        let stations: Vec<Named> = table.stations.iter().flat_map(|all| all.get_ref()).map(named).collect();
        let files: Vec<Named> = table.files.iter().map(named).collect();
        let executable = named(&table.executable);
        if let Some(all) =
            table.stations.as_ref().filter(|_| ![1, instances as usize].contains(&stations.len()))
        {
            let (program, stations) = (name.clone(), stations.len());
            self.draft.wrong(self.at(all), Mistake::Stations { program, stations, count: instances });
        }
        for station in &stations {
            let known = self.draft.stations.iter().any(|known| known.name == station.name);
            if self.draft.name(station.at, "station", &station.name) && !known {
                self.draft.stations.push(station.clone());
            }
        }
        for instance in 0..instances {
            let station = stations.get(instance as usize).or(stations.first()).cloned();
            self.draft.places.push(Place {
                at,
                program: name.clone(),
                instance,
                executable: executable.clone(),
                station,
                arguments: table.arguments.clone(),
                environment: table.environment.clone().into_iter().collect(),
                directory: table.directory.clone(),
                files: files.clone(),
                slots: table.slots.unwrap_or(1).max(1),
                memory_mib: table.memory_mib.unwrap_or(0),
                terminal: table.terminal,
            });
        }
    }

    fn channel(&mut self, channel: &Spanned<ChannelTable>, counts: &BTreeMap<&str, u32>) {
        let at = self.at(channel);
        let table = channel.get_ref();
        let before = self.draft.problems.len();
        if self.ends > ENDS_MAX {
            return self.draft.wrong(at, Mistake::TooMany { what: "channels" });
        }
        let outputs = self.ends(&table.from, counts);
        let inputs = self.ends(&table.to, counts);
        self.ends += inputs.len() + outputs.len();
        for (ends, is_input) in [(&inputs, true), (&outputs, false)] {
            // Of an instance that is not there nothing follows.
            let there =
                |end: &&End| counts.get(end.program.as_str()).is_some_and(|count| end.instance < *count);
            for end in ends.iter().filter(there) {
                let ports = self.ports.entry(end.program.clone()).or_default();
                let count = if is_input { &mut ports.0 } else { &mut ports.1 };
                *count = (*count).max(end.port + 1);
            }
        }
        let mode = table.mode.map(|mode| match mode {
            ModeWord::Sync => Mode::Sync,
            ModeWord::Async => Mode::Async,
        });
        if inputs.is_empty() || outputs.is_empty() {
            // Unless it has been said of an end.
            if self.draft.problems.len() == before {
                self.draft
                    .wrong(at, Mistake::Document { reason: "a channel has an end on each side".into() });
            }
            return;
        }
        self.draft.wires.push(Wire { at, inputs, outputs, mode });
    }

    fn ends(&mut self, ends: &Spanned<Ends>, counts: &BTreeMap<&str, u32>) -> Vec<End> {
        let words: Vec<(At, &str)> = match ends.get_ref() {
            Ends::One(word) => vec![(self.at(ends), word.as_str())],
            Ends::Several(words) => {
                words.iter().map(|word| (self.at(word), word.get_ref().as_str())).collect()
            }
        };
        let mut ends = Vec::new();
        for (at, word) in words {
            match end_word(word, counts) {
                Some((program, instances, port)) => {
                    ends.extend(instances.map(|instance| End {
                        at,
                        program: program.into(),
                        instance,
                        port,
                    }));
                }
                None => self.draft.wrong(at, Mistake::End { word: shown(word) }),
            }
        }
        ends
    }
}

/// A program, its instances, and a channel, out of `program.instance:channel` or `program.*:channel`.
fn end_word<'a>(word: &'a str, counts: &BTreeMap<&str, u32>) -> Option<(&'a str, std::ops::Range<u32>, u32)> {
    let (process, port) = word.rsplit_once(':')?;
    let (program, instance) = process.rsplit_once('.')?;
    let port = port.parse().ok().filter(|port| *port < PORTS_MAX)?;
    let instances = match instance {
        // Of a program that is not there one end is enough to say so.
        "*" => 0..counts.get(program).copied().unwrap_or(1).min(PROCESSES_MAX),
        number => {
            let number: u32 = number.parse().ok().filter(|number| *number <= PROCESSES_MAX)?;
            number..number + 1
        }
    };
    (!program.is_empty()).then_some((program, instances, port))
}
