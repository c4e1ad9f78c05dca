//! What the entries of the log say, and what they have come to, said in short.

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
}

/// A file, whose content is in the file of outputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Of an attempt: its name in the directory of the task. Of an input: its path.
    pub name: String,
    pub executable: bool,
    pub content: Span,
}

/// What is known beside the bag itself.
#[derive(Debug, Default, PartialEq)]
pub struct Files {
    /// By attempt, until its result counts.
    left: HashMap<u64, Vec<File>>,
    inputs: BTreeMap<String, File>,
    /// By path, of results that count.
    results: HashMap<PathBuf, File>,
}

impl Files {
    /// Takes what is said of a file; anything else is of no concern here.
    pub fn take(&mut self, piece: Piece) {
        match piece {
            Piece::File { attempt, file } => {
                // One that was lost may have had the same number.
                let left = self.left.entry(attempt).or_default();
                left.retain(|known| known.name != file.name);
                left.push(file);
            }
            Piece::Input(file) => drop(self.inputs.insert(file.name.clone(), file)),
            Piece::Result { path, file } => drop(self.results.insert(path, file)),
            Piece::Record { .. } | Piece::Output(_) | Piece::Outputs(_) => {}
        }
    }

    pub fn has_input(&self, path: &str) -> bool {
        self.inputs.contains_key(path)
    }

    /// A file that a task needs: what another task has made, or what came along when the bag was submitted.
    pub fn needed(&self, path: &Path) -> Option<&File> {
        let came_along = || self.inputs.get(path.to_str()?);
        self.result(path).or_else(came_along)
    }

    /// The file of a result that counts.
    pub fn result(&self, path: &Path) -> Option<&File> {
        self.results.get(path)
    }

    /// The result counts of an attempt whose output files belong there.
    pub fn results_are(&mut self, attempt: u64, paths: &[(String, PathBuf, PathBuf)]) {
        for file in self.left.remove(&attempt).unwrap_or_default() {
            if let Some((_, path, _)) = paths.iter().find(|(there, ..)| *there == file.name) {
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
    let result = |(path, file): (&PathBuf, &File)| Piece::Result { path: path.clone(), file: file.clone() };
    let of = |(attempt, left): (&u64, &'a Vec<File>)| {
        let attempt = *attempt;
        left.iter().map(move |file| Piece::File { attempt, file: file.clone() })
    };
    let (results, left) = (files.results.iter().map(result), files.left.iter().flat_map(of));
    let records = bag.shrink().flat_map(move |record| cut(&record.encode(), bytes_max));
    records.chain(inputs).chain(results).chain(left).chain([Piece::Outputs(outputs)])
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

    #[test]
    fn what_is_said_in_short_says_the_same() {
        let draft = Draft::new(Settings { name: "long".repeat(100), ..Settings::default() });
        let mut state = State::default();
        for record in draft.into_records(7) {
            cut(&record.encode(), 8)
                .iter()
                .for_each(|piece| state.take(&postcard::to_stdvec(piece).unwrap()).unwrap());
        }
        state.files.take(Piece::Input(file("/in", 0)));
        for attempt in [1, 2, 3] {
            state.files.take(Piece::File { attempt, file: file("out", attempt) });
        }
        state.files.results_are(1, &[("out".into(), "/made".into(), "/made.1".into())]);
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
        assert_eq!(again.files.left.keys().collect::<Vec<_>>(), [&2]);
    }

    #[test]
    fn bytes_that_are_no_part_are_refused() {
        for bytes in [&b""[..], b"\xff", b"\x00\x01\xff", b"\x00\x01\x02\x63\x63"] {
            assert!(State::default().take(bytes).is_err(), "{bytes:?}");
        }
    }
}
