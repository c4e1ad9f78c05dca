//! `mutirao topology`: makes, checks, draws and converts topology files.

use crate::args::{Cli, Output};
use crate::hosts;
use crate::hosts::args::SshArgs;
use crate::list::node_rows;
use crate::output::put;
use crate::reading::{self, LIST_BYTES_MAX};
use crate::up::read_topology;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use mutirao_topology::hosts::HostFile;
use mutirao_topology::matrix::Matrix;
use mutirao_topology::{Topology, columns, document, draw, near, shape};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs};
use std::path::{Path, PathBuf};

/// What to do with topology files.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A topology file has one line a parent, its children after it, and # before comments:
  no1=ruby:7117 no2 no3
  no2 no4 no5
or the same in TOML:
  [children]
  no1 = [\"no2\", \"no3\"]
  no2 = [\"no4\", \"no5\"]
  [addresses]
  no1 = \"ruby:7117\"
`mutirao up --topology FILE` takes both.")]
pub enum TopologyCommand {
    /// Make one from a list of hosts
    Make(MakeArgs),
    /// Say what is wrong with a file, and where
    Check(CheckArgs),
    /// Draw a file, or the tree of the running pool
    Draw(DrawArgs),
    /// Write a file in the other form
    Convert(ConvertArgs),
}

/// Options of `topology make`.
#[derive(Debug, Args)]
#[command(after_help = "\
The first host is the root unless --root names another. With --by rack or subnet each group hangs
together below its first host. With --latency or --matrix, groups are found where round trips jump
to three times as long, and each node goes where its way to the head of its group is shortest.

Examples:
  mutirao topology make lab.hosts --fan-out 8 > lab.topology
  mutirao topology make lab.hosts --by subnet --prefix 26
  mutirao topology make lab.hosts --latency --save lab.matrix --form toml")]
pub struct MakeArgs {
    /// Host file: `user@host` a line, with labels such as rack=left (`-`: standard input)
    #[arg(value_name = "HOSTS")]
    pub hosts: PathBuf,
    /// Most children of a node
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub fan_out: u16,
    /// What belongs together
    #[arg(long, value_enum, default_value_t = By::Order)]
    pub by: By,
    /// Bits of an address that make a subnet; 24 unless said, of IPv6 64
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(1..=128))]
    pub prefix: Option<u8>,
    /// Measure the round trips between the nodes, which run, over ssh
    #[arg(long, conflicts_with_all = ["by", "prefix", "matrix"])]
    pub latency: bool,
    /// File with round trips: a line of names, then for each name a line of microseconds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["by", "prefix"])]
    pub matrix: Option<PathBuf>,
    /// Write what was measured to this file
    #[arg(long, value_name = "FILE", requires = "latency")]
    pub save: Option<PathBuf>,
    /// The root, by the name of its node
    #[arg(long, value_name = "NAME")]
    pub root: Option<String>,
    /// In which form
    #[arg(long, value_enum, default_value_t = Form::Columns)]
    pub form: Form,
    /// How machines are reached.
    #[command(flatten)]
    pub ssh: SshArgs,
}

/// What belongs together in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// Nothing: level by level in the order of the file
    Order,
    /// Hosts with the same rack= label
    Rack,
    /// Hosts whose addresses begin alike
    Subnet,
}

/// The forms of topology files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// A line a parent, its children after it
    Columns,
    /// TOML
    Toml,
}

/// Options of `topology check`.
#[derive(Debug, Args)]
#[command(after_help = "Example: mutirao topology check lab.topology --hosts lab.hosts")]
pub struct CheckArgs {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Host file: every node is to be a host of it, and every host a node
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
    /// How machines are named.
    #[command(flatten)]
    pub ssh: SshArgs,
}

/// Options of `topology draw`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mutirao topology draw lab.topology
  mutirao topology draw lab.topology --svg > lab.svg
  mutirao topology draw lab.topology --html > lab.html     a page on which the tree can be changed
  mutirao topology draw --dot | dot -Tpdf > pool.pdf       the running pool")]
pub struct DrawArgs {
    /// The file; the running pool unless given
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// For Graphviz
    #[arg(long, group = "drawing")]
    pub dot: bool,
    /// As a picture
    #[arg(long, group = "drawing")]
    pub svg: bool,
    /// As a page on which the tree can be changed and saved
    #[arg(long, group = "drawing")]
    pub html: bool,
}

