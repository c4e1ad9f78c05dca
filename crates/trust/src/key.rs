//! Private keys (Ed25519), randomness and the text form of both keys and certificates.

use crate::error::Error;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use mutirao_wire::NodeId;
use rcgen::{PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use zeroize::Zeroizing;

/// What precedes the 32 bytes of an Ed25519 private key in its PKCS #8 form.
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];
/// What precedes the 32 bytes of an Ed25519 public key in its SubjectPublicKeyInfo form.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0];
/// Label of a private key's text.
const KEY_LABEL: &str = "PRIVATE KEY";

/// A private key. Wiped from memory when dropped; never shown by `Debug`.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Draws a new key.
    pub fn generate() -> Result<PrivateKey, Error> {
        let seed = Zeroizing::new(random()?);
        Ok(PrivateKey::from_seed(&seed))
    }

    pub(crate) fn from_seed(seed: &[u8; 32]) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(seed))
    }

    /// Reads the text that [`PrivateKey::to_pem`] writes. The error says what is wrong with it.
    pub fn from_pem(text: &str) -> Result<PrivateKey, &'static str> {
        let der = Zeroizing::new(parse_pem(text, KEY_LABEL)?);
        let seed = der.strip_prefix(&PKCS8_PREFIX).ok_or("not an Ed25519 private key")?;
        let seed: &[u8; 32] = seed.try_into().map_err(|_| "not an Ed25519 private key")?;
        Ok(PrivateKey::from_seed(seed))
    }

    /// The key as PKCS #8 text, wiped when dropped.
    pub fn to_pem(&self) -> Zeroizing<String> {
        let der = self.to_pkcs8();
        Zeroizing::new(pem::encode(&pem::Pem::new(KEY_LABEL, der.as_slice())))
    }

    /// The identity that the public half of this key makes.
    pub fn id(&self) -> NodeId {
        NodeId(key_hash(&self.public()))
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    pub(crate) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([PKCS8_PREFIX.as_slice(), self.0.as_bytes()].concat())
    }
}

impl core::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "PrivateKey(of {:?})", self.id())
    }
}

/// A private key together with its public half, as rcgen wants to see them.
pub(crate) struct CertificateSigner<'a> {
    key: &'a PrivateKey,
    public: [u8; 32],
}

impl<'a> CertificateSigner<'a> {
    pub(crate) fn new(key: &'a PrivateKey) -> Self {
        CertificateSigner { key, public: key.public() }
    }
}

impl PublicKeyData for CertificateSigner<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public
    }
    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for CertificateSigner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign(message).to_vec())
    }
}

/// The hash that names the holder of a public key: of its SubjectPublicKeyInfo.
pub(crate) fn key_hash(public: &[u8; 32]) -> [u8; 32] {
    *blake3::Hasher::new().update(&SPKI_PREFIX).update(public).finalize().as_bytes()
}

/// The Ed25519 public key in `spki`; none for other kinds and for weak keys, which would fit any signature.
pub(crate) fn public_key(spki: &[u8]) -> Option<VerifyingKey> {
    let bytes: &[u8; 32] = spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
    VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak())
}

/// Bytes from the system's source of randomness.
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|errno| Error::Crypto { action: "draw random bytes", reason: errno.to_string() })?;
    }
    Ok(bytes)
}

/// The content of the one block labelled `label` that `text` must consist of.
pub(crate) fn parse_pem(text: &str, label: &str) -> Result<Vec<u8>, &'static str> {
    let block = pem::parse(text).map_err(|_| "not a text of the form -----BEGIN ...-----")?;
    if block.tag() != label {
        return Err("the text is of another kind");
    }
    Ok(block.into_contents())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_text_and_nothing_else_is_a_key() {
        let key = PrivateKey::generate().unwrap();
        let text = key.to_pem();
        assert_eq!(PrivateKey::from_pem(&text).unwrap().seed(), key.seed());
        for length in 0..text.trim_end().len() {
            assert!(PrivateKey::from_pem(&text[..length]).is_err(), "cut at {length}");
        }
        assert!(PrivateKey::from_pem(&text.replace("PRIVATE", "PUBLIC")).is_err());
        assert!(!format!("{key:?}").contains(&text[28..60]));
    }
}
