//! The runtime directory: how programs and nodes of one user find the nodes of this machine.
//!
//! `BASE/POOL/NAME.sock` is a node's local socket, `BASE/POOL/NAME.json` describes the node; POOL is
//! the first twelve digits of the pool's id. Only the user can enter the directories, so two users
//! or two pools never meet by accident.

use crate::error::Error;
use mutirao_store::lock_exclusively;
use mutirao_wire::{NodeRef, PoolId};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path of a socket.
const SOCKET_PATH_MAX: usize = 107;

/// A node of this user on this machine, as its description file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LocalNode {
    /// Its process.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// Its identity, in hexadecimal.
    pub id: String,
    /// Its pool, in hexadecimal.
    pub pool: String,
    /// The pool's name.
    pub pool_name: String,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// Its local socket.
    pub socket: PathBuf,
}

/// The directory of `pool` below `base`.
pub fn pool_directory(base: &Path, pool: PoolId) -> PathBuf {
    base.join(&pool.to_string()[..12])
}

/// The nodes described below `base`, all pools, by name. A description may outlive its node: connect
/// to its socket to know.
pub fn local_nodes(base: &Path) -> Vec<LocalNode> {
    let files = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut nodes: Vec<LocalNode> = files(base)
        .filter(|path| path.is_dir())
        .flat_map(|dir| files(&dir))
        .filter_map(|path| read(&path))
        .collect();
    nodes.sort_by(|a, b| (&a.name, &a.pool).cmp(&(&b.name, &b.pool)));
    nodes
}

fn read(path: &Path) -> Option<LocalNode> {
    if path.extension()? != "json" || fs::metadata(path).ok()?.len() > 64 * 1024 {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Where the node `name` of the pool with this directory listens; `None` if none is described.
pub(crate) fn addresses_of(directory: &Path, name: &str) -> Option<Vec<SocketAddr>> {
    Some(read(&directory.join(format!("{name}.json")))?.addresses)
}

/// This node's place in the runtime directory. Dropped, its files are removed.
#[derive(Debug)]
pub(crate) struct Place {
    socket: PathBuf,
    description: PathBuf,
    _lock: OwnedFd,
}

impl Place {
    /// Claims the name and binds the socket. A socket left behind by a daemon that died is replaced.
    pub(crate) fn claim(base: &Path, pool: PoolId, name: &str) -> Result<(Place, UnixListener), Error> {
        let directory = pool_directory(base, pool);
        for dir in [base, &directory] {
            own_directory(dir)?;
        }
        let socket = directory.join(format!("{name}.sock"));
        if socket.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(Error::SocketPath { path: socket });
        }
        let lock = lock(&directory.join(format!("{name}.lock")), name)?;
        // With the lock held no living daemon of this version has the socket; ask it all the same.
        if UnixStream::connect(&socket).is_ok() {
            return Err(running(name, &directory));
        }
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::file("cannot replace", &socket)(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(&socket).map_err(Error::file("cannot listen on", &socket))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
            .map_err(Error::file("cannot protect", &socket))?;
        listener.set_nonblocking(true).map_err(Error::file("cannot listen on", &socket))?;
        let description = directory.join(format!("{name}.json"));
        Ok((Place { socket, description, _lock: lock }, listener))
    }

    /// Publishes the description.
    pub(crate) fn publish(&self, node: &NodeRef, pool: PoolId, pool_name: &str) -> Result<(), Error> {
        let described = LocalNode {
            pid: std::process::id(),
            name: node.name.clone(),
            id: node.id.to_string(),
            pool: pool.to_string(),
            pool_name: pool_name.into(),
            addresses: node.addresses.clone(),
            socket: self.socket.clone(),
        };
        let text = serde_json::to_vec_pretty(&described)
            .map_err(|error| Error::file("cannot write", &self.description)(error.into()))?;
        let fresh = self.description.with_extension("json.new");
        fs::write(&fresh, text)
            .and_then(|()| fs::rename(&fresh, &self.description))
            .map_err(Error::file("cannot write", &self.description))
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next daemon of this name.
        let _ = fs::remove_file(&self.description);
        let _ = fs::remove_file(&self.socket);
    }
}

fn running(name: &str, directory: &Path) -> Error {
    let by = read(&directory.join(format!("{name}.json")))
        .map_or(String::new(), |node| format!(" (process {}, socket {})", node.pid, node.socket.display()));
    Error::Running { name: name.into(), by }
}

/// Takes the lock of one node's name or identity for as long as the descriptor lives.
pub(crate) fn lock(path: &Path, name: &str) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))
        .map_err(|error| Error::file("cannot open", path)(error.into()))?;
    if !lock_exclusively(&file).map_err(Error::file("cannot lock", path))? {
        return Err(running(name, path.parent().unwrap_or(Path::new("/"))));
    }
    Ok(file)
}

/// Makes `dir`, for this user only, or checks that it is so.
fn own_directory(dir: &Path) -> Result<(), Error> {
    match fs::DirBuilder::new().recursive(true).mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::file("cannot make", dir)(error));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(dir).map_err(Error::file("cannot look at", dir))?;
    let mine = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
    if !mine || found.mode() & 0o077 != 0 {
        return Err(Error::Runtime { path: dir.into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(base: &Path) -> Result<(Place, UnixListener), Error> {
        Place::claim(base, PoolId([7; 32]), "ruby")
    }

    #[test]
    fn a_name_is_taken_once_and_free_again_after_a_death() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("run");
        let (place, listener) = claim(&base).unwrap();
        assert!(matches!(claim(&base), Err(Error::Running { name, .. }) if name == "ruby"));
        // A daemon killed by force leaves its socket behind; its lock is gone with it.
        let socket = place.socket.clone();
        drop(place);
        drop(listener);
        drop(UnixListener::bind(&socket).unwrap());
        let (place, _listener) = claim(&base).unwrap();
        assert_eq!(fs::metadata(place.socket()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("run");
        fs::create_dir(&base).unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(claim(&base), Err(Error::Runtime { path }) if path == base));
    }

    #[test]
    fn what_is_published_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("run");
        let (place, _listener) = claim(&base).unwrap();
        let node = NodeRef {
            id: mutirao_wire::NodeId([1; 32]),
            incarnation: mutirao_wire::Incarnation(1),
            name: "ruby".into(),
            addresses: vec!["127.0.0.1:7700".parse().unwrap()],
        };
        place.publish(&node, PoolId([7; 32]), "lab").unwrap();
        let found = local_nodes(&base);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), &found[0].addresses), ("ruby", &node.addresses));
        assert_eq!(addresses_of(&pool_directory(&base, PoolId([7; 32])), "ruby"), Some(node.addresses));
    }
}
