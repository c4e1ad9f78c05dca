//! Where arguments come from, and how those of several sources are combined.

use super::args::Separator;
use anyhow::{Context, Result, bail};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The longest argument read, bytes: a file without line ends is no list of arguments.
const ARGUMENT_BYTES_MAX: u64 = 1024 * 1024;
/// The largest part of an input that one job is given, bytes.
const PART_BYTES_MAX: u64 = 48 << 20;
/// Arguments kept for a source that is gone through more than once, bytes.
const KEPT_BYTES_MAX: usize = 1 << 30;

/// The arguments of one job.
pub type Arguments = Vec<Vec<u8>>;

/// The command, and where its arguments come from.
#[derive(Debug)]
pub struct Words {
    /// The command's words, joined by blanks; empty if the arguments are themselves commands.
    pub command: Vec<u8>,
    /// Sources, in groups that go in step.
    pub groups: Vec<Vec<Source>>,
}

/// A source of arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// These.
    List(Vec<Vec<u8>>),
    /// Lines of a file; `-` is standard input.
    Lines(PathBuf),
}

/// How a source is read.
#[derive(Debug, Clone)]
pub struct Reading {
    /// What ends an argument.
    pub end: u8,
    /// At what it is split.
    pub separator: Option<Separator>,
    /// Whether empty ones are left out.
    pub skip_empty: bool,
}

impl Words {
    /// Takes the words after the options apart. `files` go before the sources named there.
    pub fn parse(words: &[OsString], files: &[PathBuf]) -> Words {
        let mark = |word: &OsString| matches!(word.as_bytes(), b":::" | b":::+" | b"::::" | b"::::+");
        let first = words.iter().position(mark).unwrap_or(words.len());
        let command: Vec<&[u8]> = words[..first].iter().map(|word| word.as_bytes()).collect();
        let mut groups: Vec<Vec<Source>> =
            files.iter().map(|file| vec![Source::Lines(file.clone())]).collect();
        let mut rest = &words[first..];
        while let Some((kind, after)) = rest.split_first() {
            let next = after.iter().position(mark).unwrap_or(after.len());
            let (values, others) = after.split_at(next);
            let sources: Vec<Source> = match kind.as_bytes().starts_with(b"::::") {
                true => values.iter().map(|file| Source::Lines(file.into())).collect(),
                false => vec![Source::List(values.iter().map(|value| value.as_bytes().to_vec()).collect())],
            };
            match groups.last_mut().filter(|_| kind.as_bytes().ends_with(b"+")) {
                Some(group) => group.extend(sources),
                None => groups.extend(sources.into_iter().map(|source| vec![source])),
            }
            rest = others;
        }
        if groups.is_empty() {
            groups.push(vec![Source::Lines("-".into())]);
        }
        Words { command: command.join(&b' '), groups }
    }

    /// How many sources are standard input.
    pub fn stdin_sources(&self) -> usize {
        let stdin =
            |source: &&Source| matches!(source, Source::Lines(path) if path.as_os_str() == OsStr::new("-"));
        self.groups.iter().flatten().filter(stdin).count()
    }
}

/// Parts of the one source, each of about so many bytes or so many lines, cut at line ends.
pub fn parts(words: &Words, reading: &Reading, block: u64, lines: Option<u32>) -> Result<Values> {
    let [group] = &words.groups[..] else {
        bail!("with --pipe there is one input: standard input, or a file after --arg-file");
    };
    let [Source::Lines(path)] = &group[..] else {
        bail!("with --pipe the input is standard input, or a file after --arg-file; it takes no arguments");
    };
    if words.command.is_empty() {
        bail!("with --pipe a command is needed, which reads its part of the input");
    }
    let name = path.display().to_string();
    let end = reading.end;
    let from: Box<dyn BufRead + Send> = match path.as_os_str() == "-" {
        true => Box::new(BufReader::new(std::io::stdin())),
        false => Box::new(BufReader::new(File::open(path).with_context(|| format!("cannot open {name}"))?)),
    };
    Ok(Box::new(Parts { from, end, block, lines, name }))
}

struct Parts<R> {
    from: R,
    end: u8,
    block: u64,
    lines: Option<u32>,
    name: String,
}

