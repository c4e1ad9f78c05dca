//! The certificate authority of a pool, and the requests it answers.

use crate::certificate::Certificate;
use crate::error::Error;
use crate::key::{CertificateSigner, PrivateKey, key_hash, parse_pem, public_key, random};
use crate::name::{Name, Role};
use crate::pool::Pool;
use crate::seal;
use mutirao_wire::{NodeId, PoolId};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, DnValue,
    IsCa, Issuer, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SerialNumber,
};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;

const REQUEST_LABEL: &str = "CERTIFICATE REQUEST";
/// The most bytes the text of a join request may have; ours have about 400.
pub const REQUEST_BYTES_MAX: usize = 8192;
/// How the signature of a request begins, its last field: a string of bits (3) of 65 bytes, whose first counts the bits
/// that it leaves unused.
const SIGNATURE_HEAD: [u8; 3] = [3, 65, 0];
/// Bytes of an Ed25519 signature.
const SIGNATURE_BYTES: usize = 64;
const DAY_S: i64 = 24 * 60 * 60;
/// 9999-12-31 23:59:59 UTC, which certificates use for "does not end". A pool lives as long as its authority.
const NO_END_UNIX_S: i64 = 253_402_300_799;

/// When a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from_unix_s: i64,
    /// The last second.
    pub until_unix_s: i64,
}

impl Validity {
    /// From yesterday, so that a clock which is a little late does not refuse it, until `days` from now.
    pub fn days(days: u32) -> Validity {
        let now_unix_s = now_unix_s();
        Validity { from_unix_s: now_unix_s - DAY_S, until_unix_s: now_unix_s + i64::from(days) * DAY_S }
    }

    fn dates(self) -> Result<(OffsetDateTime, OffsetDateTime), Error> {
        let Validity { from_unix_s, until_unix_s } = self;
        let date = |unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok();
        match (date(from_unix_s), date(until_unix_s)) {
            (Some(from), Some(until))
                if from_unix_s >= 0 && from < until && until_unix_s <= NO_END_UNIX_S =>
            {
                Ok((from, until))
            }
            _ => Err(Error::Validity { from_unix_s, until_unix_s }),
        }
    }
}

pub(crate) fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The certificate authority of a pool. Only commands that certify somebody hold one; a running node never
/// does.
#[derive(Debug)]
pub struct Authority {
    key: PrivateKey,
    pool: Pool,
}

impl Authority {
    /// Makes a new authority, and with it a new pool.
    pub fn create(pool_name: &Name) -> Result<Authority, Error> {
        let key = PrivateKey::generate()?;
        let certificate = authority_params(&key, pool_name)?
            .self_signed(&CertificateSigner::new(&key))
            .map_err(|e| issuing(&e))?;
        let pool = Pool::from_certificate(certificate.der()).map_err(|e| Error::Crypto {
            action: "read the new authority's certificate",
            reason: e.to_string(),
        })?;
        Ok(Authority { key, pool })
    }

    /// The public side of the pool.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// The authority's key, encrypted under `passphrase`: the content of `authority.key`.
    pub fn seal(&self, passphrase: &str) -> Result<String, Error> {
        seal::seal(&self.key, self.pool.id(), passphrase)
    }

    /// Opens what [`Authority::seal`] made for `pool`. `path`, where `sealed` was read, is for the errors.
    pub fn unseal(sealed: &str, pool: &Pool, passphrase: &str, path: &Path) -> Result<Authority, Error> {
        let key = seal::unseal(sealed, pool.id(), passphrase, path)?;
        if PoolId(key_hash(&key.public())) != pool.id() {
            return Err(Error::Damaged { path: path.into(), reason: "it holds another key".into() });
        }
        Ok(Authority { key, pool: pool.clone() })
    }

    /// Certifies the key in `request` for `name` and `role`, whatever the request itself asked for.
    pub fn issue(
        &self,
        request: &JoinRequest,
        role: Role,
        name: &Name,
        validity: Validity,
    ) -> Result<Certificate, Error> {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = validity.dates()?;
        params.distinguished_name = subject(name, role);
        params.serial_number = Some(serial()?);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let authority = authority_params(&self.key, self.pool.name())?;
        let issuer = Issuer::from_params(&authority, CertificateSigner::new(&self.key));
        let certificate = params.signed_by(&request.parsed.public_key, &issuer).map_err(|e| issuing(&e))?;
        Ok(Certificate::new(certificate.into()))
    }
}

