//! Metrics: the samples of themselves that peers send each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::Index;

/// A metric sample of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metric {
    /// `ping`, `freespace`, `reposize`, `pinqueue`, `copies`, `capacity`, `clock` or `tag:NAME`.
    pub name: String,
    /// Value as text, for display and for partitioning.
    pub value: String,
    /// Rank of the peer by this metric: higher is better. Unused where `partitionable`.
    pub weight: i64,
    /// Set if `value` partitions peers into groups, as tags do, instead of `weight` ranking them.
    pub partitionable: bool,
    /// Time until the sample expires.
    pub ttl: Duration,
    /// Cleared if the measurement failed. Such samples are sent too, so that others see them.
    pub valid: bool,
}

/// Metric whose weight is a peer's wall clock, in nanoseconds since the Unix epoch. Measured by the core
/// itself. Earlier releases neither send nor use it.
pub(crate) const CLOCK: &str = "clock";

/// Metric that shows that a peer is alive.
pub const PING: &str = "ping";

/// Metric whose weight is the number of pins that are allocated to a peer by name. Its value is made by
/// [`copies_value`].
pub const COPIES: &str = "copies";

/// Metric whose weight is the free space of a peer's repository, in bytes.
pub(crate) const FREE_SPACE: &str = "freespace";

/// Metric whose weight is the size of a peer's repository at most, in bytes.
pub const CAPACITY: &str = "capacity";

/// Returns the value of [`COPIES`]: their number, and the log index that the count includes.
pub fn copies_value(count: u64, applied: Index) -> String {
    format!("{count} at log index {applied}")
}

/// Returns the log index in a value of [`COPIES`].
pub(crate) fn counted_at(value: &str) -> Option<Index> {
    value.rsplit(' ').next()?.parse().ok()
}
