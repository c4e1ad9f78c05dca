//! `mutirao call`: one operation of a program, from the command line.

use crate::args::{CallArgs, Cli};
use crate::output::put_bytes;
use crate::output::remark;
use crate::reading;
use anyhow::{Context, Result, bail};
use mutirao::raw::{CallOptions, ForeignProgram, Options, Pool, note_text};
use mutirao_wire::frame::Decoder;
use mutirao_wire::limits::{CALL_BYTES_MAX, DATA_BODY_MAX};
use mutirao_wire::plugin::Operation;
use mutirao_wire::worker::{WORKER_ENV, WorkerMessage};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a program may take until it enters the library.
const ENTER: Duration = Duration::from_secs(10);

/// Calls the operation; the exit code is 3 when the call itself failed.
pub fn run(cli: &Cli, args: &CallArgs) -> Result<u8> {
    let argument =
        args.input.as_deref().map_or(Ok(Vec::new()), |path| reading::bytes(path, CALL_BYTES_MAX))?;
    let program = args
        .program
        .canonicalize()
        .with_context(|| format!("cannot find the program {}", args.program.display()))?;
    let Described { names, libraries } = describe(&program)?;
    let Some(operation) = names.iter().position(|name| *name == args.operation) else {
        bail!("{} has no operation `{}`; it has: {}", program.display(), args.operation, names.join(", "));
    };
    let operations = names.into_iter().map(|name| Operation { name, repeatable: false }).collect();
    let pool = Pool::open(Options {
        node: cli.node.clone(),
        name: program.file_name().map(|name| name.to_string_lossy().into_owned()),
        foreign: Some(ForeignProgram { path: program, operations }),
        libraries,
        ..Options::default()
    })?;
    let limit = args.limit_ms.map(|ms| Duration::from_millis(ms.into()));
    let options = CallOptions { limit, ..CallOptions::default() };
    let mut call = pool.submit(operation as u32, argument, options)?;
    let result = call.wait();
    pool.notes().iter().for_each(|note| remark!("mutirao: {}", note_text(note)));
    match result {
        Ok(bytes) => {
            put_bytes(&bytes)?;
            Ok(0)
        }
        Err(error) => {
            remark!("mutirao: {error}");
            Ok(3)
        }
    }
}

/// What a program says about itself when it is started as a worker.
pub struct Described {
    /// Its operations.
    pub names: Vec<String>,
    /// Shared objects it has loaded that other machines may lack, under each of their names.
    pub libraries: Vec<PathBuf>,
}

/// Starts a program as a worker to learn what it consists of.
pub fn describe(program: &Path) -> Result<Described> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
    let mut child = Command::new(program)
        .env(WORKER_ENV, theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    drop(theirs);
    // It ends when this is closed.
    let mut stream = UnixStream::from(ours);
    let hello = read_hello(&mut stream);
    let libraries = loaded_libraries(program, child.id());
    // It has said what it is asked for, or is no plugin.
    let _ = child.kill();
    let _ = child.wait();
    let names = hello.with_context(|| {
        format!(
            "{} did not name its operations: is mutirao_init (in Rust, mutirao::init) the first statement of its main?",
            program.display()
        )
    })?;
    Ok(Described { names, libraries })
}

/// The shared objects that a process of this program has mapped from outside the system's directories, under the names
/// by which the program is linked to them. One that is not among those was opened by a name that is known to the
/// program alone, so all names that it has where it lies are listed.
fn loaded_libraries(program: &Path, process: u32) -> Vec<PathBuf> {
    const SYSTEM: [&str; 4] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"];
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    let foreign = |path: &&Path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".so") && !SYSTEM.iter().any(|dir| path.starts_with(dir))
    };
    let files: BTreeSet<&Path> = mapped.filter(foreign).collect();
    let linked = if files.is_empty() { Vec::new() } else { linked_libraries(program) };
    let is = |path: &Path, file: &Path| path.canonicalize().is_ok_and(|real| real == file);
    let names_of = |file: &Path| -> Vec<PathBuf> {
        let names: Vec<PathBuf> = linked.iter().filter(|path| is(path, file)).cloned().collect();
        if !names.is_empty() {
            return names;
        }
        let beside = file.parent().and_then(|directory| std::fs::read_dir(directory).ok());
        let paths = beside.into_iter().flatten().flatten().map(|entry| entry.path());
        paths.filter(|path| is(path, file)).collect()
    };
    files.into_iter().flat_map(names_of).collect()
}

/// The shared objects that a program is linked to, by the paths at which the dynamic linker finds them, which may lead
/// over links from elsewhere. It says so instead of running the program; one that does not know how to is given a
/// worker's line that is closed already, which ends the program.
fn linked_libraries(program: &Path) -> Vec<PathBuf> {
    let Ok((ours, theirs)) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)
    else {
        return Vec::new();
    };
    drop(ours);
    let traced = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .env(WORKER_ENV, theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = traced.map(|traced| traced.stdout).unwrap_or_default();
    let found = |line: &str| {
        let path = line.split_once("=> ")?.1.rsplit_once(" (")?.0;
        Some(PathBuf::from(path))
    };
    String::from_utf8_lossy(&text).lines().filter_map(found).collect()
}

fn read_hello(stream: &mut UnixStream) -> Result<Vec<String>> {
    stream.set_read_timeout(Some(ENTER))?;
    let mut decoder = Decoder::new(DATA_BODY_MAX);
    let mut buffer = [0; 4096];
    loop {
        if let Some((header, body)) = decoder.next_frame()? {
            match WorkerMessage::read(&header, body)? {
                WorkerMessage::WorkerHello(hello) => return Ok(hello.operations),
                other => bail!("it says {:?} first", other.kind()),
            }
        }
        match stream.read(&mut buffer)? {
            0 => bail!("it ended"),
            n => decoder.push(&buffer[..n]),
        }
    }
}
