//! The sections of `service.json`: their keys, as the Go peer names and orders them, and their defaults.
//!
//! A key marked *hidden* is read but written only when it differs from its default.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::values::{Address, Peer, Period, Secret, Strings};

/// Parses what is written in this file.
pub(super) fn address(text: &str) -> Address {
    text.parse().expect("the defaults are multiaddresses")
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `cluster`: what concerns the peer as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// A label for people; the host's name by default.
    pub peername: String,
    /// What all peers of a cluster share and strangers do not know.
    pub secret: Secret,
    /// Whether to leave the cluster when shutting down.
    pub leave_on_shutdown: bool,
    /// Where other peers reach this one.
    pub listen_multiaddress: Strings<Address>,
    /// What to tell others instead of the listen addresses, if anything.
    pub announce_multiaddress: Strings<Address>,
    /// What not to tell others.
    pub no_announce_multiaddress: Strings<Address>,
    /// Kept for the Go peer; there are no relays here.
    pub enable_relay_hop: bool,
    /// Kept for the Go peer.
    pub connection_manager: ConnectionManager,
    /// Kept for the Go peer.
    pub resource_manager: ResourceManager,
    /// Kept for the Go peer; there is no gossip here.
    pub pubsub: Pubsub,
    /// How long an attempt to connect to a peer may take.
    pub dial_peer_timeout: Period,
    /// How often the local state is compared with the shared state and the IPFS node's.
    pub state_sync_interval: Period,
    /// The longest pause before a failed pin is tried again.
    pub pin_recover_interval: Period,
    /// Copies that a pin must have when it does not say; -1 for one on every peer.
    pub replication_factor_min: i32,
    /// Copies that a pin should have when it does not say; -1 for one on every peer.
    pub replication_factor_max: i32,
    /// How often this peer says that it lives.
    pub monitor_ping_interval: Period,
    /// How often the peer looks whether it still is a member.
    pub peer_watch_interval: Period,
    /// Kept for the Go peer; peers do not search the local network.
    pub mdns_interval: Period,
    /// Kept for the Go peer: with Raft, all members are trusted.
    pub pin_only_on_trusted_peers: bool,
    /// Kept for the Go peer: with Raft, all members are trusted.
    pub pin_only_on_untrusted_peers: bool,
    /// Whether pins of a peer that is down stay where they are. Unlike the Go peer, they move by default.
    pub disable_repinning: bool,
    /// *Hidden*: how long a peer must have been silent before its pins move.
    #[serde(skip_serializing_if = "is_repinning_grace")]
    pub repinning_grace: Period,
    /// Peers to connect to at the start, beside those of the peerstore.
    pub peer_addresses: Vec<Address>,
    /// *Hidden*: kept for the Go peer; followers exist only with CRDT.
    #[serde(skip_serializing_if = "is_default")]
    pub follower_mode: bool,
    /// *Hidden*: the file with the known addresses of peers, in the configuration folder.
    #[serde(skip_serializing_if = "is_peerstore")]
    pub peerstore_file: String,
}

const PEERSTORE: &str = "peerstore";
const REPINNING_GRACE: Period = Period::secs(60);

fn is_peerstore(name: &str) -> bool {
    name == PEERSTORE
}

fn is_repinning_grace(grace: &Period) -> bool {
    *grace == REPINNING_GRACE
}

impl Default for Cluster {
    fn default() -> Self {
        let host = hostname::get().ok().and_then(|name| name.into_string().ok());
        Self {
            peername: host
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "unnamed".to_owned()),
            secret: Secret::default(),
            leave_on_shutdown: false,
            listen_multiaddress: Strings(vec![address("/ip4/0.0.0.0/tcp/9096")]),
            announce_multiaddress: Strings::default(),
            no_announce_multiaddress: Strings::default(),
            enable_relay_hop: true,
            connection_manager: ConnectionManager::default(),
            resource_manager: ResourceManager::default(),
            pubsub: Pubsub::default(),
            dial_peer_timeout: Period::secs(3),
            state_sync_interval: Period::secs(5 * 60),
            pin_recover_interval: Period::secs(12 * 60),
            replication_factor_min: -1,
            replication_factor_max: -1,
            monitor_ping_interval: Period::secs(15),
            peer_watch_interval: Period::secs(5),
            mdns_interval: Period::secs(10),
            pin_only_on_trusted_peers: false,
            pin_only_on_untrusted_peers: false,
            disable_repinning: false,
            repinning_grace: REPINNING_GRACE,
            peer_addresses: Vec::new(),
            follower_mode: false,
            peerstore_file: PEERSTORE.to_owned(),
        }
    }
}

