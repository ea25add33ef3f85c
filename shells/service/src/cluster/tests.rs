//! Tests of the operations.

use std::time::{Duration, Instant};

use cluster_api::{AddParams, GlobalPinInfo, PinOptions, StatusFilter, TrackerStatus};
use cluster_core::Refusal;
use futures::StreamExt;
use tokio::sync::mpsc;

use super::testing::{TestCluster, cid, peer};
use super::{AddFailure, Cluster, Error, Rows};

fn copies(min: i32, max: i32) -> PinOptions {
    PinOptions {
        replication_factor_min: min,
        replication_factor_max: max,
        ..PinOptions::default()
    }
}

async fn all(rows: Result<Rows, Error>) -> Vec<GlobalPinInfo> {
    let batches: Vec<_> = rows.unwrap().collect().await;
    batches.into_iter().flat_map(Result::unwrap).collect()
}

fn statuses(row: &GlobalPinInfo) -> Vec<TrackerStatus> {
    (1..=3)
        .filter_map(|n| row.peer_map.get(&peer(n).to_string()))
        .map(|info| info.status)
        .collect()
}

/// Pins a CID everywhere, with these results at the peers' IPFS nodes; `None` for a pin that does not end.
async fn pinned(test: &TestCluster, n: u32, outcomes: [Option<Result<(), &str>>; 3]) {
    test.cluster(1).pin(cid(n), &PinOptions::default()).await.unwrap();
    for (peer, outcome) in (1..).zip(outcomes) {
        if let Some(outcome) = outcome {
            test.finish_pin(peer, &cid(n), outcome);
        }
    }
}

const PINNED: Option<Result<(), &str>> = Some(Ok(()));

const FAILED: Option<Result<(), &str>> = Some(Err("no room"));

const ALL_PINNED: [Option<Result<(), &str>>; 3] = [PINNED; 3];

#[tokio::test]
async fn status_asks_every_member_and_names_unreachable_ones() {
    let test = TestCluster::new(3).await;
    pinned(&test, 1, [PINNED, FAILED, None]).await;
    let row = test.cluster(1).status(cid(1)).await.unwrap();
    assert_eq!(
        statuses(&row),
        [
            TrackerStatus::Pinned,
            TrackerStatus::PinError,
            TrackerStatus::Pinning
        ]
    );
    let second = &row.peer_map[&peer(2).to_string()];
    assert_eq!(
        (second.peername.as_str(), second.error.as_str()),
        ("peer2", "no room")
    );
    test.stop(3).await;
    let row = test.cluster(1).status(cid(1)).await.unwrap();
    assert_eq!(statuses(&row)[2], TrackerStatus::ClusterError);
    let error = &row.peer_map[&peer(3).to_string()].error;
    assert!(error.starts_with("cannot reach peer"), "{error}");
}

#[tokio::test]
async fn unallocated_peers_are_remote_and_unknown_cids_unpinned() {
    let test = TestCluster::new(3).await;
    test.cluster(1).pin(cid(1), &copies(1, 1)).await.unwrap();
    test.stop(3).await;
    let row = test.cluster(2).status(cid(1)).await.unwrap();
    assert_eq!(
        statuses(&row),
        [
            TrackerStatus::Pinning,
            TrackerStatus::Remote,
            TrackerStatus::Remote
        ]
    );
    let row = test.cluster(2).status_local(cid(9)).await.unwrap();
    assert_eq!(statuses(&row), [TrackerStatus::Unpinned]);
}

#[tokio::test]
async fn status_all_continues_without_an_unreachable_peer() {
    let test = TestCluster::new(3).await;
    for n in 0..1500 {
        pinned(&test, n, ALL_PINNED).await;
    }
    test.stop(2).await;
    let rows = all(test.cluster(1).status_all(StatusFilter::ALL).await).await;
    assert_eq!(rows.len(), 1500);
    let shown: Vec<cluster_core::Cid> = rows.iter().map(|row| row.cid.parse().unwrap()).collect();
    let expected: Vec<_> = (0..1500).map(cid).collect();
    assert!(shown == expected, "not in order");
    let expected = [
        TrackerStatus::Pinned,
        TrackerStatus::ClusterError,
        TrackerStatus::Pinned,
    ];
    assert!(rows.iter().all(|row| statuses(row) == expected));
}

#[tokio::test]
async fn first_rows_wait_only_for_peers_that_do_not_answer() {
    let first = async |answer_timeout: Duration, is_silent: bool| {
        let test = TestCluster::with_answer_timeout(3, answer_timeout).await;
        for n in 0..2000 {
            pinned(&test, n, ALL_PINNED).await;
        }
        if is_silent {
            test.silence(2);
        }
        let started = Instant::now();
        let mut rows = test.cluster(1).status_all(StatusFilter::ALL).await.unwrap();
        rows.next().await.unwrap().unwrap();
        started.elapsed()
    };
    // No peer's time limit is waited for, and none of these times is near the next.
    let (soon, late) = (Duration::from_millis(300), Duration::from_secs(60));
    let quick = first(late, false).await;
    assert!(quick < late / 3, "{quick:?}");
    let slow = first(soon, true).await;
    assert!(slow >= soon && slow < late / 3, "{slow:?}");
}

#[tokio::test]
async fn filters_apply_at_every_peer() {
    let test = TestCluster::new(3).await;
    pinned(&test, 1, ALL_PINNED).await;
    pinned(&test, 2, [PINNED, PINNED, FAILED]).await;
    let rows = all(test
        .cluster(1)
        .status_all(StatusFilter::from_names("pin_error"))
        .await)
    .await;
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].cid, cid(2).to_string());
    assert_eq!(statuses(&rows[0]), [TrackerStatus::PinError]);
    let local = all(test
        .cluster(1)
        .status_all_local(StatusFilter::from_names("pin_error"))
        .await)
    .await;
    assert!(local.is_empty());
}

