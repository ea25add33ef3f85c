//! Shared state, local state and IPFS state: how differences between them are detected and repaired.

use std::time::{Duration, Instant};

use tests::links::Links;
use tests::{Cluster, Options, Peer, Said, cids, wait_until};

/// Time limit of a response that covers silent peers: five seconds of silence, and a margin.
const BOUNDED: Duration = Duration::from_secs(60);

/// Time limit of a write: its deadline of 15 seconds, and a margin for a busy machine.
const WRITE: Duration = Duration::from_secs(60);

/// Returns whether a peer's IPFS node has this CID pinned.
fn is_held(peer: &Peer, cid: &str) -> Result<bool, String> {
    let answer = peer
        .ipfs(&format!("pin/ls?arg={cid}"))
        .map_err(|error| error.to_string())?;
    Ok(answer.is_success())
}

fn unpin_behind_our_back(peer: &Peer, cid: &str) {
    let answer = peer.ipfs(&format!("pin/rm?arg={cid}")).unwrap();
    assert!(answer.is_success(), "{}", answer.text());
}

fn wait_held(peer: &Peer, cid: &str) {
    wait_until("the IPFS node has it pinned again", || {
        match is_held(peer, cid)? {
            true => Ok(()),
            false => Err("it has not".to_owned()),
        }
    });
}

#[test]
fn sync_restores_pins_removed_from_the_ipfs_node() {
    // Without periodic comparisons.
    let cluster = Cluster::start_with(&Options {
        edit: |config| config["cluster"]["state_sync_interval"] = "24h".into(),
        ..Options::default()
    });
    let (ours, other) = (cids::identity("ours"), cids::identity("never ours"));
    cluster.peers[0].ctl(&["pin", "add", "--wait", &ours]).ok();
    cluster.peers[0].wait_state(&ours, "pinned", 3);
    for peer in &cluster.peers {
        assert!(peer.ipfs(&format!("pin/add?arg={other}")).unwrap().is_success());
    }
    // One CID at the peer; one CID through another peer; all at the peer; all at all peers.
    let ways: [(usize, &[&str]); 4] = [
        (1, &["sync", "--local", &ours]),
        (0, &["sync", &ours]),
        (1, &["sync", "--local"]),
        (2, &["sync"]),
    ];
    for (asked, arguments) in ways {
        unpin_behind_our_back(&cluster.peers[1], &ours);
        assert_eq!(is_held(&cluster.peers[1], &ours), Ok(false));
        // Not compared yet.
        cluster.peers[1].wait_state(&ours, "pinned", 3);
        let rows = cluster.peers[asked].ctl_json(arguments);
        assert_eq!(rows.len(), 1, "{arguments:?}: {rows:?}");
        assert_eq!(rows[0]["cid"], ours.as_str());
        let reported = rows[0]["peer_map"].as_object().unwrap();
        assert!(
            reported.contains_key(&cluster.peers[1].id),
            "{arguments:?}: {rows:?}"
        );
        wait_held(&cluster.peers[1], &ours);
        cluster.peers[0].wait_state(&ours, "pinned", 3);
    }
    // Without differences nothing is listed, and pins that are not the cluster's are left alone.
    assert_eq!(
        cluster.peers[0].ctl_json(&["sync"]),
        Vec::<serde_json::Value>::new()
    );
    for peer in &cluster.peers {
        assert_eq!(is_held(peer, &other), Ok(true));
    }
    wait_until("all three answer", || {
        let text = cluster.peers[0].ctl(&["sync", &ours]).ok();
        match text.starts_with(&format!("{ours}:\n")) && text.matches(": PINNED").count() == 3 {
            true => Ok(()),
            false => Err(text),
        }
    });
    assert_eq!(cluster.peers[0].ctl(&["sync", "nonsense"]).code, 1);
}

#[test]
fn differences_are_repaired_by_the_periodic_comparison() {
    let cluster = Cluster::start_with(&Options {
        edit: |config| config["cluster"]["state_sync_interval"] = "1s".into(),
        ..Options::default()
    });
    let cid = cids::identity("kept");
    cluster.peers[0].ctl(&["pin", "add", "--wait", &cid]).ok();
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    for peer in &cluster.peers {
        unpin_behind_our_back(peer, &cid);
        wait_held(peer, &cid);
    }
    cluster.peers[0].wait_state(&cid, "pinned", 3);
}

