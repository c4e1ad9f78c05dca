//! The C interface, libmutirao.
