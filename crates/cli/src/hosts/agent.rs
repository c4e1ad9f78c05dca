//! The other end: `mutirao remote`, started over ssh, obeys one order and ends.
//!
//! Both sides write lines of JSON. It begins with `Hello`; then one order and what belongs to it:
//!
//! ```text
//! Up       ->                       <- Up, or Request
//! Certificate -> (after Request)    <- Up
//! Down     ->                       <- Down
//! Measure  ->                       <- Measured
//! ```
//!
//! Anything that goes wrong is answered by `Failed`. No secret travels: a new node's key is made here,
//! its request goes out and the certificate comes in, both over the very connection that ssh has
//! authenticated.

use crate::membership::{home, user_name, write_owner};
use crate::output::put;
use crate::up::{self, Plan};
use crate::wanting::LendArgs;
use anyhow::{Context, Result, bail};
use mutirao_node::LocalNode;
use mutirao_trust::{Certificate, Home, Name, Pool, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest order.
const ORDER_BYTES_MAX: u64 = 256 * 1024;
/// Connections that a round trip is the shortest of.
const TRIES: usize = 7;
/// How long a node may take to accept one.
const CONNECT: Duration = Duration::from_secs(1);

/// What is asked of the other side.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Start a node, unless it runs.
    Up(Box<UpOrder>),
    /// The certificate that was requested.
    Certificate(String),
    /// Stop a node, if it runs.
    Down {
        /// The authority's certificate.
        pool: String,
        /// The node's name.
        name: Name,
    },
    /// Measure the round trips to nodes.
    Measure(BTreeMap<String, Vec<SocketAddr>>),
}

/// How to start a node.
#[derive(Debug, Serialize, Deserialize)]
pub struct UpOrder {
    /// The authority's certificate.
    pub pool: String,
    /// The node's name.
    pub name: Name,
    /// Whose plugins run there, unless somebody wrote that down before.
    pub owner: Name,
    /// Whom it joins, best first.
    pub join: Vec<String>,
    /// Exactly one of these.
    pub here: bool,
    /// Slots it lends.
    pub slots: Option<u16>,
    /// What else it lends.
    pub lend: LendArgs,
    /// Port it listens on.
    pub port: Option<u16>,
    /// Children it takes.
    pub fan_out: u16,
    /// Whether waiting processes there may spin.
    pub spin: bool,
}

/// What the other side answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// It is there.
    Hello {
        /// The hash of the program it runs.
        hash: String,
    },
    /// A certificate is needed for this request.
    Request(String),
    /// The node runs.
    Up(UpReply),
    /// The node does not run.
    Down {
        /// Whether it did.
        was_up: bool,
    },
    /// Round trips by name, microseconds; nodes out of reach are left out.
    Measured(BTreeMap<String, f64>),
    /// It did not work.
    Failed(String),
}

/// A node that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UpReply {
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Its parent, if it was started now and has one.
    pub parent: Option<String>,
    /// Whether it ran before.
    pub already: bool,
    /// Whether it was to join others and has not reached them yet.
    pub alone: bool,
    /// Whether it ends when its user logs out.
    pub ends_with_session: bool,
}

/// Obeys one order.
pub fn obey() -> Result<()> {
    let (_, hash) = super::bring::own_program()?;
    say(&Reply::Hello { hash })?;
    let reply = match hear()? {
        Order::Up(order) => bring_up(&order).map(Reply::Up),
        Order::Down { pool, name } => bring_down(&pool, &name),
        Order::Measure(targets) => Ok(Reply::Measured(measure(&targets))),
        Order::Certificate(_) => bail!("a certificate came that nobody asked for"),
    };
    say(&reply.unwrap_or_else(|error| Reply::Failed(format!("{error:#}").replace('\n', "; "))))
}

fn say(reply: &Reply) -> Result<()> {
    put(&format!("{}\n", serde_json::to_string(reply)?))
}