fn authority_params(key: &PrivateKey, pool_name: &Name) -> Result<CertificateParams, Error> {
    let mut params = CertificateParams::default();
    let validity = Validity { from_unix_s: now_unix_s() - DAY_S, until_unix_s: NO_END_UNIX_S };
    (params.not_before, params.not_after) = validity.dates()?;
    // The id is in the name, so that a member of another pool can be told which pool it meets.
    let id = PoolId(key_hash(&key.public()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, pool_name.as_str());
    params.distinguished_name.push(DnType::CommonName, id.to_string());
    params.serial_number = Some(serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(params)
}

fn subject(name: &Name, role: Role) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationalUnitName, role.as_str());
    subject.push(DnType::CommonName, name.as_str());
    subject
}

fn serial() -> Result<SerialNumber, Error> {
    let mut bytes = random::<16>()?;
    // Positive, and never shortened by leading zeros.
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn issuing(error: &rcgen::Error) -> Error {
    Error::Crypto { action: "make a certificate", reason: error.to_string() }
}

/// What a joining machine or user sends to the pool's authority: the public key, signed with the private one,
/// and the name and role wished for.
#[derive(Debug)]
pub struct JoinRequest {
    name: Name,
    role: Role,
    node: NodeId,
    text: String,
    parsed: CertificateSigningRequestParams,
}

impl JoinRequest {
    /// Makes a new key and a request for it. The key stays where it was made.
    pub fn create(name: &Name, role: Role) -> Result<(PrivateKey, JoinRequest), Error> {
        let key = PrivateKey::generate()?;
        let request = JoinRequest::for_key(&key, name, role)?;
        Ok((key, request))
    }

    /// Makes a request for a key that exists, as for a renewal.
    pub fn for_key(key: &PrivateKey, name: &Name, role: Role) -> Result<JoinRequest, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(name, role);
        let request = params.serialize_request(&CertificateSigner::new(key)).map_err(|e| issuing(&e))?;
        JoinRequest::parse(&request.pem().map_err(|e| issuing(&e))?)
    }

    /// Reads a request and checks that who made it holds the private key. That it comes from whom it names is
    /// for the caller to find out.
    pub fn parse(text: &str) -> Result<JoinRequest, Error> {
        let bad = |reason: &str| Error::Request(reason.into());
        if text.len() > REQUEST_BYTES_MAX {
            return Err(bad("it is too long"));
        }
        let der = parse_pem(text, REQUEST_LABEL).map_err(bad)?;
        // Bits that a signature does not use would be let go of where they are zero: one request, two ways to write it.
        let signature = der.len().checked_sub(SIGNATURE_HEAD.len() + SIGNATURE_BYTES);
        if !signature.is_some_and(|at| der[at..].starts_with(&SIGNATURE_HEAD)) {
            return Err(bad("it does not end with an Ed25519 signature"));
        }
        let parsed =
            CertificateSigningRequestParams::from_der(&der.into()).map_err(|e| bad(&e.to_string()))?;
        if PublicKeyData::algorithm(&parsed.public_key) != &PKCS_ED25519 {
            return Err(bad("its key is not an Ed25519 key"));
        }
        let key =
            public_key(&parsed.public_key.subject_public_key_info()).ok_or_else(|| bad("its key is weak"))?;
        let wish = |kind| match parsed.params.distinguished_name.get(&kind) {
            Some(DnValue::Utf8String(text)) => Some(text.as_str()),
            _ => None,
        };
        let name = wish(DnType::CommonName).ok_or_else(|| bad("it carries no name"))?;
        let role = wish(DnType::OrganizationalUnitName).and_then(Role::from_word);
        Ok(JoinRequest {
            name: Name::new(name)?,
            role: role.ok_or_else(|| bad("it carries no role"))?,
            node: NodeId(key_hash(key.as_bytes())),
            text: text.into(),
            parsed,
        })
    }

    /// The name wished for.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The role wished for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The identity that the key makes: to be compared by voice or eye.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// The request as text, to be sent.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
