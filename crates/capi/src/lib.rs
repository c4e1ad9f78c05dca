//! libmutirao: the C interface. `include/mutirao.h`, `spd.h` and `ipar.h` say what each function does; here
//! stands only how.
//!
//! The modules named as in the header hold the functions that C calls. They check and translate, and are the only
//! ones with `unsafe` code; what they stand on is safe.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod administration;
#[allow(unsafe_code)]
mod application;
#[allow(unsafe_code)]
mod bag;
mod board;
#[allow(unsafe_code)]
mod calls;
#[allow(unsafe_code)]
mod charter;
#[allow(unsafe_code)]
mod collective;
#[allow(unsafe_code)]
mod common;
#[allow(unsafe_code)]
mod convert;
mod error;
#[allow(unsafe_code)]
mod group;
#[allow(unsafe_code)]
mod ipar;
#[allow(unsafe_code)]
mod lending;
#[allow(unsafe_code)]
mod operation;
mod pool;
#[allow(unsafe_code)]
mod spd;
#[allow(unsafe_code)]
mod superstep;

#[cfg(test)]
#[allow(unsafe_code)]
mod tests;
