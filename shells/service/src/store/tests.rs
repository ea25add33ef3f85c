//! Tests of the store, and their helpers.

mod crash;
mod damage;
mod model;
mod opening;
mod policy;
mod replacing;
mod searching;
mod staging;
mod written;

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{
    Applied, Batch, BatchId, Cid, Credential, CredentialId, HardState, Incarnation, Index, Lane, Local,
    LogEntry, Manifest, Members, Mode, Payload, PeerId, Phase, Pin, PinOptions, PinType, PinsetView,
    QueueKey, Recovered, Replicas, Scope, SnapshotId, StoreOp, Timestamp, encode,
};

use super::{
    Comparison, Listing, NameMatch, NewPinset, OpenError, OpenOptions, Order, PinCounts, Position, Row,
    Search, Store, StoreError,
};

/// A distinct CID for each number, in no particular order.
fn cid(n: u64) -> Cid {
    let mut bytes = vec![1, 0x55, 0x12, 32];
    for word in 0..4 {
        let mixed = (n + word * 1_000_003 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 29)).to_be_bytes());
    }
    Cid::from_bytes(&bytes).expect("a CID")
}

fn peer(n: u8) -> PeerId {
    let bytes = [&[0x12, 32][..], &[n; 32]].concat();
    PeerId::from_bytes(&bytes).expect("a peer id")
}

fn pin(n: u64, version: Index) -> Pin {
    let allocations: BTreeSet<_> = [peer((n % 3) as u8), peer((version % 5) as u8)].into();
    Pin {
        cid: cid(n),
        pin_type: PinType::Data,
        allocations: allocations.into_iter().collect(),
        reference: None,
        options: PinOptions {
            replicas: Replicas::Range { min: 1, max: 2 },
            name: match version % 3 {
                0 => String::new(),
                1 => format!("pin {}", n % 7),
                _ => format!("{}{}", "long ".repeat(200), n % 2),
            },
            mode: Mode::Recursive,
            shard_size: 0,
            user_allocations: Vec::new(),
            expire_at: version
                .is_multiple_of(2)
                .then_some(Timestamp(1_000 + version % 11)),
            metadata: BTreeMap::from([("key".to_owned(), n.to_string())]),
            pin_update: None,
            origins: Vec::new(),
        },
        timestamp: Timestamp(version),
        version,
    }
}

fn local(n: u64) -> Local {
    Local {
        phase: if n.is_multiple_of(2) {
            Phase::Pinned
        } else {
            Phase::PinError
        },
        mode: Mode::Recursive,
        attempts: n as u32,
        error: "x".repeat(n as usize % 20),
        since: Timestamp(n),
        queued: None,
    }
}

fn entry(index: Index, term: u64) -> LogEntry {
    LogEntry {
        index,
        term,
        payload: Payload::Commands(index.to_le_bytes().repeat(1 + index as usize % 40)),
    }
}

fn credential(id: u64) -> Credential {
    Credential {
        id: CredentialId(id),
        name: format!("credential {id}"),
        hash: [7; 32],
        scopes: [Scope::Read].into(),
        created: Timestamp(5),
        expire_at: None,
        limits: Vec::new(),
    }
}

fn founding() -> Recovered {
    Recovered::founding(Incarnation(77), Members::initial([peer(0), peer(1), peer(2)]))
}

/// Opens a free folder. A program that another test starts at this moment still holds the lock, like all
/// files that were open when it was forked, until it is executed.
fn try_open(path: &std::path::Path) -> Result<Store, OpenError> {
    let began = std::time::Instant::now();
    loop {
        match Store::open(path, &OpenOptions::default()) {
            Err(OpenError::Locked { .. }) if began.elapsed().as_secs() < 60 => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn open(path: &std::path::Path) -> Store {
    try_open(path).expect("opens")
}

/// A new folder, in memory where the system supports it: these tests are not about the disk.
fn folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let folder = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    folder.expect("a folder")
}

/// A new folder with a founded store.
fn founded() -> (tempfile::TempDir, Store) {
    let folder = folder();
    let mut store = open(&folder.path().join("raft"));
    store.initialise(&founding()).expect("founds");
    (folder, store)
}

/// The operations that applying entry `index` writes when it pins CID `index`.
fn pin_ops(index: Index) -> Vec<StoreOp> {
    let applied = Applied {
        index,
        term: 1,
        pins: index,
    };
    let hard_state = HardState {
        identity: cluster_core::Identity::Known(cluster_core::RaftId(1)),
        term: 1,
        vote: None,
        commit: index,
    };
    let key = QueueKey {
        lane: Lane::Fresh,
        at: index,
        cid: cid(index),
    };
    vec![
        StoreOp::Append {
            entries: vec![entry(index, 1)],
        },
        StoreOp::SetHardState { hard_state },
        StoreOp::PutPin {
            pin: pin(index, index),
            previous: None,
        },
        StoreOp::PutLocal {
            cid: cid(index),
            local: local(index),
        },
        StoreOp::Enqueue { key },
        StoreOp::SetApplied { applied },
    ]
}

fn batch(id: u64, ops: Vec<StoreOp>) -> Batch {
    Batch {
        id: BatchId(id),
        ops,
        sync: true,
    }
}

/// The contents of the store, as its readers see them.
fn content(store: &Store) -> Result<(Vec<Row>, Applied), StoreError> {
    let listing = store.reader().listing();
    let rows = listing.rows(None).collect::<Result<_, _>>()?;
    Ok((rows, listing.applied()?))
}
