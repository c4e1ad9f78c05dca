//! A task on its way: the command that a worker runs, and what comes back.

use anyhow::{Context, Result, bail};
use mutirao::raw::{CallError, CallErrorKind, CallResult, OperationEntry};
use mutirao_bag::{Cost, End, REPORT_BYTES_MAX, Report, Settings, TaskView, Work};
use mutirao_runner::{Command, Ended, File, Home, How, Leaving, Place, Program, Runner};
use mutirao_wire::worker::PLACE_ENV;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The operation that runs a task.
pub const OPERATION: &str = "bag_task";
/// Tells a task the file into which it writes its reports.
pub const REPORT_ENV: &str = "MUTIRAO_BAG_REPORT";
/// The file's name in the directory of the worker.
const REPORT: &str = ".mutirao-report";
/// Stands for the path of that file among the arguments of an ipar application.
const MANAGER: &[u8] = b"{mutirao-manager}";
/// Input files of one task, together: what a call can carry.
const INPUT_BYTES_MAX: u64 = 60 << 20;

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

/// Runs a task in this worker.
fn run(mut command: Command) -> std::io::Result<Ended> {
    static RUNNER: Mutex<Option<Runner>> = Mutex::new(None);
    let directory = std::env::current_dir()?;
    let report = directory.join(REPORT);
    let report_bytes = report.as_os_str().as_bytes();
    command.environment.push((REPORT_ENV.into(), report_bytes.to_vec()));
    if let Ok(binary) = std::env::current_exe() {
        command.environment.push((b"MUTIRAO".to_vec(), binary.as_os_str().as_bytes().to_vec()));
    }
    if let Program::Words(words) = &mut command.program {
        words.iter_mut().filter(|word| *word == MANAGER).for_each(|word| *word = report_bytes.to_vec());
    }
    command.take.push(REPORT.into());
    let mut runner = RUNNER.lock().unwrap_or_else(PoisonError::into_inner);
    if runner.is_none() {
        let place = std::env::var(PLACE_ENV).map(|text| Place::parse(&text)).unwrap_or_default();
        *runner = Some(Runner::new(&directory, place, Leaving::Tells)?);
    }
    let Some(runner) = runner.as_mut() else { unreachable!("it was made just now") };
    let mut ended = runner.run(&command);
    // A task that ran elsewhere has left its report here all the same.
    if let Ok(bytes) = std::fs::read(&report) {
        ended.files.push(File { name: REPORT.into(), executable: false, bytes });
        std::fs::remove_file(&report)?;
    }
    Ok(ended)
}

/// Gives the content of an input file, and whether it is a program.
pub type Fetch<'a> = dyn Fn(&Path) -> Result<(Vec<u8>, bool)> + 'a;

/// Reads an input file of this machine.
pub fn fetch_here(path: &Path) -> Result<(Vec<u8>, bool)> {
    use std::os::unix::fs::PermissionsExt;
    let failed = || format!("input {}", path.display());
    let facts = std::fs::metadata(path).with_context(failed)?;
    if facts.len() > INPUT_BYTES_MAX {
        bail!("input {} is larger than {} MiB", path.display(), INPUT_BYTES_MAX >> 20);
    }
    let bytes = std::fs::read(path).with_context(failed)?;
    Ok((bytes, facts.permissions().mode() & 0o100 != 0))
}

