//! Tests of the merge against a simple model.

use std::collections::BTreeMap;

use cluster_core::{PinOptions, PinType, Replicas, Timestamp};
use proptest::prelude::*;

use super::super::testing::{PINNED_AT, cid, peer};
use super::*;

/// The rows of one peer: statuses by CID, sent in pieces of this many, and failing after so many pieces.
#[derive(Debug, Clone)]
struct PeerRows {
    rows: BTreeMap<u32, TrackerStatus>,
    piece: usize,
    fails_after: Option<usize>,
}

/// Allocations by CID; empty for all peers.
type Pins = BTreeMap<u32, Vec<u8>>;

fn pin(n: u32, allocations: &[u8]) -> Pin {
    let range = Replicas::Range { min: 1, max: 3 };
    Pin {
        cid: cid(n),
        pin_type: PinType::Data,
        allocations: allocations.iter().map(|n| peer(*n)).collect(),
        reference: None,
        options: PinOptions {
            replicas: if allocations.is_empty() {
                Replicas::Everywhere
            } else {
                range
            },
            name: format!("pin{n}"),
            mode: cluster_core::Mode::Recursive,
            shard_size: 0,
            user_allocations: Vec::new(),
            expire_at: None,
            metadata: BTreeMap::new(),
            pin_update: None,
            origins: Vec::new(),
        },
        timestamp: PINNED_AT,
        version: 1,
    }
}

fn state(status: TrackerStatus) -> CidStatus {
    CidStatus {
        status,
        since: Timestamp(0),
        attempts: 0,
        fresh: false,
        error: String::new(),
    }
}

fn source<R: Send + 'static>(
    rows: Vec<(u32, R)>,
    piece: usize,
    fails_after: Option<usize>,
) -> PieceStream<R> {
    let (out, pieces) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut rows = rows.into_iter().peekable();
        let mut sent = 0;
        while rows.peek().is_some() {
            if fails_after.is_some_and(|after| sent >= after) {
                break;
            }
            let part: Vec<(u32, R)> = rows.by_ref().take(piece).collect();
            let upto = cid(part.last().unwrap().0);
            sent += 1;
            let rows = part.into_iter().map(|(_, row)| row).collect();
            if out.send(Ok(Piece::Rows(rows, upto))).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        if fails_after.is_some() {
            let _ = out.send(Err(Error::Peer("gone".to_owned()))).await;
        }
    });
    pieces
}

/// Returns the expected rows: for each CID the status of each peer.
fn model(
    pins: &Pins,
    own: &BTreeMap<u32, TrackerStatus>,
    others: &[PeerRows],
    filter: StatusFilter,
) -> Vec<(String, Vec<(String, TrackerStatus)>)> {
    let mut shown = Vec::new();
    let mut known: std::collections::BTreeSet<u32> = pins.keys().chain(own.keys()).copied().collect();
    let visible = |sender: &PeerRows| -> BTreeMap<u32, TrackerStatus> {
        let pieces: Vec<_> = sender.rows.iter().collect();
        let seen = sender
            .fails_after
            .map_or(usize::MAX, |after| after.saturating_mul(sender.piece));
        pieces
            .into_iter()
            .take(seen)
            .map(|(n, status)| (*n, *status))
            .collect()
    };
    let others: Vec<(BTreeMap<u32, TrackerStatus>, bool, Option<u32>)> = others
        .iter()
        .map(|sender| {
            let seen = visible(sender);
            let last = seen.keys().last().copied();
            (seen, sender.fails_after.is_some(), last)
        })
        .collect();
    known.extend(others.iter().flat_map(|(rows, ..)| rows.keys().copied()));
    for n in known {
        let pin = pins.get(&n);
        let mut row = BTreeMap::new();
        let mut wanted = false;
        let mut note = |who: u8, status: TrackerStatus| {
            let matches = filter.matches(status);
            if matches || status == TrackerStatus::ClusterError {
                row.insert(peer(who).to_string(), status);
            }
            wanted |= matches;
        };
        if let Some(status) = own.get(&n) {
            note(1, *status);
        }
        for (index, (rows, fails, last)) in others.iter().enumerate() {
            let who = u8::try_from(index).unwrap() + 2;
            let concerned = pin.map(|peers| peers.is_empty() || peers.contains(&who));
            let silent = *fails && last.is_none_or(|last| n > last);
            match (rows.get(&n), concerned) {
                (Some(status), _) => note(who, *status),
                (None, Some(false)) => note(who, TrackerStatus::Remote),
                (None, Some(true) | None) if silent => note(who, TrackerStatus::ClusterError),
                (None, Some(true)) if filter == StatusFilter::ALL => note(who, TrackerStatus::PinQueued),
                (None, Some(true) | None) => {}
            }
        }
        if wanted {
            shown.push((cid(n).to_string(), row.into_iter().collect()));
        }
    }
    shown
}

