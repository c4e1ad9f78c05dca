//! A task on its way: the command that a worker runs, and what comes back.

use super::inputs::{INLINE_BYTES_MAX, InputFile, Large};
use super::saving::{self, Saving};
use anyhow::{Result, bail};
use mutirao::raw::{CallError, CallErrorKind, CallResult, KeptBlob, LineEvent, OperationEntry, SavingWay};
use mutirao_bag::{Bag, Cost, End, REPORT_BYTES_MAX, Report, Settings, TaskView, Work};
use mutirao_runner::{
    Around, Command, Content, Ended, Environment, Fetched, File, Home, How, Kept, Leaving, Lying,
    OUTPUT_BYTES_MAX, Place, Placed, Program, Runner, Site, Unseen,
};
use mutirao_wire::BlobHash;
use mutirao_wire::checkpoint::{CHECKPOINT_ENV, STATE_BYTES_MAX};
use mutirao_wire::worker::{LINE_BLOBS_MAX, PLACE_ENV};
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The operation that runs a task.
pub const OPERATION: &str = "bag_task";
/// Tells a task the file into which it writes its reports.
pub const REPORT_ENV: &str = "MUTIRAO_BAG_REPORT";
/// The file's name in the directory of the worker.
pub const REPORT: &str = ".mutirao-report";
/// The state that a failed command has left, among its files.
const STATE: &str = ".mutirao-state";
/// The directory, in that of the worker, with the state of a command that runs elsewhere.
const STATE_ROOM: &str = ".mutirao-state-room";
/// Stands for the path of that file among the arguments of an ipar application.
const MANAGER: &[u8] = b"{mutirao-manager}";
/// Input files of one task that travel with its call, and its state, together.
const INPUT_BYTES_MAX: u64 = STATE_BYTES_MAX as u64;

thread_local! {
    /// The way on which state goes to the keeper.
    static WAY: RefCell<SavingWay> = RefCell::default();
}

/// What a worker does for bags.
pub fn operations() -> Vec<OperationEntry> {
    let run = |argument: &[u8], result: &mut Vec<u8>| {
        let failure = |text: String| mutirao::raw::Failure { code: 1, text };
        let command = Command::decode(argument).map_err(|error| failure(error.to_string()))?;
        let ended = run(command).map_err(|error| failure(error.to_string()))?;
        if ended.left_behind {
            mutirao::raw::retire();
        }
        result.extend_from_slice(&ended.encode());
        Ok(())
    };
    vec![OperationEntry { name: OPERATION.into(), repeatable: false, run: Box::new(run) }]
}

/// What is the same for all tasks of this worker.
struct Station {
    /// Its directory.
    directory: PathBuf,
    /// This program.
    binary: Option<PathBuf>,
    runner: Runner,
}

impl Station {
    fn new() -> std::io::Result<Station> {
        let directory = std::env::current_dir()?;
        let place = std::env::var(PLACE_ENV).map(|text| Place::parse(&text)).unwrap_or_default();
        let runner = Runner::new(&directory, place, Leaving::Tells)?;
        Ok(Station { directory, binary: std::env::current_exe().ok(), runner })
    }
}

