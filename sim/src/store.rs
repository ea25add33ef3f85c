//! Content of a peer's database, at one of the disk's two levels. Refuses inconsistent writes, so that a core
//! that would corrupt a real database is found.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use cluster_core::{
    Applied, Cid, ClusterId, HardState, Incarnation, Index, Lane, Local, LogEntry, Manifest, Members,
    MembersChange, MembersStep, Payload, PeerId, Pin, PinsetView, Policy, QueueKey, RaftId, Recovered,
    StoreOp, Term, Timestamp, Window, decode,
};

/// A pinset on its way from one peer to another, or staged at the receiver.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// All but the pins and the policy.
    pub(crate) manifest: Manifest,
    /// The pins.
    pub(crate) pins: BTreeMap<Cid, Pin>,
    /// The policy.
    pub(crate) policy: Policy,
}

/// A write, with the content of a snapshot that it installs.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// As the core asked for.
    Op(Box<StoreOp>),
    /// An installation, with what is installed.
    Install(Arc<Snapshot>),
}

/// One level of a peer's database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pub(crate) hard_state: HardState,
    pub(crate) compacted: (Index, Term),
    pub(crate) log: BTreeMap<Index, LogEntry>,
    pub(crate) applied: Applied,
    pub(crate) members: Members,
    pub(crate) windows: BTreeMap<RaftId, Window>,
    pub(crate) reconciling: bool,
    pub(crate) policy: Policy,
    pub(crate) pins: BTreeMap<Cid, Pin>,
    pub(crate) locals: BTreeMap<Cid, Local>,
    /// Bytes of the log, at least and at most: see [`Store::sizes_through`].
    sizes: [usize; 2],
    queues: BTreeMap<Lane, BTreeSet<QueueKey>>,
    by_peer: BTreeMap<PeerId, BTreeSet<Cid>>,
    by_expiry: BTreeSet<(Timestamp, Cid)>,
}

impl Store {
    /// Creates the empty data folder of a founding member.
    pub(crate) fn founding(members: Members) -> Self {
        Self {
            hard_state: HardState::default(),
            compacted: (0, 0),
            log: BTreeMap::new(),
            applied: Applied::default(),
            members,
            windows: BTreeMap::new(),
            reconciling: false,
            policy: Policy::default(),
            pins: BTreeMap::new(),
            locals: BTreeMap::new(),
            sizes: [0, 0],
            queues: BTreeMap::new(),
            by_peer: BTreeMap::new(),
            by_expiry: BTreeSet::new(),
        }
    }

    /// Creates the empty data folder of a peer that is to be added.
    pub(crate) fn joining(cluster: ClusterId) -> Self {
        let recovered = Recovered::joining(Incarnation(0), cluster);
        Self {
            hard_state: recovered.hard_state,
            ..Self::founding(recovered.members)
        }
    }

    /// Returns what a process that starts on it reads.
    pub(crate) fn recovered(&self, incarnation: Incarnation, boot: u64) -> Recovered {
        Recovered {
            incarnation,
            boot,
            hard_state: self.hard_state,
            compacted: self.compacted,
            log: self.log.values().cloned().collect(),
            applied: self.applied,
            members: self.members.clone(),
            windows: self.windows.values().cloned().collect(),
            reconciling: self.reconciling,
        }
    }

