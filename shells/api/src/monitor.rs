//! Metrics, alerts and bandwidth.

use crate::Time;
use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// One peer's sample, valid for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metric {
    /// `ping`, `freespace`, `tag:…`.
    pub name: String,
    /// Whose it is (peer id).
    pub peer: String,
    /// Its value, in a form that depends on the name.
    pub value: String,
    /// Until when it holds, in nanoseconds since 1970.
    pub expire: i64,
    /// Whether it may be used.
    pub valid: bool,
    /// What allocation sorts by.
    pub weight: i64,
    /// Whether allocation groups peers by its value.
    pub partitionable: bool,
    /// When it arrived, in nanoseconds since 1970.
    pub received_at: i64,
}

/// A metric that ran out with no other following it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The last there was.
    #[serde(flatten)]
    pub metric: Metric,
    /// When its absence was noticed.
    #[serde(default)]
    pub triggered_at: Time,
}

/// Traffic of one protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bandwidth {
    /// Bytes received.
    pub total_in: i64,
    /// Bytes sent.
    pub total_out: i64,
    /// Bytes received per second, lately.
    #[serde(serialize_with = "go_float")]
    pub rate_in: f64,
    /// Bytes sent per second, lately.
    #[serde(serialize_with = "go_float")]
    pub rate_out: f64,
}

/// Traffic by protocol.
pub type BandwidthByProtocol = BTreeMap<String, Bandwidth>;

/// Go writes a float without decimals as a whole number.
fn go_float<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    /// Up to here every whole number has a float of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[allow(clippy::cast_possible_truncation)]
        return serializer.serialize_i64(*value as i64);
    }
    serializer.serialize_f64(*value)
}
