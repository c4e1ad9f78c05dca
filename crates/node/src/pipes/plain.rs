//! Sockets of their own for pipes on links the pool trusts.
//!
//! The acceptor listens for one pipe, for a moment, on a port of the kernel's choice; port and a word that is
//! good once travel over the encrypted data connection. The binder connects from its machine and sends the word
//! first. Both then hand the socket to their end. A copy stays here, with which the node ends it.

use super::{ARRIVAL, DIAL, KIND_SHIFT, OFFER};
use crate::conn::ConnId;
use crate::context::{Context, Owner, token};
use crate::links::notice_death;
use mio::Interest;
use mio::net::{TcpListener, TcpStream};
use mutirao_wire::pipe::{PlainSocket, TOKEN_BYTES, plain_address};
use mutirao_wire::{Handle, Tick};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A plain socket that does not stand after so long is done without.
const PATIENCE: Duration = Duration::from_secs(3);
/// Sockets that came and have not shown their word yet.
const ARRIVALS_MAX: usize = 256;

/// Where a pipe is bound.
type Wire = (ConnId, Handle);

struct Offer {
    wire: Wire,
    until: Tick,
    listener: TcpListener,
    from: IpAddr,
    word: [u8; TOKEN_BYTES],
}

struct Arrival {
    offer: u64,
    until: Tick,
    stream: TcpStream,
    word: [u8; TOKEN_BYTES],
    have: usize,
}

struct Dial {
    wire: Wire,
    until: Tick,
    stream: TcpStream,
    word: [u8; TOKEN_BYTES],
}

/// All of them.
#[derive(Default)]
pub(crate) struct Plains {
    offers: HashMap<u64, Offer>,
    arrivals: HashMap<u64, Arrival>,
    dials: HashMap<u64, Dial>,
    /// Those that stand.
    standing: HashMap<Wire, OwnedFd>,
    results: Vec<(ConnId, Handle, bool)>,
    next: u64,
}