/// Runs a task in this worker.
fn run(mut command: Command) -> std::io::Result<Ended> {
    static STATION: Mutex<Option<Station>> = Mutex::new(None);
    let mut station = STATION.lock().unwrap_or_else(PoisonError::into_inner);
    if station.is_none() {
        *station = Some(Station::new()?);
    }
    let Some(Station { directory, binary, runner }) = station.as_mut() else {
        unreachable!("it was made just now")
    };
    let report = directory.join(REPORT);
    let report_bytes = report.as_os_str().as_bytes();
    command.environment.push((REPORT_ENV.into(), report_bytes.to_vec()));
    if let Some(binary) = binary {
        command.environment.push((b"MUTIRAO".to_vec(), binary.as_os_str().as_bytes().to_vec()));
    }
    if let Program::Words(words) = &mut command.program {
        words.iter_mut().filter(|word| *word == MANAGER).for_each(|word| *word = report_bytes.to_vec());
    }
    command.take.push(REPORT.into());
    let is_at_home = runner.is_at_home(&command);
    let fetched = match command.fetch.as_slice() {
        wanted if wanted.is_empty() || is_at_home => Ok(Vec::new()),
        wanted => fetch(wanted),
    };
    let fetched = match fetched {
        Ok(fetched) => fetched,
        Err(why) => return Ok(Ended::not_started(why)),
    };
    // Where its state is: among its files, but not where those lie that are all tasks'.
    let room = match &command.site {
        _ if is_at_home => directory.join(STATE_ROOM),
        Some(site) => site.path(),
        None => directory.clone(),
    };
    let checkpoint = checkpoint(&mut command, &room);
    let has_room = is_at_home && checkpoint.is_some();
    if let (true, Some((name, _))) = (has_room, &checkpoint) {
        std::fs::create_dir(&room)?;
        let mut saved = command.bring.iter().filter(|file| file.name == *name);
        saved.try_for_each(|file| std::fs::write(room.join(name), &file.bytes))?;
    }
    let mut ended = match checkpoint {
        None => runner.run_with(&command, Around { fetched: &fetched, beside: None, keep: Some(&keep) }),
        Some((name, bytes_max)) => WAY.with_borrow_mut(|way| {
            let mut saving = Saving::new(way, room.clone(), name, bytes_max);
            let around = Around { fetched: &fetched, beside: Some(&mut saving), keep: Some(&keep) };
            let mut ended = runner.run_with(&command, around);
            if let Some(bytes) = saving.into_left() {
                // They are of no use any more, and the result has room for one of them.
                ended.files.retain(|file| file.name == REPORT);
                let written = ended.stdout.len() + ended.stderr.len();
                if written + bytes.len() <= OUTPUT_BYTES_MAX as usize {
                    ended.files.push(File { name: STATE.into(), executable: false, bytes });
                }
            }
            ended
        }),
    };
    if has_room {
        // Nothing of one command is found by the next.
        ended.left_behind |= std::fs::remove_dir_all(&room).is_err();
    }
    // A task that ran elsewhere has left its report here all the same.
    if let Ok(bytes) = std::fs::read(&report) {
        ended.files.push(File { name: REPORT.into(), executable: false, bytes });
        std::fs::remove_file(&report)?;
    }
    Ok(ended)
}

/// The name of the file in which a command saves state, if it does, and how long that may be. The command learns where
/// it is.
fn checkpoint(command: &mut Command, directory: &Path) -> Option<(String, usize)> {
    let found = command.environment.iter().rfind(|(known, _)| known == CHECKPOINT_ENV.as_bytes());
    let name = String::from_utf8(found?.1.clone()).ok()?;
    let path = directory.join(&name).into_os_string().into_encoded_bytes();
    command.environment.push((CHECKPOINT_ENV.into(), path));
    let inputs = command.bring.iter().filter(|file| file.name != name);
    let brought: usize = inputs.map(|file| file.bytes.len()).sum();
    Some((name, STATE_BYTES_MAX.saturating_sub(brought)))
}

/// The files of a command that are fetched by their content, opened, or why one is not to be had.
fn fetch(fetched: &[Fetched]) -> Result<Vec<std::fs::File>, String> {
    let line = mutirao::raw::line().ok_or("this worker has no line to its node")?;
    let mut wanted: Vec<[u8; 32]> = fetched.iter().map(|file| file.hash).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let mut files: HashMap<[u8; 32], Result<std::fs::File, String>> = HashMap::new();
    for some in wanted.chunks(LINE_BLOBS_MAX) {
        some.iter().try_for_each(|hash| line.ask_blob(BlobHash(*hash))).map_err(|error| error.to_string())?;
        while !some.iter().all(|hash| files.contains_key(hash)) {
            match line.next(None).map_err(|error| error.to_string())? {
                Some(LineEvent::Blob { hash, file }) => drop(files.insert(hash.0, file.map(Into::into))),
                // Of the way for state, which is open already.
                Some(event) => saving::put_off(event),
                None => {}
            }
        }
    }
    let copy = |file: &Fetched| {
        let copy = files[&file.hash].as_ref().map_err(String::clone);
        let copy = copy.and_then(|file| file.try_clone().map_err(|error| error.to_string()));
        copy.map_err(|why| format!("input `{}` is not to be had: {why}", file.name))
    };
    fetched.iter().map(copy).collect()
}

