//! The sections `cluster` and `consensus` of `service.json`: their keys, with the names and order of the Go
//! peer, and their defaults.
//!
//! A key marked *hidden* is read but written only when it differs from its default.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::values::{Address, Peer, Period, Secret, Strings};

/// Parses a default in this file.
pub(super) fn address(text: &str) -> Address {
    text.parse().expect("the defaults are multiaddresses")
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// `cluster`: settings of the peer as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cluster {
    /// Name for people; the host's name by default.
    pub peername: String,
    /// Secret shared by the peers of a cluster, without which no connection succeeds.
    pub secret: Secret,
    /// *Hidden*: further secrets that other peers may have; an empty one means peers without a secret.
    ///
    /// With it, the secret of a running cluster is changed in two rounds of restarts, one peer after the
    /// other in each, waiting for READY:
    ///
    /// 1. On every peer, add the new secret here and restart. It still uses the old one.
    /// 2. On every peer, set the new secret as `secret`, remove it from here, and restart.
    ///
    /// Any two peers share a secret at any time. After the second round no peer accepts the old one.
    #[serde(skip_serializing_if = "<[Secret]>::is_empty")]
    pub accepted_secrets: Strings<Secret>,
    /// Leave the cluster when shutting down.
    pub leave_on_shutdown: bool,
    /// Listen addresses for other peers.
    pub listen_multiaddress: Strings<Address>,
    /// Addresses to announce instead of the listen addresses, if any.
    pub announce_multiaddress: Strings<Address>,
    /// Addresses never to announce.
    pub no_announce_multiaddress: Strings<Address>,
    /// Kept for the Go peer; there are no relays here.
    pub enable_relay_hop: bool,
    /// Kept for the Go peer.
    pub connection_manager: ConnectionManager,
    /// Kept for the Go peer.
    pub resource_manager: ResourceManager,
    /// Kept for the Go peer; there is no gossip here.
    pub pubsub: Pubsub,
    /// Time limit of an attempt to connect to a peer.
    pub dial_peer_timeout: Period,
    /// Interval at which the local state is compared with the shared state and the IPFS node's.
    pub state_sync_interval: Period,
    /// Maximum pause before a failed pin is tried again.
    pub pin_recover_interval: Period,
    /// Default minimum number of copies of a pin; -1 for one on every peer.
    pub replication_factor_min: i32,
    /// Default maximum number of copies of a pin; -1 for one on every peer.
    pub replication_factor_max: i32,
    /// Interval of the `ping` metric.
    pub monitor_ping_interval: Period,
    /// Interval at which the peer checks that it still is a member.
    pub peer_watch_interval: Period,
    /// Interval at which peers found on the local network are asked for their clusters; 0s finds none.
    pub mdns_interval: Period,
    /// Kept for the Go peer: with Raft, all members are trusted.
    pub pin_only_on_trusted_peers: bool,
    /// Kept for the Go peer: with Raft, all members are trusted.
    pub pin_only_on_untrusted_peers: bool,
    /// Keep the pins of a failed peer where they are. Unlike in the Go peer, they move by default.
    pub disable_repinning: bool,
    /// *Hidden*: time of silence after which a peer's pins move.
    #[serde(skip_serializing_if = "is_repinning_grace")]
    pub repinning_grace: Period,
    /// *Hidden*: most pins of failed peers that the leader examines per second: their content is fetched
    /// over the network that all other traffic needs.
    #[serde(skip_serializing_if = "is_repinning_rate")]
    pub repinning_rate: NonZeroU32,
    /// Peers to connect to at the start, in addition to the peerstore.
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
const REPINNING_RATE: NonZeroU32 = NonZeroU32::new(1280).expect("is not zero");

fn is_peerstore(name: &str) -> bool {
    name == PEERSTORE
}

fn is_repinning_grace(grace: &Period) -> bool {
    *grace == REPINNING_GRACE
}

fn is_repinning_rate(rate: &NonZeroU32) -> bool {
    *rate == REPINNING_RATE
}

impl Default for Cluster {
    fn default() -> Self {
        let host = hostname::get().ok().and_then(|name| name.into_string().ok());
        Self {
            peername: host
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "unnamed".to_owned()),
            secret: Secret::default(),
            accepted_secrets: Strings::default(),
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
            repinning_rate: REPINNING_RATE,
            peer_addresses: Vec::new(),
            follower_mode: false,
            peerstore_file: PEERSTORE.to_owned(),
        }
    }
}

/// `cluster.connection_manager`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionManager {
    /// Connections above which some are closed.
    pub high_water: u32,
    /// Connections that are kept then.
    pub low_water: u32,
    /// Time for which a new connection is exempt.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ResourceManager {
    /// Apply the limits.
    pub enabled: bool,
    /// Memory of the network layer in bytes; 0 for a share of the machine's.
    pub memory_limit_bytes: u64,
    /// Open files; 0 for a share of the process's limit.
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Consensus {
    /// The Raft consensus.
    pub raft: Raft,
}

/// `consensus.raft`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Raft {
    /// Founders of a new cluster. Used only at the very first start.
    pub init_peerset: Vec<Peer>,
    /// Maximum wait of a start for a leader.
    pub wait_for_leader_timeout: Period,
    /// Kept for the Go peer.
    pub network_timeout: Period,
    /// Kept for the Go peer.
    pub commit_retries: u32,
    /// Kept for the Go peer.
    pub commit_retry_delay: Period,
    /// Number of old copies of the state to keep.
    pub backups_rotate: u32,
    /// An election starts after one to two times the longer of this and `election_timeout` without a
    /// message of the leader.
    pub heartbeat_timeout: Period,
    /// See `heartbeat_timeout`.
    pub election_timeout: Period,
    /// Kept for the Go peer.
    pub commit_timeout: Period,
    /// Kept for the Go peer.
    pub max_append_entries: u32,
    /// Log entries kept for followers that lag behind.
    pub trailing_logs: u64,
    /// Kept for the Go peer.
    pub snapshot_interval: Period,
    /// Kept for the Go peer.
    pub snapshot_threshold: u64,
    /// Kept for the Go peer.
    pub leader_lease_timeout: Period,
    /// *Hidden*: maximum number of voters, an odd number; the other peers follow the log. More voters survive
    /// the loss of more of them at once, and make every write slower.
    #[serde(skip_serializing_if = "is_voters_max")]
    pub voters_max: u32,
    /// *Hidden*: time of silence after which a voter is replaced by another peer.
    #[serde(skip_serializing_if = "is_replace_voters_after")]
    pub replace_voters_after: Period,
    /// *Hidden*: the data folder, relative to the configuration folder; `raft` when empty.
    #[serde(skip_serializing_if = "is_default")]
    pub data_folder: String,
}

const VOTERS_MAX: u32 = 7;
const REPLACE_VOTERS_AFTER: Period = Period::secs(10 * 60);

fn is_voters_max(voters: &u32) -> bool {
    *voters == VOTERS_MAX
}

fn is_replace_voters_after(after: &Period) -> bool {
    *after == REPLACE_VOTERS_AFTER
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
            voters_max: VOTERS_MAX,
            replace_voters_after: REPLACE_VOTERS_AFTER,
            data_folder: String::new(),
        }
    }
}
