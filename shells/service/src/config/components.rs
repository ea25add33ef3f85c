//! The smaller sections: `pin_tracker`, `monitor`, `allocator`, `informer` and `observations`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::sections::address;
use super::values::{Address, Period};

/// `pin_tracker`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinTracker {
    /// The only tracker.
    pub stateless: Stateless,
}

/// `pin_tracker.stateless`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stateless {
    /// Concurrent pins at the IPFS node.
    pub concurrent_pins: u32,
    /// Kept for the Go peer: fresh pins always go first here.
    pub priority_pin_max_age: Period,
    /// Kept for the Go peer.
    pub priority_pin_max_retries: u32,
    /// *Hidden*, kept for the Go peer: the queue is on disk here and unlimited.
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
    /// The only monitor. It uses no pubsub here; the name is the Go peer's.
    pub pubsubmon: Pubsubmon,
}

/// `monitor.pubsubmon`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pubsubmon {
    /// Interval of the search for expired metrics.
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
    /// The only allocator.
    pub balanced: Balanced,
}

/// `allocator.balanced`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balanced {
    /// Metrics to allocate by, in order: those named `tag:…` spread pins over their values, the others rank
    /// the peers that the earlier ones leave equal.
    pub allocate_by: Vec<String>,
}

impl Default for Balanced {
    fn default() -> Self {
        Self {
            allocate_by: vec!["tag:group".to_owned(), "freespace".to_owned()],
        }
    }
}

/// `informer`: metrics of this peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Informers {
    /// Storage of the IPFS node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<Disk>,
    /// Number of queued pins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pinqueue: Option<PinQueue>,
    /// Tags of this peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Tags>,
}

impl Informers {
    /// Returns the share in percent from which this peer's repository counts as nearly full.
    pub fn high_water(&self) -> u64 {
        let percent = self.disk.as_ref().map(|disk| disk.high_water_percent);
        percent.unwrap_or(HIGH_WATER).into()
    }
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

/// Figure of the IPFS node's storage to measure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskMetric {
    /// Free bytes; more is better.
    #[default]
    Freespace,
    /// Used bytes; less is better.
    Reposize,
}

impl DiskMetric {
    /// Returns the name of the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Freespace => "freespace",
            Self::Reposize => "reposize",
        }
    }
}

/// Default time to live of a metric.
const METRIC_TTL: Period = Period::secs(30);

/// `informer.disk`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Time to live of the metric.
    pub metric_ttl: Period,
    /// Figure to measure.
    pub metric_type: DiskMetric,
    /// *Hidden*: share of the repository's maximum in percent from which this peer gets no new pins.
    #[serde(skip_serializing_if = "is_high_water")]
    pub high_water_percent: u8,
    /// *Hidden*: share below which it gets new pins again.
    #[serde(skip_serializing_if = "is_low_water")]
    pub low_water_percent: u8,
}

/// Default of [`Disk::high_water_percent`].
const HIGH_WATER: u8 = 90;

/// Default of [`Disk::low_water_percent`].
const LOW_WATER: u8 = 85;

fn is_high_water(percent: &u8) -> bool {
    *percent == HIGH_WATER
}

fn is_low_water(percent: &u8) -> bool {
    *percent == LOW_WATER
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            metric_ttl: METRIC_TTL,
            metric_type: DiskMetric::default(),
            high_water_percent: HIGH_WATER,
            low_water_percent: LOW_WATER,
        }
    }
}

/// `informer.pinqueue`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinQueue {
    /// Time to live of the metric.
    pub metric_ttl: Period,
    /// The number of queued pins is rounded down to a multiple of this.
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
    /// Time to live of the metrics.
    pub metric_ttl: Period,
    /// Name and value of each tag.
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
    /// Metrics for Prometheus.
    pub metrics: Metrics,
    /// Tracing of requests.
    pub tracing: Tracing,
}

/// `observations.metrics`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Serve the metrics.
    pub enable_stats: bool,
    /// Listen address of the metrics.
    pub prometheus_endpoint: Address,
    /// Shortest interval at which the pins are counted.
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
    /// Export traces.
    pub enable_tracing: bool,
    /// Address of the collector.
    pub jaeger_agent_endpoint: Address,
    /// Share of traces to export, 0 to 1.
    pub sampling_prob: f64,
    /// Service name in the traces.
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
