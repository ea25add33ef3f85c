use std::io::Read;
use std::io::Write;

use super::*;

fn port_of(peer: &Peer) -> u16 {
    let address = peer.net.addresses()[0].clone();
    let port = address.iter().find_map(|part| {
        if let Protocol::Tcp(port) = part {
            Some(port)
        } else {
            None
        }
    });
    port.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_without_the_right_secret_is_refused() {
    let (mut one, mut friend) = (start(config(1)).await, start(config(2)).await);
    let strangers = [Some([8; 32]), None].into_iter().zip([3, 4]);
    for (secret, seed) in strangers {
        let stranger = start(NetConfig {
            secret,
            ..config(seed)
        })
        .await;
        introduce(&one, &stranger).await;
        introduce(&stranger, &one).await;
        let deadline = Deadline::Within(PATIENCE);
        let error = stranger
            .net
            .call(one.id(), "open", &[], deadline)
            .await
            .unwrap_err();
        assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
        assert!(error.to_string().contains("wrong secret: "), "{error}");
        assert!(stranger.net.connected().is_empty());
    }
    introduce(&one, &friend).await;
    introduce(&friend, &one).await;
    friend.reach(&mut one, 1).await;
    one.reach(&mut friend, 2).await;
    assert_eq!(one.net.connected(), BTreeSet::from([id(2)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_share_one_of_their_secrets_work_together() {
    let with = |seed, secret, accepted: &[_]| NetConfig {
        secret,
        accepted_secrets: accepted.to_vec(),
        ..config(seed)
    };
    let (old, new) = (Some([1; 32]), Some([2; 32]));
    let pairs = [
        (with(1, old, &[]), with(2, old, &[new])),
        (with(1, old, &[new]), with(2, new, &[])),
        (with(1, None, &[new]), with(2, new, &[])),
    ];
    // Either may be the dialer.
    let turned = pairs.clone().map(|(one, other)| (other, one));
    for (one, other) in pairs.into_iter().chain(turned) {
        let (mut one, mut other) = pair_of(one, other).await;
        one.reach(&mut other, 1).await;
        other.reach(&mut one, 2).await;
        one.net.shutdown().await;
        other.net.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_slow_connections_are_closed() {
    let one = start(config(1)).await;
    let port = port_of(&one);
    let slow = tokio::task::spawn_blocking(move || {
        let sockets = [&b""[..], b"ipfs", b"ipfsclu\x01 and so on"].map(|said| {
            let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            socket.write_all(said).unwrap();
            socket
        });
        for mut socket in sockets {
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(socket.read(&mut [0; 64]).unwrap_or(0), 0);
        }
    });
    soon("the end", slow).await.unwrap();
    until("they were counted", || one.net.losses().handshakes == 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_is_reported_and_reconnected_within_seconds_of_its_restart() {
    // Not one of the ports that the system picks: another test might get it meanwhile.
    let port = crate::ports::take_free().unwrap().local_addr().unwrap().port();
    let listen: Vec<Multiaddr> = vec![format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()];
    let at_port = || NetConfig {
        listen: listen.clone(),
        ..config(2)
    };
    let (mut one, mut other) = pair_of(config(1), at_port()).await;
    one.reach(&mut other, 1).await;
    other.net.shutdown().await;
    drop(other);
    let gone = id(2);
    one.unreachable(&gone).await;
    until("it is known to be gone", || one.net.connected().is_empty()).await;
    one.net.send(&gone, &envelope(2, 0));
    one.unreachable(&gone).await;
    // Long enough for the pause between two attempts to have grown.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut other = start(at_port()).await;
    other.net.set_members(BTreeSet::from([one.id().clone()])).await;
    let restarted = std::time::Instant::now();
    one.reach(&mut other, 3).await;
    // No pause between two attempts is longer than six seconds.
    let took = restarted.elapsed();
    assert!(took < Duration::from_secs(15), "{took:?}");
    other.reach(&mut one, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_on_another_port_is_found_by_its_new_address() {
    let (one, other) = pair().await;
    other.net.shutdown().await;
    drop(other);
    until("it is known to be gone", || one.net.connected().is_empty()).await;
    let mut other = start(config(2)).await;
    other.net.set_members(BTreeSet::from([one.id().clone()])).await;
    one.net.add_addresses(other.id(), other.net.addresses()).await;
    one.reach(&mut other, 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_moved_and_dials_is_known_by_its_new_address() {
    let (one, other) = pair().await;
    other.net.shutdown().await;
    drop(other);
    let known_peers = BTreeMap::from([(one.id().clone(), one.net.addresses())]);
    let mut other = start(NetConfig {
        known_peers,
        ..config(2)
    })
    .await;
    other.net.set_members(BTreeSet::from([one.id().clone()])).await;
    one.reach(&mut other, 6).await;
    let new: Vec<Multiaddr> = other
        .net
        .addresses()
        .into_iter()
        .map(address_book::without_peer)
        .collect();
    until("its new address is learned", || {
        one.net.known_addresses(&id(2)).first() == new.first()
    })
    .await;
    assert!(*one.events.addresses.borrow() > 0);
    assert!(one.net.peerstore()[&id(2)].contains(&other.net.addresses()[0]));
}

/// Sends these messages. Returns `true` when all arrive in order, `false` when some are reported as lost.
async fn all_arrive(one: &mut Peer, other: &mut Peer, numbers: std::ops::Range<u64>) -> bool {
    while one.events.core.try_recv().is_some() {}
    for number in numbers.clone() {
        one.net.send(other.id(), &envelope(number, 0));
    }
    for expected in numbers.clone() {
        let arrived = async {
            loop {
                let number = other.message().await;
                if numbers.contains(&number) {
                    return number;
                }
            }
        };
        let mut number = None;
        let lost = CoreEvent::Unreachable { peer: id(2) };
        tokio::select! {
            biased;
            arrived = arrived => number = Some(arrived),
            () = async { while one.events.core.recv().await.as_ref() != Some(&lost) {} } => {}
        }
        match number {
            Some(number) if number == expected => {}
            Some(number) => {
                assert!(number > expected, "{number} came after {expected}");
                one.unreachable(other.id()).await;
                return false;
            }
            None => return false,
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_dial_each_other_at_once_end_up_talking_both_ways() {
    for _ in 0..5 {
        let (mut one, mut other) = (start(config(1)).await, start(config(2)).await);
        one.net.add_addresses(other.id(), other.net.addresses()).await;
        other.net.add_addresses(one.id(), one.net.addresses()).await;
        let (mine, theirs) = (id(1), id(2));
        let (at_one, at_other) = (BTreeSet::from([id(2)]), BTreeSet::from([id(1)]));
        tokio::join!(one.net.set_members(at_one), other.net.set_members(at_other));
        let (first, second) = tokio::join!(one.net.shared.link(&theirs), other.net.shared.link(&mine));
        assert!(first.is_ok() && second.is_ok());
        one.reach(&mut other, 1).await;
        other.reach(&mut one, 2).await;
        // The second connection may come at any time, and messages on their way then are reported as lost.
        let mut first = 0;
        let settling = async {
            loop {
                first += 200;
                if all_arrive(&mut one, &mut other, first..first + 190).await {
                    return;
                }
            }
        };
        soon("connections that stay", settling).await;
        one.net.shutdown().await;
        other.net.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_does_no_harm() {
    for secret in [None, Some([9; 32])] {
        let plain = |seed| NetConfig {
            secret,
            ..config(seed)
        };
        let (one, mut other) = pair_of(plain(1), plain(2)).await;
        let port = port_of(&one);
        let flood = tokio::task::spawn_blocking(move || {
            for seed in 0..20u8 {
                let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
                let garbage: Vec<u8> = (0..4_096u32)
                    .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed)
                    .collect();
                // The other end may close the connection at any time.
                drop(socket.write_all(b"GET / HTTP/1.1\r\n\r\n"));
                drop(socket.write_all(&garbage));
                drop(socket.set_read_timeout(Some(Duration::from_millis(20))));
                drop(socket.read(&mut [0; 64]));
            }
        });
        soon("the flood", flood).await.unwrap();
        one.reach(&mut other, 1).await;
        until("they were counted", || one.net.losses().handshakes >= 20).await;
        one.net.shutdown().await;
        other.net.shutdown().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_advice() {
    let one = start(config(1)).await;
    let listen: Vec<Multiaddr> = one
        .net
        .addresses()
        .into_iter()
        .map(address_book::without_peer)
        .collect();
    let error = Net::start(NetConfig {
        listen: listen.clone(),
        ..config(2)
    })
    .await
    .unwrap_err()
    .to_string();
    assert!(
        error.starts_with(&format!("cannot listen on {}: ", listen[0])),
        "{error}"
    );
    assert!(error.contains("another process has this port"), "{error}");
}

#[tokio::test]
async fn quic_addresses_are_skipped_unless_no_other_is_left() {
    let quic: Multiaddr = "/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap();
    let listen = vec![quic.clone(), LOOPBACK.parse().unwrap()];
    let one = start(NetConfig { listen, ..config(1) }).await;
    assert_eq!(one.net.addresses().len(), 1);
    let error = Net::start(NetConfig {
        listen: vec![quic],
        ..config(2)
    })
    .await
    .unwrap_err()
    .to_string();
    assert!(error.contains("/quic-v1"), "{error}");
    let listen = vec!["/ip4/127.0.0.1/tcp/0/ws".parse().unwrap()];
    let error = Net::start(NetConfig { listen, ..config(3) })
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("cannot listen on /ip4/127.0.0.1/tcp/0/ws: "),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_addresses_replace_those_listened_on() {
    let announce = vec!["/dns4/peer.example/tcp/9096".parse().unwrap()];
    let one = start(config(1)).await;
    let other = start(NetConfig {
        announce: announce.clone(),
        ..config(2)
    })
    .await;
    assert_eq!(
        other.net.addresses()[0].to_string(),
        format!("/dns4/peer.example/tcp/9096/p2p/{}", id(2))
    );
    introduce(&other, &one).await;
    one.net.set_members(BTreeSet::from([id(2)])).await;
    until("it is learned", || one.net.known_addresses(&id(2)) == announce).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_announce_addresses_are_not_announced() {
    let one = start(config(1)).await;
    let free = || crate::ports::take_free().unwrap().local_addr().unwrap().port();
    let listen = [free(), free()].map(|port| format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap());
    let listen: Vec<Multiaddr> = listen.to_vec();
    let other = start(NetConfig {
        listen: listen.clone(),
        no_announce: vec![listen[0].clone()],
        ..config(2)
    })
    .await;
    let announced = &listen[1..];
    assert_eq!(
        other.net.addresses(),
        [super::super::with_peer(announced[0].clone(), &id(2))]
    );
    introduce(&other, &one).await;
    one.net.set_members(BTreeSet::from([id(2)])).await;
    until("it is learned", || one.net.known_addresses(&id(2)) == announced).await;
}

#[tokio::test]
async fn the_secret_is_never_printed() {
    let secret = [0xab; 32];
    let shown = format!(
        "{:?}",
        NetConfig {
            secret: Some(secret),
            ..config(1)
        }
    );
    assert!(
        !shown.contains("171") && !shown.to_lowercase().contains("abab"),
        "{shown}"
    );
}
