//! Error messages of the daemon: they name the cause and the remedy.

use std::net::TcpListener;

use serde_json::json;
use tests::{Cluster, Options, Peer, cids, closed_port, wait_until};

/// Prepares peers that give up after seven seconds without a cluster: two, and five that the daemon adds.
fn impatient(peers: usize) -> Cluster {
    Cluster::prepare(&Options {
        peers,
        edit: |config| config["consensus"]["raft"]["wait_for_leader_timeout"] = "2s".into(),
        ..Options::default()
    })
}

/// Prepares a single peer.
fn alone() -> Cluster {
    Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    })
}

/// Starts a peer that cannot run; returns its last error.
fn refusal(peer: &mut Peer) -> String {
    peer.start();
    let status = peer.wait_end();
    let log = peer.log();
    assert_eq!(status.code(), Some(1), "{log}");
    let last = log.lines().rev().find(|line| line.starts_with("error "));
    last.unwrap_or_else(|| panic!("no error: {log}")).to_owned()
}

fn assert_names(message: &str, what: &[&str]) {
    for part in what {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

#[test]
fn a_listen_address_in_use_is_named() {
    let mut cluster = alone();
    let peer = &mut cluster.peers[0];
    let taken = TcpListener::bind(("127.0.0.1", peer.rest_port)).unwrap();
    let address = format!("127.0.0.1:{}", peer.rest_port);
    assert_names(
        &refusal(peer),
        &[
            "REST API",
            &address,
            "the port is in use",
            "http_listen_multiaddress",
        ],
    );
    drop(taken);
    let taken = TcpListener::bind(("127.0.0.1", peer.cluster_port)).unwrap();
    let port = peer.cluster_port.to_string();
    assert_names(&refusal(peer), &[&port, "listen_multiaddress", "in use"]);
    drop(taken);
    let taken = TcpListener::bind(("127.0.0.1", peer.ipfs_port)).unwrap();
    let port = peer.ipfs_port.to_string();
    assert_names(&refusal(peer), &[&port, "api_listen_multiaddress"]);
    drop(taken);
    peer.start_and_wait();
}

#[test]
fn a_second_process_on_the_same_folder_is_refused() {
    let mut cluster = alone();
    let peer = &mut cluster.peers[0];
    peer.start_and_wait();
    let said = tests::run(tests::service(&peer.folder).arg("daemon"));
    assert_eq!(said.code, 1, "{said:?}");
    assert_names(
        &said.err,
        &["error acquiring execution lock: ", "is using", "stop it first"],
    );
}

#[test]
fn unreachable_peers_are_named_with_their_addresses() {
    let mut cluster = impatient(3);
    let others: Vec<(String, u16)> = cluster.peers[1..]
        .iter()
        .map(|peer| (peer.id.clone(), peer.cluster_port))
        .collect();
    let message = refusal(&mut cluster.peers[0]);
    for (id, port) in others {
        assert_names(&message, &[&id, &format!("/tcp/{port}")]);
    }
    assert_names(&message, &["no leader within", "A majority", "peerstore"]);
}

#[test]
fn a_wrong_address_is_distinguished_from_a_peer_that_is_down() {
    let mut cluster = impatient(2);
    // The first peer dials another peer at the second one's address.
    let stranger = Cluster::start_with(&Options {
        peers: 1,
        ..Options::default()
    });
    let second = cluster.peers[1].id.clone();
    let wrong = format!(
        "/ip4/127.0.0.1/tcp/{}/p2p/{second}\n",
        stranger.peers[0].cluster_port
    );
    std::fs::write(cluster.peers[0].folder.join("peerstore"), &wrong).unwrap();
    let message = refusal(&mut cluster.peers[0]);
    assert_names(&message, &[&second, &stranger.peers[0].id]);
    // And without any address.
    std::fs::write(cluster.peers[0].folder.join("peerstore"), "").unwrap();
    let message = refusal(&mut cluster.peers[0]);
    assert_names(&message, &[&second, "no address of it is known", "peerstore"]);
    // An invalid address is named with file and line.
    std::fs::write(cluster.peers[0].folder.join("peerstore"), "127.0.0.1:9096\n").unwrap();
    refusal(&mut cluster.peers[0]);
    assert_names(
        &cluster.peers[0].log(),
        &["peerstore line 1: \"127.0.0.1:9096\" is not a multiaddress"],
    );
}

#[test]
fn an_unhealthy_cluster_shows_in_peers_ls_and_the_alerts() {
    let mut cluster = Cluster::start();
    cluster.peers[2].kill();
    let (healthy, dead) = (&cluster.peers[0], cluster.peers[2].id.clone());
    wait_until("peers ls reports the dead peer", || {
        let text = healthy.ctl(&["peers", "ls"]).ok();
        match text.contains(&format!("{dead} | ERROR: ")) {
            true => Ok(()),
            false => Err(text),
        }
    });
    wait_until("so do the alerts", || {
        let text = healthy.ctl(&["health", "alerts"]).ok();
        match text.contains(&dead) {
            true => Ok(()),
            false => Err(text),
        }
    });
    // A peer of a cluster without a majority logs the peers it waits for, and gives up.
    cluster.peers[1].kill();
    cluster.peers[0].terminate();
    cluster.peers[0].edit(|config| {
        config["consensus"]["raft"]["wait_for_leader_timeout"] = json!("2s");
    });
    let message = refusal(&mut cluster.peers[0]);
    assert_names(&message, &[&dead, "A majority of the cluster's voters"]);
}

#[test]
fn data_of_another_peer_or_cluster_is_refused_by_name() {
    let mut cluster = alone();
    let mut other = alone();
    for cluster in [&mut cluster, &mut other] {
        cluster.peers[0].start_and_wait();
        cluster.peers[0].terminate();
    }
    // One peer's data with another's identity.
    let identity = other.peers[0].folder.join("identity.json");
    std::fs::copy(identity, cluster.peers[0].folder.join("identity.json")).unwrap();
    let folder = cluster.peers[0].folder.display().to_string();
    let message = refusal(&mut cluster.peers[0]);
    assert_names(
        &message,
        &[
            &folder,
            &other.peers[0].id,
            "another peer",
            "move the folder away",
        ],
    );
}

#[test]
fn an_unresponsive_ipfs_node_is_logged_by_its_facility_with_file_and_line() {
    let port = closed_port();
    let mut cluster = Cluster::prepare(&Options {
        peers: 1,
        ..Options::default()
    });
    let peer = &mut cluster.peers[0];
    peer.edit(|config| {
        config["ipfs_connector"] = json!({"ipfshttp": {
            "node_multiaddress": format!("/ip4/127.0.0.1/tcp/{port}"),
        }});
    });
    peer.start_and_wait();
    let cid = cids::identity("unreachable");
    peer.ctl(&["pin", "add", "--no-status", &cid]).ok();
    // Between two attempts the status is an error with the reason.
    wait_until("the status names the address", || {
        let text = peer.ctl(&["status", &cid]).ok();
        match text.contains("PIN_ERROR: ") && text.contains(&port.to_string()) {
            true => Ok(()),
            false => Err(text),
        }
    });
    let address = format!("127.0.0.1:{port}");
    wait_until("the log names the facility, the place and the address", || {
        let log = peer.log();
        let message = |line: &str| {
            let fields: Vec<&str> = line.split('\t').collect();
            fields.len() == 5
                && fields[2] == "ipfshttp"
                && fields[3].contains(".rs:")
                && line.contains(&address)
        };
        match log.lines().any(message) {
            true => Ok(()),
            false => Err(log),
        }
    });
}
