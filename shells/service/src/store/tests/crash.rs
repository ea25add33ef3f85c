//! Killed processes, and full disks.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use cluster_core::Identity;
use fjall::AbstractTree;

use super::*;
use crate::store::{Syncer, spaces};

/// Variable that gives a child its folder.
const FOLDER: &str = "STORE_TEST_FOLDER";

/// A command that runs one test of this binary in another process.
fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("has a path"));
    command
        .args([
            "--exact",
            &format!("store::tests::crash::{test}"),
            "--ignored",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .stdout(Stdio::piped());
    command
}

/// Maximum number of batches that one child writes, far more than are waited for: a delayed parent must not
/// find the disk full.
const WRITES_MAX: u64 = 5_000;

/// Writes and syncs until it is killed, and prints the durable batches.
#[test]
#[ignore = "runs in a process of its own, see below"]
fn writes_until_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut store = open(Path::new(&folder));
    let from = match store.recovered().expect("reads") {
        Some(recovered) => recovered.applied.index,
        None => {
            store.initialise(&founding()).expect("founds");
            0
        }
    };
    let syncer =
        Syncer::start(&store, |batch| println!("durable {}", batch.expect("syncs"))).expect("starts");
    for index in from + 1..=from + WRITES_MAX {
        store.write(&batch(index, pin_ops(index))).expect("writes");
        syncer.request(BatchId(index));
        if index % 7 == 0 {
            std::thread::sleep(std::time::Duration::from_micros(300));
        }
    }
    // Ends by itself if its parent is gone.
    std::thread::sleep(std::time::Duration::from_secs(120));
}

#[test]
fn a_killed_process_keeps_all_durable_batches_and_only_complete_ones() {
    let folder = super::folder();
    let path = folder.path().join("raft");
    for round in 0..12 {
        let mut killed = child("writes_until_killed", &path).spawn().expect("starts");
        let lines = BufReader::new(killed.stdout.take().expect("is piped")).lines();
        let mut lines = lines.map_while(Result::ok);
        let mut durable = 0;
        let parse = |line: String| line.split("durable ").nth(1)?.trim().parse::<u64>().ok();
        while durable < (round + 1) * 60 {
            let line = lines.next().expect("it goes on");
            durable = parse(line).unwrap_or(durable);
        }
        killed.kill().expect("is killed");
        durable = lines.filter_map(parse).last().unwrap_or(durable);
        killed.wait().expect("ends");

        let mut store = open(&path);
        let recovered = store.recovered().expect("reads").expect("founded");
        let last = recovered.applied.index;
        assert!(last >= durable, "{durable} was reported, {last} is there");
        assert_eq!(recovered.hard_state.commit, last);
        assert_eq!(recovered.log.last().map(|entry| entry.index), Some(last));
        let (rows, applied) = content(&store).expect("reads");
        assert_eq!((rows.len() as u64, applied.pins), (last, last));
        let whole = rows.iter().all(|row| row.pin.is_some() && row.local.is_some());
        assert!(whole, "a batch is incomplete");
        assert_eq!(
            store.view().queue(Lane::Fresh, None, usize::MAX).len() as u64,
            last
        );
    }
}

/// Writes until the disk is full, and prints the error.
#[test]
#[ignore = "runs in a process of its own, see below"]
fn writes_until_full() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let mut store = open(Path::new(&folder));
    store.initialise(&founding()).expect("founds");
    let mut durable = 0;
    for index in 1..1_000_000 {
        let written = store.write(&batch(index, pin_ops(index)));
        let result = written.and_then(|()| if index % 10 == 0 { store.sync() } else { Ok(()) });
        match result {
            Ok(()) if index % 10 == 0 => durable = index,
            Ok(()) => {}
            Err(error) => {
                println!("failed {error}");
                println!("durable {durable}");
                assert!(store.write(&batch(index + 1, pin_ops(index))).is_err() || store.sync().is_err());
                std::process::exit(3);
            }
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_keeps_all_durable_batches() {
    let folder = super::folder();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).expect("makes");
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=24m", "none"])
        .arg(&disk)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: no right to mount a small disk");
        return;
    }
    let output = child("writes_until_full", &disk.join("raft")).output();
    let grown = Command::new("mount")
        .args(["-o", "remount,size=200m"])
        .arg(&disk)
        .status();
    let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let output = output.expect("runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(3), "{text}");
        let after = |word: &str| {
            text.split(word)
                .nth(1)
                .and_then(|rest| rest.lines().next())
                .map(str::to_owned)
        };
        assert!(
            after("failed ").is_some_and(|why| why.contains("disk full")),
            "{text}"
        );
        let durable: u64 = after("durable ").and_then(|n| n.parse().ok()).expect("is said");
        assert!(grown.is_ok_and(|status| status.success()));
        let mut store = open(&disk.join("raft"));
        let recovered = store.recovered().expect("reads").expect("founded");
        assert!(
            recovered.applied.index >= durable,
            "{durable} > {}",
            recovered.applied.index
        );
        let (rows, applied) = content(&store).expect("reads");
        assert_eq!(rows.len() as u64, applied.pins);
    }));
    // A program that another test starts at this moment holds all files of this process, until it is
    // executed.
    let began = std::time::Instant::now();
    let unmounted = || Command::new("umount").arg(&disk).status();
    while !unmounted().is_ok_and(|status| status.success()) {
        assert!(began.elapsed().as_secs() < 60, "the disk stays in use");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}

/// fjall's workers and the writer could otherwise wait for each other: see `spaces::bound_memory`.
#[test]
fn memtables_are_sealed_before_fjall_asks_its_workers_to() {
    let (_folder, mut store) = founded();
    for index in 1..=200 {
        let payload = Payload::Commands(vec![7; 100_000]);
        let entries = vec![LogEntry {
            index,
            term: 1,
            payload,
        }];
        let hard_state = HardState {
            identity: Identity::Founding,
            term: 1,
            vote: None,
            commit: index,
        };
        let ops = vec![StoreOp::Append { entries }, StoreOp::SetHardState { hard_state }];
        store.write(&batch(index, ops)).expect("writes");
        let log = &store.shared.fixed.log;
        let size = log.tree.active_memtable().size();
        assert!(size <= spaces::memtable_size(log.name()), "{size} bytes");
    }
}
