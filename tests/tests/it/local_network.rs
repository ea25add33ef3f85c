//! Peers of one secret find each other by multicast DNS, on the loopback interface.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tests::{Cluster, Options, cids, wait_until};

/// Prepares peers that each would found a cluster, and that search the local network.
fn apart(peers: usize) -> Cluster {
    let cluster = Cluster::prepare(&Options {
        peers,
        edit: |config| {
            config["cluster"]["mdns_interval"] = json!("1s");
            config["consensus"]["raft"]["init_peerset"] = json!([]);
        },
        ..Options::default()
    });
    // Other runs of these tests on this machine are other clusters.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let secret = format!("{:032x}{:032x}", since.as_nanos(), std::process::id());
    for peer in &cluster.peers {
        peer.edit(|config| config["cluster"]["secret"] = json!(secret));
        std::fs::remove_file(peer.folder.join("peerstore")).ok();
    }
    cluster
}

#[test]
fn peers_that_only_share_a_secret_become_one_cluster() {
    let mut cluster = apart(3);
    for peer in &mut cluster.peers {
        peer.start();
    }
    for peer in &mut cluster.peers {
        peer.wait_ready(1);
    }
    for peer in &mut cluster.peers {
        peer.wait_members(3);
    }
    let cid = cids::identity("after they met");
    cluster.peers[0].ask("POST", &format!("/pins/{cid}")).unwrap();
    cluster.peers[2].wait_state(&cid, "pinned", 3);
}

#[test]
fn peer_with_pins_keeps_them_and_takes_in_an_empty_one() {
    let mut cluster = apart(3);
    // The largest id would be invited by the others, were it empty.
    cluster.peers.sort_by(|one, other| other.id.cmp(&one.id));
    let cid = cids::identity("before they met");
    cluster.peers[0].start_and_wait();
    cluster.peers[0].ask("POST", &format!("/pins/{cid}")).unwrap();
    cluster.peers[1].edit(|config| config["cluster"]["secret"] = json!("5".repeat(64)));
    for peer in &mut cluster.peers[1..] {
        peer.start();
    }
    for at in [0, 2] {
        let peer = &mut cluster.peers[at];
        peer.wait_members(2);
        wait_until("the pin is known", || {
            let pins = peer.pinset()?;
            if pins.len() == 1 {
                Ok(())
            } else {
                Err(format!("{pins:?}"))
            }
        });
    }
    // Another secret is another cluster.
    cluster.peers[1].wait_members(1);
}
