//! The charter as nodes keep it and pass it on: signed by an administrator.

use super::Charter;
use super::text::CHARTER_TEXT_BYTES_MAX;
use crate::certificate::Peer;
use crate::error::Refusal;
use crate::identity::Identity;
use crate::name::Role;
use crate::pool::Pool;
use crate::token::Signed;
use mutirao_wire::charter::{CHARTER_BYTES_MAX, CharterVersion};
use serde::{Deserialize, Serialize};

const CONTEXT: &str = "mutirao charter 1";
/// Besides the text a body has three numbers and a hash.
const BODY_BYTES_MAX: usize = CHARTER_TEXT_BYTES_MAX + 64;

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    number: u64,
    previous: [u8; 32],
    signed_unix_ms: u64,
    text: String,
}

/// A charter with its administrator's signature. Nothing in it has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCharter(Signed);

/// A version of the charter that was found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CharterEdition {
    /// Which it is.
    pub version: CharterVersion,
    /// The hash of the version it was made from; zeros for the first.
    pub previous: [u8; 32],
    /// The administrator who signed it.
    pub by: Peer,
    /// When, milliseconds since 1970 by that administrator's clock.
    pub signed_unix_ms: u64,
    /// The text, as it was written.
    pub text: String,
    /// What it says, as far as this version knows its settings.
    pub charter: Charter,
}

impl SignedCharter {
    /// Signs `text` as the version after `previous` in the name of `admin`.
    ///
    /// Refused if no node would take it: signed by nobody with that role, a text that cannot be read, or too
    /// long with this administrator's certificate.
    pub fn sign(
        admin: &Identity,
        previous: CharterVersion,
        signed_unix_ms: u64,
        text: &str,
    ) -> Result<SignedCharter, Refusal> {
        let me = admin.me();
        if me.role != Role::Admin {
            return Err(Refusal::WrongRole { name: me.name.clone(), role: me.role, wanted: "admin".into() });
        }
        Charter::parse_known(text).map_err(|error| Refusal::Charter(error.to_string()))?;
        let number =
            previous.number.checked_add(1).ok_or(Refusal::Malformed("there is no number after it"))?;
        let body = Body { number, previous: previous.hash, signed_unix_ms, text: text.into() };
        let body = postcard::to_stdvec(&body).map_err(|_| Refusal::Malformed("it cannot be encoded"))?;
        let signed = SignedCharter(Signed::sign(admin, CONTEXT, body));
        if signed.to_bytes().len() > CHARTER_BYTES_MAX {
            return Err(Refusal::Malformed("it is too long"));
        }
        Ok(signed)
    }

    /// Checks that an administrator of `pool` signed exactly this, and reads it.
    ///
    /// The answer does not depend on the time or on any other version, so that all nodes come to the same: the
    /// certificate must have been valid when it was signed, by the signer's word.
    pub fn verify(&self, pool: &Pool) -> Result<CharterEdition, Refusal> {
        let body: Body = match postcard::take_from_bytes(self.0.body()) {
            Ok((body, [])) => body,
            _ => return Err(Refusal::Malformed("its charter cannot be decoded")),
        };
        let by = self.0.verify(pool, CONTEXT, body.signed_unix_ms / 1000, &[Role::Admin])?;
        if body.number == 0 {
            return Err(Refusal::Malformed("the first version of a charter is 1"));
        }
        let charter =
            Charter::parse_known(&body.text).map_err(|error| Refusal::Charter(error.to_string()))?;
        let Body { number, previous, signed_unix_ms, text } = body;
        let version = CharterVersion { number, hash: *blake3::hash(&self.to_bytes()).as_bytes() };
        Ok(CharterEdition { version, previous, by, signed_unix_ms, text, charter })
    }

    /// The form that travels and is kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Reads what [`SignedCharter::to_bytes`] made; nothing is verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedCharter, Refusal> {
        if bytes.len() > CHARTER_BYTES_MAX {
            return Err(Refusal::Malformed("it is too long"));
        }
        Signed::from_bytes(bytes, BODY_BYTES_MAX).map(SignedCharter)
    }
}
