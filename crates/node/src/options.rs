//! What a daemon is told when it starts, and what its owner wrote down.

use crate::error::Error;
use mutirao_text::At;
use mutirao_tree::{Accept, Hours, Rules};
use mutirao_wire::node::Resource;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the files of a node lie.
#[derive(Debug, Clone)]
pub struct Paths {
    /// Its own part of the state directory: identity, incarnation, approvals, configuration.
    pub state: PathBuf,
    /// Below it each node of the state directory has a directory of its name for its plugins.
    pub cache: PathBuf,
    /// Large results and working directories of workers. Emptied at each start.
    pub spool: PathBuf,
    /// The runtime directory of this pool: sockets and descriptions of this user's nodes.
    pub runtime: PathBuf,
}

/// A node to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinTarget {
    /// `host:port`, resolved when it is tried.
    Place(String),
    /// A node of this user and pool on this machine, found by its name in the runtime directory.
    Name(String),
}

impl JoinTarget {
    /// Reads `host:port` or a name.
    pub fn parse(text: &str) -> JoinTarget {
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                JoinTarget::Place(text.into())
            }
            _ => JoinTarget::Name(text.into()),
        }
    }
}

impl std::fmt::Display for JoinTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            JoinTarget::Place(text) | JoinTarget::Name(text) => f.write_str(text),
        }
    }
}

/// What `ready` is told.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The node, with the addresses it listens on.
    pub node: mutirao_wire::NodeRef,
    /// Its local socket; none for an embedded node.
    pub socket: Option<PathBuf>,
    /// The parent's name, once there is one.
    pub parent: Option<String>,
    /// The node was told to join others and has not managed to within `join_wait`; it goes on trying.
    pub still_alone: bool,
    /// The node that this one was told to have as its parent, and that came below it: the orders contradict.
    pub contradicts: Option<String>,
    /// Why another node turned this one away, if one did: the pool's charter denies it.
    pub turned_away: Option<String>,
}

/// How a daemon is started.
pub struct Options {
    /// The pool's directory on this machine, as `mutirao-trust` keeps it.
    pub state: PathBuf,
    /// The base of the runtime directories; see [`default_runtime`].
    pub runtime: PathBuf,
    /// The node's name. Its identity of that name must be in the state directory.
    pub name: String,
    /// Where to listen; port 0 is a free one. Empty: what the configuration says, or any address.
    pub listen: Vec<SocketAddr>,
    /// Slots to lend; `None`: what the configuration says, or a slot a core.
    pub slots: Option<u16>,
    /// Memory to lend, MiB; `None`: what the configuration says, or three quarters of the machine's.
    pub memory_mib: Option<u32>,
    /// Nodes of this machine that share what is not said, this one too.
    pub sharers: u16,
    /// Named resources; they replace those of the same name in the configuration.
    pub resources: Vec<Resource>,
    /// Labels, beside those in the configuration.
    pub labels: Vec<String>,
    /// Nodes to join, best first.
    pub join: Vec<JoinTarget>,
    /// Join exactly one of these, never one of their children instead.
    pub here: bool,
    /// Children taken before joiners are passed down.
    pub fan_out: Option<usize>,
    /// A private node without pool, identity and listener, for the one program at the other end of
    /// this socket. It ends with the program; `state` is then its own and removed at the end.
    pub embedded: Option<UnixStream>,
    /// Called once: when the node listens and has its parent or needs none, or after `join_wait`.
    pub ready: Option<Box<dyn FnOnce(Ready) + Send>>,
    /// How long `ready` waits for a parent.
    pub join_wait: Duration,
    /// Whether programs and workers that wait may spin for a while, where processors are idle.
    pub spin: bool,
    /// Leave the pool and end upon SIGTERM and SIGINT; for one node of a process only.
    pub signals: bool,
}

impl Options {
    /// A node called `name` of the pool in `state`, all else as usual.
    pub fn new(state: impl Into<PathBuf>, name: impl Into<String>) -> Options {
        Options {
            state: state.into(),
            runtime: default_runtime(),
            name: name.into(),
            listen: Vec::new(),
            slots: None,
            memory_mib: None,
            sharers: 1,
            resources: Vec::new(),
            labels: Vec::new(),
            join: Vec::new(),
            here: false,
            fan_out: None,
            embedded: None,
            ready: None,
            join_wait: Duration::from_secs(5),
            spin: true,
            signals: false,
        }
    }

    /// A private node for the program at the other end of `socket`.
    pub fn embedded(state: impl Into<PathBuf>, socket: UnixStream) -> Options {
        Options { embedded: Some(socket), ..Options::new(state, "private") }
    }
}

/// `$XDG_RUNTIME_DIR/mutirao`, or `/tmp/mutirao-UID`.
pub fn default_runtime() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => Path::new(&dir).join("mutirao"),
        None => format!("/tmp/mutirao-{}", rustix::process::getuid().as_raw()).into(),
    }
}

