//! What this program does on lent slots.

use serde::{Deserialize, Serialize};
use std::io::Write;
use std::time::{Duration, Instant};

/// Where and by whom a call was computed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Done {
    /// The argument's number.
    pub number: u64,
    /// The worker's process.
    pub pid: u32,
}

fn done(number: u64) -> Done {
    Done { number, pid: std::process::id() }
}

/// Sleeps.
#[mutirao::operation(name = "sleep", repeatable)]
pub fn sleep(number: u64, span_ms: u64) -> Done {
    std::thread::sleep(Duration::from_millis(span_ms));
    done(number)
}

/// Sleeps, and must not run twice.
#[mutirao::operation(name = "sleep_once")]
pub fn sleep_once(number: u64, span_ms: u64) -> Done {
    std::thread::sleep(Duration::from_millis(span_ms));
    done(number)
}

/// Computes for so long.
#[mutirao::operation(name = "spin", repeatable)]
pub fn spin(number: u64, span_us: u64) -> Done {
    let end = Instant::now() + Duration::from_micros(span_us);
    while Instant::now() < end {
        std::hint::spin_loop();
    }
    done(number)
}

/// Writes to its standard error, then sleeps.
#[mutirao::operation(name = "talk", repeatable)]
pub fn talk(line: String, span_ms: u64) -> String {
    eprintln!("{line}");
    std::thread::sleep(Duration::from_millis(span_ms));
    line
}

/// The root of a square. Others fail, and the largest number ends the worker.
#[mutirao::operation(name = "square_root")]
pub fn square_root(square: u64) -> u64 {
    if square == u64::MAX {
        std::process::abort();
    }
    let root = square.isqrt();
    assert_eq!(root * root, square, "it is no square");
    root
}

/// Waits until a file is there, and gives the number back.
#[mutirao::operation(name = "attend")]
pub fn attend(number: u64, file: String) -> u64 {
    while !std::path::Path::new(&file).exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    number
}

/// Gives its argument back.
#[mutirao::operation(name = "echo", repeatable)]
pub fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// Ends the worker in the way named.
#[mutirao::operation(name = "end")]
pub fn end(how: String) -> String {
    eprintln!("about to end by {how}");
    match how.as_str() {
        "exit" => std::process::exit(3),
        "abort" => std::process::abort(),
        "panic" => panic!("as asked"),
        "kill" => {
            let me = rustix::process::getpid();
            rustix::process::kill_process(me, rustix::process::Signal::KILL)
                .map_or_else(|e| e.to_string(), |()| how)
        }
        "memory" => {
            let mut hoard: Vec<Vec<u8>> = Vec::new();
            loop {
                hoard.push(vec![1; 64 << 20]);
            }
        }
        other => format!("{other} ends nothing"),
    }
}

/// Tries what a confined worker must not do; says what came of it.
#[mutirao::operation(name = "attempt")]
pub fn attempt(what: String, on: String) -> Result<String, String> {
    let text = |error: std::io::Error| error.to_string();
    match what.as_str() {
        "read" => std::fs::read(&on).map(|bytes| format!("{} bytes", bytes.len())).map_err(text),
        "list" => std::fs::read_dir(&on).map(|entries| format!("{} entries", entries.count())).map_err(text),
        "write" => std::fs::write(&on, "x").map(|()| "written".into()).map_err(text),
        "connect" => std::net::TcpStream::connect(&on).map(|_| "connected".into()).map_err(text),
        "socket" => std::os::unix::net::UnixStream::connect(&on).map(|_| "connected".into()).map_err(text),
        "signal" => {
            let pid = on.parse().ok().and_then(rustix::process::Pid::from_raw).ok_or("no process")?;
            rustix::process::kill_process(pid, rustix::process::Signal::CONT)
                .map(|()| "signalled".into())
                .map_err(|error| error.to_string())
        }
        "flood" => {
            let line = [b'x'; 1 << 20];
            let mut stderr = std::io::stderr();
            let lines =
                (0..on.parse().map_err(|_| "no number")?).try_for_each(|_: u32| stderr.write_all(&line));
            lines.map(|()| "flooded".into()).map_err(text)
        }
        "environment" => Ok(std::env::vars().map(|(name, _)| name).collect::<Vec<_>>().join(",")),
        "variable" => std::env::var(&on).map_err(|error| error.to_string()),
        "directory" => std::env::current_dir().map(|path| path.display().to_string()).map_err(text),
        other => Err(format!("{other} is not tried")),
    }
}
