//! Composite clusters: a peer's proxy serves as the IPFS node of a peer of another cluster.

use serde_json::json;
use tests::{Cluster, Options, Peer, cids, wait_until};

use crate::proxy::requests::{add, call, last_hash, proxy_port, with_proxies};

/// Starts peers whose IPFS nodes are these proxies, each with its own proxy.
fn above(below: &[u16]) -> Cluster {
    let mut cluster = Cluster::prepare(&Options {
        peers: below.len(),
        edit: crate::proxy::requests::give_proxy,
        ..Options::default()
    });
    for (peer, port) in cluster.peers.iter_mut().zip(below) {
        let node = format!("/ip4/127.0.0.1/tcp/{port}");
        peer.edit(|config| {
            config["ipfs_connector"] = json!({
                "ipfshttp": {"node_multiaddress": node, "connect_swarms_delay": "1s", "pin_timeout": "5s"},
            });
            config["api"]["ipfsproxy"]["node_multiaddress"] = json!(node);
            config["cluster"]["pin_recover_interval"] = json!("5s");
        });
        peer.start();
    }
    cluster.wait_ready();
    cluster
}

fn wait_pinset(peer: &Peer, wanted: &[&str]) {
    wait_until(&format!("{} pins {wanted:?}", peer.name), || {
        let pins = peer.pinset()?;
        let all = wanted.iter().all(|cid| pins.iter().any(|pin| pin == cid));
        if all && pins.len() == wanted.len() {
            return Ok(());
        }
        Err(format!("{pins:?}"))
    });
}

#[test]
fn composite_clusters_pin_add_collect_and_survive_the_loss_of_a_lower_peer() {
    let mut left = with_proxies(3);
    let right = with_proxies(1);
    let top = above(&[proxy_port(&left.peers[0]), proxy_port(&right.peers[0])]);
    let proxy = proxy_port(&top.peers[0]);

    // Its free space is that of the lower clusters.
    let space = top.peers[0]
        .try_get("/monitor/metrics/freespace")
        .expect("metrics")
        .json();
    assert_eq!(space.as_array().map(Vec::len), Some(2), "{space}");

    // Content added through the upper proxy is pinned in both lower clusters, at all their peers.
    let content = cids::bytes(1, 2_000_000);
    let first = last_hash(&add(proxy, "", "first", &content));
    for peer in &top.peers {
        peer.wait_state(&first, "pinned", 2);
    }
    wait_pinset(&left.peers[2], &[&first]);
    wait_pinset(&right.peers[0], &[&first]);
    left.peers[0].wait_state(&first, "pinned", 3);
    assert!(right.peers[0].cat(&first) == content);

    // So is content added through the upper REST API.
    let added = top.peers[1]
        .add("name=second", &[("second", b"through the REST API")])
        .expect("is added");
    let second = added[0]["cid"].as_str().expect("a CID").to_owned();
    top.peers[0].wait_state(&second, "pinned", 2);
    left.peers[1].wait_state(&second, "pinned", 3);
    let name = left.peers[1]
        .try_get(&format!("/allocations/{second}"))
        .expect("a pin")
        .json();
    assert_eq!(name["name"], "second");

    assert_missing_content_is_not_pinned(&top, &left, &[&first, &second]);
    let (third, fourth) = add_during_failures(&top, &mut left, [&first, &second]);

    // Content unpinned above is collected below.
    top.peers[0]
        .ask("DELETE", &format!("/pins/{first}"))
        .expect("is unpinned");
    wait_pinset(&left.peers[2], &[&second, &third, &fourth]);
    wait_pinset(&right.peers[0], &[&second, &third, &fourth]);
    let gone =
        |peer: &Peer| call(peer.ipfs_port, &format!("block/stat?arg={first}&offline=true")).status == 500;
    wait_until("the content is collected", || {
        let collected = top.peers[0].ask("POST", "/ipfs/gc")?;
        if gone(&left.peers[0]) && gone(&right.peers[0]) {
            return Ok(());
        }
        Err(collected.text())
    });
}

/// Asserts that a pin of missing content is not reported as pinned above because it is in the pinset below.
fn assert_missing_content_is_not_pinned(top: &Cluster, left: &Cluster, pins: &[&str]) {
    let missing = cids::missing(7);
    top.peers[0]
        .ask("POST", &format!("/pins/{missing}"))
        .expect("is taken");
    wait_pinset(&left.peers[0], &[pins, &[missing.as_str()]].concat());
    std::thread::sleep(std::time::Duration::from_secs(8));
    assert_eq!(top.peers[0].count(&missing, "pinned"), Ok(0));
    top.peers[0]
        .ask("DELETE", &format!("/pins/{missing}"))
        .expect("is unpinned");
    wait_pinset(&left.peers[0], pins);
}

/// Adds two files above while peers below are down, and returns their CIDs.
fn add_during_failures(top: &Cluster, left: &mut Cluster, pins: [&str; 2]) -> (String, String) {
    // A lower cluster works without one of its peers.
    left.peers[1].kill();
    let third = last_hash(&add(proxy_port(&top.peers[0]), "", "third", b"with a peer less"));
    top.peers[1].wait_state(&third, "pinned", 2);
    wait_pinset(&left.peers[2], &[pins[0], pins[1], &third]);

    // Without the proxy of a lower peer, only the upper peer that uses it fails, until it is back.
    left.peers[0].kill();
    let fourth = last_hash(&add(proxy_port(&top.peers[1]), "", "fourth", b"without a node"));
    wait_until("one peer above has it", || {
        match top.peers[1].count(&fourth, "pinned")? {
            1 => Ok(()),
            other => Err(format!("{other} have it")),
        }
    });
    left.peers[0].start_and_wait();
    left.peers[1].start_and_wait();
    top.peers[1].wait_state(&fourth, "pinned", 2);
    (third, fourth)
}
