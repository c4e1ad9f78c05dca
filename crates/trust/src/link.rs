//! Encrypted links: TLS 1.3 in which each side shows that it is a member of the pool.
//!
//! Peers are known by the identity in their certificate, never by host name. The name that TLS lets the
//! dialling side send carries its pool, so that a node which turns away a foreign one can name its pool.

use crate::certificate::{Facts, Peer};
use crate::error::Refusal;
use crate::identity::Identity;
use crate::name::Role;
use crate::pool::{Admit, Pool};
use mutirao_wire::{NodeId, PoolId};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::version::TLS13;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, ServerConfig, SignatureScheme,
};
use std::sync::{Arc, OnceLock};

pub(crate) const ALPN_TEXT: &str = "mutirao/1";
/// The protocol that links negotiate; versions of messages are agreed upon above it.
pub const ALPN: &[u8] = ALPN_TEXT.as_bytes();

impl Identity {
    /// How this identity dials a node of its pool: any, or only `expected`.
    pub fn client_config(
        &self,
        expected: Option<NodeId>,
        admit: Admit,
    ) -> Result<Arc<ClientConfig>, Refusal> {
        let door = Door { pool: self.pool().clone(), roles: vec![Role::Node], expected, admit };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| Refusal::Handshake(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(door))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified_key())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// How this identity is dialled, by members whose role is one of `roles` and whom `admit` lets in.
    pub fn server_config(&self, roles: &[Role], admit: Admit) -> Result<Arc<ServerConfig>, Refusal> {
        let door = Door { pool: self.pool().clone(), roles: roles.to_vec(), expected: None, admit };
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(|e| Refusal::Handshake(e.to_string()))?
            .with_client_cert_verifier(Arc::new(door))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified_key())));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

/// The name to dial with: it tells the other side which pool is calling.
pub fn server_name(pool: PoolId) -> ServerName<'static> {
    let id = pool.to_string();
    let (high, low) = id.split_at(32);
    ServerName::try_from(format!("{high}.{low}.mutirao.invalid"))
        .expect("hexadecimal labels of 32 characters are a DNS name")
}

fn pool_in(server_name: &str) -> Option<PoolId> {
    let (high, low) = server_name.strip_suffix(".mutirao.invalid")?.split_once('.')?;
    format!("{high}{low}").parse().ok()
}

/// Who is at the other end, after the handshake.
pub fn peer_identity(connection: &CommonState) -> Result<Peer, Refusal> {
    if connection.alpn_protocol() != Some(ALPN) {
        return Err(Refusal::Protocol);
    }
    match connection.peer_certificates() {
        Some([certificate, ..]) => Ok(Facts::read(certificate)?.peer),
        _ => Err(Refusal::NoCertificate),
    }
}

/// Why a handshake failed, in words for people. `dialled_as` is what `ServerConnection::server_name` says;
/// none on the side that dialled.
pub fn explain(error: &rustls::Error, ours: PoolId, dialled_as: Option<&str>) -> Refusal {
    if let Some(theirs) = dialled_as.and_then(pool_in).filter(|theirs| *theirs != ours) {
        return Refusal::OtherPool { theirs, ours };
    }
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(refusal))) => {
            match refusal.downcast_ref::<Refusal>() {
                Some(refusal) => refusal.clone(),
                None => Refusal::Handshake(error.to_string()),
            }
        }
        rustls::Error::NoCertificatesPresented => Refusal::NoCertificate,
        rustls::Error::NoApplicationProtocol
        | rustls::Error::AlertReceived(
            AlertDescription::NoApplicationProtocol | AlertDescription::ProtocolVersion,
        ) => Refusal::Protocol,
        rustls::Error::AlertReceived(alert) => Refusal::TurnedAway { alert: format!("{alert:?}") },
        _ => Refusal::Handshake(error.to_string()),
    }
}

/// The one set of cryptographic functions used, with what is quickest on common machines first.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            Arc::new(CryptoProvider {
                cipher_suites: vec![
                    ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
                    ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
                ],
                kx_groups: vec![ring::kx_group::X25519],
                ..ring::default_provider()
            })
        })
        .clone()
}

/// Lets in members of the pool, at either end of a link.
#[derive(Debug)]
struct Door {
    pool: Pool,
    roles: Vec<Role>,
    expected: Option<NodeId>,
    admit: Admit,
}

impl Door {
    fn check(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
        self.judge(certificate, now).map_err(|refusal| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refusal))))
        })
    }

    fn judge(&self, certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Refusal> {
        let peer = self.pool.check(certificate, now.as_secs(), &self.roles)?;
        if let Some(expected) = self.expected.filter(|expected| *expected != peer.node) {
            return Err(Refusal::Unexpected { expected, found: peer.node, name: peer.name });
        }
        self.admit.check(&peer)
    }
}

impl ServerCertVerifier for Door {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for Door {
    /// No hints: each side has one certificate only and always shows it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls12_signature(self, message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        ServerCertVerifier::verify_tls13_signature(self, message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
