//! Bags of a program's operations: named in a bag file, or opened by the program itself.

use super::elsewhere::{self, Found};
use super::place::Place;
use super::{keeper_command, kept};
use crate::args::Cli;
use crate::call::describe;
use anyhow::{Context, Result, bail};
use clap::Args;
use mutirao_bag::{Draft, Program, Settings, Work};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// Keepers that are tried: one that is found may be about to end.
const KEEPERS: usize = 5;
/// Bytes of a keeper's first words that are read at a time.
const SAID_BYTES: usize = 4096;

/// How a program opens a bag.
#[derive(Debug, Args)]
pub struct SessionArgs {
    /// A bag that is there
    #[arg(long, value_name = "BAG")]
    pub attach: Option<String>,
    /// The program whose operations the tasks are
    #[arg(long, value_name = "FILE", required_unless_present = "attach")]
    pub program: Option<PathBuf>,
    /// One of its operations
    #[arg(long = "operation", value_name = "NAME")]
    pub operations: Vec<String>,
    /// A shared object that it needs, and that other machines may lack
    #[arg(long = "library", value_name = "FILE")]
    pub libraries: Vec<PathBuf>,
    /// The bag's name
    #[arg(long)]
    pub name: Option<String>,
    /// Most slots held at once
    #[arg(long)]
    pub slots_max: Option<u32>,
    /// How often a task that failed is tried again
    #[arg(long, default_value_t = 0)]
    pub retries: u32,
    /// Longest run of an attempt, ms
    #[arg(long)]
    pub limit_ms: Option<u64>,
    /// Tasks may save state for their next attempt
    #[arg(long)]
    pub saves_state: bool,
    /// The bag goes on when the program ends
    #[arg(long)]
    pub lives_on: bool,
}

/// Learns of what the program of a bag file consists; whether it has the operations that the tasks call.
pub fn check(draft: &mut Draft, directory: &Path) -> Result<()> {
    let Some(program) = &mut draft.settings.program else { return Ok(()) };
    let path = directory.join(&program.path).canonicalize();
    let path = path.with_context(|| format!("cannot find the program {}", program.path))?;
    let described = describe(&path)?;
    program.path = text_of(&path)?;
    program.operations = described.names;
    program.libraries = described.libraries.iter().map(|path| text_of(path)).collect::<Result<_>>()?;
    for template in &draft.templates {
        if let Work::Operation { name, .. } = &template.work
            && !program.operations.contains(name)
        {
            bail!(
                "task `{}`: {} has no operation `{name}`; it has: {}",
                template.name,
                program.path,
                program.operations.join(", ")
            );
        }
    }
    Ok(())
}

fn text_of(path: &Path) -> Result<String> {
    let text = path.to_str().with_context(|| format!("the name of {} is no text", path.display()))?;
    Ok(text.to_owned())
}

/// Copies what a bag's program consists of to where the bag lies: it may be built anew while the bag runs.
pub fn keep_copies(program: &mut Program, directory: &Path) -> Result<()> {
    copy(&mut program.path, &directory.join("program"))?;
    let libraries = directory.join("libraries");
    let mut names = BTreeSet::new();
    program.libraries.retain(|path| names.insert(Path::new(path).file_name().map(ToOwned::to_owned)));
    for path in &mut program.libraries {
        std::fs::create_dir_all(&libraries)
            .with_context(|| format!("cannot make {}", libraries.display()))?;
        let to = libraries.join(Path::new(path.as_str()).file_name().unwrap_or_default());
        copy(path, &to)?;
    }
    Ok(())
}

fn copy(path: &mut String, to: &Path) -> Result<()> {
    std::fs::copy(&*path, to).with_context(|| format!("cannot keep a copy of {path}"))?;
    *path = text_of(to)?;
    Ok(())
}

/// Paths of all files that a bag's program consists of.
pub fn files(settings: &Settings) -> impl Iterator<Item = &str> {
    let program = settings.program.iter();
    program.flat_map(|program| std::iter::once(&program.path).chain(&program.libraries)).map(String::as_str)
}

