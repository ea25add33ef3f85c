//! Tests of the store against a model, damage and kills.

mod crash;
mod damage;
mod full;
mod space;

use super::Store;
use crate::Cid;
use crate::{Block, Error, Pin, PinMode, codec, hash};
use cid::Version;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tokio::runtime::{Builder, Runtime};

/// Size limit of segments in tests; a few blocks fill one.
const SEGMENT: u64 = 64 << 10;

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Opens a store that no test has open. A child process forked by another test still holds the lock, like all
/// files open at the fork, until it calls exec.
fn try_open(path: &Path) -> Result<Store, Error> {
    let began = std::time::Instant::now();
    loop {
        match Store::open_with(path, None, SEGMENT) {
            Err(Error::Locked(_)) if began.elapsed().as_secs() < 60 => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn open(path: &Path) -> Store {
    try_open(path).unwrap()
}

/// Returns a block determined by its number.
fn block(number: u64, size: usize) -> Block {
    let mut x = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(size + 8);
    while data.len() < size {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        data.extend_from_slice(&x.to_le_bytes());
    }
    data.truncate(size);
    let cid = hash::compute_cid(Version::V1, codec::RAW, 0x12, &data).unwrap();
    Block {
        cid,
        data: data.into(),
    }
}

fn keys(store: &Store) -> Vec<Vec<u8>> {
    store.keys().unwrap().map(|key| key.unwrap()).collect()
}

/// Checks that the store holds exactly the model's blocks, and that its counters agree.
fn check(store: &Store, model: &BTreeMap<u64, Block>) {
    for block in model.values() {
        assert!(store.has(&block.cid).unwrap());
        assert_eq!(store.size_of(&block.cid).unwrap(), Some(block.data.len() as u64));
        assert_eq!(store.get(&block.cid).unwrap().as_ref(), Some(&block.data));
    }
    let expected: BTreeSet<Vec<u8>> = model.values().map(|block| super::key_of(&block.cid)).collect();
    assert_eq!(keys(store), expected.into_iter().collect::<Vec<_>>());
    let counters = store.counters();
    assert_eq!(counters.blocks, model.len() as u64);
    let bytes = model.values().map(|block| block.data.len() as u64).sum::<u64>();
    assert_eq!(counters.bytes, bytes);
}

/// Copies a folder as of one moment: starts over if files came or went.
fn copy_folder(from: &Path, to: &Path) {
    for _ in 0..1000 {
        let copied = copy_files(from, to);
        if copied.is_ok_and(|copied| files(from).is_ok_and(|now| now == copied)) {
            return;
        }
        std::fs::remove_dir_all(to).unwrap();
    }
    panic!("{} does not come to rest", from.display());
}

/// Copies all files; returns which.
fn copy_files(from: &Path, to: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let all = files(from)?;
    std::fs::create_dir_all(to)?;
    for path in &all {
        let target = to.join(path.strip_prefix(from).unwrap());
        if path.is_dir() {
            std::fs::create_dir_all(target)?;
        } else {
            std::fs::copy(path, target)?;
        }
    }
    Ok(all)
}

/// Lists all files and folders below one, parents first.
fn files(folder: &Path) -> std::io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.extend(files(&entry.path())?);
        }
        found.insert(entry.path());
    }
    Ok(found)
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u64>),
    Delete(Vec<u64>),
    Sync,
    Compact,
    Reopen,
    /// Opens a copy of the folder, as a killed process leaves it after a sync, and compares it.
    Crash,
}

/// Returns a block whose size follows from its number: tiny ones, and some around the limit of inline blocks.
fn sized(number: u64) -> Block {
    let sizes = [1, 300, 511, 512, 513, 9000, 20_000, 40_000];
    block(number, sizes[number as usize % sizes.len()])
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = || prop::collection::vec(0..48u64, 1..12);
    prop_oneof![
        6 => numbers().prop_map(Step::Put),
        4 => numbers().prop_map(Step::Delete),
        2 => Just(Step::Sync),
        2 => Just(Step::Compact),
        1 => Just(Step::Reopen),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn store_holds_the_blocks_put_and_not_deleted(steps in prop::collection::vec(step(), 1..40)) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = runtime();
        let mut store = open(folder.path());
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Put(numbers) => {
                    let blocks = numbers.iter().map(|number| sized(*number)).collect();
                    runtime.block_on(store.put(blocks)).unwrap();
                    model.extend(numbers.into_iter().map(|number| (number, sized(number))));
                }
                Step::Delete(numbers) => {
                    let keys = numbers.iter().map(|number| super::key_of(&sized(*number).cid)).collect();
                    let deleted = runtime.block_on(store.delete(keys, false)).unwrap();
                    let gone: BTreeSet<u64> = numbers.into_iter().collect();
                    let held = gone.iter().filter(|number| model.remove(number).is_some()).count();
                    prop_assert_eq!(deleted.len(), held);
                }
                Step::Sync => runtime.block_on(store.sync()).unwrap(),
                Step::Compact => store.compact().unwrap(),
                Step::Reopen => {
                    store.close();
                    store = open(folder.path());
                }
                Step::Crash => {
                    runtime.block_on(store.sync()).unwrap();
                    let copy = tempfile::tempdir().unwrap();
                    copy_folder(folder.path(), copy.path());
                    let recovered = open(copy.path());
                    check(&recovered, &model);
                    recovered.close();
                }
            }
            check(&store, &model);
        }
        store.close();
    }
}

#[test]
fn duplicate_in_one_put_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let large = block(1, 10_000);
    runtime()
        .block_on(store.put(vec![large.clone(), large.clone()]))
        .unwrap();
    check(&store, &BTreeMap::from([(1, large)]));
    store.close();
}

#[test]
fn block_deleted_and_put_in_one_group_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let runtime = runtime();
    let all: Vec<Block> = (0..20).map(|number| block(number, 5000)).collect();
    for _ in 0..10 {
        runtime.block_on(async {
            store.put(all.clone()).await.unwrap();
            let keys = all.iter().map(|block| super::key_of(&block.cid)).collect();
            // Polled in this order, and so queued together.
            let (deleted, put) = tokio::join!(store.delete(keys, false), store.put(all.clone()));
            deleted.unwrap();
            put.unwrap();
            store.sync().await.unwrap();
        });
        check(&store, &(0..).zip(all.clone()).collect());
    }
    store.close();
}

#[test]
fn idle_store_is_synced_without_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let block = block(1, 10_000);
    runtime().block_on(store.put(vec![block.clone()])).unwrap();
    let mut rounds = 0;
    loop {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(folder.path(), copy.path());
        let recovered = open(copy.path());
        let found = recovered.has(&block.cid).unwrap();
        recovered.close();
        if found {
            break;
        }
        rounds += 1;
        assert!(rounds < 200, "still not durable");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    store.close();
}

fn pin(cid: Cid) -> Pin {
    Pin {
        cid,
        mode: PinMode::Direct,
        name: String::new(),
    }
}

proptest! {
    #[test]
    fn pin_records_round_trip(
        cid in codec::any::cid(),
        direct: bool,
        name in "\\PC{0,20}",
        garbage in codec::any::bytes(20),
    ) {
        let mode = if direct { PinMode::Direct } else { PinMode::Recursive };
        let pin = Pin { cid, mode, name };
        prop_assert_eq!(super::decode_pin(cid, &super::encode_pin(&pin)).unwrap(), pin);
        let _ = super::decode_pin(cid, &garbage);
    }
}
