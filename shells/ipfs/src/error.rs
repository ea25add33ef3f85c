//! What can go wrong in the embedded node.

use crate::Cid;
use libp2p::{Multiaddr, PeerId};

/// An error of the embedded node. Texts that Kubo's clients compare are Kubo's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The block is not here, and the network was not asked or nobody had it.
    #[error("block was not found locally (offline): ipld: could not find {0}")]
    NotFound(Cid),
    /// Another process holds the data folder.
    #[error("the ipfs data folder {0} is in use by another process; stop that one first")]
    Locked(String),
    /// The data folder holds something this version cannot use.
    #[error("{0}")]
    Damaged(String),
    /// The disk gives other bytes for a block than were written, or none.
    #[error(
        "the block {cid} is damaged on the disk ({why}); it is replaced as soon as a connected peer has it"
    )]
    DamagedBlock {
        /// The block.
        cid: Cid,
        /// Where and what the damage is.
        why: String,
    },
    /// The database failed. After a failed write it refuses all further ones until the node is reopened.
    #[error("ipfs block store: {0}")]
    Store(String),
    /// Writing would pass the configured limit.
    #[error(
        "the ipfs repository is full: {used} of {max} bytes used, {asked} more needed; \
             free some with a garbage collection or raise storage_max"
    )]
    Full {
        /// Bytes held now.
        used: u64,
        /// Bytes that were to be written.
        asked: u64,
        /// The limit, bytes.
        max: u64,
    },
    /// The bytes of a block do not hash to its CID.
    #[error("block does not match its cid {0}")]
    Mismatch(Cid),
    /// A block larger than bitswap carries.
    #[error("block of {size} bytes exceeds the limit of {max} bytes")]
    TooLarge {
        /// Size of the refused block, bytes.
        size: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// The CID's hash function is not one we can verify.
    #[error("cid {0} uses a hash function that is not supported")]
    UnsupportedHash(Cid),
    /// No such pin.
    #[error("{0} is not pinned or pinned indirectly")]
    NotPinned(Cid),
    /// The other mode is asked of a pin, or it is held by another one.
    #[error("{cid}: {why}")]
    Pinned {
        /// The pin in the way.
        cid: Cid,
        /// In which way it is.
        why: &'static str,
    },
    /// The caller's input is wrong.
    #[error("{0}")]
    Invalid(String),
    /// A part of Kubo's vocabulary that this node does not have.
    #[error("{0} is not supported by the embedded node")]
    Unsupported(String),
    /// A block does not decode as its codec says.
    #[error("block {cid} is malformed: {why}")]
    Malformed {
        /// The block.
        cid: Cid,
        /// What is wrong with it.
        why: String,
    },
    /// The path leads nowhere.
    #[error("no link named {name:?} under {cid}")]
    NoLink {
        /// The missing name.
        name: String,
        /// The node that should have it.
        cid: Cid,
    },
    /// A file is needed, a directory is there.
    #[error("this dag node is a directory")]
    IsDirectory,
    /// Dialling failed.
    #[error("cannot connect to {peer}: {why}")]
    Dial {
        /// Who was dialled.
        peer: PeerId,
        /// Why it failed.
        why: String,
    },
    /// No connection to that peer.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// No connection with that address.
    #[error("no connection with {0}")]
    NoConnection(Multiaddr),
    /// The answer would take more memory than one request may hold.
    #[error(
        "this takes more than {max} bytes of memory at once; ask for less, or with stream=true where \
         there is that option"
    )]
    TooMuchMemory {
        /// The limit, bytes.
        max: usize,
    },
    /// Too much of it is going on.
    #[error("{0}; try again later")]
    Busy(&'static str),
    /// Reading the caller's data failed, or a file of the node could not be used.
    #[error("{what}: {source}")]
    Io {
        /// What was read or written.
        what: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The node has been shut down.
    #[error("the ipfs node is shut down")]
    Closed,
}

impl Error {
    pub(crate) fn invalid(text: impl Into<String>) -> Error {
        Error::Invalid(text.into())
    }

    pub(crate) fn malformed(cid: &Cid, why: impl Into<String>) -> Error {
        Error::Malformed {
            cid: *cid,
            why: why.into(),
        }
    }

    /// The same error for one more receiver, of those that storing a block can give.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others never come from storing a block"
    )]
    pub(crate) fn again(&self) -> Error {
        match self {
            Error::Full { used, asked, max } => Error::Full {
                used: *used,
                asked: *asked,
                max: *max,
            },
            Error::Closed => Error::Closed,
            Error::Store(text) => Error::Store(text.clone()),
            other => Error::Store(other.to_string()),
        }
    }

    pub(crate) fn io(what: impl Into<String>, source: std::io::Error) -> Error {
        let source = match source.raw_os_error() {
            Some(code) if code == rustix::io::Errno::MFILE.raw_os_error() => std::io::Error::other(format!(
                "{source}: raise this process's limit of open files (`ulimit -n`, `LimitNOFILE`)"
            )),
            _ => source,
        };
        Error::Io {
            what: what.into(),
            source,
        }
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Error {
        Error::Store(error.to_string())
    }
}