/// Options of `topology convert`.
#[derive(Debug, Args)]
#[command(after_help = "Example: mutirao topology convert lab.topology --to toml > lab.toml")]
pub struct ConvertArgs {
    /// The file, of either form
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The form to write
    #[arg(long, value_enum)]
    pub to: Form,
}

/// `mutirao topology`
pub fn run(cli: &Cli, command: &TopologyCommand) -> Result<()> {
    match command {
        TopologyCommand::Make(args) => make(cli, args),
        TopologyCommand::Check(args) => check(args, cli.output),
        TopologyCommand::Draw(args) => drawing(cli, args),
        TopologyCommand::Convert(args) => put(&written(&read_topology(&args.file)?, args.to)),
    }
}

fn written(topology: &Topology, form: Form) -> String {
    match form {
        Form::Columns => columns::write(topology),
        Form::Toml => document::write(topology),
    }
}

fn make(cli: &Cli, args: &MakeArgs) -> Result<()> {
    let file = hosts::read(&args.hosts, &args.ssh)?;
    let mut names: Vec<String> = file.hosts.iter().map(|host| host.name.to_string()).collect();
    let root = match &args.root {
        Some(root) => Some(
            names
                .iter()
                .position(|name| name == root)
                .with_context(|| format!("--root {root}: {} names no such node", args.hosts.display()))?,
        ),
        None => None,
    };
    let fan_out = usize::from(args.fan_out);
    let topology = match matrix(cli, args, &file)? {
        Some(matrix) => {
            let root = root.and_then(|root| matrix.place_of(&names[root]));
            Topology::of(matrix.names(), &near::by_latency(&matrix, root, fan_out))
        }
        None => {
            let mut groups = groups(args, &file)?;
            if let Some(root) = root {
                names[..=root].rotate_right(1);
                groups[..=root].rotate_right(1);
            }
            Topology::of(&names, &shape::by_group(&groups, fan_out))
        }
    };
    put(&written(&topology.context("no tree can be made of these hosts")?, args.form))
}

/// The group of each host; of hosts in one group, the tree follows the order of the file.
fn groups(args: &MakeArgs, file: &HostFile) -> Result<Vec<String>> {
    file.hosts
        .iter()
        .map(|host| match args.by {
            By::Order => Ok(String::new()),
            By::Rack => host.rack.clone().with_context(|| {
                format!("{}, line {}: `{host}` has no rack=", args.hosts.display(), host.line)
            }),
            By::Subnet => {
                let place = host.address.as_deref().unwrap_or(host.host());
                let ip = address_of(place).with_context(|| {
                    format!("{}, line {}: no address is known of `{place}`", args.hosts.display(), host.line)
                })?;
                subnet(ip, args.prefix)
            }
        })
        .collect()
}

fn address_of(host: &str) -> Result<IpAddr> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    Ok((host, 0).to_socket_addrs()?.next().context("its name has no address")?.ip())
}

/// The subnet of an address: its first bits.
fn subnet(ip: IpAddr, prefix: Option<u8>) -> Result<String> {
    let cut = |bits: u8, of: u8| match prefix.unwrap_or(bits) {
        prefix if prefix > of => bail!("--prefix {prefix}: `{ip}` has only {of} bits"),
        prefix => Ok((u32::from(of - prefix), prefix)),
    };
    Ok(match ip {
        IpAddr::V4(ip) => {
            let (rest, prefix) = cut(24, 32)?;
            let net = ip.to_bits().checked_shr(rest).and_then(|bits| bits.checked_shl(rest));
            format!("{}/{prefix}", Ipv4Addr::from_bits(net.unwrap_or(0)))
        }
        IpAddr::V6(ip) => {
            let (rest, prefix) = cut(64, 128)?;
            let net = ip.to_bits().checked_shr(rest).and_then(|bits| bits.checked_shl(rest));
            format!("{}/{prefix}", Ipv6Addr::from_bits(net.unwrap_or(0)))
        }
    })
}

