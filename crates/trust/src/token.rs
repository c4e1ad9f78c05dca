//! What members sign: tokens for their applications, and orders of administrators.
//!
//! Both are a body with a signature and the signer's certificate. The signature covers, besides the body, what
//! kind of message it is, the pool and the certificate, so that none can be passed off as another.

use crate::certificate::{CERTIFICATE_BYTES_MAX, Peer};
use crate::error::Refusal;
use crate::identity::Identity;
use crate::name::{Name, Role};
use crate::pool::{Admit, Pool};
use ed25519_dalek::Signature;
use mutirao_wire::{AppId, NodeId, PoolId};
use serde::{Deserialize, Serialize};

pub use mutirao_wire::limits::HOMES_MAX;
/// The most bytes of an order's body.
pub const ORDER_BYTES_MAX: usize = 64 * 1024;
const TOKEN_BYTES_MAX: usize = 1024;
const TOKEN_CONTEXT: &str = "mutirao user token 1";
const ORDER_CONTEXT: &str = "mutirao order 1";

/// What a user lets an application do in the user's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// The user; must be the name in the signer's certificate.
    pub user: Name,
    /// The application it is for.
    pub application: AppId,
    /// The nodes through which the application may talk: 1 to 3.
    pub homes: Vec<NodeId>,
    /// What the application may act as: `user`, or `admin` too where the signer is one.
    pub roles: Vec<Role>,
    /// The most slots it may hold at a time; none: no limit of the user's.
    pub max_slots: Option<u32>,
    /// When it ends, milliseconds since 1970.
    pub expires_unix_ms: u64,
}

/// A [`Token`] with its user's signature, as it travels in requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct SignedToken(Signed);

impl TryFrom<Vec<u8>> for SignedToken {
    type Error = Refusal;
    fn try_from(bytes: Vec<u8>) -> Result<SignedToken, Refusal> {
        SignedToken::from_bytes(&bytes)
    }
}

impl From<SignedToken> for Vec<u8> {
    fn from(signed: SignedToken) -> Vec<u8> {
        signed.to_bytes()
    }
}

/// An administration command with its sender's signature. Protection against being sent twice (a version, a
/// time, a target) belongs into the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct SignedOrder(Signed);

impl TryFrom<Vec<u8>> for SignedOrder {
    type Error = Refusal;
    fn try_from(bytes: Vec<u8>) -> Result<SignedOrder, Refusal> {
        SignedOrder::from_bytes(&bytes)
    }
}

impl From<SignedOrder> for Vec<u8> {
    fn from(signed: SignedOrder) -> Vec<u8> {
        signed.to_bytes()
    }
}

/// A token that was found in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedUser {
    /// The hash of the user's key.
    pub id: NodeId,
    /// The user's name.
    pub name: Name,
    /// What the user is certified for: user or admin.
    pub role: Role,
    /// What the user signed.
    pub token: Token,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    body: Vec<u8>,
    signature: [u8; 64],
    certificate: Vec<u8>,
}

impl SignedToken {
    /// Signs `token` in the name of `user`.
    ///
    /// Refused if the token could not be verified anywhere: a wrong user or role, no or too many homes.
    pub fn sign(user: &Identity, token: &Token) -> Result<SignedToken, Refusal> {
        let me = user.me();
        if !matches!(me.role, Role::User | Role::Admin) {
            let wanted = "user or admin".into();
            return Err(Refusal::WrongRole { name: me.name.clone(), role: me.role, wanted });
        }
        check_claims(me, token)?;
        let body =
            postcard::to_stdvec(token).map_err(|_| Refusal::Malformed("the token cannot be encoded"))?;
        Ok(SignedToken(Signed::sign(user, TOKEN_CONTEXT, body)))
    }

    /// Checks everything about a token that `home` presents at `now_unix_ms`: that a user or administrator of
    /// `pool` whom `admit` lets in signed exactly this, that it has not expired and is meant for that home.
    pub fn verify(
        &self,
        pool: &Pool,
        now_unix_ms: u64,
        home: NodeId,
        admit: &Admit,
    ) -> Result<VerifiedUser, Refusal> {
        let signer = self.0.verify(pool, TOKEN_CONTEXT, now_unix_ms / 1000, &[Role::User, Role::Admin])?;
        admit.check(&signer)?;
        let token: Token = decode(&self.0.body, TOKEN_BYTES_MAX)?;
        check_claims(&signer, &token)?;
        if now_unix_ms >= token.expires_unix_ms {
            let expires_unix_ms = token.expires_unix_ms;
            return Err(Refusal::TokenExpired { name: signer.name, expires_unix_ms, now_unix_ms });
        }
        if !token.homes.contains(&home) {
            return Err(Refusal::TokenHome { name: signer.name, home });
        }
        Ok(VerifiedUser { id: signer.node, name: signer.name, role: signer.role, token })
    }

