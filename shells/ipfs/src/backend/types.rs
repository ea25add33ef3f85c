//! Parameters and results of [`Backend`](super::Backend) calls, the same for every kind of node.

use crate::Cid;
use libp2p::{Multiaddr, PeerId};

use crate::PinMode;

/// State of one CID in the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinState {
    /// Has its own pin, of this mode.
    Pinned(PinMode),
    /// Held only because a recursive pin is above it.
    Indirect,
    /// Not held by any pin.
    Unpinned,
}

/// A pin to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRequest {
    /// Root of the pin.
    pub cid: Cid,
    /// Recursive or direct.
    pub mode: PinMode,
    /// Label stored with the pin, if the node supports it; may be empty.
    pub name: String,
    /// Addresses of peers known to have the content; the node connects to them first.
    pub origins: Vec<Multiaddr>,
    /// An existing pin with much the same content: only the difference has to be fetched.
    pub update_from: Option<Cid>,
}

impl PinRequest {
    /// Returns a request for a recursive pin of `cid` without name, origins or predecessor.
    pub fn recursive(cid: Cid) -> Self {
        PinRequest {
            cid,
            mode: PinMode::Recursive,
            name: String::new(),
            origins: Vec::new(),
            update_from: None,
        }
    }
}

/// Identity of the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// libp2p peer id of the node.
    pub id: PeerId,
    /// Listen addresses, with the peer id at the end if the node reports it.
    pub addresses: Vec<Multiaddr>,
    /// Program and version, such as `kubo/0.43.0`.
    pub agent: String,
}

/// Storage used and available, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepoStat {
    /// Bytes stored now.
    pub size: u64,
    /// Bytes that may be stored; `u64::MAX` if unlimited.
    pub storage_max: u64,
}

/// Count and size of the blocks stored by a call of `put_blocks`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Number of blocks; duplicates count again.
    pub blocks: u64,
    /// Size of those blocks, in bytes.
    pub bytes: u64,
}

/// One event of a garbage collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collected {
    /// This block was removed. Nodes that store by multihash report it as a CIDv1 with the raw codec.
    Removed(Cid),
    /// A block could not be removed, with the node's message; the collection continues.
    Failed(String),
    /// Bytes of disk that were freed; comes last, and only from the embedded node.
    Freed(u64),
}