impl<R: BufRead> Parts<R> {
    fn read(&mut self, part: &mut Vec<u8>) -> std::io::Result<()> {
        match self.lines {
            Some(lines) => {
                for _ in 0..lines {
                    self.line(part)?;
                }
            }
            None => {
                (&mut self.from).take(self.block).read_to_end(part)?;
                if part.last().is_some_and(|last| *last != self.end) {
                    self.line(part)?;
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, part: &mut Vec<u8>) -> std::io::Result<()> {
        let room = PART_BYTES_MAX.saturating_sub(part.len() as u64) + 1;
        (&mut self.from).take(room).read_until(self.end, part).map(|_| ())
    }
}

impl<R: BufRead> Iterator for Parts<R> {
    type Item = Result<Arguments>;

    fn next(&mut self) -> Option<Result<Arguments>> {
        let mut part = Vec::new();
        if let Err(error) = self.read(&mut part) {
            return Some(Err(error).with_context(|| format!("cannot read {}", self.name)));
        }
        if part.len() as u64 > PART_BYTES_MAX {
            let most = crate::output::bytes(PART_BYTES_MAX);
            return Some(Err(anyhow::anyhow!("{} has more than {most} between two line ends", self.name)));
        }
        (!part.is_empty()).then(|| Ok(vec![part]))
    }
}

/// The arguments of one job after the other.
pub type Values = Box<dyn Iterator<Item = Result<Arguments>> + Send>;

impl Source {
    /// Opens it; a file that is not there is told at once.
    fn open(&self, reading: &Reading) -> Result<Values> {
        let Reading { end, separator, skip_empty } = reading.clone();
        let raw: Box<dyn Iterator<Item = Result<Vec<u8>>> + Send> = match self {
            Source::List(values) => Box::new(values.clone().into_iter().map(Ok)),
            Source::Lines(path) if path.as_os_str() == "-" => {
                let from = BufReader::new(std::io::stdin());
                Box::new(Lines { from, end, name: "standard input".into() })
            }
            Source::Lines(path) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
                if file.metadata().is_ok_and(|facts| facts.is_dir()) {
                    bail!("cannot read arguments from {name}: it is a directory");
                }
                Box::new(Lines { from: BufReader::new(file), end, name })
            }
        };
        let kept = raw.filter(move |value| !skip_empty || !value.as_ref().is_ok_and(Vec::is_empty));
        Ok(Box::new(kept.map(move |value| Ok(split(value?, separator.as_ref())))))
    }
}

fn split(value: Vec<u8>, separator: Option<&Separator>) -> Arguments {
    let Some(Separator(separator)) = separator else { return vec![value] };
    let mut columns = Vec::new();
    let mut rest = value.as_slice();
    while let Some(at) = rest.windows(separator.len()).position(|part| part == separator) {
        columns.push(rest[..at].to_vec());
        rest = &rest[at + separator.len()..];
    }
    columns.push(rest.to_vec());
    columns
}

struct Lines<R> {
    from: R,
    end: u8,
    name: String,
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Result<Vec<u8>>> {
        let mut line = Vec::new();
        let read = (&mut self.from).take(ARGUMENT_BYTES_MAX + 1).read_until(self.end, &mut line);
        match read.with_context(|| format!("cannot read {}", self.name)) {
            Ok(0) => None,
            Ok(_) => {
                if line.last() == Some(&self.end) {
                    line.pop();
                }
                if line.len() as u64 > ARGUMENT_BYTES_MAX {
                    let most = crate::output::bytes(ARGUMENT_BYTES_MAX);
                    return Some(Err(anyhow::anyhow!(
                        "{} has an argument of more than {most}; are its arguments separated otherwise (--null)?",
                        self.name
                    )));
                }
                Some(Ok(line))
            }
            Err(error) => Some(Err(error)),
        }
    }
}

/// Everything with everything: the first group is gone through once, as it comes; the others are kept.
pub fn combine(groups: &[Vec<Source>], reading: &Reading) -> Result<Values> {
    let mut combined: Option<Values> = None;
    for group in groups {
        let values = in_step(group, reading)?;
        combined = Some(match combined {
            None => values,
            Some(before) => {
                let kept = keep(values)?;
                Box::new(before.flat_map(move |first| match first {
                    Err(error) => vec![Err(error)],
                    Ok(first) => kept.iter().map(|second| Ok([first.as_slice(), second].concat())).collect(),
                }))
            }
        });
    }
    combined.context("there is no source of arguments")
}

/// All values of a source, for going through them again and again.
pub fn keep(values: Values) -> Result<Vec<Arguments>> {
    let mut bytes = 0;
    let mut kept = Vec::new();
    for value in values {
        let value = value?;
        bytes += value.iter().map(|argument| argument.len() + size_of::<Vec<u8>>()).sum::<usize>();
        if bytes > KEPT_BYTES_MAX {
            bail!(
                "more than {} of arguments can only be read as they come: as the first source, without `--eta` \
                 and percentages in `--halt`",
                crate::output::bytes(KEPT_BYTES_MAX as u64)
            );
        }
        kept.push(value);
    }
    Ok(kept)
}

/// The first with the first, the second with the second, as far as the shortest source goes.
fn in_step(group: &[Source], reading: &Reading) -> Result<Values> {
    let mut sources = group.iter().map(|source| source.open(reading)).collect::<Result<Vec<_>>>()?;
    if sources.len() == 1 {
        return Ok(sources.remove(0));
    }
    Ok(Box::new(std::iter::from_fn(move || {
        let mut all = Arguments::new();
        for source in &mut sources {
            match source.next()? {
                Ok(arguments) => all.extend(arguments),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(all))
    })))
}

/// So many at a time, those of one job together.
pub fn chunks(mut values: Values, many: Option<u32>) -> Values {
    let Some(many) = many.filter(|&many| many > 1) else { return values };
    Box::new(std::iter::from_fn(move || {
        let mut chunk = Arguments::new();
        for _ in 0..many {
            match values.next() {
                Some(Ok(arguments)) => chunk.extend(arguments),
                Some(Err(error)) => return Some(Err(error)),
                None => break,
            }
        }
        (!chunk.is_empty()).then_some(Ok(chunk))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading() -> Reading {
        Reading { end: b'\n', separator: None, skip_empty: false }
    }

    fn list(values: &[&str]) -> Source {
        Source::List(values.iter().map(|value| value.as_bytes().to_vec()).collect())
    }

    fn texts(values: Values) -> Vec<String> {
        let text = |arguments: Arguments| String::from_utf8(arguments.join(&b' ')).unwrap();
        values.map(|value| text(value.unwrap())).collect()
    }

    fn words(words: &[&str]) -> Words {
        Words::parse(&words.iter().map(OsString::from).collect::<Vec<_>>(), &[])
    }

    #[test]
    fn command_and_sources_are_told_apart() {
        let all = ["echo", "-n", "{}", ":::", "a", "b", ":::+", "1", "2", "::::", "f", "g", "::::+", "h"];
        let parsed = words(&all);
        assert_eq!(parsed.command, b"echo -n {}");
        let lines = |name: &str| Source::Lines(name.into());
        assert_eq!(
            parsed.groups,
            [vec![list(&["a", "b"]), list(&["1", "2"])], vec![lines("f")], vec![lines("g"), lines("h")]]
        );
        assert_eq!(words(&["wc"]).groups, [vec![lines("-")]]);
        assert_eq!(words(&[":::", "true"]).command, b"");
    }

    #[test]
    fn all_are_combined_with_all_and_linked_ones_go_in_step() {
        let all = |given: &[&str]| texts(combine(&words(given).groups, &reading()).unwrap());
        assert_eq!(all(&[":::", "a", "b", ":::", "1", "2"]), ["a 1", "a 2", "b 1", "b 2"]);
        assert_eq!(all(&[":::", "a", "b", ":::+", "1", "2", "3"]), ["a 1", "b 2"]);
        let three = all(&[":::", "a", "b", ":::+", "1", "2", ":::", "x", "y"]);
        assert_eq!(three, ["a 1 x", "a 1 y", "b 2 x", "b 2 y"]);
        assert!(all(&[":::", "a", ":::"]).is_empty());
    }

    #[test]
    fn arguments_are_split_skipped_and_put_together() {
        let split = Reading { separator: Some(Separator(b",".to_vec())), skip_empty: true, ..reading() };
        let values = combine(&[vec![list(&["a,b", "", "c"])]], &split).unwrap();
        let values: Vec<Arguments> = values.map(Result::unwrap).collect();
        assert_eq!(values, [vec![b"a".to_vec(), b"b".to_vec()], vec![b"c".to_vec()]]);
        let values = combine(&[vec![list(&["a", "b", "c"])]], &reading()).unwrap();
        assert_eq!(texts(chunks(values, Some(2))), ["a b", "c"]);
    }

    #[test]
    fn parts_are_cut_at_line_ends_and_nothing_is_lost() {
        let text = b"one\ntwo\nthree\nfour";
        let parts = |block, lines| -> Vec<Vec<u8>> {
            let parts = Parts { from: &text[..], end: b'\n', block, lines, name: "x".into() };
            parts.map(|part| part.unwrap().remove(0)).collect()
        };
        assert_eq!(parts(5, None), [&b"one\ntwo\n"[..], b"three\n", b"four"]);
        assert_eq!(parts(4, None).concat(), text);
        assert_eq!(parts(1000, None), [text]);
        assert_eq!(parts(1, Some(3)), [&b"one\ntwo\nthree\n"[..], b"four"]);
        let long = vec![b'x'; PART_BYTES_MAX as usize + 2];
        let mut parts = Parts { from: &long[..], end: b'\n', block: 1, lines: None, name: "x".into() };
        assert!(parts.next().unwrap().is_err());
    }

    #[test]
    fn files_are_read_by_lines_and_what_is_no_list_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("list");
        std::fs::write(&file, "one\n\ntwo").unwrap();
        let of = |path: &std::path::Path| combine(&[vec![Source::Lines(path.into())]], &reading());
        assert_eq!(texts(of(&file).unwrap()), ["one", "", "two"]);
        assert!(of(&directory.path().join("absent")).is_err());
        assert!(of(directory.path()).is_err());
        std::fs::write(&file, vec![b'x'; 2 * ARGUMENT_BYTES_MAX as usize]).unwrap();
        assert!(of(&file).unwrap().next().unwrap().is_err());
    }
}