impl Plains {
    /// What has become of them since the last look.
    pub(crate) fn take_results(&mut self) -> Vec<(ConnId, Handle, bool)> {
        core::mem::take(&mut self.results)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Awaits one; the answer is for the binder.
    pub(crate) fn offer(&mut self, ctx: &Context, wire: Wire) -> io::Result<PlainSocket> {
        let (here, there) = addresses(ctx, wire)?;
        let mut listener = TcpListener::bind(SocketAddr::new(here.ip(), 0))?;
        let port = listener.local_addr()?.port();
        let word = crate::sys::random().map_err(io::Error::other)?;
        let number = self.number();
        ctx.registry.register(&mut listener, token_of(OFFER, number), Interest::READABLE)?;
        let offer = Offer { wire, until: ctx.now + PATIENCE, listener, from: there.ip(), word };
        self.offers.insert(number, offer);
        Ok(PlainSocket { port, token: word })
    }

    /// Brings one.
    pub(crate) fn connect(&mut self, ctx: &Context, wire: Wire, plain: &PlainSocket) -> io::Result<()> {
        let (_, there) = addresses(ctx, wire)?;
        let mut stream = TcpStream::connect(plain_address(there, plain))?;
        let number = self.number();
        ctx.registry.register(&mut stream, token_of(DIAL, number), Interest::WRITABLE)?;
        self.dials.insert(number, Dial { wire, until: ctx.now + PATIENCE, stream, word: plain.token });
        Ok(())
    }

    /// Somebody connects to what was offered.
    pub(crate) fn asked(&mut self, ctx: &Context, number: u64) {
        loop {
            let Some(offer) = self.offers.get(&number) else { return };
            let (until, from) = (offer.until, offer.from);
            let (mut stream, address) = match offer.listener.accept() {
                Ok(came) => came,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            if address.ip() != from || self.arrivals.len() >= ARRIVALS_MAX {
                tracing::warn!(%address, "turned away: it brings a socket that nobody awaits from there");
                continue;
            }
            let arrival = self.number();
            let watched = ctx.registry.register(&mut stream, token_of(ARRIVAL, arrival), Interest::READABLE);
            if watched.is_ok() {
                let word = [0; TOKEN_BYTES];
                self.arrivals.insert(arrival, Arrival { offer: number, until, stream, word, have: 0 });
                self.arrived(ctx, arrival);
            }
        }
    }

    /// It says something.
    pub(crate) fn arrived(&mut self, ctx: &Context, number: u64) {
        let Some(arrival) = self.arrivals.get_mut(&number) else { return };
        while arrival.have < TOKEN_BYTES {
            match arrival.stream.read(&mut arrival.word[arrival.have..]) {
                Ok(count) if count > 0 => arrival.have += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                _ => {
                    self.arrivals.remove(&number);
                    return;
                }
            }
        }
        let Some(arrival) = self.arrivals.remove(&number) else { return };
        let Some(offer) = self.offers.get(&arrival.offer) else { return };
        if !is_same(&offer.word, &arrival.word) {
            return tracing::warn!("turned away: it brings a socket with a wrong word");
        }
        let Some(offer) = self.offers.remove(&arrival.offer) else { return };
        self.stands(ctx, offer.wire, arrival.stream);
    }

    /// A connection that this node makes is made, or not.
    pub(crate) fn connected(&mut self, ctx: &Context, number: u64) {
        let Some(dial) = self.dials.get_mut(&number) else { return };
        let made = match (dial.stream.take_error(), dial.stream.peer_addr()) {
            (Ok(None), Err(error)) if error.kind() == ErrorKind::NotConnected => return,
            (Ok(None), Ok(_)) => dial.stream.write(&dial.word).is_ok_and(|count| count == TOKEN_BYTES),
            _ => false,
        };
        let Some(dial) = self.dials.remove(&number) else { return };
        if made {
            self.stands(ctx, dial.wire, dial.stream);
        } else {
            self.results.push((dial.wire.0, dial.wire.1, false));
        }
    }

    fn stands(&mut self, ctx: &Context, wire: Wire, mut stream: TcpStream) {
        notice_death(&stream);
        // Copies of it live on elsewhere, so closing it would not take it out of the loop's sight.
        let ready = ctx.registry.deregister(&mut stream).and_then(|()| stream.set_nodelay(true));
        let stands = ready.is_ok();
        if stands {
            self.standing.insert(wire, stream.into());
        }
        self.results.push((wire.0, wire.1, stands));
    }

    /// The socket that stands for a binding, for its end.
    pub(crate) fn hand_out(&self, wire: Wire) -> io::Result<OwnedFd> {
        let socket = self.standing.get(&wire).ok_or(ErrorKind::NotFound)?;
        socket.try_clone()
    }

    /// The binding is over: both ends meet the end of the stream.
    pub(crate) fn end(&mut self, wire: Wire) {
        self.offers.retain(|_, offer| offer.wire != wire);
        self.dials.retain(|_, dial| dial.wire != wire);
        if let Some(socket) = self.standing.remove(&wire) {
            // It fails only when it is over already.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
    }

    /// The connection of all these bindings is lost.
    pub(crate) fn end_all(&mut self, conn: ConnId) {
        let offers = self.offers.values().map(|offer| offer.wire);
        let dials = self.dials.values().map(|dial| dial.wire);
        let all = offers.chain(dials).chain(self.standing.keys().copied());
        for wire in all.filter(|wire| wire.0 == conn).collect::<Vec<_>>() {
            self.end(wire);
        }
    }

    pub(crate) fn deadline(&self) -> Option<Tick> {
        let offers = self.offers.values().map(|offer| offer.until);
        let arrivals = self.arrivals.values().map(|arrival| arrival.until);
        offers.chain(arrivals).chain(self.dials.values().map(|dial| dial.until)).min()
    }

    pub(crate) fn time(&mut self, now: Tick) {
        self.arrivals.retain(|_, arrival| arrival.until > now);
        let offers = self.offers.extract_if(|_, offer| offer.until <= now).map(|(_, offer)| offer.wire);
        let dials = self.dials.extract_if(|_, dial| dial.until <= now).map(|(_, dial)| dial.wire);
        self.results.extend(offers.chain(dials).map(|(conn, handle)| (conn, handle, false)));
    }
}

fn addresses(ctx: &Context, wire: Wire) -> io::Result<(SocketAddr, SocketAddr)> {
    ctx.conns.addresses(wire.0).ok_or_else(|| ErrorKind::NotConnected.into())
}

fn token_of(kind: u64, number: u64) -> mio::Token {
    token(Owner::Pipes, kind << KIND_SHIFT | number)
}

/// Looks at every byte, whatever the first ones are.
fn is_same(a: &[u8; TOKEN_BYTES], b: &[u8; TOKEN_BYTES]) -> bool {
    a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}
