//! Bit rot at one peer, while the others have intact copies.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

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
