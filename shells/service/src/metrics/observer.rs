//! Reads the state of a running peer: for a scrape, and for the question whether it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use cluster_core::{
    Applied, Counters, Index, Lane, Members, PING, PeerId, RebalanceProgress, Timestamp, View,
};
use cluster_ipfs::{Backend, DhtState, ProvideStat};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::instrument::{raise, set};
use super::{history, metrics, scan};
use crate::cluster::{Cluster, PingValue, consensus_problem};
use crate::driver::Handle;
use crate::events::{self, EventLog};
use crate::net::Net;
use crate::store::Reader;

/// Maximum number of members with series of their own; a larger cluster shows the first by id.
pub const PEERS_MAX: usize = 64;

/// Maximum number of copies that wait for their replacements which are counted.
const WAITING_MAX: usize = 10_000;

/// Time for the core to be read. It turns many times a second; a peer whose core does not is stuck.
const CORE_TIMEOUT: Duration = Duration::from_secs(5);

/// The parts of a running peer that are read. Cheap to clone.
#[derive(Clone)]
pub struct Observer {
    parts: Arc<Parts>,
}

struct Parts {
    handle: Handle,
    net: Net,
    reader: Reader,
    backend: Backend,
    cluster: Cluster,
    /// Names of the members, as they were last known. Locked by a scrape: gauges are set one after the other.
    names: Mutex<BTreeMap<PeerId, String>>,
}

impl std::fmt::Debug for Observer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Observer").field(self.parts.net.peer_id()).finish()
    }
}

/// State of the core at one moment.
struct Core {
    /// Reason why it does not serve, if there is one.
    problem: Option<String>,
    term: u64,
    leader: Option<PeerId>,
    is_leader: bool,
    members: Members,
    committed: Index,
    applied: Applied,
    log: (Index, Index, usize),
    pending: usize,
    open: usize,
    pinning: usize,
    running: usize,
    blocked: u64,
    rebalance: RebalanceProgress,
    alerts: usize,
    counters: Counters,
    peers: Vec<Peer>,
}

/// A member as this peer sees it.
struct Peer {
    id: PeerId,
    name: String,
    seen: Option<Timestamp>,
    free: Option<u64>,
    held: Option<u64>,
    queued: Option<u64>,
    /// Version of its program; empty while unknown.
    version: String,
    is_voter: bool,
    matched: Option<Index>,
}

/// Readiness of a peer, with the reasons against it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct Readiness {
    /// Set if there are no reasons against it.
    pub ready: bool,
    /// Reasons against it, for people.
    pub reasons: Vec<String>,
    /// Id of the leader; empty if none is known.
    pub leader: String,
    /// Highest log index applied here.
    pub applied: u64,
    /// Highest log index known to be committed.
    pub committed: u64,
}

impl Observer {
    /// Returns an observer of these parts.
    pub fn new(handle: &Handle, net: &Net, reader: Reader, backend: &Backend, cluster: &Cluster) -> Self {
        let parts = Parts {
            handle: handle.clone(),
            net: net.clone(),
            reader,
            backend: backend.clone(),
            cluster: cluster.clone(),
            names: Mutex::default(),
        };
        Self {
            parts: Arc::new(parts),
        }
    }

    /// Counts the pins every `interval`, or less often if there are many, while it is polled.
    pub async fn watch_pins(self, interval: Duration) {
        let (handle, reader) = (self.parts.handle.clone(), self.parts.reader.clone());
        scan::watch_pins(handle, reader, interval).await;
    }

    /// Keeps the history of the last hour, while it is polled.
    pub async fn watch_history(self) {
        history::watch().await;
    }

    /// Appends changes of the leader, the members and the alerts to the events, while it is polled.
    pub async fn watch_changes(self, events: EventLog) {
        let (handle, net) = (self.parts.handle.clone(), self.parts.net.clone());
        events::watch(handle, net, events).await;
    }

    /// Starts to measure how long the copies of some pins take.
    pub fn enable_samples(&self) {
        self.parts.cluster.enable_samples();
    }

    /// Waits until the core has handled all earlier inputs; `false` if it does not in time.
    pub async fn core_turns(&self) -> bool {
        let turn = self.parts.handle.view(|_, _| ());
        matches!(timeout(CORE_TIMEOUT, turn).await, Ok(Some(())))
    }

