//! Events of a cluster: lines of `GET /events`.

use crate::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A change of the cluster, as the contacted peer sees it. Fields that its type lacks are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Event {
    /// Number of the event, to resume after.
    pub id: u64,
    /// Time of the change, by the clock of the contacted peer, or of the peer of a status.
    pub time: Time,
    /// Type: `pin_added`, `pin_changed`, `pin_removed`, `status`, `peer_added`, `peer_removed`, `peer_up`,
    /// `peer_down`, `peer_connected`, `peer_disconnected`, `leader`, `alert`, `alert_cleared`,
    /// `pinset_replaced`, `statuses_followed`, `statuses_lost`, `lost`, `closed`.
    #[serde(rename = "type")]
    pub kind: String,
    /// CID of the pin.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cid: String,
    /// Name of the pin.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Id of the peer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peer: String,
    /// Name of the peer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub peername: String,
    /// New status of the CID at the peer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    /// Error of the last attempt, or the reason for the end of the stream or of a peer's statuses.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub error: String,
    /// Name of the metric of an alert.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metric: String,
}
