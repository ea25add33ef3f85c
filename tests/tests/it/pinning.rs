//! The guide, "Pinning an item" and "Unpinning an item": what is answered when, and what the peers do
//! afterwards.

use tests::{Cluster, Options, cids, wait_until};

/// Peers that give up on content soon.
fn impatient() -> Cluster {
    Cluster::start_with(&Options {
        edit: |config| config["ipfs_connector"]["embedded"]["pin_timeout"] = "1s".into(),
        ..Options::default()
    })
}

#[test]
fn a_pin_is_acknowledged_when_it_is_agreed_on_and_pinned_afterwards() {
    let cluster = impatient();
    for peer in &cluster.peers {
        // Nobody has it: what is acknowledged is the agreement.
        let cid = cids::missing(u64::from(peer.rest_port));
        let pin = peer.ctl_json(&["pin", "add", "--no-status", "-r", "2", &cid]);
        assert_eq!(pin[0]["allocations"].as_array().map(Vec::len), Some(2), "{pin:?}");
        assert_eq!(peer.pinset().map(|pins| pins.contains(&cid)), Ok(true));
        // Those that it is allocated to try, say what is wrong, and try again for ever; the third has nothing
        // to do with it.
        wait_until("two fail and the third is not concerned", || {
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
fn what_cannot_be_agreed_on_is_refused_and_nothing_happens() {
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
fn what_is_unpinned_is_gone_from_all_three_states() {
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
