//! What a peer asks of its IPFS node and what it gets back, the same for every backend.

use crate::Cid;
use libp2p::{Multiaddr, PeerId};

use crate::PinMode;

/// What the node says of one CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinState {
    /// Pinned itself, in this mode.
    Pinned(PinMode),
    /// Held only because something above it is pinned.
    Indirect,
    /// Not held by any pin.
    Unpinned,
}

/// One pin to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinRequest {
    /// The root to hold.
    pub cid: Cid,
    /// The block alone or all below it.
    pub mode: PinMode,
    /// A label kept with the pin, where the node has room for one; may be empty.
    pub name: String,
    /// Where the content is known to be; the node is asked to connect there first.
    pub origins: Vec<Multiaddr>,
    /// A pin that shares much with this one: only the difference has to be fetched.
    pub update_from: Option<Cid>,
}

impl PinRequest {
    /// A recursive pin of `cid` without name, origins or predecessor.
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

/// Who the node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its libp2p peer id.
    pub id: PeerId,
    /// Where it listens, with the peer id at the end when the node says so.
    pub addresses: Vec<Multiaddr>,
    /// Its program and version, such as `kubo/0.43.0`.
    pub agent: String,
}

/// How much room the node uses and has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepoStat {
    /// What is stored now.
    pub size: u64,
    /// What may be stored; `u64::MAX` when nothing limits it.
    pub storage_max: u64,
}

/// What a call of `put_blocks` stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// How many blocks, duplicates counted again.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One step of a garbage collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Collected {
    /// This block is gone. Nodes that store by multihash name it as a CIDv1 of raw bytes.
    Removed(Cid),
    /// A block could not be removed, in the node's words; the collection goes on.
    Failed(String),
    /// Bytes of disk that were freed; comes last, and only from the embedded node.
    Freed(u64),
}
