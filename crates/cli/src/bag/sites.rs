//! Tasks that work in place: each in a directory made beside the files of the bag, on nodes that see the same files.

use super::place::Place;
use crate::commands::umask;
use crate::output::remark;
use anyhow::{Context, Result};
use mutirao_bag::{Bag, End, Template};
use mutirao_runner::{Site, Unseen};
use mutirao_wire::NodeId;
use mutirao_wire::node::NodeRef;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// How the mark begins, and the directories of tasks.
const HIDDEN: &str = ".mutirao-";
/// Longest file with the mark.
const MARK_BYTES_MAX: u64 = 100;

/// Where tasks of a bag work in place.
#[derive(Debug, Default)]
pub struct Sites {
    /// The directory of the bag's files, and the name of the file in it by which nodes know it. Nothing where no task
    /// works in place.
    marked: Option<(PathBuf, String)>,
    /// The mask of the bag's user for new files.
    umask: Option<u32>,
    /// Nodes that do not see it.
    blind: BTreeSet<NodeId>,
    /// Attempts that were sent again, with their files.
    copied: BTreeSet<u64>,
}

impl Sites {
    /// No task works in place.
    pub fn none() -> Sites {
        Sites::default()
    }

    /// Marks the directory of a bag, if a task is to work in place.
    pub fn open(place: &Place, bag: &Bag) -> Result<Sites> {
        // What is compared comes here to be.
        if bag.compares() || !bag.templates().iter().any(|template| template.in_place) {
            return Ok(Sites::none());
        }
        let directory = PathBuf::from(&bag.settings().directory);
        let mark = mark(place)?;
        if let Err(error) = fs::write(directory.join(&mark), "") {
            remark!(
                "mutirao: no task works in place: nothing can be written in {}: {error}",
                directory.display()
            );
            return Ok(Sites::none());
        }
        let sites = Sites { marked: Some((directory, mark)), umask: umask(), ..Sites::none() };
        sites.sweep();
        Ok(sites)
    }

    /// Where an attempt works on a node, if in place.
    pub fn site(&self, template: &Template, attempt: u64, node: NodeId) -> Option<Site> {
        let (directory, mark) = self.marked.as_ref()?;
        if !template.in_place || self.blind.contains(&node) || self.copied.contains(&attempt) {
            return None;
        }
        let directory = directory.as_os_str().as_encoded_bytes().to_vec();
        let room = format!("{mark}-{attempt}");
        Some(Site { directory, mark: mark.clone(), room, umask: self.umask, ..Site::default() })
    }

    /// The node of an attempt does not see what it should: its files travel there.
    pub fn unseen(&mut self, attempt: u64, unseen: Unseen, node: Option<&NodeRef>, end: &End) {
        self.copied.insert(attempt);
        if let (Unseen::Site, Some(node)) = (unseen, node)
            && self.blind.insert(node.id)
        {
            let why = match end {
                End::NotStarted(why) => why.clone(),
                end => end.to_string(),
            };
            remark!("mutirao: `{}` gets copies of the files that tasks name: {why}", node.name);
        }
    }

    /// An attempt is over.
    pub fn over(&mut self, attempt: u64) {
        self.copied.remove(&attempt);
    }

    /// Removes what an attempt has left that nobody wants.
    pub fn drop_room(&self, attempt: u64) {
        if let Some((directory, mark)) = &self.marked {
            // It was most likely removed where it was made.
            let _ = fs::remove_dir_all(directory.join(format!("{mark}-{attempt}")));
        }
    }

    /// Nothing of the bag works in place any more.
    pub fn remove(&mut self) {
        self.sweep();
        if let Some((directory, mark)) = self.marked.take() {
            let _ = fs::remove_file(directory.join(mark));
        }
    }

    /// Removes directories of tasks whose nodes were lost.
    fn sweep(&self) {
        let Some((directory, mark)) = &self.marked else { return };
        let rooms = format!("{mark}-");
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(rooms.as_bytes()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// The mark of a bag, the same in each life of its keeper.
fn mark(place: &Place) -> Result<String> {
    let path = place.directory().join("mark");
    match mutirao_store::read_limited(&path, MARK_BYTES_MAX) {
        Ok(text) => return String::from_utf8(text).with_context(|| format!("{} is no text", path.display())),
        Err(error) if error.is_missing() => {}
        Err(error) => return Err(error.into()),
    }
    let mark = format!("{HIDDEN}{:032x}", u128::from_le_bytes(mutirao_trust::random()?));
    mutirao_store::write_atomic(&path, mark.as_bytes(), 0o600)?;
    Ok(mark)
}
