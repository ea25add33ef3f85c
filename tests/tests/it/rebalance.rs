//! Rebalancing: a new peer gets its share of the copies, through kills and a change of leader.

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

/// Adds files with one copy each, all at the first peer without being tied to it, and returns their CIDs with
/// their content.
fn add_at_first(cluster: &Cluster, count: u64) -> Vec<(String, Vec<u8>)> {
    let id = &cluster.peers[0].id;
    let there = format!("replication-min=1&replication-max=1&user-allocations={id}");
    let anywhere = "replication-min=1&replication-max=1";
    (0..count)
        .map(|number| {
            let content = cids::bytes(number, 20_000);
            let added = cluster.peers[0].add(&there, &[("file", &content)]);
            let cid = added.expect("is added")[0]["cid"]
                .as_str()
                .expect("a CID")
                .to_owned();
            // The same pin again, without the preference.
            let again = cluster.peers[0].ask("POST", &format!("/pins/{cid}?{anywhere}"));
            again.expect("is pinned");
            cluster.peers[0].wait_state(&cid, "pinned", 1);
            (cid, content)
        })
        .collect()
}

fn rebalance(cluster: &Cluster, at: usize) -> Result<Value, String> {
    Ok(cluster.peers[at].try_get("/rebalance")?.json())
}

/// Waits until each peer knows the copies of all, `copies` together.
fn wait_counted(cluster: &Cluster, copies: u64) {
    for at in 0..cluster.peers.len() {
        wait_until("all copies are counted", || {
            let state = rebalance(cluster, at)?;
            let peers = state["peers"].as_array().ok_or("no peers")?;
            let counted: u64 = peers.iter().filter_map(|peer| peer["copies"].as_u64()).sum();
            if counted == copies && peers.len() == cluster.peers.len() {
                Ok(())
            } else {
                Err(state.to_string())
            }
        });
    }
}

/// Asserts that each file is pinned once, can be read, and that no two peers differ by more than two files.
fn assert_even(cluster: &Cluster, files: &[(String, Vec<u8>)]) {
    let mut counts = vec![0_usize; cluster.peers.len()];
    for (cid, content) in files {
        let pin = cluster.peers[0]
            .try_get(&format!("/allocations/{cid}"))
            .unwrap()
            .json();
        let holder = pin["allocations"][0].as_str().expect("one copy");
        let at = cluster.peers.iter().position(|peer| peer.id == holder);
        counts[at.expect("a peer of the cluster")] += 1;
        cluster.peers[0].wait_state(cid, "pinned", 1);
        assert_eq!(&cluster.peers[1].cat(cid), content, "{cid}");
    }
    let range = counts.iter().max().unwrap() - counts.iter().min().unwrap();
    assert!(range <= 2, "{counts:?}");
}

#[test]
fn run_evens_out_the_copies_through_kills() {
    let mut cluster = cluster(3);
    let files = add_at_first(&cluster, 24);
    wait_counted(&cluster, 24);
    let planned = cluster.peers[1].ctl_json(&["peers", "rebalance", "--dry-run"]);
    // The disk that they share fills and empties meanwhile, so that their capacities are not quite equal.
    let moves = planned[0]["moves"].as_u64();
    assert!(
        moves.is_some_and(|moves| (15..=17).contains(&moves)),
        "{planned:?}"
    );
    assert_eq!(planned[0]["running_since"], Value::Null);
    // One at a time, so that the kills come in the middle.
    cluster.peers[1].ctl(&["peers", "rebalance", "--moves", "1"]).ok();
    let started = cluster.peers[2].ctl_json(&["peers", "rebalance"]);
    assert!(started[0]["running_since"].is_string(), "{started:?}");
    wait_until("some copies have moved", || {
        let state = rebalance(&cluster, 1)?;
        let peers = state["peers"].as_array().ok_or("no peers")?;
        match peers.iter().filter_map(|peer| peer["moved"].as_u64()).max() {
            Some(moved) if moved > 2 => Ok(()),
            _ => Err(state.to_string()),
        }
    });
    cluster.peers[0].kill();
    cluster.peers[0].start();
    cluster.peers[0].wait_ready(2);
    let leader = cluster.leader();
    cluster.peers[leader].kill();
    cluster.peers[leader].start();
    cluster.peers[leader].wait_ready(2);
    let faster = cluster.peers[1].ctl_json(&["peers", "rebalance", "--moves", "100"]);
    assert_eq!(faster[0]["moves_max"], 100);
    cluster.peers[1].ctl(&["peers", "rebalance", "--wait"]).ok();
    // The kills may have ended the part of a peer early: a second run does the rest.
    wait_counted(&cluster, 24);
    cluster.peers[1].ctl(&["peers", "rebalance", "--wait"]).ok();
    assert_even(&cluster, &files);
    let said = cluster.peers[1].ctl(&["peers", "rebalance", "--stop"]);
    assert!(said.code != 0 && said.out.contains("no rebalancing"), "{said:?}");
    let said = cluster.peers[1].ctl(&["peers", "rebalance", "--moves", "0"]);
    assert!(
        said.code != 0 && said.out.contains("1 to 4096 are possible"),
        "{said:?}"
    );
}

#[test]
fn automatic_rebalancing_fills_a_new_peer() {
    let mut cluster = cluster(2);
    let files = add_at_first(&cluster, 24);
    cluster.peers[0]
        .ctl(&["peers", "rebalance", "--automatic", "true"])
        .ok();
    let address = cluster.peers[0].address();
    let newcomer = cluster.newcomer();
    cluster.peers[newcomer].edit(|config| {
        config["cluster"]["monitor_ping_interval"] = json!("1s");
        config["monitor"]["pubsubmon"]["check_interval"] = json!("1s");
    });
    cluster.peers[newcomer].start_with(&["--bootstrap", &address]);
    wait_until("the new peer has its share", || {
        let state = rebalance(&cluster, 2)?;
        let peers = state["peers"].as_array().ok_or("no peers")?;
        let near = |peer: &Value| {
            let number = |name: &str| peer[name].as_u64().unwrap_or(u64::MAX);
            number("copies").abs_diff(number("target")) <= 2 && number("copies_waiting") == 0
        };
        if peers.len() == 3 && state["automatic"] == true && peers.iter().all(near) {
            Ok(())
        } else {
            Err(state.to_string())
        }
    });
    assert_even(&cluster, &files);
}
