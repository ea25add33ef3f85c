//! Shared fixtures of the unit tests: an in-memory disk, and a cluster of nodes on a perfect network.

pub(crate) mod records;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::*;

/// A snapshot: its manifest, the pins and the policy.
pub(crate) type Staged = (Manifest, BTreeMap<Cid, Pin>, Policy);

/// The state that batches write. Nothing is lost.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) pins: BTreeMap<Cid, Pin>,
    pub(crate) locals: BTreeMap<Cid, Local>,
    pub(crate) queue: std::collections::BTreeSet<QueueKey>,
    pub(crate) policy: Policy,
    pub(crate) staged: BTreeMap<SnapshotId, Staged>,
    pub(crate) log: BTreeMap<Index, LogEntry>,
    pub(crate) recovered: Option<Recovered>,
}

impl Disk {
    pub(crate) fn write(&mut self, batch: &Batch) {
        for op in &batch.ops {
            self.write_op(op);
        }
    }

    fn write_op(&mut self, op: &StoreOp) {
        let Self {
            pins,
            locals,
            queue,
            policy,
            staged,
            log,
            recovered,
        } = self;
        let meta = recovered.as_mut().expect("has been founded");
        match op.clone() {
            StoreOp::Append { entries } => {
                log.split_off(&entries[0].index);
                log.extend(entries.into_iter().map(|entry| (entry.index, entry)));
            }
            StoreOp::Compact { index, term } => {
                *log = log.split_off(&(index + 1));
                meta.compacted = (index, term);
            }
            StoreOp::DeleteLocal { cid } => assert!(locals.remove(&cid).is_some(), "was there"),
            StoreOp::DeletePin { pin } => {
                assert!(pins.remove(&pin.cid) == Some(pin), "the previous pin matches")
            }
            StoreOp::Dequeue { key } => assert!(queue.remove(&key), "was queued"),
            StoreOp::Enqueue { key } => assert!(queue.insert(key), "was not queued"),
            StoreOp::InstallSnapshot { snapshot, manifest } => {
                let (_, new_pins, new_policy) = staged.remove(&snapshot).expect("is staged");
                (*pins, *policy) = (new_pins, new_policy);
                log.clear();
                meta.compacted = (manifest.applied.index, manifest.applied.term);
                meta.applied = manifest.applied;
                meta.members = manifest.members;
                meta.windows = manifest.windows;
            }
            StoreOp::PutLocal { cid, local } => drop(locals.insert(cid, local)),
            StoreOp::PutPin { pin, previous } => {
                assert!(
                    pins.insert(pin.cid.clone(), pin) == previous.map(|pin| *pin),
                    "the previous pin matches"
                );
            }
            StoreOp::PutWindow { window } => {
                meta.windows.retain(|known| known.origin != window.origin);
                meta.windows.push(window);
            }
            StoreOp::SetApplied { applied } => meta.applied = applied,
            StoreOp::SetPolicy { policy: new } => *policy = new,
            StoreOp::SetHardState { hard_state } => meta.hard_state = hard_state,
            StoreOp::SetMembers { members } => meta.members = members,
            StoreOp::SetReconciling { reconciling } => meta.reconciling = reconciling,
        }
    }

    pub(crate) fn recover(&mut self) -> Recovered {
        let meta = self.recovered.as_mut().expect("has been founded");
        meta.boot += 1;
        Recovered {
            log: self.log.values().cloned().collect(),
            ..meta.clone()
        }
    }
}

fn after<'a, K: Ord, V>(
    map: &'a BTreeMap<K, V>,
    after: Option<&'a K>,
) -> impl Iterator<Item = (&'a K, &'a V)> {
    map.iter()
        .filter(move |(key, _)| after.is_none_or(|after| *key > after))
}

impl PinsetView for Disk {
    fn pin(&self, cid: &Cid) -> Option<Pin> {
        self.pins.get(cid).cloned()
    }

    fn local(&self, cid: &Cid) -> Option<Local> {
        self.locals.get(cid).cloned()
    }

