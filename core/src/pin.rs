//! The agreed record of what must stay pinned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, Index, PeerId};
use crate::planted::planted;
use crate::time::Timestamp;

/// How much of a DAG a pin keeps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// The block itself only.
    Direct,
    /// The block and all that it links to.
    #[default]
    Recursive,
}

/// What a pin stands for. Only `Data` is made here; the others come with an imported state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
            && (self.options == other.options
                || planted!(RenewalIgnored)
                    && self.options
                        == PinOptions {
                            expire_at: self.options.expire_at,
                            ..other.options.clone()
                        }
                || planted!(OptionsIgnored)
                    && self.options
                        == PinOptions {
                            metadata: self.options.metadata.clone(),
                            origins: self.options.origins.clone(),
                            ..other.options.clone()
                        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, options, peer};

    #[test]
    fn pins_that_differ_in_any_option_are_different_wishes() {
        let pin = Pin {
            cid: cid(1),
            pin_type: PinType::Data,
            allocations: Vec::new(),
            reference: None,
            options: options(Replicas::Everywhere),
            timestamp: Timestamp(1),
            version: 1,
        };
        let later = Pin {
            timestamp: Timestamp(2),
            version: 2,
            ..pin.clone()
        };
        assert!(pin.same_wish(&later), "time and version are not asked for");
        let changes: [fn(&mut PinOptions); 8] = [
            |options| options.replicas = Replicas::Range { min: 1, max: 2 },
            |options| options.name = "other".to_owned(),
            |options| options.mode = Mode::Direct,
            |options| options.user_allocations = vec![peer(1)],
            |options| options.expire_at = Some(Timestamp(9)),
            |options| drop(options.metadata.insert("a".to_owned(), "b".to_owned())),
            |options| options.pin_update = Some(cid(2)),
            |options| options.origins = vec!["/ip4/10.0.0.1/tcp/4001".to_owned()],
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut other = pin.clone();
            change(&mut other.options);
            assert!(!pin.same_wish(&other), "change {number}");
        }
    }
}
