//! The charter of a pool as it travels: its versions, the document, and small changes to it.
//!
//! To this crate, and to the overlay that spreads it, the document is opaque. What it says and who
//! may sign it is the business of `mutirao-trust`.

use crate::id::AppId;
use serde::{Deserialize, Serialize};

/// Longest document, bytes, its signature and the signer's certificate included: one fits a control
/// frame, and its text a row.
pub const CHARTER_BYTES_MAX: usize = 11 * 1024;

/// Names a version of the charter, and says to a neighbour that this is the one held. Of two the
/// greater is the newer: by number, then by hash. The least, all zeros, is none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct CharterVersion {
    /// Grows by one with each change.
    pub number: u64,
    /// The hash of the signed document.
    pub hash: [u8; 32],
}

/// To a node that is behind: a newer version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CharterDocument {
    /// Which version; the receiver checks that it is.
    pub version: CharterVersion,
    /// The signed document, at most [`CHARTER_BYTES_MAX`] bytes.
    pub document: Vec<u8>,
}

/// Whom an entry of the charter names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// A node, by name or by 16 or more digits of its id.
    Node(String),
    /// A user: of the pool, by name or by 16 or more digits of the id; or `name@node`.
    User(String),
    /// One application.
    App(AppId),
}

/// A small change of the charter, made by the node on the version it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CharterChange {
    /// Put a node or a user on the deny list.
    Revoke {
        /// Whom.
        who: Who,
        /// What they are told.
        reason: String,
    },
    /// Take them off it.
    Restore(Who),
    /// Let an application, or all of a user, allocate by itself where admission is by administrators.
    Admit {
        /// Whom.
        who: Who,
        /// Most slots at a time.
        slots: u32,
        /// When the right ends, seconds since 1970; `None`: when it is taken away.
        until_unix_s: Option<u64>,
    },
    /// Take that right away; the leases held under it end.
    Dismiss(Who),
}

/// A version of the charter, from a node that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CharterRow {
    /// The node's name.
    pub node: String,
    /// Which version; none if the node has no charter.
    pub version: CharterVersion,
    /// The hash of the version it was made from; zeros for the first.
    pub previous: [u8; 32],
    /// The administrator who signed it.
    pub by: String,
    /// When, milliseconds since 1970 by that administrator's clock.
    pub signed_unix_ms: u64,
    /// What it says; empty where only the version was asked for.
    pub text: String,
}
