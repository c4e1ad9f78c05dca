//! Identities of a pool: authority, certificates, tokens, encrypted links.
//!
//! A pool is its certificate authority: [`PoolId`](mutirao_wire::PoolId) is the hash of its public key. The
//! [`Authority`] certifies nodes, users and administrators, who make their own keys and send a
//! [`JoinRequest`]; the result is a [`Certificate`], which with the private key makes an [`Identity`]. All are
//! kept in a [`Home`]. An identity opens links ([`Identity::client_config`], [`Identity::server_config`]) and
//! signs ([`SignedToken`], [`SignedOrder`], [`SignedCharter`]). What others present is checked against the [`Pool`]; a
//! [`Refusal`] says why somebody was turned away.
//!
//! Nothing here runs in the background or opens a connection, and a running node never needs the authority.

#![forbid(unsafe_code)]

mod authority;
mod certificate;
mod charter;
mod error;
mod file;
mod home;
mod identity;
mod key;
mod link;
mod name;
mod pool;
mod seal;
mod token;

pub use authority::{Authority, JoinRequest, REQUEST_BYTES_MAX, Validity};
pub use certificate::{CERTIFICATE_BYTES_MAX, Certificate, Peer};
pub use charter::{
    AdmissionMode, Admitted, CHARTER_TEXT_BYTES_MAX, Ceiling, Charter, CharterEdition, CharterError,
    DenyLists, ID_DIGITS_MIN, SignedCharter, Timings, TopologyRules, Trusted, app_id, change,
};
pub use error::{Error, Refusal};
pub use home::Home;
pub use identity::Identity;
pub use key::{PrivateKey, random};
pub use link::{ALPN, explain, peer_identity, server_name};
pub use name::{BadName, NAME_CHARS_MAX, Name, Role};
pub use pool::{Admit, Pool};
pub use seal::{PASSPHRASE_CHARS_MIN, random_passphrase};
pub use token::{HOMES_MAX, ORDER_BYTES_MAX, SignedOrder, SignedToken, Token, VerifiedUser};
