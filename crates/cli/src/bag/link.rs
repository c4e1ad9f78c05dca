//! The way from a member of a bag to the others: through its node.

use super::keeper::Event;
use anyhow::{Context, Result};
use mutirao_wire::bag::{MemberBytes, MemberHello, MemberMessage};
use mutirao_wire::frame::Decoder;
use mutirao_wire::limits::{DATA_BODY_MAX, PROTOCOL};
use mutirao_wire::local::LocalMessage;
use mutirao_wire::{BagId, NodeId};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A node that went away is waited for so long.
const RECONNECT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(100);
/// A node that takes nothing for so long is as good as gone; what it was to carry is said again.
const PATIENCE: Duration = Duration::from_secs(2);

/// The connection to the node.
pub struct Link {
    bag: BagId,
    way: Arc<Mutex<Option<UnixStream>>>,
}

impl Link {
    /// Connects; what others say comes as [`Event::Said`], the loss of the node as [`Event::NodeLost`].
    pub fn open(bag: BagId, node: &str, events: &Sender<Event>) -> Result<Link> {
        let socket = socket_of(node)?;
        let stream = connect(&socket, bag).with_context(|| format!("node `{node}` does not answer"))?;
        let way = Arc::new(Mutex::new(Some(stream.try_clone()?)));
        let (theirs, events) = (way.clone(), events.clone());
        let read = move || read_for_ever(stream, &socket, bag, &theirs, &events);
        crate::threads::start("members", read)?;
        Ok(Link { bag, way })
    }

    /// Says something to the member on another node. It may be lost.
    pub fn say(&self, to: NodeId, bytes: Vec<u8>) {
        let message = MemberBytes { bag: self.bag, member: to, bytes };
        let mut way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = way.as_mut()
            && say(stream, message).is_err()
        {
            // Half a frame makes the rest unreadable. The reader finds out and connects anew.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            *way = None;
        }
    }
}

/// The socket of a node of this machine.
pub fn socket_of(node: &str) -> Result<PathBuf> {
    let nodes = mutirao_node::local_nodes(&crate::up::runtime());
    let socket = nodes.into_iter().find(|local| local.name == node).map(|local| local.socket);
    socket.with_context(|| format!("node `{node}` does not run"))
}

fn connect(socket: &Path, bag: BagId) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    say(&mut stream, MemberHello { protocol: PROTOCOL, bag })?;
    Ok(stream)
}

/// Writes a message to a node.
pub fn say(stream: &mut UnixStream, message: impl Into<MemberMessage>) -> std::io::Result<()> {
    let mut frame = Vec::new();
    message.into().put(&mut frame);
    stream.write_all(&frame)
}

fn read_for_ever(
    mut stream: UnixStream,
    socket: &Path,
    bag: BagId,
    way: &Mutex<Option<UnixStream>>,
    events: &Sender<Event>,
) {
    loop {
        let end = read(&mut stream, events);
        *way.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let why = match end {
            End::Lost(why) => why,
            End::Refused(why) => {
                let _ = events.send(Event::NodeLost(why));
                return;
            }
        };
        let lost = Instant::now();
        let again = loop {
            // One that goes down removes its socket; one that was killed leaves it, and may be back soon.
            if !socket.exists() || lost.elapsed() > RECONNECT {
                break None;
            }
            match connect(socket, bag) {
                Ok(stream) => break Some(stream),
                Err(_) => std::thread::sleep(RETRY),
            }
        };
        let again = again.and_then(|stream| Some((stream.try_clone().ok()?, stream)));
        let Some((ours, theirs)) = again else {
            // Without a keeper nobody wants to know.
            let _ = events.send(Event::NodeLost(why));
            return;
        };
        stream = ours;
        *way.lock().unwrap_or_else(PoisonError::into_inner) = Some(theirs);
    }
}

/// Why nothing more comes.
enum End {
    Lost(String),
    /// The node does not want this member, any more.
    Refused(String),
}

/// Hands on what comes, to its end.
fn read(stream: &mut UnixStream, events: &Sender<Event>) -> End {
    let mut decoder = Decoder::new(DATA_BODY_MAX);
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = match stream.read(&mut bytes) {
            Ok(0) => return End::Lost("it closed the connection".into()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return End::Lost(error.to_string()),
        };
        decoder.push(&bytes[..count]);
        loop {
            match decoder.next_frame() {
                Ok(None) => break,
                Err(error) => return End::Lost(error.to_string()),
                Ok(Some((header, body))) => {
                    if let Ok(MemberMessage::MemberBytes(said)) = MemberMessage::read(&header, body) {
                        if events.send(Event::Said { from: said.member, bytes: said.bytes }).is_err() {
                            return End::Lost("nobody listens".into());
                        }
                    } else if let Ok(LocalMessage::ClientRefused(refused)) = LocalMessage::read(&header, body)
                    {
                        return End::Refused(refused.text);
                    }
                }
            }
        }
    }
}
