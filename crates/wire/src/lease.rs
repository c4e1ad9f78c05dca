//! Messages between the home and the lender of leases, on their direct link, control connection.

use crate::id::{AppId, Epoch, NodeId, PluginId};
use crate::kind::messages;
use serde::{Deserialize, Serialize};

/// Home to lender: these leases are mine, and live while this link does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirm {
    /// Whose leases they are.
    pub app: AppId,
    /// In which order of homes.
    pub epoch: Epoch,
    /// Nodes that may take the leases over, with a higher epoch; none where they end with their home.
    pub homes: Vec<NodeId>,
    /// The lender's serials; at most 1024 a message.
    pub serials: Vec<u64>,
}

/// Lender to home: of these I know nothing, or another home has taken over; all others are alive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// Whose leases they are.
    pub app: AppId,
    /// The serials refused.
    pub refused: Vec<u64>,
}

/// Home to lender: no longer needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The lender's serials.
    pub serials: Vec<u64>,
}

/// Why a lease ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseEnd {
    /// The home gave it back.
    Released,
    /// The home was out of reach for too long.
    Lapsed,
    /// Nobody confirmed the grant.
    Unconfirmed,
    /// Its longest life is over.
    LimitReached,
    /// The owner needs the machine.
    Reclaimed,
    /// The lender is going down.
    Leaving,
    /// An administrator or the owner ended it.
    Killed(String),
    /// The lender is lost, or came back in a new life.
    LenderLost,
    /// The plugin cannot be run there; the text says why.
    CannotRun(String),
    /// Unknown to the lender.
    Unknown,
    /// Another home of its application has taken it over.
    TakenOver,
}

/// Lender to home: these leases ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The lender's serials.
    pub serials: Vec<u64>,
    /// Why.
    pub end: LeaseEnd,
}

/// How far the worker of a lease is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerState {
    /// The plugin is on its way.
    Fetching,
    /// The worker is being started.
    Starting,
    /// It serves calls.
    Ready,
}

/// Lender to home: how the worker of a lease is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerNews {
    /// The lender's serial.
    pub serial: u64,
    /// How it is doing.
    pub state: WorkerState,
}

/// Lender to the homes that were told to wait: the owner approved the plugin, ask again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginApproved {
    /// Which plugin.
    pub plugin: PluginId,
}

/// Lender to home: these leases are wanted back. Place nothing new there, and give each back as soon as
/// nothing runs on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reclaiming {
    /// The lender's serials; at most 1024 a message.
    pub serials: Vec<u64>,
    /// They end after so many milliseconds in any case; `None`: not before they are given back.
    pub grace_ms: Option<u32>,
}

messages! {
    /// Every message about leases between two nodes.
    LeaseMessage { Confirm, Confirmed, Release, Revoked, WorkerNews, PluginApproved, Reclaiming }
}