    /// Returns whether this peer has a leader, has caught up with it, and its IPFS node answers.
    pub async fn readiness(&self) -> Readiness {
        let (core, id) = tokio::join!(self.core(), self.parts.cluster.id());
        let mut reasons = Vec::new();
        let mut readiness = Readiness {
            ready: false,
            reasons: Vec::new(),
            leader: String::new(),
            applied: 0,
            committed: 0,
        };
        match core {
            None => reasons.push(format!("the core does not answer within {CORE_TIMEOUT:?}")),
            Some(core) => {
                readiness.applied = core.applied.index;
                readiness.committed = core.committed;
                readiness.leader = core.leader.as_ref().map(PeerId::to_string).unwrap_or_default();
                reasons.extend(core.problem);
            }
        }
        let ipfs = id.map(|id| id.ipfs.error);
        let error = ipfs.unwrap_or_else(|error| error.to_string());
        metrics().ipfs_up.set(i64::from(error.is_empty()));
        if !error.is_empty() {
            reasons.push(format!("the IPFS node does not answer: {error}"));
        }
        readiness.ready = reasons.is_empty();
        readiness.reasons = reasons;
        readiness
    }

    async fn core(&self) -> Option<Core> {
        timeout(CORE_TIMEOUT, self.parts.handle.view(read_core))
            .await
            .ok()?
    }

    /// Reads everything that is not counted where it happens, and returns all metrics as text.
    pub async fn scrape(&self) -> String {
        let mut names = self.parts.names.lock().await;
        let (mut core, ipfs) = tokio::join!(self.core(), self.ipfs_answers());
        metrics().ipfs_up.set(i64::from(ipfs));
        if let Some(core) = &mut core {
            remember_names(&mut names, &mut core.peers);
            publish_consensus(core);
            self.publish_peers(&core.peers, core.is_leader, core.committed);
            self.publish_queues(core);
            self.publish_moves(core).await;
        }
        self.publish_network();
        self.publish_node().await;
        metrics().encode()
    }

    async fn ipfs_answers(&self) -> bool {
        let id = self.parts.cluster.id().await;
        id.is_ok_and(|id| id.ipfs.error.is_empty())
    }

    fn publish_peers(&self, peers: &[Peer], is_leader: bool, committed: Index) {
        let metrics = metrics();
        // A removed member leaves no series behind.
        for family in [
            &metrics.peer_contact,
            &metrics.peer_up,
            &metrics.peer_connected,
            &metrics.peer_free,
            &metrics.peer_pins,
            &metrics.peer_queued,
            &metrics.peer_voter,
            &metrics.peer_info,
            &metrics.raft_peer_lag,
        ] {
            family.reset();
        }
        let connected = self.parts.net.connected();
        let me = self.parts.net.peer_id();
        for peer in peers.iter().take(PEERS_MAX) {
            let id = peer.id.to_string();
            let labels = [id.as_str(), peer.name.as_str()];
            let is_connected = peer.id == *me || connected.contains(&peer.id);
            let matched = peer.matched.filter(|_| is_leader);
            for (family, value) in [
                (&metrics.peer_up, Some(u64::from(peer.seen.is_some()))),
                (
                    &metrics.peer_contact,
                    peer.seen.map(|seen| seen.0 / 1_000_000_000),
                ),
                (&metrics.peer_connected, Some(u64::from(is_connected))),
                (&metrics.peer_voter, Some(u64::from(peer.is_voter))),
                (&metrics.peer_free, peer.free),
                (&metrics.peer_pins, peer.held),
                (&metrics.peer_queued, peer.queued),
                (
                    &metrics.raft_peer_lag,
                    matched.map(|matched| committed.saturating_sub(matched)),
                ),
            ] {
                if let Some(value) = value {
                    set(&family.with_label_values(&labels), value);
                }
            }
            if !peer.version.is_empty() {
                let labels = [id.as_str(), &peer.name, &peer.version];
                metrics.peer_info.with_label_values(&labels).set(1);
            }
        }
    }

