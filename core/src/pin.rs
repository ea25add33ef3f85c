//! Pins: the replicated records of what must stay pinned.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Cid, Index, PeerId};
use crate::planted::planted;
use crate::time::Timestamp;

/// Depth of a pin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Mode {
    /// Only the block itself.
    Direct,
    /// The block and all blocks that it links to, directly or not.
    #[default]
    Recursive,
}

/// Content type of a pin. This cluster creates only `Data`; the others come from imported states.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PinType {
    /// A regular DAG.
    #[default]
    Data,
    /// The root of a sharded DAG.
    Meta,
    /// The DAG that links to the shards of a sharded DAG.
    ClusterDag,
    /// One shard of a sharded DAG.
    Shard,
}

/// Replication factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Replicas {
    /// A copy on every peer, including those that join later. `-1` in the REST API.
    Everywhere,
    /// At least `min` and at most `max` copies; `1 <= min <= max`.
    Range {
        /// Number of live copies below which the pin is repaired.
        min: u32,
        /// Number of copies of a new allocation, if enough peers are available.
        max: u32,
    },
}

/// Options of a pin, as requested by a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinOptions {
    /// Replication factor.
    pub replicas: Replicas,
    /// Name, for display.
    pub name: String,
    /// Depth of the pin.
    pub mode: Mode,
    /// Maximum size of a shard of a sharded DAG, in bytes. Kept for the API; this cluster does not shard.
    pub shard_size: u64,
    /// Peers to prefer, best first.
    pub user_allocations: Vec<PeerId>,
    /// Expiry time, at which the leader removes the pin.
    pub expire_at: Option<Timestamp>,
    /// User-defined metadata, not interpreted.
    pub metadata: BTreeMap<String, String>,
    /// A pin with mostly the same blocks, whose allocations and options this one takes over.
    pub pin_update: Option<Cid>,
    /// Multiaddresses, each with a peer id, of IPFS nodes that have the content.
    pub origins: Vec<String>,
}

impl PinOptions {
    /// Returns the options of a recursive pin without a name, an expiry or other extras.
    pub fn new(replicas: Replicas) -> Self {
        Self {
            replicas,
            name: String::new(),
            mode: Mode::Recursive,
            shard_size: 0,
            user_allocations: Vec::new(),
            expire_at: None,
            metadata: BTreeMap::new(),
            pin_update: None,
            origins: Vec::new(),
        }
    }
}

/// A pin of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The pinned CID.
    pub cid: Cid,
    /// Content type.
    pub pin_type: PinType,
    /// The peers that must hold it, sorted; empty if every peer must.
    pub allocations: Vec<PeerId>,
    /// Related pin of a sharded DAG, for the types that have one.
    pub reference: Option<Cid>,
    /// Options, as requested.
    pub options: PinOptions,
    /// Time of the request, or of the original pin if imported.
    pub timestamp: Timestamp,
    /// Version: log index of the last command that changed the pin.
    pub version: Index,
}

impl Pin {
    /// Returns whether `peer` must hold the pin.
    pub fn is_allocated_to(&self, peer: &PeerId) -> bool {
        self.options.replicas == Replicas::Everywhere || self.allocations.contains(peer)
    }

    /// Returns whether two pins are equal apart from version and timestamp.
    pub fn is_equivalent(&self, other: &Self) -> bool {
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
    fn pins_that_differ_in_any_option_are_not_equivalent() {
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
        assert!(pin.is_equivalent(&later), "time and version do not matter");
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
            assert!(!pin.is_equivalent(&other), "change {number}");
        }
    }
}
