//! Starts a private node for this program, where none runs.

use crate::{Error, sys};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program that is daemon, worker host and command line in one.
const PROGRAM: &str = "mutirao";

/// A program started as a private node.
#[derive(Debug)]
pub(super) struct PrivateNode {
    pub(super) program: PathBuf,
    pub(super) child: Child,
}

/// Starts it; the socket is its only client, and it ends when that closes. `looked` says for an error where a
/// running node was looked for; `slots` is what it lends, if not one a core.
pub(super) fn start(looked: &str, slots: Option<u16>) -> Result<(OwnedFd, PrivateNode), Error> {
    let Some(program) = program() else { return Err(Error::NoNode { looked: looked.into() }) };
    let (mine, its) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(Error::system("make a socket pair"))?;
    // As its standard input the socket reaches that process only, whatever other threads start meanwhile.
    // A group of its own keeps it alive while this program handles an interrupt from the terminal.
    let child = Command::new(&program)
        .arg("embedded")
        .args(slots.map(|slots| format!("--slots={slots}")))
        .stdin(its)
        .stdout(Stdio::null())
        .process_group(0)
        .spawn();
    match child {
        Ok(child) => Ok((mine, PrivateNode { program, child })),
        Err(source) => Err(Error::Embedded { program, source }),
    }
}

/// MUTIRAO_BIN, else beside this library or program (or in `bin` next to that directory, or one above as cargo
/// lays out tests and examples), else in PATH.
pub(crate) fn program() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("MUTIRAO_BIN").filter(|name| !name.is_empty()) {
        return Some(named.into());
    }
    let own = [sys::own_object(), std::env::current_exe().ok()];
    let homes = own.iter().flatten().filter_map(|file| file.parent());
    let beside = homes.flat_map(|home| {
        let above = home.parent().unwrap_or(home);
        [home.to_owned(), above.join("bin"), above.to_owned()]
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside.chain(std::env::split_paths(&path)).map(|dir| dir.join(PROGRAM)).find(|file| is_program(file))
}

fn is_program(file: &Path) -> bool {
    file.is_absolute()
        && file.metadata().is_ok_and(|facts| facts.is_file() && facts.permissions().mode() & 0o111 != 0)
}
