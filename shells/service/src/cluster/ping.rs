//! Value of the `ping` metric, from which peers know each other's names and IPFS nodes without a call.

use serde::{Deserialize, Serialize};

use super::rpc::PeerDetails;

/// Details that a peer sends with every `ping`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PingValue {
    /// Name of the peer.
    pub peer_name: String,
    /// Id of its IPFS node; empty while unknown.
    pub ipfs_id: String,
    /// Addresses that its IPFS node listens on.
    pub ipfs_addresses: Vec<String>,
    /// Version of its program; empty for releases that do not send it.
    pub version: String,
    /// Pins of the cluster that its IPFS node held at its last count; `None` before the first.
    pub pins_held: Option<u64>,
}

impl PingValue {
    /// Encodes the value as JSON.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Decodes a value; an invalid one is empty.
    pub fn decode(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl From<PingValue> for PeerDetails {
    fn from(value: PingValue) -> Self {
        Self {
            peername: value.peer_name,
            ipfs_id: value.ipfs_id,
            ipfs_addresses: value.ipfs_addresses,
        }
    }
}
