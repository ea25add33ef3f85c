//! Content in and out of the embedded node through its API, with raw requests and with our client.

mod support;

use cluster_ipfs::backend::{Backend, Cause, Collected, PinRequest, PinState};
use cluster_ipfs::{Block, Cid, PinMode};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use support::Served;

const OCTETS: &str = "application/octet-stream";
const HELLO: &str = "QmVr26fY1tKyspEJBniVhqxQeEjhF78XerGiqWAwraVLQH";

/// Returns bytes without a repetition at any block size.
fn content(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| step()).collect()
}

#[tokio::test]
async fn file_is_added_like_in_kubo() {
    let served = Served::start().await;
    let parts: [(&str, &str, &[u8]); 1] = [("hello.txt", OCTETS, b"Hello Worlds!\n")];
    let answer = served.upload("add?progress=true", &parts).await;
    assert_eq!(answer.header("X-Chunked-Output"), Some("1"));
    assert_eq!(
        answer.text(),
        format!(
            "{{\"Name\":\"hello.txt\",\"Bytes\":14}}\n{{\"Name\":\"hello.txt\",\"Hash\":\"{HELLO}\",\"Size\":\"22\"}}\n"
        )
    );
    let listed = served.post("pin/ls").await;
    assert_eq!(
        listed.text(),
        format!("{{\"Keys\":{{\"{HELLO}\":{{\"Type\":\"recursive\",\"Name\":\"\"}}}}}}\n")
    );
    let read = served.post(&format!("cat?arg={HELLO}")).await;
    assert_eq!(read.body, b"Hello Worlds!\n");
    assert_eq!(read.header("Content-Type"), Some("text/plain"));
    assert_eq!(read.header("X-Content-Length"), Some("14"));
    assert_eq!(read.header("X-Stream-Output"), Some("1"));
    assert_eq!(
        served.post(&format!("cat/{HELLO}")).await.body,
        b"Hello Worlds!\n"
    );
    let part = served
        .post(&format!("cat?arg={HELLO}&arg={HELLO}&offset=6&length=12"))
        .await;
    assert_eq!(part.text(), "Worlds!\nHell");
}

/// Adds a tree of files; returns name and CID of each entry, in the order reported.
async fn add_moons(served: &Served) -> Vec<(String, String)> {
    let parts: [(&str, &str, &[u8]); 6] = [
        ("moons", "application/x-directory", b""),
        ("moons%2Fjupiter", "application/x-directory", b""),
        ("moons%2Fjupiter%2Feuropa.txt", OCTETS, b"Hello Europa!\n"),
        ("moons%2Fmercury.txt", OCTETS, b"hey you are no moon!\n"),
        ("moons%2Fsaturn", "application/x-directory", b""),
        ("moons%2Fsaturn%2Ftitan.txt", OCTETS, b"Hello Titan!\n"),
    ];
    let lines = served.upload("add?pin-name=moons", &parts).await.lines();
    let text = |it: &Value, key: &str| it[key].as_str().unwrap().to_owned();
    lines
        .iter()
        .map(|it| (text(it, "Name"), text(it, "Hash")))
        .collect()
}

#[tokio::test]
async fn directory_entries_are_reported_in_the_order_of_kubo() {
    let served = Served::start().await;
    let reported = add_moons(&served).await;
    let reported: Vec<_> = reported
        .iter()
        .map(|(name, cid)| (name.as_str(), cid.as_str()))
        .collect();
    assert_eq!(
        reported,
        [
            (
                "moons/jupiter/europa.txt",
                "Qmbjg7zWdqdMaK2BucPncJQDxiALExph5k3NkQv5RHpccu"
            ),
            (
                "moons/mercury.txt",
                "QmRsTB5CpEUvDUpDgHCzb3VftZ139zrk9zs5ZcgYh9TMPJ"
            ),
            (
                "moons/saturn/titan.txt",
                "QmZzppb9WHn552rmRqpPfgU5FEiHH6gDwi3MrB9cTdPwdb"
            ),
            ("moons/jupiter", "QmS5mZddhFPLWFX3w6FzAy9QxyYkaxvUpsWCtZ3r7jub9J"),
            ("moons/saturn", "QmaMagZT4rTE7Nonw8KGSK4oe1bh533yhZrCo1HihSG8FK"),
            ("moons", "QmbGoaQZm8kjYfCiN1aBsgwhqfUBGDYTrDb91Mz7Dvq81B"),
        ]
    );
    let root = reported[5].1;
    let named = served.post("pin/ls?stream=true&names=true&type=recursive").await;
    assert_eq!(
        named.lines(),
        [json!({"Cid": root, "Name": "moons", "Type": "recursive"})]
    );
}

