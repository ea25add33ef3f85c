//! What can go wrong.

use std::io;
use std::time::Duration;

use cluster_core::PeerId;

/// Why the network could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address to listen on is taken, or does not exist on this machine.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// As configured.
        address: String,
        /// What happened, and what to do.
        why: String,
    },
    /// Nothing to listen on is left.
    #[error("none of the configured listen addresses can be used ({0}): add one like /ip4/0.0.0.0/tcp/9096")]
    NoAddress(String),
    /// The identity cannot be used.
    #[error("cannot use this identity: {0}")]
    Identity(String),
    /// The system's resolver or runtime cannot be used.
    #[error("cannot set up the network: {0}")]
    Setup(#[from] io::Error),
}

/// Why a call did not come to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection to the peer, and none could be made. It has not seen the call.
    #[error("cannot reach peer {peer}: {why}")]
    Unreachable {
        /// Whom.
        peer: PeerId,
        /// Why not.
        why: String,
    },
    /// The peer, or this side on its behalf, did not even try.
    #[error("peer {peer} refuses {method}: {why}")]
    Refused {
        /// Who.
        peer: PeerId,
        /// What.
        method: String,
        /// In its own words.
        why: String,
    },
    /// The peer tried and failed, with its own words.
    #[error("{0}")]
    Failed(String),
    /// Too late. It may still happen.
    #[error("peer {peer} has not answered {method} within {after:?}")]
    Late {
        /// Who.
        peer: PeerId,
        /// What.
        method: String,
        /// For how long it was waited.
        after: Duration,
    },
    /// The stream broke. What it was about may have happened or not.
    #[error("lost peer {peer} during {method}: {why}")]
    Lost {
        /// Whom.
        peer: PeerId,
        /// What.
        method: String,
        /// How.
        why: String,
    },
    /// What was to be sent, or what came, is not what it should be.
    #[error("{0}")]
    Invalid(String),
}

/// Why a snapshot was not delivered, or did not arrive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is no connection to the peer.
    #[error("cannot send a snapshot to peer {peer}: {why}")]
    Unreachable {
        /// Whom.
        peer: PeerId,
        /// Why not.
        why: String,
    },
    /// The receiver does not want it.
    #[error("peer {peer} rejects the snapshot: {why}")]
    Rejected {
        /// Who.
        peer: PeerId,
        /// In its own words.
        why: String,
    },
    /// It broke off.
    #[error("the snapshot transfer with peer {peer} broke off: {why}")]
    Lost {
        /// With whom.
        peer: PeerId,
        /// How.
        why: String,
    },
    /// The pinset could not be read.
    #[error("cannot read the snapshot for peer {peer}: {why}")]
    Source {
        /// For whom.
        peer: PeerId,
        /// Why.
        why: String,
    },
}
