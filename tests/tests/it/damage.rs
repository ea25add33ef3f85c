//! Bit rot at one peer, while the others have intact copies.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::{Cluster, Peer, cids, wait_until};

/// Lists the block segments below a folder.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(segments(&path));
        } else if path.extension().is_some_and(|it| it == "seg") {
            found.push(path);
        }
    }
    found
}

/// Flips a bit of `needle` on the peer's disk.
fn rot(peer: &Peer, needle: &[u8]) {
    for path in segments(&peer.folder) {
        let bytes = std::fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(needle.len()).position(|it| it == needle) {
            let file = std::fs::File::options().write(true).open(&path).unwrap();
            file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
            return;
        }
    }
    panic!("{} does not have these bytes", peer.name);
}

fn wait_whole(peer: &Peer, cid: &str, content: &[u8]) {
    wait_until("the peer's own copy is whole", || {
        let read = peer
            .ipfs(&format!("cat?arg={cid}&offline=true"))
            .map_err(|error| format!("{error:?}"))?;
        if read.body == content {
            Ok(())
        } else {
            Err("it is not".to_owned())
        }
    });
}

#[test]
fn bit_rot_is_repaired_from_other_peers_on_read_and_by_recover() {
    let cluster = Cluster::start();
    let content = cids::bytes(5, 900_000);
    let added = cluster.peers[0]
        .add("raw-leaves=true", &[("file", &content)])
        .unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[0].wait_state(&cid, "pinned", 3);
    let peer = &cluster.peers[2];
    wait_whole(peer, &cid, &content);

    rot(peer, &content[100_000..100_032]);
    assert!(peer.cat(&cid) == content);
    wait_whole(peer, &cid, &content);
    assert!(
        peer.log().contains("is damaged on the disk"),
        "the damage is logged"
    );

    rot(peer, &content[800_000..800_032]);
    let recovered = cluster.peers[0].ask("POST", &format!("/pins/{cid}/recover"));
    recovered.unwrap();
    wait_whole(peer, &cid, &content);
    peer.wait_state(&cid, "pinned", 3);
    assert!(
        peer.log().contains("damaged or missing"),
        "the verification is logged"
    );
}

/// Returns the state of a peer's scrub, as it shows it itself.
fn scrub(peer: &Peer) -> Value {
    let all = peer.ask("GET", "/ipfs/scrub?local=true").expect("an answer");
    all.json()["peer_map"][&peer.id].clone()
}

/// Waits for the end of a cycle with everything mended, and returns the state.
fn wait_scrubbed(peer: &Peer) -> Value {
    wait_until("a cycle is complete, and all is mended", || {
        let state = scrub(peer);
        let is_mended = state["unmended_blocks"] == 0 && state["unmended_pins"] == 0;
        if state["cycle"].is_null() && state["last"].is_object() && is_mended {
            Ok(state)
        } else {
            Err(state.to_string())
        }
    })
}

#[test]
fn scrub_finds_and_mends_all_rot_in_one_cycle() {
    let cluster = Cluster::start();
    let files: Vec<(String, Vec<u8>)> = (0..6)
        .map(|number| {
            let content = cids::bytes(100 + number, 600_000);
            let added = cluster.peers[0].add("raw-leaves=true", &[("file", &content)]);
            let cid = added.unwrap()[0]["cid"].as_str().unwrap().to_owned();
            cluster.peers[0].wait_state(&cid, "pinned", 3);
            (cid, content)
        })
        .collect();
    let peer = &cluster.peers[2];
    for (at, (_, content)) in files.iter().enumerate() {
        let place = [0, 300_000, 599_000][at % 3];
        rot(peer, &content[place..place + 32]);
    }
    rot(&cluster.peers[1], &files[3].1[10..42]);
    let started = cluster.peers[0].ctl_json(&["ipfs", "scrub", "--now", "--fraction", "1"]);
    assert_eq!(
        started[0]["peer_map"].as_object().map(|all| all.len()),
        Some(3),
        "{started:?}"
    );
    let damaged: Vec<Value> = cluster
        .peers
        .iter()
        .map(|peer| wait_scrubbed(peer)["last"]["damaged"].clone())
        .collect();
    assert_eq!(damaged, [0, 1, 6]);
    let state = scrub(peer);
    assert_eq!(state["mended_blocks"], 6, "{state}");
    assert_eq!(state["last"]["blocks"], 6 * 4, "{state}");
    for (cid, content) in &files {
        wait_whole(peer, cid, content);
        cluster.peers[0].wait_state(cid, "pinned", 3);
    }
    let shown = cluster.peers[0].ctl(&["ipfs", "scrub", "--peer", &peer.id]).ok();
    assert!(shown.contains("waiting | 100% of the time | next "), "{shown}");
    assert!(
        shown.contains("6 damaged") && !shown.contains("NOT MENDED"),
        "{shown}"
    );
}

#[test]
fn unmended_damage_and_a_pause_survive_a_restart() {
    let mut cluster = Cluster::start();
    let content = cids::bytes(200, 400_000);
    let only = cluster.peers[2].id.clone();
    let query = format!("raw-leaves=true&replication-min=1&replication-max=1&user-allocations={only}");
    let added = cluster.peers[2].add(&query, &[("file", &content)]).unwrap();
    let cid = added[0]["cid"].as_str().unwrap().to_owned();
    cluster.peers[0].wait_state(&cid, "pinned", 1);
    rot(&cluster.peers[2], &content[350_000..350_032]);
    let of_third = |action: &str| format!("/ipfs/scrub?peer={only}&{action}");
    cluster.peers[0]
        .ask("POST", &of_third("action=start&fraction=1"))
        .unwrap();
    let is_reported = |peer: &Peer| {
        let state = scrub(peer);
        let info = peer.try_get(&format!("/pins/{cid}"))?.json()["peer_map"][&only].clone();
        let says_why = info["error"]
            .as_str()
            .is_some_and(|error| error.contains("damaged"));
        let is_listed = state["unmended_blocks"] == 1 && state["unmended_pins"] == 1;
        if is_listed && state["unmended"][0] == *cid && info["status"] != "pinned" && says_why {
            return Ok(());
        }
        Err(format!("{state} {info}"))
    };
    wait_until("the damage is reported", || is_reported(&cluster.peers[2]));
    cluster.peers[0]
        .ask("POST", &of_third("action=pause&fraction=0.25"))
        .unwrap();

    let peer = &mut cluster.peers[2];
    peer.kill();
    peer.start_and_wait();
    wait_until("the damage is still reported", || is_reported(peer));
    let state = scrub(peer);
    assert_eq!(
        (&state["state"], &state["fraction"]),
        (&"paused".into(), &0.25.into()),
        "{state}"
    );

    // The content arrives again.
    let peer = &cluster.peers[2];
    peer.add(&query, &[("file", &content)]).unwrap();
    wait_until("the pin is mended", || match scrub(peer) {
        state if state["unmended_pins"] == 0 && state["unmended_blocks"] == 0 => Ok(()),
        state => Err(state.to_string()),
    });
    peer.wait_state(&cid, "pinned", 1);
    wait_whole(peer, &cid, &content);
    let refused = peer.rest("POST", "/ipfs/scrub").unwrap();
    let why = "nothing to do: name an `action` or a `fraction`";
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains(why), "{}", refused.text());
}
