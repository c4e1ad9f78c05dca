//! Tasks that work in place: each in a directory made beside the files of the bag, on nodes that see the same files.

use super::place::Place;
use crate::commands::umask;
use crate::output::remark;
use anyhow::{Context, Result};
use mutirao_bag::{Bag, End, Template};
use mutirao_runner::{Site, Unseen, look};
use mutirao_wire::NodeId;
use mutirao_wire::node::NodeRef;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// How the mark begins, and the directories of tasks.
const HIDDEN: &str = ".mutirao-";
/// Longest file with the mark.
const MARK_BYTES_MAX: u64 = 100;

/// By what nodes know the directory of a bag's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// A file in it that is called so.
    pub name: String,
    /// The mask of the bag's user for new files.
    pub umask: Option<u32>,
}

/// Where tasks of a bag work in place.
#[derive(Debug, Default)]
pub struct Sites {
    /// The directory of the bag's files, and its mark. Nothing where no task works in place.
    marked: Option<(PathBuf, Mark)>,
    /// Which keeper sends attempts there, if that is not the only one: no two use a name twice.
    sender: u64,
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
        let Some(mark) = mark(place, bag)? else { return Ok(Sites::none()) };
        let sites = Sites::marked(bag, mark, 0);
        sites.sweep();
        Ok(sites)
    }

    /// Of a bag whose directory was marked where it was submitted, for one of its keepers.
    pub fn marked(bag: &Bag, mark: Mark, sender: u64) -> Sites {
        let directory = PathBuf::from(&bag.settings().directory);
        Sites { marked: Some((directory, mark)), sender, ..Sites::none() }
    }

    /// Marks the directory again, which is done with when the bag is over.
    pub fn mark(&self) {
        if let Some((directory, mark)) = &self.marked {
            // Without it nodes get copies.
            let _ = fs::write(directory.join(&mark.name), "");
        }
    }

    /// Whether tasks work in place.
    pub fn is_used(&self) -> bool {
        self.marked.is_some()
    }

    /// Whether the directory is seen from here.
    pub fn are_seen(&self) -> bool {
        self.marked.as_ref().is_some_and(|(directory, mark)| look(&directory.join(&mark.name)).is_ok())
    }

    /// Which keeper sends attempts there.
    pub fn sender(&self) -> u64 {
        self.sender
    }

    /// Where an attempt works on a node, if in place.
    pub fn site(&self, template: &Template, attempt: u64, node: NodeId) -> Option<Site> {
        let (directory, mark) = self.marked.as_ref()?;
        if !template.in_place || self.blind.contains(&node) || self.copied.contains(&attempt) {
            return None;
        }
        let room = self.room(mark, attempt);
        let directory = directory.as_os_str().as_encoded_bytes().to_vec();
        let (mark, umask) = (mark.name.clone(), mark.umask);
        Some(Site { directory, mark, room, umask, sender: self.sender, ..Site::default() })
    }

    fn room(&self, mark: &Mark, attempt: u64) -> String {
        match self.sender {
            0 => format!("{}-{attempt}", mark.name),
            sender => format!("{}-{sender:x}-{attempt}", mark.name),
        }
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
            let _ = fs::remove_dir_all(directory.join(self.room(mark, attempt)));
        }
    }

    /// Nothing of the bag works in place any more.
    pub fn remove(&mut self) {
        self.sweep();
        if let Some((directory, mark)) = self.marked.take() {
            let _ = fs::remove_file(directory.join(mark.name));
        }
    }

    /// Removes directories of tasks whose nodes were lost.
    fn sweep(&self) {
        let Some((directory, mark)) = &self.marked else { return };
        let rooms = format!("{}-", mark.name);
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(rooms.as_bytes()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Marks the directory of a bag, if a task is to work in place and it can be marked.
pub fn mark(place: &Place, bag: &Bag) -> Result<Option<Mark>> {
    // What is compared comes here to be.
    if bag.compares() || !bag.templates().iter().any(|template| template.in_place) {
        return Ok(None);
    }
    let (directory, name) = (Path::new(&bag.settings().directory), mark_name(place)?);
    match fs::write(directory.join(&name), "") {
        Ok(()) => Ok(Some(Mark { name, umask: umask() })),
        Err(error) => {
            let directory = directory.display();
            remark!("mutirao: no task works in place: nothing can be written in {directory}: {error}");
            Ok(None)
        }
    }
}

/// Removes the mark of a bag that is about to be removed, if there is one.
pub fn unmark(place: &Place) {
    if let Ok(Some(name)) = known_name(place)
        && let Ok((bag, _)) = place.read()
    {
        // Most often it was removed when the bag was over.
        let _ = fs::remove_file(Path::new(&bag.settings().directory).join(name));
    }
}

/// What the mark of a bag is called, the same in each life of its keeper.
fn mark_name(place: &Place) -> Result<String> {
    if let Some(name) = known_name(place)? {
        return Ok(name);
    }
    let name = format!("{HIDDEN}{:032x}", u128::from_le_bytes(mutirao_trust::random()?));
    mutirao_store::write_atomic(&name_path(place), name.as_bytes(), 0o600)?;
    Ok(name)
}

/// What it was called before.
fn known_name(place: &Place) -> Result<Option<String>> {
    let path = name_path(place);
    match mutirao_store::read_limited(&path, MARK_BYTES_MAX) {
        Ok(text) => {
            let name = String::from_utf8(text).with_context(|| format!("{} is no text", path.display()))?;
            Ok(Some(name))
        }
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn name_path(place: &Place) -> PathBuf {
    place.directory().join("mark")
}

#[cfg(test)]
mod tests {
    use super::super::outputs;
    use super::super::work::output_paths;
    use super::*;
    use mutirao_bag::{Record, Settings};

    /// A bag in this directory, one task of which brings `out`.
    fn bag(directory: &Path) -> Bag {
        let text = "[task.a]\ncommand = 'true'\nin_place = true\noutputs = ['out']\n";
        let settings = Settings { directory: directory.to_str().unwrap().to_owned(), ..Settings::default() };
        let draft = mutirao_bag::read(text, settings, &|_| unreachable!("it names no file")).unwrap();
        let mut bag = Bag::new();
        for (number, record) in (1..).zip(draft.into_records(7)) {
            bag.replay(Record::decode(&record.encode(), number).unwrap()).unwrap();
        }
        bag
    }

    #[test]
    fn keepers_use_no_name_twice_and_what_all_have_left_goes_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let bag = bag(directory.path());
        let mark = Mark { name: ".mutirao-mark".into(), umask: None };
        let mut paths = BTreeSet::new();
        for sender in [0, 0x108, 0x208] {
            let sites = Sites::marked(&bag, mark.clone(), sender);
            sites.mark();
            let task = bag.task(0).unwrap();
            let site = sites.site(task.template, 12, NodeId([1; 32])).unwrap();
            fs::create_dir(site.path()).unwrap();
            let (_, _, waiting) = output_paths(7, bag.settings(), &task, (12, site.sender)).remove(0);
            fs::write(&waiting, "").unwrap();
            paths.extend([site.path(), waiting]);
        }
        assert_eq!(paths.len(), 6, "{paths:?}");
        for others in ["out", ".other.bag-7-attempt-12", ".out.bag-8-attempt-12"] {
            fs::write(directory.path().join(others), "").unwrap();
        }
        outputs::sweep(7, &bag);
        Sites::marked(&bag, mark, 0).remove();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3, "what is not theirs stays");
    }
}
