//! Effects: outputs of the state machine, named in the imperative. Each may be started at once.

use serde::{Deserialize, Serialize};

use crate::credential::{Credential, CredentialError};
use crate::drain::{Drain, DrainError};
use crate::ids::{BatchId, Cid, Index, OpId, PeerId, SnapshotId, Ticket};
use crate::limits::TooLarge;
use crate::local::{Local, QueueKey};
use crate::members::Members;
use crate::pin::{Mode, Pin};
use crate::policy::Policy;
use crate::rebalance::{NotRebalancing, Rebalance};
use crate::records::{HardState, LogEntry};
use crate::snapshot::{Applied, Manifest};
use crate::window::Window;
use crate::wire::{Envelope, RaftMessage};

/// An output of [`Node::handle`](crate::Node::handle), to be carried out by the shell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// Cancel an operation or comparison. Its `IpfsFinished` or `IpfsCompared` must still come.
    CancelIpfs {
        /// The operation or comparison.
        op: OpId,
    },
    /// Find CIDs whose local state is [`Phase::Pinned`](crate::Phase::Pinned) but which the IPFS node has not
    /// pinned at that depth or deeper. Answered by any number of
    /// [`Event::IpfsLacks`](crate::Event::IpfsLacks), in CID order, then by exactly one
    /// [`Event::IpfsCompared`](crate::Event::IpfsCompared).
    CompareIpfs {
        /// Id of the comparison.
        op: OpId,
        /// The only CID to compare; `None` for all.
        cid: Option<Cid>,
    },
    /// Delete a staged snapshot.
    DiscardSnapshot {
        /// Id of the staged snapshot.
        snapshot: SnapshotId,
    },
    /// Measure this peer's metrics. Answered by [`Event::Measured`](crate::Event::Measured).
    Measure,
    /// Write a batch atomically. It must be visible to reads before the next call of `handle`; if `sync`,
    /// [`Event::Persisted`](crate::Event::Persisted) must report when it is durable.
    Persist(Batch),
    /// Answer a client's request.
    Reply {
        /// Ticket of the request.
        ticket: Ticket,
        /// Result of the request.
        reply: Result<Reply, Refusal>,
    },
    /// Send a message to a peer. Best effort: it may be lost, duplicated, delayed or reordered.
    Send {
        /// The receiver.
        to: PeerId,
        /// The message.
        envelope: Envelope,
    },
    /// Stream the pinset, as on disk when this effect is started, to a peer. Answered by one
    /// [`Event::SnapshotSent`](crate::Event::SnapshotSent).
    SendSnapshot {
        /// The receiver.
        to: PeerId,
        /// The Raft message that announces it.
        message: RaftMessage,
    },
    /// Start an operation on the IPFS node. Answered by exactly one
    /// [`Event::IpfsFinished`](crate::Event::IpfsFinished).
    StartIpfs {
        /// Id of the operation.
        op: OpId,
        /// The operation.
        action: IpfsAction,
    },
}

/// An atomic write. Batches are written in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Id of the batch.
    pub id: BatchId,
    /// Writes, in order.
    pub ops: Vec<StoreOp>,
    /// Set if [`Event::Persisted`](crate::Event::Persisted) must report that the batch is durable.
    pub sync: bool,
}

/// One write of a batch.
#[allow(clippy::large_enum_variant, reason = "most of them are pins")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StoreOp {
    /// Appends to the log, after truncating it before the first entry's index.
    Append {
        /// The new entries: at least one, contiguous.
        entries: Vec<LogEntry>,
    },
    /// Drops the log entries up to `index` (inclusive), but keeps its term.
    Compact {
        /// Index of the last dropped entry.
        index: Index,
        /// Term of that entry.
        term: u64,
    },
    /// Deletes the local state of a CID.
    DeleteLocal {
        /// CID of the local state.
        cid: Cid,
    },
    /// Deletes a pin and its index entries.
    DeletePin {
        /// The deleted pin.
        pin: Pin,
    },
    /// Deletes a queue entry.
    Dequeue {
        /// Key of the entry.
        key: QueueKey,
    },
    /// Inserts a queue entry.
    Enqueue {
        /// Key of the entry.
        key: QueueKey,
    },
    /// Replaces the pinset and the policy by those of a staged snapshot, and the applied position,
    /// members and windows by those of its manifest. Empties the log.
    InstallSnapshot {
        /// Id of the staged snapshot.
        snapshot: SnapshotId,
        /// Metadata of the snapshot.
        manifest: Manifest,
    },
    /// Writes the local state of a CID.
    PutLocal {
        /// CID of the local state.
        cid: Cid,
        /// The new local state.
        local: Local,
    },
    /// Writes a pin and its index entries.
    PutPin {
        /// The new pin.
        pin: Pin,
        /// The pin that it replaces, for the indexes.
        previous: Option<Box<Pin>>,
    },
    /// Writes the applied proposals of a peer.
    PutWindow {
        /// The new window.
        window: Window,
    },
    /// Writes the applied position.
    SetApplied {
        /// The new position.
        applied: Applied,
    },
    /// Writes Raft's hard state.
    SetHardState {
        /// The new hard state.
        hard_state: HardState,
    },
    /// Writes the membership.
    SetMembers {
        /// The new membership.
        members: Members,
    },
    /// Writes the policy.
    SetPolicy {
        /// The new policy.
        policy: Policy,
    },
    /// Writes whether the local state is being reconciled with an installed snapshot.
    SetReconciling {
        /// Set until the reconciliation ends; a restart in between starts it again.
        reconciling: bool,
    },
}

