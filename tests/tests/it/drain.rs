//! Drain: a peer's pins move to others, through restarts and a change of leader, before it is removed.

use serde_json::{Value, json};
use tests::{Cluster, Options, cids, wait_until};

/// Starts peers that measure themselves often.
fn cluster(peers: usize) -> Cluster {
    Cluster::start_with(&Options {
        peers,
        edit: |config| {
            config["cluster"]["monitor_ping_interval"] = json!("1s");
            config["monitor"]["pubsubmon"]["check_interval"] = json!("1s");
        },
        ..Options::default()
    })
}

/// Adds files with two copies, one of them at a peer, and returns their CIDs with their content.
fn add_at(cluster: &Cluster, holder: usize, count: u64) -> Vec<(String, Vec<u8>)> {
    let id = &cluster.peers[holder].id;
    let query = format!("replication-min=1&replication-max=2&user-allocations={id}");
    (0..count)
        .map(|number| {
            let content = cids::bytes(number, 20_000);
            let added = cluster.peers[holder].add(&query, &[("file", &content)]);
            let cid = added.expect("is added")[0]["cid"]
                .as_str()
                .expect("a CID")
                .to_owned();
            cluster.peers[0].wait_state(&cid, "pinned", 2);
            (cid, content)
        })
        .collect()
}

fn drain(cluster: &Cluster, at: usize, peer: &str) -> Value {
    cluster.peers[at]
        .ask("GET", &format!("/drains/{peer}"))
        .unwrap()
        .json()
}

/// Asserts that each file has two living copies, none of them at `gone`, and can be read.
fn assert_moved(cluster: &Cluster, at: usize, gone: &str, files: &[(String, Vec<u8>)]) {
    for (cid, content) in files {
        let pin = cluster.peers[at]
            .try_get(&format!("/allocations/{cid}"))
            .unwrap()
            .json();
        assert_eq!(pin["allocations"].as_array().map(Vec::len), Some(2), "{pin}");
        assert!(!pin["allocations"].to_string().contains(gone), "{pin}");
        cluster.peers[at].wait_state(cid, "pinned", 2);
        assert_eq!(&cluster.peers[at].cat(cid), content, "{cid}");
    }
}

#[test]
fn drained_peer_ends_empty_and_is_removed() {
    let mut cluster = cluster(4);
    let files = add_at(&cluster, 3, 12);
    let id = cluster.peers[3].id.clone();
    let ended = cluster.peers[0].ctl_json(&["peers", "drain", &id, "--wait"]);
    assert_eq!(ended[0]["state"], "done", "{ended:?}");
    assert_eq!(ended[0]["pins_left"], 0);
    assert!(ended[0]["pins_at_start"].as_u64() >= Some(12), "{ended:?}");
    assert_moved(&cluster, 0, &id, &files);
    let shown = cluster.peers[1].ctl(&["peers", "drain"]).ok();
    assert!(
        shown.contains(&id) && shown.contains("it may be removed"),
        "{shown}"
    );
    assert_eq!(cluster.peers[3].count(&files[0].0, "remote"), Ok(2));

    // New pins avoid it, also those that prefer it.
    let new = cids::identity("new");
    let pinned = cluster.peers[3].ask(
        "POST",
        &format!("/pins/{new}?replication-min=1&replication-max=1&user-allocations={id}"),
    );
    assert!(!pinned.unwrap().json()["allocations"].to_string().contains(&id));

    cluster.peers[0].ctl(&["peers", "rm", &id]).ok();
    cluster.peers[3].wait_end();
    wait_until("its drain ends with its membership", || {
        let drains = cluster.peers[1].try_get("/drains")?.json();
        if drains == json!([]) {
            Ok(())
        } else {
            Err(drains.to_string())
        }
    });
    assert_moved(&cluster, 1, &id, &files);
}

#[test]
fn drain_goes_on_through_kills_of_the_drained_peer_and_the_leader() {
    let mut cluster = cluster(4);
    let files = add_at(&cluster, 3, 12);
    let id = cluster.peers[3].id.clone();
    // One at a time, so that the kills come in the middle.
    let started = cluster.peers[1].ctl_json(&["peers", "drain", &id, "--moves", "1"]);
    assert_eq!(started[0]["moves_max"], 1, "{started:?}");
    wait_until("some pins have moved", || {
        let shown = drain(&cluster, 1, &id);
        match shown["pins_left"].as_u64() {
            Some(left) if left < 12 => Ok(()),
            _ => Err(shown.to_string()),
        }
    });
    cluster.peers[3].kill();
    cluster.peers[3].start();
    cluster.peers[3].wait_ready(2);
    let leader = cluster.leader();
    cluster.peers[leader].kill();
    cluster.peers[leader].start();
    cluster.peers[leader].wait_ready(if leader == 3 { 3 } else { 2 });
    // All at once from here on.
    let faster = cluster.peers[1].ctl_json(&["peers", "drain", &id, "--moves", "100", "--wait"]);
    assert_eq!(faster[0]["state"], "done", "{faster:?}");
    assert_eq!(faster[0]["moves_max"], 100);
    assert_eq!(faster[0]["since"], started[0]["since"], "the same drain");
    assert_moved(&cluster, 1, &id, &files);
}

