//! Groups of processes on nodes that die and links that break.
//!
//! [`Master`](mutirao_group::master::Master) and [`Console`](mutirao_group::console::Console) are those of a real
//! launcher and of real runners, joined by the [`Pipes`](mutirao_tree::pipe::Pipes) of real nodes over links that are
//! cut and heal. What launcher, nodes and runners do between these machines is played here, as is what is simulated
//! elsewhere: a lease is ended by both its sides once its link was cut for too long, and what the two say of its call
//! arrives once and in order.
//!
//! | module | does |
//! | --- | --- |
//! | `net` | carries messages between nodes, programs and workers, unless a link is cut |
//! | `pipes` | carries out what the machines of pipes say: data connections, and the bytes in them |
//! | `launcher` | what `mutirao group run` does |
//! | `lender` | leases, their workers, and the processes in them |
//! | `ledger` | what really happened, and whether what is told agrees |
//! | `world` | nodes, time and faults |

mod launcher;
mod ledger;
mod lender;
mod net;
mod pipes;
mod world;

pub use ledger::Account;
pub use world::{Plan, run};
