//! The floor of an allocation: as many processes in a tree of the same fan-out, which pass as many bytes
//! down to everybody and back up over bare TCP, and do nothing else.

use super::floor::dial;
use super::quantile;
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

/// Bytes of a search, and of one node's part of the reply, as they are on the wire.
const SEARCH_BYTES: usize = 690;
const REPLY_BYTES: usize = 132;
/// Rounds that do not count.
const WARM_UP: usize = 5;

/// One process of the tree. Started as `mutirao floor-peer tree PARENT/CHILDREN`, with the parent's address
/// and the number of its own children; prints the address where these find it.
pub fn peer(place: &str) -> Result<()> {
    let (parent, count) = place.split_once('/').context("a place in this tree is PARENT/CHILDREN")?;
    let (mut parent, count) = (dial(parent)?, count.parse()?);
    let mut below = Below::default();
    if count > 0 {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("{}", listener.local_addr()?);
        below = Below::accept(&listener, count)?;
    }
    let mut answer = vec![0; REPLY_BYTES + below.bytes];
    parent.write_all(&(answer.len() as u32).to_le_bytes())?;
    let mut search = [0; SEARCH_BYTES];
    loop {
        match parent.read_exact(&mut search) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        below.ask(&search, &mut answer[REPLY_BYTES..])?;
        parent.write_all(&answer)?;
    }
}

/// The children of a process, and how long their answers are.
#[derive(Default)]
struct Below {
    children: Vec<(TcpStream, usize)>,
    bytes: usize,
}

impl Below {
    /// Waits until `count` children are there, and all below them.
    fn accept(listener: &TcpListener, count: usize) -> Result<Below> {
        let mut below = Below::default();
        for _ in 0..count {
            let (stream, _) = listener.accept()?;
            stream.set_nodelay(true)?;
            below.children.push((stream, 0));
        }
        for (stream, bytes) in &mut below.children {
            let mut length = [0; 4];
            stream.read_exact(&mut length)?;
            *bytes = u32::from_le_bytes(length) as usize;
            below.bytes += *bytes;
        }
        Ok(below)
    }

    /// Asks all children, then gathers their answers.
    fn ask(&mut self, search: &[u8], mut answers: &mut [u8]) -> Result<()> {
        for (child, _) in &mut self.children {
            child.write_all(search)?;
        }
        for (child, bytes) in &mut self.children {
            let (its, rest) = answers.split_at_mut(*bytes);
            child.read_exact(its)?;
            answers = rest;
        }
        Ok(())
    }
}

/// The tree; this process is its root.
pub struct FloorTree {
    below: Below,
    processes: Vec<Child>,
}

impl FloorTree {
    /// Starts the processes of a tree of `nodes`, each level filled before the next.
    pub fn start(nodes: usize, fan_out: usize) -> Result<FloorTree> {
        ensure!(fan_out > 0, "a tree needs a fan-out of at least 1");
        let children = |i: usize| (i * fan_out + 1).min(nodes)..(i * fan_out + fan_out + 1).min(nodes);
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut tree = FloorTree { below: Below::default(), processes: Vec::new() };
        let mut addresses = vec![listener.local_addr()?.to_string()];
        for i in 1..nodes {
            let count = children(i).len();
            let mut process = Command::new(std::env::current_exe()?)
                .args(["floor-peer", "tree", &format!("{}/{count}", addresses[(i - 1) / fan_out])])
                .arg("-") // it has no files
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start a process of a floor")?;
            let said = process.stdout.take();
            tree.processes.push(process);
            if count > 0 {
                addresses.push(first_line(said)?);
            }
        }
        tree.below = Below::accept(&listener, children(0).len())?;
        Ok(tree)
    }

    /// The median of `rounds` round trips to everybody, microseconds.
    pub fn measure(&mut self, rounds: usize) -> Result<f64> {
        let mut answers = vec![0; self.below.bytes];
        let mut times_us = Vec::new();
        for _ in 0..rounds + WARM_UP {
            let start = Instant::now();
            self.below.ask(&[1; SEARCH_BYTES], &mut answers)?;
            times_us.push(start.elapsed().as_secs_f64() * 1e6);
        }
        times_us.drain(..WARM_UP);
        times_us.sort_by(f64::total_cmp);
        Ok(quantile(&times_us, 0.5))
    }
}

fn first_line(said: Option<ChildStdout>) -> Result<String> {
    let mut line = String::new();
    BufReader::new(said.context("a process of a floor has no output")?).read_line(&mut line)?;
    ensure!(!line.is_empty(), "a process of a floor ended early");
    Ok(line.trim().to_owned())
}

impl Drop for FloorTree {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
