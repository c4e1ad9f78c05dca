//! Floors: what the bare system does with the same bytes between two processes.

use super::{pin, quantile, unpin};
use anyhow::{Context, Result, bail};
use mutirao_trust::{Admit, Home, Identity, Name, Role, Validity, server_name};
use rustix::process::Pid;
use rustls::{ClientConnection, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What carries the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// A Unix stream socket.
    Unix,
    /// A TCP connection over loopback.
    Tcp,
    /// TLS 1.3 over one, with the same certificates as links have.
    Tls,
}

impl Carrier {
    fn word(self) -> &'static str {
        match self {
            Carrier::Unix => "unix",
            Carrier::Tcp => "tcp",
            Carrier::Tls => "tls",
        }
    }
}

/// The process at the other end: reads a size and a count, then echoes (`ping`) or takes in and
/// acknowledges so many (`stream`). Started as `mutirao floor-peer`.
/// `tree` and `pair` are processes of other kinds of floors, `channel` and `group` are processes that measure channels.
pub fn peer(carrier: &str, place: &str, home: &Path) -> Result<()> {
    match carrier {
        "tree" => super::floor_tree::peer(place),
        "channel" => super::channel::peer(),
        "group" => super::channel::group_peer(place),
        "pair" => super::channel::pair_peer(place),
        "unix" => serve(UnixStream::connect(place)?),
        "tcp" => serve(dial(place)?),
        "tls" => {
            let (identity, _) = identities(home)?;
            let config = identity.client_config(None, Admit::all())?;
            let client = ClientConnection::new(config, server_name(identity.pool().id()))?;
            serve(StreamOwned::new(client, dial(place)?))
        }
        other => bail!("`{other}` carries nothing"),
    }
}

pub(super) fn dial(place: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(place)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

const PING: u8 = 1;
const STREAM: u8 = 2;

/// Arguments of calls under way, and messages of the stream beside them between two acknowledgements.
pub const WINDOW: usize = 8;

fn serve(mut stream: impl Read + Write) -> Result<()> {
    let mut head = [0; 13];
    let mut buffer = Vec::new();
    loop {
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let size = u64::from_le_bytes(head[1..9].try_into().expect("eight bytes")) as usize;
        let window = u32::from_le_bytes(head[9..].try_into().expect("four bytes"));
        buffer.resize(size, 0);
        match head[0] {
            PING => loop {
                stream.read_exact(&mut buffer)?;
                stream.write_all(&buffer)?;
                stream.flush()?;
                if buffer[0] == 0 {
                    break;
                }
            },
            STREAM => loop {
                for _ in 0..window {
                    stream.read_exact(&mut buffer)?;
                }
                stream.write_all(&[1])?;
                stream.flush()?;
                if buffer[0] == 0 {
                    break;
                }
            },
            other => bail!("{other} is no order"),
        }
    }
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Messages, or round trips.
    pub n: u64,
    /// Median of a round trip (ping), or of the messages between two acknowledgements (stream), microseconds.
    pub p50_us: f64,
    /// So many a second.
    pub per_s: f64,
}

/// Bytes both ways between two processes on processors 0 and 1.
pub struct Floor {
    stream: Box<dyn Duplex>,
    child: Child,
}

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

impl Floor {
    /// Starts the other process and connects. Files go below `directory`.
    pub fn start(carrier: Carrier, directory: &Path) -> Result<Floor> {
        let home = directory.join("floor");
        let start = |place: &str| {
            Command::new(std::env::current_exe()?)
                .args(["floor-peer", carrier.word(), place])
                .arg(&home)
                .stdin(Stdio::null())
                .spawn()
                .context("cannot start the other process of a floor")
        };
        let (stream, child): (Box<dyn Duplex>, Child) = match carrier {
            Carrier::Unix => {
                let path = directory.join("floor.sock");
                let listener = UnixListener::bind(&path)?;
                let child = start(&path.to_string_lossy())?;
                let stream = listener.accept()?.0;
                std::fs::remove_file(path)?;
                (Box::new(stream), child)
            }
            Carrier::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let child = start(&listener.local_addr()?.to_string())?;
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                (Box::new(stream), child)
            }
            Carrier::Tls => {
                if !home.exists() {
                    make_identities(&home)?;
                }
                let (_, identity) = identities(&home)?;
                let config = identity.server_config(&[Role::Node], Admit::all())?;
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let child = start(&listener.local_addr()?.to_string())?;
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                (Box::new(StreamOwned::new(ServerConnection::new(config)?, stream)), child)
            }
        };
        pin(Pid::from_raw(child.id().cast_signed()), 1)?;
        Ok(Floor { stream, child })
    }

    /// Lets the other process use every processor.
    pub fn roam(&self) -> Result<()> {
        unpin(Pid::from_raw(self.child.id().cast_signed()))
    }

    /// Round trips of `size` bytes for `span`.
    pub fn ping(&mut self, size: usize, span: Duration) -> Result<Measured> {
        self.run(PING, size, span, 1, size)
    }

    /// Messages of `size` bytes one way, so many at a time acknowledged by a byte, for `span`.
    pub fn stream(&mut self, size: usize, window: usize, span: Duration) -> Result<Measured> {
        self.run(STREAM, size, span, window, 1)
    }

    fn run(&mut self, order: u8, size: usize, span: Duration, burst: usize, back: usize) -> Result<Measured> {
        let mut head = [order; 13];
        head[1..9].copy_from_slice(&(size as u64).to_le_bytes());
        head[9..].copy_from_slice(&(burst as u32).to_le_bytes());
        self.stream.write_all(&head)?;
        let mut buffer = vec![1; size];
        let mut answer = vec![0; back];
        let warm = Instant::now() + span / 10;
        let mut times_us = Vec::new();
        let mut begin = Instant::now();
        loop {
            let start = Instant::now();
            let last = start >= begin + span && times_us.len() >= 10;
            for _ in 0..burst {
                // Made anew each time, as the arguments of calls and stored messages are.
                if order == STREAM {
                    buffer.fill(1);
                }
                buffer[0] = u8::from(!last);
                self.stream.write_all(&buffer)?;
            }
            self.stream.flush()?;
            self.stream.read_exact(&mut answer)?;
            times_us.push(start.elapsed().as_secs_f64() * 1e6);
            if last {
                break;
            }
            if start < warm {
                times_us.clear();
                begin = Instant::now();
            }
        }
        let n = (times_us.len() * burst) as u64;
        let per_s = n as f64 / begin.elapsed().as_secs_f64();
        times_us.sort_by(f64::total_cmp);
        Ok(Measured { n, p50_us: quantile(&times_us, 0.5), per_s })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn make_identities(home: &Path) -> Result<()> {
    let home = Home::at(home);
    let authority = home.create_pool(&Name::new("floor")?, &mutirao_trust::random_passphrase()?)?;
    for name in ["a", "b"] {
        home.enrol(&authority, Role::Node, &Name::new(name)?, Validity::days(2))?;
    }
    Ok(())
}

fn identities(home: &Path) -> Result<(Identity, Identity)> {
    let home = Home::at(home);
    Ok((home.node(&Name::new("a")?)?, home.node(&Name::new("b")?)?))
}
