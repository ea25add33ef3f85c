//! The IPFS proxy: clients of Kubo work with a peer, and their pins become pins of the cluster.

#[path = "proxy/adding.rs"]
mod adding;
#[path = "proxy/forwarding.rs"]
mod forwarding;
#[path = "proxy/pins.rs"]
mod pins;
#[path = "proxy/requests.rs"]
pub(crate) mod requests;

use serde_json::json;
use tests::{Cluster, cids, wait_until};

use self::requests::{CLI_ADD, add, call, header, kubo_error, last_hash, proxy_port, with_proxies};

#[test]
fn ipfs_command_line_adds_pins_lists_and_unpins_through_the_proxy() {
    let cluster = with_proxies(3);
    let (one, two) = (proxy_port(&cluster.peers[0]), proxy_port(&cluster.peers[1]));

    // Before each command, the command line asks for the version, which must be strict semver.
    let version = call(one, "version?encoding=json&stream-channels=true").json();
    let version = version["Version"].as_str().expect("a version").to_owned();
    assert_eq!(version.split('.').count(), 3, "{version}");

    let cid = add_like_the_command_line(&cluster, one);

    // ipfs --api … pin add <cid>, of a CID that the cluster does not pin yet
    let other = cluster.peers[2].add(
        "no-pin=true&replication-min=1&replication-max=1",
        &[("x", b"pin me")],
    );
    let other = other.expect("is added")[0]["cid"]
        .as_str()
        .expect("a CID")
        .to_owned();
    let pinned = call(
        two,
        &format!("pin/add?arg={other}&encoding=json&recursive=true&stream-channels=true"),
    );
    assert_eq!(pinned.text(), format!("{{\"Pins\":[\"{other}\"]}}\n"));
    assert_eq!(header(&pinned, "content-type"), Some("application/json"));
    cluster.peers[0].wait_state(&other, "pinned", 3);

    // ipfs --api … pin ls, at any peer
    for port in [one, two] {
        let all = call(
            port,
            "pin/ls?encoding=json&quiet=false&stream=false&stream-channels=true&type=recursive",
        );
        let expected = json!({"Keys": {
            &cid: {"Type": "recursive", "Name": ""},
            &other: {"Type": "recursive", "Name": ""},
        }});
        assert_eq!(all.json(), expected);
    }

    // ipfs --api … pin rm <cid>
    let removed = call(
        one,
        &format!("pin/rm?arg={cid}&encoding=json&recursive=true&stream-channels=true"),
    );
    assert_eq!(removed.text(), format!("{{\"Pins\":[\"{cid}\"]}}\n"));
    wait_until("the others have unpinned it", || {
        let listed = call(
            cluster.peers[2].ipfs_port,
            &format!("pin/ls?arg={cid}&type=recursive"),
        );
        if listed.status == 500 {
            Ok(())
        } else {
            Err(listed.text())
        }
    });
    let again = call(two, &format!("pin/rm?arg={cid}"));
    assert_eq!(kubo_error(&again), "not pinned or pinned indirectly");
}

/// `ipfs --api … add myfile.txt`. Returns the CID.
fn add_like_the_command_line(cluster: &Cluster, port: u16) -> String {
    let content = cids::bytes(1, 600_000);
    let added = add(port, CLI_ADD, "myfile.txt", &content);
    assert_eq!(header(&added, "x-chunked-output"), Some("1"));
    let lines = added.values();
    let bytes: Vec<u64> = lines.iter().filter_map(|line| line["Bytes"].as_u64()).collect();
    assert_eq!(bytes.last(), Some(&600_000), "progress is reported: {lines:?}");
    let cid = last_hash(&added);
    assert_eq!(lines.last().expect("a line")["Name"], "myfile.txt");
    assert!(lines.last().expect("a line")["Size"].is_string());
    for peer in &cluster.peers {
        peer.wait_state(&cid, "pinned", 3);
        assert!(peer.cat(&cid) == content, "{} has it", peer.name);
    }
    cid
}
