//! Names of things. Each is a newtype, so that one kind of name is never taken for another.

use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// A text that should have been a 64-digit hexadecimal hash.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a hash: 64 hexadecimal digits are expected")]
pub struct ParseHashError(pub String);

macro_rules! hash_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The first eight hexadecimal digits: enough for people to tell two apart.
            pub fn short(&self) -> String {
                self.0[..4].iter().map(|b| format!("{b:02x}")).collect()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseHashError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let bad = || ParseHashError(text.chars().take(80).collect());
                if text.len() != 64 || !text.is_ascii() {
                    return Err(bad());
                }
                let mut bytes = [0; 32];
                for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
                    let pair = core::str::from_utf8(pair).map_err(|_| bad())?;
                    *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
                }
                Ok(Self(bytes))
            }
        }
    };
}

hash_id! {
    /// A pool: the hash of its certificate authority's public key.
    PoolId
}
hash_id! {
    /// A node: the hash of its public key.
    NodeId
}
hash_id! {
    /// A plugin: the hash of its canonical manifest, signatures left out.
    PluginId
}
hash_id! {
    /// A blob: the hash of its content.
    BlobHash
}

/// One life of a node. Grows at each start, so that messages of an earlier life are recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The incarnation after `stored`, at `unix_ms`: grows even when the clock went back.
    pub fn next(stored: Option<Incarnation>, unix_ms: u64) -> Incarnation {
        Incarnation(stored.map_or(0, |Incarnation(last)| last.saturating_add(1)).max(unix_ms))
    }
}

/// An application: drawn at random where it starts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppId(pub u128);

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppId({:08x})", self.0 >> 96)
    }
}

/// A lease: the lender, its incarnation and a serial it never uses again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LeaseId {
    /// The node that granted the lease.
    pub lender: NodeId,
    /// The lender's life in which it did.
    pub incarnation: Incarnation,
    /// The lender's serial number of the lease.
    pub serial: u64,
}

/// A bag that is kept by nodes of the pool: drawn at random when it is submitted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BagId(pub u128);

impl fmt::Display for BagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BagId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BagId({:08x})", self.0 >> 96)
    }
}

impl FromStr for BagId {
    type Err = ParseHashError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32);
        id.map(BagId).ok_or_else(|| ParseHashError(text.chars().take(80).collect()))
    }
}

/// Somebody on one node asks something of a bag on another: drawn at random by who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VisitId(pub u128);

/// One request for slots. Asked again with the same name it gets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Who asks.
    pub app: AppId,
    /// The application's number for the request.
    pub sequence: u32,
    /// Grows when the same request is searched for again.
    pub attempt: u32,
}

/// A call, numbered by its application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CallId(pub u64);

/// Which home of a lease speaks: a home with a higher epoch has taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Epoch(pub u32);

/// The short name of a lease on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Handle(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back_from_its_text() {
        let id = NodeId(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(id.to_string().parse::<NodeId>(), Ok(id));
        assert!("xyz".parse::<NodeId>().is_err());
        assert!("é".repeat(32).parse::<NodeId>().is_err());
    }

    #[test]
    fn an_incarnation_grows_although_the_clock_went_back() {
        assert_eq!(Incarnation::next(None, 1000), Incarnation(1000));
        assert_eq!(Incarnation::next(Some(Incarnation(2000)), 1000), Incarnation(2001));
        assert_eq!(Incarnation::next(Some(Incarnation(2000)), 5000), Incarnation(5000));
    }
}