#[test]
fn impossible_drain_is_refused_with_the_reason_and_undone() {
    let cluster = cluster(3);
    let cid = cids::identity("three copies");
    let target = format!("/pins/{cid}?replication-min=3&replication-max=3");
    cluster.peers[0].ask("POST", &target).unwrap();
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    let id = cluster.peers[2].id.clone();
    let said = cluster.peers[0].ctl(&["peers", "drain", &id]);
    assert_ne!(said.code, 0);
    assert!(
        said.out.contains(&format!("{cid} needs 3")) && said.out.contains("Add peers"),
        "{said:?}"
    );
    let nobody = "12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F";
    let said = cluster.peers[0].ctl(&["peers", "drain", nobody]);
    assert!(said.code != 0 && said.out.contains("is not a member"), "{said:?}");

    // What cannot move stays, and is named.
    cluster.peers[0].ctl(&["peers", "drain", &id, "--force"]).ok();
    wait_until("the drain is blocked", || {
        let shown = drain(&cluster, 1, &id);
        if shown["state"] == "blocked" && shown["blocked_cids"] == json!([cid]) {
            Ok(())
        } else {
            Err(shown.to_string())
        }
    });
    cluster.peers[1].ctl(&["peers", "drain", &id, "--undo"]).ok();
    let said = cluster.peers[1].ctl(&["peers", "drain", &id, "--undo"]);
    assert!(
        said.code != 0 && said.out.contains("is not being drained"),
        "{said:?}"
    );
    let listed = cluster.peers[2].try_get("/drains").unwrap().json();
    assert_eq!(listed, json!([]));
    assert_eq!(cluster.peers[0].count(&cid, "pinned"), Ok(3));
}

/// Returns the limits of moves, as a peer knows them.
fn limits(cluster: &Cluster, at: usize) -> Value {
    let state = cluster.peers[at].try_get("/rebalance").unwrap().json();
    json!([state["bytes_per_second"], state["total_bytes_per_second"]])
}

#[test]
fn moves_keep_to_their_bytes_per_second_and_no_other_pin_waits_behind_them() {
    const FILES: u64 = 32;
    let mut cluster = cluster(3);
    let only = format!(
        "replication-min=1&replication-max=1&user-allocations={}",
        cluster.peers[0].id
    );
    let files: Vec<String> = (0..FILES)
        .map(|number| {
            let content = cids::bytes(number, 20_000);
            let added = cluster.peers[0].add(&only, &[("file", &content)]).unwrap();
            added[0]["cid"].as_str().expect("a CID").to_owned()
        })
        .collect();
    let refused = cluster.peers[1].ctl(&["peers", "rebalance", "--bytes-per-second", "fast"]);
    assert!(
        refused.code != 0 && refused.out.contains("write it like"),
        "{refused:?}"
    );
    // A file of 20 kB in 200 s.
    let set = ["--bytes-per-second", "1MB", "--total-bytes-per-second", "0.2kB"];
    let arguments = [&["peers", "rebalance"][..], &set].concat();
    cluster.peers[1].ctl(&arguments).ok();
    let id = cluster.peers[0].id.clone();
    cluster.peers[1].ask("POST", &format!("/drains/{id}")).unwrap();
    let waiting = |cluster: &Cluster| drain(cluster, 1, &id)["copies_waiting"].as_u64().unwrap();
    wait_until("all have been allocated to others, and some have moved", || {
        let state = drain(&cluster, 1, &id);
        match (state["pins_left"].as_u64(), state["copies_waiting"].as_u64()) {
            (Some(0), Some(copies)) if copies < FILES => Ok(()),
            _ => Err(state.to_string()),
        }
    });
    // Four at once at each of the two receivers.
    assert!(waiting(&cluster) >= FILES - 8, "{}", waiting(&cluster));
    for at in [1, 2] {
        let content = cids::bytes(100 + at, 20_000);
        let query = format!("replication-min=2&replication-max=2&name=new{at}");
        let added = cluster.peers[1].add(&query, &[("file", &content)]).unwrap();
        let cid = added[0]["cid"].as_str().expect("a CID");
        cluster.peers[1].wait_state(cid, "pinned", 2);
    }
    cluster.peers[0].kill();
    cluster.peers[0].start();
    cluster.peers[0].wait_ready(2);
    assert_eq!(limits(&cluster, 0), json!([1_000_000, 200]));
    assert!(waiting(&cluster) >= FILES - 8, "{}", waiting(&cluster));
    let open = ["peers", "rebalance", "--total-bytes-per-second", "0"];
    cluster.peers[2].ctl(&open).ok();
    let ended = cluster.peers[0].ctl_json(&["peers", "drain", &id, "--wait"]);
    assert_eq!(ended[0]["state"], "done", "{ended:?}");
    assert_eq!(limits(&cluster, 1), json!([1_000_000, 0]));
    for cid in &files {
        cluster.peers[1].wait_state(cid, "pinned", 1);
    }
}
