//! Confinement, tried from the inside.
//!
//! This binary plays three parts: the node, which runs the cases; the worker, which is the crate under
//! test; and the plugin, which attempts one thing and reports how it went. The cases run as the user
//! who started them and, for root, once more as an ordinary user.

mod attempts;
mod cases;
mod node;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The user and group "nobody" of most systems; nothing belongs to them.
const NOBODY: u32 = 65534;

/// Where root leaves a set-uid program for the cases of the ordinary user.
const SET_UID_ROOT: &str = "SET_UID_ROOT";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("worker") => mutirao_confine::worker_main(),
        Some("attempt") => attempts::run(&arguments[1..], mutirao_confine::CHANNEL_FD),
        Some("attempt-unconfined") => attempts::run(&arguments[1..], 0),
        Some("effective-user") => {
            println!("{}", rustix::process::geteuid().as_raw());
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in cases::CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let mut passed = run_cases(filter);
    if rustix::process::getuid().is_root() {
        passed &= run_as_nobody(filter);
    } else if std::env::var_os(SET_UID_ROOT).is_none() {
        println!("skipped the cases as root: not started as root");
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_cases(filter: Option<&String>) -> bool {
    let uid = rustix::process::getuid().as_raw();
    println!("as uid {uid}, {}", mutirao_confine::probe().words());
    let mut passed = true;
    for (name, case) in cases::CASES {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        let result = std::panic::catch_unwind(case);
        println!("test {name} (uid {uid}) ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        passed &= result.is_ok();
    }
    passed
}

/// Runs a copy of this binary as an ordinary user: the place it was built in may be closed to them.
fn run_as_nobody(filter: Option<&String>) -> bool {
    let place = tempfile::Builder::new().prefix("confined-").tempdir().expect("a temporary directory");
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("mode set")
    };
    mode(place.path(), 0o755);
    let copy = place.path().join("confined");
    std::fs::copy(std::env::current_exe().expect("this binary"), &copy).expect("copied");
    let set_uid = place.path().join("set-uid");
    std::fs::copy(&copy, &set_uid).expect("copied");
    mode(&set_uid, 0o4755);
    let mut command = Command::new(&copy);
    command.args(filter).uid(NOBODY).gid(NOBODY).current_dir("/").env(SET_UID_ROOT, &set_uid);
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            println!("SKIPPED the cases as an ordinary user: cannot become uid {NOBODY}: {error}");
            true
        }
    }
}
