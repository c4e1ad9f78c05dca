//! Certificates of members, and what is read out of them.

use crate::error::Refusal;
use crate::key::{key_hash, parse_pem, public_key};
use crate::name::{Name, Role};
use ed25519_dalek::VerifyingKey;
use mutirao_wire::{NodeId, PoolId};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

pub(crate) const LABEL: &str = "CERTIFICATE";
/// The most bytes a certificate may have; ours have about 400.
pub const CERTIFICATE_BYTES_MAX: usize = 4096;

/// A member of a pool, as its verified certificate describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The hash of its public key; for users and administrators too.
    pub node: NodeId,
    /// Its name.
    pub name: Name,
    /// What it is certified for.
    pub role: Role,
}

/// A certificate that the authority issued to a node, a user or an administrator.
///
/// Having one says nothing about its validity: [`Pool::check`](crate::Pool::check) does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate(CertificateDer<'static>);

impl Certificate {
    pub(crate) fn new(der: CertificateDer<'static>) -> Certificate {
        Certificate(der)
    }

    /// Reads the text that [`Certificate::to_pem`] writes.
    pub fn from_pem(text: &str) -> Result<Certificate, Refusal> {
        let der = parse_pem(text, LABEL).map_err(Refusal::Unreadable)?;
        Facts::read(&der)?;
        Ok(Certificate(der.into()))
    }

    /// The certificate as text.
    pub fn to_pem(&self) -> String {
        to_pem(&self.0)
    }

    /// The certificate in its binary form (DER).
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0
    }
}

pub(crate) fn to_pem(der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(LABEL, der))
}

/// What a certificate says, nothing of it verified.
pub(crate) struct Facts {
    pub(crate) peer: Peer,
    pub(crate) key: VerifyingKey,
    /// The pool of its issuer, or the issuer's name if that is no pool.
    pub(crate) issuer: Result<PoolId, String>,
    pub(crate) from_unix_s: i64,
    pub(crate) until_unix_s: i64,
}

impl Facts {
    pub(crate) fn read(der: &[u8]) -> Result<Facts, Refusal> {
        let certificate = parse(der)?;
        let issuer = issuer(&certificate);
        let unreadable = |what| match &issuer {
            // A certificate of some other software: say whose, not which field we miss in it.
            Err(issuer) => Refusal::NoPool { issuer: issuer.clone() },
            Ok(_) => Refusal::Unreadable(what),
        };
        let subject = certificate.subject();
        let name = only(subject.iter_common_name()).and_then(|text| Name::new(text).ok());
        let role = only(subject.iter_organizational_unit()).and_then(Role::from_word);
        let key = public_key(certificate.public_key().raw);
        let key = key.ok_or_else(|| unreadable("its public key is not of the kind used here"))?;
        Ok(Facts {
            peer: Peer {
                node: NodeId(key_hash(key.as_bytes())),
                name: name.ok_or_else(|| unreadable("it carries no name"))?,
                role: role.ok_or_else(|| unreadable("it carries no role"))?,
            },
            key,
            from_unix_s: certificate.validity().not_before.timestamp(),
            until_unix_s: certificate.validity().not_after.timestamp(),
            issuer,
        })
    }
}

/// Parses `der`, all of it and nothing more.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Refusal> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(Refusal::Unreadable("it is too long"));
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(Refusal::Unreadable("something follows it")),
        Err(_) => Err(Refusal::Unreadable("it cannot be parsed")),
    }
}

fn issuer(certificate: &X509Certificate<'_>) -> Result<PoolId, String> {
    let name = certificate.issuer();
    match only(name.iter_common_name()).and_then(|text| text.parse().ok()) {
        Some(pool) => Ok(pool),
        None => Err(printable(name)),
    }
}

/// The text of the only attribute of its kind.
pub(crate) fn only<'a>(mut values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<&'a str> {
    let first = values.next()?;
    if values.next().is_some() { None } else { first.as_str().ok() }
}

fn printable(name: &X509Name<'_>) -> String {
    name.to_string().chars().filter(|c| !c.is_control()).take(80).collect()
}
