use cluster_core::encode;
use futures::{AsyncReadExt, AsyncWriteExt};

use super::super::outbox::MESSAGE_MAX;
use super::*;
use crate::net::shared::Origin;
use crate::net::streams::Protocol;

/// Returns a raw core stream, past the hello.
async fn raw_stream(from: &Peer, to: &Peer) -> libp2p::Stream {
    let link = from.net.shared.links.newest(to.id()).unwrap();
    let mut stream = link.open(Protocol::Core).await.unwrap();
    let hello = encode(&Origin {
        version: VERSION,
        cluster: CLUSTER,
    });
    stream.write_all(&frame(0, &hello)).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 5];
    soon("the answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [0, 0, 0, 0, 2]);
    stream
}

/// Two peers; the first is a member at the second and sends nothing by itself: its own core stream would
/// replace a raw one.
async fn raw_pair() -> (Peer, Peer) {
    let (one, other) = (start(config(1)).await, start(config(2)).await);
    other.net.set_members(BTreeSet::from([one.id().clone()])).await;
    one.net.add_addresses(other.id(), other.net.addresses()).await;
    soon("a connection", one.net.shared.link(other.id()))
        .await
        .unwrap();
    (one, other)
}

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.push(kind);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_all_sizes_arrive_in_order() {
    let (one, mut other) = pair().await;
    one.reach(&mut other, 1).await;
    let sizes = [0, 1, 1_000, 70_000, 300_000, 1_000_000, 3_000_000, 10];
    for (n, size) in sizes.iter().enumerate() {
        one.net.send(other.id(), &envelope(100 + n as u64, *size));
    }
    let mut arrived = Vec::new();
    while arrived.len() < sizes.len() {
        arrived.extend(Some(other.message().await).filter(|number| *number >= 100));
    }
    assert_eq!(arrived, (100..108).collect::<Vec<_>>());
    let (_, traffic) = other
        .net
        .traffic()
        .into_iter()
        .find(|(name, _)| *name == "/ipfs-cluster/core/1")
        .unwrap();
    assert!(traffic.received > 4_300_000, "{traffic:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn non_members_are_refused_until_they_join() {
    let (mut one, mut stranger) = (start(config(1)).await, start(config(2)).await);
    introduce(&stranger, &one).await;
    until("it is refused", || one.net.losses().refused > 0).await;
    stranger.net.send(one.id(), &envelope(1, 0));
    stranger.unreachable(one.id()).await;
    assert_eq!(one.events.core.try_recv(), None);
    introduce(&one, &stranger).await;
    stranger.reach(&mut one, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_members_are_refused() {
    let (mut one, mut other) = pair().await;
    one.reach(&mut other, 1).await;
    other.net.set_members(BTreeSet::new()).await;
    until("it is refused", || other.net.losses().refused > 0).await;
    while other.events.core.try_recv().is_some() {}
    one.net.send(other.id(), &envelope(2, 0));
    one.unreachable(&id(2)).await;
    assert_eq!(other.events.core.try_recv(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_flight_at_a_refusal_are_reported() {
    let (mut one, mut other) = pair().await;
    one.reach(&mut other, 1).await;
    while one.events.core.try_recv().is_some() {}
    other.net.set_members(BTreeSet::new()).await;
    one.net.send(other.id(), &envelope(2, 0));
    one.unreachable(&id(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_another_cluster_are_refused_by_its_id() {
    let theirs = ClusterId([1; 16]);
    let (one, other) = pair_of(
        config(1),
        NetConfig {
            cluster: theirs,
            ..config(2)
        },
    )
    .await;
    until("it is refused", || {
        one.net.losses().refused > 0 && other.net.losses().refused > 0
    })
    .await;
    let why = one
        .net
        .shared
        .reason_to_refuse(other.id(), &other.net.shared.origin())
        .unwrap();
    assert!(
        why.contains(&theirs.to_string()) && why.contains(&CLUSTER.to_string()),
        "{why}"
    );
    let error = one
        .net
        .call(other.id(), "status", &[], WITHIN)
        .await
        .unwrap()
        .done()
        .await
        .unwrap_err();
    assert!(
        matches!(&error, CallError::Refused { why, .. } if why.contains(&CLUSTER.to_string())),
        "{error}"
    );
    let of = |version| Origin {
        version,
        cluster: CLUSTER,
    };
    one.net
        .shared
        .version
        .store(3, std::sync::atomic::Ordering::Relaxed);
    let older = one.net.shared.reason_to_refuse(other.id(), &of(2)).unwrap();
    assert!(
        older.contains("version 2") && older.contains("version 3"),
        "{older}"
    );
    assert_eq!(one.net.shared.reason_to_refuse(other.id(), &of(4)), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_not_read_costs_bounded_memory_and_is_reported() {
    let (mut one, mut other) = pair().await;
    one.reach(&mut other, 1).await;
    let sender = one.net.clone();
    let sending = tokio::spawn(async move {
        for number in 0..20_000 {
            sender.send(&id(2), &envelope(number, 4_000));
            if number % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    one.unreachable(&id(2)).await;
    sending.await.unwrap();
    assert!(one.net.losses().dropped > 10_000, "{:?}", one.net.losses());
    let mut waiting = 0;
    while let Ok(Some(event)) =
        tokio::time::timeout(Duration::from_millis(300), other.events.core.recv()).await
    {
        waiting += usize::from(number_of(&event).is_some());
    }
    // The receiver's queue, the sender's, and the messages on their way: as many again as the receiver has
    // taken, if the other end seems far away.
    assert!((1_000..6_000).contains(&waiting), "{waiting}");
    one.reach(&mut other, 99_999).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_data_of_a_member_closes_only_its_stream() {
    let (one, mut other) = raw_pair().await;
    let bad = [
        frame(1, b"no envelope"),
        frame(1, &[]),
        frame(7, b"no such kind"),
        frame(0, b"a second hello"),
        // Announces 4 GiB.
        vec![0xff, 0xff, 0xff, 0xff, 1],
    ];
    for (n, bytes) in bad.iter().enumerate() {
        let mut stream = raw_stream(&one, &other).await;
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        let rest = soon("the end of the stream", stream.read(&mut [0; 8])).await;
        assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
        until("it is counted", || other.net.losses().malformed == n as u64 + 1).await;
    }
    one.reach(&mut other, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_core_stream_of_a_peer_is_read() {
    let (one, mut other) = raw_pair().await;
    let mut first = raw_stream(&one, &other).await;
    let mut second = raw_stream(&one, &other).await;
    let rest = soon("the end of the older stream", first.read(&mut [0; 8])).await;
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
    second
        .write_all(&frame(1, &encode(&envelope(77, 0))))
        .await
        .unwrap();
    second.flush().await.unwrap();
    while other.message().await != 77 {}
}

/// Only the log of an earlier release, whose entries had no limit in bytes, produces such messages.
#[tokio::test(flavor = "multi_thread")]
async fn message_of_many_frames_arrives_whole_and_in_order() {
    let (one, mut other) = pair().await;
    one.reach(&mut other, 1).await;
    one.net.send(other.id(), &envelope(2, 25 << 20));
    one.net.send(other.id(), &envelope(3, 0));
    // Repetitions of the first message may still be under way.
    let mut arrived = other.message().await;
    while arrived == 1 {
        arrived = other.message().await;
    }
    assert_eq!([arrived, other.message().await], [2, 3]);
    assert_eq!(other.net.losses().malformed, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_reported_and_not_sent() {
    let (mut one, mut other) = pair().await;
    one.reach(&mut other, 1).await;
    one.net.send(other.id(), &envelope(2, MESSAGE_MAX + 1));
    one.unreachable(&id(2)).await;
    one.reach(&mut other, 3).await;
    assert_eq!(other.net.losses().malformed, 0);
}
