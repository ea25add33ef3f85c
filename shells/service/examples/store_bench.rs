//! Measures the store: `cargo run --release -p ipfs-cluster-service --example store_bench [FOLDER [PINS]]`.
//! The folder must not exist; it is created on the disk to be measured, and left there.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cluster_core::{
    Applied, Batch, BatchId, Cid, HardState, Incarnation, Index, Lane, Local, LogEntry, Members, Mode,
    Payload, PeerId, Phase, Pin, PinOptions, PinType, PinsetView, QueueKey, Recovered, Replicas, SnapshotId,
    StoreOp, Timestamp,
};
use ipfs_cluster_service::store::{
    Comparison, Listing, NameMatch, OpenOptions, Order, Position, Search, Store, Syncer,
};

/// Pins per batch: as many as 64 busy connections put into one log entry.
const PER_BATCH: u64 = 60;
/// Number of pins so far.
static PINS: AtomicU64 = AtomicU64::new(0);

/// Batches between two compactions of the log.
const COMPACT_EVERY: u64 = 200;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let folder = args
        .next()
        .map_or_else(|| std::env::temp_dir().join("store_bench"), PathBuf::from);
    let pins: u64 = args.next().map_or(Ok(1_000_000), |pins| pins.parse())?;
    ensure!(
        !folder.exists(),
        "{} exists: name a folder that does not",
        folder.display()
    );

    let mut store = Store::open(&folder, &OpenOptions::default())?;
    store.initialise(&Recovered::founding(
        Incarnation(1),
        Members::initial((0..3).map(peer)),
    ))?;
    let synced = synced_batches(&mut store)?;
    let paired = paired_writes(&mut store, synced, true)?;
    let paired = paired_writes(&mut store, paired, false)?;
    load(&mut store, paired, pins)?;
    store.close()?;

    let started = Instant::now();
    let mut store = Store::open(&folder, &OpenOptions::default())?;
    let recovered = store.recovered()?.context("it was founded")?;
    println!(
        "reopened in {:?} with {} log entries",
        started.elapsed(),
        recovered.log.len()
    );
    read(&store, pins)?;
    println!("peak resident memory {} MB", peak_memory().unwrap_or(0) / 1024);
    search(&store, pins)?;
    println!("peak resident memory {} MB", peak_memory().unwrap_or(0) / 1024);
    snapshot(&mut store)?;
    println!("peak resident memory {} MB", peak_memory().unwrap_or(0) / 1024);
    Ok(())
}

/// Batches one after the other, each waiting for its sync; then as fast as they can be written.
fn synced_batches(store: &mut Store) -> Result<u64> {
    let (sender, reports) = mpsc::channel();
    let syncer = Syncer::start(store, move |result| drop(sender.send(result)))?;
    let mut index = 0;
    for pins in [1, PER_BATCH] {
        let mut times = Vec::new();
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(3) {
            index += 1;
            let at = Instant::now();
            store.write(&batch(index, pins))?;
            syncer.request(BatchId(index));
            reports.recv()??;
            times.push(at.elapsed());
        }
        times.sort();
        let rate = times.len() as f64 / started.elapsed().as_secs_f64();
        let (half, most) = (times[times.len() / 2], times[times.len() * 99 / 100]);
        println!("synced batches of {pins:2} pins: {rate:.0}/s, p50 {half:?}, p99 {most:?}");
    }
    drop(syncer);
    let count = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&count);
    let syncer = Syncer::start(store, move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    })?;
    let (started, first) = (Instant::now(), index);
    while started.elapsed() < Duration::from_secs(3) {
        index += 1;
        store.write(&batch(index, 1))?;
        syncer.request(BatchId(index));
    }
    let rate = (index - first) as f64 / started.elapsed().as_secs_f64();
    println!(
        "written meanwhile: {rate:.0} batches/s with {} syncs",
        count.load(Ordering::Relaxed)
    );
    Ok(index)
}

/// Batches with and without entries of the search index, by turns: a pin that replaces one of the same time,
/// name and metadata has none. Waits for the sync of each batch, as a peer that commits one after the other,
/// or writes as fast as it can.
fn paired_writes(store: &mut Store, from: Index, wait: bool) -> Result<Index> {
    const ROUNDS: usize = 100;
    const BATCHES: u64 = 20;
    let (sender, reports) = mpsc::channel();
    let syncer = Syncer::start(store, move |result| drop(sender.send(result)))?;
    let mut index = from;
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..ROUNDS * 2 {
        // With, without, without, with: neither is always the first.
        let without = matches!(round % 4, 1 | 2);
        let mut batches = Vec::new();
        for _ in 0..BATCHES {
            index += 1;
            let mut batch = batch(index, PER_BATCH);
            for op in &mut batch.ops {
                if let StoreOp::PutPin { pin, previous } = op
                    && without
                {
                    let mut old = pin.clone();
                    old.allocations.clear();
                    *previous = Some(Box::new(old));
                }
            }
            batches.push(batch);
        }
        let at = Instant::now();
        for batch in &batches {
            store.write(batch)?;
            syncer.request(batch.id);
            while wait && reports.recv()?? != batch.id {}
        }
        times[usize::from(without)].push(at.elapsed());
    }
    let [with, without] = times.map(|mut times| {
        times.sort();
        let pins = (BATCHES * PER_BATCH) as f64;
        let per_pin = |time: Duration| time.as_secs_f64() * 1e6 / pins;
        (
            per_pin(times[times.len() / 2]),
            per_pin(times.iter().sum()) / times.len() as f64,
        )
    });
    println!(
        "{} with the search index {:.2} us a pin (mean {:.2}), without {:.2} (mean {:.2}): {:+.1} %",
        if wait { "synced" } else { "written" },
        with.0,
        with.1,
        without.0,
        without.1,
        (with.0 / without.0 - 1.0) * 100.0
    );
    Ok(index)
}

