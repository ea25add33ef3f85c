//! Dynamic membership: peers are bootstrapped, added, removed and leave, and the failures that the Go guide
//! warns of do not happen.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Cluster, Options, cids, wait_until};

fn cluster(peers: usize) -> Cluster {
    Cluster::start_with(&Options {
        peers,
        ..Options::default()
    })
}

fn pin(cluster: &Cluster, at: usize, name: &str, query: &str) -> String {
    let cid = cids::identity(name);
    let pinned = cluster.peers[at].ask("POST", &format!("/pins/{cid}?{query}"));
    pinned.unwrap();
    cid
}

/// Waits until a removed peer has ended, and asserts that its log says how to come back.
fn ends_removed(cluster: &mut Cluster, number: usize) {
    let peer = &mut cluster.peers[number];
    let status = peer.wait_end();
    let log = peer.log();
    assert_eq!(status.code(), Some(0), "{log}");
    let message = log.lines().last().unwrap_or_default().to_owned();
    assert!(
        message.contains("is not a member of its cluster any more"),
        "{message}"
    );
    assert!(message.contains("--bootstrap"), "{message}");
}

#[test]
fn any_peer_is_removed_through_any_other_down_to_one() {
    let mut cluster = cluster(5);
    // A dead peer.
    cluster.peers[4].kill();
    let dead = cluster.peers[4].id.clone();
    cluster.peers[0].ctl(&["peers", "rm", &dead]).ok();
    // The leader, through another peer.
    let leader = cluster.leader();
    let id = cluster.peers[leader].id.clone();
    let asked = (0..4).find(|number| *number != leader).unwrap();
    cluster.peers[asked].ctl(&["peers", "rm", &id]).ok();
    ends_removed(&mut cluster, leader);
    // The peer that serves the request.
    let id = cluster.peers[asked].id.clone();
    cluster.peers[asked].ctl(&["peers", "rm", &id]).ok();
    ends_removed(&mut cluster, asked);
    let rest: Vec<usize> = (0..4)
        .filter(|number| ![leader, asked].contains(number))
        .collect();
    cluster.peers[rest[0]].wait_members(2);
    let id = cluster.peers[rest[1]].id.clone();
    cluster.peers[rest[0]].ctl(&["peers", "rm", &id]).ok();
    ends_removed(&mut cluster, rest[1]);
    cluster.peers[rest[0]].wait_members(1);
    let cid = pin(&cluster, rest[0], "alone", "");
    cluster.peers[rest[0]].wait_state(&cid, "pinned", 1);
    // The last peer cannot be removed.
    let id = cluster.peers[rest[0]].id.clone();
    let said = cluster.peers[rest[0]].ctl(&["peers", "rm", &id]);
    assert_ne!(said.code, 0);
    assert!(said.out.contains("is the last peer of the cluster"), "{said:?}");
    // As in the Go peer, removing a non-member succeeds.
    cluster.peers[rest[0]].ctl(&["peers", "rm", &dead]).ok();
}

#[test]
fn pins_of_a_removed_peer_are_reallocated() {
    let mut cluster = cluster(3);
    let gone = cluster.peers[2].id.clone();
    let chosen = format!("{gone},{}", cluster.peers[0].id);
    let query = format!("replication-min=2&replication-max=2&user-allocations={chosen}");
    let cid = pin(&cluster, 0, "moves", &query);
    cluster.peers[0].wait_state(&cid, "pinned", 2);
    cluster.peers[1].ask("DELETE", &format!("/peers/{gone}")).unwrap();
    ends_removed(&mut cluster, 2);
    wait_until("its pin is at the two that stay", || {
        let pin = cluster.peers[1].try_get(&format!("/allocations/{cid}"))?.json();
        let at = pin["allocations"].as_array().map_or(0, Vec::len);
        if at == 2 && !pin["allocations"].to_string().contains(&gone) {
            Ok(())
        } else {
            Err(pin.to_string())
        }
    });
    cluster.peers[1].wait_state(&cid, "pinned", 2);
}

