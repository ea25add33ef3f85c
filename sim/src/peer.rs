//! One peer as the world sees it: the core's node, and the disk, IPFS daemon and clocks that it runs on.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use cluster_core::{
    Cid, ClusterId, Config, Event, FailoverConfig, Incarnation, LimitsConfig, Members, MembershipConfig,
    MonitorConfig, Node, Now, PeerId, RaftConfig, Replicas, RequestsConfig, TrackerConfig,
};

use crate::clock::Clock;
use crate::disk::{Disk, DiskError};
use crate::ipfs::Ipfs;
use crate::options::Options;
use crate::releases;
use crate::rng::{Rng, mix};
use crate::scrub::Scrub;
use crate::store::Store;

/// One peer.
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) config: Config,
    /// The running process, if any.
    pub(crate) node: Option<Box<Node>>,
    pub(crate) disk: Disk,
    pub(crate) ipfs: Ipfs,
    pub(crate) scrub: Scrub,
    pub(crate) clock: Clock,
    /// True if a process runs, paused or not.
    pub(crate) up: bool,
    pub(crate) paused: bool,
    /// Reason why the process has just ended, or not started.
    pub(crate) refused: Option<DiskError>,
    /// Stays out of the second phase.
    pub(crate) broken: bool,
    /// Events that wait for the process.
    pub(crate) inbox: VecDeque<Event>,
    pub(crate) waker: Option<Waker>,
    /// True if the last step handled a deadline.
    pub(crate) timed_out: bool,
    /// The deadline, in simulated time, that will wake the process.
    pub(crate) armed: Option<u64>,
    /// True while a sync is running.
    pub(crate) syncing: bool,
    /// The next sync fails, whichever data folder it is of.
    pub(crate) sync_fails: bool,
    pub(crate) rng: Rng,
    /// Deadline that was handled last, and the number of times in a row.
    pub(crate) spins: (u64, u32),
    /// The data folder was lost: earlier requests to the IPFS node are unknown.
    pub(crate) forgetful: bool,
    /// The data folder was lost, and set up as when the cluster was founded.
    pub(crate) founded_again: bool,
    /// Runs on the data of a lost cluster, from which a rescue founded a new one without this peer.
    pub(crate) exiled: bool,
    /// The newest version that its program reads and writes.
    pub(crate) release: u8,
}

impl Peer {
    pub(crate) fn new(options: &Options, number: usize, members: Members) -> Self {
        let mut rng = Rng::new(options.seed, &format!("peer {number}"));
        let drift = i64::try_from(options.drift_ppm).expect("a small number");
        let drift = i64::try_from(rng.below(options.drift_ppm * 2 + 1)).expect("a small number") - drift;
        let step = if options.clock_step_every > 0 {
            rng.below(60_000_000_000)
        } else {
            0
        };
        let clock = Clock::new(
            rng.up_to(Duration::from_secs(1000)),
            drift,
            i64::try_from(step).expect("a minute"),
        );
        let id = peer_id(number);
        let is_founder = members.raft_id(&id).is_some();
        let store = if is_founder {
            Store::founding(members)
        } else {
            Store::joining(members.cluster)
        };
        Self {
            config: config(options, id.clone()),
            id,
            node: None,
            disk: Disk::new(Incarnation(rng.next()), store),
            ipfs: Ipfs::new(options, number),
            scrub: Scrub::new(options, number),
            clock,
            up: false,
            paused: false,
            refused: None,
            broken: false,
            inbox: VecDeque::new(),
            waker: None,
            timed_out: false,
            armed: None,
            syncing: false,
            sync_fails: false,
            rng,
            spins: (0, 0),
            forgetful: false,
            founded_again: false,
            exiled: false,
            release: releases::draw(options, number),
        }
    }

    /// Replaces the data folder by an empty one. The configuration decides what the peer starts from:
    /// `founders` if it is set up as when the cluster was founded.
    pub(crate) fn lose_disk(
        &mut self,
        incarnation: Incarnation,
        members: Members,
        founders: Option<Members>,
    ) {
        self.forgetful = true;
        self.founded_again = founders.is_some();
        if let Some(founders) = founders {
            self.disk = Disk::new(incarnation, Store::founding(founders));
            return;
        }
        let cluster = if incarnation.0.is_multiple_of(2) {
            members.cluster
        } else {
            ClusterId::UNKNOWN
        };
        self.disk = Disk::new(incarnation, Store::joining(cluster));
    }

    /// Starts the process on what the disk holds.
    pub(crate) fn boot(&mut self, at: u64) -> Result<(), DiskError> {
        let recovered = self.disk.open()?;
        // A program that cannot read the data reports that, and its operator installs the next release.
        self.release = self.release.max(recovered.members.version);
        let seed = mix(self.rng.next());
        let (mut config, now) = (self.config.clone(), self.clock.now(at));
        config.version = self.release;
        self.node = Some(Box::new(Node::new(config, recovered, seed, now)));
        self.armed = None;
        self.syncing = false;
        self.inbox.clear();
        Ok(())
    }