/// Pages of searches, each read several times from its start and from the middle of the pinset.
fn search(store: &Store, pins: u64) -> Result<()> {
    let named = |comparison, ignore_case, text: &str| Search {
        name: Some(NameMatch::new(comparison, ignore_case, text)),
        order: Order::Newest,
        ..Search::default()
    };
    let meta = |key: &str, value: &str| Search {
        metadata: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        order: Order::Newest,
        ..Search::default()
    };
    let middle = format!("pin number {}", pins / 2 / PER_BATCH * PER_BATCH);
    let newest = Search {
        order: Order::Newest,
        ..Search::default()
    };
    let mut both = meta("thousand", "7");
    both.name = named(Comparison::Partial, true, "NUMBER").name;
    let mut common_and_rare = meta("app", "bench");
    common_and_rare
        .metadata
        .insert("thousand".to_owned(), "7".to_owned());
    for (what, search) in [
        ("newest", newest),
        ("name", named(Comparison::Exact, false, &middle)),
        (
            "name, ignoring case",
            named(Comparison::Exact, true, &middle.to_uppercase()),
        ),
        (
            "start of few names",
            named(Comparison::Prefix, false, &middle[..middle.len() - 2]),
        ),
        ("start of all names", named(Comparison::Prefix, false, "pin n")),
        ("part of all names", named(Comparison::Partial, true, "NUMB")),
        (
            "part of few names",
            named(Comparison::Partial, true, &middle[6..]),
        ),
        ("part of no name", named(Comparison::Partial, true, "nothing")),
        ("metadata of all", meta("app", "bench")),
        ("metadata of few", meta("thousand", "7")),
        ("metadata of few, twice", common_and_rare),
        ("metadata and part of a name", both),
    ] {
        for limit in [50, 1000] {
            let mut times = Vec::new();
            let mut found = 0;
            for start in 0..20 {
                // A position in the middle of the time, from which the search goes on.
                let from = (start % 2 == 1).then(|| Position {
                    created: Timestamp(pins / 2 + start),
                    cid: cid(0),
                });
                let listing: Listing = store.reader().listing();
                let at = Instant::now();
                found = found.max(listing.page(&search, from.as_ref(), limit)?.pins.len());
                times.push(at.elapsed());
            }
            times.sort();
            let (half, most) = (times[times.len() / 2], times[times.len() - 1]);
            println!("page of {what}: up to {found} of {limit}, p50 {half:?}, worst {most:?}");
        }
        let at = Instant::now();
        let count = store.reader().count(&search)?;
        println!("count of {what}: {count} in {:?}", at.elapsed());
    }
    Ok(())
}

fn load(store: &mut Store, from: Index, pins: u64) -> Result<()> {
    let syncer = Syncer::start(store, |result| assert!(result.is_ok(), "syncs"))?;
    let mut times = Vec::new();
    let started = Instant::now();
    for index in from + 1..=from + pins / PER_BATCH {
        let batch = batch(index, PER_BATCH);
        let at = Instant::now();
        store.write(&batch)?;
        times.push(at.elapsed());
        syncer.request(batch.id);
    }
    drop(syncer);
    let elapsed = started.elapsed();
    let total: Duration = times.iter().sum();
    times.sort();
    let written = times.len() as u64 * PER_BATCH;
    println!(
        "wrote {written} pins in {elapsed:?}, {:.1} us each in write()",
        total.as_secs_f64() * 1e6 / written as f64
    );
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "a batch of {PER_BATCH}: p50 {:?}, p99 {:?}, worst {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
    println!("peak resident memory {} MB", peak_memory().unwrap_or(0) / 1024);
    Ok(())
}

