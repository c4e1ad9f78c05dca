//! The form with a letter a line:
//!
//! ```text
//! P rubi                                   # a station
//! T xmandel 1 1 1                          # a program: instances, input channels, output channels
//! L xmandel 0 aplic/mandel/ rubi -2.5 1    # an instance: directory, station, arguments
//! C xmandel 0 0 = gmandel 0 0, gmandel 1 0 # a channel: input ends = output ends
//! ```
//!
//! `#` at the beginning of a word begins a comment.

use crate::draft::{Draft, End, Named, Place, Program, Wire};
use crate::limits::{PORTS_MAX, PROCESSES_MAX};
use crate::problem::{At, Mistake, shown};

const STATION: &str = "P <station>";
const PROGRAM: &str = "T <program> <instances> <input channels> <output channels>";
const PLACE: &str = "L <program> <instance> <directory> <station> [arguments]";
const CHANNEL: &str =
    "C <program> <instance> <input channel> [, ...] = <program> <instance> <output channel> [, ...]";

/// A word with its place.
type Word<'a> = (At, &'a str);

/// Reads a file's text, going on after what is wrong.
pub(crate) fn read(text: &str) -> Draft {
    let mut draft = Draft::default();
    for (i, line) in text.lines().enumerate() {
        let words: Vec<Word<'_>> =
            words(line).map(|(column, word)| (At { line: i + 1, column }, word)).collect();
        let Some(((at, command), rest)) = words.split_first() else { continue };
        let line = Line { at: *at, end: At { line: i + 1, column: line.chars().count() + 1 } };
        match *command {
            "P" => station(&mut draft, line, rest),
            "T" => program(&mut draft, line, rest),
            "L" => place(&mut draft, line, rest),
            "C" => channel(&mut draft, line, rest),
            word => draft.wrong(*at, Mistake::Command { word: shown(word) }),
        }
    }
    draft
}

/// Where a line begins and ends.
#[derive(Clone, Copy)]
struct Line {
    at: At,
    end: At,
}

