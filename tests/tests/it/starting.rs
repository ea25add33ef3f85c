//! Starting a cluster: a single peer, a static set, bootstrapping; and errors of peers that cannot start.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::{Cluster, Options, Peer, cids, closed_port, wait_until};

fn options(peers: usize) -> Options {
    Options {
        peers,
        ..Options::default()
    }
}

#[test]
fn without_cluster_peers_or_bootstrap_a_single_peer_cluster_is_launched() {
    let mut cluster = Cluster::prepare(&options(0));
    let peer = cluster.newcomer();
    let peer = &mut cluster.peers[peer];
    peer.start();
    peer.wait_ready(1);
    assert!(peer.log().contains("No other peers"), "{}", peer.log());
    peer.wait_members(1);
}

#[test]
fn the_second_signal_warns_and_the_third_ends_the_process_at_once() {
    let mut cluster = Cluster::start_with(&options(1));
    let peer = &mut cluster.peers[0];
    let cid = cids::identity("acknowledged");
    peer.ask("POST", &format!("/pins/{cid}")).unwrap();
    let mut lives = 1;
    wait_until("three signals come before the first has ended it", || {
        let ended = three_signals(peer);
        peer.start();
        lives += 1;
        peer.wait_ready(lives);
        assert_eq!(peer.pinset().unwrap(), std::slice::from_ref(&cid));
        match ended {
            Some(1) => Ok(()),
            // It waits for uploads for five seconds only, which may pass on a busy machine.
            other => Err(format!("it ended with {other:?}")),
        }
    });
}

/// Sends three signals to a peer that an endless upload keeps from ending; returns its exit code.
fn three_signals(peer: &mut Peer) -> Option<i32> {
    let mut upload = TcpStream::connect(("127.0.0.1", peer.rest_port)).unwrap();
    let head = "POST /add HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n\
                Content-Length: 1000\r\n\r\n--b\r\n";
    upload.write_all(head.as_bytes()).unwrap();
    peer.ask("GET", "/id").unwrap();
    let before = peer.log().len();
    let says = |peer: &mut Peer, text: &str| {
        wait_until(text, || {
            if peer.log()[before..].contains(text) || peer.has_ended() {
                Ok(())
            } else {
                Err("it does not say so".to_owned())
            }
        });
    };
    peer.signal("HUP");
    says(peer, "SIGHUP received, shutting down");
    peer.signal("INT");
    says(peer, "one more signal ends the process at once");
    peer.terminate().code()
}

#[test]
fn a_static_set_can_be_started_in_any_order_with_delays() {
    let mut cluster = Cluster::prepare(&options(3));
    let ids: Vec<String> = cluster.peers.iter().map(|peer| peer.id.clone()).collect();
    cluster.peers[2].start();
    cluster.peers[2].wait_log("waiting for a leader: 1 of 3 voters are connected, 2 are needed");
    let waits = format!("waiting for {}: cannot connect", ids[0]);
    cluster.peers[2].wait_log(&waits);
    cluster.peers[0].start();
    cluster.peers[2].wait_ready(1);
    cluster.peers[0].wait_ready(1);
    let cid = cids::identity("before the third");
    cluster.peers[0].ask("POST", &format!("/pins/{cid}")).unwrap();
    cluster.peers[1].start();
    cluster.peers[1].wait_ready(1);
    cluster.peers[1].wait_members(3);
    cluster.peers[1].wait_state(&cid, "pinned", 3);
    let log = cluster.peers[1].log();
    for other in [&ids[0], &ids[2]] {
        assert!(
            log.contains(&format!("    - {other}")),
            "the ready line lists the peers: {log}"
        );
    }
}

#[test]
fn a_peer_without_a_majority_ends_with_the_reason() {
    let mut cluster = Cluster::prepare(&Options {
        peers: 3,
        edit: |config| config["consensus"]["raft"]["wait_for_leader_timeout"] = json!("1s"),
        ..Options::default()
    });
    let other = cluster.peers[1].id.clone();
    let peer = &mut cluster.peers[0];
    let since = Instant::now();
    peer.start();
    let status = peer.wait_end();
    assert_eq!(status.code(), Some(1));
    assert!(since.elapsed() >= Duration::from_secs(9));
    let log = peer.log();
    assert!(log.contains("no leader within 9s"), "{log}");
    assert!(
        log.contains(&format!("waiting for {other}: cannot connect")),
        "{log}"
    );
    assert!(log.contains("Connection refused"), "{log}");
}

