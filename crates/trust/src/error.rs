//! What can go wrong: with files and keys ([`Error`]), and with what others present ([`Refusal`]).

use crate::name::{BadName, Name, Role};
use mutirao_wire::{NodeId, PoolId};
use std::io;
use std::path::PathBuf;
use time::OffsetDateTime;

/// An operation on keys, certificates or their files failed. Nothing that was there before is changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text is not a name.
    #[error(transparent)]
    Name(#[from] BadName),
    /// The system refused to do something with a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged or not what it should be: {reason}; restore it from a copy", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A private key or the state directory is open to other users of the machine.
    #[error("{} is open to others (mode {mode:03o}); if nobody else had access until now, mend it with \
             `chmod {wanted:03o} {}`, otherwise make a new identity", path.display(), path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// The passphrase does not open the authority's key.
    #[error("wrong passphrase for the authority's key in {}", path.display())]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase is too easily guessed.
    #[error("the passphrase is too short: use at least {} characters", crate::seal::PASSPHRASE_CHARS_MIN)]
    WeakPassphrase,
    /// Something is there already and would be lost.
    #[error("{} is already there; move it away first if it is no longer needed", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// There is no pool in the directory.
    #[error("{} holds no pool: create one with `mutirao init`, or join one", path.display())]
    NoPool {
        /// The directory.
        path: PathBuf,
    },
    /// This machine does not hold the authority of its pool.
    #[error("{} is not here: only the machine that holds the pool's authority can certify identities", path.display())]
    NoAuthority {
        /// The file that would hold the authority's key.
        path: PathBuf,
    },
    /// There is no such identity in the directory.
    #[error("no {role} named {name} here: {} is missing", path.display())]
    NoIdentity {
        /// Node, or user (also for administrators).
        role: Role,
        /// The name asked for.
        name: Name,
        /// The file looked for.
        path: PathBuf,
    },
    /// A file's certificate is not to be used.
    #[error("{}: {refusal}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        refusal: Refusal,
    },
    /// A join request cannot be certified.
    #[error("bad join request: {0}; let the joining machine make a new one")]
    Request(String),
    /// The asked-for validity cannot be expressed or is empty.
    #[error("a certificate cannot be valid from {from_unix_s} to {until_unix_s} (seconds since 1970)")]
    Validity {
        /// Its start.
        from_unix_s: i64,
        /// Its end.
        until_unix_s: i64,
    },
    /// A library for cryptography failed on input that was checked, or the system has no randomness.
    #[error("cannot {action}: {reason}")]
    Crypto {
        /// What was tried.
        action: &'static str,
        /// What was said.
        reason: String,
    },
}

