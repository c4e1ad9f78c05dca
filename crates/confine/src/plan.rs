//! What a node asks of a worker.

use crate::error::Error;
use crate::level::Level;
use crate::limits::Limits;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The descriptor on which a plugin finds its node.
pub const CHANNEL_FD: i32 = 3;

/// The longest plan that is sent or read.
pub const PLAN_BYTES_MAX: usize = 64 * 1024;

/// How one worker is confined and what it then executes. Paths are absolute and UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The plugin's executable. May be executed and read, also where it lies outside `plugin_dir`.
    pub executable: PathBuf,
    /// Its arguments after the name.
    pub arguments: Vec<String>,
    /// The plugin's files: read and executed, never changed.
    pub plugin_dir: PathBuf,
    /// Where libraries that the plugin brings are looked for.
    pub library_dirs: Vec<PathBuf>,
    /// Its empty directory: the current directory, home and place for temporary files; the only
    /// place it may write. Made by the node, with mode 0700.
    pub work_dir: PathBuf,
    /// What else it may read and execute, files or directories. Those that do not exist are skipped.
    pub readable: Vec<PathBuf>,
    /// Directories beside its own in which it may read, write and execute. Those that do not exist are skipped.
    pub writable: Vec<PathBuf>,
    /// Variables beside the fixed ones, which they may not replace.
    pub environment: Vec<(String, String)>,
    /// Limits kept by the kernel.
    pub limits: Limits,
    /// Whether it may open IP sockets.
    pub network: bool,
    /// Whether it and its children must stay in the process group that it starts in, so that one
    /// signal to the group reaches them all. A template that gives each of its workers a group of its
    /// own says no here, and each worker calls [`crate::lock_group`].
    pub lock_group: bool,
    /// Whether anything is taken away from it at all. A plugin of the machine's own user who wants it so keeps
    /// all that the node has; limits hold all the same.
    pub confined: bool,
    /// Below this level it is not started.
    pub minimum: Level,
    /// The process that must still be the parent, checked once the kernel has promised to end the
    /// worker with it.
    pub node_pid: u32,
    /// Uses no Landlock feature newer than this version; 0 uses none of it. For owners whose kernel
    /// has a fault there, and for tests.
    pub landlock_abi_max: Option<u8>,
}

impl Plan {
    /// A plan with the default limits, no network and no minimum, for a worker that this process
    /// starts.
    pub fn new(
        executable: impl Into<PathBuf>,
        plugin_dir: impl Into<PathBuf>,
        work_dir: impl Into<PathBuf>,
    ) -> Plan {
        Plan {
            executable: executable.into(),
            arguments: Vec::new(),
            plugin_dir: plugin_dir.into(),
            library_dirs: Vec::new(),
            work_dir: work_dir.into(),
            readable: default_readable(),
            writable: Vec::new(),
            environment: Vec::new(),
            limits: Limits::default(),
            network: false,
            lock_group: true,
            confined: true,
            minimum: Level::None,
            node_pid: std::process::id(),
            landlock_abi_max: None,
        }
    }

    /// Writes the plan to a worker just started. The only message before the plugin's own.
    pub fn send(&self, channel: &mut impl Write) -> Result<(), Error> {
        let body = postcard::to_stdvec(self).map_err(Error::PlanUnreadable)?;
        if body.len() > PLAN_BYTES_MAX {
            return Err(Error::PlanTooLong { bytes: body.len(), limit: PLAN_BYTES_MAX });
        }
        let mut message = (body.len() as u32).to_le_bytes().to_vec();
        message.extend_from_slice(&body);
        channel.write_all(&message).map_err(Error::PlanMissing)
    }

    /// Reads a plan and not one byte more.
    pub fn receive(channel: &mut impl Read) -> Result<Plan, Error> {
        let mut length = [0; 4];
        channel.read_exact(&mut length).map_err(Error::PlanMissing)?;
        let bytes = u32::from_le_bytes(length) as usize;
        if bytes > PLAN_BYTES_MAX {
            return Err(Error::PlanTooLong { bytes, limit: PLAN_BYTES_MAX });
        }
        let mut body = vec![0; bytes];
        channel.read_exact(&mut body).map_err(Error::PlanMissing)?;
        postcard::from_bytes(&body).map_err(Error::PlanUnreadable)
    }

