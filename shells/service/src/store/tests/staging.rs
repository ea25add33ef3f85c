//! Snapshots: sending, receiving, and failures of both.

use super::*;
use crate::store::{StageError, Staging};
use cluster_core::{FIRST_VERSION, POLICY_VERSION, encode};

/// Pushes pins in chunks of three.
pub(super) fn push_all(staging: &mut Staging, pins: &[Pin]) -> Result<(), StageError> {
    pins.chunks(3).try_for_each(|pins| staging.push(&chunk(pins)))
}

fn chunk(pins: &[Pin]) -> Vec<u8> {
    let mut chunk = vec![FIRST_VERSION];
    for pin in pins {
        let bytes = encode(pin);
        chunk.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
        chunk.extend_from_slice(&bytes);
    }
    chunk
}

fn sorted(numbers: impl IntoIterator<Item = u64>) -> Vec<Pin> {
    let mut pins: Vec<_> = numbers.into_iter().map(|n| pin(n, 4)).collect();
    pins.sort_by(|a, b| a.cid.cmp(&b.cid));
    pins
}

fn manifest(index: Index, pins: u64) -> Manifest {
    Manifest {
        applied: Applied { index, term: 2, pins },
        members: Members::initial([peer(7)]),
        windows: Vec::new(),
    }
}

fn install(snapshot: SnapshotId, manifest: &Manifest) -> Batch {
    let commit = manifest.applied.index;
    let hard_state = HardState {
        identity: cluster_core::Identity::Known(cluster_core::RaftId(1)),
        term: 2,
        vote: None,
        commit,
    };
    let manifest = manifest.clone();
    batch(
        9,
        vec![
            StoreOp::InstallSnapshot { snapshot, manifest },
            StoreOp::SetHardState { hard_state },
        ],
    )
}

#[test]
fn a_snapshot_arrives_unchanged() {
    let (_sender, mut from) = founded();
    for index in 1..=3_000 {
        from.write(&batch(index, pin_ops(index))).expect("writes");
    }
    let source = from.reader().snapshot_source().expect("reads");
    // Later writes are not part of it.
    from.write(&batch(3_001, pin_ops(3_001))).expect("writes");

    let (_receiver, mut to) = founded();
    let manifest = source.manifest().clone();
    let mut staging = to
        .stager()
        .stage(SnapshotId(1), manifest.clone())
        .expect("stages");
    let chunks: Vec<_> = source.collect::<Result<_, _>>().expect("reads");
    assert!(chunks.len() > 2);
    chunks
        .iter()
        .try_for_each(|chunk| staging.push(chunk))
        .expect("takes all");
    staging.finish().expect("finishes");
    to.write(&install(SnapshotId(1), &manifest)).expect("installs");
    let pins = to.view().pins(None, 5_000);
    assert_eq!(pins.len(), 3_000);
    assert_eq!(
        pins,
        from.view()
            .pins(None, 5_000)
            .into_iter()
            .filter(|pin| pin.version <= 3_000)
            .collect::<Vec<_>>()
    );
    assert_eq!(to.reader().applied().expect("reads").pins, 3_000);
}

#[test]
fn a_listing_keeps_reading_a_replaced_pinset() {
    let (folder, mut store) = founded();
    for index in 1..=50 {
        store.write(&batch(index, pin_ops(index))).expect("writes");
    }
    let listing = store.reader().listing();
    let mut rows = listing.pins(None);
    assert!(rows.next().is_some());
    for (id, index) in [(1, 60), (2, 70)] {
        let manifest = manifest(index, 2);
        let mut staging = store
            .stager()
            .stage(SnapshotId(id), manifest.clone())
            .expect("stages");
        push_all(&mut staging, &sorted([100, 101])).expect("takes all");
        staging.finish().expect("finishes");
        store
            .write(&install(SnapshotId(id), &manifest))
            .expect("installs");
        store.sync().expect("syncs");
    }
    assert_eq!(rows.map(Result::unwrap).count(), 49);
    drop(listing);
    assert_eq!(store.view().pins(None, 100).len(), 2);
    drop(store);
    let mut store = open(&folder.path().join("raft"));
    assert_eq!(
        store.recovered().expect("reads").expect("founded").compacted,
        (70, 2)
    );
    assert_eq!(store.view().pins(None, 100), sorted([100, 101]));
}

