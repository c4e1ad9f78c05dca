//! The authority's key at rest: encrypted under a passphrase, in a small text file.
//!
//! passphrase → Argon2id (costs and salt are in the file) → ChaCha20-Poly1305, the pool's id being
//! authenticated with it. A checksum tells a damaged file from a wrong passphrase.

use crate::error::Error;
use crate::key::{PrivateKey, random};
use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use mutirao_wire::PoolId;
use serde::{Deserialize, Serialize};
use std::path::Path;
use zeroize::Zeroizing;

/// The shortest passphrase that is accepted for a new key.
pub const PASSPHRASE_CHARS_MIN: usize = 8;

const VERSION: u32 = 1;
/// Costs of a new file: the second recommendation of RFC 9106, with one lane; a few tenths of a second.
const MEMORY_KIB: u32 = 64 * 1024;
const PASSES: u32 = 3;
/// Highest costs accepted from a file, so that a forged one cannot exhaust the machine.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SealedKey {
    version: u32,
    pool: String,
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
    cipher: String,
    nonce: String,
    sealed: String,
    checksum: String,
}

const KDF: &str = "argon2id";
const CIPHER: &str = "chacha20poly1305";

/// Encrypts the key of `pool`'s authority under `passphrase`.
pub(crate) fn seal(key: &PrivateKey, pool: PoolId, passphrase: &str) -> Result<String, Error> {
    if passphrase.chars().count() < PASSPHRASE_CHARS_MIN {
        return Err(Error::WeakPassphrase);
    }
    let (salt, nonce): ([u8; 16], [u8; 12]) = (random()?, random()?);
    let failed = |reason: String| Error::Crypto { action: "encrypt the authority's key", reason };
    let params = Params::new(MEMORY_KIB, PASSES, 1, Some(32)).map_err(|e| failed(e.to_string()))?;
    let cipher = cipher(passphrase, &salt, params).map_err(failed)?;
    let payload = Payload { msg: key.seed(), aad: &associated(pool) };
    let sealed = cipher.encrypt(&Nonce::from(nonce), payload).map_err(|e| failed(e.to_string()))?;
    let mut file = SealedKey {
        version: VERSION,
        pool: pool.to_string(),
        kdf: KDF.into(),
        memory_kib: MEMORY_KIB,
        passes: PASSES,
        lanes: 1,
        salt: to_hex(&salt),
        cipher: CIPHER.into(),
        nonce: to_hex(&nonce),
        sealed: to_hex(&sealed),
        checksum: String::new(),
    };
    file.checksum = checksum(&file);
    let text = toml::to_string(&file).map_err(|e| failed(e.to_string()))?;
    Ok(format!(
        "# The key of a pool's authority, encrypted. Keep a copy, and the passphrase elsewhere.\n{text}"
    ))
}

/// Decrypts what [`seal`] made; `path` is where `text` was read, for the errors.
pub(crate) fn unseal(text: &str, pool: PoolId, passphrase: &str, path: &Path) -> Result<PrivateKey, Error> {
    let damaged = |reason: &str| Error::Damaged { path: path.into(), reason: reason.into() };
    let file: SealedKey = toml::from_str(text).map_err(|e| damaged(e.message()))?;
    if file.version != VERSION || file.kdf != KDF || file.cipher != CIPHER {
        return Err(damaged(&format!(
            "version {} with {:?} and {:?} is unknown to this program",
            file.version, file.kdf, file.cipher
        )));
    }
    if file.checksum != checksum(&file) {
        return Err(damaged("its checksum is wrong"));
    }
    if file.pool != pool.to_string() {
        return Err(damaged("it is the key of another pool"));
    }
    if file.memory_kib > MEMORY_KIB_MAX || file.passes > PASSES_MAX || file.lanes > LANES_MAX {
        return Err(damaged("its key derivation would take too much memory or time"));
    }
    let salt = from_hex::<16>(&file.salt).ok_or_else(|| damaged("bad salt"))?;
    let nonce = from_hex::<12>(&file.nonce).ok_or_else(|| damaged("bad nonce"))?;
    let sealed = from_hex::<48>(&file.sealed).ok_or_else(|| damaged("bad encrypted key"))?;
    let params = Params::new(file.memory_kib, file.passes, file.lanes, Some(32))
        .map_err(|_| damaged("bad costs of the key derivation"))?;
    let cipher = cipher(passphrase, &salt, params)
        .map_err(|reason| Error::Crypto { action: "decrypt the authority's key", reason })?;
    let payload = Payload { msg: &sealed, aad: &associated(pool) };
    let seed = cipher
        .decrypt(&Nonce::from(nonce), payload)
        .map(Zeroizing::new)
        .map_err(|_| Error::WrongPassphrase { path: path.into() })?;
    let seed: &[u8; 32] = seed.as_slice().try_into().map_err(|_| damaged("bad length of the key"))?;
    Ok(PrivateKey::from_seed(seed))
}

/// A new passphrase of 120 random bits, as six groups of four letters and digits that are not mistaken for
/// each other.
pub fn random_passphrase() -> Result<Zeroizing<String>, Error> {
    const LETTERS: &[u8; 32] = b"abcdefghjkmnpqrstvwxyz0123456789";
    let drawn = Zeroizing::new(random::<24>()?);
    let mut text = Zeroizing::new(String::with_capacity(29));
    for (i, byte) in drawn.iter().enumerate() {
        if i > 0 && i % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(LETTERS[usize::from(byte % 32)]));
    }
    Ok(text)
}

fn cipher(passphrase: &str, salt: &[u8], params: Params) -> Result<ChaCha20Poly1305, String> {
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.as_bytes(), salt, key.as_mut_slice())
        .map_err(|e| e.to_string())?;
    ChaCha20Poly1305::new_from_slice(key.as_slice()).map_err(|e| e.to_string())
}

fn associated(pool: PoolId) -> Vec<u8> {
    [b"mutirao authority key 1\0".as_slice(), &pool.0].concat()
}

fn checksum(file: &SealedKey) -> String {
    let text = format!(
        "{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
        file.version,
        file.pool,
        file.kdf,
        file.memory_kib,
        file.passes,
        file.lanes,
        file.salt,
        file.cipher,
        file.nonce,
        file.sealed
    );
    to_hex(&blake3::hash(text.as_bytes()).as_bytes()[..8])
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