    /// Refuses what would confine nothing or could not be executed.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse =
            |what, value: &dyn std::fmt::Debug| Err(Error::PlanRefused { what, value: format!("{value:?}") });
        let paths = [&self.executable, &self.plugin_dir, &self.work_dir];
        for path in paths.into_iter().chain(&self.library_dirs).chain(&self.readable).chain(&self.writable) {
            if !path.is_absolute() {
                return refuse("paths must be absolute", path);
            }
        }
        for path in [&self.plugin_dir, &self.work_dir].into_iter().chain(&self.readable).chain(&self.writable)
        {
            if std::fs::canonicalize(path).is_ok_and(|real| real == Path::new("/")) {
                return refuse("the whole file system cannot be allowed", path);
            }
        }
        if self.work_dir.starts_with(&self.plugin_dir) || self.plugin_dir.starts_with(&self.work_dir) {
            return refuse("the working directory and the plugin's must lie apart", &self.work_dir);
        }
        let fixed = self.fixed_environment()?;
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return refuse("not a variable", name);
            }
            if fixed.iter().any(|(taken, _)| taken == name) {
                return refuse("a fixed variable cannot be replaced", name);
            }
        }
        Ok(())
    }

    /// The whole environment of the plugin: nothing of the node's own comes through.
    pub(crate) fn whole_environment(&self) -> Result<Vec<(String, OsString)>, Error> {
        let mut all = self.fixed_environment()?;
        all.extend(self.environment.iter().map(|(name, value)| (name.clone(), value.into())));
        Ok(all)
    }

    fn fixed_environment(&self) -> Result<Vec<(String, OsString)>, Error> {
        let mut fixed: Vec<(String, OsString)> = vec![
            ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into()),
            ("HOME".into(), self.work_dir.clone().into()),
            ("TMPDIR".into(), self.work_dir.clone().into()),
            ("LANG".into(), "C.UTF-8".into()),
            ("MUTIRAO_WORKER_FD".into(), CHANNEL_FD.to_string().into()),
        ];
        if !self.library_dirs.is_empty() {
            let joined = std::env::join_paths(&self.library_dirs).map_err(|_| Error::PlanRefused {
                what: "library directories cannot contain a colon",
                value: format!("{:?}", self.library_dirs),
            })?;
            fixed.push(("LD_LIBRARY_PATH".into(), joined));
        }
        Ok(fixed)
    }

    pub(crate) fn open_dir(path: &Path) -> Result<(), Error> {
        let failed = |source| Error::Path { path: path.to_owned(), source };
        match std::fs::metadata(path).map_err(failed)?.is_dir() {
            true => Ok(()),
            false => Err(failed(io::ErrorKind::NotADirectory.into())),
        }
    }
}

/// What ordinary programs read: the system's programs, libraries and data, the loader's cache, time
/// zones, and the few facts about processor and memory that allocators and thread pools look at.
///
/// Not in it, and for the owner to add where plugins need them: `/etc/passwd`, `/opt`, interpreters
/// in home directories, `/dev/shm`, graphics cards, and the rest of `/proc`, which shows other
/// people's command lines. A process that the plugin forks does not see its own `/proc/self`.
pub fn default_readable() -> Vec<PathBuf> {
    [
        // Programs, libraries and their data; the two stores stand for `/usr` on NixOS and Guix.
        "/usr",
        "/bin",
        "/sbin",
        "/lib",
        "/lib32",
        "/lib64",
        "/libx32",
        "/nix/store",
        "/gnu/store",
        // The dynamic loader.
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        // Links such as `cc` or `python` end here on Debian.
        "/etc/alternatives",
        "/etc/localtime",
        "/etc/timezone",
        // Read by any program that loads libcrypto; Python's hashlib is one.
        "/etc/ssl/openssl.cnf",
        "/etc/pki/tls/openssl.cnf",
        "/etc/crypto-policies",
        // Randomness, for what does not use getrandom(2).
        "/dev/random",
        "/dev/urandom",
        // The process itself: stack bounds of the main thread, sanitizers, garbage collectors.
        "/proc/self",
        // Sizes of thread pools and heaps.
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/loadavg",
        "/proc/uptime",
        "/proc/version",
        // Whether the system had to kill for want of memory.
        "/proc/vmstat",
        "/proc/filesystems",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/max_map_count",
        "/proc/sys/kernel/osrelease",
        "/proc/sys/kernel/ngroups_max",
        "/proc/sys/kernel/pid_max",
        "/sys/devices/system/cpu",
        "/sys/devices/system/node",
        "/sys/kernel/mm/transparent_hugepage",
    ]
    .map(PathBuf::from)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plan_arrives_as_sent_and_nothing_after_it_is_read() {
        let mut plan = Plan::new("/p/program", "/p", "/w");
        plan.environment.push(("NAME".into(), "value".into()));
        plan.landlock_abi_max = Some(3);
        let mut channel = Vec::new();
        plan.send(&mut channel).expect("sent");
        channel.extend_from_slice(b"next");
        let mut reader = channel.as_slice();
        assert_eq!(Plan::receive(&mut reader).expect("received"), plan);
        assert_eq!(reader, b"next");
    }

    #[test]
    fn a_plan_too_long_is_neither_sent_nor_read() {
        let mut plan = Plan::new("/p/program", "/p", "/w");
        plan.arguments.push("x".repeat(PLAN_BYTES_MAX));
        assert!(matches!(plan.send(&mut Vec::new()), Err(Error::PlanTooLong { .. })));
        let endless = u32::MAX.to_le_bytes();
        assert!(matches!(Plan::receive(&mut endless.as_slice()), Err(Error::PlanTooLong { .. })));
    }

    #[test]
    fn a_plan_cut_short_is_an_error() {
        let mut message = Vec::new();
        Plan::new("/p/program", "/p", "/w").send(&mut message).unwrap();
        for cut in 0..message.len() {
            assert!(Plan::receive(&mut &message[..cut]).is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_upset_the_reader(body in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..700) {
            let mut message = (body.len() as u32).to_le_bytes().to_vec();
            message.extend_from_slice(&body);
            message.truncate(cut);
            let _ = Plan::receive(&mut message.as_slice());
        }
    }
}
