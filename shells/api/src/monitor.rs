//! Metrics, alerts and bandwidth.

use crate::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// Sample of one peer, valid until it expires.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Metric {
    /// Metric name: `ping`, `freespace`, `tag:…`.
    pub name: String,
    /// Id of the peer that was measured.
    pub peer: String,
    /// Value; its format depends on the name.
    pub value: String,
    /// Expiry, in nanoseconds since 1970.
    pub expire: i64,
    /// False if the peer could not measure it.
    pub valid: bool,
    /// Rank of the peer by this metric: higher is better.
    pub weight: i64,
    /// Set if the allocator groups peers by the value instead of ranking them by weight.
    pub partitionable: bool,
    /// Arrival time, in nanoseconds since 1970.
    pub received_at: i64,
}

/// Expiry of a metric without a newer sample.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Alert {
    /// The last sample.
    #[serde(flatten)]
    pub metric: Metric,
    /// Time of detection.
    #[serde(default)]
    pub triggered_at: Time,
}

/// Traffic of one protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Bandwidth {
    /// Bytes received.
    pub total_in: i64,
    /// Bytes sent.
    pub total_out: i64,
    /// Recent rate, in bytes received per second.
    #[schemars(with = "f64")]
    #[serde(serialize_with = "go_float")]
    pub rate_in: f64,
    /// Recent rate, in bytes sent per second.
    #[schemars(with = "f64")]
    #[serde(serialize_with = "go_float")]
    pub rate_out: f64,
}

/// Traffic by protocol name.
pub type BandwidthByProtocol = BTreeMap<String, Bandwidth>;

/// Writes a float without decimals as an integer, as Go does.
fn go_float<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    /// 2^53: every integer up to here is exactly representable.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation)]
        return serializer.serialize_i64(*value as i64);
    }
    serializer.serialize_f64(*value)
}
