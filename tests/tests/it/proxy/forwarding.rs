//! Commands that cover all peers, and requests that are forwarded to the node.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tests::http::{self, Answer};
use tests::{Peer, cids};

use super::requests::{add, call, header, last_hash, proxy_port, with_proxies};

#[test]
fn repo_commands_cover_all_peers() {
    let cluster = with_proxies(3);
    let port = proxy_port(&cluster.peers[0]);
    let garbage: Vec<String> = cluster
        .peers
        .iter()
        .enumerate()
        .map(|(number, peer)| {
            let content = cids::bytes(number as u64, 50_000);
            last_hash(&add(
                peer.ipfs_port,
                "pin=false&raw-leaves=true&cid-version=1",
                "g",
                &content,
            ))
        })
        .collect();
    let stat = call(port, "repo/stat").json();
    let sum = |key: &str| -> u64 {
        let one = |peer: &Peer| {
            call(peer.ipfs_port, "repo/stat").json()[key]
                .as_u64()
                .expect("a number")
        };
        cluster.peers.iter().map(one).sum()
    };
    assert_eq!(stat["NumObjects"].as_u64(), Some(sum("NumObjects")));
    assert!(stat["RepoSize"].as_u64().expect("a number") >= 150_000, "{stat}");
    assert!(
        stat["StorageMax"].is_u64() && stat["Version"].is_string(),
        "{stat}"
    );
    assert!(!stat["RepoPath"].as_str().expect("a path").is_empty());
    let brief = call(port, "repo/stat?size-only=true").json();
    assert_eq!(
        (&brief["NumObjects"], &brief["RepoPath"]),
        (&json!(0), &json!(""))
    );

    let collected = call(port, "repo/gc?stream-errors=true");
    assert!(collected.is_success(), "{:?}", collected.error());
    let keys: Vec<Value> = collected.values();
    for cid in &garbage {
        let is_there = keys.iter().any(|line| line["Key"]["/"] == *cid);
        assert!(is_there, "{cid} is not in {keys:?}");
    }
    let freed = keys.last().and_then(|line| line["FreedBytes"].as_u64());
    assert!(freed >= Some(150_000), "{keys:?}");
    let again = call(port, "repo/gc");
    assert_eq!((again.status, again.text()), (200, String::new()));
}

#[test]
fn other_requests_are_forwarded_to_the_node() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let (proxy, node) = (proxy_port(peer), peer.ipfs_port);
    let content = cids::bytes(9, 20_000_000);
    let cid = last_hash(&add(proxy, "", "large", &content));
    let (through, straight) = (
        call(proxy, &format!("cat?arg={cid}")),
        call(node, &format!("cat?arg={cid}")),
    );
    assert!(through.body == content && through.headers.len() == straight.headers.len());
    assert_eq!(header(&through, "x-content-length"), Some("20000000"));
    for command in [
        "id",
        "commands",
        "config/show",
        "swarm/peers",
        "nonsense",
        "cat",
        "block/get?arg=nonsense",
        "refs?arg=nonsense",
        &format!("ls?arg={cid}"),
        // Its progress depends on the time that it takes.
        &format!("dag/stat?arg={cid}&progress=false"),
        &format!("refs?arg={cid}&recursive=true"),
        &format!("cat?arg={cid}&offset=100&length=7"),
    ] {
        let (through, straight) = (call(proxy, command), call(node, command));
        assert_eq!(
            (through.status, through.text()),
            (straight.status, straight.text()),
            "{command}"
        );
        let kind = |answer: &Answer| header(answer, "content-type").map(str::to_owned);
        assert_eq!(
            (kind(&through), through.error()),
            (kind(&straight), straight.error()),
            "{command}"
        );
    }
    // Late errors are forwarded.
    let missing = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy";
    let late = |port| call(port, &format!("refs?arg={cid}&arg={missing}&timeout=10s"));
    assert_eq!(late(proxy).text(), late(node).text());
    // So are methods and CORS preflights.
    for (method, path) in [("GET", "id"), ("OPTIONS", "pin/ls"), ("DELETE", "pin/add")] {
        let ask =
            |port| http::request(port, method, &format!("/api/v0/{path}"), &[], &[]).expect("an answer");
        assert_eq!(ask(proxy).status, ask(node).status, "{method} {path}");
    }
    let foreign = [("Origin", "http://evil.example")];
    for command in ["id", "pin/ls", "repo/gc", "add"] {
        let target = format!("/api/v0/{command}");
        let answer = http::request(proxy, "POST", &target, &foreign, &[]).expect("an answer");
        assert_eq!(answer.status, 403, "{command}: a page of another origin");
    }
    let own = format!("http://127.0.0.1:{proxy}");
    let page = http::request(proxy, "POST", "/api/v0/pin/ls", &[("Origin", &own)], &[]).expect("an answer");
    assert_eq!(header(&page, "access-control-allow-origin"), Some(own.as_str()));
    assert_eq!(header(&page, "vary"), Some("Origin"));
    assert!(header(&page, "access-control-expose-headers").is_some());
    assert!(header(&page, "server").is_some_and(|server| server.starts_with("ipfs-cluster/ipfsproxy/")));
    let large = "x".repeat(20_000);
    let attack = http::request(proxy, "POST", "/api/v0/id", &[("X-Large", &large)], &[]).expect("an answer");
    assert_eq!(attack.status, 431);
}

#[test]
fn aborted_requests_end_at_the_node_and_large_bodies_cost_no_memory() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let port = proxy_port(peer);
    // Aborted uploads leave no pins.
    let mut broken = TcpStream::connect(("127.0.0.1", port)).expect("connects");
    let head = "POST /api/v0/add HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\
                Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n\
                Content-Disposition: form-data; name=\"file\"; filename=\"x\"\r\n\r\n";
    broken.write_all(head.as_bytes()).expect("is sent");
    broken.write_all(&cids::bytes(5, 3_000_000)).expect("is sent");
    drop(broken);
    // An aborted download ends at the node too: otherwise the node would not stop in time.
    let cid = last_hash(&add(port, "", "large", &cids::bytes(6, 240_000_000)));
    let before = peak(peer);
    for _ in 0..3 {
        let mut reader = TcpStream::connect(("127.0.0.1", port)).expect("connects");
        let request = format!("POST /api/v0/cat?arg={cid} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        reader.write_all(request.as_bytes()).expect("is sent");
        let mut some = vec![0; 100_000];
        reader.read_exact(&mut some).expect("is answered");
    }
    let all = call(port, &format!("cat?arg={cid}"));
    assert_eq!(all.body.len(), 240_000_000);
    let grown = peak(peer).saturating_sub(before);
    assert!(grown < 200_000, "{grown} KiB more for downloads of 240 MB");
    assert_eq!(peer.pinset().expect("a pinset"), [cid]);
    // A shutdown waits for nothing.
    let mut cluster = cluster;
    assert!(cluster.peers[0].terminate().success());
}

/// Returns the peak memory of a peer's process, in KiB.
fn peak(peer: &Peer) -> u64 {
    let cmdline = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let folder = peer.folder.display().to_string();
    let pid = std::fs::read_dir("/proc")
        .expect("Linux")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|pid| pid.bytes().all(|byte| byte.is_ascii_digit()) && cmdline(pid).contains(&folder))
        .expect("it runs");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.and_then(|number| number.parse().ok()).expect("a number")
}
