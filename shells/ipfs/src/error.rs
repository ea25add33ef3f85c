//! Errors of the embedded node.

use crate::Cid;
use libp2p::{Multiaddr, PeerId};

/// An error of the embedded node. Texts that Kubo's clients compare are identical to Kubo's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The block is not stored locally, and no peer was asked or no peer has it.
    #[error("block was not found locally (offline): ipld: could not find {0}")]
    NotFound(Cid),
    /// Another process has the data folder open.
    #[error("the ipfs data folder {0} is in use by another process; stop that one first")]
    Locked(String),
    /// The data folder contains something that this version cannot use.
    #[error("{0}")]
    Damaged(String),
    /// The disk returns other bytes for a block than were written, or none.
    #[error(
        "the block {cid} is damaged on the disk ({why}); it is replaced as soon as a connected peer has it"
    )]
    DamagedBlock {
        /// CID of the damaged block.
        cid: Cid,
        /// Location and kind of the damage.
        why: String,
    },
    /// The database failed. After a failed write it refuses all further writes until the node is reopened.
    #[error("ipfs block store: {0}")]
    Store(String),
    /// Writing would exceed the storage limit.
    #[error(
        "the ipfs repository is full: {used} of {max} bytes used, {asked} more needed; \
             free some with a garbage collection or raise storage_max"
    )]
    Full {
        /// Bytes stored now.
        used: u64,
        /// Size of the refused write, in bytes.
        asked: u64,
        /// The storage limit, in bytes.
        max: u64,
    },
    /// The bytes of a block do not hash to its CID.
    #[error("block does not match its cid {0}")]
    Mismatch(Cid),
    /// The block is larger than bitswap transfers.
    #[error("block of {size} bytes exceeds the limit of {max} bytes")]
    TooLarge {
        /// Size of the refused block, in bytes.
        size: usize,
        /// The limit, in bytes.
        max: usize,
    },
    /// Blocks with this CID's hash function cannot be verified.
    #[error("cid {0} uses a hash function that is not supported")]
    UnsupportedHash(Cid),
    /// The CID has no pin.
    #[error("{0} is not pinned or pinned indirectly")]
    NotPinned(Cid),
    /// The pin exists in another mode, or another pin prevents the change.
    #[error("{cid}: {why}")]
    Pinned {
        /// The conflicting pin.
        cid: Cid,
        /// Description of the conflict.
        why: &'static str,
    },
    /// Invalid input of the caller.
    #[error("{0}")]
    Invalid(String),
    /// A feature of Kubo that this node does not implement.
    #[error("{0} is not supported by the embedded node")]
    Unsupported(String),
    /// The block cannot be decoded with its CID's codec.
    #[error("block {cid} is malformed: {why}")]
    Malformed {
        /// CID of the malformed block.
        cid: Cid,
        /// Description of the decoding error.
        why: String,
    },
    /// The path names a link that does not exist.
    #[error("no link named {name:?} under {cid}")]
    NoLink {
        /// Name of the missing link; bytes that are not UTF-8 are replaced.
        name: String,
        /// The node without that link.
        cid: Cid,
    },
    /// A name has no valid record, or more than one.
    #[error("{0}")]
    NoName(String),
    /// Looking up a name failed, so its record is unknown.
    #[error("{0}")]
    NameLookup(String),
    /// The path of a file was expected, but names a directory.
    #[error("this dag node is a directory")]
    IsDirectory,
    /// Dialling failed.
    #[error("cannot connect to {peer}: {why}")]
    Dial {
        /// The dialled peer.
        peer: PeerId,
        /// Reason of the failure.
        why: String,
    },
    /// There is no connection to the peer.
    #[error("not connected to {0}")]
    NotConnected(PeerId),
    /// There is no connection with the address.
    #[error("no connection with {0}")]
    NoConnection(Multiaddr),
    /// The request would hold more memory than one request may.
    #[error(
        "this takes more than {max} bytes of memory at once; ask for less, or with stream=true where \
         there is that option"
    )]
    TooMuchMemory {
        /// The limit, in bytes.
        max: usize,
    },
    /// Too many such operations are running.
    #[error("{0}; try again later")]
    Busy(&'static str),
    /// Reading the caller's data failed, or an I/O operation on one of the node's files.
    #[error("{what}: {source}")]
    Io {
        /// The data or file concerned.
        what: String,
        /// The operating system's error.
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

    /// Copies the error for another receiver; for errors of storing a block, which may have several waiters.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others never come from storing a block"
    )]
    pub(crate) fn clone_for_waiter(&self) -> Error {
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
