//! Shared-memory rings between a worker and the process that calls it.
