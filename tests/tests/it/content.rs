//! Content: files added through one peer are read from the others, byte for byte.

use tests::{Cluster, cids};

const CHUNK: usize = 256 * 1024;

#[test]
fn files_added_through_one_peer_are_byte_identical_at_every_other() {
    let cluster = Cluster::start();
    for (number, size) in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 20_000_000]
        .into_iter()
        .enumerate()
    {
        let content = cids::bytes(number as u64, size);
        let adder = &cluster.peers[number % 3];
        let raw = ["raw-leaves=true&cid-version=1", "cid-version=0"][number % 2];
        let query = format!("{raw}&replication-min=2&replication-max=2&name=f{size}");
        let added = adder.add(&query, &[("file", &content)]).unwrap();
        assert_eq!(added.len(), 1, "{added:?}");
        let cid = added[0]["cid"].as_str().unwrap();
        adder.wait_state(cid, "pinned", 2);
        for peer in &cluster.peers {
            // The peer without a copy fetches it from the others.
            assert!(peer.cat(cid) == content, "{size} bytes differ at {}", peer.name);
        }
    }
}

#[test]
fn a_directory_is_the_same_at_every_peer() {
    let cluster = Cluster::start();
    let big = cids::bytes(7, 3 * CHUNK + 5);
    let files: [(&str, &[u8]); 4] = [
        ("site/index.html", b"<h1>hello</h1>"),
        ("site/empty", b""),
        ("site/deep/er/big.bin", &big),
        ("site/with space & ümlaut.txt", b"named"),
    ];
    let added = cluster.peers[1]
        .add("stream-channels=true&cid-version=1", &files)
        .unwrap();
    let last = added.last().unwrap();
    assert_eq!(last["name"], "site", "{added:?}");
    let root = last["cid"].as_str().unwrap().to_owned();
    cluster.peers[1].wait_state(&root, "pinned", 3);
    for peer in &cluster.peers {
        for (path, content) in files {
            let below = path.strip_prefix("site/").unwrap();
            let below = below
                .replace(' ', "%20")
                .replace('&', "%26")
                .replace('ü', "%C3%BC");
            let found = peer.cat(&format!("{root}/{below}"));
            assert!(found == content, "{path} differs at {}", peer.name);
        }
        let listed = peer.ipfs(&format!("ls?arg={root}")).unwrap().json();
        let links = listed["Objects"][0]["Links"].as_array().unwrap();
        let names: Vec<&str> = links.iter().map(|link| link["Name"].as_str().unwrap()).collect();
        assert_eq!(names, ["deep", "empty", "index.html", "with space & ümlaut.txt"]);
    }
}

#[test]
fn uploads_that_cannot_be_pinned_fail() {
    let cluster = Cluster::start();
    // More copies than there are peers.
    let refused = cluster.peers[0].add("replication-min=5&replication-max=5", &[("f", b"content")]);
    let error = refused.unwrap_err();
    assert!(error.contains("500") || error.contains("Some("), "{error}");
    assert_eq!(cluster.peers[0].pinset().unwrap(), Vec::<String>::new());
}
