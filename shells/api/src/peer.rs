//! Who the peers are.

use crate::nullable::{null_if_empty, or_default};
use serde::{Deserialize, Serialize};

/// What a peer says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Id {
    /// Its peer id.
    pub id: String,
    /// Where it listens, ending in `/p2p/<id>`; `null` when empty.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// The ids of all peers it knows, itself included; `null` when empty.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub cluster_peers: Vec<String>,
    /// The addresses of the others.
    #[serde(deserialize_with = "or_default")]
    pub cluster_peers_addresses: Vec<String>,
    /// Its version.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// What it speaks with other peers.
    pub rpc_protocol_version: String,
    /// Why it could not be asked; empty if it could.
    pub error: String,
    /// Its IPFS node.
    pub ipfs: IpfsId,
    /// Its name.
    pub peername: String,
}

/// What a peer says of its IPFS node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpfsId {
    /// Its peer id; left out when unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Where it listens; `null` when empty.
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Why it could not be asked; empty if it could.
    pub error: String,
}

/// The body of `POST /peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerAdd {
    /// The peer to add.
    pub peer_id: String,
    /// Where it is, ending in `/p2p/<id>`, as in v0.0.12; left out when empty. The id may then be missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer_multiaddress: String,
}

/// The answer of `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Version {
    /// The peer's version.
    pub version: String,
}
