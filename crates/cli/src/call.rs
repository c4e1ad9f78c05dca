//! `mutirao call`: one operation of a program, from the command line.

use crate::args::{CallArgs, Cli};
use crate::output::put_bytes;
use anyhow::{Context, Result, bail};
use mutirao::raw::{CallOptions, ForeignProgram, Options, Pool, note_text};
use mutirao_wire::frame::Decoder;
use mutirao_wire::limits::{CALL_BYTES_MAX, DATA_BODY_MAX};
use mutirao_wire::plugin::Operation;
use mutirao_wire::worker::{WORKER_ENV, WorkerMessage};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a program may take until it enters the library.
const ENTER: Duration = Duration::from_secs(10);

/// Calls the operation; the exit code is 3 when the call itself failed.
pub fn run(cli: &Cli, args: &CallArgs) -> Result<u8> {
    let argument = args.input.as_deref().map_or_else(|| Ok(Vec::new()), read_argument)?;
    let program = args
        .program
        .canonicalize()
        .with_context(|| format!("cannot find the program {}", args.program.display()))?;
    let names = operations_of(&program)?;
    let Some(operation) = names.iter().position(|name| *name == args.operation) else {
        bail!("{} has no operation `{}`; it has: {}", program.display(), args.operation, names.join(", "));
    };
    let operations = names.into_iter().map(|name| Operation { name, repeatable: false }).collect();
    let pool = Pool::open(Options {
        node: cli.node.clone(),
        foreign: Some(ForeignProgram { path: program, operations }),
        ..Options::default()
    })?;
    let limit = args.limit_ms.map(|ms| Duration::from_millis(ms.into()));
    let options = CallOptions { limit, ..CallOptions::default() };
    let mut call = pool.submit(operation as u32, argument, options)?;
    let result = call.wait();
    pool.notes().iter().for_each(|note| eprintln!("mutirao: {}", note_text(note)));
    match result {
        Ok(bytes) => {
            put_bytes(&bytes)?;
            Ok(0)
        }
        Err(error) => {
            eprintln!("mutirao: {error}");
            Ok(3)
        }
    }
}

fn read_argument(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = CALL_BYTES_MAX + 1;
    let read = if path.as_os_str() == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes))
    };
    read.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

/// The operations of a program, as it names them itself when it is started as a worker.
fn operations_of(program: &Path) -> Result<Vec<String>> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
    let mut child = Command::new(program)
        .env(WORKER_ENV, theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    drop(theirs);
    let hello = read_hello(UnixStream::from(ours));
    // It has said what it is asked for, or is no plugin.
    let _ = child.kill();
    let _ = child.wait();
    hello.with_context(|| {
        format!(
            "{} did not name its operations: is mutirao_init (in Rust, mutirao::init) the first statement of its main?",
            program.display()
        )
    })
}

fn read_hello(mut stream: UnixStream) -> Result<Vec<String>> {
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
