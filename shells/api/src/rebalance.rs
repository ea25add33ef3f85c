//! Rebalancing: how far the peers are from their targets, and its settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::nullable::or_default;

/// Rebalancing of a cluster: response to `GET`, `POST` and `DELETE` of `/rebalance`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Rebalance {
    /// Set if copies move whenever a peer deviates from its target by more than the threshold.
    pub automatic: bool,
    /// Deviation from a target that starts automatic rebalancing, in percent of the target.
    pub threshold_percent: u32,
    /// Maximum number of copies of a peer that wait for their replacements at once.
    pub moves_max: u32,
    /// The same for all peers together. It is divided equally among the live ones, one each at least.
    pub moves_total_max: u32,
    /// Maximum rate at which a peer fetches copies that move to it, those of drains included, in bytes per
    /// second; 0 for no limit.
    pub bytes_per_second: u64,
    /// The same for all peers together, divided equally among the live ones that are not drained.
    pub total_bytes_per_second: u64,
    /// Time when the run that is under way was asked for; null if none is.
    pub running_since: Option<Time>,
    /// Peers that have ended their part of the run.
    #[serde(deserialize_with = "or_default")]
    pub done: Vec<String>,
    /// Smallest number of moves that gives each peer its target, as far as the peers below theirs take pins.
    pub moves: u64,
    /// The live peers that are not drained.
    #[serde(deserialize_with = "or_default")]
    pub peers: Vec<PeerBalance>,
}

/// Copies of a peer, and how many it should hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PeerBalance {
    /// The peer.
    pub peer: String,
    /// Its name.
    pub peername: String,
    /// Number of pins that are allocated to it by name, as it counted last.
    pub copies: u64,
    /// Number that it should hold: its share of all copies by capacity.
    pub target: u64,
    /// Size of its repository at most, in bytes; null if unknown. If one is, all peers get equal shares.
    pub capacity_bytes: Option<u64>,
    /// Set if new pins can be allocated to it.
    pub takes_pins: bool,
    /// Set while it passes over its pins.
    pub is_moving: bool,
    /// Number of copies that the present or last pass was to move to even out the counts.
    pub planned: u64,
    /// Number of copies that it has moved, those for zones included.
    pub moved: u64,
    /// Number of its copies whose replacements are not confirmed yet. At most 10,000 are counted.
    pub copies_waiting: u64,
    /// Reason why its progress is unknown; empty if it answers.
    pub error: String,
}
