//! Settings of the core.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::codec::VERSION;
use crate::ids::PeerId;
use crate::limits::LimitsConfig;

/// Settings of one peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Identity of this peer.
    pub peer: PeerId,
    /// Highest protocol version that this peer reads and writes: [`VERSION`], but for tests of upgrades.
    pub version: u8,
    /// Names of the metrics to allocate by, in order of precedence.
    pub allocate_by: Vec<String>,
    /// Raft timing and log retention.
    pub raft: RaftConfig,
    /// Size limits, in bytes.
    pub limits: LimitsConfig,
    /// Deadlines and number of client requests.
    pub requests: RequestsConfig,
    /// Operations on the IPFS node.
    pub tracker: TrackerConfig,
    /// Metric collection.
    pub monitor: MonitorConfig,
    /// Re-allocation of pins of peers that are down.
    pub failover: FailoverConfig,
    /// Choice of voters.
    pub membership: MembershipConfig,
}

/// Settings of the choice of voters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipConfig {
    /// Maximum number of voters; the other members are learners. Should be odd.
    pub voters_max: usize,
    /// Silence after which a voter loses its vote: to a live learner, or to nobody if an odd number of voters
    /// is left.
    pub replace_after: Duration,
}

/// Raft settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftConfig {
    /// Length of a Raft tick.
    pub tick: Duration,
    /// Ticks between heartbeats of a leader.
    pub heartbeat_ticks: u32,
    /// Shortest election timeout, in ticks; the longest is twice as many.
    pub election_ticks: u32,
    /// Entries to keep behind the applied one, for followers that lag.
    pub trailing_logs: u64,
    /// Bytes of log entries that trigger compaction; the log is in memory as well as on disk.
    pub log_bytes: usize,
}

/// Settings of client requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsConfig {
    /// Time within which a request is answered.
    pub deadline: Duration,
    /// Time after which a proposal that has not been applied is proposed again.
    pub retry: Duration,
    /// Maximum number of open requests. The window of applied proposals bounds them too.
    pub open_max: usize,
}

/// Settings of the tracker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerConfig {
    /// Maximum number of operations that run on the IPFS node at once.
    pub concurrent_pins: usize,
    /// Time without progress after which a pin is cancelled and queued again.
    pub pin_timeout: Duration,
    /// Time limit of an unpin.
    pub unpin_timeout: Duration,
    /// Pause after the first failure of an operation; it doubles with each further one.
    pub retry_min: Duration,
    /// Maximum pause between attempts.
    pub retry_max: Duration,
    /// Time between comparisons of all pinned CIDs with the IPFS node's pins; zero disables them.
    pub compare_interval: Duration,
}

/// Settings of the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonitorConfig {
    /// Time between measurements, each of which is sent to all members.
    pub interval: Duration,
}

/// Settings of the failover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailoverConfig {
    /// Enables the re-allocation of pins of silent peers. Pins of removed peers are always re-allocated.
    pub enabled: bool,
    /// Time after the expiry of a peer's last `ping` from which it counts as down.
    pub grace: Duration,
    /// Pins that are re-allocated in one step.
    pub chunk: usize,
    /// Pause between two steps.
    pub pause: Duration,
}

impl Config {
    /// Returns the default settings of a peer.
    pub fn new(peer: PeerId) -> Self {
        Self {
            peer,
            version: VERSION,
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
