//! Freeing disk space while readers read.

use super::*;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};

fn used(folder: &Path) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        // It may have been removed in the meantime.
        let Ok(data) = entry.metadata() else { continue };
        // Holes occupy nothing.
        total += if data.is_dir() {
            used(&entry.path())
        } else {
            data.blocks() * 512
        };
    }
    total
}

fn delete(store: &Store, model: &mut BTreeMap<u64, Block>, gone: impl Fn(u64) -> bool) {
    let numbers: Vec<u64> = model.keys().copied().filter(|number| gone(*number)).collect();
    let keys = numbers
        .iter()
        .filter_map(|number| model.remove(number))
        .map(|block| super::super::key_of(&block.cid))
        .collect();
    runtime().block_on(store.delete(keys, false)).unwrap();
}

#[test]
fn removed_blocks_free_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut model: BTreeMap<u64, Block> = (0..200).map(|number| (number, block(number, 10_000))).collect();
    runtime()
        .block_on(store.put(model.values().cloned().collect()))
        .unwrap();
    runtime().block_on(store.sync()).unwrap();
    let segments = folder.path().join("segments");
    assert!(used(&segments) >= 2_000_000);
    delete(&store, &mut model, |number| number % 4 != 0);
    store.compact().unwrap();
    assert!(used(&segments) < 800_000, "{} for 500,000", used(&segments));
    check(&store, &model);
    delete(&store, &mut model, |_| true);
    store.compact().unwrap();
    assert_eq!(used(&segments), 0);
    check(&store, &model);
    store.close();
    let store = open(folder.path());
    check(&store, &model);
    store.close();
}

#[test]
fn removed_small_blocks_free_the_disk_too() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut model: BTreeMap<u64, Block> = (0..20_000).map(|number| (number, block(number, 500))).collect();
    runtime()
        .block_on(store.put(model.values().cloned().collect()))
        .unwrap();
    runtime().block_on(store.sync()).unwrap();
    store.compact().unwrap();
    let before = used(&folder.path().join("blocks/keyspaces"));
    assert!(before > 10_000_000, "{before}");
    delete(&store, &mut model, |number| number % 8 != 0);
    store.compact().unwrap();
    let after = used(&folder.path().join("blocks/keyspaces"));
    assert!(after < 3_000_000, "{after} for 1,250,000");
    check(&store, &model);
    store.close();
}

struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn readers_find_blocks_while_they_are_moved() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let kept: Vec<Block> = (0..60).map(|number| block(number, 8000)).collect();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        runtime().block_on(store.put(kept.clone())).unwrap();
        let reader = || {
            while !ended.load(Ordering::Relaxed) {
                for block in &kept {
                    assert_eq!(store.get(&block.cid).unwrap().as_ref(), Some(&block.data));
                }
            }
        };
        scope.spawn(reader);
        // However this test ends, the reader ends too.
        let _ending = Ending(&ended);
        for round in 0..20 {
            let passing: Vec<Block> = (0..60).map(|n| block(1000 + round * 60 + n, 8000)).collect();
            let keys = passing
                .iter()
                .map(|block| super::super::key_of(&block.cid))
                .collect();
            runtime().block_on(async {
                // Interleaved with blocks that stay, in the same segments.
                for pair in passing.chunks(4) {
                    store.put(pair.to_vec()).await.unwrap();
                }
                store.delete(keys, false).await.unwrap();
            });
            store.compact().unwrap();
        }
    });
    store.close();
}