/// Has this worker's node keep a file until the keeper of the bag has fetched it.
fn keep(file: std::fs::File) -> Result<Content, String> {
    let line = mutirao::raw::line().ok_or("this worker has no line to its node")?;
    line.keep_blob(file.into()).map_err(|error| error.to_string())?;
    loop {
        match line.next(None).map_err(|error| error.to_string())? {
            Some(LineEvent::Kept(kept)) => {
                let KeptBlob { hash, ticket } = kept?;
                return Ok(Content { hash: hash.0, bytes: ticket.bytes, word: ticket.word });
            }
            Some(event) => saving::put_off(event),
            None => {}
        }
    }
}

/// Finds an input file, for a task that works in place or not.
pub type Find<'a> = dyn Fn(&Path, bool) -> Result<InputFile> + 'a;

/// What all commands of a bag have in common.
pub struct Common<'a> {
    pub number: u32,
    pub bag: &'a Bag,
    /// That of the settings, as it travels.
    pub environment: &'a Environment,
}

/// The command of a task, and those of its inputs that do not travel with it.
pub fn command(
    Common { number, bag, environment }: Common<'_>,
    task: &TaskView<'_>,
    attempt: u64,
    state: Option<Vec<u8>>,
    find: &Find<'_>,
    site: Option<Site>,
) -> Result<(Command, Vec<Large>)> {
    let (template, settings) = (task.template, bag.settings());
    let mut command = match &template.work {
        Work::Shell(words) => Command::shell(words.fill_quoted(&task.named)),
        Work::Program(words) => Command::words(words.iter().map(|word| word.fill(&task.named))),
        Work::Ipar { program, method, .. } => {
            let (id, text) = match method {
                mutirao_bag::ipar::Method::Executa => {
                    (task.place.to_string(), task.named.values.first().map_or("", |value| value))
                }
                _ => ("-1".to_owned(), ""),
            };
            let mut words: Vec<Vec<u8>> = program.iter().map(|word| word.clone().into_bytes()).collect();
            words.extend([MANAGER.to_vec(), method.word().into(), id.into_bytes(), text.into()]);
            Command::words(words)
        }
        Work::Operation { .. } => bail!("it is no command"),
    };
    let mut set = |name: &str, value: String| command.environment.push((name.into(), value.into_bytes()));
    for (name, value) in &template.environment {
        set(name, value.fill(&task.named));
    }
    set("MUTIRAO_BAG", number.to_string());
    set("MUTIRAO_TASK", task.number.to_string());
    set("MUTIRAO_TASK_NAME", format!("{}.{}", template.name, task.place));
    set("MUTIRAO_ATTEMPT", attempt.to_string());
    if let Some(name) = &template.checkpoint {
        set(CHECKPOINT_ENV, name.clone());
    }
    command.stdin = template.stdin.fill(&task.named).into_bytes();
    command.time_limit_ms = template.limit_ms;
    if template.memory_mib > 0 {
        command.limits.memory_mib = Some(template.memory_mib);
    }
    let mut brought = Brought { room: INPUT_BYTES_MAX, large: Vec::new() };
    if template.has_playpen() {
        command.site = site;
        for (here, there) in bag.inputs(task) {
            let is_in_place = command.site.is_some();
            let found = (find)(&Path::new(&settings.directory).join(here), is_in_place)?;
            match &mut command.site {
                Some(site) if found.kept.is_none() => site.links.push(lying(found, there)),
                _ => brought.bring(found, &there, &mut command)?,
            }
        }
        if let Some(site) = &mut command.site {
            let place = |(there, _, waiting): (String, PathBuf, PathBuf)| {
                (there, waiting.into_os_string().into_vec())
            };
            let paths = output_paths(number, settings, task, (attempt, site.sender));
            site.places = paths.into_iter().map(place).collect();
        }
        command.take = template.outputs.iter().map(|file| file.there.fill(&task.named)).collect();
    } else {
        if let Work::Ipar { files, .. } = &template.work {
            for file in files {
                let found = (find)(&Path::new(&settings.directory).join(file), false)?;
                brought.bring(found, file, &mut command)?;
            }
        }
        command.home = Some(Home {
            directory: settings.directory.clone().into_bytes(),
            environment: environment.clone(),
            ..Home::default()
        });
    }
    if let (Some(bytes), Some(name)) = (state, &template.checkpoint) {
        if bytes.len() as u64 > brought.room {
            bail!("its state and its inputs are larger than {} MiB together", INPUT_BYTES_MAX >> 20);
        }
        command.bring.push(File { name: name.clone(), executable: false, bytes });
    }
    Ok((command, brought.large))
}

