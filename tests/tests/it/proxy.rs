//! The IPFS proxy: clients of Kubo work with a peer, and their pins become pins of the cluster.

#[path = "proxy/requests.rs"]
pub(crate) mod requests;

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use tests::http::{self, Answer};
use tests::{Cluster, Peer, cids, wait_until};

use requests::{CLI_ADD, Part, add, call, header, kubo_error, last_hash, proxy_port, upload, with_proxies};

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

const DIRECTORY: [Part<'static>; 5] = [
    (
        "Content-Disposition: form-data; name=\"file\"; filename=\"d\"\n\
         Content-Type: application/x-directory",
        b"",
    ),
    (
        "Content-Disposition: form-data; name=\"file\"; filename=\"d%2Fe\"\n\
         Content-Type: application/x-directory",
        b"",
    ),
    (
        "Content-Disposition: form-data; name=\"file\"; filename=\"d%2Fe%2Fone+file.txt\"\n\
         Content-Type: application/octet-stream",
        b"the first",
    ),
    (
        "Content-Disposition: form-data; name=\"file\"; filename=\"d%2Flink\"\n\
         Content-Type: application/symlink",
        b"e",
    ),
    (
        "Content-Disposition: form-data; name=\"file\"; filename=\"d%2Ftwo\"\n\
         Content-Type: application/octet-stream",
        b"the second",
    ),
];

#[test]
fn add_through_the_proxy_gives_the_same_cids_as_at_the_node() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let queries = [
        "",
        "progress=true",
        "cid-version=1",
        "raw-leaves=true&chunker=size-1024",
        "hash=sha2-512&cid-version=1",
        "trickle=true",
        "wrap-with-directory=true",
        "w=true&silent=false&quieter=true",
        "silent=true",
        "inline=true&cid-version=1",
        "cid-base=base36&cid-version=1",
        "chunker=nonsense",
        "cid-version=9",
        "pin-name=x&pin=false",
    ];
    for query in queries {
        compare_add(peer, query);
    }
    assert_each_root_is_one_pin(peer);
}

/// Asserts that the proxy responds to `add` like the node, and that the cluster pins the root; unpins it.
fn compare_add(peer: &Peer, query: &str) {
    let (proxy, node) = (proxy_port(peer), peer.ipfs_port);
    // Directly at the node without a pin, so that only the proxy's uploads are pinned.
    let straight = upload(
        node,
        &format!("add?{query}&pin=false").replace("?&", "?"),
        &DIRECTORY,
    );
    let through = upload(proxy, &format!("add?{query}"), &DIRECTORY);
    if query.starts_with("pin-name") {
        assert!(kubo_error(&through).contains("pin-name"), "{}", through.text());
        return;
    }
    assert_eq!(
        (through.status, through.text()),
        (straight.status, straight.text()),
        "{query}"
    );
    assert_eq!(through.error(), None, "{query}");
    if through.status != 200 {
        return;
    }
    // Only the outermost directory is pinned.
    let root = last_hash(&through);
    let pins = peer.pinset().expect("a pinset");
    assert_eq!(pins.len(), 1, "{query}: {pins:?}");
    if !query.contains("cid-base") {
        assert_eq!(pins, std::slice::from_ref(&root), "{query}");
    }
    assert_eq!(call(proxy, &format!("pin/rm?arg={root}")).status, 200, "{query}");
}

/// Asserts that several files are several pins, with the name and the cluster's options of the request.
fn assert_each_root_is_one_pin(peer: &Peer) {
    let proxy = proxy_port(peer);
    let files: [Part<'_>; 2] = [
        (
            "Content-Disposition: form-data; name=\"file\"; filename=\"a\"",
            b"a",
        ),
        (
            "Content-Disposition: form-data; name=\"file\"; filename=\"b\"",
            b"b",
        ),
    ];
    let two = upload(proxy, "add?pin-name=both", &files).values();
    let mut hashes: Vec<_> = two
        .iter()
        .map(|line| line["Hash"].as_str().expect("a CID").to_owned())
        .collect();
    hashes.sort();
    assert_eq!(peer.pinset().expect("a pinset"), hashes);
    let named = call(proxy, "pin/ls?names=true&stream=true&type=recursive").values();
    assert!(
        named.len() == 2 && named.iter().all(|pin| pin["Name"] == "both"),
        "{named:?}"
    );
    // The cluster's own parameters work too.
    let cid = last_hash(&add(
        proxy,
        "meta-colour=blue&expire-in=1h&replication-min=1&replication-max=1",
        "c",
        b"c",
    ));
    let pin = peer
        .try_get(&format!("/allocations/{cid}"))
        .expect("a pin")
        .json();
    assert_eq!(
        (&pin["metadata"]["colour"], &pin["replication_factor_max"]),
        (&json!("blue"), &json!(1))
    );
}

