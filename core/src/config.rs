//! What an operator may set, as far as the core is concerned.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::limits::LimitsConfig;
use crate::pin::Replicas;

/// The settings of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Who this peer is.
    pub peer: PeerId,
    /// For pins that do not say how many copies they want.
    pub default_replicas: Replicas,
    /// The metrics that allocation goes by, in this order.
    pub allocate_by: Vec<String>,
    /// Raft's part.
    pub raft: RaftConfig,
    /// Limits in bytes.
    pub limits: LimitsConfig,
    /// The clients' part.
    pub requests: RequestsConfig,
    /// The tracker's part.
    pub tracker: TrackerConfig,
    /// The monitor's part.
    pub monitor: MonitorConfig,
    /// The failover's part.
    pub failover: FailoverConfig,
    /// The membership's part.
    pub membership: MembershipConfig,
}

/// Who votes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipConfig {
    /// At most so many peers vote; the others follow the log. Odd is best.
    pub voters_max: usize,
    /// A voter that is silent for longer gives its vote to a peer that is not.
    pub replace_after: Duration,
}

/// How this peer takes part in Raft.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftConfig {
    /// The unit of Raft's time.
    pub tick: Duration,
    /// A leader is heard from every so many ticks.
    pub heartbeat_ticks: u32,
    /// An election starts after this many to twice as many ticks of silence.
    pub election_ticks: u32,
    /// How many entries to keep behind the applied one, for followers that lag.
    pub trailing_logs: u64,
    /// How many bytes of entries to keep in memory, and so on disk, before the log is compacted.
    pub log_bytes: usize,
}

/// How long and how many clients may wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsConfig {
    /// A client gets an answer within this time.
    pub deadline: Duration,
    /// A proposal that has not been applied is made again after this time.
    pub retry: Duration,
    /// Requests that may be open at once; the windows of applied proposals are as wide.
    pub open_max: usize,
}

/// How the tracker drives the IPFS node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerConfig {
    /// Operations that may run at once.
    pub concurrent_pins: usize,
    /// A pin that makes no progress for this long is cancelled and queued again.
    pub pin_timeout: Duration,
    /// An unpin may take this long.
    pub unpin_timeout: Duration,
    /// The pause after the first failure; it doubles with each one.
    pub retry_min: Duration,
    /// The longest pause.
    pub retry_max: Duration,
    /// How often all that counts as pinned is compared with what the IPFS node has; zero for never.
    pub compare_interval: Duration,
}

/// How peers watch each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorConfig {
    /// How often this peer measures and tells the others.
    pub interval: Duration,
}

/// What the leader does about peers that are down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverConfig {
    /// Whether it does anything.
    pub enabled: bool,
    /// How long a peer must have been silent, after its last `ping` has expired.
    pub grace: Duration,
    /// Pins that are moved at once.
    pub chunk: usize,
    /// The pause between two chunks.
    pub pause: Duration,
}

impl Config {
    /// The defaults of a peer.
    pub fn new(peer: PeerId) -> Self {
        Self {
            peer,
            default_replicas: Replicas::Everywhere,
            allocate_by: vec!["tag:group".to_owned(), "freespace".to_owned()],
            raft: RaftConfig {
                tick: Duration::from_millis(100),
                heartbeat_ticks: 3,
                election_ticks: 10,
                trailing_logs: 10_240,
                log_bytes: 8 << 20,
            },
            limits: LimitsConfig::DEFAULT,
            requests: RequestsConfig {
                deadline: Duration::from_secs(15),
                retry: Duration::from_secs(1),
                open_max: 4096,
            },
            tracker: TrackerConfig {
                concurrent_pins: 10,
                pin_timeout: Duration::from_secs(120),
                unpin_timeout: Duration::from_secs(3 * 3600),
                retry_min: Duration::from_secs(10),
                retry_max: Duration::from_secs(600),
                compare_interval: Duration::from_secs(300),
            },
            monitor: MonitorConfig {
                interval: Duration::from_secs(15),
            },
            failover: FailoverConfig {
                enabled: true,
                grace: Duration::from_secs(60),
                chunk: 64,
                pause: Duration::from_millis(50),
            },
            membership: MembershipConfig {
                voters_max: 7,
                replace_after: Duration::from_secs(600),
            },
        }
    }
}