/// `cluster.connection_manager`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionManager {
    /// Connections above which some are closed.
    pub high_water: u32,
    /// Connections to keep then.
    pub low_water: u32,
    /// How long a new connection is safe.
    pub grace_period: Period,
}

impl Default for ConnectionManager {
    fn default() -> Self {
        Self {
            high_water: 400,
            low_water: 100,
            grace_period: Period::secs(120),
        }
    }
}

/// `cluster.resource_manager`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceManager {
    /// Whether there are limits.
    pub enabled: bool,
    /// Memory of the network layer; 0 for a share of the machine's.
    pub memory_limit_bytes: u64,
    /// Open files; 0 for a share of what the process may have.
    pub file_descriptors_limit: u64,
}

impl Default for ResourceManager {
    fn default() -> Self {
        Self {
            enabled: true,
            memory_limit_bytes: 0,
            file_descriptors_limit: 0,
        }
    }
}

/// `cluster.pubsub`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "gossip settings that are read only to be tolerated")]
pub struct Pubsub {
    pub seen_messages_ttl: Period,
    pub heartbeat_interval: Period,
    pub d_factor: i64,
    pub history_gossip: i64,
    pub history_length: i64,
    pub flood_publish: bool,
}

impl Default for Pubsub {
    fn default() -> Self {
        Self {
            seen_messages_ttl: Period::secs(30 * 60),
            heartbeat_interval: Period::secs(10),
            d_factor: 4,
            history_gossip: 2,
            history_length: 6,
            flood_publish: false,
        }
    }
}

/// `consensus`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Consensus {
    /// How the peers agree.
    pub raft: Raft,
}

/// `consensus.raft`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Raft {
    /// The peers of a new cluster. Looked at only at the very first start.
    pub init_peerset: Vec<Peer>,
    /// How long the first start may take to find a leader.
    pub wait_for_leader_timeout: Period,
    /// Kept for the Go peer, as are the keys without a word here.
    pub network_timeout: Period,
    /// Kept.
    pub commit_retries: u32,
    /// Kept.
    pub commit_retry_delay: Period,
    /// How many old copies of the state to keep.
    pub backups_rotate: u32,
    /// An election starts after one to two times the longer of this and `election_timeout` without a sign
    /// of the leader.
    pub heartbeat_timeout: Period,
    /// See `heartbeat_timeout`.
    pub election_timeout: Period,
    /// Kept.
    pub commit_timeout: Period,
    /// Kept.
    pub max_append_entries: u32,
    /// Log entries to keep for followers that lag.
    pub trailing_logs: u64,
    /// Kept.
    pub snapshot_interval: Period,
    /// Kept.
    pub snapshot_threshold: u64,
    /// Kept.
    pub leader_lease_timeout: Period,
    /// *Hidden*: where the state lives, from the configuration folder on; `raft` when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub data_folder: String,
}

impl Default for Raft {
    fn default() -> Self {
        Self {
            init_peerset: Vec::new(),
            wait_for_leader_timeout: Period::secs(15),
            network_timeout: Period::secs(10),
            commit_retries: 1,
            commit_retry_delay: Period::millis(200),
            backups_rotate: 6,
            heartbeat_timeout: Period::secs(1),
            election_timeout: Period::secs(1),
            commit_timeout: Period::millis(50),
            max_append_entries: 64,
            trailing_logs: 10_240,
            snapshot_interval: Period::secs(120),
            snapshot_threshold: 8192,
            leader_lease_timeout: Period::millis(500),
            data_folder: String::new(),
        }
    }
}

/// `ipfs_connector`: this peer's IPFS node. Exactly one is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpfsConnector {
    /// A Kubo daemon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipfshttp: Option<IpfsHttp>,
    /// A node inside this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<Embedded>,
}

impl Default for IpfsConnector {
    fn default() -> Self {
        Self {
            ipfshttp: Some(IpfsHttp::default()),
            embedded: None,
        }
    }
}

