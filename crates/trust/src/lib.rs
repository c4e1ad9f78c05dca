//! Identities of a pool: authority, certificates, tokens, encrypted links.