#[tokio::test]
async fn recover_all_lists_only_what_had_failed() {
    let test = TestCluster::new(3).await;
    pinned(&test, 1, ALL_PINNED).await;
    pinned(&test, 2, [PINNED, FAILED, FAILED]).await;
    let rows = all(test.cluster(1).recover_all(false).await).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(statuses(&rows[0]), [TrackerStatus::Pinning; 2]);
    assert!(all(test.cluster(1).recover_all(false).await).await.is_empty());
}

#[tokio::test]
async fn unreachable_peers_are_listed_with_the_reason() {
    let test = TestCluster::new(3).await;
    test.stop(2).await;
    let peers: Vec<_> = test.cluster(1).peers().await.unwrap().collect().await;
    assert_eq!(peers.len(), 3);
    for id in peers {
        let down = id.id == peer(2).to_string();
        assert_eq!(id.error.is_empty(), !down, "{id:?}");
        assert_eq!(id.peername.is_empty(), down, "{id:?}");
        assert_eq!(id.ipfs.id.is_empty(), down, "{id:?}");
    }
}

fn add_params(min: i32, max: i32) -> AddParams {
    AddParams {
        pin: copies(min, max),
        ..AddParams::default()
    }
}

/// Adds one file of `length` bytes.
async fn add(cluster: &Cluster, params: &AddParams, length: usize) -> Result<String, AddFailure> {
    let content: Vec<u8> = (0..length).map(|at| (at / 1000 % 251) as u8).collect();
    let mut adding = cluster.add(params).await?;
    let added = adding.file(b"file", content.as_slice(), |_| {}).await?;
    adding.finish(mpsc::channel(16).0).await?;
    Ok(added.cid)
}

#[tokio::test]
async fn added_content_is_at_all_allocated_peers_before_it_is_pinned() {
    let test = TestCluster::new(3).await;
    let root = add(&test.cluster(1), &add_params(2, 2), 3_000_000).await.unwrap();
    let pin = test.cluster(1).allocation(root.parse().unwrap()).await.unwrap();
    assert_eq!(pin.allocations, [peer(1).to_string(), peer(2).to_string()]);
    let node_cid = cluster_ipfs::Cid::try_from(root.as_str()).unwrap();
    for (index, holds) in [true, true, false].into_iter().enumerate() {
        let node = test.nodes[index].offline();
        assert_eq!(node.has(&node_cid).unwrap(), holds, "peer {}", index + 1);
        assert_eq!(node.stat().unwrap().repo_size > 3_000_000, holds);
    }
}

#[tokio::test]
async fn upload_continues_without_a_peer_while_enough_remain() {
    let test = TestCluster::new(3).await;
    let cluster = test.cluster(1);
    // It is allocated while reachable, and unreachable when the blocks are sent.
    let params = AddParams {
        pin: PinOptions {
            user_allocations: vec![peer(2).to_string()],
            ..copies(1, 2)
        },
        ..AddParams::default()
    };
    let mut adding = cluster.add(&params).await.unwrap();
    test.stop(2).await;
    adding.file(b"file", &b"hello"[..], |_| {}).await.unwrap();
    let lines = adding.finish(mpsc::channel(16).0).await;
    assert!(lines.is_ok(), "{lines:?}");
    assert_eq!(test.pins().len(), 1);
}

#[tokio::test]
async fn upload_stored_by_too_few_peers_is_not_pinned() {
    let test = TestCluster::with_answer_timeout(3, Duration::from_millis(300)).await;
    test.silence(2);
    let error = add(&test.cluster(1), &add_params(2, 2), 100_000)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("nothing was pinned") && error.contains("no answer from peer"),
        "{error}"
    );
    assert!(test.pins().is_empty());
}

#[tokio::test]
async fn upload_that_cannot_be_allocated_or_pinned_is_an_error() {
    let test = TestCluster::new(3).await;
    let error = add(&test.cluster(1), &add_params(5, 5), 10)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("not enough peers to allocate CID"), "{error}");
    let mut adding = test.cluster(1).add(&add_params(1, 1)).await.unwrap();
    adding.file(b"file", &b"hello"[..], |_| {}).await.unwrap();
    test.refuse(Some(Refusal::NoLeader));
    assert!(adding.finish(mpsc::channel(16).0).await.is_err());
}

#[tokio::test]
async fn cancelled_upload_leaves_nothing_pinned() {
    let test = TestCluster::new(3).await;
    let mut adding = test.cluster(1).add(&add_params(2, 2)).await.unwrap();
    adding.file(b"file", &b"hello"[..], |_| {}).await.unwrap();
    drop(adding);
    assert!(test.pins().is_empty());
    // Its permit is free again.
    for _ in 0..40 {
        drop(test.cluster(1).add(&add_params(1, 1)).await.unwrap());
    }
}

#[tokio::test]
async fn local_upload_stays_here_and_no_pin_leaves_the_pinset_empty() {
    let test = TestCluster::new(3).await;
    let params = AddParams {
        local: true,
        no_pin: true,
        ..add_params(2, 2)
    };
    let root = add(&test.cluster(3), &params, 10).await.unwrap();
    let root = cluster_ipfs::Cid::try_from(root.as_str()).unwrap();
    let holds = [0, 1, 2].map(|index: usize| test.nodes[index].offline().has(&root).unwrap());
    assert_eq!(holds, [false, false, true]);
    assert!(test.pins().is_empty());
}