    /// Returns a copy for another peer.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            manifest: Manifest {
                applied: self.applied,
                members: self.members.clone(),
                windows: self.windows.values().cloned().collect(),
            },
            pins: self.pins.clone(),
            policy: self.policy.clone(),
        }
    }

    /// Returns the index of the last entry.
    pub(crate) fn last(&self) -> Index {
        self.log
            .last_key_value()
            .map_or(self.compacted.0, |(index, _)| *index)
    }

    /// Returns whether an entry is, or was before it was compacted, part of the log.
    pub(crate) fn holds(&self, index: Index, term: Term) -> bool {
        index <= self.compacted.0 || self.log.get(&index).is_some_and(|entry| entry.term == term)
    }

    /// Returns the minimum and maximum size of the log up to an index in bytes, as the core counts them: in
    /// the process that proposed a membership change, Raft keeps a protobuf record beside it.
    pub(crate) fn sizes_through(&self, index: Index) -> [usize; 2] {
        sizes_of(self.log.range(..=index).map(|(_, entry)| entry))
    }

    /// Returns the same for the whole log.
    pub(crate) fn sizes(&self) -> [usize; 2] {
        self.sizes
    }

    /// Returns the keys of a queue, in order.
    pub(crate) fn queued(&self, lane: Lane) -> impl Iterator<Item = &QueueKey> {
        self.queues.get(&lane).into_iter().flatten()
    }

    /// Checks that the records are consistent, as they must be after every batch.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let (counted, there) = (self.applied.pins, self.pins.len());
        require(counted == there as u64, || {
            format!("counts {counted} pins, there are {there}")
        })
    }

    /// Carries out one write. The error describes an inconsistency.
    pub(crate) fn write(&mut self, write: &Write) -> Result<(), String> {
        match write {
            Write::Install(snapshot) => {
                self.install(snapshot);
                Ok(())
            }
            Write::Op(op) => self.write_op(op),
        }
    }

    fn write_op(&mut self, op: &StoreOp) -> Result<(), String> {
        match op {
            StoreOp::Append { entries } => self.append(entries)?,
            StoreOp::Compact { index, term } => self.compact(*index, *term)?,
            StoreOp::DeleteLocal { cid } => {
                self.locals.remove(cid);
            }
            StoreOp::DeletePin { pin } => {
                let old = self.pins.remove(&pin.cid);
                require(old.as_ref() == Some(pin), || {
                    format!("deletes {pin:?}, there is {old:?}")
                })?;
                self.unindex(pin);
            }
            StoreOp::Dequeue { key } => {
                let queue = self.queues.entry(key.lane).or_default();
                require(queue.remove(key), || format!("{key:?} is not queued"))?;
            }
            StoreOp::Enqueue { key } => {
                let queue = self.queues.entry(key.lane).or_default();
                require(queue.insert(key.clone()), || format!("{key:?} is queued already"))?;
            }
            StoreOp::InstallSnapshot { snapshot, .. } => {
                return Err(format!("snapshot {snapshot} is not staged"));
            }
            StoreOp::PutLocal { cid, local } => {
                self.locals.insert(cid.clone(), local.clone());
            }
            StoreOp::PutPin { pin, previous } => {
                let old = self.pins.insert(pin.cid.clone(), pin.clone());
                require(old.as_ref() == previous.as_deref(), || {
                    format!("replaces {previous:?}, there is {old:?}")
                })?;
                if let Some(old) = old {
                    self.unindex(&old);
                }
                self.index(pin);
            }
            StoreOp::PutWindow { window } => {
                self.windows.insert(window.origin, window.clone());
            }
            StoreOp::SetApplied { applied } => self.set_applied(*applied)?,
            StoreOp::SetPolicy { policy } => self.policy = policy.clone(),
            StoreOp::SetHardState { hard_state } => self.hard_state = *hard_state,
            StoreOp::SetMembers { members } => self.members = members.clone(),
            StoreOp::SetReconciling { reconciling } => self.reconciling = *reconciling,
        }
        Ok(())
    }

    fn append(&mut self, entries: &[LogEntry]) -> Result<(), String> {
        let first = entries.first().ok_or("appends nothing")?.index;
        let last = self.last();
        require(first > self.compacted.0 && first <= last + 1, || {
            format!("appends {first} to a log of {}..={last}", self.compacted.0 + 1)
        })?;
        require(first > self.applied.index, || {
            format!("rewrites {first}, but {} is applied", self.applied.index)
        })?;
        require(
            entries.windows(2).all(|pair| pair[1].index == pair[0].index + 1),
            || format!("appends entries with a gap after {first}"),
        )?;
        let replaced = self.log.split_off(&first);
        self.shrink(sizes_of(replaced.values()));
        let [least, most] = sizes_of(entries);
        self.sizes = [self.sizes[0] + least, self.sizes[1] + most];
        self.log
            .extend(entries.iter().map(|entry| (entry.index, entry.clone())));
        Ok(())
    }

    fn compact(&mut self, index: Index, term: Term) -> Result<(), String> {
        require(index <= self.applied.index, || {
            format!("compacts {index}, but only {} is applied", self.applied.index)
        })?;
        let there = self.log.get(&index).map(|entry| entry.term);
        require(there == Some(term), || {
            format!("compacts {index} of term {term}, there is {there:?}")
        })?;
        self.shrink(self.sizes_through(index));
        self.log = self.log.split_off(&(index + 1));
        self.compacted = (index, term);
        Ok(())
    }

    fn shrink(&mut self, [least, most]: [usize; 2]) {
        self.sizes = [self.sizes[0] - least, self.sizes[1] - most];
    }

    fn set_applied(&mut self, applied: Applied) -> Result<(), String> {
        require(applied.index >= self.applied.index, || {
            format!(
                "applied goes back from {} to {}",
                self.applied.index, applied.index
            )
        })?;
        require(applied.index <= self.last(), || {
            format!(
                "applied {} is beyond the log's end {}",
                applied.index,
                self.last()
            )
        })?;
        self.applied = applied;
        Ok(())
    }

    fn install(&mut self, snapshot: &Snapshot) {
        let Manifest {
            applied,
            members,
            windows,
        } = &snapshot.manifest;
        self.applied = *applied;
        self.members = members.clone();
        self.windows = windows
            .iter()
            .map(|window| (window.origin, window.clone()))
            .collect();
        self.log.clear();
        self.sizes = [0, 0];
        self.compacted = (applied.index, applied.term);
        self.policy = snapshot.policy.clone();
        self.pins = snapshot.pins.clone();
        self.by_peer.clear();
        self.by_expiry.clear();
        for pin in snapshot.pins.values() {
            self.index(pin);
        }
    }

    fn index(&mut self, pin: &Pin) {
        for peer in &pin.allocations {
            let cids = self.by_peer.entry(peer.clone()).or_default();
            cids.insert(pin.cid.clone());
        }
        self.by_expiry
            .extend(pin.options.expire_at.map(|at| (at, pin.cid.clone())));
    }

    fn unindex(&mut self, pin: &Pin) {
        for peer in &pin.allocations {
            if let Some(cids) = self.by_peer.get_mut(peer) {
                cids.remove(&pin.cid);
            }
        }
        if let Some(at) = pin.options.expire_at {
            self.by_expiry.remove(&(at, pin.cid.clone()));
        }
    }
}