#[tokio::test]
async fn added_directory_is_listed_read_and_archived_by_path() {
    let served = Served::start().await;
    let reported = add_moons(&served).await;
    let (saturn, root) = (&reported[4].1, &reported[5].1);
    let below = served.post(&format!("pin/ls?arg={root}/saturn")).await.json();
    assert_eq!(below["Keys"][saturn]["Type"], format!("indirect through {root}"));
    let listed = served.post(&format!("ls?arg={root}")).await.json();
    let names: Vec<_> = listed["Objects"][0]["Links"].as_array().unwrap().iter().collect();
    assert_eq!(
        names
            .iter()
            .map(|it| it["Name"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["jupiter", "mercury.txt", "saturn"]
    );
    assert_eq!(names[1]["Type"], 2);
    assert_eq!(names[1]["Size"], 21);
    assert_eq!(names[0]["ModTime"], "0001-01-01T00:00:00Z");
    let read = served
        .post(&format!("cat?arg=/ipfs/{root}/saturn/titan.txt"))
        .await;
    assert_eq!(read.text(), "Hello Titan!\n");
    let refs = served
        .post(&format!("refs?arg={root}&recursive=true&format=%3Clinkname%3E"))
        .await
        .lines();
    assert_eq!(refs.len(), 5);
    assert_eq!(refs[0], json!({"Ref": "jupiter", "Err": ""}));
    let resolved = served.post(&format!("resolve?arg=/ipfs/{root}/saturn")).await;
    assert_eq!(resolved.json(), json!({"Path": format!("/ipfs/{saturn}")}));
    let tar = served.post(&format!("get?arg={root}")).await;
    assert_eq!(tar.header("Content-Type"), Some("application/x-tar"));
    assert!(tar.body.windows(13).any(|it| it == b"Hello Titan!\n"));
    let missing = served.post(&format!("cat?arg={root}/pluto")).await;
    assert_eq!(
        (missing.status, missing.json()["Message"].clone()),
        (500, json!(format!("no link named \"pluto\" under {root}")))
    );
}

#[tokio::test]
async fn only_hash_stores_nothing_and_wrap_adds_a_directory() {
    let served = Served::start().await;
    let parts: [(&str, &str, &[u8]); 1] = [("hello.txt", OCTETS, b"Hello Worlds!\n")];
    let lines = served
        .upload(
            "add?only-hash=true&wrap-with-directory=true&cid-version=1",
            &parts,
        )
        .await
        .lines();
    assert_eq!(
        lines[1]["Hash"],
        "bafybeifbstds3nn2phftzbpwfjcrpambnqjtv3icr2k62gaqaemunubdye"
    );
    assert_eq!(
        (lines[1]["Name"].as_str(), lines[1]["Size"].as_str()),
        (Some(""), Some("71"))
    );
    assert_eq!(served.post("pin/ls").await.text(), "{}\n");
    assert_eq!(served.post("refs/local").await.text(), "");
    let unnamed: [(&str, &str, &[u8]); 1] = [("", OCTETS, b"Hello Worlds!\n")];
    assert_eq!(served.upload("add", &unnamed).await.lines()[0]["Name"], HELLO);
}

#[tokio::test]
async fn metadata_of_a_part_is_preserved_on_request() {
    let served = Served::start().await;
    let body = "--bnd\r\nContent-Disposition: form-data; name=\"file?mode=0640&mtime=1604320482\"; \
                filename=\"m\"\r\n\r\n\r\n--bnd--\r\n";
    let headers = "Content-Type: multipart/form-data; boundary=bnd\r\n";
    for (query, hash) in [
        ("", "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
        (
            "?preserve-mode=true",
            "QmQLgxypSNGNFTuUPGCecq6dDEjb6hNB5xSyVmP3cEuNtq",
        ),
        (
            "?preserve-mtime=true",
            "QmQ6kErEW8kztQFV8vbwNU8E4dmtGsYpRiboiLxUEwibvj",
        ),
        (
            "?preserve-mode=true&preserve-mtime=true",
            "QmYkvboLsvLFcSYmqVJRxvBdYRQLroLv9kELf3LRiCqBri",
        ),
    ] {
        let line = served
            .raw(&format!("POST /api/v0/add{query}"), headers, body.as_bytes())
            .await
            .json();
        assert_eq!(line["Hash"], hash, "{query}");
        assert_eq!(
            (&line["Mode"], &line["Mtime"]),
            (&json!("0640"), &json!(1_604_320_482))
        );
    }
}

#[tokio::test]
async fn repeated_names_and_several_directories_are_added_separately() {
    let served = Served::start().await;
    let directory = "application/x-directory";
    let parts: [(&str, &str, &[u8]); 6] = [
        ("x", OCTETS, b"1"),
        ("x", OCTETS, b"2"),
        ("d", directory, b""),
        ("d%2Fa", OCTETS, b"3"),
        ("e%2Fb", OCTETS, b"4"),
        ("f", OCTETS, b"5"),
    ];
    let lines = served.upload("add", &parts).await.lines();
    let names: Vec<_> = lines.iter().map(|it| it["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["x", "x", "d/a", "d", "e/b", "e", "f"]);
    let pins = served.post("pin/ls?type=recursive&stream=true").await.lines();
    assert_eq!(pins.len(), 5);
}

#[tokio::test]
async fn large_content_round_trips() {
    let served = Served::start().await;
    let content = content(9_000_001);
    let lines = served
        .upload("add?quieter=true&cid-version=1", &[("big", OCTETS, &content)])
        .await
        .lines();
    let root = lines[0]["Hash"].as_str().unwrap().to_owned();
    assert!(served.post(&format!("cat?arg={root}")).await.body == content);
    let car = served.post(&format!("dag/export?arg={root}")).await;
    assert_eq!(car.header("Content-Type"), Some("application/vnd.ipld.car"));
    let other = Served::start().await;
    let imported = other
        .upload("dag/import?stats=true", &[("car", OCTETS, &car.body)])
        .await
        .lines();
    assert_eq!(
        imported[0],
        json!({"Root": {"Cid": {"/": root}, "PinErrorMsg": ""}})
    );
    assert_eq!(imported[1]["Stats"]["BlockCount"], 36);
    assert!(other.post(&format!("cat?arg={root}")).await.body == content);
    let stat = other
        .post(&format!("dag/stat?arg={root}&progress=false"))
        .await
        .lines();
    assert_eq!(stat[0]["UniqueBlocks"], 36);
    let verified = other.post("repo/verify").await.lines();
    assert_eq!(
        verified.last().unwrap()["Msg"],
        "verify complete, all blocks validated."
    );
}

#[tokio::test]
async fn blocks_and_nodes_of_other_codecs_are_stored_and_removed() {
    let served = Served::start().await;
    let raw = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";
    let put = served.upload("block/put", &[("", OCTETS, b"hello world")]).await;
    assert_eq!(put.text(), format!("{{\"Key\":\"{raw}\",\"Size\":11}}\n"));
    let read = served.post(&format!("block/get?arg={raw}")).await;
    assert_eq!(
        (read.text().as_str(), read.header("Content-Type")),
        ("hello world", Some("application/vnd.ipld.raw"))
    );
    assert_eq!(
        served.post(&format!("block/stat?arg={raw}")).await.json(),
        json!({"Key": raw, "Size": 11})
    );
    let node = format!("{{\"a\":[1,{{\"/\":\"{raw}\"}}]}}");
    let put = served
        .upload("dag/put?pin=true", &[("", OCTETS, node.as_bytes())])
        .await
        .lines();
    let cid = put[0]["Cid"]["/"].as_str().unwrap().to_owned();
    assert_eq!(served.post(&format!("dag/get?arg={cid}")).await.text(), node);
    assert_eq!(served.post(&format!("dag/get?arg={cid}/a/0")).await.text(), "1");
    let resolved = served.post(&format!("dag/resolve?arg={cid}/a")).await.json();
    assert_eq!(resolved, json!({"Cid": {"/": cid}, "RemPath": "/a"}));
    let kept = served.post(&format!("block/rm?arg={cid}")).await.lines();
    assert_eq!(kept, [json!({"Hash": cid, "Error": "pinned: recursive"})]);
    assert_eq!(
        served.post(&format!("pin/rm?arg={cid}")).await.json(),
        json!({"Pins": [cid]})
    );
    assert_eq!(
        served.post(&format!("block/rm?arg={cid}")).await.lines(),
        [json!({"Hash": cid})]
    );
    let gone = served.post(&format!("block/rm?arg={cid}")).await.lines();
    assert_eq!(gone[0]["Error"], format!("ipld: could not find {cid}"));
    let collected = served.post("repo/gc").await.lines();
    assert_eq!(collected, [json!({"Key": {"/": raw}, "FreedBytes": 0})]);
    let huge = vec![0; 3 << 20];
    let refused = served.upload("block/put", &[("", OCTETS, &huge)]).await;
    assert!(
        refused.json()["Message"]
            .as_str()
            .unwrap()
            .starts_with("produced block is over 2MiB")
    );
}

#[tokio::test]
async fn identity_version_and_statistics_are_reported() {
    let served = Served::start().await;
    let id = served.post("id").await.json();
    assert_eq!(id["ID"], served.node.id().peer_id.to_string());
    assert!(
        id["Addresses"][0]
            .as_str()
            .unwrap()
            .ends_with(id["ID"].as_str().unwrap())
    );
    assert_eq!(served.post("swarm/peers").await.text(), "{\"Peers\":null}\n");
    let stat = served.post("repo/stat?size-only=true").await.json();
    // Limited only by the disk.
    assert!(stat["StorageMax"].as_u64().unwrap() < u64::MAX / 2, "{stat}");
    let rest = [&stat["NumObjects"], &stat["RepoPath"], &stat["Version"]];
    assert_eq!(rest, [&json!(0), &json!(""), &json!("")]);
    let commands = served.post("commands").await.json();
    assert_eq!(commands["Name"], "ipfs");
    assert!(
        served.post("key/list").await.json()["Keys"][0]["Id"]
            .as_str()
            .unwrap()
            .starts_with("k51")
    );
    for path in [
        "config/show",
        "bitswap/stat",
        "swarm/addrs",
        "swarm/addrs/local",
        "repo/version",
        "pin/verify",
    ] {
        assert_eq!(served.post(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn settings_are_read_by_key_and_those_of_the_service_cannot_be_set() {
    let served = Served::start().await;
    let own = served.node.id().peer_id.to_string();
    let asked = served.post("config?arg=Identity.PeerID").await;
    assert_eq!(
        asked.text(),
        format!("{{\"Key\":\"Identity.PeerID\",\"Value\":\"{own}\"}}\n")
    );
    assert!(served.post("config/Addresses.Swarm").await.json()["Value"].is_array());
    let kept = served.post("config?arg=Datastore.StorageMax").await.json();
    assert!(kept["Value"].as_str().unwrap().ends_with('B'), "{kept}");
    served
        .upload("block/put", &[("b", OCTETS, &[7; 1_000_000])])
        .await
        .json();
    let again = served.post("config?arg=Datastore.StorageMax").await.json();
    assert_eq!(kept, again, "a setting does not follow the free space");
    for (query, message) in [
        ("arg=Bananas", "failed to get config value: \"Bananas not found\""),
        (
            "arg=Bootstrap.0",
            "failed to get config value: \"Bootstrap key is not a map\"",
        ),
        (
            "arg=Identity.PrivKey",
            "cannot show or change private key through API",
        ),
        ("arg=Identity", "cannot show or change private key through API"),
        (
            "arg=Gateway.NoFetch&arg=true&bool=true",
            "failed to set config value: cannot set \"Gateway.NoFetch\": change \
             ipfs_connector.embedded.gateway_no_fetch in service.json and restart (maybe use --json?)",
        ),
        (
            "arg=Bananas&arg=1",
            "failed to set config value: Bananas not found (maybe use --json?)",
        ),
        (
            "arg=Discovery.MDNS.Enabled&arg=1",
            "failed to set config value: \"Discovery.MDNS.Enabled\" must be true or false (maybe use --json?)",
        ),
        (
            "arg=Identity.PeerID&arg=1",
            "cannot set Identity.PeerID: the node's key determines it",
        ),
    ] {
        let refused = served.post(&format!("config?{query}")).await;
        assert_eq!(
            (refused.status, &refused.json()["Message"]),
            (500, &json!(message))
        );
    }
}

#[tokio::test]
async fn keys_of_kubo_are_kept_as_they_were_set() {
    let served = Served::start().await;
    for (query, value) in [
        ("arg=Gateway.RootRedirect&arg=/x", json!("/x")),
        ("arg=Gateway.MaxConcurrentRequests&arg=11&json=true", json!(11)),
        ("arg=Discovery.MDNS.Enabled&arg=true&bool=true", json!(true)),
        ("arg=API.HTTPHeaders.X-A&arg=[%22a%22]&json=true", json!(["a"])),
    ] {
        let set = served.post(&format!("config?{query}")).await.json();
        assert_eq!(set["Value"], value);
        let key = set["Key"].as_str().unwrap();
        assert_eq!(served.post(&format!("config?arg={key}")).await.json(), set);
    }
    let file = br#"{"Addresses":{"API":"/ip4/1.2.3.4/tcp/1"},"Identity":{"PeerID":"x"}}"#;
    let replaced = served.upload("config/replace", &[("file", OCTETS, file)]).await;
    assert_eq!((replaced.status, replaced.text().as_str()), (200, ""));
    let shown = served.post("config/show").await.json();
    assert_eq!(shown["Addresses"]["API"], "/ip4/1.2.3.4/tcp/1");
    assert_eq!(
        (&shown["Addresses"]["Swarm"], &shown["Gateway"]["RootRedirect"]),
        (&json!(null), &json!(""))
    );
    assert_eq!(shown["Identity"]["PeerID"], served.node.id().peer_id.to_string());
    for (file, why) in [
        (&b"{"[..], "EOF"),
        (b"[]", "expected a map"),
        (br#"{"Fruit": 1}"#, "Fruit not found"),
        (
            br#"{"Discovery": {"MDNS": {"Enabled": 1}}}"#,
            "\"Discovery.MDNS.Enabled\" must be true or false",
        ),
    ] {
        let refused = served
            .upload("config/replace", &[("file", OCTETS, file)])
            .await
            .json();
        let message = refused["Message"].as_str().unwrap();
        assert!(
            message.starts_with("failed to decode file as config: "),
            "{message}"
        );
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(
        served.post("config/replace").await.text(),
        "file argument 'file' is required\n"
    );
}

#[tokio::test]
async fn profiles_change_the_settings_of_the_next_start() {
    let served = Served::start().await;
    let before = served.post("config/show").await.json();
    let dry = served
        .post("config/profile/apply?arg=lowpower&dry-run=true")
        .await
        .json();
    assert_eq!(dry["OldCfg"], before);
    assert_eq!(dry["NewCfg"]["Swarm"]["ConnMgr"]["LowWater"], 20);
    assert_eq!(served.post("config/show").await.json(), before);
    let applied = served.post("config/profile/apply?arg=lowpower").await.json();
    assert_eq!(applied, dry);
    assert_eq!(served.post("config/show").await.json(), dry["NewCfg"]);
    let unknown = served.post("config/profile/apply?arg=badgerds").await.json();
    assert!(
        unknown["Message"]
            .as_str()
            .unwrap()
            .starts_with("badgerds is not a profile")
    );
}

#[tokio::test]
async fn absent_subcommands_are_unknown_and_not_arguments() {
    let served = Served::start().await;
    for absent in [
        "version/deps",
        "version/check",
        "commands/completion",
        "config/profile",
        "config/edit",
    ] {
        assert_eq!(served.post(absent).await.status, 404, "{absent}");
    }
    // Like in Kubo, a command without arguments ignores one.
    assert_eq!(served.post("version/other").await.status, 200);
}

#[tokio::test]
async fn id_of_a_connected_node_is_its_own_answer() {
    let (served, other) = (Served::start().await, Served::start().await);
    let theirs = other.post("id").await.json();
    let (id, address) = (
        theirs["ID"].as_str().unwrap(),
        theirs["Addresses"][0].as_str().unwrap(),
    );
    let unknown = served.post(&format!("id?arg={id}")).await;
    assert_eq!(
        (unknown.status, &unknown.json()["Message"]),
        (500, &json!("routing: not found"))
    );
    assert_eq!(
        served.post(&format!("swarm/connect?arg={address}")).await.status,
        200
    );
    // The connection is established before the identify message arrives.
    let known = loop {
        let asked = served.post(&format!("id?arg={id}")).await;
        if asked.status == 200 {
            break asked.json();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(known, theirs);
    let peers = served.post("swarm/peers?verbose=true").await.json();
    assert_eq!(peers["Peers"][0]["Latency"], "n/a");
    assert!(served.post("swarm/peers").await.json()["Peers"][0]["Latency"].is_null());
}

#[tokio::test]
async fn wantlists_name_the_blocks_that_a_node_or_its_peer_waits_for() {
    const ABSENT: &str = "QmUBdnXXPyoDFXj3Hj39dNJ5VkN3QFRskXxcGaYFBB8CNR";
    let (served, other) = (Served::start().await, Served::start().await);
    let wanted = async |at: &Served, query: &str| {
        let answer = at.post(&format!("bitswap/wantlist{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["Keys"].clone()
    };
    let until = async |at: &Served, query: &str, expected: serde_json::Value| {
        while wanted(at, query).await != expected {
            tokio::task::yield_now().await;
        }
    };
    served
        .node
        .connect(other.node.id().addresses[0].clone())
        .await
        .unwrap();
    let peer = format!("?peer={}", served.node.id().peer_id);
    let path = format!("block/get?arg={ABSENT}");
    tokio::select! {
        answer = served.post(&path) => panic!("{}", answer.text()),
        () = until(&served, "", json!([{"/": ABSENT}])) => {}
    }
    // A dropped request wants nothing.
    until(&served, "", json!([])).await;
    tokio::select! {
        answer = served.post(&path) => panic!("{}", answer.text()),
        () = until(&other, &peer, json!([{"/": ABSENT}])) => {}
    }
    assert_eq!(wanted(&other, "").await, json!([]));
    until(&other, &peer, json!([])).await;
    assert_eq!(served.post("bitswap/wantlist?peer=x").await.status, 500);
}

/// Expected answers: Kubo 0.40, `core/commands/swarm.go`, `core/coreapi/swarm.go`.
#[tokio::test]
async fn disconnect_lists_unknown_peers_and_addresses_as_failures() {
    let (served, other) = (Served::start().await, Served::start().await);
    let peer = other.node.id().peer_id;
    let address = other.node.id().addresses[0].clone();
    let disconnect = async |address: String| {
        let answer = served.post(&format!("swarm/disconnect?arg={address}")).await;
        assert_eq!(answer.status, 200);
        answer.json()["Strings"][0].as_str().unwrap().to_owned()
    };
    let unknown = format!("disconnect {peer} failure: not connected");
    assert_eq!(disconnect(format!("/p2p/{peer}")).await, unknown);
    let not_found = format!("disconnect {peer} failure: conn not found");
    assert_eq!(disconnect(address.to_string()).await, not_found);
    served.node.connect(address.clone()).await.unwrap();
    let elsewhere = format!("/ip4/127.0.0.1/tcp/1/p2p/{peer}");
    assert_eq!(disconnect(elsewhere).await, not_found);
    assert_eq!(served.node.peers().await.len(), 1);
    let success = format!("disconnect {peer} success");
    assert_eq!(disconnect(address.to_string()).await, success);
}

fn block(text: &'static str) -> Block {
    let hash =
        multihash_codetable::MultihashDigest::digest(&multihash_codetable::Code::Sha2_256, text.as_bytes());
    Block {
        cid: Cid::new_v1(0x55, hash.resize().expect("grows only")),
        data: text.into(),
    }
}

async fn every_call(backend: &Backend, other: &Served) {
    let added = other
        .upload("add?cid-version=1", &[("big", OCTETS, &content(3_000_000))])
        .await
        .lines();
    let root: Cid = added[0]["Hash"].as_str().unwrap().parse().unwrap();
    let id = backend.id().await.unwrap();
    assert!(id.agent.contains('/'), "{}", id.agent);
    assert_eq!(
        backend.connect(&other.node.id().addresses).await,
        other.node.id().addresses.len()
    );
    assert_eq!(backend.swarm_peers().await.unwrap(), [other.node.id().peer_id]);

    assert_eq!(backend.pin_status(&root).await.unwrap(), PinState::Unpinned);
    backend
        .pin(
            &PinRequest {
                name: "n".into(),
                ..PinRequest::recursive(root)
            },
            &|_| (),
        )
        .await
        .unwrap();
    assert_eq!(
        backend.pin_status(&root).await.unwrap(),
        PinState::Pinned(PinMode::Recursive)
    );

    let (a, b) = (block("a"), block("b"));
    let stored = backend
        .put_blocks(stream::iter([Ok(a.clone()), Ok(b.clone())]))
        .await
        .unwrap();
    assert_eq!((stored.blocks, stored.bytes), (2, 2));
    assert_eq!(backend.get_block(&a.cid).await.unwrap(), a.data);
    backend
        .pin(
            &PinRequest {
                mode: PinMode::Direct,
                ..PinRequest::recursive(a.cid)
            },
            &|_| (),
        )
        .await
        .unwrap();
    let mut pins: Vec<_> = backend.pins().try_collect().await.unwrap();
    pins.sort_by_key(|(_, mode)| *mode);
    assert_eq!(pins, [(root, PinMode::Recursive), (a.cid, PinMode::Direct)]);

    assert_eq!(
        backend.resolve(&format!("/ipfs/{root}").into()).await.unwrap(),
        root
    );
    assert!(backend.repo_stat().await.unwrap().size > 3_000_000);
    let is_removed = |found: &Collected| futures::future::ready(matches!(found, Collected::Removed(_)));
    let removed = || backend.repo_gc().try_filter(is_removed);
    let collected: Vec<_> = removed().try_collect().await.unwrap();
    assert_eq!(collected, [Collected::Removed(b.cid)]);
    backend.unpin(&root).await.unwrap();
    backend.unpin(&root).await.unwrap();
    assert_eq!(removed().collect::<Vec<_>>().await.len(), 13);
    let failure = cluster_ipfs::backend::Error::new(Cause::Cancelled, "add", "enough");
    let broken = stream::iter([Ok(b), Err(failure)]);
    assert_eq!(backend.put_blocks(broken).await.unwrap_err().message(), "enough");
}

#[tokio::test]
async fn client_makes_every_call_to_our_own_api() {
    let (served, other) = (Served::start().await, Served::start().await);
    every_call(&Backend::Kubo(served.client()), &other).await;
    let client = served.client();
    let own = client.config_value("Identity/PeerID").await.unwrap();
    assert_eq!(own, Value::String(served.node.id().peer_id.to_string()));
    let error = client.config_value("Identity/PrivKey").await.unwrap_err();
    assert_eq!(error.cause(), Cause::Refused);
}

#[tokio::test]
async fn embedded_backend_answers_every_call_like_the_client() {
    let (served, other) = (Served::start().await, Served::start().await);
    every_call(&Backend::Embedded(served.node.clone()), &other).await;
}
