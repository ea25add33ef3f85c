//! Tests: received blocks are accepted only if wanted and verified; choice of targets; limits of queues.

use super::message::{Entry, Message, Payload, Received, Wantlist};
use super::peer::Link;
use super::wants::{Ask, Wants};
use super::{Bitswap, key_of};
use crate::Cid;
use crate::store::Store;
use crate::{codec, hash};
use bytes::Bytes;
use cid::Version;
use libp2p::PeerId;
use prost::Message as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

fn cid(data: &[u8]) -> Cid {
    hash::compute_cid(Version::V1, codec::RAW, 0x12, data).unwrap()
}

fn received(message: &Message) -> Received {
    Received::parse(message.encode_to_vec().into()).unwrap()
}

#[tokio::test]
async fn corrupted_and_unwanted_blocks_are_neither_stored_nor_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), None).unwrap();
    let closed = CancellationToken::new();
    let bitswap = Bitswap::start(store.clone(), Arc::default(), mpsc::channel(1).0, closed.clone());
    let peer = PeerId::random();
    let good = Bytes::from_static(b"good");
    let wanted = cid(&good);
    let waiting = tokio::spawn({
        let session = bitswap.session();
        async move { session.get(wanted).await }
    });
    while !super::lock(&bitswap.shared.state)
        .wants
        .contains(&key_of(&wanted))
    {
        tokio::task::yield_now().await;
    }
    let corrupted = Payload {
        data: Bytes::from_static(b"bad"),
        ..Payload::new(&wanted, good.clone())
    };
    let nonsense = Payload {
        prefix: Bytes::from_static(&[0xff; 40]),
        data: good.clone(),
    };
    let unwanted = Bytes::from_static(b"unwanted");
    let unwanted = Payload::new(&cid(&unwanted), unwanted);
    let message = Message {
        payload: vec![corrupted, nonsense, unwanted],
        blocks: vec![Bytes::from_static(b"bare")],
        ..Message::default()
    };
    bitswap.receive_blocks(peer, received(&message)).await;
    assert!(!waiting.is_finished());
    assert_eq!(store.counters().blocks, 0);
    let message = Message {
        payload: vec![Payload::new(&wanted, good.clone())],
        ..Message::default()
    };
    bitswap.receive_blocks(peer, received(&message)).await;
    let arrival = waiting.await.unwrap().unwrap();
    assert_eq!((arrival.data, arrival.from), (good, Some(peer)));
    assert_eq!(store.counters().blocks, 1);
    closed.cancel();
    store.close();
}

/// Drains the outgoing asks; returns the peers asked for the block itself.
fn targets(wants: &mut Wants) -> Vec<PeerId> {
    let out = std::mem::take(&mut wants.out);
    out.into_iter()
        .filter(|(_, _, ask)| *ask == Ask::Block)
        .map(|(peer, _, _)| peer)
        .collect()
}

#[test]
fn want_moves_from_a_silent_or_empty_target_to_a_peer_with_the_block() {
    let (a, b) = (PeerId::random(), PeerId::random());
    let now = Instant::now();
    let mut wants = Wants::default();
    let session = wants.open_session();
    wants.connected(a, true, now);
    let (waiter, _receiver) = oneshot::channel();
    let wanted = cid(b"wanted");
    let key = key_of(&wanted);
    wants.want(session, wanted, waiter, now);
    assert_eq!(targets(&mut wants), [a]);
    wants.connected(b, true, now);
    wants.presence_received(a, &key, false, now);
    assert_eq!(wants.out, [(b, wanted, Ask::Have)], "the others are asked first");
    wants.out.clear();
    wants.presence_received(b, &key, true, now);
    assert_eq!(targets(&mut wants), [b]);
    wants.presence_received(a, &key, true, now);
    assert!(targets(&mut wants).is_empty(), "one target at a time");
    wants.tick(now + Duration::from_secs(4));
    assert!(targets(&mut wants).is_empty(), "the target has five seconds");
    wants.tick(now + Duration::from_secs(6));
    assert_eq!(targets(&mut wants), [a], "a silent one loses the want");
}

#[test]
fn cancel_is_sent_to_every_peer_that_was_asked() {
    let (a, b) = (PeerId::random(), PeerId::random());
    let now = Instant::now();
    let mut wants = Wants::default();
    let session = wants.open_session();
    wants.connected(a, true, now);
    wants.connected(b, true, now);
    let (waiter, _receiver) = oneshot::channel();
    let wanted = cid(b"wanted");
    let id = wants.want(session, wanted, waiter, now);
    wants.out.clear();
    wants.cancel(&key_of(&wanted), id);
    let mut sent: Vec<_> = wants.out.iter().map(|(peer, _, ask)| (*peer, *ask)).collect();
    sent.sort_by_key(|(peer, _)| *peer);
    let mut expected = vec![(a, Ask::Cancel), (b, Ask::Cancel)];
    expected.sort_by_key(|(peer, _)| *peer);
    assert_eq!(sent, expected);
    assert!(!wants.contains(&key_of(&wanted)));
}

