//! The journal of a member as a file: read when it is opened, written anew, and what is done if it was damaged.

use super::state::State;
use anyhow::{Context, Result};
use mutirao_bag::Bag;
use mutirao_replica::{Kept, Line};
use mutirao_store::{Error, Found, Journal, Records, read_journal};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Path of the journal of a member.
pub fn journal_path(directory: &Path) -> PathBuf {
    directory.join("shared")
}

/// Path of what tasks of its bag have written.
pub fn outputs_path(directory: &Path) -> PathBuf {
    directory.join("outputs")
}

/// What was damaged of a member's journal. The file that keeps it says also that the member lacks something: it is there
/// before anything is cut off, until the member has it all again.
#[derive(Debug, Clone)]
pub struct Damage {
    directory: PathBuf,
}

impl Damage {
    pub fn of(directory: &Path) -> Damage {
        Damage { directory: directory.to_owned() }
    }

    /// Named as a journal names what it cuts off.
    fn path(&self) -> PathBuf {
        self.directory.join("shared.damaged")
    }

    fn mended_path(&self) -> PathBuf {
        self.directory.join("shared.mended")
    }

    /// Whether the member lacks something.
    pub fn is_there(&self) -> bool {
        self.path().exists()
    }

    /// Whether it once did.
    pub fn was_there(&self) -> bool {
        self.mended_path().exists()
    }

    /// The member lacks something from now on: nothing of its journal, as far as that is there, may be relied on.
    pub fn note(&self) -> Result<()> {
        if self.is_there() {
            return Ok(());
        }
        let (journal, new) = (journal_path(&self.directory), self.directory.join("shared.damaged.new"));
        let copy = || -> io::Result<()> {
            match fs::copy(&journal, &new) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => drop(File::create(&new)?),
                copied => drop(copied?),
            }
            File::open(&new)?.sync_all()?;
            fs::rename(&new, self.path())?;
            File::open(&self.directory)?.sync_all()
        };
        copy().with_context(|| format!("cannot keep what is left of {}", journal.display()))
    }

    /// The member has it all again.
    pub fn mended(&self) -> Result<()> {
        let failed = || format!("cannot rename {}", self.path().display());
        fs::rename(self.path(), self.mended_path()).with_context(failed)
    }

    /// What is wrong, and what happens about it.
    pub fn text(&self) -> String {
        format!(
            "the journal of this member was damaged; what is left of it is kept as {}. The member takes what it lacks \
             from the other two, both of which must be there for it, and has no vote until then",
            self.path().display()
        )
    }
}

/// A journal as it was found.
pub struct Opened {
    pub journal: Journal,
    pub kept: Kept,
    /// What its parts say, and where they lie.
    pub state: State,
    /// Why they cannot be taken in, if they cannot.
    pub senseless: Option<String>,
    pub parts: Vec<u64>,
    /// Behind the parts.
    pub head_end: u64,
    /// Entries up to this one were settled before.
    pub settled: u64,
}

/// Opens the journal of one of so many members. Of a damaged one what is left is kept as far as it is of use, and the
/// damage is noted.
pub fn open(directory: &Path, members: u64, damage: &Damage) -> Result<Opened> {
    // They are made after the journal.
    let had_journal = outputs_path(directory).exists();
    let (mut opened, is_sound) = match read_in(directory) {
        Err(error) if matches!(error.downcast_ref(), Some(Error::NoJournal(_))) => {
            damage.note()?;
            let path = journal_path(directory);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            read_in(directory)?
        }
        read => read?,
    };
    if !is_sound || !opened.kept.is_whole(members) {
        damage.note()?;
        let path = journal_path(directory);
        opened.journal.rewrite::<&[u8]>([]).with_context(|| format!("cannot empty {}", path.display()))?;
        opened = Opened::new(opened.journal);
    }
    if had_journal && opened.journal.records() == 0 {
        damage.note()?;
    }
    Ok(opened)
}

impl Opened {
    fn new(journal: Journal) -> Opened {
        let (kept, state) = (Kept::default(), State::default());
        let (senseless, parts) = (None, Vec::new());
        Opened { journal, kept, state, senseless, parts, head_end: Records::FIRST, settled: 0 }
    }
}

