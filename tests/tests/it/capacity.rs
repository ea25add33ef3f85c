//! Peers whose repository fills: admission of pins, thresholds, automatic garbage collection.

use serde_json::json;
use tests::{Cluster, Options, Peer, cids, http, wait_until};

/// Adds a file to the IPFS node of a peer, which protects an upload to the cluster from collections for a
/// minute, but not this one.
fn store(peer: &Peer, content: &[u8]) -> String {
    let (kind, body) = http::multipart(&[("f", content)]);
    let headers = [("Content-Type", kind.as_str())];
    let answer = http::request(peer.ipfs_port, "POST", "/api/v0/add?pin=false", &headers, &body);
    answer.unwrap().json()["Hash"].as_str().unwrap().to_owned()
}

/// Bytes in the metric `freespace` of a peer, and whether it is valid.
fn free(peer: &Peer) -> Result<(u64, bool), String> {
    let metrics = peer.try_get("/monitor/metrics/freespace")?.json();
    let own = metrics
        .as_array()
        .and_then(|all| all.iter().find(|one| one["peer"] == peer.id.as_str()));
    let own = own.ok_or("no metric")?;
    let free = own["value"].as_str().and_then(|text| text.parse().ok());
    Ok((
        free.ok_or("no number")?,
        own["valid"].as_bool().ok_or("not valid")?,
    ))
}

#[test]
fn nearly_full_peer_gets_no_new_pins_until_garbage_is_collected() {
    let cluster = Cluster::start_with(&Options {
        edit: |config| {
            config["informer"]["disk"]["metric_ttl"] = json!("2s");
            let embedded = &mut config["ipfs_connector"]["embedded"];
            embedded["storage_max"] = json!("10MB");
            embedded["gc_watermark"] = json!(0);
        },
        ..Options::default()
    });
    let peer = &cluster.peers[0];
    let cid = &store(peer, &cids::bytes(1, 9_300_000));
    let only_here = format!("replication-min=1&replication-max=1&user-allocations={}", peer.id);
    peer.ask("POST", &format!("/pins/{cid}?{only_here}")).unwrap();
    peer.wait_state(cid, "pinned", 1);
    wait_until("the peer counts as full", || match free(peer)? {
        (free, false) if free < 1_000_000 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let text = peer.ctl(&["health", "summary"]).ok();
    assert!(
        text.contains(&format!("WARNING | {} | the repository is 93 % full", peer.name)),
        "{text}"
    );
    for number in 0..20 {
        let pin = peer.ctl_json(&[
            "pin",
            "add",
            "--no-status",
            "--replication=1",
            &cids::identity(&format!("{number}")),
        ]);
        assert_ne!(pin[0]["allocations"], json!([peer.id]), "{number}");
    }
    peer.ctl(&["pin", "rm", "--wait", cid]).ok();
    peer.ctl(&["ipfs", "gc", "--local"]).ok();
    wait_until("the peer gets new pins again", || match free(peer)? {
        (free, true) if free > 9_000_000 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn pin_that_does_not_fit_says_so() {
    let cluster = Cluster::start_with(&Options {
        edit: |config| config["ipfs_connector"]["embedded"]["storage_max"] = json!("10MB"),
        ..Options::default()
    });
    let mut source = Peer::init(cluster.folder(), "source");
    source.start_and_wait();
    let added = source
        .add("cid-version=1", &[("f", &cids::bytes(2, 15_000_000))])
        .unwrap();
    let cid = added[0]["cid"].as_str().unwrap();
    let address = source.ipfs("id").unwrap().json()["Addresses"][0]
        .as_str()
        .unwrap()
        .to_owned();
    let peer = &cluster.peers[0];
    let target = format!("/pins/{cid}?replication-min=1&replication-max=1&origins={address}");
    peer.ask("POST", &target).unwrap();
    wait_until("the reason is shown", || {
        let text = peer.ctl(&["status", cid]).ok();
        let shows = text.contains("PIN_ERROR") && text.contains("is full") && text.contains("more needed");
        shows.then_some(()).ok_or(text)
    });
    for peer in &cluster.peers {
        let stat = peer.ipfs("repo/stat").unwrap().json();
        assert!(stat["RepoSize"].as_u64().unwrap() < 1_000_000, "{stat}");
    }
}

#[test]
fn pin_that_does_not_fit_moves_to_a_peer_with_more_room() {
    let mut cluster = Cluster::prepare(&Options {
        edit: |config| config["cluster"]["monitor_ping_interval"] = json!("1s"),
        ..Options::default()
    });
    let small = |config: &mut serde_json::Value| {
        config["ipfs_connector"]["embedded"]["storage_max"] = json!("10MB");
    };
    cluster.peers[0].edit(small);
    for peer in &mut cluster.peers {
        peer.start();
    }
    cluster.wait_ready();
    let content = cids::bytes(5, 15_000_000);
    let cid = &store(&cluster.peers[1], &content);
    let first = &cluster.peers[0].id;
    let there = format!("replication-min=1&replication-max=1&user-allocations={first}");
    let pinned = cluster.peers[2].ask("POST", &format!("/pins/{cid}?{there}"));
    assert_eq!(pinned.unwrap().json()["allocations"], json!([first]));
    cluster.peers[2].wait_state(cid, "pinned", 1);
    let pin = cluster.peers[2]
        .try_get(&format!("/allocations/{cid}"))
        .unwrap()
        .json();
    assert_ne!(pin["allocations"], json!([first]), "{pin}");
    let stat = cluster.peers[0].ipfs("repo/stat").unwrap().json();
    assert!(stat["RepoSize"].as_u64().unwrap() < 10_000_000, "{stat}");
}

#[test]
fn garbage_is_collected_at_the_watermark() {
    let cluster = Cluster::start_with(&Options {
        edit: |config| {
            let embedded = &mut config["ipfs_connector"]["embedded"];
            embedded["storage_max"] = json!("10MB");
            embedded["gc_watermark"] = json!(50);
            embedded["gc_interval"] = json!("1s");
        },
        ..Options::default()
    });
    let peer = &cluster.peers[0];
    let everywhere = |seed, size| {
        let cid = store(peer, &cids::bytes(seed, size));
        peer.ask("POST", &format!("/pins/{cid}")).unwrap();
        peer.wait_state(&cid, "pinned", 3);
        cid
    };
    let kept = everywhere(3, 2_000_000);
    let removed = everywhere(4, 4_000_000);
    peer.ctl(&["pin", "rm", "--wait", &removed]).ok();
    for peer in &cluster.peers {
        wait_until("the garbage is gone", || {
            let stat = peer.ipfs("repo/stat").unwrap().json();
            match stat["RepoSize"].as_u64() {
                Some(size) if size < 3_000_000 => Ok(()),
                _ => Err(stat.to_string()),
            }
        });
        wait_until("the collection is counted", || {
            let metrics = peer.try_get("/metrics")?.text();
            let mut lines = metrics.lines();
            let runs = lines.find_map(|line| line.strip_prefix("ipfscluster_ipfs_gc_runs_total "));
            match runs {
                None | Some("0") => Err(format!("{runs:?} runs")),
                Some(_) => Ok(()),
            }
        });
        assert_eq!(peer.cat(&kept), cids::bytes(3, 2_000_000));
    }
}
