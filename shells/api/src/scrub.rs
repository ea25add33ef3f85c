//! Scrubs: the peers re-read and re-hash everything that their IPFS nodes hold.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::nullable::or_default;

/// State of the scrubs of several peers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GlobalScrub {
    /// State by peer id.
    #[serde(deserialize_with = "or_default")]
    pub peer_map: BTreeMap<String, Scrub>,
}

/// State of the scrub of one peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Scrub {
    /// Peer id.
    pub peer: String,
    /// Peer name.
    pub peername: String,
    /// `running`, `paused`, `waiting` for the next cycle, `idle` if cycles begin on request only, or
    /// `unreachable`.
    pub state: String,
    /// Share of the time in which the disk may be read, more than 0 and at most 1.
    pub fraction: f64,
    /// Time from the beginning of one cycle to that of the next, in seconds; 0 for cycles on request only.
    pub interval_seconds: u64,
    /// Size of the repository of the IPFS node, in bytes.
    pub repository_bytes: u64,
    /// Position of the running cycle; empty at its beginning, or if none is running.
    pub position: String,
    /// The running cycle, also while it is paused; null if there is none.
    pub cycle: Option<ScrubCycle>,
    /// The last completed cycle; null before the first.
    pub last: Option<ScrubCycle>,
    /// Time at which the next cycle begins by itself; the zero time if unknown.
    pub next: Time,
    /// Number of damaged blocks that are not replaced yet.
    pub unmended_blocks: u64,
    /// Number of pins that lack blocks.
    pub unmended_pins: u64,
    /// CIDs of some of these pins and blocks.
    #[serde(deserialize_with = "or_default")]
    pub unmended: Vec<String>,
    /// Number of damaged blocks that were replaced by copies of other peers since the peer started.
    pub mended_blocks: u64,
    /// Number of pins whose missing blocks were fetched again since the peer started.
    pub mended_pins: u64,
    /// Reason why the scrub cannot continue, or why the peer does not answer; empty if there is none.
    pub error: String,
}

/// A pass over everything that an IPFS node holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ScrubCycle {
    /// Time of its beginning.
    pub since: Time,
    /// Time of its end; the zero time while it runs.
    pub ended: Time,
    /// Number of checked blocks.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub bytes: u64,
    /// Number of blocks that were damaged.
    pub damaged: u64,
    /// Number of pins that lacked blocks, or had damaged ones that were not replaced yet.
    pub incomplete: u64,
}
