//! Monitoring and failover: a peer dies or cannot pin, and the others take over.

use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Cluster, Peer, cids, wait_until};

fn living(cluster: &Cluster) -> impl Iterator<Item = &Peer> {
    cluster.peers.iter().filter(|peer| peer.is_started())
}

#[test]
fn writes_succeed_again_after_the_leader_is_killed() {
    let mut cluster = Cluster::start();
    cluster.peers[0]
        .ask("POST", &format!("/pins/{}", cids::identity("before")))
        .unwrap();
    let leader = cluster.leader();
    cluster.peers[leader].kill();
    let killed = Instant::now();
    let peer = living(&cluster).next().unwrap();
    wait_until("a write succeeds", || {
        peer.ask("POST", &format!("/pins/{}", cids::identity("after")))
    });
    // Printed, not asserted: the machine may be busy with other tests.
    println!(
        "leader killed with SIGKILL: a write succeeded {:?} later",
        killed.elapsed()
    );
    for peer in living(&cluster) {
        wait_until("both that live have both pins", || {
            let pins = peer.pinset()?;
            if pins.len() == 2 {
                Ok(())
            } else {
                Err(format!("{pins:?}"))
            }
        });
    }
}

fn allocations(peer: &Peer, cid: &str) -> Result<Vec<String>, String> {
    let pin = peer.try_get(&format!("/allocations/{cid}"))?.json();
    let ids = pin["allocations"].as_array().ok_or("no allocations")?;
    Ok(ids.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

#[test]
fn copies_of_a_dead_peer_are_restored_also_if_it_led() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader();
    let other = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    let content = cids::bytes(1, 1_000_000);
    let chosen = format!("{},{}", cluster.peers[leader].id, cluster.peers[other].id);
    let query = format!("replication-min=2&replication-max=2&user-allocations={chosen}");
    let added = cluster.peers[third].add(&query, &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[third].wait_state(&cid, "pinned", 2);
    cluster.peers[leader].kill();
    let killed = Instant::now();
    let dead = cluster.peers[leader].id.clone();
    let asked = &cluster.peers[third];
    wait_until("its pin moves to the third peer", || {
        let allocated = allocations(asked, &cid)?;
        if allocated.contains(&dead) || allocated.len() != 2 {
            return Err(format!("{allocated:?}"));
        }
        Ok(())
    });
    asked.wait_state(&cid, "pinned", 2);
    println!(
        "the copies were there again {:?} after the kill",
        killed.elapsed()
    );
    // Each live peer can serve it alone.
    cluster.peers[other].kill();
    assert!(cluster.peers[third].cat(&cid) == content);
}

fn attempts(peer: &Peer, cid: &str) -> Result<u64, String> {
    let status = peer.try_get(&format!("/pins/{cid}?local=true"))?.json();
    let counted = status["peer_map"][&peer.id]["attempt_count"].as_u64();
    counted.ok_or_else(|| status.to_string())
}

#[test]
fn unavailable_pins_do_not_delay_others() {
    let cluster = Cluster::start();
    // Three times as many as are pinned concurrently.
    for number in 0..30 {
        let cid = cids::missing(number);
        cluster.peers[0].ask("POST", &format!("/pins/{cid}")).unwrap();
    }
    let content = cids::bytes(3, 300_000);
    let added = cluster.peers[1].add("", &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap();
    let since = Instant::now();
    cluster.peers[1].wait_state(cid, "pinned", 3);
    println!(
        "pinned everywhere {:?} after it was added, beside 30 that are stuck",
        since.elapsed()
    );
    let last = cids::identity("one more");
    cluster.peers[2].ask("POST", &format!("/pins/{last}")).unwrap();
    cluster.peers[2].wait_state(&last, "pinned", 3);
}

#[test]
fn restart_keeps_attempt_counts() {
    let mut cluster = Cluster::start_with(&tests::Options {
        peers: 1,
        edit: |config| config["ipfs_connector"]["embedded"]["pin_timeout"] = "1s".into(),
        ..tests::Options::default()
    });
    let cid = cids::missing(1);
    let peer = &mut cluster.peers[0];
    peer.ask("POST", &format!("/pins/{cid}")).unwrap();
    let before = wait_until("two attempts fail", || {
        let _ = peer.ask("POST", &format!("/pins/{cid}/recover"));
        let count = attempts(peer, &cid)?;
        if count >= 2 {
            Ok(count)
        } else {
            Err(format!("{count} attempts"))
        }
    });
    // Unsynced batches are durable after a second, if the disk is not busy.
    std::thread::sleep(Duration::from_secs(5));
    peer.kill();
    peer.start_and_wait();
    let after = wait_until("the peer reports the pin", || attempts(peer, &cid));
    assert!(
        after >= before,
        "{before} attempts before the restart, {after} after it"
    );
}

/// Adds a file with two copies at these peers.
fn add_at(cluster: &Cluster, asked: usize, holders: [usize; 2], seed: u64) -> String {
    let [one, other] = holders.map(|peer| cluster.peers[peer].id.clone());
    let query = format!("replication-min=2&replication-max=2&user-allocations={one},{other}");
    let content = cids::bytes(seed, 50_000);
    let added = cluster.peers[asked].add(&query, &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[asked].wait_state(&cid, "pinned", 2);
    cid
}

fn alerts_about(peer: &Peer, id: &str) -> Result<usize, String> {
    let alerts = peer.try_get("/health/alerts")?.values();
    let all = alerts
        .iter()
        .flat_map(|value| value.as_array().cloned().unwrap_or(vec![value.clone()]));
    Ok(all
        .filter(|alert| alert["peer"] == id && alert["name"] == "ping")
        .count())
}

fn is_pinned_in_ipfs(peer: &Peer, cid: &str) -> Result<bool, String> {
    let listed = peer.ipfs(&format!("pin/ls?arg={cid}&type=recursive"));
    Ok(listed.map_err(|error| error.to_string())?.is_success())
}

#[test]
fn copies_of_several_dead_peers_are_restored_also_if_the_leader_is_among_them() {
    let mut cluster = Cluster::start_with(&tests::Options {
        peers: 5,
        ..tests::Options::default()
    });
    let leader = cluster.leader();
    let [other, asked, fourth] = [1, 2, 3].map(|step| (leader + step) % 5);
    let mixed = add_at(&cluster, asked, [leader, fourth], 11);
    let alike = add_at(&cluster, asked, [other, fourth], 12);
    let dead = [leader, other].map(|peer| cluster.peers[peer].id.clone());
    cluster.peers[leader].kill();
    cluster.peers[other].kill();
    for cid in [&mixed, &alike] {
        wait_until("its copies move away from both", || {
            let allocated = allocations(&cluster.peers[asked], cid)?;
            if allocated.len() == 2 && !allocated.iter().any(|peer| dead.contains(peer)) {
                Ok(())
            } else {
                Err(format!("{allocated:?}"))
            }
        });
        cluster.peers[asked].wait_state(cid, "pinned", 2);
    }
}

#[test]
fn a_flapping_peer_causes_no_repeated_copying() {
    // A machine that stalls for some seconds must not count as the death of a peer.
    let mut cluster = Cluster::start_with(&tests::Options {
        edit: |config| config["cluster"]["repinning_grace"] = "10s".into(),
        ..tests::Options::default()
    });
    let leader = cluster.leader();
    let [flapping, third] = [1, 2].map(|step| (leader + step) % 3);
    let cid = add_at(&cluster, leader, [leader, flapping], 13);
    cluster.peers[flapping].kill();
    let moved = wait_until("the copy moves", || {
        let allocated = allocations(&cluster.peers[leader], &cid)?;
        if allocated.contains(&cluster.peers[third].id) {
            Ok(allocated)
        } else {
            Err(format!("{allocated:?}"))
        }
    });
    cluster.peers[leader].wait_state(&cid, "pinned", 2);
    for _ in 0..2 {
        cluster.peers[flapping].start_and_wait();
        wait_until("it unpins what others hold now", || {
            if is_pinned_in_ipfs(&cluster.peers[flapping], &cid)? {
                Err("it is still pinned".to_owned())
            } else {
                Ok(())
            }
        });
        cluster.peers[flapping].kill();
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(allocations(&cluster.peers[leader], &cid).unwrap(), moved);
    }
}

#[test]
fn a_restart_within_the_grace_period_moves_no_pins() {
    let mut cluster = Cluster::start_with(&tests::Options {
        edit: |config| config["cluster"]["repinning_grace"] = "5m".into(),
        ..tests::Options::default()
    });
    let leader = cluster.leader();
    let [restarted, third] = [1, 2].map(|step| (leader + step) % 3);
    let cid = add_at(&cluster, leader, [leader, restarted], 14);
    let before = cluster.peers[third]
        .try_get(&format!("/allocations/{cid}"))
        .unwrap()
        .text();
    cluster.peers[restarted].kill();
    // Longer than the time to live of its metrics.
    std::thread::sleep(Duration::from_secs(4));
    cluster.peers[restarted].start_and_wait();
    cluster.peers[restarted].wait_state(&cid, "pinned", 2);
    let after = cluster.peers[third]
        .try_get(&format!("/allocations/{cid}"))
        .unwrap()
        .text();
    assert_eq!(after, before);
}

#[test]
fn a_silent_peer_raises_an_alert_and_with_disable_repinning_moves_no_pins() {
    let mut cluster = Cluster::start_with(&tests::Options {
        edit: |config| config["cluster"]["disable_repinning"] = true.into(),
        ..tests::Options::default()
    });
    let leader = cluster.leader();
    let [dead, third] = [1, 2].map(|step| (leader + step) % 3);
    let cid = add_at(&cluster, leader, [leader, dead], 15);
    let before = allocations(&cluster.peers[third], &cid).unwrap();
    let id = cluster.peers[dead].id.clone();
    cluster.peers[dead].kill();
    for asked in [leader, third] {
        wait_until("the peer is missed", || {
            match alerts_about(&cluster.peers[asked], &id)? {
                0 => Err("no alert".to_owned()),
                _ => Ok(()),
            }
        });
    }
    // The grace period of these tests, with a margin.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(allocations(&cluster.peers[third], &cid).unwrap(), before);
}

#[test]
fn pins_are_allocated_by_pinqueue() {
    let cluster = Cluster::start_with(&tests::Options {
        edit: |config| {
            let by = ["tag:group", "pinqueue", "freespace"];
            config["allocator"]["balanced"]["allocate_by"] = by.into();
        },
        ..tests::Options::default()
    });
    let peer = &cluster.peers[0];
    wait_until("queues are measured", || {
        let names = peer.try_get("/monitor/metrics")?.text();
        if names.contains(r#""pinqueue""#) {
            Ok(())
        } else {
            Err(names)
        }
    });
    let content = cids::bytes(17, 1_000);
    let added = peer
        .add("replication-min=1&replication-max=1", &[("file", &content)])
        .unwrap();
    peer.wait_state(added[0]["cid"].as_str().unwrap(), "pinned", 1);
}

#[test]
fn pins_removed_from_the_ipfs_node_are_restored_by_the_periodic_comparison() {
    let cluster = Cluster::start_with(&tests::Options {
        edit: |config| config["cluster"]["state_sync_interval"] = "1s".into(),
        ..tests::Options::default()
    });
    let content = cids::bytes(16, 50_000);
    let added = cluster.peers[0].add("", &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    let peer = &cluster.peers[1];
    assert!(peer.ipfs(&format!("pin/rm?arg={cid}")).unwrap().is_success());
    wait_until("it is pinned again", || {
        if is_pinned_in_ipfs(peer, &cid)? {
            Ok(())
        } else {
            Err("it is not pinned".to_owned())
        }
    });
    peer.wait_state(&cid, "pinned", 3);
}
