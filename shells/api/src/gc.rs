//! Garbage collection and repository size of the IPFS nodes.

use crate::nullable::{null_if_empty, or_default};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Results of garbage collection by peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GlobalRepoGc {
    /// Result by peer id; `null` when empty.
    #[schemars(with = "Option<BTreeMap<String, RepoGc>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub peer_map: BTreeMap<String, RepoGc>,
}

/// Result of garbage collection at one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RepoGc {
    /// Peer id.
    pub peer: String,
    /// Peer name.
    pub peername: String,
    /// Removed blocks and errors; `[]` when empty, as in the Go peer.
    #[serde(deserialize_with = "or_default")]
    pub keys: Vec<IpfsRepoGc>,
    /// Bytes of disk that were freed; omitted when unknown, as from Kubo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freed_bytes: Option<u64>,
    /// Error of the whole run; omitted when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// A removed block, or an error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IpfsRepoGc {
    /// CID of the removed block; `null` for an error.
    pub key: Option<String>,
    /// Error text; omitted when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// Repository size of an IPFS node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpfsRepoStat {
    /// Bytes in use.
    pub repo_size: u64,
    /// Bytes allowed.
    pub storage_max: u64,
}