fn station(draft: &mut Draft, line: Line, rest: &[Word<'_>]) {
    match *rest {
        [(at, name)] => {
            if draft.name(at, "station", name) {
                draft.stations.push(Named { at, name: name.into() });
            }
        }
        [] => missing(draft, line, "the station is missing", STATION),
        [_, (at, _), ..] => surplus(draft, at, STATION),
    }
}

fn program(draft: &mut Draft, line: Line, rest: &[Word<'_>]) {
    let [(at, name), instances, inputs, outputs] = match *rest {
        [name, instances, inputs, outputs] => [name, instances, inputs, outputs],
        [_, _, _, _, (at, _), ..] => return surplus(draft, at, PROGRAM),
        [] => return missing(draft, line, "the program is missing", PROGRAM),
        _ => return missing(draft, line, "numbers are missing", PROGRAM),
    };
    let fits = draft.name(at, "program", name);
    let instances = number(draft, instances, "instances", PROCESSES_MAX);
    let inputs = number(draft, inputs, "input channels", PORTS_MAX);
    let outputs = number(draft, outputs, "output channels", PORTS_MAX);
    if let (true, Some(instances), Some(inputs), Some(outputs)) = (fits, instances, inputs, outputs) {
        draft.programs.push(Program { at, name: name.into(), instances, inputs, outputs });
    }
}

fn place(draft: &mut Draft, line: Line, rest: &[Word<'_>]) {
    let [(at, program), instance, (directory_at, directory), (station_at, station), arguments @ ..] = rest
    else {
        let what = ["the program is", "the instance is", "the directory is", "the station is"][rest.len()];
        return missing(draft, line, &format!("{what} missing"), PLACE);
    };
    let Some(instance) = number(draft, *instance, "an instance", PROCESSES_MAX) else { return };
    let slash = if directory.ends_with('/') { "" } else { "/" };
    draft.places.push(Place {
        at: *at,
        program: (*program).into(),
        instance,
        executable: Named { at: *directory_at, name: format!("{directory}{slash}{program}") },
        station: Some(Named { at: *station_at, name: (*station).into() }),
        arguments: arguments.iter().map(|(_, word)| (*word).into()).collect(),
        environment: Vec::new(),
        directory: None,
        files: Vec::new(),
        slots: 1,
        memory_mib: 0,
        terminal: false,
    });
}

fn channel(draft: &mut Draft, line: Line, rest: &[Word<'_>]) {
    let words: Vec<Word<'_>> = rest.iter().flat_map(|(at, word)| cut(*at, word)).collect();
    let mut sides = words.split(|(_, word)| *word == "=");
    let (Some(left), Some(right)) = (sides.next(), sides.next()) else {
        return missing(draft, line, "there is no `=`", CHANNEL);
    };
    if let Some(third) = sides.next() {
        let at = third.first().map_or(line.end, |(at, _)| *at);
        return draft.wrong(at, Mistake::Form { what: "there is a second `=`".into(), form: CHANNEL });
    }
    let equals = words[left.len()].0;
    let inputs = ends(draft, left, equals);
    let outputs = ends(draft, right, line.end);
    if let (Some(inputs), Some(outputs)) = (inputs, outputs) {
        draft.wires.push(Wire { at: line.at, inputs, outputs, mode: None });
    }
}

/// The ends on one side of a channel; `after` is where the side ends.
fn ends(draft: &mut Draft, words: &[Word<'_>], after: At) -> Option<Vec<End>> {
    let mut ends = Vec::new();
    let mut all = true;
    let mut from = after;
    for end in words.split(|(_, word)| *word == ",") {
        let read = match *end {
            [(at, program), instance, port] => {
                let instance = number(draft, instance, "an instance", PROCESSES_MAX);
                let port = number(draft, port, "a channel", PORTS_MAX);
                instance.zip(port).map(|(instance, port)| End { at, program: program.into(), instance, port })
            }
            [] => {
                let what = "an end is missing: a program, its instance, its channel".into();
                draft.wrong(from, Mistake::Form { what, form: CHANNEL });
                None
            }
            [(at, word), ..] => {
                let what =
                    format!("the end at `{}` is not three words; ends are parted by commas", shown(word));
                draft.wrong(at, Mistake::Form { what, form: CHANNEL });
                None
            }
        };
        if let Some((at, _)) = end.last() {
            from = *at;
        }
        all &= read.is_some();
        ends.extend(read);
    }
    all.then_some(ends)
}

fn number(draft: &mut Draft, (at, word): Word<'_>, what: &'static str, most: u32) -> Option<u32> {
    let digits = word.bytes().all(|byte| byte.is_ascii_digit());
    let number = word.parse().ok().filter(|number| digits && *number <= most);
    if number.is_none() {
        draft.wrong(at, Mistake::Number { word: shown(word), what, most });
    }
    number
}

fn missing(draft: &mut Draft, line: Line, what: &str, form: &'static str) {
    draft.wrong(line.end, Mistake::Form { what: what.into(), form });
}

fn surplus(draft: &mut Draft, at: At, form: &'static str) {
    draft.wrong(at, Mistake::Form { what: "there is more than belongs on this line".into(), form });
}

/// The words of a line, each with its column counted in characters from 1, up to a comment.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = line;
    let mut column = 1;
    std::iter::from_fn(move || {
        let word = rest.trim_start();
        column += rest[..rest.len() - word.len()].chars().count();
        if word.is_empty() || word.starts_with('#') {
            return None;
        }
        let (word, tail) = word.split_at(word.find(char::is_whitespace).unwrap_or(word.len()));
        let start = column;
        column += word.chars().count();
        rest = tail;
        Some((start, word))
    })
}

/// A word of a channel's line cut at commas and equals signs, which are words of their own.
fn cut(at: At, word: &str) -> Vec<Word<'_>> {
    let mut parts = Vec::new();
    let mut column = at.column;
    for part in word.split_inclusive([',', '=']) {
        let (name, sign) = part.split_at(part.find([',', '=']).unwrap_or(part.len()));
        for part in [name, sign].into_iter().filter(|part| !part.is_empty()) {
            parts.push((At { line: at.line, column }, part));
            column += part.chars().count();
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_know_their_columns() {
        assert_eq!(words("  ab  çd\te#f # x").collect::<Vec<_>>(), [(3, "ab"), (7, "çd"), (10, "e#f")]);
        assert_eq!(words("# nothing").count(), 0);
        let at = |column| At { line: 1, column };
        assert_eq!(
            cut(at(3), "0,ç=b"),
            [(at(3), "0"), (at(4), ","), (at(5), "ç"), (at(6), "="), (at(7), "b")]
        );
    }
}