#[test]
fn strangers_are_asked_only_once_they_are_providers_or_trusted() {
    let (stranger, provider, trusted) = (PeerId::random(), PeerId::random(), PeerId::random());
    let now = Instant::now();
    let mut wants = Wants::default();
    let session = wants.open_session();
    wants.connected(stranger, false, now);
    wants.connected(provider, false, now);
    let (waiter, _receiver) = oneshot::channel();
    let wanted = cid(b"wanted");
    wants.want(session, wanted, waiter, now);
    wants.tick(now + Duration::from_secs(11));
    assert_eq!(wants.out, []);
    assert!(!wants.has_targets() && !wants.has_session_peers(session));
    wants.provider_found(session, provider, now);
    assert_eq!(targets(&mut wants), [provider]);
    assert!(wants.is_in_use(&provider) && !wants.is_in_use(&stranger));
    wants.set_trusted(trusted, true, now);
    wants.connected(trusted, false, now);
    wants.presence_received(provider, &key_of(&wanted), false, now);
    assert_eq!(wants.out, [(trusted, wanted, Ask::Have)]);
}

/// Registers a want for a numbered block that stays open.
fn want_numbered(wants: &mut Wants, session: u64, number: u32, now: Instant) -> Vec<u8> {
    let (waiter, _) = oneshot::channel();
    wants.want(session, numbered(number), waiter, now);
    key_of(&numbered(number))
}

#[test]
fn holders_that_answer_after_the_first_block_share_the_next_ones() {
    let peers = [PeerId::random(), PeerId::random(), PeerId::random()];
    let now = Instant::now();
    let mut wants = Wants::default();
    let session = wants.open_session();
    for peer in peers {
        wants.connected(peer, true, now);
    }
    let root = want_numbered(&mut wants, session, 0, now);
    let [first] = targets(&mut wants)[..] else {
        panic!("one target of the root")
    };
    wants.received(&root, Some(first), now);
    let others = peers.iter().filter(|peer| **peer != first);
    let (early, late) = (want_numbered(&mut wants, session, 1, now), root);
    assert_eq!(targets(&mut wants), [first], "no other peer has answered");
    for (peer, key) in others.zip([&late, &early]) {
        wants.presence_received(*peer, key, true, now);
    }
    let before = wants.out.len();
    for number in 2..30 {
        want_numbered(&mut wants, session, number, now);
    }
    let asked = targets(&mut wants);
    assert_eq!((before, asked.len()), (0, 28));
    for peer in peers {
        let share = asked.iter().filter(|asked| **asked == peer).count();
        assert!((9..=10).contains(&share), "{share} of {}", asked.len());
    }
}

#[test]
fn holder_that_answers_later_takes_over_wants_that_wait_at_the_first() {
    let [first, second, third] = [PeerId::random(), PeerId::random(), PeerId::random()];
    let now = Instant::now();
    let mut wants = Wants::default();
    let session = wants.open_session();
    wants.connected(first, true, now);
    let keys: Vec<_> = (0..60)
        .map(|number| want_numbered(&mut wants, session, number, now))
        .collect();
    assert_eq!(targets(&mut wants), vec![first; 60]);
    wants.received(&keys[0], Some(first), now);
    wants.out.clear();
    for (newcomer, moved) in [(second, 29), (third, 19)] {
        wants.connected(newcomer, false, now);
        wants.provider_found(session, newcomer, now);
        let out = std::mem::take(&mut wants.out);
        let count = |ask| out.iter().filter(|(_, _, it)| *it == ask).count();
        assert_eq!((count(Ask::Block), count(Ask::Cancel)), (moved, moved));
        assert!(
            out.iter()
                .all(|(peer, _, ask)| (*ask == Ask::Block) == (*peer == newcomer))
        );
    }
    // The first blocks stay where they may be on their way.
    wants.out.clear();
    wants.presence_received(first, &keys[1], false, now);
    assert!(!targets(&mut wants).is_empty(), "the first was its target");
    // A newcomer without the block returns it.
    let last = &keys[59];
    wants.presence_received(third, last, false, now);
    wants.presence_received(second, last, false, now);
    let asked = targets(&mut wants);
    assert!(asked.contains(&first) || asked.contains(&second), "{asked:?}");
    assert!(wants.contains(last));
}