/// An operation on the IPFS node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpfsAction {
    /// Pin a CID.
    Pin {
        /// CID to pin.
        cid: Cid,
        /// Depth of the pin.
        mode: Mode,
        /// Name of the pin, for Kubo's `pin ls`.
        name: String,
        /// Multiaddresses of nodes that have the content, to connect to.
        origins: Vec<String>,
        /// A pin that shares most of its blocks, for Kubo's `pin update`.
        update_from: Option<Cid>,
        /// Set if the copy moves here from another peer while moves are limited in bytes per second: its
        /// bytes count against [`View::move_rate`](crate::View::move_rate).
        is_move: bool,
    },
    /// Unpin a CID. A CID that is not pinned counts as success.
    Unpin {
        /// CID to unpin.
        cid: Cid,
    },
}

/// Successful result of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Allocations, sorted; empty if everywhere.
    Allocated(Vec<PeerId>),
    /// Applied position that includes everything acknowledged before the request.
    Barrier(Index),
    /// The new credential.
    CredentialCreated(Credential),
    /// The removed credential.
    CredentialRevoked(Credential),
    /// The ended drain.
    DrainEnded(Drain),
    /// The new or changed drain.
    DrainStarted(Drain),
    /// The peer is a member.
    PeerAdded,
    /// The peer is not a member any more.
    PeerRemoved,
    /// The stored pin.
    Pinned(Pin),
    /// The rebalancing after the change.
    Rebalanced(Rebalance),
    /// Number of CIDs that are retried.
    Recovered(u64),
    /// Number of CIDs that were missing on the IPFS node and are queued to be pinned again.
    Synced(u64),
    /// The removed pin.
    Unpinned(Pin),
}

/// Refusal of a request. All but `Unknown` mean that the request had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A limit on open requests is reached.
    #[error("too many requests are open at this peer, try again later")]
    Busy,
    /// The request contradicts the existing pin, or itself.
    #[error("{0}")]
    Conflict(String),
    /// The change of the credentials contradicts the existing ones.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The change of the drains is impossible.
    #[error(transparent)]
    Drain(#[from] DrainError),
    /// There is no run of the rebalancing to end.
    #[error(transparent)]
    Rebalance(#[from] NotRebalancing),
    /// The comparison with the IPFS node failed.
    #[error("the IPFS node of this peer does not answer as it should: {0}")]
    IpfsFailed(String),
    /// No leader is known.
    #[error("the cluster has no leader: a majority of its voters must be running and reachable")]
    NoLeader,
    /// Fewer than `needed` peers can be allocated to.
    #[error(
        "not enough peers to allocate CID. Needed at least: {needed}. Wanted at most: {wanted}. \
         Available candidates: {available}. {why}"
    )]
    NotEnoughPeers {
        /// Minimum number of allocations.
        needed: u32,
        /// Maximum number of allocations.
        wanted: u32,
        /// Number of peers that could be allocated to.
        available: u32,
        /// Reason, for display.
        why: String,
    },
    /// The pin does not exist.
    #[error("pin is not part of the pinset")]
    NotFound,
    /// This peer is not, or no longer, a member of the cluster.
    #[error("this peer is not a member of the cluster")]
    NotMember,
    /// A field of the pin exceeds its limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// Not all members can read what the request would write: the reason, for display.
    #[error("{0}")]
    Unreadable(String),
    /// The deadline passed; the request may still take effect.
    #[error("no answer in time: the request may still take effect")]
    Unknown,
}