    fn publish_queues(&self, core: &Core) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let queue = |name: &str, length: usize, limit: usize| {
            let labels = [name];
            metrics()
                .queue_length
                .with_label_values(&labels)
                .set(number(length));
            if limit > 0 {
                metrics()
                    .queue_limit
                    .with_label_values(&labels)
                    .set(number(limit));
            }
        };
        for (name, length, limit) in self.parts.handle.queues() {
            queue(name, length, limit);
        }
        for (name, length, limit) in self.parts.cluster.queues() {
            queue(name, length, limit);
        }
        queue("open_requests", core.open, 0);
        queue("pending_proposals", core.pending, 0);
        queue("ipfs_operations", core.running, 0);
    }

    async fn publish_moves(&self, core: &Core) {
        let metrics = metrics();
        set(&metrics.drain_blocked, core.blocked);
        let progress = &core.rebalance;
        set(&metrics.rebalance_passing, progress.is_passing.into());
        set(&metrics.rebalance_planned, progress.planned);
        raise(&metrics.rebalance_moved, progress.moved_in_all);
        raise(&metrics.rebalance_lost, progress.undone_in_all);
        let reader = self.parts.reader.clone();
        let count = move || reader.listing().queued(Lane::Surplus, WAITING_MAX);
        if let Ok(Ok(waiting)) = tokio::task::spawn_blocking(count).await {
            set(&metrics.moves_waiting, waiting);
        }
    }

    fn publish_network(&self) {
        let metrics = metrics();
        for (protocol, traffic) in self.parts.net.traffic() {
            let of = |direction| metrics.peer_bytes.with_label_values(&[protocol, direction]);
            raise(&of("received"), traffic.received);
            raise(&of("sent"), traffic.sent);
        }
        let losses = self.parts.net.losses();
        raise(&metrics.outbox_dropped, losses.dropped);
        for (reason, count) in [
            ("stranger", losses.refused),
            ("overloaded", losses.overloaded),
            ("malformed", losses.malformed),
            ("handshake", losses.handshakes),
        ] {
            raise(&metrics.connections_refused.with_label_values(&[reason]), count);
        }
        let delays = self.parts.handle.delays().worst();
        metrics.timer_delay.set(delays.timer.as_secs_f64());
        metrics.network_delay.set(delays.network.as_secs_f64());
    }

    async fn publish_node(&self) {
        let metrics = metrics();
        let (reader, backend) = (self.parts.reader.clone(), self.parts.backend.clone());
        let read = tokio::task::spawn_blocking(move || {
            let stat = match &backend {
                Backend::Embedded(node) => node.stat().ok(),
                Backend::Kubo(_) => None,
            };
            (reader.disk_space().ok(), stat)
        });
        let Ok((bytes, stat)) = read.await else {
            return;
        };
        if let Some(bytes) = bytes {
            set(&metrics.store_bytes, bytes);
        }
        if let Some(stat) = stat {
            set(&metrics.ipfs_blocks, stat.num_objects);
            set(&metrics.ipfs_node_pins, stat.num_pins);
        }
        if let Backend::Embedded(node) = &self.parts.backend {
            let exchange = node.exchange_stat();
            for (direction, (blocks, bytes)) in [("received", exchange.received), ("sent", exchange.sent)] {
                raise(&metrics.bitswap_blocks.with_label_values(&[direction]), blocks);
                raise(&metrics.bitswap_bytes.with_label_values(&[direction]), bytes);
            }
            let peers = node.peers().await.len();
            set(&metrics.bitswap_peers, peers as u64);
            let traffic = node.traffic();
            for (direction, bytes) in [("received", traffic.total_in), ("sent", traffic.total_out)] {
                raise(&metrics.node_bytes.with_label_values(&[direction]), bytes);
            }
            publish_dhts(&node.dhts());
            publish_announcing(&node.provide_stat());
        }
        let unmended = self.parts.backend.unmended();
        for (kind, bad, mended) in [
            ("block", unmended.blocks, unmended.mended_blocks),
            ("pin", unmended.pins, unmended.mended_pins),
        ] {
            set(&metrics.unmended.with_label_values(&[kind]), bad);
            raise(&metrics.mended.with_label_values(&[kind]), mended);
        }
    }
}

fn publish_dhts(dhts: &[DhtState]) {
    let metrics = metrics();
    for dht in dhts {
        let name = if dht.is_public { "public" } else { "local" };
        set(&metrics.dht_peers.with_label_values(&[name]), dht.peers as u64);
        let server = metrics.dht_server.with_label_values(&[name]);
        server.set(i64::from(dht.is_server));
        for (kind, count) in [("provider", dht.provider_records), ("value", dht.value_records)] {
            set(
                &metrics.dht_records.with_label_values(&[name, kind]),
                count as u64,
            );
        }
    }
}

fn publish_announcing(stat: &ProvideStat) {
    let metrics = metrics();
    metrics.provide_lag.set(stat.lag.as_secs_f64());
    let oldest = stat.oldest.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    set(&metrics.provide_oldest, oldest.map_or(0, |since| since.as_secs()));
    set(&metrics.provide_regions, stat.regions_current as u64);
    set(&metrics.provide_keys, stat.keys);
    for (result, count) in [("announced", stat.announced), ("failed", stat.failed)] {
        raise(&metrics.provide_pins.with_label_values(&[result]), count);
    }
    raise(&metrics.provide_records, stat.records);
    raise(&metrics.provide_failures, stat.failed_sends);
    let queue = ["provide"];
    set(
        &metrics.queue_length.with_label_values(&queue),
        stat.queued as u64,
    );
    set(
        &metrics.queue_limit.with_label_values(&queue),
        stat.queue_max as u64,
    );
}