    /// The form that travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Reads what [`SignedToken::to_bytes`] made; nothing is verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedToken, Refusal> {
        Signed::from_bytes(bytes, TOKEN_BYTES_MAX).map(SignedToken)
    }
}

impl SignedOrder {
    /// Signs `body` in the name of `sender`. Refused if it is longer than [`ORDER_BYTES_MAX`].
    pub fn sign(sender: &Identity, body: Vec<u8>) -> Result<SignedOrder, Refusal> {
        if body.len() > ORDER_BYTES_MAX {
            return Err(Refusal::Malformed("the order is too long"));
        }
        Ok(SignedOrder(Signed::sign(sender, ORDER_CONTEXT, body)))
    }

    /// Checks that a member of `pool` with one of `roles`, whom `admit` lets in, signed exactly this; returns
    /// who, and the body.
    pub fn verify(
        &self,
        pool: &Pool,
        now_unix_ms: u64,
        roles: &[Role],
        admit: &Admit,
    ) -> Result<(Peer, &[u8]), Refusal> {
        let signer = self.0.verify(pool, ORDER_CONTEXT, now_unix_ms / 1000, roles)?;
        admit.check(&signer)?;
        Ok((signer, &self.0.body))
    }

    /// The form that travels.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes()
    }

    /// Reads what [`SignedOrder::to_bytes`] made; nothing is verified.
    pub fn from_bytes(bytes: &[u8]) -> Result<SignedOrder, Refusal> {
        Signed::from_bytes(bytes, ORDER_BYTES_MAX).map(SignedOrder)
    }
}

impl Signed {
    pub(crate) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn sign(signer: &Identity, context: &str, body: Vec<u8>) -> Signed {
        let certificate = signer.certificate().der().to_vec();
        let signature = signer.key().sign(&to_sign(context, signer.pool().id(), &certificate, &body));
        Signed { body, signature, certificate }
    }

    pub(crate) fn verify(
        &self,
        pool: &Pool,
        context: &str,
        now_unix_s: u64,
        roles: &[Role],
    ) -> Result<Peer, Refusal> {
        let facts = pool.verify(&self.certificate, now_unix_s, roles)?;
        let message = to_sign(context, pool.id(), &self.certificate, &self.body);
        match facts.key.verify_strict(&message, &Signature::from_bytes(&self.signature)) {
            Ok(()) => Ok(facts.peer),
            Err(_) => Err(Refusal::Signature { name: facts.peer.name }),
        }
    }

    /// signature, length of the certificate (16 bits, little endian), certificate, body
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        // Both ways to make a `Signed` keep the certificate below CERTIFICATE_BYTES_MAX.
        let length = (self.certificate.len() as u16).to_le_bytes();
        [self.signature.as_slice(), &length, &self.certificate, &self.body].concat()
    }

    pub(crate) fn from_bytes(bytes: &[u8], body_max: usize) -> Result<Signed, Refusal> {
        let short = Refusal::Malformed("it is cut short");
        let (signature, rest) = bytes.split_first_chunk::<64>().ok_or(short.clone())?;
        let (length, rest) = rest.split_first_chunk::<2>().ok_or(short.clone())?;
        let (certificate, body) = rest.split_at_checked(u16::from_le_bytes(*length).into()).ok_or(short)?;
        if certificate.len() > CERTIFICATE_BYTES_MAX || body.len() > body_max {
            return Err(Refusal::Malformed("it is too long"));
        }
        Ok(Signed { body: body.into(), signature: *signature, certificate: certificate.into() })
    }
}

const _: () = assert!(CERTIFICATE_BYTES_MAX <= u16::MAX as usize);

fn to_sign(context: &str, pool: PoolId, certificate: &[u8], body: &[u8]) -> Vec<u8> {
    // All parts before the body have a fixed length or end with the zero: no two messages look alike.
    [context.as_bytes(), &[0], &pool.0, blake3::hash(certificate).as_bytes(), body].concat()
}

/// Decodes `bytes`, all of them and nothing more.
fn decode(bytes: &[u8], max: usize) -> Result<Token, Refusal> {
    match postcard::take_from_bytes(bytes) {
        Ok((token, [])) if bytes.len() <= max => Ok(token),
        _ => Err(Refusal::Malformed("its token cannot be decoded")),
    }
}

fn check_claims(signer: &Peer, token: &Token) -> Result<(), Refusal> {
    let claim = |claim: String| Err(Refusal::TokenClaim { name: signer.name.clone(), claim });
    if token.user != signer.name {
        return claim(format!("to be of {}", token.user));
    }
    if token.homes.is_empty() || token.homes.len() > HOMES_MAX {
        return claim(format!("{} homes (1 to {HOMES_MAX} are possible)", token.homes.len()));
    }
    if token.roles.is_empty() || token.roles.len() > 2 {
        return claim(format!("{} roles", token.roles.len()));
    }
    match token.roles.iter().find(|&&role| role != Role::User && role != signer.role) {
        Some(role) => claim(format!("the role {role}")),
        None => Ok(()),
    }
}
