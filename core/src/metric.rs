//! What peers tell each other about themselves.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One sample of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// `ping`, `freespace`, `reposize`, `pinqueue` or `tag:NAME`.
    pub name: String,
    /// As it is shown.
    pub value: String,
    /// More is better, for those that order peers.
    pub weight: i64,
    /// Whether its values split the peers into groups instead of ordering them.
    pub partitionable: bool,
    /// How long it counts.
    pub ttl: Duration,
    /// Whether the sample means anything; one that could not be taken is sent all the same.
    pub valid: bool,
}

/// Metric that carries a peer's wall clock, in nanoseconds since the Unix epoch as its weight. The core
/// measures
/// it itself. Releases before it ignore it, and send none.
pub(crate) const CLOCK: &str = "clock";

/// The metric that says that a peer is alive.
pub const PING: &str = "ping";