#[test]
fn a_returning_peer_learns_all_membership_changes_and_its_own_removal() {
    let mut cluster = cluster(5);
    let ids: Vec<String> = cluster.peers.iter().map(|peer| peer.id.clone()).collect();
    cluster.peers[3].kill();
    cluster.peers[4].kill();
    let address = cluster.peers[0].address();
    let newcomer = cluster.newcomer();
    cluster.peers[newcomer].start_with(&["--bootstrap", &address]);
    cluster.peers[newcomer].wait_ready(1);
    cluster.peers[0]
        .ask("DELETE", &format!("/peers/{}", ids[3]))
        .unwrap();
    // The returning peer learns that one peer has joined and one has left.
    cluster.peers[4].start();
    cluster.peers[4].wait_ready(2);
    cluster.peers[4].wait_members(5);
    // The removed peer cannot start, and its log says why and how to come back.
    cluster.peers[3].start();
    assert_eq!(cluster.peers[3].wait_end().code(), Some(1));
    let log = cluster.peers[3].log();
    assert!(log.contains("is not a member of its cluster any more"), "{log}");
    cluster.peers[3].start();
    assert_eq!(cluster.peers[3].wait_end().code(), Some(1));
    let log = cluster.peers[3].log();
    assert!(log.contains("any more, says "), "{log}");
    let said = format!("ipfs-cluster-ctl peers add {}", ids[3]);
    assert!(log.contains(&said), "{log}");
    // It comes back as its log says.
    let times = log.matches("READY").count();
    cluster.peers[3].start_with(&["--bootstrap", &address]);
    cluster.peers[3].wait_ready(times + 1);
    cluster.peers[3].wait_members(6);
}

#[test]
fn leave_on_shutdown_removes_the_peer() {
    let mut cluster = cluster(3);
    cluster.peers[2].terminate();
    cluster.peers[2].edit(|config| config["cluster"]["leave_on_shutdown"] = json!(true));
    cluster.peers[2].start();
    cluster.peers[2].wait_ready(2);
    assert_eq!(cluster.peers[2].terminate().code(), Some(0));
    assert!(cluster.peers[2].log().contains("left the cluster"));
    cluster.peers[0].wait_members(2);
    cluster.peers[1].terminate();
    cluster.peers[1].start_with(&["--leave"]);
    cluster.peers[1].wait_ready(2);
    cluster.peers[1].terminate();
    cluster.peers[0].wait_members(1);
    let address = cluster.peers[0].address();
    cluster.peers[2].start_with(&["--bootstrap", &address]);
    cluster.peers[2].wait_ready(3);
    cluster.peers[0].wait_members(2);
}

#[test]
fn an_emptied_data_folder_is_filled_from_the_others() {
    let mut cluster = cluster(3);
    let cid = pin(&cluster, 0, "kept by the others", "");
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    let leader = cluster.leader();
    for number in [leader, (leader + 1) % 3] {
        cluster.peers[number].kill();
        std::fs::remove_dir_all(cluster.peers[number].folder.join("raft")).unwrap();
        cluster.peers[number].start();
        cluster.peers[number].wait_ready(2);
        assert_eq!(
            cluster.peers[number].pinset().unwrap(),
            std::slice::from_ref(&cid)
        );
        cluster.peers[number].wait_members(3);
        cluster.peers[number].wait_log("is empty, and this peer is a member of the cluster");
        wait_until("it votes again, so that the next may be lost", || {
            let pinned = cluster.peers[number].ask("POST", &format!("/pins/{cid}"));
            pinned.map(drop)
        });
        can_do_without(&cluster, (number + 1) % 3, number, &cid);
    }
}

