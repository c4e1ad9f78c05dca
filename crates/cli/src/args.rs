//! The command line, as clap reads it.

use crate::hosts::args::HostsArgs;
use crate::queue::WaitArgs;
use crate::service::ServiceCommand;
use crate::sim::SimArgs;
use crate::topology::TopologyCommand;
use crate::wanting::{LendArgs, WantArgs};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Turns the Linux machines you already have into one parallel computer.
#[derive(Debug, Parser)]
#[command(name = "mutirao", version, max_term_width = 100, disable_help_subcommand = true)]
#[command(after_help = "\
Example: a pool of four nodes on this machine
  mutirao init
  mutirao up --local 4
  mutirao tree
  mutirao alloc -n 4 -- sh -c 'cat $MUTIRAO_HOSTFILE'
  mutirao down --all")]
pub struct Cli {
    /// How listings are printed
    #[arg(long, value_enum, default_value_t = Output::Text, global = true)]
    pub output: Output,
    /// Which node of this machine to talk to, if there are several
    #[arg(long, value_name = "NAME", global = true, env = "MUTIRAO_NODE")]
    pub node: Option<String>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// How listings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs: one JSON document
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a pool: its authority, the first administrator, this machine's node
    Init(InitArgs),
    /// Ask to join a pool that exists elsewhere, or put in place what was answered
    Join(JoinArgs),
    /// Answer a machine or a user that asks to join (opens the authority's key)
    Invite(InviteArgs),
    /// Start the node of this machine
    Up(UpArgs),
    /// Stop the node of this machine; what it lent ends
    Down(DownArgs),
    /// List the nodes of the pool, or those that have what is asked for
    Nodes(NodesArgs),
    /// Draw the tree of nodes, or change it
    Tree(TreeArgs),
    /// List the applications that run
    Apps,
    /// List the workers over the whole pool
    Ps,
    /// Print the last lines that a worker has written to its standard error
    #[command(after_help = "Example: mutirao logs lab2/17        worker 17 of node lab2 (`mutirao ps`)")]
    Logs {
        /// NODE/WORKER
        worker: String,
    },
    /// End an application or one worker
    Kill(KillArgs),
    /// Let an application hold more slots
    Grow(GrowArgs),
    /// Let an application hold fewer slots
    Shrink(ShrinkArgs),
    /// Take slots of a node back from those they are lent to
    Reclaim(ReclaimArgs),
    /// Let a node lend no more; what it has lent comes back as it becomes idle
    Drain(DrainArgs),
    /// Let a node lend again, after `drain` or `reclaim`
    #[command(after_help = "Example: mutirao resume lab2")]
    Resume {
        /// Its name, or the beginning of its id; this machine's unless given
        #[arg(value_name = "NODE")]
        lender: Option<String>,
    },
    /// Hold slots while a command runs here
    Alloc(AllocArgs),
    /// List the requests that wait for slots, in the order in which they are served
    #[command(after_help = "\
Example: mutirao queue
Each request waits in the queue of one node, which decides when it is served.")]
    Queue,
    /// Say why a request waits
    #[command(after_help = "\
Examples:
  mutirao explain 3fa9c1d2.1     the request that `mutirao queue` lists so
  mutirao explain 3fa9c1d2       all that wait of that application")]
    Explain {
        /// The request, as `mutirao queue` names it
        request: String,
    },
    /// Plugins: what nodes keep, and what waits for the owner's approval
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// The charter: what the pool's administrators have set for all nodes
    #[command(subcommand)]
    Charter(crate::charter::CharterCommand),
    /// Who may allocate, where that is for administrators to say
    #[command(subcommand)]
    Admin(crate::admin::AdminCommand),
    /// Run a command for each of many arguments, as GNU parallel does
    Map(crate::map::MapArgs),
    /// Call one operation of a program
    Call(CallArgs),
    /// Groups of processes joined by channels
    #[command(subcommand)]
    Group(crate::group::GroupCommand),
    /// Run bags of tasks that finish whatever happens
    #[command(subcommand)]
    Bag(crate::bag::BagCommand),
    /// Make, check, draw and convert topology files
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Let systemd keep this machine's node running
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Measure this machine, each figure beside its floor
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Try a pool and a load in a simulation
    Sim(SimArgs),
    /// Check this machine and say how to mend what is wrong
    Doctor,
    /// Print the completions of a shell
    #[command(
        after_help = "Example: mutirao completions bash > ~/.local/share/bash-completion/completions/mutirao"
    )]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example: mutirao man | man -l -")]
    Man,
    /// Confine this process and become a plugin (started by a node)
    #[command(hide = true)]
    Worker,
    /// Keep a bag (started by `bag submit`)
    #[command(hide = true)]
    Keeper {
        /// Its number
        bag: String,
        /// Write a byte to standard output when orders are heard
        #[arg(long)]
        tells_ready: bool,
        /// Standard input is a program that has the bag open
        #[arg(long)]
        session: bool,
        /// The bag ends with that program
        #[arg(long)]
        owned: bool,
    },
    /// Answer somebody who asks something of a bag from another node (started by a node)
    #[command(hide = true)]
    Visited {
        /// Which bag
        bag: String,
        /// Names the visit
        visit: String,
        /// The node of who asks
        home: String,
    },
    /// Open a bag for a program that talks over standard input (started by the library)
    #[command(hide = true)]
    Session(crate::bag::SessionArgs),
    /// Obey one order that comes over ssh (started by `up --hosts`)
    #[command(hide = true)]
    Remote,
    /// Serve one program as a private node (started by the library)
    #[command(hide = true)]
    Embedded {
        /// Slots to lend, if not one a core
        #[arg(long)]
        slots: Option<u16>,
    },
    /// The other end of a floor that is being measured (started by `bench`)
    #[command(hide = true)]
    FloorPeer {
        /// What carries the bytes
        carrier: String,
        /// Where to connect
        place: String,
        /// Where the identities are
        home: PathBuf,
    },
}

