//! Summary of the cluster's health.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::nullable::or_default;

/// Health of the cluster: response to `GET /health/summary`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HealthSummary {
    /// Set if there are no problems.
    pub healthy: bool,
    /// Number of members.
    pub peers: u64,
    /// Problems: errors first, then by peer.
    #[serde(deserialize_with = "or_default")]
    pub problems: Vec<Problem>,
}

/// A problem of the cluster or of a peer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Problem {
    /// `error` if content or service is affected, `warning` if it will be.
    pub severity: String,
    /// Name of the peer; empty for a problem of the whole cluster.
    pub peername: String,
    /// Id of the peer; empty for a problem of the whole cluster.
    pub peer: String,
    /// The problem, and what to do about it.
    pub problem: String,
}
