//! What tasks write and need, and where the files of their results go.

use super::Shared;
use super::disk::encoded;
use super::placing::Placing;
use super::room::is_full;
use super::state::{File, Left, Lying, Piece};
use crate::bag::control::Unplaced;
use crate::bag::inputs::InputFile;
use crate::bag::keeper::Event;
use crate::bag::outputs;
use crate::bag::sites::Mark;
use anyhow::{Context, Result};
use mutirao_bag::Span;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Result files that have more together are put in their places on a thread of its own.
const COPIED_AT_ONCE: u64 = 4 << 20;
/// Result files that cannot be put in their places are tried again after so long.
const PLACE_AGAIN: Duration = Duration::from_secs(2);

impl Shared {
    /// Keeps what a task has written, with whatever is appended next.
    pub fn put_output(&mut self, bytes: &[u8]) -> Span {
        self.waiting.output(bytes)
    }

    /// The same of what lies there in a file.
    pub fn put_content(&mut self, file: &Arc<fs::File>, from: u64, bytes: u32) -> Span {
        self.waiting.file(file.clone(), from, bytes)
    }

    /// Keeps a file that an attempt has left, whose content was put before.
    pub fn put_file(&mut self, attempt: u64, name: String, executable: bool, content: Span) {
        self.waiting.piece(Piece::File { attempt, file: File { name, executable, content } });
    }

    /// Keeps a file that tasks need, whose content was put before.
    pub fn put_input(&mut self, path: String, executable: bool, content: Span) {
        self.waiting.piece(Piece::Input(File { name: path, executable, content }));
    }

    /// Whether an input is kept already.
    pub fn has_input(&self, path: &str) -> bool {
        self.files.has_input(path)
    }

    /// Has all know where tasks work in place, and what lies there.
    pub fn put_mark(&mut self, mark: Mark, inputs: Vec<Lying>) {
        self.waiting.piece(Piece::Mark(mark));
        inputs.into_iter().for_each(|input| self.waiting.piece(Piece::LyingInput(input)));
    }

    /// By what nodes know the directory where tasks work in place.
    pub fn mark(&self) -> Option<&Mark> {
        self.files.mark()
    }

    /// Has all know of a file that an attempt has left in the directory of the bag's files.
    pub fn put_lying(&mut self, attempt: u64, file: Lying) {
        self.waiting.piece(Piece::Lying { attempt, file });
    }

    pub fn read_output(&self, span: Span) -> std::io::Result<Vec<u8>> {
        self.outputs.read(span)
    }

    /// Gives the room back of what nobody reads any more.
    pub fn free(&self, span: Span) {
        if span.offset + u64::from(span.bytes) <= self.counted {
            self.outputs.free(span.offset, span.bytes.into());
        }
    }

    /// A file that a task needs, with its content: what another task has made, or what came along when the bag was
    /// submitted.
    pub fn find_input(&self, path: &Path) -> Option<InputFile> {
        self.files.needed(path).map(|file| self.found(path, file))
    }

    /// The same, if it lies in the directory of the bag's files.
    pub fn find_lying(&self, path: &Path) -> Option<InputFile> {
        let Lying { bytes, modified_s, .. } = *self.files.lying(path)?;
        Some(InputFile { path: path.to_owned(), bytes, executable: false, modified_s, kept: None })
    }

    /// Where a file of a result may lie that belongs under this path, if that is in the same directory.
    pub fn waits_as(&self, path: &Path) -> Option<PathBuf> {
        match self.files.result(path)? {
            Left::Lies(file) => Some(path.with_file_name(&file.waiting)),
            Left::Here(_) => None,
        }
    }

    /// The file of a result that counts, if its content is here.
    pub fn find_result(&self, path: &Path) -> Option<InputFile> {
        match self.files.result(path)? {
            Left::Here(file) => Some(self.found(path, file)),
            Left::Lies(_) => None,
        }
    }

