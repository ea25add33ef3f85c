//! An in-memory cluster for tests: peers share one pinset, and call each other through channels. Tests set
//! which peers answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cluster_api::{Bandwidth, BandwidthByProtocol};
use cluster_core::{
    Batch, BatchId, Cid, Incarnation, Local, Members, Metric, PING, PeerId, Phase, Pin, PinType, Recovered,
    Refusal, Replicas, Reply, Request, StoreOp, Timestamp,
};
use cluster_ipfs::{Backend, Node};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::world::{Alert, Channel, Core, Network, Sample, World};
use super::{Cluster, Config, PingValue};
use crate::store::{OpenOptions, Store};

/// Time limit for answers: far longer than a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Timestamp of all pins in these clusters.
pub(crate) const PINNED_AT: Timestamp = Timestamp(1_770_000_000_000_000_000);

/// Behaviour of a peer towards the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Answers calls.
    Answers,
    /// Accepts calls and never answers.
    Silent,
    /// Refuses connections.
    Down,
}

/// State shared by all peers.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) pins: BTreeMap<Cid, Pin>,
    /// Database of each peer: the pins again, and its local states.
    stores: BTreeMap<PeerId, Store>,
    pub(crate) behaviours: BTreeMap<PeerId, Behaviour>,
    pub(crate) peers: BTreeMap<PeerId, Cluster>,
    pub(crate) refusal: Option<Refusal>,
}

/// A cluster of in-memory peers with embedded IPFS nodes.
pub(crate) struct FakeCluster {
    pub(crate) ledger: Arc<Mutex<Ledger>>,
    pub(crate) nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

/// Returns the nth peer.
pub(crate) fn peer(n: u8) -> PeerId {
    let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
    bytes.extend_from_slice(&[n; 32]);
    PeerId::from_bytes(&bytes).unwrap()
}

/// Returns the nth CID.
pub(crate) fn cid(n: u32) -> Cid {
    let mut bytes = vec![0x01, 0x55, 0x12, 0x20];
    bytes.extend_from_slice(&[0; 28]);
    bytes.extend_from_slice(&n.to_be_bytes());
    Cid::from_bytes(&bytes).unwrap()
}

pub(crate) fn local(phase: Phase, error: &str) -> Local {
    Local {
        phase,
        attempts: 2,
        error: error.to_owned(),
        since: PINNED_AT,
        queued: None,
        mode: cluster_core::Mode::Recursive,
    }
}

impl FakeCluster {
    /// Starts this many peers, each with an embedded node without a listener.
    pub(crate) async fn new(peers: u8) -> Self {
        Self::with_answer_timeout(peers, PATIENCE).await
    }

