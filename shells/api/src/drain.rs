//! Drains: peers whose pins move to others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::nullable::or_default;

/// Progress of a drain: item of `GET /drains`, response to `POST` and `DELETE` of `/drains/{peer}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Drain {
    /// The drained peer.
    pub peer: String,
    /// Its name.
    pub peername: String,
    /// State of the drain: `moving`, `copying` when only copies are awaited, `blocked` when no pin that is
    /// left can move, `done` when the peer may be removed, `unreachable` when it does not answer.
    pub state: String,
    /// Time of the request.
    pub since: Time,
    /// Maximum number of copies that wait for their replacements at once.
    pub moves_max: u32,
    /// Number of pins that were allocated to the peer when the drain began.
    pub pins_at_start: u64,
    /// Number of pins that are still allocated to it.
    pub pins_left: u64,
    /// Number of its copies whose replacements are not confirmed yet. At most 10,000 are counted.
    pub copies_waiting: u64,
    /// Size of the repository of its IPFS node, in bytes. It shrinks when garbage is collected.
    pub repository_bytes: u64,
    /// Number of pins that could not move in the last pass: too few other peers live and have room.
    pub blocked: u64,
    /// CIDs of such pins, at most one.
    #[serde(deserialize_with = "or_default")]
    pub blocked_cids: Vec<String>,
    /// Estimated time until it is done, in seconds; null if unknown.
    pub seconds_left: Option<u64>,
    /// Reason why the peer does not answer; empty if it does.
    pub error: String,
}
