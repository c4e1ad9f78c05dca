//! A pool as all its members know it: its authority's certificate, and who is let in.

use crate::certificate::{Facts, LABEL, Peer, only, parse, to_pem};
use crate::error::Refusal;
use crate::key::{key_hash, parse_pem, public_key};
use crate::name::{Name, Role};
use ed25519_dalek::Signature;
use mutirao_wire::PoolId;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

/// The public side of a pool: what is needed to recognise its members. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: PoolId,
    name: Name,
    certificate: CertificateDer<'static>,
    roots: RootCertStore,
}

impl Pool {
    /// Reads a pool from its authority's certificate. Whether that is the pool meant is for the caller to
    /// check, by its [`id`](Pool::id).
    pub fn from_certificate(der: &[u8]) -> Result<Pool, Refusal> {
        let parsed = parse(der)?;
        let key = public_key(parsed.public_key().raw)
            .ok_or(Refusal::Unreadable("the authority's key is not of the kind used here"))?;
        let id = PoolId(key_hash(key.as_bytes()));
        if only(parsed.subject().iter_common_name()) != Some(id.to_string().as_str()) || !parsed.is_ca() {
            return Err(Refusal::Unreadable("it is not the certificate of a pool's authority"));
        }
        let name = only(parsed.subject().iter_organization()).and_then(|text| Name::new(text).ok());
        let name = name.ok_or(Refusal::Unreadable("it does not name the pool"))?;
        let signed = Signature::from_slice(&parsed.signature_value.data)
            .is_ok_and(|signature| key.verify_strict(parsed.tbs_certificate.as_ref(), &signature).is_ok());
        if !signed {
            return Err(Refusal::Unreadable("it is not signed with the authority's own key"));
        }
        let certificate = CertificateDer::from(der.to_vec());
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate.clone())
            .map_err(|_| Refusal::Unreadable("it cannot be used as a trust anchor"))?;
        Ok(Pool(Arc::new(Inner { id, name, certificate, roots })))
    }

    /// Reads the text that [`Pool::to_pem`] writes.
    pub fn from_pem(text: &str) -> Result<Pool, Refusal> {
        Pool::from_certificate(&parse_pem(text, LABEL).map_err(Refusal::Unreadable)?)
    }

    /// The pool's identity: the hash of its authority's public key.
    pub fn id(&self) -> PoolId {
        self.0.id
    }

    /// The pool's name, for people. Two pools may have the same.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// The authority's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.certificate
    }

    /// The authority's certificate as text.
    pub fn to_pem(&self) -> String {
        to_pem(&self.0.certificate)
    }

    /// Who presents `certificate` (DER), if this pool issued it, it is valid at `now_unix_s` and its role is
    /// one of `roles`. The deny list is not asked: see [`Admit`].
    pub fn check(&self, certificate: &[u8], now_unix_s: u64, roles: &[Role]) -> Result<Peer, Refusal> {
        self.verify(certificate, now_unix_s, roles).map(|facts| facts.peer)
    }

    pub(crate) fn verify(&self, der: &[u8], now_unix_s: u64, roles: &[Role]) -> Result<Facts, Refusal> {
        let facts = Facts::read(der)?;
        match &facts.issuer {
            Ok(theirs) if *theirs == self.id() => (),
            Ok(theirs) => return Err(Refusal::OtherPool { theirs: *theirs, ours: self.id() }),
            Err(issuer) => return Err(Refusal::NoPool { issuer: issuer.clone() }),
        }
        self.verify_chain(der, now_unix_s).map_err(|error| self.refusal(&facts, &error, now_unix_s))?;
        if !roles.contains(&facts.peer.role) {
            let wanted = roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(" or ");
            return Err(Refusal::WrongRole { name: facts.peer.name, role: facts.peer.role, wanted });
        }
        Ok(facts)
    }

    fn verify_chain(&self, der: &[u8], now_unix_s: u64) -> Result<(), rustls::Error> {
        let der = CertificateDer::from(der);
        let parsed = ParsedCertificate::try_from(&der)?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now_unix_s));
        let algorithms = crate::link::provider().signature_verification_algorithms;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.0.roots, &[], now, algorithms.all)
    }

    fn refusal(&self, facts: &Facts, error: &rustls::Error, now_unix_s: u64) -> Refusal {
        use CertificateError::{
            BadSignature, Expired, ExpiredContext, NotValidYet, NotValidYetContext, UnknownIssuer,
        };
        let now_unix_s = i64::try_from(now_unix_s).unwrap_or(i64::MAX);
        let name = facts.peer.name.clone();
        match error {
            rustls::Error::InvalidCertificate(reason) => match reason {
                Expired | ExpiredContext { .. } => {
                    Refusal::Expired { name, until_unix_s: facts.until_unix_s, now_unix_s }
                }
                NotValidYet | NotValidYetContext { .. } => {
                    Refusal::NotYetValid { name, from_unix_s: facts.from_unix_s, now_unix_s }
                }
                UnknownIssuer | BadSignature => Refusal::Forged { ours: self.id() },
                _ => Refusal::Unreadable("it breaks the rules for certificates"),
            },
            _ => Refusal::Unreadable("it breaks the rules for certificates"),
        }
    }
}

/// Decides about members whose certificate is in order: the place of a deny list.
///
/// It is asked during handshakes and when tokens and orders are verified, so it should be quick.
#[derive(Clone)]
pub struct Admit(Arc<Decide>);

type Decide = dyn Fn(&Peer) -> Result<(), String> + Send + Sync;

impl Admit {
    /// Lets every member in.
    pub fn all() -> Admit {
        Admit::when(|_| Ok(()))
    }

    /// Lets in those for whom `decide` is `Ok`; the text of its error is the reason told.
    pub fn when(decide: impl Fn(&Peer) -> Result<(), String> + Send + Sync + 'static) -> Admit {
        Admit(Arc::new(decide))
    }

    /// Asks about one member.
    pub fn check(&self, peer: &Peer) -> Result<(), Refusal> {
        (self.0)(peer).map_err(|reason| Refusal::Denied { name: peer.name.clone(), node: peer.node, reason })
    }
}

impl core::fmt::Debug for Admit {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Admit")
    }
}
