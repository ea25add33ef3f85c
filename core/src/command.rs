//! What a log entry says.

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, Incarnation, Index, PeerId, ProposalId, RaftId};
use crate::members::MembersWish;
use crate::pin::Pin;
use crate::time::Timestamp;
use crate::wire::FIRST_VERSION;

/// A command with the id that makes it apply at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Whose, and which.
    pub id: ProposalId,
    /// What is proposed.
    pub command: Command,
}

/// What the pin must be like for a command to take effect. A command that was decided from what its author
/// saw is dropped when the pin has moved on since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// There is no pin of this CID.
    Absent,
    /// Whatever it is.
    Any,
    /// The pin still has this version.
    Version(Index),
}

/// A change that the cluster agrees on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Binds a Raft id to the incarnation of the peer that uses it.
    Admit {
        /// Whose.
        raft_id: RaftId,
        /// To which.
        incarnation: Incarnation,
    },
    /// Records what an operator wants of the membership.
    Members(MembersWish),
    /// Adds or replaces a pin. Its version is set when it is applied.
    Pin {
        /// The whole record, allocations included.
        pin: Pin,
        /// What the allocations were decided from.
        precondition: Precondition,
    },
    /// Moves a pin to other peers.
    Reallocate {
        /// Which pin.
        cid: Cid,
        /// The peers that must hold it from now on, sorted.
        allocations: Vec<PeerId>,
        /// The version that this was decided from.
        version: Index,
    },
    /// Removes a pin.
    Unpin {
        /// Which pin.
        cid: Cid,
        /// `Any` for a client's wish, a version for an expiry.
        precondition: Precondition,
    },
}

impl Command {
    /// The first version that can read it.
    pub(crate) fn since(&self) -> u8 {
        match self {
            Self::Members(wish) => wish.since(),
            Self::Admit { .. } | Self::Pin { .. } | Self::Reallocate { .. } | Self::Unpin { .. } => {
                FIRST_VERSION
            }
        }
    }
}

/// What became of a command when it was applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// A peer's incarnation is recorded.
    Admitted,
    /// Refused for good, with the reason.
    Conflict(String),
    /// There is no such pin.
    NotFound,
    /// A wish of the membership's: recorded, and done when the membership says so.
    Noted(MembersWish),
    /// The pin stands as returned.
    Pinned(Pin),
    /// The pin has moved on: decide again.
    Stale,
    /// The pin that was removed.
    Unpinned(Pin),
}

/// The expiry of a pin, as the leader proposes it.
pub(crate) fn is_expired(pin: &Pin, now: Timestamp) -> bool {
    pin.options.expire_at.is_some_and(|at| at <= now)
}
