//! What a peer asks of its IPFS node and what it gets back, the same for every backend.

use bytes::Bytes;
use cid::Cid;
use libp2p::{Multiaddr, PeerId};

/// How much of a DAG a pin holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PinMode {
    /// The block and everything below it.
    Recursive,
    /// The block alone.
    Direct,
}

impl PinMode {
    /// The name of the mode in Kubo's API.
    pub fn as_str(self) -> &'static str {
        match self {
            PinMode::Recursive => "recursive",
            PinMode::Direct => "direct",
        }
    }
}

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

/// How far a running pin is. Both numbers only grow while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PinProgress {
    /// DAG nodes walked so far.
    pub nodes: u64,
    /// Bytes of those nodes; 0 when the node does not tell.
    pub bytes: u64,
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

/// One block and the name it must be stored under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its CID; the multihash must be that of `data`.
    pub cid: Cid,
    /// Its bytes.
    pub data: Bytes,
}

/// What a call of `put_blocks` stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stored {
    /// How many blocks, duplicates counted again.
    pub blocks: u64,
    /// Their bytes.
    pub bytes: u64,
}
