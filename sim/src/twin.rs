//! The simulated disk and the simulated IPFS daemon alone, for tests that give the same work to the real
//! ones. Parameters and results are in the core's wire format, because this package is built with its own
//! copy of the core, whose types the compiler distinguishes.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster_core::{
    Applied, Batch, Cid, HardState, Incarnation, Index, IpfsAction, Lane, Local, LogEntry, Manifest, Members,
    Mode, OpId, Pin, PinsetView, Policy, QueueKey, Term, Window, decode, encode,
};

use crate::ipfs::End;
use crate::options::Options;
use crate::store::{Snapshot, Store};

/// Content of a disk: Raft's hard state, the compacted entry, the log, the applied position, the members, the
/// windows, whether it is reconciling, the policy, the pins, the local states, and the queues.
pub type Content = (
    HardState,
    (Index, Term),
    Vec<LogEntry>,
    Applied,
    Members,
    Vec<Window>,
    bool,
    Policy,
    Vec<Pin>,
    Vec<(Cid, Local)>,
    Vec<QueueKey>,
);

/// Limit on listings, above the number of records in any test.
const ALL: usize = 1_000_000;

/// A simulated disk.
#[derive(Debug, Clone)]
pub struct Disk(crate::disk::Disk);

impl Disk {
    /// Creates the disk of a founding member; `members` is the encoded membership.
    ///
    /// # Errors
    ///
    /// It cannot be decoded.
    pub fn founded(members: &[u8]) -> Result<Self, String> {
        let members: Members = decode(members).map_err(|error| error.to_string())?;
        let store = Store::founding(members);
        Ok(Self(crate::disk::Disk::new(Incarnation(1), store)))
    }

    /// Writes an encoded batch.
    ///
    /// # Errors
    ///
    /// It cannot be decoded, or is inconsistent.
    pub fn write(&mut self, batch: &[u8]) -> Result<(), String> {
        let batch: Batch = decode(batch).map_err(|error| error.to_string())?;
        self.0.write(&batch)
    }

    /// Makes all writes durable.
    pub fn sync(&mut self) {
        if let Some(newest) = self.0.newest() {
            self.0.synced(newest);
        }
    }

    /// Returns the number of batches that are not durable.
    pub fn unsynced(&self) -> usize {
        self.0.unsynced()
    }

    /// Cuts the power; of the batches that are not durable, the first `kept` survive.
    pub fn cut(&mut self, kept: usize) {
        self.0.cut_to(kept);
    }

    /// Stages an encoded snapshot and returns its number.
    ///
    /// # Errors
    ///
    /// If it cannot be decoded.
    pub fn stage(&mut self, manifest: &[u8], pins: &[u8], policy: &[u8]) -> Result<u64, String> {
        let manifest: Manifest = decode(manifest).map_err(|error| error.to_string())?;
        let pins: Vec<Pin> = decode(pins).map_err(|error| error.to_string())?;
        let pins = pins.into_iter().map(|pin| (pin.cid.clone(), pin)).collect();
        let policy = decode(policy).map_err(|error| error.to_string())?;
        let snapshot = Snapshot {
            manifest,
            pins,
            policy,
        };
        Ok(self.0.stage(Arc::new(snapshot)).0)
    }

    /// Returns everything that a process would read, as an encoded [`Content`].
    pub fn content(&self) -> Vec<u8> {
        let store = &self.0.written;
        let lanes = [Lane::Unpin, Lane::Fresh, Lane::Retry, Lane::Surplus];
        let content: Content = (
            store.hard_state,
            store.compacted,
            store.log.values().cloned().collect(),
            store.applied,
            store.members.clone(),
            store.windows.values().cloned().collect(),
            store.reconciling,
            store.policy(),
            store.pins(None, ALL),
            store.locals(None, ALL),
            lanes
                .into_iter()
                .flat_map(|lane| store.queue(lane, None, ALL))
                .collect(),
        );
        encode(&content)
    }
}

/// A simulated IPFS daemon that has no faults.
#[derive(Debug)]
pub struct Ipfs {
    ipfs: crate::ipfs::Ipfs,
    ops: u64,
}

impl Default for Ipfs {
    fn default() -> Self {
        Self {
            ipfs: crate::ipfs::Ipfs::new(&Options::quiet(1), 0),
            ops: 0,
        }
    }
}

impl Ipfs {
    /// Pins a CID; `available` says whether any node has it. Returns whether it was pinned.
    pub fn pin(&mut self, cid: &[u8], recursive: bool, available: bool) -> bool {
        let action = IpfsAction::Pin {
            cid: to_cid(cid),
            mode: if recursive { Mode::Recursive } else { Mode::Direct },
            name: String::new(),
            origins: Vec::new(),
            update_from: None,
            is_move: false,
        };
        self.run_to_end(action, available)
    }

    /// Unpins a CID. Returns whether it was unpinned.
    pub fn unpin(&mut self, cid: &[u8]) -> bool {
        self.run_to_end(IpfsAction::Unpin { cid: to_cid(cid) }, true)
    }

    fn run_to_end(&mut self, action: IpfsAction, available: bool) -> bool {
        self.ops += 1;
        let op = OpId(self.ops);
        let done = self.ipfs.start(op, action, available).end == End::Done;
        self.ipfs.finish(op, done, done)
    }

    /// Returns its pins, and whether each is recursive.
    pub fn pins(&self) -> BTreeMap<Vec<u8>, bool> {
        let pins = self
            .ipfs
            .pinned
            .iter()
            .filter(|(cid, _)| !self.ipfs.owned.contains(*cid));
        pins.map(|(cid, mode)| (cid.as_bytes().to_vec(), *mode == Mode::Recursive))
            .collect()
    }
}

fn to_cid(bytes: &[u8]) -> Cid {
    Cid::from_bytes(bytes).expect("tests name CIDs")
}
