//! Conversion of the configuration into the settings of the components.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use cluster_core::{PeerId, Replicas, SCRUB_SHARE_MAX, ScrubConfig};
use cluster_ipfs::kubo;

use super::{Cluster, Config, Identity, Peer};

/// Converts libp2p's peer id to the core's.
pub fn core_peer(peer: &libp2p::PeerId) -> PeerId {
    PeerId::from_bytes(&peer.to_bytes()).expect("a libp2p peer id is a multihash of at most 42 bytes")
}

/// First pause after a failed pin, unless the longest is shorter.
const RETRY_MIN: Duration = Duration::from_secs(10);

/// Shortest election timeout, in ticks; it is randomised up to twice that. The leader sends a heartbeat
/// every three: two may be lost in a row without an election.
const ELECTION_TICKS: u32 = 10;
const HEARTBEAT_TICKS: u32 = 3;

/// Maximum number of pins moved at once: their commands share a log entry.
const REPINNING_CHUNK: u32 = 64;

impl Cluster {
    /// Default minimum and maximum number of copies, where -1 means every peer.
    pub(super) fn replication_factors(&self) -> (i32, i32) {
        // As in the Go peer, 0 means the default.
        let or_default = |factor: i32| if factor == 0 { -1 } else { factor };
        (
            or_default(self.replication_factor_min),
            or_default(self.replication_factor_max),
        )
    }

    /// Returns the replication of pins that set none.
    pub fn default_replicas(&self) -> Replicas {
        let (min, max) = self.replication_factors();
        match (u32::try_from(min), u32::try_from(max)) {
            (Ok(min), Ok(max)) => Replicas::Range { min, max },
            (Err(_), _) | (_, Err(_)) => Replicas::Everywhere,
        }
    }
}

impl Config {
    /// Returns the configuration of the core, from a checked configuration.
    pub fn core(&self, identity: &Identity) -> cluster_core::Config {
        let mut core = cluster_core::Config::new(core_peer(&identity.peer));
        core.allocate_by.clone_from(&self.allocator.balanced.allocate_by);

        let raft = &self.consensus.raft;
        let silence = raft.heartbeat_timeout.max(raft.election_timeout).0;
        core.raft.tick = silence / ELECTION_TICKS;
        core.raft.election_ticks = ELECTION_TICKS;
        core.raft.heartbeat_ticks = HEARTBEAT_TICKS;
        core.raft.trailing_logs = raft.trailing_logs;

        core.membership.voters_max = raft.voters_max as usize;
        core.membership.replace_after = raft.replace_voters_after.0;

        let (pin, unpin) = self.pin_timeouts();
        core.tracker.concurrent_pins = self.pin_tracker.stateless.concurrent_pins as usize;
        core.tracker.pin_timeout = pin;
        core.tracker.unpin_timeout = unpin;
        core.tracker.retry_max = self.cluster.pin_recover_interval.0;
        core.tracker.retry_min = RETRY_MIN.min(core.tracker.retry_max);
        core.tracker.compare_interval = self.cluster.state_sync_interval.0;

        core.monitor.interval = self.cluster.monitor_ping_interval.0;
        core.failover.enabled = !self.cluster.disable_repinning;
        core.failover.grace = self.cluster.repinning_grace.0;
        let rate = self.cluster.repinning_rate.get();
        let chunk = rate.min(REPINNING_CHUNK);
        core.failover.chunk = chunk as usize;
        core.failover.pause = Duration::from_secs(1) * chunk / rate;
        core
    }

    /// Maximum time of a pin without progress, and time limit of an unpin.
    fn pin_timeouts(&self) -> (Duration, Duration) {
        match (&self.ipfs_connector.ipfshttp, &self.ipfs_connector.embedded) {
            (Some(kubo), _) => (kubo.pin_timeout.0, kubo.unpin_timeout.0),
            (None, Some(embedded)) => (embedded.pin_timeout.0, embedded.unpin_timeout.0),
            (None, None) => unreachable!("checked when the configuration was loaded"),
        }
    }

    /// Returns the settings of the scrub.
    pub fn scrub(&self) -> ScrubConfig {
        let (interval, fraction) = match (&self.ipfs_connector.ipfshttp, &self.ipfs_connector.embedded) {
            (Some(kubo), _) => (kubo.scrub_interval, kubo.scrub_fraction),
            (None, Some(embedded)) => (embedded.scrub_interval, embedded.scrub_fraction),
            (None, None) => unreachable!("checked when the configuration was loaded"),
        };
        // Checked to be at most 1 when the configuration was loaded.
        let share = (fraction * f64::from(SCRUB_SHARE_MAX)).round() as u16;
        ScrubConfig {
            interval: interval.0,
            share: share.clamp(1, SCRUB_SHARE_MAX),
        }
    }

    /// Returns the connection settings of the Kubo daemon, if one is configured.
    pub fn kubo(&self) -> Option<kubo::Config> {
        let kubo = self.ipfs_connector.ipfshttp.as_ref()?;
        Some(kubo::Config {
            node_multiaddress: kubo.node_multiaddress.0.clone(),
            request_timeout: kubo.ipfs_request_timeout.0,
            pin_timeout: kubo.pin_timeout.0,
            unpin_timeout: kubo.unpin_timeout.0,
            repo_gc_timeout: kubo.repogc_timeout.0,
            unpin_disable: kubo.unpin_disable,
        })
    }

    /// Settings of the embedded IPFS node of the peer with this configuration `folder`, if it is
    /// configured.
    pub fn embedded(&self, folder: &Path) -> Option<cluster_ipfs::Config> {
        let embedded = self.ipfs_connector.embedded.as_ref()?;
        Some(cluster_ipfs::Config {
            path: self.ipfs_folder(folder),
            swarm_listen: embedded
                .swarm_listen_multiaddress
                .iter()
                .map(|address| address.0.clone())
                .collect(),
            storage_max: embedded.storage_max.0,
            network: embedded.network(),
            fixed: self.fixed_by_environment(),
        })
    }

    /// Returns the settings of the embedded node that environment variables set, with the variables.
    fn fixed_by_environment(&self) -> BTreeMap<String, String> {
        let fixed = cluster_ipfs::changeable_settings().filter_map(|name| {
            let variable = format!("CLUSTER_EMBEDDED_{}", name.replace('_', "").to_uppercase());
            let is_set = self.variables.contains(&variable);
            is_set.then(|| (name.to_owned(), variable))
        });
        fixed.collect()
    }

    /// Founders of a new cluster, this peer among them; this peer alone if none are named.
    pub fn init_peerset(&self, identity: &Identity) -> Vec<PeerId> {
        let own = Peer(identity.peer);
        let named = self.consensus.raft.init_peerset.iter();
        let mut peers: Vec<PeerId> = named.chain([&own]).map(|peer| core_peer(&peer.0)).collect();
        peers.sort();
        peers.dedup();
        peers
    }

    /// Names of the metrics that this peer measures.
    pub fn measured(&self) -> Vec<String> {
        let informer = &self.informer;
        let disk = informer
            .disk
            .iter()
            .map(|disk| disk.metric_type.name().to_owned());
        let queue = informer.pinqueue.iter().map(|_| "pinqueue".to_owned());
        let tags = informer.tags.iter().flat_map(|tags| tags.tags.keys());
        disk.chain(queue)
            .chain(tags.map(|tag| format!("tag:{tag}")))
            .collect()
    }
}
