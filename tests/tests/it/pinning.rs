//! Pinning and unpinning: the time of the response, and the work of the peers afterwards.

use tests::{Cluster, Options, cids, wait_until};

/// Starts peers with a short pin timeout.
fn impatient() -> Cluster {
    Cluster::start_with(&Options {
        edit: |config| config["ipfs_connector"]["embedded"]["pin_timeout"] = "1s".into(),
        ..Options::default()
    })
}

#[test]
fn pins_are_acknowledged_when_committed_and_pinned_afterwards() {
    let cluster = impatient();
    for peer in &cluster.peers {
        // No node has it: the acknowledgement is for the commit.
        let cid = cids::missing(u64::from(peer.rest_port));
        let pin = peer.ctl_json(&["pin", "add", "--no-status", "-r", "2", &cid]);
        assert_eq!(pin[0]["allocations"].as_array().map(Vec::len), Some(2), "{pin:?}");
        assert_eq!(peer.pinset().map(|pins| pins.contains(&cid)), Ok(true));
        // The peers that it is allocated to try, report the error, and retry for ever; at the third it is
        // remote.
        wait_until("two fail and the third is remote", || {
            let text = peer.ctl(&["status", &cid]).ok();
            let count = |state: &str| text.matches(state).count();
            match (count(": PIN_ERROR: "), count(": REMOTE | ")) {
                (2, 1) => Ok(()),
                _ => Err(text),
            }
        });
    }
}

#[test]
fn pins_without_enough_peers_are_refused_without_effect() {
    let cluster = Cluster::start();
    let cid = cids::identity("four copies");
    for peer in &cluster.peers {
        let said = peer.ctl(&["pin", "add", "-r", "4", &cid]);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.out.contains("not enough peers to allocate CID"), "{said:?}");
        assert_eq!(peer.pinset(), Ok(Vec::new()));
        peer.wait_state(&cid, "unpinned", 3);
    }
}

#[test]
fn unpinned_cids_are_removed_from_all_three_states() {
    let cluster = Cluster::start();
    for (number, peer) in cluster.peers.iter().enumerate() {
        let cid = cids::identity(&format!("to be unpinned {number}"));
        peer.ctl(&["pin", "add", "--wait", &cid]).ok();
        peer.wait_state(&cid, "pinned", 3);
        peer.ctl(&["pin", "rm", "--wait", &cid]).ok();
        for other in &cluster.peers {
            other.wait_state(&cid, "unpinned", 3);
            assert_eq!(other.pinset(), Ok(Vec::new()));
            let held = other.ipfs(&format!("pin/ls?arg={cid}")).unwrap();
            assert!(!held.is_success(), "{}", held.text());
        }
        wait_until("the status says so, too", || {
            let text = peer.ctl(&["status", &cid]).ok();
            match text.matches(": UNPINNED | ").count() {
                3 => Ok(()),
                _ => Err(text),
            }
        });
    }
}