    /// Drops the process and its state in memory.
    pub(crate) fn die(&mut self) {
        self.node = None;
        self.scrub.die();
        self.up = false;
        self.paused = false;
        self.inbox.clear();
        self.waker = None;
        self.armed = None;
        self.syncing = false;
    }

    /// Puts an event in the process's inbox; lost when there is no process.
    pub(crate) fn post(&mut self, event: Event) {
        if self.node.is_some() {
            self.inbox.push_back(event);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Draws the delay before the process takes its next events: mostly zero, and in `slow` of 1000 cases
    /// that of a slow step of the core.
    pub(crate) fn draw_delay(&mut self, longest_us: u64, slow: u64) -> Duration {
        if slow > 0 && self.rng.chance(slow) {
            return Duration::from_millis(self.rng.range(5, 300));
        }
        let micros = if self.rng.chance(100) {
            self.rng.below(longest_us)
        } else {
            0
        };
        Duration::from_micros(micros)
    }

    /// Removes the events to handle next from the inbox: one, or all that may be handled together. With
    /// `all`, as in the daemon, always all of them.
    pub(crate) fn take_events(&mut self, max: usize, all: bool) -> Vec<Event> {
        let together = self
            .inbox
            .iter()
            .take(max)
            .take_while(|event| !event.is_exclusive());
        let together = together.count();
        let count = if together > 1 && (all || self.rng.chance(700)) {
            together
        } else {
            1
        };
        self.inbox.drain(..count.min(self.inbox.len())).collect()
    }

    /// Returns the node's next deadline, in simulated time.
    pub(crate) fn deadline(&self, at: u64) -> Option<u64> {
        let node = self.node.as_ref()?;
        let (deadline, _) = node.poll_timeout(self.clock.now(at))?;
        Some(self.clock.at(deadline))
    }

    pub(crate) fn now(&self, at: u64) -> Now {
        self.clock.now(at)
    }

    /// Returns whether it leads, as far as it knows.
    pub(crate) fn leads(&self) -> bool {
        self.node
            .as_ref()
            .is_some_and(|node| node.view().leader() == Some(&self.id))
    }

    /// Returns whether it leads, and has applied what it needs to serve.
    pub(crate) fn is_ready_leader(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.view().is_leader())
    }
}

/// Returns the identity of the peer with this number.
pub(crate) fn peer_id(number: usize) -> PeerId {
    let mut bytes = [0; 38];
    bytes[..6].copy_from_slice(&[0, 36, 8, 1, 18, 32]);
    bytes[37] = u8::try_from(number + 1).expect("a few peers");
    PeerId::from_bytes(&bytes).expect("a multihash")
}

/// Returns the CID with this number.
pub(crate) fn cid(number: u64) -> Cid {
    let [high, low] = u16::try_from(number).expect("a few CIDs").to_be_bytes();
    Cid::from_bytes(&[1, 0x55, 0, 2, high, low]).expect("an identity CID")
}

/// Returns the number of copies of a pin that does not specify it.
pub(crate) fn default_replicas(options: &Options) -> Replicas {
    match (
        u32::try_from(options.replicas_min),
        u32::try_from(options.replicas_max),
    ) {
        (Ok(min), Ok(max)) if max > 0 => Replicas::Range {
            min: min.clamp(1, max),
            max,
        },
        _ => Replicas::Everywhere,
    }
}

fn config(options: &Options, peer: PeerId) -> Config {
    let millis = Duration::from_millis;
    let count = |number: u64| usize::try_from(number.max(1)).expect("a small number");
    let entry_bytes = count(options.entry_kib << 10);
    Config {
        limits: LimitsConfig {
            pin_bytes: (entry_bytes - (1 << 10)).min(LimitsConfig::DEFAULT.pin_bytes),
            entry_bytes,
            message_bytes: entry_bytes,
            ..LimitsConfig::DEFAULT
        },
        raft: RaftConfig {
            tick: millis(options.tick_ms.max(1)),
            heartbeat_ticks: 2,
            election_ticks: u32::try_from(options.election_ticks.max(3)).expect("a small number"),
            trailing_logs: options.trailing_logs,
            log_bytes: count(options.log_kib << 10),
        },
        requests: RequestsConfig {
            deadline: millis(options.deadline_ms),
            retry: millis(options.retry_ms.max(1)),
            open_max: count(options.open_max),
        },
        tracker: TrackerConfig {
            concurrent_pins: count(options.concurrent_pins),
            pin_timeout: millis(options.pin_timeout_ms),
            unpin_timeout: millis(options.pin_timeout_ms * 2),
            retry_min: millis(options.retry_min_ms),
            retry_max: millis(options.retry_max_ms),
            compare_interval: millis(options.compare_ms),
        },
        monitor: MonitorConfig {
            interval: millis(options.metrics_ms),
        },
        membership: MembershipConfig {
            voters_max: count(options.voters_max),
            replace_after: millis(options.replace_after_ms),
        },
        failover: FailoverConfig {
            enabled: options.failover > 0,
            grace: millis(options.grace_ms),
            chunk: 4,
            pause: millis(50),
        },
        ..Config::new(peer)
    }
}