/// Options of `tree`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao tree                       draws the tree
  mutirao tree move n7 n2            n7 and all below it come under n2
  mutirao tree add n2 10.0.0.9:7440  a node that has joined no tree comes under n2
  mutirao tree remove n7 --drain     n7 goes down once what it lent has come back
Changing the tree takes the key of an administrator.")]
pub struct TreeArgs {
    #[command(subcommand)]
    pub change: Option<TreeCommand>,
}

/// Changes of the tree.
#[derive(Debug, Subcommand)]
pub enum TreeCommand {
    /// Take a node as a child of another
    #[command(after_help = "Example: mutirao tree add n2 10.0.0.9:7440")]
    Add {
        /// The parent
        parent: String,
        /// A node of the pool, or `host:port` of one that has joined no tree yet
        child: String,
    },
    /// Take a node out of the pool; its children go to its parent
    #[command(after_help = "Example: mutirao tree remove n7 --drain")]
    Remove {
        /// The node
        #[arg(value_name = "NODE")]
        member: String,
        /// Let what it lent come to its end first
        #[arg(long, conflicts_with = "move_work")]
        drain: bool,
        /// End what it lent at once; its holders run it elsewhere (the default)
        #[arg(long = "move")]
        move_work: bool,
    },
    /// Move a node, with all below it, under another
    #[command(after_help = "Example: mutirao tree move n7 n2")]
    Move {
        /// The node
        #[arg(value_name = "NODE")]
        member: String,
        /// Its new parent
        new_parent: String,
    },
}

/// Options of `init`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao init                                   asks for a passphrase, or makes one and shows it
  mutirao init --name lab --passphrase-file p    a pool called lab")]
pub struct InitArgs {
    /// Name of the pool
    #[arg(long, default_value = "pool")]
    pub name: String,
    /// Name of this machine's node; its host name unless given
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,
    /// Name of the first administrator; your user name unless given
    #[arg(long, value_name = "NAME")]
    pub admin: Option<String>,
    /// File with the passphrase that encrypts the authority's key
    #[arg(long, value_name = "FILE", env = "MUTIRAO_PASSPHRASE_FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// Options of `join`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: machine b joins the pool of machine a
  b$ mutirao join --request b.request       makes b's key, which never leaves b
  a$ mutirao invite b.request > b.answer    after b.request was copied to a
  b$ mutirao join b.answer                  after b.answer was copied to b
  b$ mutirao up --parent a:PORT             PORT as `mutirao nodes` on a shows it")]
pub struct JoinArgs {
    /// Write a request to this file (`-`: to standard output)
    #[arg(long, value_name = "FILE", conflicts_with = "answer", required_unless_present = "answer")]
    pub request: Option<PathBuf>,
    /// Name of the node, or of the user with --user
    #[arg(long, value_name = "NAME", requires = "request")]
    pub name: Option<String>,
    /// Ask for a user of the pool instead of a node
    #[arg(long, requires = "request")]
    pub user: bool,
    /// The answer that `mutirao invite` printed
    #[arg(value_name = "ANSWER")]
    pub answer: Option<PathBuf>,
}

/// Options of `invite`.
#[derive(Debug, Args)]
#[command(after_help = "Example: mutirao invite b.request > b.answer")]
pub struct InviteArgs {
    /// The request (`-`: from standard input)
    #[arg(value_name = "REQUEST")]
    pub request: PathBuf,
    /// Make the user an administrator of the pool
    #[arg(long)]
    pub admin: bool,
    /// File with the passphrase of the authority's key
    #[arg(long, value_name = "FILE", env = "MUTIRAO_PASSPHRASE_FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Days the certificate is good for
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36500))]
    pub days: u32,
}

