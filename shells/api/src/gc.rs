//! Garbage collection and size of the IPFS nodes' repositories.

use crate::nullable::{null_if_empty, or_default};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What garbage collection did, by peer id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GlobalRepoGc {
    /// Peer id to result; `null` when empty.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub peer_map: BTreeMap<String, RepoGc>,
}

/// What garbage collection did at one peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RepoGc {
    /// The peer's id.
    pub peer: String,
    /// Its name.
    pub peername: String,
    /// What was removed, or could not be; `[]` when empty, as the Go peer makes it.
    #[serde(deserialize_with = "or_default")]
    pub keys: Vec<IpfsRepoGc>,
    /// Why nothing could be done; left out when empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// One block that was removed, or one error.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpfsRepoGc {
    /// The CID; `null` for an error.
    pub key: Option<String>,
    /// What went wrong; left out when nothing did.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// The size of an IPFS node's repository.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct IpfsRepoStat {
    /// Bytes in use.
    pub repo_size: u64,
    /// Bytes allowed.
    pub storage_max: u64,
}
