//! The library as it is installed: its header, what it exports, and programs in C that use it.

mod group;
mod header;
mod programs;
mod support;