/// Options of `up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao up                              this machine alone, or the tree it was in
  mutirao up --parent lab1:7117           below the node that listens there
  mutirao up --join lab1:7117             in the same tree, wherever there is room
  mutirao up --local 4 --slots 1          four nodes on this machine
  mutirao up --local 7 --topology t.txt   seven, wired as the file says (`mutirao topology --help`)
  mutirao up --hosts lab.hosts            the machines of a file, over ssh, in the tree of this one")]
pub struct UpArgs {
    /// The node to attach to: HOST:PORT, or the name of a node on this machine; repeat for more
    #[arg(long, value_name = "NODE", conflicts_with = "topology")]
    pub parent: Vec<String>,
    /// File that says who is whose child
    #[arg(long, value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Name of the node; the one it was given at `init` or `join` unless said
    #[arg(long, value_name = "NAME", conflicts_with_all = ["local", "hosts"])]
    pub name: Option<String>,
    /// Slots to lend; as many as there are cores unless said (with --local: each)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub slots: Option<u16>,
    /// What else it lends
    #[command(flatten)]
    pub lend: LendArgs,
    /// Address to listen on; any free port of every interface unless said (with --local: loopback)
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "hosts")]
    pub listen: Option<std::net::SocketAddr>,
    /// Start N nodes on this machine
    #[arg(long, value_name = "N", conflicts_with = "hosts", value_parser = crate::units::local_nodes)]
    pub local: Option<u16>,
    /// Children of a node before newcomers are passed down
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub fan_out: u16,
    /// Never burn processor time to answer sooner
    #[arg(long)]
    pub no_spin: bool,
    /// Nodes of this machine that share its memory, as `--local` says
    #[arg(long, hide = true, default_value_t = 1)]
    pub sharers: u16,
    /// Stay in the foreground and log to standard error
    #[arg(long, conflicts_with_all = ["local", "hosts"])]
    pub foreground: bool,
    /// File with the passphrase of the authority's key, should --local or --hosts need further identities
    #[arg(long, value_name = "FILE", env = "MUTIRAO_PASSPHRASE_FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// A node to join wherever there is room in its tree; repeat for more
    #[arg(long, value_name = "NODE", conflicts_with_all = ["parent", "topology", "local"])]
    pub join: Vec<String>,
    /// Nodes of other machines.
    #[command(flatten)]
    pub remote: HostsArgs,
}

/// Options of `down`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao down --all
  mutirao down --hosts lab.hosts     the nodes of the machines of a file, over ssh")]
pub struct DownArgs {
    /// Every node of yours on this machine
    #[arg(long, conflicts_with = "hosts")]
    pub all: bool,
    /// Nodes of other machines.
    #[command(flatten)]
    pub remote: HostsArgs,
}

/// Options of `nodes`.
#[derive(Debug, Args)]
#[command(after_help = "\
Nodes where nothing of the kind can be are not even asked.

Examples:
  mutirao nodes                              all of them
  mutirao nodes --label ssd --below rack2    those with an SSD in rack 2
  mutirao nodes --resource gpu=2 --free      those where two GPUs are free now")]
pub struct NodesArgs {
    /// What they must have
    #[command(flatten)]
    pub want: WantArgs,
    /// Only those where it is free now
    #[arg(long)]
    pub free: bool,
}

/// Options of `kill`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao kill 3fa9c1        the application whose id begins so (`mutirao apps`)
  mutirao kill lab2/17       worker 17 of node lab2 (`mutirao ps`)")]
pub struct KillArgs {
    /// Beginning of an application's id, or NODE/WORKER
    pub what: String,
}

/// Options of `grow`.
#[derive(Debug, Args)]
#[command(after_help = "\
The application is told. One whose slots the library minds keeps the size it is given until it is given
another, or its own with --own. One that minds its slots itself does as it sees fit.

