//! TLS over TCP, between nodes.

use mio::net::TcpStream;
use mutirao_wire::PoolId;
use mutirao_wire::frame::Decoder;
use rustls::Connection;
use std::io::{self, BufRead, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

/// Plaintext handed to TLS at once: four full records.
const PLAIN: usize = 64 * 1024;

/// Bytes read from the network at once: two full records, nearly.
const PIECE: usize = 32 * 1024;

/// Writes one piece, as most messages are, without the kernel gathering pieces.
struct Direct<'a>(&'a mut TcpStream);

impl io::Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            [piece] => self.0.write(piece),
            pieces => self.0.write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// One end of an encrypted connection.
pub(crate) struct TlsTransport {
    stream: TcpStream,
    tls: Connection,
    pool: PoolId,
    connecting: bool,
    /// Plaintext bytes that were encrypted and may not have left yet: with what encryption adds, about what
    /// waits for the network.
    sealed: usize,
}

impl TlsTransport {
    /// `connecting`: the TCP connection is still being made.
    pub(crate) fn new(
        stream: TcpStream,
        mut tls: Connection,
        pool: PoolId,
        connecting: bool,
    ) -> TlsTransport {
        // How much waits is limited by whoever writes, who knows about both sides of the encryption.
        tls.set_buffer_limit(None);
        TlsTransport { stream, tls, pool, connecting, sealed: 0 }
    }

    pub(crate) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// This side's address and the other's, while connected.
    pub(crate) fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        Some((self.stream.local_addr().ok()?, self.stream.peer_addr().ok()?))
    }

    /// Whether the TCP connection is still being made.
    pub(crate) fn is_connecting(&self) -> bool {
        self.connecting
    }

    /// The TLS connection, once its handshake is done.
    pub(crate) fn established(&self) -> Option<&Connection> {
        (!self.connecting && !self.tls.is_handshaking()).then_some(&self.tls)
    }

    pub(crate) fn wants_write(&self) -> bool {
        self.tls.wants_write()
    }

    /// Whether the TCP connection stands; an error if it cannot be made.
    fn connected(&mut self) -> io::Result<bool> {
        if !self.connecting {
            return Ok(true);
        }
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => {
                self.connecting = false;
                self.stream.set_nodelay(true)?;
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads from the network; plaintext is pushed into `decoder`. 0 is the end. Says also whether that was all
    /// there is for now.
    pub(crate) fn read(&mut self, scratch: &mut [u8], decoder: &mut Decoder) -> io::Result<(usize, bool)> {
        if !self.connected()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut total = 0;
        // Little at a time, so that the processor's nearest cache holds it from one copy to the next.
        for _ in 0..scratch.len() / PIECE {
            let count = match self.stream.read(&mut scratch[..PIECE]) {
                // What came before the end, or the error, counts; the next read meets it again.
                Ok(0) if total > 0 => return Ok((total, false)),
                Err(error) if error.kind() == ErrorKind::WouldBlock && total > 0 => return Ok((total, true)),
                result => result?,
            };
            if !self.decrypt(&scratch[..count], decoder)? {
                return Ok((0, true));
            }
            total += count;
            if count < PIECE {
                return Ok((total, true));
            }
        }
        Ok((total, false))
    }

    /// Takes in what came from the network; false when the other side has ended the connection.
    fn decrypt(&mut self, mut bytes: &[u8], decoder: &mut Decoder) -> io::Result<bool> {
        while !bytes.is_empty() {
            self.tls.read_tls(&mut bytes)?;
            let state = self.tls.process_new_packets().map_err(|error| {
                // The alert that tells the other side why is queued; try to get it out.
                let _ = self.tls.write_tls(&mut self.stream);
                let dialled_as = match &self.tls {
                    Connection::Server(server) => server.server_name(),
                    Connection::Client(_) => None,
                };
                io::Error::other(mutirao_trust::explain(&error, self.pool, dialled_as))
            })?;
            let mut left = state.plaintext_bytes_to_read();
            let mut reader = self.tls.reader();
            while left > 0 {
                let chunk = reader.fill_buf()?;
                let taken = chunk.len();
                decoder.push(chunk);
                reader.consume(taken);
                left = left.saturating_sub(taken.max(1));
            }
            if state.peer_has_closed() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Bytes that are encrypted and wait for the network.
    pub(crate) fn sealed(&self) -> usize {
        self.sealed
    }

    /// Whether [`seal`](TlsTransport::seal) can be used.
    pub(crate) fn can_seal(&self) -> bool {
        !self.connecting && !self.tls.is_handshaking()
    }

    /// Encrypts `parts`, one after the other, which then wait for the network: a copy less than through `out`.
    /// What is in `out` has to go before them.
    pub(crate) fn seal(&mut self, parts: [&[u8]; 3]) -> io::Result<()> {
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        let taken = self.tls.writer().write_vectored(&parts.map(io::IoSlice::new))?;
        self.sealed += taken;
        if taken == whole { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    /// Writes what is encrypted, until all is written (`true`) or the network takes no more.
    pub(crate) fn write_sealed(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Direct(&mut self.stream)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.sealed = self.sealed.saturating_sub(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.sealed = 0;
        Ok(true)
    }

    /// Writes from `out[*start..]` until all is written (`true`) or the network takes no more.
    pub(crate) fn write(&mut self, out: &[u8], start: &mut usize) -> io::Result<bool> {
        if !self.connected()? {
            return Ok(false);
        }
        loop {
            if !self.write_sealed()? {
                return Ok(false);
            }
            if self.tls.is_handshaking() {
                return Ok(false);
            }
            let rest = &out[*start..];
            if rest.is_empty() {
                return Ok(true);
            }
            let taken = self.tls.writer().write(&rest[..rest.len().min(PLAIN)])?;
            self.sealed += taken;
            *start += taken;
        }
    }
}
