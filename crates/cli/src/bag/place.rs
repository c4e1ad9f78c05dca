//! Where bags lie: `bags/NUMBER` in the state directory, each with its journal, its outputs, its keeper's socket.

use super::{control, shared};
use anyhow::{Context, Result, bail};
use mutirao_bag::{Bag, Draft, Record};
use mutirao_store::{Found, Journal, read_journal};
use mutirao_wire::bag::Keep;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Longest file that says who keeps a bag.
const KEPT_BYTES_MAX: u64 = 64 * 1024;
/// The file, beside the bags, with the highest number of those that were removed.
const REMOVED: &str = "removed";
/// Longest such file.
const NUMBER_BYTES_MAX: u64 = 20;

/// The directory of one bag.
#[derive(Debug, Clone)]
pub struct Place {
    pub id: u32,
    directory: PathBuf,
    visited: Option<Visited>,
}

/// For whom it is not one of this machine's own bags.
#[derive(Debug, Clone)]
struct Visited {
    /// The node where it was submitted.
    origin: String,
    /// The node of this machine that keeps it or helps to.
    node: String,
}

/// The directory of all bags.
pub fn all() -> Result<PathBuf> {
    Ok(crate::membership::home()?.path().join("bags"))
}

/// The highest number of a bag that was removed: whoever remembers it is to speak to no other bag.
fn last_removed(all: &Path) -> Result<u32> {
    let path = all.join(REMOVED);
    match mutirao_store::read_limited(&path, NUMBER_BYTES_MAX) {
        Ok(text) => {
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.trim().parse().ok());
            number.with_context(|| format!("{} is not what it should be; remove it", path.display()))
        }
        Err(error) if error.is_missing() => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Writes down that a bag of this number is about to be removed.
fn note_removed(all: &Path, id: u32) -> Result<()> {
    // Others may remove bags at the same time.
    let directory = File::open(all)?;
    flock(&directory, FlockOperation::LockExclusive)?;
    if last_removed(all)? < id {
        mutirao_store::write_atomic(&all.join(REMOVED), format!("{id}\n").as_bytes(), 0o600)?;
    }
    Ok(())
}

/// All bags there are, by number.
pub fn list() -> Result<Vec<Place>> {
    let directory = all()?;
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
    };
    let number = |entry: std::io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<u32>().ok();
    let mut ids: Vec<u32> = entries.filter_map(number).collect();
    ids.sort_unstable();
    Ok(ids.into_iter().map(|id| Place::new(id, &directory)).collect())
}

impl Place {
    fn new(id: u32, all: &Path) -> Place {
        Place { id, directory: all.join(id.to_string()), visited: None }
    }

    /// For somebody on another machine than `origin`, where it was submitted; `node` is a member on this one.
    pub fn visited(self, origin: &str, node: &str) -> Place {
        Place { visited: Some(Visited { origin: origin.into(), node: node.into() }), ..self }
    }

    /// What it is called by whoever asks.
    pub fn called(&self) -> String {
        match self.origin() {
            Some(node) => format!("{}@{node}", self.id),
            None => self.id.to_string(),
        }
    }

    /// The node where it was submitted, if whoever asks is elsewhere.
    pub fn origin(&self) -> Option<&str> {
        self.visited.as_ref().map(|visited| visited.origin.as_str())
    }

    /// The member on this machine, if whoever asks is elsewhere.
    pub fn member(&self) -> Option<&str> {
        self.visited.as_ref().map(|visited| visited.node.as_str())
    }

    /// The bag that is meant: by its number, or the latest of that name.
    pub fn find(what: &str) -> Result<Place> {
        if let Ok(id) = what.parse::<u32>() {
            return Place::numbered(id)?
                .with_context(|| format!("there is no bag {id}; see `mutirao bag ls`"));
        }
        for place in list()?.into_iter().rev() {
            if place.read().is_ok_and(|(bag, _)| bag.settings().name == what) {
                return Ok(place);
            }
        }
        bail!("there is no bag `{what}`; see `mutirao bag ls`")
    }

    /// The bag of that number, if there is one.
    pub fn numbered(id: u32) -> Result<Option<Place>> {
        Ok(list()?.into_iter().find(|place| place.id == id))
    }

