//! Errors of operations, by what the caller can do about them.

use cluster_core::Refusal;

use crate::net::CallError;
use crate::store::StoreError;

/// Error of an operation. The text is for people, and names what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
    /// This peer does not support the request.
    #[error("{0}")]
    Unsupported(String),
    /// A credential has reached one of its limits.
    #[error("{why}")]
    Limit {
        /// Name of the limit in metrics: `pins` or `bytes`.
        limit: &'static str,
        /// Text for display.
        why: String,
    },
    /// The state machine refused the request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The IPFS node, or the IPFS nodes of too many peers, failed.
    #[error("{0}")]
    Ipfs(String),
    /// Another peer does not answer, or answers with an error.
    #[error("{0}")]
    Peer(String),
    /// The database failed.
    #[error("the database cannot be read: {0}")]
    Store(String),
    /// This peer is shutting down.
    #[error("this peer is shutting down")]
    Closed,
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        Self::Peer(error.to_string())
    }
}

impl From<cluster_ipfs::backend::Error> for Error {
    fn from(error: cluster_ipfs::backend::Error) -> Self {
        Self::Ipfs(error.to_string())
    }
}
