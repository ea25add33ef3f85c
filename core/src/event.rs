//! What happened. Events are named in the past tense.

use serde::{Deserialize, Serialize};

use crate::ids::{BatchId, Cid, OpId, PeerId, SnapshotId, Ticket};
use crate::metric::Metric;
use crate::pin::{Pin, PinOptions};
use crate::snapshot::Manifest;
use crate::time::Timestamp;
use crate::wire::{Envelope, RaftMessage};

/// Something that happened to this peer.
#[allow(
    clippy::large_enum_variant,
    reason = "one at a time is on its way, and most are messages"
)]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    /// A comparison ended, cancelled or not.
    IpfsCompared {
        /// Which one.
        op: OpId,
        /// Whether everything was compared.
        outcome: Result<(), IpfsError>,
    },
    /// An operation on the IPFS node ended, cancelled or not.
    IpfsFinished {
        /// Which one.
        op: OpId,
        /// How.
        outcome: Result<(), IpfsError>,
    },
    /// A comparison found pins missing: as many as are sent in one go, in the order of their CIDs.
    IpfsLacks {
        /// Which one.
        op: OpId,
        /// What.
        missing: Vec<Missing>,
    },
    /// A running operation, or a comparison, got further, so it is not stuck.
    IpfsProgressed {
        /// Which one.
        op: OpId,
    },
    /// This peer's own metrics, as asked for by [`Effect::Measure`](crate::Effect::Measure).
    Measured {
        /// All of them, `ping` included.
        metrics: Vec<Metric>,
    },
    /// This batch, and every earlier one, now survives power loss. Comes for each batch with `sync`;
    /// one answer may stand for several.
    Persisted {
        /// The newest that does.
        batch: BatchId,
    },
    /// A peer's message arrived. The network vouches for who sent it.
    Received {
        /// Who sent it.
        from: PeerId,
        /// What.
        envelope: Envelope,
    },
    /// A client wants something.
    Requested {
        /// Its receipt.
        ticket: Ticket,
        /// What it wants.
        request: Request,
    },
    /// A snapshot arrived whole and is staged on disk. Answered by one
    /// [`Effect::DiscardSnapshot`](crate::Effect::DiscardSnapshot) or by a batch that installs it.
    SnapshotReceived {
        /// Who sent it.
        from: PeerId,
        /// Its name here.
        snapshot: SnapshotId,
        /// What it is a snapshot of.
        manifest: Manifest,
        /// The message that announced it.
        message: RaftMessage,
    },
    /// A snapshot that was to be sent has been, or could not be.
    SnapshotSent {
        /// To whom.
        to: PeerId,
        /// Whether the receiver has all of it.
        delivered: bool,
    },
    /// The deadline that [`Node::poll_timeout`](crate::Node::poll_timeout) returned has passed.
    TimedOut,
    /// A message for this peer could not be delivered.
    Unreachable {
        /// Whom it did not reach.
        peer: PeerId,
    },
}

impl Event {
    /// Whether it must be handled by itself, after what came before is written: handling it reads much of
    /// what is on disk, or replaces it.
    pub fn goes_alone(&self) -> bool {
        matches!(self, Self::SnapshotReceived { .. } | Self::TimedOut)
    }
}

/// What a client may want. Each gets exactly one [`Reply`](crate::Reply) or [`Refusal`](crate::Refusal).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Let a peer into the cluster. Answered when it is a member; its data follow on their own.
    AddPeer {
        /// Whom.
        peer: PeerId,
    },
    /// Which peers a pin with these options would be allocated to; empty for everywhere.
    Allocate {
        /// What will be pinned, where it is known: it spreads pins among peers that rank alike.
        cid: Option<Cid>,
        /// Who comes first among peers that rank alike: the one that has the content to give.
        near: Option<PeerId>,
        /// How.
        options: PinOptions,
    },
    /// Wait until this peer's copy of the pinset holds all that was acknowledged anywhere before.
    Barrier,
    /// Keep this content, as an exported pinset has it: when it was asked for, what it stands for and what it
    /// replaced stay as they are. The peers that hold it by that are preferred, and its version is set anew.
    Import {
        /// The pin. Without a time it is as of now.
        pin: Pin,
    },
    /// Keep this content.
    Pin {
        /// What.
        cid: Cid,
        /// How.
        options: PinOptions,
    },
    /// Try what failed here again, at once.
    Recover {
        /// What.
        cid: Cid,
    },
    /// Try everything that failed here again, at once.
    RecoverAll,
    /// End a membership, of a peer alive or not. Answered when it has ended.
    RemovePeer {
        /// Whose.
        peer: PeerId,
    },
    /// Compare what counts as pinned here with what the IPFS node has, at once, and repair what is missing.
    Sync {
        /// Of what; `None` for everything.
        cid: Option<Cid>,
    },
    /// Keep it no more.
    Unpin {
        /// What.
        cid: Cid,
    },
}

/// A CID that counts as pinned here and that the IPFS node has no such pin of. The node was asked after the
/// local state was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Which.
    pub cid: Cid,
    /// Since when it counted as pinned, when it was compared.
    pub since: Timestamp,
}

/// Why an operation on the IPFS node failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum IpfsError {
    /// It was cancelled, as asked.
    Cancelled,
    /// The node refused or failed, with its own words.
    Failed(String),
}