#[test]
fn several_peers_bootstrap_at_once_from_any_peer() {
    let mut cluster = Cluster::start_with(&options(2));
    let cid = cids::identity("older than the newcomers");
    cluster.peers[0].ask("POST", &format!("/pins/{cid}")).unwrap();
    let through = 1 - cluster.leader();
    let address = cluster.peers[through].address();
    let newcomers = [cluster.newcomer(), cluster.newcomer(), cluster.newcomer()];
    for newcomer in newcomers {
        cluster.peers[newcomer].start_with(&["--bootstrap", &address]);
    }
    for newcomer in newcomers {
        cluster.peers[newcomer].wait_ready(1);
    }
    for peer in &mut cluster.peers {
        peer.wait_members(5);
    }
    cluster.peers[newcomers[2]].wait_state(&cid, "pinned", 5);
    // The flag may stay in a start script.
    cluster.peers[newcomers[0]].terminate();
    cluster.peers[newcomers[0]].start_with(&["--bootstrap", &address]);
    cluster.peers[newcomers[0]].wait_ready(2);
    cluster.peers[newcomers[0]].wait_members(5);
}

fn fails(peer: &mut Peer, arguments: &[&str], with: &[&str]) {
    peer.start_with(arguments);
    let status = peer.wait_end();
    assert_eq!(status.code(), Some(1));
    let log = peer.log();
    for text in with {
        assert!(log.contains(text), "{text:?} is not in {log}");
    }
}

#[test]
fn refused_joins_are_logged_with_the_reason() {
    let mut cluster = Cluster::start_with(&options(1));
    let address = cluster.peers[0].address();
    let quick = |peer: &Peer| {
        peer.edit(|config| config["consensus"]["raft"]["wait_for_leader_timeout"] = json!("1s"));
    };
    let stranger = cluster.newcomer();
    let stranger = &mut cluster.peers[stranger];
    quick(stranger);
    stranger.edit(|config| config["cluster"]["secret"] = json!("0f".repeat(32)));
    fails(
        stranger,
        &["--bootstrap", &address],
        &["cannot join a cluster within 9s", "wrong secret"],
    );

    let lost = cluster.newcomer();
    let lost = &mut cluster.peers[lost];
    quick(lost);
    let nowhere = address.replace(
        &address[..address.find("/p2p").unwrap()],
        &format!("/ip4/127.0.0.1/tcp/{}", closed_port()),
    );
    fails(
        lost,
        &["--bootstrap", &nowhere],
        &["cannot join a cluster", "Connection refused"],
    );
    fails(
        lost,
        &["--bootstrap", "/ip4/127.0.0.1/tcp/9096"],
        &["names no peer"],
    );

    let other = cluster.newcomer();
    let other = &mut cluster.peers[other];
    other.start();
    other.wait_ready(1);
    other
        .ask("POST", &format!("/pins/{}", cids::identity("ours")))
        .unwrap();
    other.terminate();
    fails(
        other,
        &["--bootstrap", &address],
        &["two clusters' data are never mixed", "state cleanup"],
    );
    // Without the flag it continues in its own cluster.
    other.start();
    other.wait_ready(2);
    assert_eq!(other.pinset().unwrap().len(), 1);
}

#[test]
fn peers_whose_addresses_changed_find_each_other_again() {
    let mut cluster = Cluster::start_with(&options(4));
    // Two move at once: they learn each other's addresses from the others.
    for moved in [2, 3] {
        cluster.peers[moved].terminate();
        let port = closed_port();
        cluster.peers[moved].cluster_port = port;
        let address = format!("/ip4/127.0.0.1/tcp/{port}");
        cluster.peers[moved].edit(|config| config["cluster"]["listen_multiaddress"] = json!([address]));
    }
    for moved in [2, 3] {
        cluster.peers[moved].start();
    }
    for peer in &mut cluster.peers {
        peer.wait_members(4);
    }
    let address = cluster.peers[3].address();
    let peerstore = cluster.peers[2].folder.join("peerstore");
    wait_until("the new address is in the peerstore", || {
        let text = std::fs::read_to_string(&peerstore).map_err(|error| error.to_string())?;
        if text.contains(&address) {
            Ok(())
        } else {
            Err(text)
        }
    });
}
