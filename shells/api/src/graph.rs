//! Who is connected to whom.

use crate::nullable::or_default;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The answer of `GET /health/graph`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectGraph {
    /// The peer that was asked.
    pub cluster_id: String,
    /// Names by peer id.
    #[serde(deserialize_with = "or_default")]
    pub id_to_peername: BTreeMap<String, String>,
    /// From the id of an IPFS node to those it is connected to.
    #[serde(deserialize_with = "or_default")]
    pub ipfs_links: BTreeMap<String, Vec<String>>,
    /// From a peer to the peers it is connected to; empty if it could not be asked.
    #[serde(deserialize_with = "or_default")]
    pub cluster_links: BTreeMap<String, Vec<String>>,
    /// Which peers the asked one trusts.
    #[serde(deserialize_with = "or_default")]
    pub cluster_trust_links: BTreeMap<String, bool>,
    /// From a peer to its IPFS node; without entry if that could not be asked.
    #[serde(deserialize_with = "or_default")]
    pub cluster_to_ipfs: BTreeMap<String, String>,
}