/// Why a certificate, a token, an order or a link was turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a certificate at all, or one with parts that cannot be read.
    #[error("not a readable certificate: {0}")]
    Unreadable(&'static str),
    /// The other side showed no certificate.
    #[error("the other side showed no certificate: it is not part of a pool")]
    NoCertificate,
    /// The certificate was not made by the authority of any pool.
    #[error(
        "the certificate was issued by no pool (its issuer is {issuer:?}); only members of this pool are let in"
    )]
    NoPool {
        /// The issuer's name in the certificate, shortened.
        issuer: String,
    },
    /// The certificate is of another pool. Its word is taken for that: nothing was verified.
    #[error("it belongs to another pool: theirs is {theirs}, ours is {ours}")]
    OtherPool {
        /// The pool it says it belongs to.
        theirs: PoolId,
        /// Our pool.
        ours: PoolId,
    },
    /// The certificate names this pool, whose authority did not sign it.
    #[error("the certificate claims to be of this pool ({ours}), but the pool's authority did not sign it")]
    Forged {
        /// Our pool.
        ours: PoolId,
    },
    /// The certificate's time has not come.
    #[error("the certificate of {name} is valid only from {} and the clock here says {}: compare the clocks of \
             both machines", when(*from_unix_s), when(*now_unix_s))]
    NotYetValid {
        /// Who presents it.
        name: Name,
        /// Start of its validity, seconds since 1970.
        from_unix_s: i64,
        /// The time here, seconds since 1970.
        now_unix_s: i64,
    },
    /// The certificate's time is over.
    #[error("the certificate of {name} expired at {} and the clock here says {}: renew it, or set the clock if \
             that is wrong", when(*until_unix_s), when(*now_unix_s))]
    Expired {
        /// Who presents it.
        name: Name,
        /// End of its validity, seconds since 1970.
        until_unix_s: i64,
        /// The time here, seconds since 1970.
        now_unix_s: i64,
    },
    /// The identity is of this pool but certified for something else.
    #[error("{name} is certified as {role}, but this needs {wanted}")]
    WrongRole {
        /// Who presents it.
        name: Name,
        /// What it is certified for.
        role: Role,
        /// What would have been accepted.
        wanted: String,
    },
    /// Another node answered than the one that was dialled.
    #[error("node {expected} was expected there, but {name} ({found}) answered")]
    Unexpected {
        /// Who was dialled.
        expected: NodeId,
        /// Who answered.
        found: NodeId,
        /// The name of who answered.
        name: Name,
    },
    /// The identity is of this pool but on its deny list.
    #[error("{name} ({node}) is denied: {reason}")]
    Denied {
        /// Who.
        name: Name,
        /// Its identity.
        node: NodeId,
        /// Why.
        reason: String,
    },
    /// A private key and a certificate do not belong together.
    #[error("the private key is not the one that the certificate of {name} was issued for")]
    KeyMismatch {
        /// Whom the certificate is for.
        name: Name,
    },
    /// Bytes that are no signed token or order.
    #[error("not a readable signed message: {0}")]
    Malformed(&'static str),
    /// The signature does not fit.
    #[error(
        "the signature in the name of {name} is wrong: it was altered, or made for another purpose or pool"
    )]
    Signature {
        /// In whose name.
        name: Name,
    },
    /// The token's time is over.
    #[error("the token of {name} expired at {}, and the clock here says {}", when_ms(*expires_unix_ms), when_ms(*now_unix_ms))]
    TokenExpired {
        /// Whose token.
        name: Name,
        /// End of its validity, milliseconds since 1970.
        expires_unix_ms: u64,
        /// The time here, milliseconds since 1970.
        now_unix_ms: u64,
    },
    /// The token was made for other homes.
    #[error("the token of {name} was not made for applications that talk through node {home}")]
    TokenHome {
        /// Whose token.
        name: Name,
        /// The home that presents it.
        home: NodeId,
    },
    /// The token claims what its signer's certificate does not give.
    #[error("the token of {name} claims {claim}, which its certificate does not give")]
    TokenClaim {
        /// Whose token.
        name: Name,
        /// What it claims.
        claim: String,
    },
    /// The text of a charter cannot be taken.
    #[error("the charter cannot be read: {0}")]
    Charter(String),
    /// The two sides share no protocol.
    #[error(
        "the other side does not speak {}: one of the two is too old, or it is not a node",
        crate::link::ALPN_TEXT
    )]
    Protocol,
    /// The other side ended the handshake because of us.
    #[error(
        "the other side turned this node away ({alert}): another pool, an expired certificate, a wrong clock \
             or a deny list; its log names the reason"
    )]
    TurnedAway {
        /// What it sent.
        alert: String,
    },
    /// Any other failure of the handshake.
    #[error("the encrypted link could not be set up: {0}")]
    Handshake(String),
}

fn when(unix_s: i64) -> String {
    match OffsetDateTime::from_unix_timestamp(unix_s) {
        Ok(t) => format!("{} {:02}:{:02}:{:02} UTC", t.date(), t.hour(), t.minute(), t.second()),
        Err(_) => format!("{unix_s} s since 1970"),
    }
}

fn when_ms(unix_ms: u64) -> String {
    when(i64::try_from(unix_ms / 1000).unwrap_or(i64::MAX))
}
