//! What this peer's tracker remembers of the CIDs that it has to do with.

use serde::{Deserialize, Serialize};

use crate::ids::Cid;
use crate::pin::Mode;
use crate::time::Timestamp;

/// Where a CID stands at this peer, as far as it must survive a restart. A running operation is not
/// recorded: its CID stands as queued until the operation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// The last attempt to pin failed; another one is due.
    PinError,
    /// Waits to be pinned.
    PinQueued,
    /// The IPFS node has it.
    Pinned,
    /// The last attempt to unpin failed; another one is due.
    UnpinError,
    /// Waits to be unpinned.
    UnpinQueued,
    /// Counted as pinned, until the IPFS node was found not to have it; waits to be pinned again.
    Lost,
}

/// The local state of one CID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Where it stands.
    pub phase: Phase,
    /// How deep it is, or was, to be pinned.
    pub mode: Mode,
    /// How many attempts have been made since it was last pinned or unpinned.
    pub attempts: u32,
    /// What the last failed attempt said; empty when none failed.
    pub error: String,
    /// When the phase was entered.
    pub since: Timestamp,
    /// Its place in the queue, while it has one.
    pub queued: Option<QueueKey>,
}

/// A queue of operations that wait for a free slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Lane {
    /// To unpin: quick, and frees room.
    Unpin = 0,
    /// To pin for the first time, in log order: goes before every retry.
    Fresh = 1,
    /// To pin or unpin again, in the order in which they are due.
    Retry = 2,
    /// To unpin once others are known to hold it, in the order in which they are to be asked.
    Surplus = 3,
}

/// A place in a queue. Queues are kept on disk in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueKey {
    /// Which queue.
    pub lane: Lane,
    /// Log index in `Unpin` and `Fresh`, nanoseconds since the Unix epoch when due in `Retry` and
    /// `Surplus`.
    pub at: u64,
    /// What waits.
    pub cid: Cid,
}
