//! The smaller sections: `pin_tracker`, `monitor`, `allocator`, `informer` and `observations`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sections::address;
use super::values::{Address, Period};

/// `pin_tracker`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinTracker {
    /// The only kind there is.
    pub stateless: Stateless,
}

/// `pin_tracker.stateless`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stateless {
    /// Pins that the IPFS node works on at once.
    pub concurrent_pins: u32,
    /// Kept for the Go peer: fresh pins always go first here.
    pub priority_pin_max_age: Period,
    /// Kept for the Go peer.
    pub priority_pin_max_retries: u32,
    /// *Hidden*, kept for the Go peer: the queue is on disk here and has no end.
    #[serde(skip_serializing_if = "is_pin_queue")]
    pub max_pin_queue_size: u64,
}

const PIN_QUEUE: u64 = 1_000_000;

fn is_pin_queue(size: &u64) -> bool {
    *size == PIN_QUEUE
}

impl Default for Stateless {
    fn default() -> Self {
        Self {
            concurrent_pins: 10,
            priority_pin_max_age: Period::secs(24 * 3600),
            priority_pin_max_retries: 5,
            max_pin_queue_size: PIN_QUEUE,
        }
    }
}

/// `monitor`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Monitor {
    /// The only kind there is. It uses no pubsub here; the name is the Go peer's.
    pub pubsubmon: Pubsubmon,
}

/// `monitor.pubsubmon`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pubsubmon {
    /// How often to look for metrics that have expired.
    pub check_interval: Period,
}

impl Default for Pubsubmon {
    fn default() -> Self {
        Self {
            check_interval: Period::secs(15),
        }
    }
}

/// `allocator`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocator {
    /// The only kind there is.
    pub balanced: Balanced,
}

/// `allocator.balanced`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balanced {
    /// Metrics to go by: those named `tag:…` spread pins over their values, the others rank the peers, each
    /// among those that rank alike by the ones before it.
    pub allocate_by: Vec<String>,
}

impl Default for Balanced {
    fn default() -> Self {
        Self {
            allocate_by: vec!["tag:group".to_owned(), "freespace".to_owned()],
        }
    }
}

/// `informer`: what this peer measures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Informers {
    /// The IPFS node's storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// How many pins wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinqueue: Option<PinQueue>,
    /// Labels of this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

impl Default for Informers {
    fn default() -> Self {
        Self {
            disk: Some(Disk::default()),
            pinqueue: Some(PinQueue::default()),
            tags: Some(Tags::default()),
        }
    }
}

/// Which figure of the IPFS node's storage is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskMetric {
    /// What is left; the more the better.
    #[default]
    Freespace,
    /// What is used; the less the better.
    Reposize,
}

impl DiskMetric {
    /// The metric's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Freespace => "freespace",
            Self::Reposize => "reposize",
        }
    }
}

/// How long a measurement holds unless it says otherwise.
const METRIC_TTL: Period = Period::secs(30);

/// `informer.disk`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// How long a measurement holds.
    pub metric_ttl: Period,
    /// What is measured.
    pub metric_type: DiskMetric,
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            metric_ttl: METRIC_TTL,
            metric_type: DiskMetric::default(),
        }
    }
}

/// `informer.pinqueue`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinQueue {
    /// How long a measurement holds.
    pub metric_ttl: Period,
    /// Queues are told apart by whole multiples of this.
    pub weight_bucket_size: u64,
}

impl Default for PinQueue {
    fn default() -> Self {
        Self {
            metric_ttl: METRIC_TTL,
            weight_bucket_size: 100_000,
        }
    }
}

/// `informer.tags`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tags {
    /// How long a measurement holds.
    pub metric_ttl: Period,
    /// Name and value of each.
    pub tags: BTreeMap<String, String>,
}

impl Default for Tags {
    fn default() -> Self {
        Self {
            metric_ttl: METRIC_TTL,
            tags: BTreeMap::from([("group".to_owned(), "default".to_owned())]),
        }
    }
}

/// `observations`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observations {
    /// Counters for Prometheus.
    pub metrics: Metrics,
    /// Spans.
    pub tracing: Tracing,
}

/// `observations.metrics`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Whether to serve them.
    pub enable_stats: bool,
    /// Where.
    pub prometheus_endpoint: Address,
    /// How often they are computed.
    pub reporting_interval: Period,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            enable_stats: false,
            prometheus_endpoint: address("/ip4/127.0.0.1/tcp/8888"),
            reporting_interval: Period::secs(30),
        }
    }
}

/// `observations.tracing`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tracing {
    /// Whether to send them.
    pub enable_tracing: bool,
    /// Where to.
    pub jaeger_agent_endpoint: Address,
    /// Which share of them, 0 to 1.
    pub sampling_prob: f64,
    /// Under which name.
    pub service_name: String,
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            enable_tracing: false,
            jaeger_agent_endpoint: address("/ip4/0.0.0.0/udp/6831"),
            sampling_prob: 0.3,
            service_name: "cluster-daemon".to_owned(),
        }
    }
}