fn read(store: &Store, pins: u64) -> Result<()> {
    let listing = store.reader().listing();
    let started = Instant::now();
    let count = listing
        .pins(None)
        .try_fold(0_u64, |count, pin| pin.map(|_| count + 1))?;
    println!(
        "pins listed: {:.0}/s ({count})",
        count as f64 / started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let count = listing
        .rows(None)
        .try_fold(0_u64, |count, row| row.map(|_| count + 1))?;
    println!(
        "pins merged with local state: {:.0}/s",
        count as f64 / started.elapsed().as_secs_f64()
    );
    let (view, started) = (store.view(), Instant::now());
    let found = (0..20_000)
        .filter(|n| view.pin(&cid(n * 7_919 % pins)).is_some())
        .count();
    println!(
        "{found} random pins: {:.0}/s",
        20_000.0 / started.elapsed().as_secs_f64()
    );
    let started = Instant::now();
    let queued = view.queue(Lane::Fresh, None, 100).len();
    println!("first {queued} places of a queue: {:?}", started.elapsed());
    Ok(())
}

fn snapshot(store: &mut Store) -> Result<()> {
    let source = store.reader().snapshot_source()?;
    let manifest = source.manifest().clone();
    // Read before it is staged, since a receiver has no view of its store open meanwhile.
    let chunks = source.collect::<Result<Vec<_>, _>>()?;
    let (started, mut bytes) = (Instant::now(), 0);
    let mut staging = store.stager().stage(SnapshotId(1), manifest.clone())?;
    for chunk in chunks {
        bytes += chunk.len();
        staging.push(&chunk)?;
    }
    staging.finish()?;
    println!("snapshot of {} MB staged in {:?}", bytes >> 20, started.elapsed());
    let started = Instant::now();
    let snapshot = SnapshotId(1);
    let ops = vec![StoreOp::InstallSnapshot { snapshot, manifest }];
    store.write(&Batch {
        id: BatchId(1),
        ops,
        sync: true,
    })?;
    println!("installed in {:?}", started.elapsed());
    let started = Instant::now();
    store.sync()?;
    println!("synced, the old one deleted, in {:?}", started.elapsed());
    Ok(())
}

/// Peak resident memory of the process, in KiB.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes(&[&[0x12, 32][..], &[n; 32]].concat()).expect("a peer id")
}

fn cid(n: u64) -> Cid {
    let mut bytes = vec![1, 0x55, 0x12, 32];
    for word in 0..4 {
        let mixed = (n + word * 1_000_003 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 29)).to_be_bytes());
    }
    Cid::from_bytes(&bytes).expect("a CID")
}

fn pin(n: u64, version: Index) -> Pin {
    let options = PinOptions {
        replicas: Replicas::Range { min: 2, max: 3 },
        name: format!("pin number {n}"),
        mode: Mode::Recursive,
        shard_size: 0,
        user_allocations: Vec::new(),
        expire_at: None,
        metadata: metadata(n),
        pin_update: None,
        origins: Vec::new(),
    };
    Pin {
        cid: cid(n),
        pin_type: PinType::Data,
        allocations: (0..3).map(peer).collect(),
        reference: None,
        options,
        timestamp: Timestamp(n),
        version,
    }
}

/// Metadata of every second pin: a pair of all of those, and one of a thousandth.
fn metadata(n: u64) -> BTreeMap<String, String> {
    let pairs = [
        ("app", "bench".to_owned()),
        ("thousand", (n / 2 % 1000).to_string()),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value));
    match n % 2 {
        0 => pairs.into(),
        _ => BTreeMap::new(),
    }
}

/// The batch of one log entry: the entry, its pins, and the tracker's updates of earlier pins.
fn batch(index: Index, pins: u64) -> Batch {
    let numbers = |index: Index| index * PER_BATCH..index * PER_BATCH + pins;
    let total = PINS.fetch_add(pins, Ordering::Relaxed) + pins;
    let mut ops = vec![
        StoreOp::Append {
            entries: vec![LogEntry {
                index,
                term: 1,
                payload: Payload::Commands(vec![7; 200 * pins as usize]),
            }],
        },
        StoreOp::SetHardState {
            hard_state: HardState {
                identity: cluster_core::Identity::Founding,
                term: 1,
                vote: None,
                commit: index,
            },
        },
        StoreOp::SetApplied {
            applied: Applied {
                index,
                term: 1,
                pins: total,
            },
        },
    ];
    if index.is_multiple_of(COMPACT_EVERY) {
        ops.push(StoreOp::Compact {
            index: index - 50,
            term: 1,
        });
    }
    for n in numbers(index) {
        let key = QueueKey {
            lane: Lane::Fresh,
            at: index,
            cid: cid(n),
        };
        let pin = pin(n, index);
        ops.push(StoreOp::PutPin { pin, previous: None });
        ops.push(StoreOp::PutLocal {
            cid: cid(n),
            local: local(Phase::PinQueued, Some(key.clone())),
        });
        ops.push(StoreOp::Enqueue { key });
    }
    for n in numbers(index.saturating_sub(20)) {
        let key = QueueKey {
            lane: Lane::Fresh,
            at: index.saturating_sub(20),
            cid: cid(n),
        };
        ops.push(StoreOp::PutLocal {
            cid: cid(n),
            local: local(Phase::Pinned, None),
        });
        ops.push(StoreOp::Dequeue { key });
    }
    Batch {
        id: BatchId(index),
        ops,
        sync: true,
    }
}

fn local(phase: Phase, queued: Option<QueueKey>) -> Local {
    Local {
        phase,
        mode: Mode::Recursive,
        attempts: 0,
        error: String::new(),
        since: Timestamp(1),
        queued,
    }
}
