//! Identity, addresses and versions of peers.

use crate::nullable::{null_if_empty, or_default};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Response to `GET /id`, and an item of `GET /peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Id {
    /// Peer id.
    pub id: String,
    /// Listen addresses, ending in `/p2p/<id>`; `null` when empty.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Ids of all peers that it knows, itself included; `null` when empty.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub cluster_peers: Vec<String>,
    /// Addresses of these peers.
    #[serde(deserialize_with = "or_default")]
    pub cluster_peers_addresses: Vec<String>,
    /// Version of the daemon.
    pub version: String,
    /// Commit of the build.
    pub commit: String,
    /// Protocol between peers.
    pub rpc_protocol_version: String,
    /// Error if it did not respond; otherwise empty.
    pub error: String,
    /// IPFS node of the peer.
    pub ipfs: IpfsId,
    /// Peer name.
    pub peername: String,
}

/// Identity and addresses of a peer's IPFS node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct IpfsId {
    /// libp2p peer id; omitted when unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// Listen addresses; `null` when empty.
    #[schemars(with = "Option<Vec<String>>")]
    #[serde(serialize_with = "null_if_empty", deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Error if it did not respond; otherwise empty.
    pub error: String,
}

/// Body of `POST /peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PeerAdd {
    /// Id of the peer to add.
    pub peer_id: String,
    /// Its address with `/p2p/<id>`, as in Go ipfs-cluster 0.0.12; omitted when empty. `peer_id` is then
    /// optional.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer_multiaddress: String,
}

/// Response to `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Version {
    /// Version of the daemon.
    pub version: String,
}