/// What the owner wrote into `node.toml`: that of the node itself
/// (`STATE/nodes/NAME/node.toml`) or, failing that, `STATE/node.toml` for all nodes of the machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Whose work is accepted: `own`, `ask` or `all`.
    pub accept: AcceptWord,
    /// The owner, a user of the pool or `name@node`; by default whoever runs the daemon.
    pub owner: Option<String>,
    /// Users besides the owner whose work counts as own.
    pub users: BTreeSet<String>,
    /// Slots to lend.
    pub slots: Option<u16>,
    /// Memory to lend, MiB; by default three quarters of what this machine, or the cgroup of the
    /// daemon, allows.
    pub memory_mib: Option<u32>,
    /// Named resources, such as `gpu = 1`.
    pub resources: BTreeMap<String, u32>,
    /// Labels that requests can ask for.
    pub labels: Vec<String>,
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Addresses others are told, if not those listened on.
    pub advertise: Vec<SocketAddr>,
    /// Nodes to join, `host:port` or names on this machine.
    pub join: Vec<String>,
    /// Most the cache of plugins may hold, MiB.
    pub cache_mib: u64,
    /// Most links to other nodes at a time.
    pub max_links: usize,
    /// Most data connections that this node dials; the one that was longest not used is closed for another.
    pub max_data_connections: usize,
    /// The weakest confinement to lend under: `full`, `files`, `basic` or `none`. Below `files` only
    /// own plugins run in any case.
    pub confinement: Option<String>,
    /// What each worker gets.
    pub worker: WorkerConfig,
    /// Which files workers may touch beside their own.
    pub files: FilesConfig,
    /// When to lend, and how to take back.
    pub lend: LendConfig,
}

/// `[files]` in the configuration: which files workers may touch beside their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilesConfig {
    /// Whether workers that serve a program of the node's own user on this very machine act as that user where
    /// the program asks for it, as `mutirao map` does: they are not confined then.
    pub own: bool,
    /// Directories in which all workers, whoever they serve, may read and write: a shared file system.
    pub shared: Vec<PathBuf>,
}

impl Default for FilesConfig {
    fn default() -> FilesConfig {
        FilesConfig { own: true, shared: Vec::new() }
    }
}

impl FilesConfig {
    /// The shared directories as they really lie; `Err` says which of them cannot be one. `private` are the
    /// directories of the node.
    pub(crate) fn shared_directories(&self, private: &[&Path]) -> Result<Vec<PathBuf>, String> {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let check = |shared: &PathBuf| {
            let refuse = |why: &str| Err(format!("`files.shared` has {}, which {why}", shared.display()));
            let there = real(shared);
            if !shared.is_absolute() || shared.to_str().is_none_or(|text| text.contains(':')) {
                return refuse("is not the absolute path of a directory, in UTF-8 and without colons");
            }
            if there == Path::new("/") {
                return refuse("is everything");
            }
            let holds =
                |private: &&Path| real(private).starts_with(&there) || there.starts_with(real(private));
            match private.iter().find(|private| holds(private)) {
                Some(_) => refuse("holds files of this node, such as its keys, or lies among them"),
                None => Ok(there),
            }
        };
        self.shared.iter().map(check).collect()
    }
}

/// `[worker]` in the configuration: limits of each worker, and what it may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Memory a process of a worker may fill, MiB, where a request sets none aside; by default there
    /// is no limit.
    pub memory_mib: Option<u32>,
    /// Files a process of a worker may have open at a time; by default 1024.
    pub files: Option<u64>,
    /// Processes and threads of this *user* beyond which a worker can start no more (Linux counts
    /// them all, and none for root); by default 4096.
    pub processes: Option<u64>,
    /// Whether workers may open network connections; by default not.
    pub network: bool,
}

/// `[lend]` in the configuration: when to lend, and how to take back. Unless something is said here the
/// node lends always, and takes back by order only.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LendConfig {
    /// A request of the owner at this node that finds too little free takes lent slots back.
    pub own_first: bool,
    /// How long what runs on slots that are taken back by rule may go on, milliseconds.
    pub grace_ms: u32,
    /// Longest time limit of leases that cannot be taken back, seconds; by default there are none.
    pub keep_max_s: Option<u32>,
    /// Hours at which to lend, such as `Mon-Fri 18:00-08:00` or `Sat,Sun`; by default all.
    pub hours: Vec<String>,
    /// Lend only after nobody has typed at a terminal of this machine for so long, seconds.
    pub idle_s: Option<u32>,
    /// Lend only while no more processors than this are busy with other things than what is lent.
    pub load_max: Option<f32>,
}

