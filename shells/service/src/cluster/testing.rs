//! A cluster for tests: real cores, stores, connections and embedded IPFS nodes without a listener. Tests
//! decide how pins end, and which peers answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use cluster_core::{Cid, Metric, PING, PeerId, Pin, Refusal, Replicas, ScrubConfig, Timestamp, VERSION};
use cluster_ipfs::{Backend, Node};
use tokio::sync::mpsc;

use super::{Cluster, Config, Parts, PingValue, ScrubSettings};
use crate::discovery::{self, DiscoveryServer};
use crate::driver::testing::Cores;
use crate::events::EventLog;
use crate::net::{Keypair, Net, NetConfig, NetEvents};

/// Time limit for answers and conditions: far longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Time by the wall clock of the cores, which stands still.
pub(crate) const PINNED_AT: Timestamp = Timestamp(1_770_000_000_000_000_000);

/// Keys of the peers, in the order of their ids.
static KEYS: LazyLock<Vec<Keypair>> = LazyLock::new(|| {
    let keys = (1..=9).map(|seed| Keypair::ed25519_from_bytes([seed; 32]).unwrap());
    let mut keys: Vec<Keypair> = keys.collect();
    keys.sort_by_key(id_of);
    keys
});

fn id_of(key: &Keypair) -> PeerId {
    PeerId::from_bytes(&key.public().to_peer_id().to_bytes()).unwrap()
}

fn key(n: u8) -> &'static Keypair {
    &KEYS[usize::from(n) - 1]
}

/// Returns the nth peer, from 1 to 9.
pub(crate) fn peer(n: u8) -> PeerId {
    id_of(key(n))
}

/// Returns the nth CID.
pub(crate) fn cid(n: u32) -> Cid {
    let mut bytes = vec![0x01, 0x55, 0x12, 0x20];
    bytes.extend_from_slice(&[0; 28]);
    bytes.extend_from_slice(&n.to_be_bytes());
    Cid::from_bytes(&bytes).unwrap()
}

/// A cluster of peers in this process.
pub(crate) struct TestCluster {
    cores: Cores,
    clusters: Vec<Cluster>,
    /// Peers that accept calls and never answer.
    silent: Vec<Arc<AtomicBool>>,
    pub(crate) nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

impl TestCluster {
    /// Starts this many peers.
    pub(crate) async fn new(peers: u8) -> Self {
        Self::with_answer_timeout(peers, PATIENCE).await
    }

    /// As [`Self::new`], with a time limit for answers.
    pub(crate) async fn with_answer_timeout(peers: u8, answer_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let measured = (1..=peers).map(|n| (peer(n), metrics(n))).collect();
        let cores = Cores::found_cluster(folder.path(), PINNED_AT, measured);
        let (mut clusters, mut silent, mut nodes) = (Vec::new(), Vec::new(), Vec::new());
        for n in 1..=peers {
            let node = cluster_ipfs::Config {
                path: folder.path().join(n.to_string()),
                swarm_listen: Vec::new(),
                storage_max: None,
                network: cluster_ipfs::PublicNetwork::default(),
                fixed: std::collections::BTreeMap::new(),
            };
            let node = Node::open(node).await.unwrap();
            let (net, events) = start_net(n, &cores).await;
            let parts = Parts {
                handle: cores.handle(&peer(n)),
                reader: cores.reader(&peer(n)),
                net,
                backend: Backend::Embedded(node.clone()),
                events: EventLog::default(),
            };
            let config = Config {
                peer: peer(n),
                peername: format!("peer{n}"),
                default_replicas: Replicas::Everywhere,
                version: "1.2.3".to_owned(),
                protocol: VERSION,
                scrub: ScrubSettings {
                    file: folder.path().join(format!("scrub-{n}.json")),
                    config: ScrubConfig {
                        interval: Duration::ZERO,
                        share: 1000,
                    },
                },
                high_water: 90,
            };
            let cluster = Cluster::with_answer_timeout(config, parts, answer_timeout);
            let is_silent = Arc::new(AtomicBool::new(false));
            tokio::spawn(serve_calls(events, cluster.clone(), Arc::clone(&is_silent)));
            clusters.push(cluster);
            silent.push(is_silent);
            nodes.push(node);
        }
        let test = Self {
            cores,
            clusters,
            silent,
            nodes,
            _folder: folder,
        };
        test.connect().await;
        test
    }

