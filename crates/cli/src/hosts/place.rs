//! Where in the tree each host of a file goes.

use crate::args::UpArgs;
use crate::up::read_topology;
use anyhow::{Result, bail};
use mutirao_node::LocalNode;
use mutirao_topology::Topology;
use mutirao_topology::hosts::{Host, HostFile, Parent};
use std::net::SocketAddr;

/// What a host hangs below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Above {
    /// It is the root.
    Nobody,
    /// Exactly the node that has one of these addresses.
    Exactly(Vec<String>),
    /// Any node with room in the tree of the one that has one of these addresses.
    TreeOf(Vec<String>),
    /// Another host of the file.
    Host(usize),
}

/// The place of each host.
pub struct Plan {
    above: Vec<Above>,
    topology: Option<Topology>,
}

impl Plan {
    /// By the topology file; failing that by the labels of the host file, by the options, and below the
    /// node that runs here.
    pub fn new(args: &UpArgs, file: &HostFile, here: &[LocalNode]) -> Result<Plan> {
        let Some(path) = &args.topology else {
            let above = file.hosts.iter().map(|host| by_label(host, args, here)).collect::<Result<_>>()?;
            return Ok(Plan { above, topology: None });
        };
        let topology = read_topology(path)?;
        let above = file
            .hosts
            .iter()
            .map(|host| {
                if !topology.contains(host.name.as_str()) {
                    bail!("{} does not name `{}` (line {} of the host file)", path.display(), host.name, host.line);
                }
                let Some(parent) = topology.parent(host.name.as_str()) else { return Ok(Above::Nobody) };
                if let Some(at) = file.hosts.iter().position(|host| host.name.as_str() == parent) {
                    return Ok(Above::Host(at));
                }
                match (topology.place(parent), named(here, parent)) {
                    (Some(place), _) => Ok(Above::Exactly(vec![place.to_owned()])),
                    (None, Some(node)) => Ok(Above::Exactly(addresses(node))),
                    (None, None) => bail!(
                        "`{parent}`, the parent of `{}`, is not in the host file, does not run here, and has no \
                         address in {}",
                        host.name,
                        path.display()
                    ),
                }
            })
            .collect::<Result<_>>()?;
        Ok(Plan { above, topology: Some(topology) })
    }

    /// What a host hangs below.
    pub fn above(&self, host: usize) -> &Above {
        &self.above[host]
    }

    /// The hosts level by level: each after the host it hangs below.
    pub fn levels(&self) -> Vec<Vec<usize>> {
        let level = |mut host: usize| {
            let mut level = 0;
            // Neither a host file nor a topology has a circle.
            while let Above::Host(parent) = self.above[host] {
                (host, level) = (parent, level + 1);
            }
            level
        };
        let mut levels: Vec<Vec<usize>> = Vec::new();
        for host in 0..self.above.len() {
            let level = level(host);
            levels.resize(levels.len().max(level + 1), Vec::new());
            levels[level].push(host);
        }
        levels
    }

    /// The port a host listens on: by its label, or by its address in the topology file.
    pub fn port(&self, host: &Host) -> Option<u16> {
        let place = self.topology.as_ref().and_then(|topology| topology.place(host.name.as_str()));
        host.port.or_else(|| place?.rsplit_once(':')?.1.parse().ok())
    }

    /// How others reach a host that is up: what the files say, then what it says itself.
    pub fn reach(&self, file: &HostFile, host: usize, addresses: &[String]) -> Vec<String> {
        let node = &file.hosts[host];
        let place = self.topology.as_ref().and_then(|topology| topology.place(node.name.as_str()));
        let port = addresses.first().and_then(|address| address.parse::<SocketAddr>().ok()).map(|a| a.port());
        let label = node.address.as_ref().zip(port).map(|(host, port)| format!("{}:{port}", bracketed(host)));
        let mut all: Vec<String> = place.map(str::to_owned).into_iter().chain(label).collect();
        all.extend_from_slice(addresses);
        all
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn by_label(host: &Host, args: &UpArgs, here: &[LocalNode]) -> Result<Above> {
    let found = |targets: &[String]| -> Result<Vec<String>> {
        let reach = |target: &String| match named(here, target) {
            Some(node) => Ok(addresses(node)),
            None if target.contains(':') => Ok(vec![target.clone()]),
            None => bail!("no node `{target}` runs here; give its address, HOST:PORT"),
        };
        Ok(targets.iter().map(reach).collect::<Result<Vec<_>>>()?.concat())
    };
    match &host.parent {
        Some(Parent::Host(parent)) => return Ok(Above::Host(*parent)),
        Some(Parent::Place(place)) => return Ok(Above::Exactly(vec![place.clone()])),
        None => {}
    }
    if !args.parent.is_empty() {
        return Ok(Above::Exactly(found(&args.parent)?));
    }
    if !args.join.is_empty() {
        return Ok(Above::TreeOf(found(&args.join)?));
    }
    match here.first() {
        Some(node) => Ok(Above::TreeOf(addresses(node))),
        None => bail!(
            "no node of the pool runs here for the machines to join; start it (`mutirao up`), or say --join, \
             --parent or --topology"
        ),
    }
}

fn named<'a>(here: &'a [LocalNode], name: &str) -> Option<&'a LocalNode> {
    here.iter().find(|node| node.name == name)
}

fn addresses(node: &LocalNode) -> Vec<String> {
    node.addresses.iter().map(SocketAddr::to_string).collect()
}