async fn merged(
    pins: &Pins,
    own: &BTreeMap<u32, TrackerStatus>,
    own_piece: usize,
    others: &[PeerRows],
    filter: StatusFilter,
) -> Vec<(String, Vec<(String, TrackerStatus)>)> {
    let all: std::collections::BTreeSet<u32> = pins.keys().chain(own.keys()).copied().collect();
    let rows = all.into_iter().map(|n| {
        let pin = pins.get(&n).map(|peers| pin(n, peers));
        (
            n,
            OwnRow {
                cid: cid(n),
                pin,
                state: state(own[&n]),
            },
        )
    });
    let own = source(rows.collect(), own_piece, None);
    let peers = others.iter().enumerate().map(|(index, sender)| {
        let rows = sender.rows.iter().map(|(n, status)| {
            (
                *n,
                Row {
                    cid: cid(*n),
                    state: state(*status),
                },
            )
        });
        let pieces = source(rows.collect(), sender.piece, sender.fails_after);
        (
            peer(u8::try_from(index).unwrap() + 2),
            PeerDetails::default(),
            pieces,
        )
    });
    let merge = Merge::new(
        (peer(1), PeerDetails::default()),
        own,
        peers.collect(),
        filter,
        MissingRow::Implied,
    );
    let (out, mut batches) = mpsc::channel(1);
    tokio::spawn(merge.run(out));
    let mut shown = Vec::new();
    while let Some(batch) = batches.recv().await {
        for row in batch.unwrap() {
            let peers = row.peer_map.into_iter().map(|(peer, info)| (peer, info.status));
            shown.push((row.cid, peers.collect()));
        }
    }
    shown
}

fn any_status() -> impl Strategy<Value = TrackerStatus> {
    prop_oneof![
        Just(TrackerStatus::Pinned),
        Just(TrackerStatus::PinError),
        Just(TrackerStatus::PinQueued),
        Just(TrackerStatus::Unpinning),
        Just(TrackerStatus::Remote),
    ]
}

fn any_rows() -> impl Strategy<Value = BTreeMap<u32, TrackerStatus>> {
    proptest::collection::btree_map(0_u32..24, any_status(), 0..16)
}

fn any_peer_rows() -> impl Strategy<Value = PeerRows> {
    (any_rows(), 1_usize..5, proptest::option::of(0_usize..5)).prop_map(|(rows, piece, fails_after)| {
        PeerRows {
            rows,
            piece,
            fails_after,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn merge_equals_the_model(
        pins in proptest::collection::btree_map(0_u32..24, proptest::collection::vec(1_u8..5, 0..4), 0..20),
        mut own in any_rows(),
        own_piece in 1_usize..5,
        others in proptest::collection::vec(any_peer_rows(), 0..4),
        filter in prop_oneof![Just(""), Just("pinned"), Just("remote"), Just("error"), Just("pin_queued,pinned")],
    ) {
        for n in pins.keys() {
            own.entry(*n).or_insert(TrackerStatus::PinQueued);
        }
        let filter = StatusFilter::from_names(filter);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let shown = runtime.block_on(merged(&pins, &own, own_piece, &others, filter));
        prop_assert_eq!(shown, model(&pins, &own, &others, filter));
    }
}

#[tokio::test]
async fn peer_with_unsorted_rows_is_a_cluster_error() {
    let (out, pieces) = mpsc::channel(4);
    let row = |n| Row {
        cid: cid(n),
        state: state(TrackerStatus::Pinned),
    };
    out.send(Ok(Piece::Rows(vec![row(2), row(1)], cid(2))))
        .await
        .unwrap();
    drop(out);
    let own = source(
        vec![(
            1,
            OwnRow {
                cid: cid(1),
                pin: Some(pin(1, &[])),
                state: state(TrackerStatus::Pinned),
            },
        )],
        1,
        None,
    );
    let me = (peer(1), PeerDetails::default());
    let others = vec![(peer(2), PeerDetails::default(), pieces)];
    let merge = Merge::new(me, own, others, StatusFilter::ALL, MissingRow::Implied);
    let (out, mut batches) = mpsc::channel(1);
    tokio::spawn(merge.run(out));
    let rows = batches.recv().await.unwrap().unwrap();
    let other = &rows[0].peer_map[&peer(2).to_string()];
    assert_eq!(other.status, TrackerStatus::ClusterError);
    assert!(other.error.contains("out of order"), "{}", other.error);
}