#[test]
fn add_without_pin_pins_nothing() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let port = proxy_port(peer);
    let content = cids::bytes(3, 300_000);
    for query in ["only-hash=true", "n=true", "pin=false", "no-pin=true"] {
        let cid = last_hash(&add(port, query, "file", &content));
        assert_eq!(peer.pinset().expect("a pinset"), Vec::<String>::new(), "{query}");
        let there = call(peer.ipfs_port, &format!("block/stat?arg={cid}&offline=true")).status == 200;
        assert_eq!(there, !["only-hash=true", "n=true"].contains(&query), "{query}");
        call(port, "repo/gc");
    }
    let bad = add(port, "pin=maybe", "file", b"x");
    assert_eq!(bad.status, 400);
    assert!(
        bad.text().starts_with("could not convert value \"maybe\""),
        "{}",
        bad.text()
    );
    let none = upload(port, "add", &[]);
    assert_eq!(kubo_error(&none), "expected a file argument");
}

#[test]
fn pins_are_listed_and_changed_as_at_a_node() {
    let cluster = with_proxies(1);
    let peer = &cluster.peers[0];
    let port = proxy_port(peer);
    let lines = upload(port, "add?pin-name=the+root", &DIRECTORY).values();
    let hash = |name: &str| {
        let line = lines.iter().find(|line| line["Name"] == name).expect("a line");
        line["Hash"].as_str().expect("a CID").to_owned()
    };
    let (root, sub, file) = (hash("d"), hash("d/e"), hash("d/two"));
    peer.wait_state(&root, "pinned", 1);
    pin_paths_and_direct(peer, &root, &sub);
    list_by_type(peer, &root, &sub, &file);
    list_by_argument(port, &root, &sub, &file);
    pass_arguments_in_path_and_body(port, &root, &sub, &file);
    update_pin(port, &root);

    // With progress, the response ends when the pin is held.
    let progress = call(port, &format!("pin/add?arg={sub}&progress=true")).values();
    assert_eq!(progress.last(), Some(&json!({"Pins": [sub]})));
    assert_eq!(peer.count(&sub, "pinned"), Ok(1));
}

fn pin_paths_and_direct(peer: &Peer, root: &str, sub: &str) {
    let port = proxy_port(peer);
    // Paths, direct pins, and CIDs that are already pinned recursively.
    let direct = call(
        port,
        &format!("pin/add?arg=/ipfs/{root}/e&recursive=false&name=sub"),
    );
    assert_eq!(direct.json(), json!({"Pins": [sub]}));
    peer.wait_state(sub, "pinned", 1);
    let refused = call(port, &format!("pin/add?arg={root}&recursive=false"));
    assert_eq!(
        kubo_error(&refused),
        format!("pin: {root} already pinned recursively")
    );
    let nothing = call(port, &format!("pin/add?arg={root}/nothing"));
    assert!(
        kubo_error(&nothing).starts_with("no link named \"nothing\""),
        "{}",
        nothing.text()
    );
    let long = call(port, &format!("pin/add?arg={root}&name={}", "x".repeat(256)));
    assert_eq!(kubo_error(&long), "pin name is 256 bytes (max 255 bytes)");
}

fn list_by_type(peer: &Peer, root: &str, sub: &str, file: &str) {
    let port = proxy_port(peer);
    let types = |query: &str| {
        let keys = call(port, &format!("pin/ls?{query}")).json();
        let keys = keys["Keys"].as_object().cloned().unwrap_or_default();
        let types: Vec<String> = keys
            .iter()
            .map(|(cid, key)| format!("{cid} {} {}", key["Type"], key["Name"]))
            .collect();
        types
    };
    assert_eq!(types("type=recursive"), [format!("{root} \"recursive\" \"\"")]);
    assert_eq!(
        types("type=direct&names=true"),
        [format!("{sub} \"direct\" \"sub\"")]
    );
    assert_eq!(
        types("name=oo&type=all"),
        [format!("{root} \"recursive\" \"the root\"")]
    );
    assert_eq!(types("name=nobody"), Vec::<String>::new());
    let indirect = types("type=indirect");
    assert!(
        indirect.contains(&format!("{file} \"indirect\" \"\"")),
        "{indirect:?}"
    );
    assert!(
        !indirect.iter().any(|pin| pin.starts_with(sub)),
        "it has its own pin: {indirect:?}"
    );
    assert_eq!(types("").len(), 2 + indirect.len());
    // The same errors as the node's.
    let (ours, theirs) = (
        call(port, "pin/ls?names=true"),
        call(peer.ipfs_port, "pin/ls?names=true"),
    );
    assert_eq!(ours.json(), theirs.json());
}

