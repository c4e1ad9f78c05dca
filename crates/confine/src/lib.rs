//! Confines a process before foreign code runs in it.