    /// As [`Self::new`], with a time limit for answers.
    pub(crate) async fn with_answer_timeout(peers: u8, answer_timeout: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut nodes = Vec::new();
        for n in 1..=peers {
            let path = folder.path().join(n.to_string());
            let config = cluster_ipfs::Config {
                path,
                swarm_listen: Vec::new(),
                storage_max: None,
                network: cluster_ipfs::PublicNetwork::default(),
            };
            let node = Node::open(config).await.unwrap();
            let store = store(&folder.path().join(format!("raft{n}")), peer(n));
            let world = World {
                core: Arc::new(FakeCore {
                    me: peer(n),
                    ledger: ledger.clone(),
                }),
                reader: store.reader(),
                network: Arc::new(FakeNetwork {
                    me: peer(n),
                    ledger: ledger.clone(),
                }),
            };
            let config = Config {
                peer: peer(n),
                peername: format!("peer{n}"),
                default_replicas: Replicas::Everywhere,
                version: "1.2.3".to_owned(),
            };
            let cluster =
                Cluster::with_answer_timeout(config, world, Backend::Embedded(node.clone()), answer_timeout);
            nodes.push(node);
            let mut ledger = ledger.lock().unwrap();
            ledger.stores.insert(peer(n), store);
            ledger.peers.insert(peer(n), cluster);
            ledger.behaviours.insert(peer(n), Behaviour::Answers);
        }
        Self {
            ledger,
            nodes,
            _folder: folder,
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap()
    }

    pub(crate) fn cluster(&self, n: u8) -> Cluster {
        self.ledger().peers[&peer(n)].clone()
    }

    /// Sets the local state of a CID at one peer.
    pub(crate) fn put_local(&self, n: u8, cid: &Cid, local: Local) {
        let cid = cid.clone();
        self.ledger().write(&peer(n), StoreOp::PutLocal { cid, local });
    }

    /// Deletes the local state of a CID at one peer.
    pub(crate) fn delete_local(&self, n: u8, cid: &Cid) {
        let cid = cid.clone();
        self.ledger().write(&peer(n), StoreOp::DeleteLocal { cid });
    }

    pub(crate) fn set(&self, n: u8, behaviour: Behaviour) {
        self.ledger().behaviours.insert(peer(n), behaviour);
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        // Breaks the reference cycle of peers and ledger, and closes the stores before their folder goes.
        let mut ledger = self.ledger();
        ledger.peers.clear();
        ledger.stores.clear();
    }
}

/// Opens a new store.
fn store(folder: &Path, me: PeerId) -> Store {
    let mut store = Store::open(folder, &OpenOptions::default()).unwrap();
    let members = Members::initial([me]);
    store
        .initialise(&Recovered::founding(Incarnation(1), members))
        .unwrap();
    store
}

impl Ledger {
    fn put_pin(&mut self, pin: Pin) {
        let previous = self.pins.insert(pin.cid.clone(), pin.clone()).map(Box::new);
        self.write_all(&StoreOp::PutPin { pin, previous });
    }

    fn delete_pin(&mut self, cid: &Cid) -> Option<Pin> {
        let pin = self.pins.remove(cid)?;
        self.write_all(&StoreOp::DeletePin { pin: pin.clone() });
        Some(pin)
    }

    fn write_all(&mut self, op: &StoreOp) {
        for store in self.stores.values_mut() {
            write(store, op.clone());
        }
    }

    fn write(&mut self, peer: &PeerId, op: StoreOp) {
        write(self.stores.get_mut(peer).unwrap(), op);
    }
}

fn write(store: &mut Store, op: StoreOp) {
    let batch = Batch {
        id: BatchId(0),
        ops: vec![op],
        sync: false,
    };
    store.write(&batch).unwrap();
}

struct FakeCore {
    me: PeerId,
    ledger: Arc<Mutex<Ledger>>,
}

impl FakeCore {
    fn allocate(ledger: &Ledger, options: &cluster_core::PinOptions) -> Result<Vec<PeerId>, Refusal> {
        let Replicas::Range { min, max } = options.replicas else {
            return Ok(Vec::new());
        };
        let alive = |peer: &&PeerId| ledger.behaviours[*peer] != Behaviour::Down;
        let preferred = options.user_allocations.iter();
        let mut candidates: Vec<PeerId> = preferred
            .chain(ledger.peers.keys())
            .filter(alive)
            .cloned()
            .collect();
        let mut seen = Vec::new();
        candidates.retain(|peer| {
            !seen.contains(peer) && {
                seen.push(peer.clone());
                true
            }
        });
        candidates.truncate(max as usize);
        if candidates.len() < min as usize {
            let available = u32::try_from(candidates.len()).unwrap();
            return Err(Refusal::NotEnoughPeers {
                needed: min,
                wanted: max,
                available,
                why: String::new(),
            });
        }
        candidates.sort();
        Ok(candidates)
    }

