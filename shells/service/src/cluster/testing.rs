//! An in-memory cluster for tests: peers share one pinset, and call each other through channels. Tests set
//! which peers answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cluster_api::{Bandwidth, BandwidthByProtocol};
use cluster_core::{
    Cid, Local, Members, Metric, PING, PeerId, Phase, Pin, PinType, Refusal, Replicas, Reply, Request,
    Timestamp,
};
use cluster_ipfs::{Backend, Node};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use super::world::{Alert, Channel, Core, Network, Sample, Snapshot, Store, StoreError, World};
use super::{Cluster, Config, PingValue};

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
    pub(crate) locals: BTreeMap<(PeerId, Cid), Local>,
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
            };
            let node = Node::open(config).await.unwrap();
            let world = World {
                core: Arc::new(FakeCore {
                    me: peer(n),
                    ledger: ledger.clone(),
                }),
                store: Arc::new(FakeStore {
                    me: peer(n),
                    ledger: ledger.clone(),
                }),
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

    pub(crate) fn set(&self, n: u8, behaviour: Behaviour) {
        self.ledger().behaviours.insert(peer(n), behaviour);
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        // Breaks the reference cycle of peers and ledger.
        self.ledger().peers.clear();
    }
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
                ledger.pins.insert(pin.cid.clone(), pin.clone());
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
                ledger.pins.insert(cid, pin.clone());
                Ok(Reply::Pinned(pin))
            }
            Request::Unpin { cid } => ledger
                .pins
                .remove(&cid)
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
        let mut count = 0;
        for ((peer, cid), local) in &mut ledger.locals {
            if peer == me && which(cid) && local.phase == Phase::PinError {
                local.phase = Phase::PinQueued;
                count += 1;
            }
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

struct FakeStore {
    me: PeerId,
    ledger: Arc<Mutex<Ledger>>,
}

struct FakeSnapshot {
    pins: BTreeMap<Cid, Pin>,
    locals: BTreeMap<Cid, Local>,
}

impl Store for FakeStore {
    fn pin(&self, cid: &Cid) -> Result<Option<Pin>, StoreError> {
        Ok(self.ledger.lock().unwrap().pins.get(cid).cloned())
    }

    fn local(&self, cid: &Cid) -> Result<Option<Local>, StoreError> {
        Ok(self
            .ledger
            .lock()
            .unwrap()
            .locals
            .get(&(self.me.clone(), cid.clone()))
            .cloned())
    }

    fn snapshot(&self) -> Arc<dyn Snapshot> {
        let ledger = self.ledger.lock().unwrap();
        let mine = ledger.locals.iter().filter(|((peer, _), _)| *peer == self.me);
        let locals = mine
            .map(|((_, cid), local)| (cid.clone(), local.clone()))
            .collect();
        Arc::new(FakeSnapshot {
            pins: ledger.pins.clone(),
            locals,
        })
    }
}

impl Snapshot for FakeSnapshot {
    fn pins(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<Pin>, StoreError> {
        let later = self
            .pins
            .values()
            .filter(|pin| after.is_none_or(|after| pin.cid > *after));
        Ok(later.take(limit).cloned().collect())
    }

    fn locals(&self, after: Option<&Cid>, limit: usize) -> Result<Vec<(Cid, Local)>, StoreError> {
        let later = self
            .locals
            .iter()
            .filter(|(cid, _)| after.is_none_or(|after| *cid > after));
        Ok(later
            .take(limit)
            .map(|(cid, local)| (cid.clone(), local.clone()))
            .collect())
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