/// Opens a bag for the program at the other end of standard input. What goes wrong is told there.
pub fn session(cli: &Cli, args: &SessionArgs) -> Result<u8> {
    match open(cli, args) {
        Ok(()) => Ok(0),
        Err(error) => {
            fail(&error);
            Ok(1)
        }
    }
}

/// Tells the program at the other end of standard input what went wrong.
pub fn fail(error: &anyhow::Error) {
    if let Ok(stream) = stdin() {
        super::session::refuse(&stream, error);
    }
}

/// The stream that is standard input.
pub fn stdin() -> Result<UnixStream> {
    let copy = std::io::stdin().as_fd().try_clone_to_owned().context("standard input cannot be used")?;
    Ok(UnixStream::from(copy))
}

fn open(cli: &Cli, args: &SessionArgs) -> Result<()> {
    let place = match &args.attach {
        Some(bag) => match elsewhere::find(cli, bag)? {
            Found::Here(place) => place,
            Found::Elsewhere(_, bag) => bail!(
                "bag {0} was submitted on another machine: programs open it there, at {1}. From here, \
                 `mutirao bag results {0}` prints what its tasks have returned, and `show`, `wait`, `cancel` and `retry` \
                 work as there",
                bag.called(),
                bag.origin()
            ),
        },
        None => submit(args)?,
    };
    if args.attach.is_none() && args.lives_on && kept::by_node(&place, cli.node.as_deref())?.is_some() {
        kept::wait_for(&place)?;
    }
    for _ in 0..KEEPERS {
        let keeper = match place.connect() {
            None if kept::wake(&place)? => place.connect(),
            keeper => keeper,
        };
        let Some(keeper) = keeper else {
            let mut command = keeper_command(&place, cli.node.as_deref())?;
            let owned = !args.lives_on && args.attach.is_none();
            command.arg("--session").args(owned.then_some("--owned"));
            command.stdin(Stdio::inherit()).stdout(Stdio::null());
            command.spawn().context("cannot start the keeper")?;
            return Ok(());
        };
        if pass(keeper)? {
            return Ok(());
        }
    }
    bail!("each keeper of bag {} that was found ended before it answered", place.id)
}

fn submit(args: &SessionArgs) -> Result<Place> {
    let path = args.program.as_deref().unwrap_or(Path::new(""));
    let file_name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = args.name.clone().or(file_name).unwrap_or_else(|| "bag".into());
    let mut draft = Draft::new(super::here(name)?);
    draft.settings.program = Some(Program {
        path: text_of(path)?,
        operations: args.operations.clone(),
        libraries: args.libraries.iter().map(|path| text_of(path)).collect::<Result<_>>()?,
        retries: args.retries,
        limit_ms: args.limit_ms,
        saves_state: args.saves_state,
    });
    draft.settings.slots_max = args.slots_max.unwrap_or(draft.settings.slots_max);
    Place::submit(draft)
}

/// Passes on what program and keeper say to each other; false if the keeper ended before it said anything.
fn pass(mut keeper: UnixStream) -> Result<bool> {
    let order = serde_json::to_string(&super::control::Order::Session)?;
    let mut said = vec![0; SAID_BYTES];
    // One that is about to end has gone by now, or goes with the order unread.
    let first = writeln!(keeper, "{order}").and_then(|()| keeper.read(&mut said)).unwrap_or(0);
    if first == 0 {
        return Ok(false);
    }
    let mut program = stdin()?;
    program.write_all(&said[..first]).context("the program has gone")?;
    let to_keeper = keeper.try_clone().context("the keeper cannot be reached")?;
    let to_program = program.try_clone().context("standard input cannot be used")?;
    let down = std::thread::Builder::new().name("down".into()).spawn(move || {
        // Whichever end goes, the other is told by the end of its stream.
        let _ = std::io::copy(&mut &keeper, &mut &to_program);
        let _ = to_program.shutdown(Shutdown::Both);
    });
    let _ = std::io::copy(&mut &program, &mut &to_keeper);
    let _ = to_keeper.shutdown(Shutdown::Both);
    // It ends as the stream does; if it panicked, that was told when it did.
    let _ = down.context("cannot start a thread")?.join();
    Ok(true)
}
