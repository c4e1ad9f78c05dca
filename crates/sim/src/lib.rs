//! Runs the state machines of many nodes on a virtual network.
//!
//! A [`World`] holds nodes (each a [`Core`](mutirao_tree::Core), its workers and its applications, which may
//! have calls: then they run [`hold`](mutirao_schedule::hold) and their lenders [`serve`](mutirao_schedule::serve)),
//! the links between them and a queue of what is to happen. Nothing in it depends on anything but its
//! seed: the same seed gives the same trace. After each step it checks what must always hold; at
//! quiet, [`World::check_quiet`] checks what must hold once everything has settled.
#![forbid(unsafe_code)]

mod app;
pub mod bags;
mod calls;
mod charter;
mod check;
mod clock;
mod event;
mod faults;
pub mod groups;
mod links;
mod load;
mod nemesis;
mod net;
mod node;
mod outputs;
mod programs;
mod random;
mod scenario;
mod trace;
mod traffic;
mod trial;
mod world;

pub use app::App;
pub use calls::Account;
pub use charter::signed_charter;
pub use clock::Clock;
pub use node::Node;
pub use programs::{plugin, want};
pub use random::Random;
pub use scenario::{Plan, run_faults};
pub use trace::Sent;
pub use traffic::{Allocator, Served, Traffic};
pub use trial::{Allocated, Formed, Trial, allocate_once};
pub use world::{Options, World};