#[test]
fn a_listing_in_pages_shows_each_pin_once_while_the_pinset_is_replaced() {
    let (_folder, mut store) = founded();
    for index in 1..=50 {
        store.write(&batch(index, pin_ops(index))).expect("writes");
    }
    let reader = store.reader();
    let listed = |after: Option<&Cid>| reader.pins_after(after, 7).expect("reads");
    let mut shown = listed(None);
    let kept: Vec<Pin> = reader
        .listing()
        .pins(None)
        .step_by(2)
        .map(Result::unwrap)
        .collect();
    let manifest = manifest(60, kept.len() as u64);
    let mut staging = store
        .stager()
        .stage(SnapshotId(1), manifest.clone())
        .expect("stages");
    push_all(&mut staging, &kept).expect("takes all");
    staging.finish().expect("finishes");
    store.write(&install(SnapshotId(1), &manifest)).expect("installs");
    loop {
        let page = listed(shown.last().map(|pin| &pin.cid));
        if page.is_empty() {
            break;
        }
        shown.extend(page);
    }
    // Three of the first page's seven are gone since.
    assert_eq!(shown.len(), kept.len() + 3);
    assert!(shown.is_sorted_by(|a, b| a.cid < b.cid));
    assert!(kept.iter().all(|pin| shown.contains(pin)));
}

#[test]
fn chunks_that_do_not_match_the_announced_snapshot_are_refused() {
    let (_folder, store) = founded();
    let stager = store.stager();
    let refused = |n: u64, announced: u64, chunks: &[Vec<u8>]| {
        let mut staging = stager
            .stage(SnapshotId(n), manifest(5, announced))
            .expect("stages");
        let pushed = chunks.iter().try_for_each(|chunk| staging.push(chunk));
        match pushed.and_then(|()| staging.finish()) {
            Err(StageError::Rejected(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let pins = sorted(0..4);
    let whole = chunk(&pins);
    assert!(refused(1, 5, std::slice::from_ref(&whole)).contains("received 4 pins"));
    assert!(refused(2, 3, std::slice::from_ref(&whole)).contains("more than the 3"));
    assert!(refused(3, 8, &[whole.clone(), whole.clone()]).contains("out of order"));
    assert!(refused(4, 4, &[Vec::new()]).contains("empty"));
    assert!(refused(5, 4, &[vec![POLICY_VERSION + 1, 0]]).contains("version"));
    for cut in 2..whole.len() {
        let bytes = whole[..cut].to_vec();
        let mut staging = match stager.stage(SnapshotId(1_000 + cut as u64), manifest(5, 4)) {
            Ok(staging) => staging,
            Err(error) => panic!("{error}"),
        };
        let result = staging.push(&bytes).and_then(|()| staging.finish());
        assert!(
            matches!(result, Err(StageError::Rejected(_))),
            "{cut}: {result:?}"
        );
        if cut > 30 {
            break;
        }
    }
    // None of them blocks the next one.
    let mut staging = stager.stage(SnapshotId(6), manifest(5, 4)).expect("stages");
    staging
        .push(&whole)
        .and_then(|()| staging.finish())
        .expect("takes it");
}

#[test]
fn the_number_of_staged_snapshots_is_limited() {
    let (_folder, mut store) = founded();
    let stager = store.stager();
    let first = stager.stage(SnapshotId(1), manifest(5, 0)).expect("stages");
    assert!(matches!(
        stager.stage(SnapshotId(1), manifest(5, 0)),
        Err(StageError::Rejected(_))
    ));
    let second = stager.stage(SnapshotId(2), manifest(5, 0)).expect("stages");
    assert!(matches!(
        stager.stage(SnapshotId(3), manifest(5, 0)),
        Err(StageError::Busy(2))
    ));
    drop(first);
    second.finish().expect("finishes");
    stager.discard(SnapshotId(2)).expect("discards");
    stager.discard(SnapshotId(2)).expect("discards nothing");
    let refused = store.write(&install(SnapshotId(2), &manifest(5, 0)));
    assert!(matches!(refused, Err(StoreError::Contract(_))), "{refused:?}");
}

#[test]
fn the_remains_of_a_snapshot_are_deleted_at_opening() {
    let (folder, mut store) = founded();
    store.write(&batch(1, pin_ops(1))).expect("writes");
    let mut staging = store
        .stager()
        .stage(SnapshotId(1), manifest(5, 3))
        .expect("stages");
    push_all(&mut staging, &sorted(10..12)).expect("takes them");
    let mut ready = store
        .stager()
        .stage(SnapshotId(2), manifest(5, 2))
        .expect("stages");
    push_all(&mut ready, &sorted(20..22)).expect("takes them");
    ready.finish().expect("finishes");
    // Simulates a crash: the staging is never dropped.
    std::mem::forget(staging);
    store.sync().expect("syncs");
    let copy = folder.path().join("copy");
    damage::copy(&folder.path().join("raft"), &copy);
    let keyspaces = || {
        std::fs::read_dir(copy.join("db/keyspaces"))
            .expect("is there")
            .count()
    };
    let before = keyspaces();
    let mut store = open(&copy);
    assert_eq!(
        store.recovered().expect("reads").expect("founded").applied.index,
        1
    );
    assert_eq!(store.view().pins(None, 10), [pin(1, 1)]);
    let of_one = store.generation.keyspaces().len();
    assert_eq!(keyspaces(), before - 2 * of_one);
    drop(store);
    drop(open(&copy));
}