    fn pins(&self, cid: Option<&Cid>, limit: usize) -> Vec<Pin> {
        after(&self.pins, cid)
            .map(|(_, pin)| pin.clone())
            .take(limit)
            .collect()
    }

    fn locals(&self, cid: Option<&Cid>, limit: usize) -> Vec<(Cid, Local)> {
        after(&self.locals, cid)
            .map(|(cid, local)| (cid.clone(), local.clone()))
            .take(limit)
            .collect()
    }

    fn queue(&self, lane: Lane, from: Option<&QueueKey>, limit: usize) -> Vec<QueueKey> {
        let in_lane = self.queue.iter().filter(|key| key.lane == lane);
        in_lane
            .filter(|key| from.is_none_or(|from| *key >= from))
            .take(limit)
            .cloned()
            .collect()
    }

    fn allocated(&self, peer: &PeerId, cid: Option<&Cid>, limit: usize) -> Vec<Cid> {
        let pins = after(&self.pins, cid).filter(|(_, pin)| pin.allocations.contains(peer));
        pins.map(|(cid, _)| cid.clone()).take(limit).collect()
    }

    fn expiring(&self, until: Timestamp, limit: usize) -> Vec<Cid> {
        let mut due: Vec<(Timestamp, &Cid)> = self
            .pins
            .values()
            .filter_map(|pin| Some((pin.options.expire_at?, &pin.cid)))
            .filter(|(at, _)| *at <= until)
            .collect();
        due.sort();
        due.into_iter().map(|(_, cid)| cid.clone()).take(limit).collect()
    }

    fn policy(&self) -> Policy {
        self.policy.clone()
    }
}

/// Returns the default settings, with a log that is compacted early.
fn config(peer: PeerId) -> Config {
    let mut config = Config::new(peer);
    config.raft.trailing_logs = 100;
    config.membership.replace_after = Duration::from_secs(60);
    config
}

pub(crate) fn peer(number: u8) -> PeerId {
    let mut bytes = [number; 38];
    bytes[..6].copy_from_slice(&[0, 36, 8, 1, 18, 32]);
    PeerId::from_bytes(&bytes).expect("is a peer id")
}

/// Builds an identity CID of one byte.
pub(crate) fn cid(number: u8) -> Cid {
    Cid::from_bytes(&[1, 0x55, 0, 1, number]).expect("is a CID")
}

/// Builds a credential that may read pins.
pub(crate) fn credential(id: u64, name: &str) -> Credential {
    Credential {
        id: CredentialId(id),
        name: name.to_owned(),
        hash: [7; 32],
        scopes: [Scope::Read].into(),
        created: Timestamp(5),
        expire_at: None,
        limits: Vec::new(),
    }
}

/// Returns the membership of a static set of peers that agree on this release's protocol version.
pub(crate) fn agreed_members(peers: impl IntoIterator<Item = PeerId>) -> Members {
    Members {
        version: VERSION,
        ..Members::initial(peers)
    }
}

pub(crate) fn options(replicas: Replicas) -> PinOptions {
    PinOptions::new(replicas)
}

pub(crate) fn metrics(free: i64) -> Vec<Metric> {
    let metric = |name: &str, value: String, weight, partitionable| Metric {
        name: name.to_owned(),
        value,
        weight,
        partitionable,
        ttl: Duration::from_secs(30),
        valid: true,
    };
    vec![
        metric(PING, String::new(), 0, false),
        metric("freespace", free.to_string(), free, false),
        metric("tag:group", "default".to_owned(), 0, true),
    ]
}

/// Builds the metric of a number of copies.
pub(crate) fn copies_metric(count: usize, applied: Index) -> Metric {
    let count = count as u64;
    Metric {
        name: COPIES.to_owned(),
        value: copies_value(count, applied),
        weight: i64::try_from(count).expect("a few"),
        partitionable: false,
        ttl: Duration::from_secs(30),
        valid: true,
    }
}