/// Returns the minimum and maximum size of entries, in bytes.
fn sizes_of<'a>(entries: impl IntoIterator<Item = &'a LogEntry>) -> [usize; 2] {
    let payloads = entries.into_iter().map(|entry| &entry.payload);
    payloads.fold([0, 0], |[least, most], payload| {
        let (size, beside) = match payload {
            Payload::Commands(data) => (data.len() + 128, 0),
            Payload::Members(data) => (data.len() + 128, conf_change_len(data)),
        };
        [least + size, most + size + beside]
    })
}

/// Returns the length of the protobuf `ConfChangeV2` of a membership change.
fn conf_change_len(data: &[u8]) -> usize {
    let steps = decode::<MembersChange>(data).map_or_else(|_| Vec::new(), |change| change.steps);
    let lengths = steps.iter().map(|step| {
        let (kind, id) = match step {
            MembersStep::AddLearner { raft_id, .. }
            | MembersStep::Demote { raft_id }
            | MembersStep::Remove { raft_id } => (2, raft_id),
            // The default, which protobuf leaves out.
            MembersStep::Promote { raft_id } => (0, raft_id),
        };
        let id: usize = (64 - id.0.leading_zeros() as usize).div_ceil(7).max(1);
        2 + kind + 1 + id
    });
    lengths.sum()
}

fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

fn after(cid: Option<&Cid>) -> (Bound<&Cid>, Bound<&Cid>) {
    (cid.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

impl PinsetView for Store {
    fn policy(&self) -> Policy {
        self.policy.clone()
    }

    fn pin(&self, cid: &Cid) -> Option<Pin> {
        self.pins.get(cid).cloned()
    }

    fn local(&self, cid: &Cid) -> Option<Local> {
        self.locals.get(cid).cloned()
    }

    fn pins(&self, from: Option<&Cid>, limit: usize) -> Vec<Pin> {
        self.pins
            .range::<Cid, _>(after(from))
            .take(limit)
            .map(|(_, pin)| pin.clone())
            .collect()
    }

    fn locals(&self, from: Option<&Cid>, limit: usize) -> Vec<(Cid, Local)> {
        let found = self.locals.range::<Cid, _>(after(from)).take(limit);
        found.map(|(cid, local)| (cid.clone(), local.clone())).collect()
    }

    fn queue(&self, lane: Lane, from: Option<&QueueKey>, limit: usize) -> Vec<QueueKey> {
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        let queue = self.queues.get(&lane).into_iter();
        let found = queue.flat_map(|queue| queue.range::<QueueKey, _>((start, Bound::Unbounded)));
        found.take(limit).cloned().collect()
    }

    fn allocated(&self, peer: &PeerId, from: Option<&Cid>, limit: usize) -> Vec<Cid> {
        let cids = self.by_peer.get(peer).into_iter();
        let found = cids.flat_map(|cids| cids.range::<Cid, _>(after(from)));
        found.take(limit).cloned().collect()
    }

    fn expiring(&self, until: Timestamp, limit: usize) -> Vec<Cid> {
        let found = self.by_expiry.iter().take_while(|(at, _)| *at <= until);
        found.take(limit).map(|(_, cid)| cid.clone()).collect()
    }
}