fn read_core(view: View<'_>, now: cluster_core::Now) -> Core {
    let members = view.members().clone();
    let running = view.running();
    let (mut pinning, mut all) = (0, 0);
    for (_, unpins) in running {
        all += 1;
        pinning += usize::from(!unpins);
    }
    let pings: Vec<_> = view.metrics(now, PING).collect();
    let spaces: Vec<_> = view.metrics(now, "freespace").collect();
    let queues: Vec<_> = view.metrics(now, "pinqueue").collect();
    let ids: BTreeSet<&PeerId> = view.members().peer_ids().collect();
    let voters = members.voters.iter().filter_map(|id| members.peers.get(id));
    let voters: BTreeSet<PeerId> = voters.map(|member| member.peer.clone()).collect();
    let peers = ids.into_iter().map(|id| {
        let ping = pings.iter().find(|(peer, _)| *peer == id);
        let free = spaces.iter().find(|(peer, _)| *peer == id);
        let queued = queues.iter().find(|(peer, _)| *peer == id);
        let value = ping.map(|(_, ping)| PingValue::decode(&ping.metric.value));
        let value = value.unwrap_or_default();
        Peer {
            id: id.clone(),
            name: value.peer_name,
            seen: ping.map(|(_, ping)| ping.at),
            free: free.and_then(|(_, free)| free.metric.value.parse().ok()),
            held: value.pins_held,
            queued: queued.and_then(|(_, queued)| queued.metric.value.parse().ok()),
            version: value.version,
            is_voter: voters.contains(id),
            matched: view.matched(id),
        }
    });
    Core {
        problem: consensus_problem(&view),
        term: view.term(),
        leader: view.leader().cloned(),
        is_leader: view.is_leader(),
        committed: view.committed(),
        applied: view.applied(),
        log: view.log_span(),
        pending: view.pending(),
        open: view.open_requests(),
        pinning,
        running: all,
        blocked: view.blocked().pins,
        rebalance: view.rebalance_progress().clone(),
        alerts: view.alerts().count(),
        counters: view.counters(),
        peers: peers.collect(),
        members,
    }
}

/// Gives members whose ping has expired the names that they had.
fn remember_names(names: &mut BTreeMap<PeerId, String>, peers: &mut [Peer]) {
    names.retain(|id, _| peers.iter().any(|peer| peer.id == *id));
    for peer in peers {
        if peer.name.is_empty() {
            peer.name = names.get(&peer.id).cloned().unwrap_or_default();
        } else {
            names.insert(peer.id.clone(), peer.name.clone());
        }
    }
}

/// Returns the name in a `ping`.
pub(crate) fn peer_name(ping: &str) -> String {
    PingValue::decode(ping).peer_name
}

fn publish_consensus(core: &Core) {
    let metrics = metrics();
    set(&metrics.raft_term, core.term);
    metrics.raft_has_leader.set(i64::from(core.leader.is_some()));
    metrics.raft_is_leader.set(i64::from(core.is_leader));
    set(&metrics.raft_commit_index, core.committed);
    set(&metrics.raft_applied_index, core.applied.index);
    let lag = core.committed.saturating_sub(core.applied.index);
    set(&metrics.raft_apply_lag, lag);
    let (first, last, bytes) = core.log;
    let entries = if bytes == 0 {
        0
    } else {
        (last + 1).saturating_sub(first)
    };
    set(&metrics.raft_log_entries, entries);
    set(&metrics.raft_log_bytes, bytes as u64);
    set(&metrics.raft_voters, core.members.voters.len() as u64);
    set(&metrics.raft_members, core.members.peers.len() as u64);
    set(&metrics.pins, core.applied.pins);
    set(&metrics.pins_pinning, core.pinning as u64);
    set(&metrics.alerts, core.alerts as u64);
    let counters = core.counters;
    for (reason, count) in [
        ("other_cluster", counters.from_other_clusters),
        ("other_incarnation", counters.from_other_incarnations),
        ("non_member", counters.from_non_members),
        ("invalid", counters.invalid),
    ] {
        raise(&metrics.messages_dropped.with_label_values(&[reason]), count);
    }
}
