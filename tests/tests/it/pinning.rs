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
        // The peers that it is allocated to try, report the error, and retry indefinitely; at the third it is
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
fn listings_are_filtered_limited_and_sorted() {
    let cluster = Cluster::start_with(&Options {
        peers: 1,
        ..Options::default()
    });
    let peer = &cluster.peers[0];
    for (name, owner) in [("first docs", "me"), ("second", "you"), ("third docs", "me")] {
        let (cid, metadata) = (cids::identity(name), format!("owner={owner}"));
        let add = [
            "pin",
            "add",
            "--no-status",
            "--name",
            name,
            "--metadata",
            &metadata,
            &cid,
        ];
        peer.ctl(&add).ok();
    }
    let names = |arguments: &[&str]| -> Vec<String> {
        let pins = peer.ctl_json(&[&["pin", "ls"], arguments].concat());
        let name = |pin: &serde_json::Value| pin["name"].as_str().unwrap_or_default().to_owned();
        pins.iter().map(name).collect()
    };
    assert_eq!(names(&[]).len(), 3);
    assert_eq!(names(&["--limit", "2"]).len(), 2);
    assert_eq!(names(&["--name", "second"]), ["second"]);
    assert_eq!(
        names(&["--sort", "newest"]),
        ["third docs", "second", "first docs"]
    );
    let docs = ["--name", "DOCS", "--name-match", "ipartial", "--sort", "oldest"];
    assert_eq!(names(&docs), ["first docs", "third docs"]);
    let newest = [
        "--meta", "owner=me", "--since", "1h", "--sort", "newest", "--limit", "1",
    ];
    assert_eq!(names(&newest), ["third docs"]);
    assert_eq!(names(&["--name", "absent"]), [""; 0]);
    let refused = peer.ctl(&["pin", "ls", "--sort", "size"]);
    assert_eq!(refused.code, 2);
    assert!(
        refused.out.contains("sort: use cid, newest or oldest"),
        "{refused:?}"
    );
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
