//! Local state: the tracker's record of each CID that this peer pins or unpins.

use serde::{Deserialize, Serialize};

use crate::ids::Cid;
use crate::pin::Mode;
use crate::time::Timestamp;

/// Tracking phase of a CID at this peer, as it survives a restart. Running operations are not recorded: the
/// CID counts as queued until its operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// The last attempt to pin failed; a retry is queued.
    PinError,
    /// Queued to be pinned.
    PinQueued,
    /// Pinned on the IPFS node.
    Pinned,
    /// The last attempt to unpin failed; a retry is queued.
    UnpinError,
    /// Queued to be unpinned.
    UnpinQueued,
    /// Found missing on the IPFS node while it counted as pinned; queued to be pinned again.
    Lost,
}

/// The local state of one CID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Tracking phase.
    pub phase: Phase,
    /// Depth at which it is, was, or will be pinned.
    pub mode: Mode,
    /// Failed attempts since it was last pinned or unpinned.
    pub attempts: u32,
    /// Error text of the last failed attempt; empty if none failed.
    pub error: String,
    /// Wall-clock time at which the phase was entered.
    pub since: Timestamp,
    /// Key in the queue; `None` if not queued.
    pub queued: Option<QueueKey>,
}

/// A queue of operations that wait for a free slot, in order of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    /// Unpins: quick, and they free space.
    Unpin = 0,
    /// First attempts to pin, in log order, before every retry.
    Fresh = 1,
    /// Retries of pins and unpins, in the order in which they are due.
    Retry = 2,
    /// Unpins of surplus copies, which wait until their new holders have confirmed theirs, in the order in
    /// which to ask them.
    Surplus = 3,
}

/// Key of a queue entry. Queues are kept on disk in key order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueKey {
    /// Queue that the entry is in.
    pub lane: Lane,
    /// Order within the queue: a log index in `Unpin` and `Fresh`; the due time in nanoseconds since the Unix
    /// epoch in `Retry` and `Surplus`.
    pub at: u64,
    /// CID to pin or unpin.
    pub cid: Cid,
}
