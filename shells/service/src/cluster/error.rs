//! Why an operation fails, sorted by what the caller can do about it.

use cluster_core::Refusal;

use super::world::StoreError;

/// Why an operation fails. The text is for people, and names what is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The request makes no sense as it is.
    #[error("{0}")]
    Invalid(String),
    /// What this peer cannot do at all.
    #[error("{0}")]
    Unsupported(String),
    /// The cluster refused it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The IPFS node, or the IPFS nodes of too many peers, failed.
    #[error("{0}")]
    Ipfs(String),
    /// Another peer does not answer, or not as it should.
    #[error("{0}")]
    Peer(String),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This peer is shutting down.
    #[error("this peer is shutting down")]
    Closed,
}

impl From<cluster_ipfs::backend::Error> for Error {
    fn from(error: cluster_ipfs::backend::Error) -> Self {
        Self::Ipfs(error.to_string())
    }
}