/// Nodes with immediate message delivery, prompt disks, and IPFS nodes where every operation succeeds.
pub(crate) struct TestCluster {
    pub(crate) now: Now,
    pub(crate) nodes: BTreeMap<PeerId, (Node, Disk)>,
    pub(crate) down: std::collections::BTreeSet<PeerId>,
    /// Amount by which a peer's wall clock is ahead.
    pub(crate) ahead: BTreeMap<PeerId, Duration>,
    /// Free space of a peer's IPFS node in bytes, by default 1 TiB; 0 makes the metric invalid.
    pub(crate) free: BTreeMap<PeerId, i64>,
    /// Peers whose IPFS nodes have no room for any pin, whatever their free space.
    pub(crate) full: std::collections::BTreeSet<PeerId>,
    /// Group of a peer, by default the same one.
    pub(crate) groups: BTreeMap<PeerId, String>,
    pub(crate) replies: BTreeMap<Ticket, Result<Reply, Refusal>>,
    /// Number of snapshots to lose on their way.
    pub(crate) lost_snapshots: usize,
    queue: VecDeque<(PeerId, Event)>,
    next: u64,
}

impl TestCluster {
    fn copies(&self, at: &PeerId) -> Metric {
        let (_, disk) = &self.nodes[at];
        let count = disk.allocated(at, None, usize::MAX).len();
        let applied = disk.recovered.as_ref().map_or(0, |meta| meta.applied.index);
        copies_metric(count, applied)
    }

    pub(crate) fn new(size: u8) -> Self {
        let now = Now {
            mono: Instant(1),
            wall: Timestamp(1_000_000_000_000),
        };
        let members = agreed_members((1..=size).map(peer));
        let nodes = (1..=size).map(|number| {
            let recovered = Recovered::founding(Incarnation(u64::from(number)), members.clone());
            let disk = Disk {
                recovered: Some(recovered.clone()),
                ..Disk::default()
            };
            let node = Node::new(config(peer(number)), recovered, u64::from(number), now);
            (peer(number), (node, disk))
        });
        let nodes = nodes.collect();
        let (down, replies) = (std::collections::BTreeSet::new(), BTreeMap::new());
        Self {
            now,
            nodes,
            down,
            ahead: BTreeMap::new(),
            free: BTreeMap::new(),
            full: std::collections::BTreeSet::new(),
            groups: BTreeMap::new(),
            replies,
            lost_snapshots: 0,
            queue: VecDeque::new(),
            next: 0,
        }
    }

    pub(crate) fn request(&mut self, at: u8, request: Request) -> Ticket {
        self.next += 1;
        let ticket = Ticket(self.next);
        self.queue
            .push_back((peer(at), Event::Requested { ticket, request }));
        ticket
    }

    /// Starts a peer from the given state, with an empty disk.
    fn start(&mut self, number: u8, recovered: Recovered) {
        let disk = Disk {
            recovered: Some(recovered.clone()),
            ..Disk::default()
        };
        let seed = recovered.incarnation.0;
        let node = Node::new(config(peer(number)), recovered, seed, self.now);
        self.nodes.insert(peer(number), (node, disk));
        self.queue.retain(|(to, _)| *to != peer(number));
    }

    /// Restarts one of the peers that founded a cluster of `size` with an empty data folder.
    pub(crate) fn wipe(&mut self, number: u8, size: u8) {
        self.next += 1;
        let members = agreed_members((1..=size).map(peer));
        self.start(
            number,
            Recovered::founding(Incarnation(1000 + self.next), members),
        );
    }

    /// Starts a peer that waits to be added.
    pub(crate) fn join(&mut self, number: u8) {
        self.next += 1;
        self.start(
            number,
            Recovered::joining(Incarnation(1000 + self.next), ClusterId::UNKNOWN),
        );
    }

    pub(crate) fn restart(&mut self, number: u8) {
        let (node, disk) = self.nodes.get_mut(&peer(number)).expect("has been started");
        *node = Node::new(config(peer(number)), disk.recover(), 99, self.now);
        self.queue.retain(|(to, _)| *to != peer(number));
    }