    fn found(&self, path: &Path, file: &File) -> InputFile {
        let kept = Some((self.outputs.file(), file.content));
        let (bytes, executable) = (file.content.bytes.into(), file.executable);
        InputFile { path: path.to_owned(), bytes, executable, modified_s: 0, kept }
    }

    /// Copies files of a result to the names under which they wait; false if that goes on for longer than others can
    /// wait for this member, and `Event::Copied` follows.
    pub fn copy_results(&mut self, attempt: u64, files: Vec<(InputFile, PathBuf)>) -> Result<bool> {
        if let Some(copied) = self.placing.take_copied(attempt) {
            return copied.map(|()| true);
        }
        let bytes: u64 = files.iter().map(|(file, _)| file.bytes).sum();
        let copy = move || {
            files.iter().try_for_each(|(file, to)| {
                let Some((outputs, span)) = &file.kept else { return Ok(()) };
                let copied = outputs::write_span(outputs, *span, to, file.executable);
                copied.with_context(|| format!("cannot put {} in its place", file.path.display()))
            })
        };
        if bytes <= COPIED_AT_ONCE {
            return copy().map(|()| true);
        }
        let events = self.events.clone();
        let work = move || drop(events.send(Event::Copied { attempt, result: copy() }));
        crate::threads::start("results", work)?;
        self.placing.copies();
        Ok(false)
    }

    /// Whether files of a result are being copied to their places.
    pub fn is_copying(&self) -> bool {
        self.placing.is_copying()
    }

    /// The result counts of an attempt whose output files belong there.
    pub fn results_are(&mut self, attempt: u64, paths: &[(String, PathBuf, PathBuf)]) {
        self.files.results_are(attempt, paths);
    }

    /// Whether the files of a result that counts since that entry are still to be put in their places.
    pub fn is_to_settle(&self, index: u64) -> bool {
        self.is_origin() && index > self.settled
    }

    /// The files of a result are to be put in their places.
    pub fn place_later(&mut self, task: u32, attempt: u64) {
        self.placing.push(task, attempt);
    }

    /// All of entries up to this one is settled, but for files that are still to be placed.
    pub fn settled(&mut self, index: u64) -> Result<()> {
        self.placing.counts_up_to(index);
        self.note_settled()
    }

    /// Whether results that the parts of the journal say are to be settled, too.
    pub fn parts_are_to_settle(&mut self) -> bool {
        let are = self.is_origin() && self.settled < self.base;
        if are {
            self.placing.counts_up_to(self.base);
        }
        are
    }

    /// Whether something waits for room here.
    pub fn lacks_room(&self) -> bool {
        self.room.lacks() || self.placing.waits_for_room()
    }

    /// Whether files were tried in vain to be put in their places, and it is not time to try them again.
    pub fn waits_to_place(&mut self) -> bool {
        let now = Instant::now();
        if self.placing.next().is_some() {
            self.place_again = now + PLACE_AGAIN;
            return false;
        }
        if self.place_again > now {
            return true;
        }
        self.place_again = now + PLACE_AGAIN;
        self.placing.again();
        false
    }

    /// Result files that are still to be put in their places.
    pub fn placing(&mut self) -> &mut Placing {
        &mut self.placing
    }

    /// Whether the files of all results are in their places, or were tried in vain.
    pub fn is_placed_or_tried(&self) -> bool {
        !self.placing.is_copying() && self.placing.next().is_none()
    }

    /// The results whose files were tried in vain to be put in their places.
    pub fn unplaced(&self) -> Unplaced<'_> {
        self.placing.unplaced()
    }

    /// Has the journal say what is settled.
    pub fn note_settled(&mut self) -> Result<()> {
        let settled = self.placing.settled().filter(|index| self.is_origin() && *index > self.settled);
        let Some(index) = settled else { return Ok(()) };
        self.settled = index;
        self.journal.append(&encoded(&self.own_line()));
        match self.flush() {
            // It goes with what is written next.
            Err(error) if is_full(&error) => Ok(()),
            flushed => flushed,
        }
    }
}
