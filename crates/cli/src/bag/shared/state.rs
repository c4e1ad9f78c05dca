//! What the entries of the log say, and what they have come to, said in short.

use crate::bag::sites::Mark;
use anyhow::{Context, Result};
use mutirao_bag::{Bag, Record, Span};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// What an entry of the log says, or a part of what entries have come to. Later versions append kinds; they change
/// none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// Of a record of the bag, in pieces up to the last.
    Record { last: bool, bytes: Vec<u8> },
    /// What a task has written: behind what was written before, in the file of outputs.
    Output(Vec<u8>),
    /// A file that an attempt has left, which counts if its result does.
    File { attempt: u64, file: File },
    /// A file of the submitter that tasks need, as it was when the bag was submitted.
    Input(File),
    /// A file of a result that counts, by its path.
    Result { path: PathBuf, file: File },
    /// So many bytes are in the file of outputs.
    Outputs(u64),
    /// Tasks work in place, in a directory that is marked so.
    Mark(Mark),
    /// A file of the submitter that tasks find in that directory, as it was when the bag was submitted.
    LyingInput(Lying),
    /// A file that an attempt has left there, which counts if its result does.
    Lying { attempt: u64, file: Lying },
    /// A file of a result that counts, by its path, which lies there.
    LyingResult { path: PathBuf, file: Lying },
}

/// A file, whose content is in the file of outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Of an attempt: its name in the directory of the task. Of an input: its path.
    pub name: String,
    pub executable: bool,
    pub content: Span,
}

/// A file that lies in the directory of the bag's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lying {
    /// Of an attempt: its name in the directory of the task. Of an input: its path.
    pub name: String,
    pub bytes: u64,
    /// When it was last changed, seconds since 1970.
    pub modified_s: i64,
    /// What it is called, beside its path, until it is put in its place. Of an input nothing.
    pub waiting: String,
}

/// A file that an attempt has left.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    /// Its content is in the file of outputs.
    Here(File),
    Lies(Lying),
}

impl Left {
    fn name(&self) -> &str {
        match self {
            Left::Here(file) => &file.name,
            Left::Lies(file) => &file.name,
        }
    }
}

/// What is known beside the bag itself.
#[derive(Debug, Default, PartialEq)]
pub struct Files {
    mark: Option<Mark>,
    /// By attempt, until its result counts.
    left: HashMap<u64, Vec<Left>>,
    inputs: BTreeMap<String, File>,
    lying_inputs: BTreeMap<String, Lying>,
    /// By path, of results that count.
    results: HashMap<PathBuf, Left>,
}

impl Files {
    /// Takes what is said of a file; anything else is of no concern here.
    pub fn take(&mut self, piece: Piece) {
        match piece {
            Piece::File { attempt, file } => self.leaves(attempt, Left::Here(file)),
            Piece::Lying { attempt, file } => self.leaves(attempt, Left::Lies(file)),
            Piece::Input(file) => drop(self.inputs.insert(file.name.clone(), file)),
            Piece::LyingInput(file) => drop(self.lying_inputs.insert(file.name.clone(), file)),
            Piece::Result { path, file } => drop(self.results.insert(path, Left::Here(file))),
            Piece::LyingResult { path, file } => drop(self.results.insert(path, Left::Lies(file))),
            Piece::Mark(mark) => self.mark = Some(mark),
            Piece::Record { .. } | Piece::Output(_) | Piece::Outputs(_) => {}
        }
    }

    fn leaves(&mut self, attempt: u64, file: Left) {
        // One that was lost may have had the same number.
        let left = self.left.entry(attempt).or_default();
        left.retain(|known| known.name() != file.name());
        left.push(file);
    }

    /// By what nodes know the directory where tasks work in place.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    pub fn has_input(&self, path: &str) -> bool {
        self.inputs.contains_key(path)
    }

    /// A file that a task needs, with its content: what another task has made, or what came along when the bag was
    /// submitted.
    pub fn needed(&self, path: &Path) -> Option<&File> {
        match self.results.get(path) {
            Some(Left::Here(file)) => Some(file),
            Some(Left::Lies(_)) => None,
            None => self.inputs.get(path.to_str()?),
        }
    }

    /// The same, if it lies in the directory of the bag's files.
    pub fn lying(&self, path: &Path) -> Option<&Lying> {
        match self.results.get(path) {
            Some(Left::Here(_)) => None,
            Some(Left::Lies(file)) => Some(file),
            None => self.lying_inputs.get(path.to_str()?),
        }
    }

    /// The file of a result that counts.
    pub fn result(&self, path: &Path) -> Option<&Left> {
        self.results.get(path)
    }

    /// The result counts of an attempt whose output files belong there.
    pub fn results_are(&mut self, attempt: u64, paths: &[(String, PathBuf, PathBuf)]) {
        for file in self.left.remove(&attempt).unwrap_or_default() {
            if let Some((_, path, _)) = paths.iter().find(|(there, ..)| there == file.name()) {
                self.results.insert(path.clone(), file);
            }
        }
    }

    /// Files of all other attempts that have not come to count never will.
    pub fn keep_only(&mut self, attempts: &BTreeSet<u64>) {
        self.left.retain(|attempt, _| attempts.contains(attempt));
    }
}

/// What entries have come to.
#[derive(Default)]
pub struct State {
    pub bag: Bag,
    pub files: Files,
    /// Bytes of the file of outputs.
    pub outputs: u64,
    /// Pieces of a record whose last has not come.
    partial: Vec<u8>,
}