#[test]
fn silent_peers_are_reported_as_errors_beside_the_others() {
    let cluster = Cluster::start();
    let cid = cids::identity("listed");
    cluster.peers[0].ctl(&["pin", "add", "--wait", &cid]).ok();
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    // Its connections stay open, but it sends nothing.
    cluster.peers[2].signal("STOP");
    let living = &cluster.peers[0];
    for arguments in [&["status"][..], &["status", &cid]] {
        let asked = Instant::now();
        let rows = living.ctl_json(arguments);
        let took = asked.elapsed();
        assert!(took < BOUNDED, "{arguments:?} took {took:?}");
        let peers = &rows[0]["peer_map"];
        assert_eq!(peers[&cluster.peers[1].id]["status"], "pinned", "{rows:?}");
        let silent = &peers[&cluster.peers[2].id];
        assert_eq!(silent["status"], "cluster_error", "{rows:?}");
        assert!(
            silent["error"].as_str().unwrap().contains(&cluster.peers[2].id),
            "{silent}"
        );
    }
    let errors = living.ctl_json(&["status", "--filter", "cluster_error"]);
    assert_eq!(errors.len(), 1, "{errors:?}");
    cluster.peers[2].signal("CONT");
    living.wait_state(&cid, "pinned", 3);
}

/// Makes a write that must fail within its time limit.
fn failed_write(peer: &Peer, cid: &str) -> Said {
    let asked = Instant::now();
    let said = peer.ctl(&["pin", "add", "--no-status", cid]);
    let took = asked.elapsed();
    assert!(took < WRITE, "{took:?}: {said:?}");
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.out.contains("Code: 503"), "{said:?}");
    said
}

#[test]
fn reads_warn_and_writes_fail_with_the_reason_without_a_majority() {
    let mut cluster = Cluster::start();
    let cid = cids::identity("before");
    cluster.peers[0].ctl(&["pin", "add", "--wait", &cid]).ok();
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    let fresh = cluster.peers[0].ctl(&["pin", "ls", "--consistent", &cid]);
    assert!(fresh.err.is_empty() && fresh.out.starts_with(&cid), "{fresh:?}");
    cluster.peers[1].kill();
    cluster.peers[2].kill();
    let left = &cluster.peers[0];
    wait_until("the remaining peer knows that there is no leader", || {
        let said = left.ctl(&["pin", "ls"]);
        assert!(said.code == 0 && said.out.starts_with(&cid), "{said:?}");
        match said.err.starts_with("warning: possibly stale: ") {
            true => Ok(()),
            false => Err(format!("{said:?}")),
        }
    });
    let status = left.ctl(&["status", &cid]);
    assert!(
        status.code == 0 && status.err.starts_with("warning: "),
        "{status:?}"
    );
    assert_eq!(left.count(&cid, "cluster_error"), Ok(2));
    let said = failed_write(left, &cids::identity("after"));
    assert!(
        said.out.contains("the cluster has no leader: a majority"),
        "{said:?}"
    );
    let asked = Instant::now();
    let fresh = left.ctl(&["pin", "ls", "--consistent"]);
    assert!(asked.elapsed() < WRITE && fresh.code == 2, "{fresh:?}");
    assert!(fresh.out.contains("no leader"), "{fresh:?}");
    // A refused write has no effect, not even later.
    cluster.peers[1].start_and_wait();
    wait_until("there is a leader again", || {
        cluster.peers[0].ask("GET", "/pins?consistent=true")
    });
    assert_eq!(cluster.peers[0].pinset(), Ok(vec![cid]));
}

#[test]
fn a_write_of_unknown_outcome_is_distinguished_from_a_refusal() {
    let (mut cluster, links) = Links::prepare(&Options::default());
    for peer in &mut cluster.peers {
        peer.start();
    }
    cluster.wait_ready();
    let (doubtful, certain) = (cids::identity("doubtful"), cids::identity("certain"));
    let leader = wait_until("a leader accepts a write that it cannot replicate", || {
        let leader = cluster.leader();
        links.isolate(&[leader]);
        let said = failed_write(&cluster.peers[leader], &doubtful);
        if said.out.contains("the request may still take effect") {
            return Ok(leader);
        }
        // On a busy machine it may have noticed the lost quorum before: then the refusal is definite.
        assert!(said.out.contains("no leader"), "{said:?}");
        links.heal();
        cluster.wait_ready();
        Err(format!("{said:?}"))
    });
    let other = &cluster.peers[(leader + 1) % 3];
    wait_until("the others go on without it", || {
        other.ask("POST", &format!("/pins/{certain}"))
    });
    links.heal();
    wait_until("all agree", || {
        let all: Result<Vec<_>, _> = cluster.peers.iter().map(Peer::pinset).collect();
        let all = all?;
        match all.iter().all(|pins| *pins == all[0] && pins.contains(&certain)) {
            true => Ok(()),
            false => Err(format!("{all:?}")),
        }
    });
    links.check();
}
