//! Certificates, join requests, tokens and orders as others present them: nothing unsigned is taken.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mutirao_trust::{Admit, Authority, Certificate, JoinRequest, Name, Pool, Role, SignedOrder, SignedToken};
use mutirao_wire::NodeId;
use std::sync::OnceLock;

/// A pool nobody has signed anything for.
fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        let name = Name::new("fuzzed").expect("a name");
        Authority::create(&name).expect("an authority").pool().clone()
    })
}

fuzz_target!(|data: &[u8]| {
    const NOW_MS: u64 = 1_800_000_000_000;
    let roles = [Role::Node, Role::User, Role::Admin];
    assert!(pool().check(data, NOW_MS / 1000, &roles).is_err());
    if let Ok(token) = SignedToken::from_bytes(data) {
        assert_eq!(token.to_bytes(), data);
        assert!(token.verify(pool(), NOW_MS, NodeId([0; 32]), &Admit::all()).is_err());
    }
    if let Ok(order) = SignedOrder::from_bytes(data) {
        assert_eq!(order.to_bytes(), data);
        assert!(order.verify(pool(), NOW_MS, &roles, &Admit::all()).is_err());
    }
    if let Ok(other) = Pool::from_certificate(data) {
        let _ = (other.id(), other.name());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(request) = JoinRequest::parse(text) {
        assert_eq!(request.as_str(), text);
    }
    let _ = Pool::from_pem(text);
    if let Ok(certificate) = Certificate::from_pem(text) {
        assert!(pool().check(certificate.der(), NOW_MS / 1000, &roles).is_err());
    }
    if let Ok(name) = Name::new(text) {
        // It becomes the name of a directory.
        assert!(!name.as_str().contains('/') && name.as_str() != "..");
    }
});
