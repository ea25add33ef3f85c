//! The agreed record of what must stay pinned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, Index, PeerId};
use crate::time::Timestamp;

/// How much of a DAG a pin keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// The block itself only.
    Direct,
    /// The block and all that it links to.
    #[default]
    Recursive,
}

/// What a pin stands for. Only `Data` is made here; the others come with an imported state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PinType {
    /// Content.
    #[default]
    Data,
    /// The root of a sharded DAG.
    Meta,
    /// The DAG that lists the shards of a sharded DAG.
    ClusterDag,
    /// One shard.
    Shard,
}

/// How many copies are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Replicas {
    /// One on every peer, those that join later included. The API's `-1`.
    Everywhere,
    /// At least `min`, at most `max`; `1 <= min <= max`.
    Range {
        /// Fewer living copies than this are repaired.
        min: u32,
        /// A new allocation takes this many where it can.
        max: u32,
    },
}

/// What a client may ask of a pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinOptions {
    /// How many copies.
    pub replicas: Replicas,
    /// A label for people.
    pub name: String,
    /// How deep.
    pub mode: Mode,
    /// The largest shard of a sharded DAG, in bytes. Kept for the API; sharding is not done here.
    pub shard_size: u64,
    /// Peers to prefer, in this order.
    pub user_allocations: Vec<PeerId>,
    /// When to unpin by itself.
    pub expire_at: Option<Timestamp>,
    /// Labels for programs.
    pub metadata: BTreeMap<String, String>,
    /// The pin that this one replaces: its blocks are probably here already.
    pub pin_update: Option<Cid>,
    /// Multiaddresses, each with a peer id, of IPFS nodes that have the content.
    pub origins: Vec<String>,
}

/// An agreed pin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// What is pinned.
    pub cid: Cid,
    /// What it stands for.
    pub pin_type: PinType,
    /// The peers that must hold it, sorted; empty when every peer must.
    pub allocations: Vec<PeerId>,
    /// The sharded DAG's other part, for the types that have one.
    pub reference: Option<Cid>,
    /// What the client asked for.
    pub options: PinOptions,
    /// When it was asked for.
    pub timestamp: Timestamp,
    /// The log position of the last command that changed it: its version.
    pub version: Index,
}

impl Pin {
    /// Whether `peer` must hold it.
    pub fn is_allocated_to(&self, peer: &PeerId) -> bool {
        self.options.replicas == Replicas::Everywhere || self.allocations.contains(peer)
    }

    /// Whether both ask for the same thing, whoever asked first.
    pub fn same_wish(&self, other: &Self) -> bool {
        self.cid == other.cid
            && self.pin_type == other.pin_type
            && self.allocations == other.allocations
            && self.reference == other.reference
            && self.options == other.options
    }
}
