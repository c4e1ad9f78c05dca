//! What trust costs: processor time of a handshake (both ends) and of checking a token.
//!
//! `cargo run --release -p mutirao-trust --example handshake`

use mutirao_trust::{
    Admit, Authority, Identity, JoinRequest, Name, Role, SignedToken, Token, Validity, server_name,
};
use mutirao_wire::AppId;
use rustix::time::{ClockId, clock_gettime};
use rustls::{ClientConnection, ServerConnection};
use std::error::Error;

const ROUNDS: u32 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let authority = Authority::create(&Name::new("lab")?)?;
    let a = member(&authority, Role::Node, "a")?;
    let b = member(&authority, Role::Node, "b")?;
    let user = member(&authority, Role::User, "ana")?;

    let (dialling, dialled) =
        (a.client_config(None, Admit::all())?, b.server_config(&[Role::Node], Admit::all())?);
    let mut bytes = 0;
    let handshake_us = time_us(|| {
        let mut client = ClientConnection::new(dialling.clone(), server_name(authority.pool().id()))?;
        let mut server = ServerConnection::new(dialled.clone())?;
        bytes = 0;
        while client.is_handshaking() || server.is_handshaking() {
            let mut up = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut up)?;
            }
            bytes += up.len();
            let mut up = up.as_slice();
            while !up.is_empty() {
                server.read_tls(&mut up)?;
            }
            server.process_new_packets()?;
            let mut down = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut down)?;
            }
            bytes += down.len();
            let mut down = down.as_slice();
            while !down.is_empty() {
                client.read_tls(&mut down)?;
            }
            client.process_new_packets()?;
        }
        Ok(())
    })?;
    println!("handshake: {handshake_us:.0} us of processor time for both ends, {bytes} bytes");

    let config_us = time_us(|| {
        a.client_config(Some(b.me().node), Admit::all())?;
        Ok(())
    })?;
    println!("client configuration for one expected node: {config_us:.1} us");

    let token = Token {
        user: user.me().name.clone(),
        application: AppId(1),
        homes: vec![a.me().node],
        roles: vec![Role::User],
        max_slots: None,
        expires_unix_ms: u64::MAX,
    };
    let bytes = SignedToken::sign(&user, &token)?.to_bytes();
    let now_unix_ms = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis() as u64;
    let token_us = time_us(|| {
        let signed = SignedToken::from_bytes(&bytes)?;
        signed.verify(authority.pool(), now_unix_ms, a.me().node, &Admit::all())?;
        Ok(())
    })?;
    println!("token: {token_us:.0} us to check, {} bytes", bytes.len());
    Ok(())
}

fn member(authority: &Authority, role: Role, name: &str) -> Result<Identity, Box<dyn Error>> {
    let name = Name::new(name)?;
    let (key, request) = JoinRequest::create(&name, role)?;
    let certificate = authority.issue(&request, role, &name, Validity::days(1))?;
    Ok(Identity::new(authority.pool(), certificate, key)?)
}

/// Processor time of one run of `work`, the mean of many.
fn time_us(mut work: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let start = clock_gettime(ClockId::ProcessCPUTime);
    for _ in 0..ROUNDS {
        work()?;
    }
    let end = clock_gettime(ClockId::ProcessCPUTime);
    let spent_ns = (end.tv_sec - start.tv_sec) * 1_000_000_000 + end.tv_nsec - start.tv_nsec;
    Ok(spent_ns as f64 / 1000.0 / f64::from(ROUNDS))
}
