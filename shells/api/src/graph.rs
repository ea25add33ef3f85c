//! Graph of connections between peers and IPFS nodes.

use crate::nullable::or_default;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Response to `GET /health/graph`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConnectGraph {
    /// Id of the peer that was asked.
    pub cluster_id: String,
    /// Peer names by peer id.
    #[serde(deserialize_with = "or_default")]
    pub id_to_peername: BTreeMap<String, String>,
    /// Ids of connected IPFS nodes, by id of an IPFS node.
    #[serde(deserialize_with = "or_default")]
    pub ipfs_links: BTreeMap<String, Vec<String>>,
    /// Ids of connected peers, by peer id; empty if the peer did not respond.
    #[serde(deserialize_with = "or_default")]
    pub cluster_links: BTreeMap<String, Vec<String>>,
    /// Trust of the peer that was asked, by peer id.
    #[serde(deserialize_with = "or_default")]
    pub cluster_trust_links: BTreeMap<String, bool>,
    /// Id of the IPFS node by peer id; no entry if the node did not respond.
    #[serde(deserialize_with = "or_default")]
    pub cluster_to_ipfs: BTreeMap<String, String>,
}
