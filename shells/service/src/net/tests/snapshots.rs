use futures::stream;

use super::*;

fn header() -> SnapshotHeader {
    let members = Members::initial([id(1), id(2)]);
    let manifest = Manifest {
        applied: Default::default(),
        members,
        windows: Vec::new(),
    };
    SnapshotHeader {
        message: raft_message(RaftKind::Snapshot),
        manifest,
    }
}

fn chunks(count: usize) -> impl futures::Stream<Item = Result<Bytes, String>> + Send + use<> {
    stream::iter((0..count).map(|n| Ok(Bytes::from(vec![n as u8; SNAPSHOT_CHUNK_MAX - n]))))
}

async fn incoming(peer: &mut Peer) -> IncomingSnapshot {
    soon("a snapshot", peer.events.snapshots.recv())
        .await
        .expect("the network runs")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_delivered_when_the_receiver_has_confirmed_it() {
    let (one, mut other) = pair().await;
    let sender = one.net.clone();
    let sending = tokio::spawn(async move { sender.send_snapshot(&id(2), header(), chunks(20)).await });
    let mut snapshot = incoming(&mut other).await;
    assert_eq!((&snapshot.from, &snapshot.header), (one.id(), &header()));
    let mut received = 0;
    while let Some(chunk) = snapshot.next().await {
        let chunk = chunk.unwrap();
        assert_eq!(
            (chunk.len(), chunk[0]),
            (SNAPSHOT_CHUNK_MAX - received, received as u8)
        );
        received += 1;
    }
    assert_eq!(received, 20);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        !sending.is_finished(),
        "it counts as delivered before it is confirmed"
    );
    snapshot.accept().await.unwrap();
    soon("the confirmation", sending).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_overtake_a_stuck_snapshot() {
    let (one, mut other) = pair().await;
    let sender = one.net.clone();
    let sending = tokio::spawn(async move { sender.send_snapshot(&id(2), header(), chunks(20)).await });
    let snapshot = incoming(&mut other).await;
    one.reach(&mut other, 1).await;
    assert!(!sending.is_finished());
    drop(snapshot);
    let error = soon("the failure", sending).await.unwrap().unwrap_err();
    assert!(matches!(error, SnapshotError::Lost { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_reaches_the_sender_with_its_reason() {
    let (one, mut other) = pair().await;
    let sender = one.net.clone();
    let sending = tokio::spawn(async move { sender.send_snapshot(&id(2), header(), chunks(20)).await });
    let mut snapshot = incoming(&mut other).await;
    snapshot.next().await.unwrap().unwrap();
    snapshot.reject("the disk is full").await.unwrap();
    let error = soon("the rejection", sending).await.unwrap().unwrap_err();
    assert_eq!(
        error,
        SnapshotError::Rejected {
            peer: id(2),
            why: "the disk is full".to_owned()
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_source_fails_the_snapshot_at_both_ends() {
    let (one, mut other) = pair().await;
    let sender = one.net.clone();
    let source = futures::StreamExt::chain(chunks(2), stream::iter([Err("bad sector".to_owned())]));
    let sending = tokio::spawn(async move { sender.send_snapshot(&id(2), header(), source).await });
    let mut snapshot = incoming(&mut other).await;
    snapshot.next().await.unwrap().unwrap();
    snapshot.next().await.unwrap().unwrap();
    assert!(soon("the failure", snapshot.next()).await.unwrap().is_err());
    assert!(snapshot.accept().await.is_err());
    let error = soon("the failure", sending).await.unwrap().unwrap_err();
    assert_eq!(
        error,
        SnapshotError::Source {
            peer: id(2),
            why: "bad sector".to_owned()
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_cannot_be_confirmed_before_its_end() {
    let (one, mut other) = pair().await;
    let sender = one.net.clone();
    let sending = tokio::spawn(async move { sender.send_snapshot(&id(2), header(), chunks(3)).await });
    let mut snapshot = incoming(&mut other).await;
    snapshot.next().await.unwrap().unwrap();
    assert!(snapshot.accept().await.is_err());
    assert!(soon("the failure", sending).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_to_an_unknown_peer_or_from_a_non_member_fails() {
    let (one, stranger) = (start(config(1)).await, start(config(2)).await);
    let error = one
        .net
        .send_snapshot(&id(9), header(), chunks(1))
        .await
        .unwrap_err();
    assert!(matches!(error, SnapshotError::Unreachable { .. }), "{error}");
    introduce(&stranger, &one).await;
    let error = stranger
        .net
        .send_snapshot(&id(1), header(), chunks(1))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, SnapshotError::Rejected { why, .. } if why.contains("not a member")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_dies_during_a_snapshot_fails_it() {
    let (one, mut other) = pair().await;
    let sender = one.net.clone();
    let sending = tokio::spawn(async move { sender.send_snapshot(&id(2), header(), chunks(50)).await });
    let mut snapshot = incoming(&mut other).await;
    snapshot.next().await.unwrap().unwrap();
    other.net.shutdown().await;
    assert!(soon("the failure", sending).await.unwrap().is_err());
    while let Some(Ok(_)) = soon("the end", snapshot.next()).await {}
}