/// The argument of the call that runs a task.
pub fn command(
    bag: u32,
    settings: &Settings,
    task: &TaskView<'_>,
    attempt: u64,
    fetch: &Fetch<'_>,
) -> Result<Vec<u8>> {
    let template = task.template;
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
    set("MUTIRAO_BAG", bag.to_string());
    set("MUTIRAO_TASK", task.number.to_string());
    set("MUTIRAO_TASK_NAME", format!("{}.{}", template.name, task.place));
    set("MUTIRAO_ATTEMPT", attempt.to_string());
    command.stdin = template.stdin.fill(&task.named).into_bytes();
    command.time_limit_ms = template.limit_ms;
    if template.memory_mib > 0 {
        command.limits.memory_mib = Some(template.memory_mib);
    }
    if template.has_playpen() {
        bring(settings, task, fetch, &mut command)?;
        command.take = template.outputs.iter().map(|file| file.there.fill(&task.named)).collect();
    } else {
        if let Work::Ipar { files, .. } = &template.work {
            let mut room = INPUT_BYTES_MAX;
            for file in files {
                bring_file(settings, file, file, fetch, &mut room, &mut command)?;
            }
        }
        let variable =
            |(name, value): &(String, String)| (name.clone().into_bytes(), value.clone().into_bytes());
        command.home = Some(Home {
            directory: settings.directory.clone().into_bytes(),
            environment: settings.environment.iter().map(variable).collect(),
            ..Home::default()
        });
    }
    Ok(command.encode())
}

/// The operation that a task calls, and its argument.
pub fn operation<'a>(task: &TaskView<'a>) -> Option<(&'a str, Vec<u8>)> {
    let Work::Operation { name, argument, as_bytes } = &task.template.work else { return None };
    let text = argument.fill(&task.named);
    let argument =
        if *as_bytes { text.chars().map(|letter| letter as u8).collect() } else { text.into_bytes() };
    Some((name, argument))
}

/// Puts the task's input files into its command.
fn bring(settings: &Settings, task: &TaskView<'_>, fetch: &Fetch<'_>, command: &mut Command) -> Result<()> {
    let mut room = INPUT_BYTES_MAX;
    for file in &task.template.inputs {
        let (here, there) = (file.here.fill(&task.named), file.there.fill(&task.named));
        bring_file(settings, &here, &there, fetch, &mut room, command)?;
    }
    Ok(())
}

fn bring_file(
    settings: &Settings,
    here: &str,
    there: &str,
    fetch: &Fetch<'_>,
    room: &mut u64,
    command: &mut Command,
) -> Result<()> {
    let (bytes, executable) = fetch(&Path::new(&settings.directory).join(here))?;
    *room = match room.checked_sub(bytes.len() as u64) {
        Some(room) => room,
        None => bail!("the inputs of a task are larger than {} MiB together", INPUT_BYTES_MAX >> 20),
    };
    command.bring.push(File { name: there.into(), executable, bytes });
    Ok(())
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
    pub report: Report,
}

impl Outcome {
    fn bare(end: End) -> Outcome {
        let (stdout, stderr, files) = (Vec::new(), Vec::new(), Vec::new());
        Outcome { end, cost: Cost::default(), stdout, stderr, files, report: Report::default() }
    }

    /// A task that could not even be sent.
    pub fn not_started(why: String) -> Outcome {
        Outcome::bare(End::NotStarted(why))
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
            end = End::NoOutput(format!(
                "{} bytes of output and files that were too many to be sent",
                ended.lost_bytes
            ));
        }
        let cost = Cost {
            wall_ms: ended.wall_us / 1000,
            cpu_ms: ended.cpu_us / 1000,
            peak_mib: u32::try_from(ended.peak_kib / 1024).unwrap_or(u32::MAX),
        };
        Outcome { end, cost, stdout: ended.stdout, stderr: ended.stderr, files: ended.files, report }
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

/// Where an output file belongs, and where it waits until the result of its attempt counts.
pub fn output_paths(
    bag: u32,
    settings: &Settings,
    task: &TaskView<'_>,
    attempt: u64,
) -> Vec<(String, PathBuf, PathBuf)> {
    let paths = |file: &mutirao_bag::FileName| {
        let path = Path::new(&settings.directory).join(file.here.fill(&task.named));
        let mut waiting = path.clone().into_os_string();
        waiting.push(format!(".bag-{bag}-attempt-{attempt}"));
        (file.there.fill(&task.named), path, waiting.into())
    };
    task.template.outputs.iter().map(paths).collect()
}
