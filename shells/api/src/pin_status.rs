//! Status of a CID at the peers.

use crate::nullable::{null_if_empty, or_default};
use crate::{StatusFilter, Time, TrackerStatus};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Status of one CID at every peer that was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GlobalPinInfo {
    /// The CID.
    #[serde(deserialize_with = "or_default")]
    pub cid: String,
    /// Name of its pin.
    pub name: String,
    /// Ids of the peers that must hold it.
    #[serde(deserialize_with = "or_default")]
    pub allocations: Vec<String>,
    /// Multiaddresses of IPFS nodes that provide it.
    #[serde(deserialize_with = "or_default")]
    pub origins: Vec<String>,
    /// Time of the pin request.
    pub created: Time,
    /// The pin's metadata; `null` when empty.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// Status by peer id; `null` when empty.
    #[schemars(with = "Option<BTreeMap<String, PinInfoShort>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub peer_map: BTreeMap<String, PinInfoShort>,
}

impl GlobalPinInfo {
    /// Returns whether the status of any peer is in `filter`.
    pub fn matches(&self, filter: StatusFilter) -> bool {
        self.peer_map.values().any(|info| filter.matches(info.status))
    }

    /// Adds the status of one peer. Fields of the pin come from the last peer that responded.
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

/// Status of one CID at one peer, in a [`GlobalPinInfo`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PinInfoShort {
    /// Peer name.
    pub peername: String,
    /// Id of its IPFS node, if known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipfs_peer_id: String,
    /// Multiaddresses of its IPFS node, if known.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "or_default")]
    pub ipfs_peer_addresses: Vec<String>,
    /// Status of the CID.
    pub status: TrackerStatus,
    /// Time at which the status was entered.
    pub timestamp: Time,
    /// Error text, if the status is an error.
    pub error: String,
    /// Number of attempts.
    pub attempt_count: u64,
    /// The pin is in the queue for new pins, before retries of older ones.
    pub priority_pin: bool,
    /// Time at which its embedded IPFS node last announced the CID to the DHT; zero, and left out, if it has
    /// not or that is unknown. Only in the status of a single CID.
    #[serde(skip_serializing_if = "Time::is_zero")]
    pub announced: Time,
    /// Progress of the transfer to its IPFS node, once it has lasted for a second; absent otherwise. Only in
    /// the status of a single CID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// Time of the next attempt, if one is scheduled; zero, and left out, otherwise. Only in the status of a
    /// single CID.
    #[serde(skip_serializing_if = "Time::is_zero")]
    pub retry_at: Time,
}

/// Progress of a transfer to an IPFS node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Transfer {
    /// Number of blocks that the node holds by now.
    pub blocks: u64,
    /// Bytes fetched from other nodes so far.
    pub bytes: u64,
    /// Size of the whole DAG in bytes, as its root block states it; 0 if unknown. Blocks that were stored
    /// before are not fetched.
    pub total_bytes: u64,
    /// Time of the last progress.
    pub updated: Time,
}

/// Status of one CID at one peer, with the fields of the pin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PinInfo {
    /// The CID.
    #[serde(deserialize_with = "or_default")]
    pub cid: String,
    /// Name of its pin.
    pub name: String,
    /// Id of the peer.
    pub peer: String,
    /// Ids of the peers that must hold it.
    #[serde(deserialize_with = "or_default")]
    pub allocations: Vec<String>,
    /// Multiaddresses of IPFS nodes that provide it.
    #[serde(deserialize_with = "or_default")]
    pub origins: Vec<String>,
    /// Time of the pin request.
    pub created: Time,
    /// The pin's metadata; `null` when empty.
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub metadata: BTreeMap<String, String>,
    /// Status with its details.
    #[serde(flatten)]
    pub info: PinInfoShort,
}

/// Pin of an IPFS node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpfsPinInfo {
    /// The CID.
    pub cid: String,
    /// Pin type: `recursive`, `direct` or `indirect`.
    #[serde(rename = "Type")]
    pub pin_type: String,
}
