//! Errors of the network.

use std::io;
use std::time::Duration;

use cluster_core::PeerId;

/// Failure to start the network.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address to listen on is taken, or does not exist on this machine.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// The address, as configured.
        address: String,
        /// The system's error, and what to do.
        why: String,
    },
    /// No configured address can be listened on; the text lists those that were skipped.
    #[error("none of the configured listen addresses can be used ({0}): add one like /ip4/0.0.0.0/tcp/9096")]
    NoAddress(String),
    /// The identity cannot be used.
    #[error("cannot use this identity: {0}")]
    Identity(String),
    /// The system's resolver or runtime cannot be used.
    #[error("cannot set up the network: {0}")]
    Setup(#[from] io::Error),
}

/// Failure of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// There is no connection to the peer, and none could be made. It has not seen the call.
    #[error("cannot reach peer {peer}: {why}")]
    Unreachable {
        /// The called peer.
        peer: PeerId,
        /// The last dial error.
        why: String,
    },
    /// The peer refused before starting on it, or this side's limits did. It has had no effect.
    #[error("peer {peer} refuses {method}: {why}")]
    Refused {
        /// The called peer.
        peer: PeerId,
        /// Name of the method.
        method: String,
        /// The reason, in the peer's words.
        why: String,
    },
    /// The method failed; the text is the peer's.
    #[error("{0}")]
    Failed(String),
    /// The deadline passed. The call may still take effect.
    #[error("peer {peer} has not answered {method} within {after:?}")]
    Late {
        /// The called peer.
        peer: PeerId,
        /// Name of the method.
        method: String,
        /// Time for which the caller waited.
        after: Duration,
    },
    /// The stream broke. The call may have taken effect or not.
    #[error("lost peer {peer} during {method}: {why}")]
    Lost {
        /// The called peer.
        peer: PeerId,
        /// Name of the method.
        method: String,
        /// The stream's error.
        why: String,
    },
    /// A request, chunk or answer is too long, or cannot be decoded.
    #[error("{0}")]
    Invalid(String),
}

/// Failure of a snapshot transfer, at either end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is no connection to the peer.
    #[error("cannot send a snapshot to peer {peer}: {why}")]
    Unreachable {
        /// The receiver.
        peer: PeerId,
        /// The last dial error.
        why: String,
    },
    /// The receiver does not accept it.
    #[error("peer {peer} rejects the snapshot: {why}")]
    Rejected {
        /// The receiver.
        peer: PeerId,
        /// The reason, in the receiver's words.
        why: String,
    },
    /// The transfer broke off.
    #[error("the snapshot transfer with peer {peer} broke off: {why}")]
    Lost {
        /// The peer at the other end.
        peer: PeerId,
        /// The stream's error.
        why: String,
    },
    /// The sender could not read its pinset.
    #[error("cannot read the snapshot for peer {peer}: {why}")]
    Source {
        /// The receiver.
        peer: PeerId,
        /// The store's error.
        why: String,
    },
}