fn hear() -> Result<Order> {
    let mut line = String::new();
    std::io::stdin().lock().take(ORDER_BYTES_MAX).read_line(&mut line)?;
    serde_json::from_str(&line).context("what came over ssh is no order")
}

fn bring_up(order: &UpOrder) -> Result<UpReply> {
    let pool = Pool::from_pem(&order.pool)?;
    let home = home()?;
    join_pool(&home, &pool)?;
    if let Some(node) = running(&pool, &order.name) {
        let addresses = node.addresses.iter().map(SocketAddr::to_string).collect();
        let ends_with_session = ends_with_session();
        return Ok(UpReply { addresses, parent: None, already: true, alone: false, ends_with_session });
    }
    if home.node(&order.name).is_err() {
        enrol(&home, order)?;
    }
    let plan = Plan {
        name: order.name.clone(),
        join: order.join.clone(),
        here: order.here,
        slots: order.slots,
        lend: order.lend.clone(),
        listen: order.port.map(|port| SocketAddr::from(([0, 0, 0, 0], port))),
        fan_out: order.fan_out,
        spin: order.spin,
        sharers: 1,
    };
    let ready = up::start(&home, &up::runtime(), &plan)?.ready()?;
    let words = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let addresses = ready["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(UpReply {
        addresses: addresses.iter().filter_map(words).collect(),
        parent: words(&ready["parent"]),
        already: false,
        alone: ready["still_alone"].as_bool().unwrap_or(false),
        ends_with_session: ends_with_session(),
    })
}

/// Makes this the directory of a member. Machines that share it may do so at the same moment: one of them
/// is first, and the others find what it wrote.
fn join_pool(home: &Home, pool: &Pool) -> Result<()> {
    home.join_pool(pool).or_else(|error| match home.load_pool() {
        Ok(present) if present.id() == pool.id() => Ok(()),
        _ => Err(error.into()),
    })
}

/// Gets a certificate for a key that is made here.
fn enrol(home: &Home, order: &UpOrder) -> Result<()> {
    let request = home.request(&order.name, Role::Node)?;
    say(&Reply::Request(request.as_str().to_owned()))?;
    let Order::Certificate(text) = hear()? else { bail!("the certificate that was asked for did not come") };
    home.accept(&Certificate::from_pem(&text)?)?;
    write_owner(home, &order.owner)
}

fn bring_down(pool: &str, name: &Name) -> Result<Reply> {
    let pool = Pool::from_pem(pool)?;
    let node = running(&pool, name);
    if let Some(node) = &node {
        up::stop(std::slice::from_ref(node))?;
    }
    Ok(Reply::Down { was_up: node.is_some() })
}

fn running(pool: &Pool, name: &Name) -> Option<LocalNode> {
    up::alive_nodes(pool).into_iter().find(|node| node.name == name.as_str())
}

/// Whether this machine's systemd removes what the user runs when the last session ends.
fn ends_with_session() -> bool {
    Path::new("/run/systemd/system").exists()
        && up::runtime().starts_with("/run/user")
        && !Path::new("/var/lib/systemd/linger").join(user_name()).exists()
}

/// The shortest of a few connections to each node: the kernel answers them, however busy the node is.
fn measure(targets: &BTreeMap<String, Vec<SocketAddr>>) -> BTreeMap<String, f64> {
    let once = |address: &SocketAddr| {
        let start = Instant::now();
        let stream = TcpStream::connect_timeout(address, CONNECT).ok()?;
        let us = start.elapsed().as_secs_f64() * 1e6;
        drop(stream);
        Some(us)
    };
    let shortest = |addresses: &Vec<SocketAddr>| {
        let (address, first) = addresses.iter().find_map(|address| Some((address, once(address)?)))?;
        Some((1..TRIES).filter_map(|_| once(address)).fold(first, f64::min))
    };
    targets.iter().filter_map(|(name, addresses)| Some((name.clone(), shortest(addresses)?))).collect()
}