/// The round trips between the hosts, read or measured.
fn matrix(cli: &Cli, args: &MakeArgs, file: &HostFile) -> Result<Option<Matrix>> {
    if let Some(path) = &args.matrix {
        let text = reading::text(path, LIST_BYTES_MAX)?;
        let matrix = Matrix::parse(&text).with_context(|| path.display().to_string())?;
        for host in &file.hosts {
            if matrix.place_of(host.name.as_str()).is_none() {
                bail!("{} has no round trips of `{}`", path.display(), host.name);
            }
        }
        if matrix.names().len() != file.hosts.len() {
            bail!("{} is about other nodes than {}", path.display(), args.hosts.display());
        }
        return Ok(Some(matrix));
    }
    if !args.latency {
        return Ok(None);
    }
    let rows = node_rows(&crate::open(cli)?)?;
    let nodes = rows.into_iter().map(|row| (row.node.name, row.node.addresses)).collect();
    let matrix = hosts::measure(file, &args.ssh, &nodes)?;
    if let Some(path) = &args.save {
        std::fs::write(path, matrix.write()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(Some(matrix))
}

fn check(args: &CheckArgs, output: Output) -> Result<()> {
    let topology = read_topology(&args.file)?;
    if let Some(path) = &args.hosts {
        agree(&topology, &args.file, &hosts::read(path, &args.ssh)?, path)?;
    }
    let (nodes, levels, fan_out) = (topology.nodes().count(), topology.levels(), topology.fan_out());
    if output == Output::Json {
        let facts = json!({ "root": topology.root(), "nodes": nodes, "levels": levels, "fan_out": fan_out });
        return put(&format!("{facts:#}\n"));
    }
    put(&format!(
        "{nodes} nodes below root {}, {levels} levels, at most {fan_out} children\n",
        topology.root()
    ))
}

/// Every node a host, and every host a node.
fn agree(topology: &Topology, file: &Path, hosts: &HostFile, path: &Path) -> Result<()> {
    let known = |node: &str| hosts.hosts.iter().any(|host| host.name.as_str() == node);
    if let Some(node) = topology.nodes().find(|node| !known(node)) {
        bail!("{}: `{node}` is no host of {}", file.display(), path.display());
    }
    if let Some(host) = hosts.hosts.iter().find(|host| !topology.contains(host.name.as_str())) {
        bail!("{}, line {}: `{}` is not in {}", path.display(), host.line, host.name, file.display());
    }
    Ok(())
}

fn drawing(cli: &Cli, args: &DrawArgs) -> Result<()> {
    let topology = match &args.file {
        Some(path) => read_topology(path)?,
        None => running(cli)?,
    };
    put(&match args {
        DrawArgs { dot: true, .. } => draw::dot(&topology),
        DrawArgs { svg: true, .. } => draw::svg(&topology),
        DrawArgs { html: true, .. } => draw::page(&topology),
        _ if cli.output == Output::Json => {
            let row = |node: &str| json!({ "node": node, "parent": topology.parent(node), "place": topology.place(node) });
            format!("{:#}\n", topology.nodes().map(row).collect::<serde_json::Value>())
        }
        _ => draw::text(&topology),
    })
}

/// The tree of the running pool.
fn running(cli: &Cli) -> Result<Topology> {
    let rows = node_rows(&crate::open(cli)?)?;
    let word = |name: &str| {
        let row = rows.iter().find(|row| row.node.name == name);
        match row.and_then(|row| row.node.addresses.first()) {
            Some(address) => format!("{name}={address}"),
            None => name.to_owned(),
        }
    };
    // The same words that a file has, so that its rules hold for what nodes answer.
    let mut text = String::new();
    for row in &rows {
        match &row.parent {
            Some(parent) => text += &format!("{} {}\n", word(parent), word(&row.node.name)),
            None if rows.len() == 1 => text += &word(&row.node.name),
            None => {}
        }
    }
    columns::parse(&text).context("the nodes do not form one tree at the moment; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_cut_where_asked() {
        let subnet = |ip: &str, prefix| subnet(ip.parse().unwrap(), prefix);
        assert_eq!(subnet("10.1.2.200", None).unwrap(), "10.1.2.0/24");
        assert_eq!(subnet("10.1.2.200", Some(26)).unwrap(), "10.1.2.192/26");
        assert_eq!(subnet("10.1.2.200", Some(32)).unwrap(), "10.1.2.200/32");
        assert_eq!(subnet("2001:db8:1:2:3::4", None).unwrap(), "2001:db8:1:2::/64");
        assert!(subnet("10.1.2.200", Some(33)).unwrap_err().to_string().contains("only 32 bits"));
    }
}
