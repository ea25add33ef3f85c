//! Kills of the process at any moment, and at each step of a compaction.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Environment variable with the child's folder.
const FOLDER: &str = "CLUSTER_IPFS_TEST_FOLDER";
/// Blocks in one batch of the child.
const BATCH: u64 = 8;
/// Number of batches after which a batch with an odd number is removed.
const LATER: u64 = 4;

fn batch(number: u64) -> Vec<Block> {
    let all = number * BATCH..(number + 1) * BATCH;
    all.map(|n| block(n, if n % 3 == 0 { 500 } else { 12_000 }))
        .collect()
}

fn keys_of(blocks: &[Block]) -> Vec<Vec<u8>> {
    blocks
        .iter()
        .map(|block| super::super::key_of(&block.cid))
        .collect()
}

#[test]
#[ignore = "the process that `killed_process_loses_nothing_acknowledged` kills"]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = open(Path::new(&folder));
    let runtime = runtime();
    let marker = |number: u64| block(1 << 40 | number, 10).cid;
    let mut number = 0;
    while store.pin_of(&marker(number)).unwrap().is_some() {
        number += 1;
    }
    // Ends if its parent has ended.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(120) {
        runtime.block_on(async {
            store.put(batch(number)).await.unwrap();
            if let Some(old) = number.checked_sub(LATER).filter(|old| old % 2 == 1) {
                store.delete(keys_of(&batch(old)), false).await.unwrap();
            }
            store.pin(&pin(marker(number))).await.unwrap();
        });
        println!("acknowledged {number}");
        if number % 8 == 7 {
            store.compact().unwrap();
        }
        number += 1;
    }
}

#[test]
fn killed_process_loses_nothing_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = None;
    for kill in 1..=8u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "store::tests::crash::child",
            ])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut left = 3 + kill * 5 % 17;
        while left > 0 {
            let line = lines.next().expect("the child writes on").unwrap();
            if let Some(number) = line.strip_prefix("acknowledged ") {
                acknowledged = Some(number.parse::<u64>().unwrap());
                left -= 1;
            }
        }
        std::thread::sleep(Duration::from_micros(kill * 700));
        child.kill().unwrap();
        child.wait().unwrap();
        // Lines printed before the kill.
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acknowledged ") {
                acknowledged = number.parse().ok().or(acknowledged);
            }
        }
        inspect(folder.path(), acknowledged.unwrap());
    }
}

fn inspect(folder: &Path, acknowledged: u64) {
    let store = open(folder);
    for number in 0..=acknowledged {
        let removed = number % 2 == 1 && number + LATER <= acknowledged;
        let maybe = number % 2 == 1 && number + LATER == acknowledged + 1;
        for block in batch(number) {
            let found = store.get(&block.cid).unwrap();
            if removed {
                assert_eq!(found, None, "batch {number} of {acknowledged} was removed");
            } else if !maybe || found.is_some() {
                assert_eq!(found, Some(block.data), "batch {number} of {acknowledged}");
            }
        }
    }
    let counters = store.counters();
    let keys = keys(&store);
    assert_eq!(counters.blocks, keys.len() as u64);
    store.close();
}

#[test]
fn compaction_may_be_cut_off_at_any_step() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    // Smaller than a page, so that holes free little and live blocks are moved.
    let mut model: BTreeMap<u64, Block> = (0..3600).map(|number| (number, block(number, 3_000))).collect();
    let runtime = runtime();
    runtime
        .block_on(store.put(model.values().cloned().collect()))
        .unwrap();
    let gone: Vec<Block> = (0..3600)
        .filter(|n| n % 5 < 2)
        .filter_map(|n| model.remove(&n))
        .collect();
    runtime.block_on(store.delete(keys_of(&gone), false)).unwrap();
    let mut copies = Vec::new();
    store
        .compact_in_steps(&mut || {
            let copy = tempfile::tempdir().unwrap();
            copy_folder(folder.path(), copy.path());
            copies.push(copy);
        })
        .unwrap();
    check(&store, &model);
    store.close();
    assert!(copies.len() >= 5, "{}", copies.len());
    for copy in copies {
        let store = open(copy.path());
        check(&store, &model);
        store.compact().unwrap();
        check(&store, &model);
        store.close();
    }
}
