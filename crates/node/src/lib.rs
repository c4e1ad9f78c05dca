//! The daemon of one machine: links, workers, plugins.