/// Reads the journal; whether its lines do not contradict each other.
fn read_in(directory: &Path) -> Result<(Opened, bool)> {
    let (mut kept, mut at, mut settled, mut is_sound) = (Kept::default(), Records::FIRST, 0, true);
    let (mut state, mut parts, mut head_end) = (State::default(), Vec::new(), Records::FIRST);
    let mut senseless = None;
    let (journal, _) = Journal::open(&journal_path(directory), |bytes| {
        let line: Line = postcard::from_bytes(bytes).context("a line of the journal makes no sense")?;
        is_sound &= kept.read(&line, at);
        match &line {
            Line::Own(own) => settled = postcard::from_bytes(own).unwrap_or(settled),
            Line::Part(part) => {
                if senseless.is_none() {
                    senseless = state.take(part).err().map(|error| format!("{error:#}"));
                }
                parts.push(at);
            }
            Line::Base { .. } => head_end = at,
            Line::Entry { .. } | Line::State { .. } => {}
        }
        at = Records::after(at, bytes.len());
        anyhow::Ok(())
    })?;
    Ok((Opened { journal, kept, state, senseless, parts, head_end, settled }, is_sound))
}

/// Where the lines of a journal lie.
pub struct Places {
    pub parts: Vec<u64>,
    /// Behind the parts.
    pub head_end: u64,
    pub entries: Vec<u64>,
}

/// Replaces all that is in the journal by these lines.
pub fn rewrite(journal: &mut Journal, lines: impl Iterator<Item = Line>) -> Result<Places, Error> {
    let mut places = Places { parts: Vec::new(), head_end: Records::FIRST, entries: Vec::new() };
    let mut at = Records::FIRST;
    journal.rewrite(lines.map(|line| {
        let bytes = encoded(&line);
        match line {
            Line::Part(_) => places.parts.push(at),
            Line::Base { .. } => places.head_end = at,
            Line::Entry { .. } => places.entries.push(at),
            Line::State { .. } | Line::Own(_) => {}
        }
        at = Records::after(at, bytes.len());
        bytes
    }))?;
    Ok(places)
}

/// A line as it is written.
pub fn encoded(line: &Line) -> Vec<u8> {
    postcard::to_stdvec(line).expect("a line is plain data, which can always be written")
}

/// The line that lies there.
pub fn line_at(records: &Mutex<Records>, at: u64) -> Option<Line> {
    let records = records.lock().unwrap_or_else(PoisonError::into_inner);
    postcard::from_bytes(&records.read(at).ok()?).ok()
}

/// What a member says whose journal it cannot follow.
pub fn stands_still(bag: u32, why: &str) -> String {
    format!(
        "bag {bag} stands still on this node: {why}. That is a mistake of the program, or another version of it wrote \
         the journal: nodes that can read it go on with the bag, and this one does when its `mutirao` can. What counted \
         up to there can still be read, by `mutirao bag results`"
    )
}

/// A bag as a journal says.
#[derive(Default)]
pub struct Read {
    /// Up to what makes no sense, if something does not.
    pub bag: Bag,
    pub found: Found,
    /// What that is.
    pub senseless: Option<String>,
}

/// The bag as what counts says, as far as the member with this journal knows. Changes nothing.
pub fn read(path: &Path) -> Result<Read> {
    let mut state = State::default();
    let mut waiting: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let (mut said, mut senseless) = (0, None);
    let found = read_journal(path, |bytes| {
        match postcard::from_bytes(bytes).context("a line of the journal makes no sense")? {
            _ if senseless.is_some() => {}
            Line::Part(part) => senseless = state.take(&part).err().map(|error| format!("{error:#}")),
            Line::Base { base, .. } => said = base.index,
            // What it says is in the parts already.
            Line::Entry { index, .. } if index <= said => {}
            Line::Entry { index, data, .. } => {
                drop(waiting.split_off(&index));
                waiting.insert(index, data);
            }
            Line::State { commit, .. } => {
                while let Some(entry) = waiting.first_entry().filter(|entry| *entry.key() <= commit) {
                    let (index, data) = entry.remove_entry();
                    if data.is_empty() {
                        state.leave_off();
                    } else if let Err(error) = state.take(&data) {
                        senseless = Some(format!("entry {index} of the journal makes no sense: {error:#}"));
                        break;
                    }
                }
            }
            Line::Own(_) => {}
        }
        anyhow::Ok(())
    })?;
    Ok(Read { bag: state.bag, found, senseless })
}