    /// Puts a new bag in its place: all of it, or nothing that counts.
    pub fn submit(mut draft: Draft) -> Result<Place> {
        let directory = all()?;
        let failed = || format!("cannot make {}", directory.display());
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).with_context(failed)?;
        let mut id = list()?.last().map_or(0, |place| place.id).max(last_removed(&directory)?) + 1;
        let place = loop {
            let place = Place::new(id, &directory);
            match DirBuilder::new().mode(0o700).create(&place.directory) {
                Ok(()) => break place,
                // Somebody submits another at the same time.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => id += 1,
                Err(error) => return Err(error).with_context(failed),
            }
        };
        if let Some(program) = &mut draft.settings.program {
            super::programs::keep_copies(program, &place.directory)?;
        }
        let (mut journal, _) = Journal::open(&place.journal(), |_| Ok::<(), mutirao_store::Error>(()))?;
        for record in draft.into_records(now_ms()) {
            journal.append(&record.encode());
        }
        journal.commit()?;
        Ok(place)
    }

    /// The bag as its journal says it stands, whoever keeps it.
    pub fn read(&self) -> Result<(Bag, Found)> {
        let shared = shared::journal_path(&self.directory);
        if shared.exists() {
            let shared::Read { bag, found, .. } = shared::read(&shared)?;
            if bag.is_complete() || !self.journal().exists() {
                return Ok((bag, found));
            }
        }
        let mut bag = Bag::new();
        let found = read_journal(&self.journal(), |bytes| replay(&mut bag, bytes))?;
        Ok((bag, found))
    }

    /// Why the member here cannot go on with what counts, if it cannot.
    pub fn stands_still(&self) -> Option<String> {
        let read = shared::read(&shared::journal_path(&self.directory)).ok()?;
        read.senseless.map(|why| shared::stands_still(self.id, &why))
    }

    /// The bag as it was submitted to several members, and its records.
    pub fn draft(&self) -> Result<(Bag, Vec<Vec<u8>>)> {
        let (mut bag, mut records) = (Bag::new(), Vec::new());
        read_journal(&self.journal(), |bytes| {
            records.push(bytes.to_vec());
            replay(&mut bag, bytes)
        })?;
        Ok((bag, records))
    }

    /// That of a member elsewhere than where the bag was submitted.
    pub fn of_member(id: u32, directory: PathBuf) -> Place {
        Place { id, directory, visited: None }
    }

    /// Whether its members have all of what was submitted, as far as this one knows.
    pub fn is_with_members(&self) -> Result<bool> {
        let shared = shared::journal_path(&self.directory);
        Ok(shared.exists() && shared::read(&shared)?.bag.is_complete())
    }

    /// Whether several members keep it, who alone can change it.
    pub fn is_shared(&self) -> Result<bool> {
        Ok(self.kept()?.is_some_and(|keep| keep.members.len() > 1))
    }

    /// The bag, to be changed by this process alone.
    pub fn open(&self) -> Result<(Bag, Journal, Found)> {
        if self.is_shared()? {
            bail!(
                "bag {0} is kept by several nodes; `mutirao bag resume --detach {0}` has them go on",
                self.id
            );
        }
        let mut bag = Bag::new();
        let opened = Journal::open(&self.journal(), |bytes| replay(&mut bag, bytes));
        let (journal, found) = opened.map_err(|error| match is_in_use(&error) {
            true => {
                anyhow::anyhow!(
                    "bag {} is run by another process already; `mutirao bag watch {}`",
                    self.id,
                    self.id
                )
            }
            false => error,
        })?;
        self.check_submitted(&bag)?;
        Ok((bag, journal, found))
    }

    /// Refuses a bag that is not all there: who submitted it ended over that, or its journal is damaged.
    pub fn check_submitted(&self, bag: &Bag) -> Result<()> {
        if !bag.is_complete() && self.damaged().exists() {
            bail!(
                "the journal of bag {} is damaged where it says what the bag is; what was cut off is kept as {}; \
                 submit the bag anew, and remove this one by `mutirao bag rm {} --unfinished`",
                self.id,
                self.damaged().display(),
                self.id
            );
        }
        if !bag.is_complete() {
            bail!(
                "bag {} was never submitted to its end; remove it by `mutirao bag rm {} --unfinished`",
                self.id,
                self.id
            );
        }
        Ok(())
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What was cut off a damaged journal.
    fn damaged(&self) -> PathBuf {
        self.directory.join("journal.damaged")
    }

    /// Removes the bag, if nobody runs it and, unless `unfinished`, it is over.
    pub fn remove(&self, unfinished: bool) -> Result<()> {
        let mut bag = Bag::new();
        // Both are held until it is gone, so that no keeper begins with it meanwhile. A member holds the turn only.
        let turn = self.turn()?;
        let is_free = flock(&turn, FlockOperation::NonBlockingLockExclusive).is_ok();
        let opened = Journal::open(&self.journal(), |bytes| replay(&mut bag, bytes));
        if !is_free || opened.as_ref().is_err_and(is_in_use) {
            return self.remove_kept(unfinished);
        }
        match &opened {
            // One that cannot be read is not over for anybody.
            Err(error) if !unfinished => {
                bail!("bag {}: {error:#}; add --unfinished to remove it", self.called())
            }
            _ => {}
        }
        // What several members keep is over when their journal says so.
        if !unfinished && !bag.is_over() && (!self.is_shared()? || !self.read()?.0.is_over()) {
            bail!(
                "bag {0} is not over; `mutirao bag rm {0} --unfinished` removes it all the same",
                self.called()
            );
        }
        self.remove_all()
    }

    /// Removes the bag that somebody keeps, if it is over and, unless `unfinished`, all its results are in their places:
    /// who keeps it stays for a moment for others that have not heard, and ends when told that it was removed.
    fn remove_kept(&self, unfinished: bool) -> Result<()> {
        let bag = self.called();
        if !self.is_shared()? || !self.read()?.0.is_over() {
            bail!("bag {bag} is run by another process; `mutirao bag cancel {bag} all` ends it");
        }
        if let Some(why) = control::standing(self).and_then(|s| control::unplaced(&s)).filter(|_| !unfinished)
        {
            bail!(
                "bag {bag} is over, but {why}; they will be when that is cured, and --unfinished removes them"
            );
        }
        self.remove_all()
    }

    /// Removes the bag, whatever it is doing.
    pub fn remove_all(&self) -> Result<()> {
        let failed = || format!("cannot remove {}", self.directory.display());
        // All at once: whoever is about to begin with it finds all of it, or nothing.
        let gone = self.directory.with_file_name(format!("{}.removed", self.id));
        match fs::remove_dir_all(&gone) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(failed);
            }
            _ => {}
        }
        let all = all()?;
        let note = || match self.directory.parent() == Some(&all) {
            true => note_removed(&all, self.id),
            // Of a member elsewhere, which gives no numbers.
            false => Ok(()),
        };
        super::sites::unmark(self);
        let noted = note();
        fs::rename(&self.directory, &gone).with_context(failed)?;
        fs::remove_dir_all(&gone).with_context(failed)?;
        // By now there is room for it.
        noted.or_else(|_| note())
    }

    fn journal(&self) -> PathBuf {
        self.directory.join("journal")
    }

    /// What tasks have written.
    pub fn outputs(&self) -> PathBuf {
        self.directory.join("outputs")
    }

    /// What the keeper says that was started by `submit`.
    pub fn log(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Which nodes keep it, if any was told to.
    pub fn kept(&self) -> Result<Option<Keep>> {
        let path = self.directory.join("kept.json");
        match mutirao_store::read_limited(&path, KEPT_BYTES_MAX) {
            Ok(text) => {
                let failed = || format!("{} is not what it should be; remove it", path.display());
                serde_json::from_slice(&text).with_context(failed)
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub fn write_kept(&self, keep: &Keep) -> Result<()> {
        let text = serde_json::to_vec_pretty(keep)?;
        Ok(mutirao_store::write_atomic(&self.directory.join("kept.json"), &text, 0o600)?)
    }

    /// Held by the process that a node has started for the bag.
    fn turn(&self) -> Result<File> {
        let path = self.directory.join("turn");
        let failed = || format!("cannot open {}", path.display());
        File::options().write(true).create(true).truncate(false).open(&path).with_context(failed)
    }

    /// Waits until no other process that a node has started keeps the bag; for as long as the file is open. `None` if
    /// the bag was removed meanwhile.
    pub fn wait_turn(&self) -> Result<Option<File>> {
        let file = self.turn()?;
        let failed = || format!("cannot lock the turn in {}", self.directory.display());
        flock(&file, FlockOperation::LockExclusive).with_context(failed)?;
        Ok(self.directory.exists().then_some(file))
    }

    /// Listens for orders. Only whoever holds the journal does.
    pub fn listen(&self) -> Result<UnixListener> {
        let failed = || format!("cannot listen in {}", self.directory.display());
        // By way of the directory's descriptor: the whole path may be too long for a socket.
        let directory = File::open(&self.directory).with_context(failed)?;
        // It takes its name when it is heard, so that who waits for the name can connect.
        let (path, waiting) = (socket_below(&directory, "keeper"), socket_below(&directory, "keeper.new"));
        match fs::remove_file(&waiting) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(failed);
            }
            _ => {}
        }
        let listener = UnixListener::bind(&waiting).with_context(failed)?;
        fs::rename(&waiting, &path).with_context(failed)?;
        Ok(listener)
    }

    /// The keeper, if one runs.
    pub fn connect(&self) -> Option<UnixStream> {
        let directory = File::open(&self.directory).ok()?;
        UnixStream::connect(socket_below(&directory, "keeper")).ok()
    }
}

fn is_in_use(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(mutirao_store::Error::InUse(_)))
}

fn socket_below(directory: &File, name: &str) -> PathBuf {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()).into()
}

fn replay(bag: &mut Bag, bytes: &[u8]) -> Result<()> {
    let number = bag.records() + 1;
    Ok(bag.replay(Record::decode(bytes, number)?)?)
}

/// Now, ms since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
