//! What must be done. Effects are named in the imperative, and each may be started at once.

use serde::{Deserialize, Serialize};

use crate::ids::{BatchId, Cid, Index, OpId, PeerId, SnapshotId, Ticket};
use crate::limits::TooLarge;
use crate::local::{Local, QueueKey};
use crate::members::Members;
use crate::pin::{Mode, Pin};
use crate::raft::{HardState, LogEntry};
use crate::snapshot::{Applied, Manifest};
use crate::window::Window;
use crate::wire::{Envelope, RaftMessage};

/// Something to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Effect {
    /// End this operation, or this comparison, soon; its `IpfsFinished` or `IpfsCompared` still comes.
    CancelIpfs {
        /// Which one.
        op: OpId,
    },
    /// Find the CIDs whose local state is [`Phase::Pinned`](crate::Phase::Pinned) and which the IPFS node has
    /// not pinned at that depth or deeper. Answered by any number of
    /// [`Event::IpfsLacks`](crate::Event::IpfsLacks), in the order of the CIDs, and then by exactly one
    /// [`Event::IpfsCompared`](crate::Event::IpfsCompared) with the same `op`.
    CompareIpfs {
        /// Its name.
        op: OpId,
        /// The only CID to look at; `None` for all.
        cid: Option<Cid>,
    },
    /// Forget a staged snapshot.
    DiscardSnapshot {
        /// Which one.
        snapshot: SnapshotId,
    },
    /// Read this peer's own metrics. Answered by [`Event::Measured`](crate::Event::Measured).
    Measure,
    /// One atomic write. It must be visible to reads before the next call of `handle`, and survive power
    /// loss before it is reported by [`Event::Persisted`](crate::Event::Persisted).
    Persist(Batch),
    /// The one answer to a client's request.
    Reply {
        /// Whose.
        ticket: Ticket,
        /// What.
        reply: Result<Reply, Refusal>,
    },
    /// Best effort: the network may lose, repeat, delay or reorder it.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        envelope: Envelope,
    },
    /// Send the pinset as it is on disk when this effect is started. Answered by one
    /// [`Event::SnapshotSent`](crate::Event::SnapshotSent).
    SendSnapshot {
        /// To whom.
        to: PeerId,
        /// The message that announces it.
        message: RaftMessage,
    },
    /// Answered by exactly one [`Event::IpfsFinished`](crate::Event::IpfsFinished) with the same `op`.
    StartIpfs {
        /// Its name.
        op: OpId,
        /// What to do.
        action: IpfsAction,
    },
}

/// Writes that reach the disk together or not at all. Batches are written in the order of their ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// What to write, in this order.
    pub ops: Vec<StoreOp>,
    /// Whether its survival of power loss must be reported.
    pub sync: bool,
}

/// One write.
#[allow(clippy::large_enum_variant, reason = "most of them are pins")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum StoreOp {
    /// Replaces the log from the first entry's index on. Never empty, and contiguous.
    Append {
        /// The new entries.
        entries: Vec<LogEntry>,
    },
    /// Drops the log through `index`, whose term is kept.
    Compact {
        /// The last entry to drop.
        index: Index,
        /// Its term.
        term: u64,
    },
    /// Forgets a CID's local state.
    DeleteLocal {
        /// Whose.
        cid: Cid,
    },
    /// Removes a pin, and its places in the indexes.
    DeletePin {
        /// As it was.
        pin: Pin,
    },
    /// Takes a CID out of a queue.
    Dequeue {
        /// From where.
        key: QueueKey,
    },
    /// Puts a CID in a queue.
    Enqueue {
        /// Where.
        key: QueueKey,
    },
    /// Replaces the pinset by a staged snapshot, and with it the log, the applied position, the members and
    /// the windows, all as its manifest says. The log is empty afterwards.
    InstallSnapshot {
        /// Which one.
        snapshot: SnapshotId,
        /// What it is.
        manifest: Manifest,
    },
    /// Writes a CID's local state.
    PutLocal {
        /// Whose.
        cid: Cid,
        /// What.
        local: Local,
    },
    /// Writes a pin, and its places in the indexes.
    PutPin {
        /// As it is from here on.
        pin: Pin,
        /// As it was, for the indexes.
        previous: Option<Box<Pin>>,
    },
    /// Writes which proposals of a peer have been applied.
    PutWindow {
        /// Everything about it.
        window: Window,
    },
    /// Writes how far the log is applied.
    SetApplied {
        /// How far.
        applied: Applied,
    },
    /// Writes Raft's term, vote and commit.
    SetHardState {
        /// All three.
        hard_state: HardState,
    },
    /// Writes the membership.
    SetMembers {
        /// As of this batch.
        members: Members,
    },
    /// Writes whether the local state has yet to be compared with a pinset that came in a snapshot.
    SetReconciling {
        /// Whether.
        reconciling: bool,
    },
}

/// What to do at the IPFS node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpfsAction {
    /// Make it hold this content.
    Pin {
        /// What.
        cid: Cid,
        /// How deep.
        mode: Mode,
        /// The pin's label.
        name: String,
        /// Nodes that have the content.
        origins: Vec<String>,
        /// A pin that shares most of its blocks.
        update_from: Option<Cid>,
    },
    /// Let it drop this content. Not being pinned is success.
    Unpin {
        /// What.
        cid: Cid,
    },
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The peers, sorted; empty for everywhere.
    Allocated(Vec<PeerId>),
    /// The local copy holds all that was acknowledged before the request, as of this log position.
    Barrier(Index),
    /// The peer is a member.
    PeerAdded,
    /// The peer is no member any more.
    PeerRemoved,
    /// The pin as it stands.
    Pinned(Pin),
    /// How many CIDs are being tried again.
    Recovered(u64),
    /// How many pins the IPFS node had lost; they wait to be pinned again.
    Synced(u64),
    /// The pin as it was.
    Unpinned(Pin),
}

/// Why a client does not get what it wants. All but `Unknown` mean that nothing has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// A queue is full.
    #[error("too many requests are open at this peer, try again later")]
    Busy,
    /// The request contradicts the pin that exists, or itself.
    #[error("{0}")]
    Conflict(String),
    /// The IPFS node could not be asked.
    #[error("the IPFS node of this peer does not answer as it should: {0}")]
    IpfsFailed(String),
    /// Nobody leads.
    #[error("the cluster has no leader: a majority of its voters must be running and reachable")]
    NoLeader,
    /// Too few peers can take the content.
    #[error(
        "not enough peers to allocate CID. Needed at least: {needed}. Wanted at most: {wanted}. \
         Available candidates: {available}. {why}"
    )]
    NotEnoughPeers {
        /// The minimum.
        needed: u32,
        /// The maximum.
        wanted: u32,
        /// How many could take it.
        available: u32,
        /// What is missing, for people.
        why: String,
    },
    /// There is no such pin.
    #[error("pin is not part of the pinset")]
    NotFound,
    /// This peer is not a member of the cluster, or not any more.
    #[error("this peer is not a member of the cluster")]
    NotMember,
    /// A field of the pin exceeds its limit.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// No answer came in time. It may still happen.
    #[error("no answer in time: the request may still take effect")]
    Unknown,
}
