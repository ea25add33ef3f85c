//! The value of the `ping` metric: how peers know each other's names and IPFS nodes without asking.

use serde::{Deserialize, Serialize};

use super::rpc::Speaker;

/// What a peer says of itself with every `ping`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PingValue {
    /// Its name.
    pub peer_name: String,
    /// Its IPFS node's id; empty while unknown.
    pub ipfs_id: String,
    /// Where its IPFS node listens.
    pub ipfs_addresses: Vec<String>,
}

impl PingValue {
    /// As it travels: JSON.
    pub fn encode(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a value; nonsense says nothing.
    pub(super) fn decode(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}

impl From<PingValue> for Speaker {
    fn from(value: PingValue) -> Self {
        Self {
            peername: value.peer_name,
            ipfs_id: value.ipfs_id,
            ipfs_addresses: value.ipfs_addresses,
        }
    }
}
