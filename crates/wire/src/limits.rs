//! Limits and timings that both ends of a connection must agree on.

use core::time::Duration;

/// Protocol versions this build speaks, oldest and newest.
pub const PROTOCOL: (u16, u16) = (1, 1);

/// Largest body of a frame on a control connection, bytes.
pub const CONTROL_BODY_MAX: usize = 16 * 1024;
/// Largest body of a frame on a data connection, a local socket or a ring, bytes.
pub const DATA_BODY_MAX: usize = 64 * 1024;
/// Largest argument and largest result of a call, bytes.
pub const CALL_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Calls outstanding on one lease.
pub const LEASE_CALLS_MAX: u32 = 4096;
/// Bytes under way in each direction of one lease before the receiver has to grant more.
pub const LEASE_WINDOW_BYTES: u64 = 1024 * 1024;

/// A beat is sent when nothing else was for this long.
pub const BEAT: Duration = Duration::from_millis(500);
/// A link that was silent for this long is lost.
pub const SILENCE: Duration = Duration::from_millis(1500);
/// A dial that no machine answers for this long is given up: the kernel would go on, with longer and longer pauses.
pub const CONNECT: Duration = Duration::from_secs(1);
/// A handshake that takes longer is given up.
pub const HANDSHAKE: Duration = Duration::from_secs(3);
/// A lease whose home is out of reach for this long, by the lender's clock, lapses.
pub const LAPSE: Duration = Duration::from_secs(10);
/// A grant that no home has confirmed for this long is taken back.
pub const FIRST_LIFE: Duration = Duration::from_secs(5);
/// A committed attach that is not completed for this long is void.
pub const COMMIT: Duration = Duration::from_secs(2);
/// A search as a whole, at the node where it starts.
pub const SEARCH: Duration = Duration::from_secs(2);

/// Deepest tree.
pub const DEPTH_MAX: usize = 64;
/// Children of a node under the automatic formation.
pub const FAN_OUT: usize = 16;
/// Children of a node at all.
pub const CHILDREN_MAX: usize = 1024;
/// Addresses a node may give for itself.
pub const ADDRESSES_MAX: usize = 8;
/// Longest name of a node, user, operation or label, bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest text for people in a message, bytes.
pub const TEXT_BYTES_MAX: usize = 4096;
/// Operations of one plugin.
pub const OPERATIONS_MAX: usize = 96;
/// Files of one plugin.
pub const PLUGIN_FILES_MAX: usize = 48;
/// Labels, resources and excluded labels in one request, each.
pub const CONSTRAINTS_MAX: usize = 16;
/// Nodes that one request names, and those it excludes.
pub const NODES_NAMED_MAX: usize = 64;
/// Labels of one node.
pub const LABELS_MAX: usize = 32;
/// Named resources of one node.
pub const RESOURCES_MAX: usize = 16;
/// Most of one named resource that a node can have: each instance has a number.
pub const RESOURCE_AMOUNT_MAX: u32 = 512;
/// Processes of one group.
pub const GROUP_PROCESSES_MAX: u32 = 1024;
/// Homes of one application.
pub const HOMES_MAX: usize = 3;
/// Bundles in one request.
pub const WANT_MAX: u32 = 100_000;
/// Grants in one reply message; more follow in further messages.
pub const GRANTS_A_REPLY: usize = 64;
