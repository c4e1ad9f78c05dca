//! A member's own identity: certificate and private key.

use crate::authority::now_unix_s;
use crate::certificate::{Certificate, Peer};
use crate::error::Refusal;
use crate::key::PrivateKey;
use crate::link::provider;
use crate::name::Role;
use crate::pool::Pool;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// What a node, a user or an administrator proves itself with. Opens links (see [`Identity::client_config`])
/// and signs tokens and orders.
#[derive(Debug)]
pub struct Identity {
    pool: Pool,
    certificate: Certificate,
    key: PrivateKey,
    me: Peer,
    certified: Arc<CertifiedKey>,
}

impl Identity {
    /// Puts the parts together, provided that they belong together and the certificate is valid now.
    pub fn new(pool: &Pool, certificate: Certificate, key: PrivateKey) -> Result<Identity, Refusal> {
        let now_unix_s = u64::try_from(now_unix_s()).unwrap_or(0);
        let me = pool.check(certificate.der(), now_unix_s, &[Role::Node, Role::User, Role::Admin])?;
        if me.node != key.id() {
            return Err(Refusal::KeyMismatch { name: me.name });
        }
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8().to_vec()));
        let signer = provider().key_provider.load_private_key(der);
        let signer = signer.map_err(|e| Refusal::Handshake(e.to_string()))?;
        let certified = Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signer));
        Ok(Identity { pool: pool.clone(), certificate, key, me, certified })
    }

    /// Who this is, as its peers see it.
    pub fn me(&self) -> &Peer {
        &self.me
    }

    /// The pool it is a member of.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Its certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.key
    }

    pub(crate) fn certified_key(&self) -> Arc<CertifiedKey> {
        self.certified.clone()
    }
}