    fn answer(me: &PeerId, ledger: &mut Ledger, request: Request) -> Result<Reply, Refusal> {
        if let Some(refusal) = &ledger.refusal {
            return Err(refusal.clone());
        }
        match request {
            Request::AddPeer { .. } => Ok(Reply::PeerAdded),
            Request::RemovePeer { .. } => Ok(Reply::PeerRemoved),
            Request::Allocate { options, .. } => Self::allocate(ledger, &options).map(Reply::Allocated),
            Request::Barrier => Ok(Reply::Barrier(1)),
            Request::Import { pin } => {
                let allocations = Self::allocate(ledger, &pin.options)?;
                let version = ledger.pins.len() as u64 + 1;
                let pin = Pin {
                    allocations,
                    version,
                    ..pin
                };
                ledger.put_pin(pin.clone());
                Ok(Reply::Pinned(pin))
            }
            Request::Pin { cid, options } => {
                let allocations = Self::allocate(ledger, &options)?;
                let version = ledger.pins.len() as u64 + 1;
                let pin = Pin {
                    cid: cid.clone(),
                    pin_type: PinType::Data,
                    allocations,
                    reference: None,
                    options,
                    timestamp: PINNED_AT,
                    version,
                };
                ledger.put_pin(pin.clone());
                Ok(Reply::Pinned(pin))
            }
            Request::Unpin { cid } => ledger
                .delete_pin(&cid)
                .map(Reply::Unpinned)
                .ok_or(Refusal::NotFound),
            Request::Recover { cid } => {
                Ok(Reply::Recovered(Self::recover(me, ledger, |other| *other == cid)))
            }
            Request::Sync { .. } => Ok(Reply::Synced(0)),
            Request::RecoverAll => Ok(Reply::Recovered(Self::recover(me, ledger, |_| true))),
        }
    }

    fn recover(me: &PeerId, ledger: &mut Ledger, which: impl Fn(&Cid) -> bool) -> u64 {
        let failed = ledger.stores[me].reader().listing().locals(None);
        let failed = failed.map(Result::unwrap);
        let failed: Vec<_> = failed
            .filter(|(cid, local)| which(cid) && local.phase == Phase::PinError)
            .collect();
        let count = failed.len() as u64;
        for (cid, mut local) in failed {
            local.phase = Phase::PinQueued;
            ledger.write(me, StoreOp::PutLocal { cid, local });
        }
        count
    }
}

impl Core for FakeCore {
    fn request(&self, request: Request) -> BoxFuture<'static, Result<Reply, Refusal>> {
        let reply = Self::answer(&self.me, &mut self.ledger.lock().unwrap(), request);
        async move { reply }.boxed()
    }

    fn members(&self) -> BoxFuture<'static, Option<Members>> {
        let members = Members::initial(self.ledger.lock().unwrap().peers.keys().cloned());
        async move { Some(members) }.boxed()
    }

    fn has_leader(&self) -> BoxFuture<'static, Option<bool>> {
        let has = self.ledger.lock().unwrap().refusal != Some(Refusal::NoLeader);
        async move { Some(has) }.boxed()
    }

    fn running(&self) -> BoxFuture<'static, Option<Vec<(Cid, bool)>>> {
        async { Some(Vec::new()) }.boxed()
    }

    fn metric_names(&self) -> BoxFuture<'static, Option<Vec<String>>> {
        async { Some(vec![PING.to_owned(), "freespace".to_owned()]) }.boxed()
    }

    fn metrics(&self, name: &str) -> BoxFuture<'static, Option<Vec<Sample>>> {
        let named = name == PING;
        let peers: Vec<PeerId> = self
            .ledger
            .lock()
            .unwrap()
            .peers
            .keys()
            .filter(|_| named)
            .cloned()
            .collect();
        let samples = peers.into_iter().map(sample).collect();
        async move { Some(samples) }.boxed()
    }

    fn alerts(&self) -> BoxFuture<'static, Option<Vec<Alert>>> {
        let alert = Alert {
            sample: sample(self.me.clone()),
            triggered_at: PINNED_AT,
        };
        async move { Some(vec![alert]) }.boxed()
    }
}

fn sample(peer: PeerId) -> Sample {
    let number = peer.as_bytes()[6];
    let value = PingValue {
        peer_name: format!("peer{number}"),
        ..PingValue::default()
    };
    let metric = Metric {
        name: PING.to_owned(),
        value: value.encode(),
        weight: 0,
        partitionable: false,
        ttl: Duration::from_secs(30),
        valid: true,
    };
    Sample {
        peer,
        metric,
        received_at: PINNED_AT,
    }
}