/// Waits until the other peers have a majority without this one.
fn can_do_without(cluster: &Cluster, peer: usize, asked: usize, cid: &str) {
    wait_until("a majority without the next", || {
        // A peer that lost its disk is a learner first, and gets a vote after some seconds under one leader.
        std::thread::sleep(Duration::from_secs(8));
        cluster.peers[peer].signal("STOP");
        let pinned = cluster.peers[asked].ask("POST", &format!("/pins/{cid}"));
        cluster.peers[peer].signal("CONT");
        pinned.map(drop)
    });
}

#[test]
fn a_single_peer_cluster_is_added_by_address_unless_it_has_pins() {
    let mut cluster = cluster(1);
    let cid = pin(&cluster, 0, "ours", "");
    let (empty, other) = (cluster.newcomer(), cluster.newcomer());
    for number in [empty, other] {
        cluster.peers[number].start();
        cluster.peers[number].wait_ready(1);
    }
    pin(&cluster, other, "theirs", "");
    let address = cluster.peers[empty].address();
    let added = cluster.peers[0].ctl_json(&["peers", "add", &address]);
    assert_eq!(added[0]["id"], Value::String(cluster.peers[empty].id.clone()));
    cluster.peers[empty].wait_members(2);
    cluster.peers[empty].wait_state(&cid, "pinned", 2);
    let address = cluster.peers[other].address();
    let said = cluster.peers[0].ctl(&["peers", "add", &address]);
    assert_ne!(said.code, 0);
    assert!(
        said.out.contains("two clusters' data are never mixed"),
        "{said:?}"
    );
    assert_eq!(cluster.peers[other].pinset().unwrap().len(), 1);
    cluster.peers[0].wait_members(2);
}

#[test]
fn unreachable_peer_is_no_member_until_it_answers() {
    let mut cluster = cluster(1);
    let absent = cluster.newcomer();
    let (id, address) = (cluster.peers[absent].id.clone(), cluster.peers[absent].address());
    for wanted in [&id, &address] {
        let said = cluster.peers[0].ctl(&["peers", "add", wanted]);
        assert_ne!(said.code, 0);
        assert!(said.out.contains(&id), "{said:?}");
        cluster.peers[0].wait_members(1);
    }
    // It is part of no majority: the remaining peer continues alone.
    let cid = pin(&cluster, 0, "alone", "");
    cluster.peers[0].wait_state(&cid, "pinned", 1);
    cluster.peers[absent].start();
    cluster.peers[absent].wait_ready(1);
    let added = cluster.peers[0].ctl_json(&["peers", "add", &address]);
    assert_eq!(added[0]["id"], Value::String(id));
    cluster.peers[0].wait_members(2);
    cluster.peers[0].wait_state(&cid, "pinned", 2);
}

/// 25 processes of a debug build start within a minute on two idle processors.
#[test]
fn a_cluster_of_twenty_five_peers_works() {
    const PEERS: usize = 25;
    let since = Instant::now();
    let mut cluster = cluster(1);
    let address = cluster.peers[0].address();
    for _ in 1..PEERS {
        let number = cluster.newcomer();
        cluster.peers[number].start_with(&["--bootstrap", &address]);
    }
    for number in 1..PEERS {
        cluster.peers[number].wait_ready(1);
    }
    println!("{PEERS} peers are ready after {:?}", since.elapsed());
    cluster.peers[PEERS - 1].wait_members(PEERS);
    let cid = pin(&cluster, 7, "everywhere", "");
    cluster.peers[13].wait_state(&cid, "pinned", PEERS);
    // Few of them vote, so most can fail at once without a loss of the majority.
    let leader = cluster.leader();
    cluster.peers[leader].kill();
    let asked = (leader + 1) % PEERS;
    wait_until("a write succeeds without the leader", || {
        let cid = cids::identity("without the leader");
        cluster.peers[asked]
            .ask("POST", &format!("/pins/{cid}"))
            .map(drop)
    });
    println!("all of it took {:?}", since.elapsed());
}