Examples:
  mutirao grow 3fa9c1 4          by 4 slots
  mutirao grow 3fa9c1 --to 16
  mutirao grow 3fa9c1 --own      as many as it wants, as if nothing had been said")]
pub struct GrowArgs {
    /// Beginning of the application's id (`mutirao apps`)
    pub app: String,
    /// By how many slots
    #[arg(value_name = "N")]
    pub by: Option<u32>,
    /// To how many slots
    #[arg(long, value_name = "N", conflicts_with = "by")]
    pub to: Option<u32>,
    /// As many as it wants by itself
    #[arg(long, conflicts_with_all = ["by", "to"])]
    pub own: bool,
}

/// Options of `shrink`.
#[derive(Debug, Args)]
#[command(after_help = "\
No call is lost. Calls that have not begun on the slots given back go elsewhere; those that run finish
first, unless --now or --abandon is said.

Examples:
  mutirao shrink 3fa9c1 4
  mutirao shrink 3fa9c1 --to 2 --now")]
pub struct ShrinkArgs {
    /// Beginning of the application's id (`mutirao apps`)
    pub app: String,
    /// By how many slots
    #[arg(value_name = "N")]
    pub by: Option<u32>,
    /// To how many slots
    #[arg(long, value_name = "N", conflicts_with = "by")]
    pub to: Option<u32>,
    /// Repeatable calls that run there run again elsewhere, at once; others finish first
    #[arg(long)]
    pub now: bool,
    /// As --now, and others are abandoned: the application is told that their outcome is not known
    #[arg(long)]
    pub abandon: bool,
}

/// Options of `reclaim`.
#[derive(Debug, Args)]
#[command(after_help = "\
What your own programs hold at that very node stays theirs. Others are asked first: they place nothing
new there, and what still runs when the grace is over is ended; repeatable calls run again elsewhere.
The slots are not lent to others until the time is over, or until `mutirao resume`.

Examples:
  mutirao reclaim                    all slots of this machine's node
  mutirao reclaim 2 --for 1h         two of them, for an hour
  mutirao reclaim lab2 --grace 5s    all of node lab2, which gets five seconds")]
pub struct ReclaimArgs {
    /// Node (this machine's unless named), and how many of its slots (all unless said)
    #[arg(value_name = "NODE|SLOTS", num_args = 0..=2)]
    pub what: Vec<String>,
    /// All slots
    #[arg(long)]
    pub all: bool,
    /// How long what runs there may go on
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = crate::lending::read_span)]
    pub grace: std::time::Duration,
    /// Lend them again after this time
    #[arg(long = "for", value_name = "TIME", value_parser = crate::lending::read_span)]
    pub span: Option<std::time::Duration>,
}

/// Options of `drain`.
#[derive(Debug, Args)]
#[command(after_help = "\
Applications are asked to give back what they hold there: they do so as their running calls finish. The
node keeps to this over restarts, until `mutirao resume`.

Examples:
  mutirao drain lab2 --wait      returns when nothing is lent any more
  mutirao drain lab2 --now       ends what still runs after the grace; repeatable calls run again elsewhere")]
pub struct DrainArgs {
    /// Its name, or the beginning of its id
    #[arg(value_name = "NODE")]
    pub lender: String,
    /// End what still runs after the grace
    #[arg(long)]
    pub now: bool,
    /// How long it may go on with --now
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = crate::lending::read_span)]
    pub grace: std::time::Duration,
    /// Return when nothing is lent any more
    #[arg(long)]
    pub wait: bool,
}

/// Options of `alloc`.
#[derive(Debug, Args)]
#[command(after_help = "\
While COMMAND runs, MUTIRAO_NODES lists the nodes granted, separated by commas, and MUTIRAO_HOSTFILE
names a file with a line `NODE slots=N` for each. The slots are given back however COMMAND ends; its
exit code is passed on.

Examples:
  mutirao alloc -n 4 --spread -- sh -c 'cat $MUTIRAO_HOSTFILE'
  mutirao alloc -n 2 --cores 4 --memory 16GiB --resource gpu=1 --label ssd -- ./train
  mutirao alloc -n 8 --below rack2 --without old -- ./render
  mutirao alloc -n 8 --wait=2h --priority 5 --time-limit 30m -- ./render")]
