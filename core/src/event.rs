//! Events: inputs of the state machine, named in the past tense.

use serde::{Deserialize, Serialize};

use crate::credential::{Credential, CredentialId};
use crate::drain::Drain;
use crate::ids::{BatchId, Cid, OpId, PeerId, SnapshotId, Ticket};
use crate::metric::Metric;
use crate::pin::{Pin, PinOptions};
use crate::rebalance::RebalanceChange;
use crate::snapshot::Manifest;
use crate::time::Timestamp;
use crate::wire::{Envelope, RaftMessage};

/// An input of [`Node::handle`](crate::Node::handle).
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time is on its way, and most are messages"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A comparison ended, whether cancelled or not.
    IpfsCompared {
        /// The comparison.
        op: OpId,
        /// Success if all requested CIDs were compared.
        outcome: Result<(), IpfsError>,
    },
    /// An operation on the IPFS node ended, whether cancelled or not.
    IpfsFinished {
        /// The operation.
        op: OpId,
        /// Its result.
        outcome: Result<(), IpfsError>,
    },
    /// A comparison found pins missing. May come several times per comparison, in CID order.
    IpfsLacks {
        /// The comparison.
        op: OpId,
        /// The missing pins.
        missing: Vec<Missing>,
    },
    /// An operation or comparison made progress. Resets its timeout.
    IpfsProgressed {
        /// The operation or comparison.
        op: OpId,
    },
    /// This peer's metrics were measured. Answers [`Effect::Measure`](crate::Effect::Measure).
    Measured {
        /// All metrics of this peer, `ping` included.
        metrics: Vec<Metric>,
    },
    /// A batch and all earlier ones are durable. Required for each batch with `sync`; one event may
    /// acknowledge several.
    Persisted {
        /// The newest durable batch.
        batch: BatchId,
    },
    /// A message from a peer arrived.
    Received {
        /// The sender, authenticated by the network.
        from: PeerId,
        /// The message.
        envelope: Envelope,
    },
    /// A client made a request.
    Requested {
        /// Receipt, used in the reply. New for each request.
        ticket: Ticket,
        /// The request.
        request: Request,
    },
    /// A snapshot was received completely and staged on disk. The core answers with a
    /// [`Effect::DiscardSnapshot`](crate::Effect::DiscardSnapshot) or a batch with
    /// [`StoreOp::InstallSnapshot`](crate::StoreOp::InstallSnapshot).
    SnapshotReceived {
        /// The sender, authenticated by the network.
        from: PeerId,
        /// Id of the staged snapshot.
        snapshot: SnapshotId,
        /// Metadata of the snapshot.
        manifest: Manifest,
        /// The Raft message that announced it.
        message: RaftMessage,
    },
    /// A snapshot was sent, or sending it failed. Answers
    /// [`Effect::SendSnapshot`](crate::Effect::SendSnapshot).
    SnapshotSent {
        /// The receiver.
        to: PeerId,
        /// Set if the receiver has staged all of it.
        delivered: bool,
    },
    /// The deadline that [`Node::poll_timeout`](crate::Node::poll_timeout) returned has passed.
    TimedOut,
    /// A message could not be delivered.
    Unreachable {
        /// The receiver.
        peer: PeerId,
    },
}

impl Event {
    /// Returns whether the event must be handled alone, after all earlier batches are visible: handling it
    /// reads much of the disk, or replaces it.
    pub fn is_exclusive(&self) -> bool {
        matches!(self, Self::SnapshotReceived { .. } | Self::TimedOut)
    }
}

/// A client's request. Each gets exactly one [`Reply`](crate::Reply) or [`Refusal`](crate::Refusal).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Add a peer to the cluster. Answered once it is a member, before it has caught up.
    AddPeer {
        /// The peer to add.
        peer: PeerId,
    },
    /// Dry-run an allocation. The reply lists no peers if the pin would be allocated everywhere.
    Allocate {
        /// CID to pin, if known: it spreads pins among peers of equal rank.
        cid: Option<Cid>,
        /// Peer to prefer among those of equal rank, such as the one that has the content.
        near: Option<PeerId>,
        /// Options of the pin.
        options: PinOptions,
    },
    /// Wait until the local pinset includes everything that was acknowledged anywhere before (a linearizable
    /// read).
    Barrier,
    /// Add a credential.
    CreateCredential {
        /// The new credential.
        credential: Credential,
    },
    /// Drain a peer: move its pins to others, and allocate none to it. Changes the settings if it is being
    /// drained.
    Drain {
        /// The drain.
        drain: Drain,
    },
    /// End the drain of a peer. Its pins stay where they are.
    EndDrain {
        /// The drained peer.
        peer: PeerId,
    },
    /// Add a pin of an exported pinset. Its type, reference, options and timestamp are kept, its allocations
    /// are preferred, and it gets a new version.
    Import {
        /// The pin. A timestamp of zero is replaced by the current time.
        pin: Pin,
        /// Owner that holds the pin, besides those that it names; `None` for none.
        owner: Option<String>,
    },
    /// Pin a CID. While others hold its pin, it stays theirs too, with its timestamp.
    Pin {
        /// CID to pin.
        cid: Cid,
        /// Options of the pin.
        options: PinOptions,
        /// Owner that holds the pin; `None` for none.
        owner: Option<String>,
    },
    /// Change the rebalancing: its settings, or the start or end of a run.
    Rebalance {
        /// The change.
        change: RebalanceChange,
    },
    /// Retry a failed operation on this peer now.
    Recover {
        /// CID of the operation.
        cid: Cid,
    },
    /// Retry all failed operations on this peer now.
    RecoverAll,
    /// Remove a peer, live or dead, from the cluster. Answered once it is not a member any more.
    RemovePeer {
        /// The peer to remove.
        peer: PeerId,
    },
    /// Remove a credential.
    RevokeCredential {
        /// Id of the credential.
        id: CredentialId,
    },
    /// Compare the pins of this peer with those of its IPFS node now, and pin again what is missing.
    Sync {
        /// CID to compare; `None` for all.
        cid: Option<Cid>,
    },
    /// Remove a pin.
    Unpin {
        /// CID of the pin.
        cid: Cid,
        /// Owner that lets go of the pin, which others may still hold; `None` to remove it whoever holds it.
        owner: Option<String>,
    },
}

/// A CID that counts as pinned on this peer, but is not pinned on its IPFS node. The shell reads the local
/// state first, then the node's pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// The missing CID.
    pub cid: Cid,
    /// [`Local::since`](crate::Local::since) of the CID, as read for the comparison.
    pub since: Timestamp,
}

/// An operation on the IPFS node failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpfsError {
    /// Cancelled by [`Effect::CancelIpfs`](crate::Effect::CancelIpfs).
    Cancelled,
    /// Refused or failed, with the node's error text.
    Failed(String),
    /// The repository has no room for it, with the node's error text.
    Full(String),
}