/// `ipfs_connector.ipfshttp`: a Kubo daemon, over its RPC API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct IpfsHttp {
    /// Where its RPC API listens.
    pub node_multiaddress: Address,
    /// When to tell the daemon about the other peers' daemons.
    pub connect_swarms_delay: Period,
    /// How long a general request may take.
    pub ipfs_request_timeout: Period,
    /// How long a pin may go without progress.
    pub pin_timeout: Period,
    /// How long an unpin may take.
    pub unpin_timeout: Period,
    /// How long a collection of garbage may take.
    pub repogc_timeout: Period,
    /// Measure the informers anew after so many pins; 0 for never.
    pub informer_trigger_interval: u64,
    /// *Hidden*: refuse to unpin anything.
    #[serde(skip_serializing_if = "is_default")]
    pub unpin_disable: bool,
}

impl Default for IpfsHttp {
    fn default() -> Self {
        Self {
            node_multiaddress: address("/ip4/127.0.0.1/tcp/5001"),
            connect_swarms_delay: Period::secs(30),
            ipfs_request_timeout: Period::secs(5 * 60),
            pin_timeout: Period::secs(2 * 60),
            unpin_timeout: Period::secs(3 * 3600),
            repogc_timeout: Period::secs(24 * 3600),
            informer_trigger_interval: 0,
            unpin_disable: false,
        }
    }
}

/// `ipfs_connector.embedded`: the IPFS node inside this process. Its data is in `ipfs/` in the
/// configuration folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Embedded {
    /// Where it serves Kubo's HTTP API.
    pub api_listen_multiaddress: Strings<Address>,
    /// Where other IPFS nodes reach it.
    pub swarm_listen_multiaddress: Vec<Address>,
    /// The most that its blocks may have in all, like `10GB`; `""` for no limit.
    pub storage_max: StorageMax,
    /// How long a pin may go without progress.
    pub pin_timeout: Period,
    /// How long an unpin may take.
    pub unpin_timeout: Period,
}

impl Default for Embedded {
    fn default() -> Self {
        Self {
            api_listen_multiaddress: Strings(vec![address("/ip4/127.0.0.1/tcp/5001")]),
            swarm_listen_multiaddress: vec![address("/ip4/0.0.0.0/tcp/4001")],
            storage_max: StorageMax::default(),
            pin_timeout: Period::secs(2 * 60),
            unpin_timeout: Period::secs(3 * 3600),
        }
    }
}

/// A limit of storage in bytes, written with a unit, as in Kubo's `Datastore.StorageMax`: `500MB`, `10GiB`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorageMax(pub Option<u64>);

/// Units of storage, the longest names first so that none is taken for the end of another.
const UNITS: [(&str, u64); 13] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("b", 1),
];

impl TryFrom<String> for StorageMax {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let lower = text.trim().to_lowercase();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((lower.strip_suffix(name)?, *unit)))
            .unwrap_or((&lower, 1));
        let bytes: Option<u64> = digits.trim().parse().ok();
        let bytes = bytes
            .and_then(|count| count.checked_mul(unit))
            .filter(|bytes| *bytes > 0);
        bytes.map(|bytes| Self(Some(bytes))).ok_or_else(|| {
            format!("{text:?} is not an amount of storage: write a whole number with a unit, like \"10GB\"")
        })
    }
}

impl From<StorageMax> for String {
    fn from(max: StorageMax) -> Self {
        let Some(bytes) = max.0 else {
            return String::new();
        };
        let fits = |unit: &&(&str, u64)| bytes % unit.1 == 0;
        let decimal = [
            ("TB", UNITS[7].1),
            ("GB", UNITS[6].1),
            ("MB", UNITS[5].1),
            ("KB", UNITS[4].1),
        ];
        let binary = [
            ("TiB", UNITS[3].1),
            ("GiB", UNITS[2].1),
            ("MiB", UNITS[1].1),
            ("KiB", UNITS[0].1),
        ];
        let unit = decimal.iter().chain(&binary).find(fits).unwrap_or(&("B", 1));
        format!("{}{}", bytes / unit.1, unit.0)
    }
}

/// `pin_tracker`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PinTracker {
    /// The only kind there is.
    pub stateless: Stateless,
}

/// `pin_tracker.stateless`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Monitor {
    /// The only kind there is. It uses no pubsub here; the name is the Go peer's.
    pub pubsubmon: Pubsubmon,
}

/// `monitor.pubsubmon`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocator {
    /// The only kind there is.
    pub balanced: Balanced,
}

/// `allocator.balanced`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Balanced {
    /// Metrics to go by: those named `tag:…` spread pins over their values, the last one ranks the peers.
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Observations {
    /// Counters for Prometheus.
    pub metrics: Metrics,
    /// Spans.
    pub tracing: Tracing,
}

/// `observations.metrics`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
