//! Commands: the contents of log entries.

use serde::{Deserialize, Serialize};

use crate::codec::{FIRST_VERSION, POLICY_VERSION};
use crate::credential::{Credential, CredentialError, CredentialId};
use crate::drain::{Drain, DrainError};
use crate::ids::{Cid, Incarnation, Index, PeerId, ProposalId, RaftId};
use crate::members::MembersWish;
use crate::pin::Pin;
use crate::rebalance::{NotRebalancing, Rebalance, RebalanceChange};
use crate::time::Timestamp;

/// A command with the id under which it is applied at most once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Identity across retries.
    pub id: ProposalId,
    /// Proposed change.
    pub command: Command,
}

/// Condition on the current pin, checked when a command is applied. It drops commands that were decided from
/// an outdated pin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precondition {
    /// No pin of this CID exists.
    Absent,
    /// No condition.
    Any,
    /// The pin exists with this version.
    Version(Index),
}

/// A change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Binds a Raft id to the incarnation of its peer.
    Admit {
        /// Raft id of a member without a recorded incarnation.
        raft_id: RaftId,
        /// Incarnation that uses it.
        incarnation: Incarnation,
    },
    /// Records a requested change of the membership.
    Members(MembersWish),
    /// Adds or replaces a pin. Applying it sets the pin's version.
    Pin {
        /// The complete pin, with its allocations.
        pin: Pin,
        /// Condition under which the allocations are valid.
        precondition: Precondition,
    },
    /// Changes the allocations of a pin.
    Reallocate {
        /// CID of the pin.
        cid: Cid,
        /// The new allocations, sorted.
        allocations: Vec<PeerId>,
        /// Version of the pin that the allocations were decided from.
        version: Index,
    },
    /// Removes a pin.
    Unpin {
        /// CID of the pin.
        cid: Cid,
        /// `Any` for a client's request, a version for an expiry.
        precondition: Precondition,
    },
    /// Adds a credential.
    CreateCredential {
        /// The new credential.
        credential: Credential,
    },
    /// Removes a credential.
    RevokeCredential {
        /// Id of the credential.
        id: CredentialId,
    },
    /// Removes an owner from a pin, and the pin with its last holder.
    Release {
        /// CID of the pin.
        cid: Cid,
        /// Name of the owner.
        owner: String,
    },
    /// Drains a peer, or changes the settings of its drain.
    Drain {
        /// The drain.
        drain: Drain,
    },
    /// Ends the drain of a peer. Its pins stay where they are.
    EndDrain {
        /// The drained peer.
        peer: PeerId,
    },
    /// Changes the rebalancing.
    Rebalance {
        /// The change.
        change: RebalanceChange,
    },
}

impl Command {
    /// Returns the lowest protocol version that can read this command.
    pub(crate) fn min_version(&self) -> u8 {
        match self {
            Self::Members(wish) => wish.min_version(),
            Self::Admit { .. } | Self::Pin { .. } | Self::Reallocate { .. } | Self::Unpin { .. } => {
                FIRST_VERSION
            }
            Self::CreateCredential { .. }
            | Self::Drain { .. }
            | Self::EndDrain { .. }
            | Self::Rebalance { .. }
            | Self::Release { .. }
            | Self::RevokeCredential { .. } => POLICY_VERSION,
        }
    }
}

/// Result of applying a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The incarnation is recorded, or another one was before.
    Admitted,
    /// Refused for the given reason.
    Conflict(String),
    /// The new credential, as stored.
    CredentialCreated(Credential),
    /// The change of the credentials contradicts the existing ones.
    CredentialRefused(CredentialError),
    /// The removed credential.
    CredentialRevoked(Credential),
    /// The drain, as stored.
    DrainStarted(Drain),
    /// The ended drain.
    DrainEnded(Drain),
    /// The change of the drains is impossible.
    DrainRefused(DrainError),
    /// The pin does not exist, or not for the owner that lets go of it.
    NotFound,
    /// The membership request is recorded; the leader carries it out.
    Recorded(MembersWish),
    /// The pin as stored, new or unchanged.
    Pinned(Pin),
    /// The precondition failed: decide again from the current pin.
    Stale,
    /// The pin before its removal, or before an owner let go of it.
    Unpinned(Pin),
    /// The rebalancing after the change.
    Rebalanced(Rebalance),
    /// There is no run to end.
    RebalanceRefused(NotRebalancing),
}

/// Returns whether a pin has expired at `now`.
pub(crate) fn is_expired(pin: &Pin, now: Timestamp) -> bool {
    pin.options.expire_at.is_some_and(|at| at <= now)
}