impl Default for LendConfig {
    fn default() -> LendConfig {
        LendConfig {
            own_first: false,
            grace_ms: 500,
            keep_max_s: None,
            hours: Vec::new(),
            idle_s: None,
            load_max: None,
        }
    }
}

impl LendConfig {
    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms.into())
    }

    /// The rules in it; `Err` says what is wrong with them.
    pub(crate) fn rules(&self) -> Result<Rules, String> {
        let hours: Result<Vec<Hours>, _> = self.hours.iter().map(|text| text.parse()).collect();
        Ok(Rules {
            hours: hours.map_err(|error: mutirao_tree::HoursError| error.to_string())?,
            idle: self.idle_s.map(|idle_s| Duration::from_secs(idle_s.into())),
            load_max_centi: self.load_max.map(|load| (load * 100.0) as u32),
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            accept: AcceptWord::Own,
            owner: None,
            users: BTreeSet::new(),
            slots: None,
            memory_mib: None,
            resources: BTreeMap::new(),
            labels: Vec::new(),
            listen: Vec::new(),
            advertise: Vec::new(),
            join: Vec::new(),
            cache_mib: 4096,
            max_links: 4096,
            max_data_connections: 1024,
            confinement: None,
            worker: WorkerConfig::default(),
            files: FilesConfig::default(),
            lend: LendConfig::default(),
        }
    }
}

/// `accept` in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AcceptWord {
    /// The owner's own work.
    Own,
    /// Others' once the plugin is approved.
    Ask,
    /// Everything.
    All,
}

impl From<AcceptWord> for Accept {
    fn from(word: AcceptWord) -> Accept {
        match word {
            AcceptWord::Own => Accept::Own,
            AcceptWord::Ask => Accept::Ask,
            AcceptWord::All => Accept::All,
        }
    }
}

impl Config {
    /// Reads the first of `files` that exists; all defaults if none does.
    pub fn load(files: &[PathBuf]) -> Result<Config, Error> {
        for file in files {
            match std::fs::read_to_string(file) {
                Ok(text) => {
                    return toml::from_str(&text).map_err(|error| Error::Config {
                        path: file.clone(),
                        reason: {
                            let at = At::of(&text, error.span().map_or(0, |span| span.start));
                            format!("{at}: {}", mutirao_text::in_words(error.message()))
                        },
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::file("cannot read", file)(error)),
            }
        }
        Ok(Config::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_with_a_port_is_a_place_and_all_else_a_name() {
        assert_eq!(JoinTarget::parse("ruby:7700"), JoinTarget::Place("ruby:7700".into()));
        assert_eq!(JoinTarget::parse("[::1]:7700"), JoinTarget::Place("[::1]:7700".into()));
        assert_eq!(JoinTarget::parse("ruby"), JoinTarget::Name("ruby".into()));
        assert_eq!(JoinTarget::parse("ruby:http"), JoinTarget::Name("ruby:http".into()));
    }

    #[test]
    fn a_shared_directory_holds_nothing_of_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().canonicalize().unwrap();
        let (state, data) = (base.join("home/state"), base.join("data"));
        std::fs::create_dir_all(&state).unwrap();
        std::fs::create_dir_all(&data).unwrap();
        let shared = |path: &Path| {
            let files = FilesConfig { shared: vec![path.to_owned()], ..FilesConfig::default() };
            files.shared_directories(&[&state])
        };
        assert_eq!(shared(&data), Ok(vec![data.clone()]));
        std::os::unix::fs::symlink(&base, base.join("link")).unwrap();
        for path in [&base, &base.join("home"), &state, &state.join("nodes"), &base.join("link")] {
            assert!(shared(path).unwrap_err().contains("of this node"), "{}", path.display());
        }
        assert!(shared(Path::new("/")).is_err() && shared(Path::new("data")).is_err());
        assert!(shared(Path::new("/a:b")).is_err());
    }

    #[test]
    fn a_misspelt_setting_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("node.toml");
        std::fs::write(&file, "acept = \"all\"\n").unwrap();
        let error = Config::load(std::slice::from_ref(&file)).unwrap_err().to_string();
        assert!(error.contains("acept") && error.contains("node.toml"), "{error}");
        let text = "accept = \"all\"\nusers = [\"ana\"]\n[resources]\ngpu = 2\n[worker]\nmemory_mib = 512\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&[dir.path().join("missing"), file]).unwrap();
        assert_eq!(config.accept, AcceptWord::All);
        assert_eq!(config.resources, BTreeMap::from([("gpu".to_owned(), 2)]));
        assert_eq!(config.worker, WorkerConfig { memory_mib: Some(512), ..WorkerConfig::default() });
        assert!(config.lend.rules().unwrap().is_empty());
        let lend = LendConfig { hours: vec!["at night".into()], ..LendConfig::default() };
        assert!(lend.rules().unwrap_err().contains("at night"));
    }
}