impl State {
    /// What follows is by another, who does not go on with a record that has begun.
    pub fn leave_off(&mut self) {
        self.partial.clear();
    }

    /// Takes the next part.
    pub fn take(&mut self, part: &[u8]) -> Result<()> {
        match postcard::from_bytes(part).context("a part of the journal makes no sense")? {
            Piece::Record { last, bytes } => {
                self.partial.extend(bytes);
                if last {
                    let record = std::mem::take(&mut self.partial);
                    self.bag.replay(Record::decode(&record, self.bag.records() + 1)?)?;
                }
            }
            Piece::Outputs(bytes) => self.outputs = bytes,
            piece => self.files.take(piece),
        }
        Ok(())
    }
}

/// The parts that say how a bag stands, its files, and how many bytes its tasks have written. No piece of a record is
/// longer than `bytes_max`.
pub fn pieces<'a>(
    bag: &'a mut Bag,
    files: &'a Files,
    outputs: u64,
    bytes_max: usize,
) -> impl Iterator<Item = Piece> + 'a {
    let inputs = files.inputs.values().cloned().map(Piece::Input);
    let lying_inputs = files.lying_inputs.values().cloned().map(Piece::LyingInput);
    let result = |(path, left): (&PathBuf, &Left)| match (path.clone(), left.clone()) {
        (path, Left::Here(file)) => Piece::Result { path, file },
        (path, Left::Lies(file)) => Piece::LyingResult { path, file },
    };
    let of = |(attempt, left): (&u64, &'a Vec<Left>)| {
        let attempt = *attempt;
        left.iter().cloned().map(move |left| match left {
            Left::Here(file) => Piece::File { attempt, file },
            Left::Lies(file) => Piece::Lying { attempt, file },
        })
    };
    let (results, left) = (files.results.iter().map(result), files.left.iter().flat_map(of));
    let records = bag.shrink().flat_map(move |record| cut(&record.encode(), bytes_max));
    let mark = files.mark.iter().cloned().map(Piece::Mark);
    let all_inputs = mark.chain(inputs).chain(lying_inputs);
    records.chain(all_inputs).chain(results).chain(left).chain([Piece::Outputs(outputs)])
}

/// A record in pieces.
pub fn cut(record: &[u8], bytes_max: usize) -> Vec<Piece> {
    let mut pieces = record.chunks(bytes_max).peekable();
    let mut cut = Vec::new();
    while let Some(bytes) = pieces.next() {
        cut.push(Piece::Record { last: pieces.peek().is_none(), bytes: bytes.to_vec() });
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;
    use mutirao_bag::{Draft, Settings};

    fn file(name: &str, offset: u64) -> File {
        File { name: name.into(), executable: false, content: Span { offset, bytes: 1 } }
    }

    fn lying(name: &str) -> Lying {
        Lying { name: name.into(), bytes: 1 << 40, modified_s: -1, waiting: ".waits".into() }
    }

    #[test]
    fn what_is_said_in_short_says_the_same() {
        let draft = Draft::new(Settings { name: "long".repeat(100), ..Settings::default() });
        let mut state = State::default();
        for record in draft.into_records(7) {
            cut(&record.encode(), 8)
                .iter()
                .for_each(|piece| state.take(&postcard::to_stdvec(piece).unwrap()).unwrap());
        }
        let mark = Mark { name: ".mark".into(), umask: Some(0o22) };
        state.files.take(Piece::Mark(mark.clone()));
        state.files.take(Piece::Input(file("/in", 0)));
        state.files.take(Piece::LyingInput(lying("/lies")));
        for attempt in [1, 2, 3] {
            state.files.take(Piece::File { attempt, file: file("out", attempt) });
            state.files.take(Piece::Lying { attempt, file: lying("placed") });
        }
        let paths = |name: &str, path: &str| (name.into(), path.into(), format!("{path}.1").into());
        state.files.results_are(1, &[paths("out", "/made"), paths("placed", "/placed")]);
        state.files.keep_only(&BTreeSet::from([2]));
        state.outputs = 99;
        let parts: Vec<Vec<u8>> = pieces(&mut state.bag, &state.files, 99, 8)
            .map(|piece| postcard::to_stdvec(&piece).unwrap())
            .collect();
        let mut again = State::default();
        parts.iter().for_each(|part| again.take(part).unwrap());
        assert_eq!((&again.files, again.outputs), (&state.files, 99));
        assert_eq!(again.bag.settings(), state.bag.settings());
        assert_eq!(again.files.needed(Path::new("/made")), Some(&file("out", 1)));
        assert_eq!(again.files.needed(Path::new("/in")), Some(&file("/in", 0)));
        assert_eq!(again.files.lying(Path::new("/placed")), Some(&lying("placed")));
        assert_eq!(again.files.lying(Path::new("/lies")), Some(&lying("/lies")));
        assert_eq!(
            (again.files.needed(Path::new("/placed")), again.files.lying(Path::new("/made"))),
            (None, None)
        );
        assert_eq!(again.files.mark(), Some(&mark));
        assert_eq!(again.files.left.keys().collect::<Vec<_>>(), [&2]);
    }

    #[test]
    fn bytes_that_are_no_part_are_refused() {
        for bytes in [&b""[..], b"\xff", b"\x00\x01\xff", b"\x00\x01\x02\x63\x63"] {
            assert!(State::default().take(bytes).is_err(), "{bytes:?}");
        }
    }
}