/// An input that a task finds where it lies.
fn lying(found: InputFile, name: String) -> Lying {
    let InputFile { path, bytes, modified_s, .. } = found;
    Lying { name, path: path.into_os_string().into_vec(), bytes, modified_s }
}

/// The operation that a task calls, and its argument.
pub fn operation<'a>(task: &TaskView<'a>) -> Option<(&'a str, Vec<u8>)> {
    let Work::Operation { name, argument, as_bytes } = &task.template.work else { return None };
    let text = argument.fill(&task.named);
    let argument =
        if *as_bytes { text.chars().map(|letter| letter as u8).collect() } else { text.into_bytes() };
    Some((name, argument))
}

/// The inputs of a task, on their way into its command.
struct Brought {
    /// Bytes that still fit into the call.
    room: u64,
    large: Vec<Large>,
}

impl Brought {
    fn bring(&mut self, found: InputFile, there: &str, command: &mut Command) -> Result<()> {
        if found.bytes > INLINE_BYTES_MAX.min(self.room) {
            self.large.push(Large { found, there: there.into() });
            return Ok(());
        }
        let bytes = found.read()?;
        self.room = self.room.saturating_sub(bytes.len() as u64);
        command.bring.push(File { name: there.into(), executable: found.executable, bytes });
        Ok(())
    }
}

/// What came of an attempt.
#[derive(Debug)]
pub struct Outcome {
    pub end: End,
    pub cost: Cost,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Files, by their names in the directory of the task.
    pub files: Vec<File>,
    /// Files that its node keeps.
    pub kept: Vec<Kept>,
    /// Of these, those that were fetched, and lie under the attempt's name or, one behind the other, in this file.
    pub fetched: Vec<Kept>,
    pub together: Option<Arc<std::fs::File>>,
    /// Files that lie under the attempt's name already, since it worked in place.
    pub placed: Vec<Placed>,
    /// Its node does not see what it was to work with in place; it did not start.
    pub unseen: Option<Unseen>,
    pub report: Report,
    /// The state that it has left, if it failed.
    pub state: Option<Vec<u8>>,
}

impl Outcome {
    fn bare(end: End) -> Outcome {
        let (stdout, stderr, files) = (Vec::new(), Vec::new(), Vec::new());
        let (cost, report) = (Cost::default(), Report::default());
        let (kept, fetched, placed) = (Vec::new(), Vec::new(), Vec::new());
        let (together, unseen, state) = (None, None, None);
        Outcome { end, cost, stdout, stderr, files, kept, fetched, together, placed, unseen, report, state }
    }

    /// A task that could not even be sent.
    pub fn not_started(why: String) -> Outcome {
        Outcome::bare(End::NotStarted(why))
    }

    /// An attempt that was called off before it was sent.
    pub fn called_off() -> Outcome {
        Outcome::bare(End::Killed)
    }

    /// A task whose lease was gone before it was sent.
    pub fn not_begun(why: String) -> Outcome {
        Outcome::bare(End::NotBegun(why))
    }

    /// The result of a call of the bag's program, which took so long.
    pub fn of_operation(result: CallResult, wall: std::time::Duration) -> Outcome {
        let mut outcome = match result {
            Ok(bytes) => Outcome { stdout: bytes, ..Outcome::bare(End::Done) },
            Err(error) => Outcome::bare(end_of(error)),
        };
        outcome.cost.wall_ms = wall.as_millis() as u64;
        outcome
    }

    /// Reads the result of a call.
    pub fn of(result: CallResult) -> Outcome {
        match result {
            Ok(bytes) => match Ended::decode(&bytes) {
                Ok(ended) => Outcome::ended(ended),
                Err(error) => Outcome::bare(End::Operation(1, error.to_string())),
            },
            Err(error) => Outcome::bare(end_of(error)),
        }
    }