struct FakeNetwork {
    me: PeerId,
    ledger: Arc<Mutex<Ledger>>,
}

/// One end of a call.
struct Pipe {
    out: Option<mpsc::Sender<Result<Bytes, String>>>,
    incoming: mpsc::Receiver<Result<Bytes, String>>,
    finished: bool,
    /// The other end, which never answers, of a call to a silent peer.
    silent_end: Option<Box<Pipe>>,
}

/// Marks the regular end of a direction, as opposed to a dropped end.
const END: &str = "\0end";

impl Channel for Pipe {
    fn send(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let out = self.out.as_ref().ok_or("all has been sent")?;
            out.send(Ok(chunk))
                .await
                .map_err(|_| "the other side is gone".to_owned())
        }
        .boxed()
    }

    fn next(&mut self) -> BoxFuture<'_, Option<Result<Bytes, String>>> {
        async move {
            if self.finished {
                return None;
            }
            match self.incoming.recv().await {
                Some(Ok(chunk)) => return Some(Ok(chunk)),
                Some(Err(why)) if why == END => self.finished = true,
                Some(Err(why)) => return Some(Err(why)),
                None => return Some(Err("the other side is gone".to_owned())),
            }
            None
        }
        .boxed()
    }

    fn finish(&mut self, outcome: Result<(), String>) -> BoxFuture<'_, Result<(), String>> {
        async move {
            let out = self.out.take().ok_or("all has been sent")?;
            let last = outcome.err().unwrap_or_else(|| END.to_owned());
            out.send(Err(last))
                .await
                .map_err(|_| "the other side is gone".to_owned())
        }
        .boxed()
    }
}

impl Network for FakeNetwork {
    fn call(
        &self,
        to: &PeerId,
        request: Bytes,
        _upload: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Channel>, String>> {
        let ledger = self.ledger.lock().unwrap();
        let (behaviour, cluster) = (ledger.behaviours[to], ledger.peers[to].clone());
        let me = self.me.clone();
        async move {
            if behaviour == Behaviour::Down {
                return Err("connection refused".to_owned());
            }
            let (out, there) = mpsc::channel(2);
            let (back, here) = mpsc::channel(2);
            let far = Pipe {
                out: Some(back),
                incoming: there,
                finished: false,
                silent_end: None,
            };
            let mut near = Pipe {
                out: Some(out),
                incoming: here,
                finished: false,
                silent_end: None,
            };
            if behaviour == Behaviour::Silent {
                near.silent_end = Some(Box::new(far));
            } else {
                tokio::spawn(async move { cluster.serve_call(me, request, Box::new(far)).await });
            }
            let channel: Box<dyn Channel> = Box::new(near);
            Ok(channel)
        }
        .boxed()
    }

    fn introduce(&self, peer: &PeerId, _addresses: Vec<String>) -> BoxFuture<'static, Result<(), String>> {
        let belongs_elsewhere = self.ledger.lock().unwrap().behaviours.get(peer) == Some(&Behaviour::Down);
        let outcome = if belongs_elsewhere {
            Err("it belongs to another cluster".to_owned())
        } else {
            Ok(())
        };
        async move { outcome }.boxed()
    }

    fn addresses(&self) -> Vec<String> {
        vec![format!("/ip4/127.0.0.1/tcp/9096/p2p/{}", self.me)]
    }

    fn peer_addresses(&self) -> Vec<String> {
        Vec::new()
    }

    fn connected(&self) -> Vec<PeerId> {
        let ledger = self.ledger.lock().unwrap();
        let up = ledger
            .behaviours
            .iter()
            .filter(|(peer, behaviour)| **peer != self.me && **behaviour != Behaviour::Down);
        up.map(|(peer, _)| peer.clone()).collect()
    }

    fn bandwidth(&self) -> BandwidthByProtocol {
        BTreeMap::from([(
            "/x/1".to_owned(),
            Bandwidth {
                total_in: 1,
                ..Bandwidth::default()
            },
        )])
    }
}
