//! Finds the node of this machine.

use crate::Error;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// What in the environment says which node is meant. Read once, in one place.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    pub(super) socket: Option<PathBuf>,
    pub(super) runtime: PathBuf,
    pub(super) node: Option<String>,
    pub(super) pool: Option<String>,
}

impl Surroundings {
    pub(super) fn of_process() -> Surroundings {
        let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let runtime = path("MUTIRAO_RUNTIME_DIR")
            .or_else(|| path("XDG_RUNTIME_DIR").map(|dir| dir.join("mutirao")))
            .unwrap_or_else(|| PathBuf::from(format!("/tmp/mutirao-{}", rustix::process::getuid().as_raw())));
        Surroundings {
            socket: path("MUTIRAO_SOCKET"),
            runtime,
            node: text("MUTIRAO_NODE"),
            pool: text("MUTIRAO_POOL"),
        }
    }

    /// Whether a certain node, or one of a certain pool, is meant.
    pub(super) fn names_one(&self) -> bool {
        self.node.is_some() || self.pool.is_some()
    }

    /// Where sockets are looked for, for people.
    pub(super) fn described(&self) -> String {
        let mut text = format!("no socket answers below {}", self.runtime.display());
        if let Some(pool) = &self.pool {
            text += &format!(" for pool {pool}");
        }
        if let Some(node) = &self.node {
            text += &format!(" for node {node}");
        }
        if self.names_one() {
            let all = Surroundings { socket: None, runtime: self.runtime.clone(), node: None, pool: None };
            let mut run: Vec<String> = sockets(&all)
                .into_iter()
                .filter(|(.., path)| connect_to(path).is_ok())
                .map(|(pool, node, _)| format!("{pool}/{node}"))
                .collect();
            run.sort_unstable();
            text += &if run.is_empty() {
                "; none runs here".to_owned()
            } else {
                format!("; here run {}", run.join(", "))
            };
        }
        text
    }
}

/// A node that answers.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
}

/// Connects to the node that is meant; `None` if none runs.
pub(super) fn find(around: &Surroundings) -> Result<Option<Found>, Error> {
    if let Some(path) = &around.socket {
        let fd = connect_to(path)?;
        return Ok(Some(Found { path: path.clone(), fd }));
    }
    let default = std::fs::read_to_string(around.runtime.join("default")).unwrap_or_default();
    let mut found: Vec<(String, Found)> = Vec::new();
    let mut refused = None;
    for (pool, node, path) in sockets(around) {
        let name = format!("{pool}/{node}");
        match connect_to(&path) {
            Ok(fd) => {
                let found_one = Found { path, fd };
                let chosen =
                    around.node.is_none() && [name.as_str(), node.as_str()].contains(&default.trim());
                if chosen {
                    return Ok(Some(found_one));
                }
                found.push((name, found_one));
            }
            // Left behind by a node that was killed.
            Err(Error::Connect { source, .. })
                if [Some(libc::ECONNREFUSED), Some(libc::ENOENT)].contains(&source.raw_os_error()) => {}
            Err(error) => refused = Some(error),
        }
    }
    match (found.len(), refused) {
        (0, Some(error)) => Err(error),
        (0, None) => Ok(None),
        (1, _) => Ok(found.pop().map(|(_, found)| found)),
        _ => {
            found.sort_by(|(a, _), (b, _)| (a.len(), a).cmp(&(b.len(), b)));
            let pool = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
            if found.iter().all(|(name, _)| pool(name) == pool(&found[0].0)) {
                // Through any of them the whole pool is reached.
                return Ok(Some(found.swap_remove(0).1));
            }
            Err(Error::SeveralNodes { nodes: found.into_iter().map(|(name, _)| name).collect() })
        }
    }
}

/// The sockets below the runtime directory that may be meant: pool, node, path.
fn sockets(around: &Surroundings) -> Vec<(String, String, PathBuf)> {
    let mut list = Vec::new();
    for pool in entries(&around.runtime) {
        let Some(pool_name) = pool.file_name().and_then(|name| name.to_str()) else { continue };
        // A pool may be given by a whole identity or by its beginning.
        let meant = |wanted: &String| pool_name.starts_with(wanted.as_str()) || wanted.starts_with(pool_name);
        if !around.pool.as_ref().is_none_or(meant) {
            continue;
        }
        for socket in entries(&pool) {
            let name = socket.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let Some(node) = name.strip_suffix(".sock") else { continue };
            if around.node.as_ref().is_none_or(|wanted| wanted == node) {
                list.push((pool_name.to_owned(), node.to_owned(), socket.clone()));
            }
        }
    }
    list
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).collect()
}

/// Connects to a socket, provided a process of this user (or of root) is behind it.
pub(super) fn connect_to(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |errno: Errno| Error::Connect { path: path.to_owned(), source: errno.into() };
    let fd =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    retry_on_intr(|| connect(&fd, &address)).map_err(failed)?;
    let uid = socket_peercred(&fd).map_err(failed)?.uid;
    if uid != rustix::process::getuid() && !uid.is_root() {
        return Err(Error::Impostor { path: path.to_owned(), uid: uid.as_raw() });
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn listener(runtime: &Path, pool: &str, node: &str) -> UnixListener {
        std::fs::create_dir_all(runtime.join(pool)).unwrap();
        UnixListener::bind(runtime.join(pool).join(format!("{node}.sock"))).unwrap()
    }

    #[test]
    fn the_node_that_is_meant_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let runtime = directory.path().to_owned();
        let around = || Surroundings { runtime: runtime.clone(), ..Surroundings::default() };
        assert!(find(&around()).unwrap().is_none());

        drop(listener(&runtime, "aaaa", "dead"));
        assert!(find(&around()).unwrap().is_none());

        let _one = listener(&runtime, "aaaa", "one");
        assert!(find(&around()).unwrap().unwrap().path.ends_with("aaaa/one.sock"));

        let _two = listener(&runtime, "bbbb", "two");
        match find(&around()) {
            Err(Error::SeveralNodes { nodes }) => assert_eq!(nodes, ["aaaa/one", "bbbb/two"]),
            other => panic!("{:?}", other.map(|_| ())),
        }
        let other = listener(&runtime, "aaaa", "a-longer-name");
        let one_pool = Surroundings { pool: Some("aaaa".into()), ..around() };
        assert!(find(&one_pool).unwrap().unwrap().path.ends_with("aaaa/one.sock"));
        drop(other);
        let by_node = Surroundings { node: Some("two".into()), ..around() };
        assert!(find(&by_node).unwrap().unwrap().path.ends_with("bbbb/two.sock"));
        let by_pool = Surroundings { pool: Some("aaaa99".into()), ..around() };
        assert!(find(&by_pool).unwrap().unwrap().path.ends_with("aaaa/one.sock"));
        std::fs::write(runtime.join("default"), "bbbb/two\n").unwrap();
        assert!(find(&around()).unwrap().unwrap().path.ends_with("bbbb/two.sock"));

        let named = Surroundings { socket: Some(runtime.join("none.sock")), ..around() };
        assert!(matches!(find(&named), Err(Error::Connect { .. })));
    }
}
