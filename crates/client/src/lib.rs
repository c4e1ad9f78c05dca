//! Run functions of your program on every machine of a pool.
