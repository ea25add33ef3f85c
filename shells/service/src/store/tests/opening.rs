//! Opening folders, and the texts of refusals.

use super::*;
use crate::store::{OpenError, Syncer};
use std::fs;
use std::sync::mpsc;

fn refused(path: &std::path::Path) -> OpenError {
    try_open(path).err().expect("is refused")
}

#[test]
fn an_empty_folder_has_no_content_until_it_is_founded() {
    let folder = super::folder();
    let mut store = open(folder.path());
    assert_eq!(store.recovered().expect("reads"), None);
    assert!(matches!(
        store.write(&batch(1, Vec::new())),
        Err(StoreError::Contract(_))
    ));
    drop(store);
    let mut store = open(folder.path());
    assert_eq!(store.recovered().expect("reads"), None);
    store.initialise(&founding()).expect("founds");
    assert!(matches!(
        store.initialise(&founding()),
        Err(StoreError::Contract(_))
    ));
    store.close().expect("closes");
    for boot in 2..5 {
        let mut store = open(folder.path());
        let expected = Recovered { boot, ..founding() };
        assert_eq!(store.recovered().expect("reads"), Some(expected));
    }
}

#[test]
fn a_second_process_gets_the_id_of_the_owner() {
    let (folder, store) = founded();
    let second = Store::open(folder.path().join("raft"), &OpenOptions::default());
    let error = second.err().expect("is refused");
    let pid = std::process::id().to_string();
    assert!(
        matches!(&error, OpenError::Locked { pid: found, .. } if *found == pid),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains(&format!("in use by the process with id {pid}"))
    );
    drop(store);
    drop(open(&folder.path().join("raft")));
}

#[test]
fn a_folder_of_a_later_release_is_refused() {
    let (folder, store) = founded();
    let path = folder.path().join("raft");
    drop(store);
    fs::write(path.join("format"), "2\n").expect("writes");
    let error = refused(&path);
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 2,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    fs::write(path.join("format"), "one\n").expect("writes");
    assert!(matches!(refused(&path), OpenError::Damaged { .. }));
    fs::write(path.join("format"), "1\n").expect("writes");
    drop(open(&path));
}

#[test]
fn a_foreign_folder_is_refused_untouched() {
    let folder = super::folder();
    fs::write(folder.path().join("raft.db"), "of the Go peer").expect("writes");
    let error = refused(folder.path());
    assert!(error.to_string().contains("\"raft.db\""), "{error}");
    assert_eq!(fs::read_dir(folder.path()).expect("reads").count(), 1);
}

#[test]
fn a_batch_that_contradicts_the_log_is_refused() {
    let (_folder, mut store) = founded();
    let gap = StoreOp::Append {
        entries: vec![entry(2, 1)],
    };
    let beyond = StoreOp::SetApplied {
        applied: Applied {
            index: 1,
            term: 1,
            pins: 0,
        },
    };
    let nothing = StoreOp::Append { entries: Vec::new() };
    let dropped = StoreOp::Compact { index: 1, term: 1 };
    for op in [gap, beyond, nothing, dropped] {
        let result = store.write(&batch(1, vec![op]));
        assert!(matches!(result, Err(StoreError::Contract(_))), "{result:?}");
    }
}

#[test]
fn a_long_log_is_compacted_in_pieces() {
    let (folder, mut store) = founded();
    let path = folder.path().join("raft");
    let entries = (1..=3_500).map(|index| entry(index, 1)).collect();
    let hard_state = HardState {
        identity: cluster_core::Identity::Known(cluster_core::RaftId(1)),
        term: 1,
        vote: None,
        commit: 3_500,
    };
    let applied = Applied {
        index: 3_500,
        term: 1,
        pins: 0,
    };
    let ops = vec![
        StoreOp::Append { entries },
        StoreOp::SetHardState { hard_state },
        StoreOp::SetApplied { applied },
        StoreOp::Compact {
            index: 3_400,
            term: 1,
        },
    ];
    store.write(&batch(1, ops)).expect("writes");
    drop(store);
    let mut store = open(&path);
    let recovered = store.recovered().expect("reads").expect("founded");
    assert_eq!((recovered.compacted, recovered.log.len()), ((3_400, 1), 100));
    let stored = |store: &Store| store.shared.fixed.log.len().expect("reads");
    assert_eq!(stored(&store), 2_500);
    (2..6).for_each(|id| store.write(&batch(id, Vec::new())).expect("writes"));
    assert_eq!(stored(&store), 100);
}

#[test]
fn the_syncer_reports_the_newest_batch_and_all_before_it() {
    let (folder, mut store) = founded();
    let (sender, reports) = mpsc::channel();
    let syncer = Syncer::start(&store, move |result| {
        sender.send(result.expect("syncs")).expect("is received");
    })
    .expect("starts");
    for index in 1..=200 {
        store.write(&batch(index, pin_ops(index))).expect("writes");
        syncer.request(BatchId(index));
    }
    drop(syncer);
    let reports: Vec<_> = reports.iter().collect();
    assert_eq!(reports.last(), Some(&BatchId(200)));
    assert!(reports.is_sorted());
    // Everything reported is in the files, independently of the store's later work.
    let copy = folder.path().join("copy");
    damage::copy(&folder.path().join("raft"), &copy);
    assert_eq!(
        content(&open(&copy)).expect("reads"),
        content(&store).expect("reads")
    );
}