pub struct AllocArgs {
    /// Leases to hold: slots, or bundles of what --cores, --memory and --resource say, or (with
    /// --exclusive) nodes
    #[arg(short = 'n', long = "count", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub count: u32,
    /// Be content with M
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub at_least: Option<u32>,
    /// Whole nodes, with nobody else on them
    #[arg(long)]
    pub exclusive: bool,
    /// As near as possible, many on one node (the default)
    #[arg(long, conflicts_with = "spread")]
    pub near: bool,
    /// At most one lease a node
    #[arg(long)]
    pub spread: bool,
    /// What each must have
    #[command(flatten)]
    pub want: WantArgs,
    /// How it waits
    #[command(flatten)]
    pub waiting: WaitArgs,
    /// What to run
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// List the plugins that nodes keep
    Ls,
    /// Show all about one
    Show(PluginName),
    /// List what waits for an owner's approval
    Pending,
    /// Let nodes run a plugin
    Approve(PluginOrder),
    /// Forbid nodes to run a plugin
    Deny(PluginOrder),
    /// Delete a plugin's files where it is not in use
    Rm(PluginOrder),
}

/// A plugin.
#[derive(Debug, Args)]
#[command(after_help = "Example: mutirao plugin show 3fa9c1")]
pub struct PluginName {
    /// Its name, or the beginning of its id
    pub plugin: String,
}

/// An order about a plugin.
#[derive(Debug, Args)]
#[command(after_help = "Example: mutirao plugin approve mandelbrot --on lab2")]
pub struct PluginOrder {
    /// Its name, or the beginning of its id
    pub plugin: String,
    /// Only on this node; on every node where you may unless said
    #[arg(long, value_name = "NODE")]
    pub on: Option<String>,
}

/// Options of `call`.
#[derive(Debug, Args)]
#[command(after_help = "\
The result goes to standard output. Operations in C get the input as it is; those in Rust a value in
the postcard encoding.

Example: printf 'hello' | mutirao call ./upper shout --input -")]
pub struct CallArgs {
    /// A program that enters the library as its first statement
    pub program: PathBuf,
    /// Its operation
    pub operation: String,
    /// File with the argument (`-`: standard input); empty unless given
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Longest run time, milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit_ms: Option<u32>,
}

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Calls: latency, rate and bandwidth, on one node and between two
    #[command(after_help = "Example: mutirao bench call --output json")]
    Call {
        /// Seconds for each case
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// Only cases whose names contain this, such as "other node"
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Channels: round trips and streams between two processes of a group
    #[command(after_help = "Example: mutirao bench channel --only 'same node' --output json")]
    Channel {
        /// Seconds for each case
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// Only cases whose names contain this, such as "trusted link"
        #[arg(long, default_value = "")]
        only: String,
    },
    /// Allocation: one slot on each of many daemons
    #[command(after_help = "Example: mutirao bench alloc --nodes 205 --output json")]
    Alloc {
        /// Daemons to start on this machine
        #[arg(long, default_value_t = 205, value_parser = clap::value_parser!(u16).range(1..=1000))]
        nodes: u16,
        /// Allocations to measure
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rounds: u32,
        /// Children of each node
        #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
        fan_out: u16,
        /// How much of the pool somebody else holds meanwhile
        #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=99))]
        full: u8,
    },
    /// Healing: the root of a pool of daemons is lost, killed or standing still, and the others find together
    #[command(after_help = "Example: mutirao bench heal --nodes 20 --output json")]
    Heal {
        /// Daemons to start on this machine
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(3..=1000))]
        nodes: u16,
        /// Losses to measure, of each kind
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        rounds: u32,
        /// Children of each node
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1024))]
        fan_out: u16,
    },
    /// Bags: commands and operations that do nothing, their journal, the first task, a large bag
    #[command(after_help = "\
Beside commands stands a loop that only starts them and waits, and what xargs, GNU parallel and HyperQueue (`hq`) do,
where they are installed. Bags lie in the temporary directory: TMPDIR says on which disk.

Example: mutirao bench bag --output json")]
    Bag {
        /// Tasks of each kind
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
        tasks: u64,
        /// Tasks of the bag whose keeper is looked at; 0: none is
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
        large: u64,
        /// Only the cases with this in their names: commands, operations, first task, large bag
        #[arg(long, value_name = "TEXT", default_value = "")]
        only: String,
    },
    /// Growing: from asking for a slot to the first result computed on it
    #[command(after_help = "Example: mutirao bench grow --output json")]
    Grow {
        /// Slots to take, for each case
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rounds: u32,
    },
    /// Idle daemons: memory and processor time, of a leaf and of a node with 16 children
    #[command(after_help = "Example: mutirao bench idle --output json")]
    Idle {
        /// Seconds to watch
        #[arg(long, default_value_t = 20.0)]
        seconds: f64,
    },
}
