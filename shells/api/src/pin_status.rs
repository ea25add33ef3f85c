//! What the peers say of a CID.

use crate::nullable::{null_if_empty, or_default};
use crate::{StatusFilter, Time, TrackerStatus};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The status of one CID at every peer that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GlobalPinInfo {
    /// The CID.
    #[serde(deserialize_with = "or_default")]
    pub cid: String,
    /// The name of its pin.
    pub name: String,
    /// The peers (ids) that must hold it.
    #[serde(deserialize_with = "or_default")]
    pub allocations: Vec<String>,
    /// Multiaddresses that are known to have it.
    #[serde(deserialize_with = "or_default")]
    pub origins: Vec<String>,
    /// When it was pinned.
    pub created: Time,
    /// The pin's metadata; `null` when empty.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// Peer id to status; `null` when empty.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub peer_map: BTreeMap<String, PinInfoShort>,
}

impl GlobalPinInfo {
    /// Whether a peer's status is in `filter`.
    pub fn matches(&self, filter: StatusFilter) -> bool {
        self.peer_map.values().any(|info| filter.matches(info.status))
    }

    /// Takes in what one peer says. What the pin is about comes from the last peer that could be reached.
    pub fn add(&mut self, info: PinInfo) {
        if self.cid.is_empty() || info.info.status != TrackerStatus::ClusterError {
            self.cid = info.cid;
            self.name = info.name;
            self.allocations = info.allocations;
            self.origins = info.origins;
            self.created = info.created;
            self.metadata = info.metadata;
        }
        self.peer_map.insert(info.peer, info.info);
    }
}

/// One peer's share of a [`GlobalPinInfo`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinInfoShort {
    /// The peer's name.
    pub peername: String,
    /// The id of its IPFS node, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipfs_peer_id: String,
    /// The multiaddresses of its IPFS node, if known.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub ipfs_peer_addresses: Vec<String>,
    /// The status.
    pub status: TrackerStatus,
    /// Since when.
    pub timestamp: Time,
    /// What went wrong, if the status is an error.
    pub error: String,
    /// How often it was tried.
    pub attempt_count: u64,
    /// Whether it goes before older pins.
    pub priority_pin: bool,
}

/// What one peer says of one CID, alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinInfo {
    /// The CID.
    #[serde(deserialize_with = "or_default")]
    pub cid: String,
    /// The name of its pin.
    pub name: String,
    /// Who says so (peer id).
    pub peer: String,
    /// The peers (ids) that must hold it.
    #[serde(deserialize_with = "or_default")]
    pub allocations: Vec<String>,
    /// Multiaddresses that are known to have it.
    #[serde(deserialize_with = "or_default")]
    pub origins: Vec<String>,
    /// When it was pinned.
    pub created: Time,
    /// The pin's metadata; `null` when empty.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// The status and what belongs to it.
    #[serde(flatten)]
    pub info: PinInfoShort,
}

/// One pin of an IPFS node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpfsPinInfo {
    /// The CID.
    pub cid: String,
    /// `recursive`, `direct` or `indirect`.
    #[serde(rename = "Type")]
    pub pin_type: String,
}