fn list_by_argument(port: u16, root: &str, sub: &str, file: &str) {
    // Several at once, with names.
    let both = call(
        port,
        &format!("pin/ls?arg={root}&arg=/ipfs/{root}/two&names=true"),
    )
    .json();
    let through = format!("indirect through {root}");
    let expected = json!({"Keys": {
        root: {"Type": "recursive", "Name": "the root"},
        file: {"Type": through, "Name": ""},
    }});
    assert_eq!(both, expected);
    let streamed = call(port, &format!("pin/ls?arg={root}&stream=true"));
    assert_eq!(
        streamed.text(),
        format!("{{\"Cid\":\"{root}\",\"Type\":\"recursive\"}}\n")
    );
    let not = call(port, &format!("pin/ls?arg={root}&type=direct"));
    assert_eq!(kubo_error(&not), format!("path '{root}' is not pinned"));
    // A direct pin does not hide the indirect pin through the root.
    let both_ways = call(port, &format!("pin/ls?arg={sub}&type=indirect"));
    assert_eq!(both_ways.json()["Keys"][sub]["Type"], through.as_str());
    let bad = call(port, "pin/ls?type=x");
    assert_eq!(
        kubo_error(&bad),
        "invalid type 'x', must be one of {direct, indirect, recursive, all}"
    );
}

fn pass_arguments_in_path_and_body(port: u16, root: &str, sub: &str, file: &str) {
    let slash = http::request(port, "POST", &format!("/api/v0/pin/rm/{sub}"), &[], &[]).expect("an answer");
    assert_eq!(slash.json(), json!({"Pins": [sub]}));
    let stdin = [(
        "Content-Disposition: form-data; name=\"file\"; filename=\"\"",
        format!("{sub}\n{file}\n").into_bytes(),
    )];
    let parts: Vec<Part<'_>> = stdin
        .iter()
        .map(|(head, text)| (*head, text.as_slice()))
        .collect();
    assert_eq!(
        upload(port, "pin/add", &parts).json(),
        json!({"Pins": [sub, file]})
    );
    assert_eq!(call(port, "pin/add").status, 400);

    let kept = call(port, &format!("pin/rm?arg={root}&recursive=false"));
    assert_eq!(kubo_error(&kept), format!("{root} is pinned recursively"));
    // The first CID is unpinned although the second fails.
    let partly = call(port, &format!("pin/rm?arg={file}&arg={file}"));
    assert_eq!(kubo_error(&partly), "not pinned or pinned indirectly");
}

/// Asserts that an updated pin keeps its name.
fn update_pin(port: u16, root: &str) {
    let to = last_hash(&add(port, "pin=false", "to", b"the next version"));
    let missing = call(port, &format!("pin/update?arg={to}"));
    assert_eq!(
        (missing.status, missing.text()),
        (400, "argument \"to-path\" is required\n".to_owned())
    );
    let never = call(port, &format!("pin/update?arg={to}&arg={root}"));
    assert_eq!(
        kubo_error(&never),
        "'from' cid was not recursively pinned already"
    );
    let updated = call(port, &format!("pin/update?arg={root}&arg={to}"));
    assert_eq!(updated.json(), json!({"Pins": [root, to]}));
    let named = call(port, &format!("pin/ls?arg={to}&names=true")).json();
    assert_eq!(named["Keys"][&to]["Name"], "the root");
    assert_eq!(
        call(port, &format!("pin/ls?arg={root}&type=recursive")).status,
        500
    );
}

#[test]
fn blocks_and_dag_nodes_are_pinned_on_request() {
    let cluster = with_proxies(2);
    let (one, two) = (&cluster.peers[0], &cluster.peers[1]);
    let port = proxy_port(one);
    let part = |content: &'static [u8]| {
        [(
            "Content-Disposition: form-data; name=\"file\"; filename=\"x\"",
            content,
        )]
    };
    let block = upload(port, "block/put?cid-codec=raw", &part(b"not pinned")).json();
    assert_eq!(one.pinset().expect("a pinset").len(), 0, "{block}");
    let block = upload(port, "block/put?cid-codec=raw&pin=true", &part(b"pinned")).json();
    assert_eq!(block["Size"], 6);
    let block = block["Key"].as_str().expect("a key").to_owned();
    let node = upload(port, "dag/put?pin=true", &part(b"{\"a\":1}")).json();
    let node = node["Cid"]["/"].as_str().expect("a CID").to_owned();
    for cid in [&block, &node] {
        two.wait_state(cid, "pinned", 2);
    }

    let car = call(port, &format!("dag/export?arg={node}"));
    assert!(car.is_success());
    let fresh = with_proxies(1);
    let below = proxy_port(&fresh.peers[0]);
    let import = |query: &str| {
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"x.car\"";
        upload(below, &format!("dag/import?{query}"), &[(head, &car.body)])
    };
    assert!(import("pin-roots=false").is_success());
    assert_eq!(fresh.peers[0].pinset().expect("a pinset").len(), 0);
    let imported = import("stats=true").values();
    assert_eq!(
        imported[0],
        json!({"Root": {"Cid": {"/": node}, "PinErrorMsg": ""}})
    );
    assert_eq!(imported[1]["Stats"]["BlockCount"], 1);
    fresh.peers[0].wait_state(&node, "pinned", 1);
}

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
        let line = json!({"Key": {"/": cid}});
        assert!(keys.contains(&line), "{cid} is not in {keys:?}");
    }
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
        &format!("dag/stat?arg={cid}"),
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
