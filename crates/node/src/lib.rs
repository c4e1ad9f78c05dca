//! The daemon of one machine: links, workers, plugins.
//!
//! # How the parts fit
//! [`Node`] owns one loop on one thread (`daemon`). A turn of it reads all that is
//! ready, feeds it to the part concerned, lets timers fire, then carries out what the parts asked for
//! and writes each connection once. No part blocks; what would block (files, names, starting
//! processes) is a job on a helper thread.
//!
//! The parts never hold one another. They share a [`Context`](context::Context):
//!
//! | a part wants to | it does |
//! | --- | --- |
//! | know the time | `ctx.now`, the same for the whole turn |
//! | hear of a descriptor | `ctx.watch(fd, Owner::Lender, key, Interest::READABLE)`; later its `ready(ctx, …, key, readiness)` is called. Edge-triggered: read until it would block |
//! | do something slow | `ctx.jobs.run(move \|\| Done::Lender(…))`; later its `done(ctx, …, done)` is called |
//! | be called later | return it from `deadline()`; then `time(ctx, …)` is called |
//! | tell another part or the core | push an [`Action`](context::Action) onto `ctx.actions`; carried out in the same turn, after the part has returned |
//! | write to the stream of a lease it lends | `ctx.stream_put(serial, header, body)`, `ctx.stream_message(serial, …)`; the handle is filled in. `ctx.stream_room(serial)` says how much is welcome |
//! | send to a node it is linked to | `ctx.send_control(peer, message)` |
//! | reach a node for its files | `ctx.open_data(node_ref)`; then `Plugins::data_up(ctx, peer, conn)` or `Plugins::data_down(ctx, peer)` |
//! | write on a data connection | `ctx.conns.put(conn, header, body)`, as long as `ctx.conns.room(conn)` is not 0; `Plugins::data_writable(ctx, conn)` tells of new room |
//!
//! `Lender` (workers, templates, `serve`) and `Plugins` (ingest, manifests, storage, fetching,
//! sources) have the methods the daemon calls in their `mod.rs`.
#![deny(unsafe_code)]

mod authority;
mod capacity;
mod charter;
mod clients;
mod conn;
pub mod context;
mod daemon;
mod error;
mod groups;
mod jobs;
mod lender;
mod links;
mod members;
mod options;
mod pipes;
mod plugins;
mod presence;
mod runtime;
mod streams;
mod sys;
mod visits;

pub use charter::found_charter;
pub use daemon::{Node, Stop};
pub use error::Error;
pub use members::kept_bag;
pub use options::{AcceptWord, Config, JoinTarget, Options, Paths, Ready, WorkerConfig, default_runtime};
pub use runtime::{LocalNode, local_nodes, pool_directory};
pub use sys::user_name;