    /// Connects all peers. Of each two, only one dials: a second connection would replace the first.
    async fn connect(&self) {
        let nets: Vec<&Net> = self.clusters.iter().map(|cluster| &cluster.inner.net).collect();
        for (at, net) in nets.iter().enumerate() {
            for other in &nets[at + 1..] {
                net.add_addresses(other.peer_id(), other.addresses()).await;
            }
        }
        let is_connected = |net: &&Net| net.connected().len() == nets.len() - 1;
        until(|| nets.iter().all(is_connected)).await;
    }

    pub(crate) fn cluster(&self, n: u8) -> Cluster {
        self.clusters[usize::from(n) - 1].clone()
    }

    /// Returns the pinset, as the first peer has it.
    pub(crate) fn pins(&self) -> BTreeMap<Cid, Pin> {
        let pins = self.clusters[0].inner.reader.listing().pins(None);
        let pins = pins.map(Result::unwrap);
        pins.map(|pin| (pin.cid.clone(), pin)).collect()
    }

    /// Ends the pin of a CID that runs at a peer's IPFS node, or the next one.
    pub(crate) fn finish_pin(&self, n: u8, cid: &Cid, outcome: Result<(), &str>) {
        self.cores.finish_pin(&peer(n), cid, outcome);
    }

    /// Removes a CID from a peer's IPFS node.
    pub(crate) fn lose(&self, n: u8, cid: &Cid) {
        self.cores.lose(&peer(n), cid);
    }

    /// Sets the result of all requests, instead of the core's.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.cores.refuse(refusal);
    }

    /// Makes a peer accept calls without ever answering.
    pub(crate) fn silence(&self, n: u8) {
        self.silent[usize::from(n) - 1].store(true, Ordering::Relaxed);
    }

    /// Disconnects a peer; its connections are refused from here on.
    pub(crate) async fn stop(&self, n: u8) {
        self.cluster(n).inner.net.shutdown().await;
        self.cores.isolate(&peer(n));
        let is_gone = |cluster: &Cluster| !cluster.inner.net.connected().contains(&peer(n));
        let is_running = |cluster: &&Cluster| !self.cores.is_isolated(cluster.peer());
        until(|| self.clusters.iter().filter(is_running).all(is_gone)).await;
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        self.cores.close();
    }
}

async fn until(done: impl Fn() -> bool) {
    let waiting = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
}

/// Returns the metrics of a peer: the lower its number, the more free space it has.
fn metrics(n: u8) -> Vec<Metric> {
    let ping = PingValue {
        peer_name: format!("peer{n}"),
        ..PingValue::default()
    };
    let metric = |name: &str, value: String, weight: i64| Metric {
        name: name.to_owned(),
        value,
        weight,
        partitionable: false,
        ttl: Duration::from_secs(30),
        valid: true,
    };
    // Peers of about equal space would share the pins.
    let free = 1 << (40 - 4 * n);
    vec![
        metric(PING, ping.encode(), 0),
        metric("freespace", free.to_string(), free),
    ]
}

async fn start_net(n: u8, cores: &Cores) -> (Net, NetEvents) {
    let members = cores.members(&peer(n));
    let config = NetConfig {
        keypair: key(n).clone(),
        secret: Some([9; 32]),
        accepted_secrets: Vec::new(),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
        announce: Vec::new(),
        no_announce: Vec::new(),
        version: VERSION,
        cluster: members.cluster,
        known_peers: BTreeMap::new(),
        open_methods: [discovery::METHOD.to_owned()].into(),
    };
    let (net, events) = Net::start(config).await.unwrap();
    net.set_members(members.peer_ids().cloned().collect()).await;
    (net, events)
}

/// Answers the calls of other peers, but keeps those to a silent peer open.
async fn serve_calls(mut events: NetEvents, cluster: Cluster, is_silent: Arc<AtomicBool>) {
    let (invitations, _invited) = mpsc::channel(1);
    let server = DiscoveryServer::new(cluster.inner.net.clone(), invitations, || false);
    server.set_handle(cluster.inner.handle.clone());
    let mut unanswered = Vec::new();
    while let Some(incoming) = events.calls.recv().await {
        let (cluster, server) = (cluster.clone(), server.clone());
        if is_silent.load(Ordering::Relaxed) {
            unanswered.push(incoming);
        } else if incoming.method == discovery::METHOD {
            tokio::spawn(async move { server.answer(incoming).await });
        } else {
            tokio::spawn(async move { cluster.serve_call(incoming).await });
        }
    }
}