#[test]
fn peers_without_the_first_block_are_asked_ever_less_often() {
    let (holder, other) = (PeerId::random(), PeerId::random());
    let now = Instant::now();
    let mut wants = Wants::default();
    let session = wants.open_session();
    wants.connected(holder, true, now);
    wants.provider_found(session, holder, now);
    wants.connected(other, true, now);
    let mut probes = Vec::new();
    for number in 1..=3000 {
        let key = want_numbered(&mut wants, session, number, now);
        if wants.out.contains(&(other, numbered(number), Ask::Have)) {
            probes.push(number);
            wants.presence_received(other, &key, false, now);
        }
        wants.received(&key, Some(holder), now);
        wants.out.clear();
    }
    assert_eq!(probes, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]);
}

#[test]
fn unasked_and_repeated_answers_make_no_peer_preferred() {
    let (holder, stranger) = (PeerId::random(), PeerId::random());
    let now = Instant::now();
    let mut wants = Wants::default();
    let session = wants.open_session();
    wants.connected(holder, true, now);
    wants.connected(stranger, false, now);
    let key = want_numbered(&mut wants, session, 0, now);
    wants.received(&key, Some(holder), now);
    wants.answered_late(stranger, &key, true, now);
    assert!(!wants.is_in_use(&stranger));
    for number in 1..1000 {
        let key = want_numbered(&mut wants, session, number, now);
        wants.received(&key, None, now);
    }
    assert!(wants.settled_len() <= super::wants::SETTLED_MAX);
}

/// Returns a received message with these wantlist entries.
fn entries(cids: impl Iterator<Item = Cid>, cancel: bool) -> Received {
    let entry = |cid: Cid| Entry {
        cid: cid.to_bytes().into(),
        priority: 1,
        cancel,
        want_type: 0,
        send_dont_have: true,
    };
    let wantlist = Wantlist {
        entries: cids.map(entry).collect(),
        full: false,
    };
    received(&Message {
        wantlist: Some(wantlist),
        ..Message::default()
    })
}

/// Starts a node without connections, and a link to a peer that reads nothing.
async fn with_unread_peer(blocks: u32) -> (tempfile::TempDir, Store, Bitswap, Arc<Link>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path(), None).unwrap();
    let closed = CancellationToken::new();
    let bitswap = Bitswap::start(store.clone(), Arc::default(), mpsc::channel(1).0, closed.clone());
    let blocks = (0..blocks).map(|number| {
        let data = Bytes::copy_from_slice(&number.to_be_bytes());
        let cid = cid(&data);
        crate::Block { cid, data }
    });
    store.put(blocks.collect()).await.unwrap();
    let peer = PeerId::random();
    let account = bitswap.shared.pool.account(peer);
    let link = Arc::new(Link::new(peer, account, closed));
    (folder, store, bitswap, link)
}

fn numbered(number: u32) -> Cid {
    cid(&number.to_be_bytes())
}

#[tokio::test]
async fn repeated_wants_queue_a_block_once_and_a_cancel_removes_it() {
    let (_folder, store, bitswap, link) = with_unread_peer(1).await;
    let wanted = numbered(0);
    let many = entries(std::iter::repeat_n(wanted, 4096), false);
    bitswap.serve_wants(&link, &many).await.unwrap();
    assert_eq!(link.queued(), (0, 1));
    let cancels = entries(std::iter::repeat_n(wanted, 90_000), true);
    bitswap.serve_wants(&link, &cancels).await.unwrap();
    assert_eq!(link.queued(), (0, 0));
    store.close();
}

#[tokio::test]
async fn queues_of_a_peer_that_reads_nothing_are_bounded() {
    let (_folder, store, bitswap, link) = with_unread_peer(3000).await;
    for round in 0..3_u32 {
        // This node lacks half of them.
        let wants = entries((0..6000).map(|number| numbered(number + round)), false);
        bitswap.serve_wants(&link, &wants).await.unwrap();
    }
    let (presences, blocks) = link.queued();
    assert_eq!(blocks, 2048);
    assert!(presences <= 4096, "{presences}");
    store.close();
}

#[tokio::test]
async fn other_tasks_run_while_a_large_message_is_processed() {
    let (_folder, store, bitswap, link) = with_unread_peer(0).await;
    let cancels = entries((0..90_000).map(numbered), true);
    let mut turns = 0;
    let mut serving = std::pin::pin!(bitswap.serve_wants(&link, &cancels));
    std::future::poll_fn(|cx| {
        turns += 1;
        serving.as_mut().poll(cx)
    })
    .await
    .unwrap();
    assert!(turns > 90_000 / super::SLICE, "{turns}");
    store.close();
}