    /// Advances time in steps of 10 ms, and handles all events meanwhile.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.now.mono < end {
            self.settle();
            let step = Duration::from_millis(10);
            self.now = Now {
                mono: self.now.mono + step,
                wall: self.now.wall + step,
            };
            for id in self.nodes.keys().cloned().collect::<Vec<_>>() {
                let due = self.nodes[&id]
                    .0
                    .poll_timeout(self.now)
                    .is_some_and(|(at, _)| at <= self.now.mono);
                if due {
                    self.queue.push_back((id, Event::TimedOut));
                }
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        while let Some((to, event)) = self.queue.pop_front() {
            if self.down.contains(&to) {
                continue;
            }
            // The peer has not been started.
            let Some((node, disk)) = self.nodes.get_mut(&to) else {
                continue;
            };
            let ahead = self.ahead.get(&to).copied().unwrap_or_default();
            let now = Now {
                wall: self.now.wall + ahead,
                ..self.now
            };
            let effects = node.handle(now, disk, event);
            node.check();
            for effect in effects {
                self.perform(&to, effect);
            }
        }
    }

    fn perform(&mut self, at: &PeerId, effect: Effect) {
        let own = |event| (at.clone(), event);
        match effect {
            Effect::CancelIpfs { .. } | Effect::DiscardSnapshot { .. } => {}
            Effect::CompareIpfs { op, .. } => {
                self.queue
                    .push_back(own(Event::IpfsCompared { op, outcome: Ok(()) }));
            }
            Effect::Measure => {
                let free = self.free.get(at).copied().unwrap_or(1 << 40);
                let mut metrics = metrics(free);
                metrics[1].valid = free > 0;
                if let Some(group) = self.groups.get(at) {
                    metrics[2].value.clone_from(group);
                }
                metrics.push(self.copies(at));
                self.queue.push_back(own(Event::Measured { metrics }));
            }
            Effect::Persist(batch) => {
                self.nodes.get_mut(at).expect("has been started").1.write(&batch);
                if batch.sync {
                    self.queue.push_back(own(Event::Persisted { batch: batch.id }));
                }
            }
            Effect::Reply { ticket, reply } => {
                assert!(
                    self.replies.insert(ticket, reply).is_none(),
                    "one reply for each ticket"
                );
            }
            Effect::Send { to, envelope } => {
                self.queue.push_back((
                    to,
                    Event::Received {
                        from: at.clone(),
                        envelope,
                    },
                ));
            }
            Effect::SendSnapshot { to, message } => self.send_snapshot(at, to, message),
            Effect::StartIpfs { op, action } => {
                let is_pin = matches!(action, IpfsAction::Pin { .. });
                let outcome = if is_pin && self.full.contains(at) {
                    Err(IpfsError::Full("storage full".to_owned()))
                } else {
                    Ok(())
                };
                self.queue.push_back(own(Event::IpfsFinished { op, outcome }));
            }
        }
    }

    fn send_snapshot(&mut self, at: &PeerId, to: PeerId, message: RaftMessage) {
        let arrives = !self.down.contains(&to) && self.nodes.contains_key(&to);
        let is_lost = self.lost_snapshots > 0;
        self.lost_snapshots = self.lost_snapshots.saturating_sub(1);
        let delivered = arrives && !is_lost;
        if delivered {
            let from = &self.nodes[at].1;
            let meta = from.recovered.clone().expect("has been founded");
            let manifest = Manifest {
                applied: meta.applied,
                members: meta.members,
                windows: meta.windows,
            };
            let (pins, policy) = (from.pins.clone(), from.policy.clone());
            self.next += 1;
            let snapshot = SnapshotId(self.next);
            let (_, disk) = self.nodes.get_mut(&to).expect("has been started");
            disk.staged.insert(snapshot, (manifest.clone(), pins, policy));
            let event = Event::SnapshotReceived {
                from: at.clone(),
                snapshot,
                manifest,
                message,
            };
            self.queue.push_back((to.clone(), event));
        }
        self.queue
            .push_back((at.clone(), Event::SnapshotSent { to, delivered }));
    }
}
