//! What tasks read, for the scheduler that weighs where it lies already. Files go by their paths; what an attempt has
//! read or made on a node is supposed to lie there still, in the node's cache.

use super::{Bag, TaskView};
use crate::end::End;
use crate::template::{FileName, name_there};
use mutirao_schedule::bag::{Event, Input};
use mutirao_wire::{BlobHash, Tick};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The scheduler that weighs.
const WEIGHS: &str = "storage-affinity";

/// What is known of files.
#[derive(Debug, Default)]
pub(super) struct Weighing {
    /// How long they are, as far as the keeper has said.
    bytes: BTreeMap<String, u64>,
    /// At which sites.
    lie: BTreeSet<(u32, BlobHash)>,
}

impl Bag {
    /// Whether it matters to this bag how long the files are that tasks read: then the keeper says so before it begins,
    /// and of each that a task has made before it says that the task has ended.
    pub fn weighs_inputs(&self) -> bool {
        self.settings.scheduler == WEIGHS
    }

    /// A file that tasks name by this path has so many bytes.
    pub fn know_length(&mut self, path: String, bytes: u64) {
        self.weighing.bytes.insert(path, bytes);
    }

    /// Files to bring to a task: what each is called where the bag was submitted, and what in the task's directory.
    pub fn inputs(&self, view: &TaskView<'_>) -> Vec<(String, String)> {
        let template = view.template;
        let names = |file: &FileName| (file.here.fill(&view.named), file.there.fill(&view.named));
        let mut inputs: Vec<_> = template.inputs.iter().map(names).collect();
        for earlier in &template.gathers {
            let tasks = &self.families[*earlier as usize].tasks;
            let tasks = match template.after_each.contains(earlier) {
                true => tasks.get(view.place as usize).map(std::slice::from_ref).unwrap_or_default(),
                false => tasks,
            };
            for before in tasks.iter().filter_map(|number| self.task(*number)) {
                if before.result().is_some() {
                    let brought = before.template.outputs.iter().map(|file| file.here.fill(&before.named));
                    inputs.extend(brought.map(|here| (here.clone(), name_there(&here).to_owned())));
                }
            }
        }
        inputs
    }

    /// What a task reads.
    pub(super) fn inputs_of(&self, task: u32) -> Option<Arc<[Input]>> {
        let inputs = self.inputs(&self.task(task).filter(|_| self.weighs_inputs())?);
        if inputs.is_empty() {
            return None;
        }
        let inputs: BTreeMap<BlobHash, u64> = inputs.iter().map(|(path, _)| self.named(path)).collect();
        Some(inputs.into_iter().map(|(blob, bytes)| Input { blob, bytes }).collect())
    }

    /// A file, and how long it is; one whose length is not known weighs little, and not nothing.
    fn named(&self, path: &str) -> (BlobHash, u64) {
        let bytes = self.weighing.bytes.get(path).copied().unwrap_or(0);
        (BlobHash(*blake3::hash(path.as_bytes()).as_bytes()), bytes.max(1))
    }

    /// An attempt of a task has ended so at a site: tells what lies there now; how many bytes had to be brought for it.
    pub(super) fn weigh(&mut self, now: Tick, task: u32, site: u32, end: &End) -> u64 {
        let is_there = !matches!(
            end,
            End::NotStarted(_) | End::NotBegun(_) | End::WorkerEnded(_) | End::NodeLost(_) | End::Killed
        );
        if !is_there || !self.weighs_inputs() {
            return 0;
        }
        let (inputs, mut brought) = (self.inputs_of(task), 0);
        for input in inputs.iter().flat_map(|inputs| inputs.iter()) {
            if self.weighing.lie.insert((site, input.blob)) {
                brought += input.bytes;
                self.tell(now, Event::BlobAt { site, blob: input.blob });
            }
        }
        if *end == End::Done
            && let Some(view) = self.task(task)
        {
            let made = view.template.outputs.iter().map(|file| file.here.fill(&view.named));
            let made: Vec<BlobHash> = made.map(|path| self.named(&path).0).collect();
            for blob in made {
                if self.weighing.lie.insert((site, blob)) {
                    self.tell(now, Event::BlobAt { site, blob });
                }
            }
        }
        brought
    }
}
