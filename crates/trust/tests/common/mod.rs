//! A pool for tests, and handshakes in memory.
#![allow(dead_code)] // Each test program uses its own part of this.

use mutirao_trust::{Authority, Certificate, Identity, JoinRequest, Name, PrivateKey, Role, Validity};
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

pub const DAY_S: i64 = 86_400;

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub fn authority() -> Authority {
    Authority::create(&name("lab")).unwrap()
}

pub fn certified(
    authority: &Authority,
    role: Role,
    who: &str,
    validity: Validity,
) -> (Certificate, PrivateKey) {
    let (key, request) = JoinRequest::create(&name(who), role).unwrap();
    (authority.issue(&request, role, &name(who), validity).unwrap(), key)
}

pub fn member(authority: &Authority, role: Role, who: &str) -> Identity {
    let (certificate, key) = certified(authority, role, who, Validity::days(30));
    Identity::new(authority.pool(), certificate, key).unwrap()
}

pub fn now_unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Both ends after a handshake, and with what each of them failed.
pub struct Pair {
    pub client: ClientConnection,
    pub server: ServerConnection,
    pub client_error: Option<rustls::Error>,
    pub server_error: Option<rustls::Error>,
    /// Bytes that travelled, both ways together.
    pub bytes: usize,
}

pub fn shake_hands(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    dialled: rustls::pki_types::ServerName<'static>,
) -> Pair {
    let mut pair = Pair {
        client: ClientConnection::new(client, dialled).unwrap(),
        server: ServerConnection::new(server).unwrap(),
        client_error: None,
        server_error: None,
        bytes: 0,
    };
    loop {
        let (mut up, mut down) = (Vec::new(), Vec::new());
        while pair.client.wants_write() {
            pair.client.write_tls(&mut up).unwrap();
        }
        if pair.server_error.is_none() {
            pair.server_error = deliver(&up, |bytes| pair.server.read_tls(bytes).unwrap())
                .and_then(|()| pair.server.process_new_packets().map(drop))
                .err();
        }
        while pair.server.wants_write() {
            pair.server.write_tls(&mut down).unwrap();
        }
        if pair.client_error.is_none() {
            pair.client_error = deliver(&down, |bytes| pair.client.read_tls(bytes).unwrap())
                .and_then(|()| pair.client.process_new_packets().map(drop))
                .err();
        }
        pair.bytes += up.len() + down.len();
        if up.is_empty() && down.is_empty() {
            return pair;
        }
    }
}

fn deliver(mut bytes: &[u8], mut read: impl FnMut(&mut &[u8]) -> usize) -> Result<(), rustls::Error> {
    while !bytes.is_empty() {
        read(&mut bytes);
    }
    Ok(())
}