    fn ended(mut ended: Ended) -> Outcome {
        let mut end = match ended.how {
            How::Code(0) => End::Done,
            How::Code(code) => End::Code(code),
            How::Signal(signal) => End::Signal(signal),
            How::TimeLimit => End::TimeLimit,
            How::OutOfMemory => End::OutOfMemory,
            How::NotStarted(why) => End::NotStarted(why),
        };
        let place = ended.files.iter().position(|file| file.name == REPORT);
        let written = place.map(|place| ended.files.swap_remove(place).bytes).unwrap_or_default();
        let report = match written.len() {
            bytes if bytes > REPORT_BYTES_MAX => {
                Err(format!("its report has {bytes} bytes, at most {REPORT_BYTES_MAX} are read"))
            }
            _ => Report::read(&written).map_err(|error| error.to_string()),
        };
        let report = report.unwrap_or_else(|why| {
            if end == End::Done {
                end = End::NoReport(why);
            }
            Report::default()
        });
        if end == End::Done && ended.lost_bytes > 0 {
            let lost = ended.lost_bytes;
            let mut why = format!("{lost} bytes of output and files that were too many to be sent");
            if !ended.lost_why.is_empty() {
                why += &format!("; {}", ended.lost_why);
            }
            end = End::NoOutput(why);
        }
        let cost = Cost {
            wall_ms: ended.wall_us / 1000,
            cpu_ms: ended.cpu_us / 1000,
            peak_mib: u32::try_from(ended.peak_kib / 1024).unwrap_or(u32::MAX),
        };
        let place = ended.files.iter().position(|file| file.name == STATE);
        let state = place.map(|place| ended.files.swap_remove(place).bytes);
        Outcome {
            end,
            cost,
            stdout: ended.stdout,
            stderr: ended.stderr,
            files: ended.files,
            kept: ended.kept,
            fetched: Vec::new(),
            together: None,
            placed: ended.placed,
            unseen: ended.unseen,
            report,
            state,
        }
    }

    /// What its node keeps of it.
    pub fn kept_hashes(&self) -> Vec<BlobHash> {
        self.kept.iter().chain(&self.fetched).map(|kept| BlobHash(kept.content.hash)).collect()
    }

    /// Where a file that was fetched begins among those that lie one behind the other, and how long it is.
    pub fn place_together(&self, name: &str) -> Option<(u64, &Kept)> {
        let mut end = 0;
        let mut placed = self.fetched.iter().map(|kept| {
            let begin = end;
            end += kept.content.bytes;
            (begin, kept)
        });
        placed.find(|(_, kept)| kept.name == name)
    }

    /// The last words of an attempt, for whoever asks why it failed.
    pub fn last_words(&self) -> String {
        let begin = self.stderr.len().saturating_sub(1000);
        String::from_utf8_lossy(&self.stderr[begin..]).trim_end().to_owned()
    }
}

fn end_of(error: CallError) -> End {
    match error.kind {
        CallErrorKind::TimeLimit => End::TimeLimit,
        CallErrorKind::OutOfMemory => End::OutOfMemory,
        CallErrorKind::WorkerEnded => End::WorkerEnded(error.text),
        CallErrorKind::Cancelled => End::Killed,
        CallErrorKind::OutcomeUnknown => {
            let cause = error.text.rsplit_once("is not known: ").map_or(&*error.text, |(_, cause)| cause);
            End::NodeLost(cause.to_owned())
        }
        CallErrorKind::NoSlots | CallErrorKind::PoolClosed => End::NotBegun(error.text),
        CallErrorKind::Operation(code) => End::Operation(code, error.text),
        _ => End::Operation(1, error.text),
    }
}

/// Where an output file belongs, and where it waits until the result of its attempt counts: beside that, and hidden from
/// tasks that look for `*` there. What an attempt moves there itself has the number of who sent it in its name.
pub fn output_paths(
    bag: u32,
    settings: &Settings,
    task: &TaskView<'_>,
    (attempt, sender): (u64, u64),
) -> Vec<(String, PathBuf, PathBuf)> {
    let paths = |file: &mutirao_bag::FileName| {
        let path = Path::new(&settings.directory).join(file.here.fill(&task.named));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let mut waiting = format!(".{name}.{}{attempt}", of_attempts(bag));
        if sender > 0 {
            waiting += &format!("-{sender:x}");
        }
        let waiting = path.with_file_name(waiting);
        (file.there.fill(&task.named), path, waiting)
    };
    task.template.outputs.iter().map(paths).collect()
}

/// What the names of files have in common that wait for the results of a bag.
pub fn of_attempts(bag: u32) -> String {
    format!("bag-{bag}-attempt-")
}
