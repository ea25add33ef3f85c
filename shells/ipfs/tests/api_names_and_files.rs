//! Keys, names, the file system and the commands on CIDs, through the API.

mod support;

use serde_json::{Value, json};
use support::Served;
use support::dns::FakeDns;

const OCTETS: &str = "application/octet-stream";
const EMPTY_DIRECTORY: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

/// Sends a command, which must succeed, and returns its only object.
async fn ok(served: &Served, path: &str) -> Value {
    let answer = served.post(path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.json()
}

/// Sends a command without results, which must succeed.
async fn done(served: &Served, path: &str) {
    let answer = served.post(path).await;
    assert_eq!(
        (answer.status, answer.trailer(), answer.text().as_str()),
        (200, None, ""),
        "{path}"
    );
}

/// Sends a command, which must fail, and returns its message.
async fn refused(served: &Served, path: &str) -> String {
    let answer = served.post(path).await;
    assert_eq!(answer.status, 500, "{path}: {}", answer.text());
    answer.json()["Message"].as_str().unwrap().to_owned()
}

/// Writes bytes into a file.
async fn write(served: &Served, path: &str, content: &[u8]) {
    let answer = served
        .upload(&format!("files/write?arg={path}"), &[("data", OCTETS, content)])
        .await;
    assert_eq!(
        (answer.status, answer.trailer()),
        (200, None),
        "{path}: {}",
        answer.text()
    );
}

async fn read(served: &Served, path: &str) -> Vec<u8> {
    let answer = served.post(&format!("files/read?arg={path}")).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.body
}

async fn add(served: &Served, content: &str) -> String {
    let answer = served.upload("add", &[("f", OCTETS, content.as_bytes())]).await;
    answer.lines()[0]["Hash"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn keys_are_created_listed_renamed_and_removed() {
    let served = Served::start().await;
    let key = ok(&served, "key/gen?arg=one&type=ed25519").await;
    assert_eq!(key["Name"], "one");
    let id = key["Id"].as_str().unwrap();
    assert!(id.starts_with("k51"), "{id}");
    assert!(
        refused(&served, "key/gen?arg=one")
            .await
            .contains("already exists")
    );
    assert!(refused(&served, "key/gen?arg=self").await.contains("'self'"));
    assert!(
        refused(&served, "key/gen?arg=two&type=secp256k1")
            .await
            .contains("ed25519")
    );
    let renamed = ok(&served, "key/rename?arg=one&arg=two").await;
    assert_eq!(
        renamed,
        json!({"Was": "one", "Now": "two", "Id": id, "Overwrite": false})
    );
    let listed = ok(&served, "key/list?ipns-base=b58mh").await;
    let names: Vec<&str> = listed["Keys"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["Name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["self", "two"]);
    assert!(listed["Keys"][1]["Id"].as_str().unwrap().starts_with("12D3"));
    let removed = ok(&served, "key/rm?arg=two").await;
    assert_eq!(removed, json!({"Keys": [{"Name": "two", "Id": id}]}));
    assert_eq!(
        refused(&served, "key/rm?arg=two").await,
        "no key named two was found"
    );
    let imported = served
        .upload("key/import?arg=bad", &[("key", OCTETS, b"garbage")])
        .await;
    assert!(
        imported.text().contains("unable to unmarshall"),
        "{}",
        imported.text()
    );
}

#[tokio::test]
async fn rsa_keys_are_created_renamed_and_publish_names() {
    let served = Served::start().await;
    let cid = add(&served, "published\n").await;
    let key = ok(&served, "key/gen?arg=old&type=rsa&size=2048").await;
    let id = key["Id"].as_str().unwrap();
    assert!(id.starts_with("k2k4"), "{id}");
    assert!(
        refused(&served, "key/gen?arg=small&type=rsa&size=1024")
            .await
            .contains("2048")
    );
    ok(&served, "key/rename?arg=old&arg=new").await;
    let published = ok(
        &served,
        &format!("name/publish?arg={cid}&key=new&allow-offline=true"),
    )
    .await;
    assert_eq!(published["Name"], id);
    let resolved = ok(&served, &format!("name/resolve?arg={id}")).await;
    assert_eq!(resolved["Path"], format!("/ipfs/{cid}"));
}

#[tokio::test]
async fn directories_above_the_configured_size_are_sharded() {
    let served = Served::start().await;
    let link = async |folder: &str| {
        done(&served, &format!("files/mkdir?arg={folder}")).await;
        let answer = served
            .upload(
                &format!("files/write?arg={folder}/name&create=true"),
                &[("data", OCTETS, b"content")],
            )
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let root = ok(&served, &format!("files/stat?arg={folder}")).await;
        let node = ok(
            &served,
            &format!("dag/get?arg={}", root["Hash"].as_str().unwrap()),
        )
        .await;
        node["Links"][0]["Name"].as_str().unwrap().to_owned()
    };
    assert_eq!(link("/small").await, "name");
    for key in [
        "Import.UnixFSHAMTDirectorySizeThreshold",
        "Internal.UnixFSShardingSizeThreshold",
    ] {
        ok(&served, &format!("config?arg={key}&arg=1B")).await;
        // The name in a shard follows two digits of its hash.
        let sharded = link(&format!("/{key}")).await;
        assert!(
            sharded.len() == "00name".len() && sharded.ends_with("name"),
            "{sharded}"
        );
        ok(&served, &format!("config?arg={key}&arg=null&json=true")).await;
    }
    assert_eq!(link("/again").await, "name");
    refused(
        &served,
        "config?arg=Import.UnixFSHAMTDirectorySizeThreshold&arg=2MiB",
    )
    .await;
}

#[tokio::test]
async fn names_are_published_and_resolved_with_the_rest_of_the_path() {
    let served = Served::start().await;
    let cid = add(&served, "published\n").await;
    let published = ok(&served, &format!("name/publish?arg={cid}&allow-offline=true")).await;
    assert_eq!(published["Value"], format!("/ipfs/{cid}"));
    let own = published["Name"].as_str().unwrap().to_owned();
    assert_eq!(ok(&served, "name/resolve").await["Path"], format!("/ipfs/{cid}"));
    let other = ok(&served, "key/gen?arg=other").await["Id"]
        .as_str()
        .unwrap()
        .to_owned();
    ok(
        &served,
        &format!("name/publish?arg=/ipns/{own}&key=other&resolve=false&lifetime=24h&ttl=10s"),
    )
    .await;
    let full = ok(
        &served,
        &format!("name/resolve?arg=/ipns/{other}/remainder/file.txt"),
    )
    .await;
    assert_eq!(full["Path"], format!("/ipfs/{cid}/remainder/file.txt"));
    let step = ok(&served, &format!("name/resolve?arg={other}&recursive=false")).await;
    assert_eq!(step["Path"], format!("/ipns/{own}"));
    let stream = served.post(&format!("name/resolve?arg={own}&stream=true")).await;
    assert_eq!(stream.lines(), [json!({"Path": format!("/ipfs/{cid}")})]);
    // Other commands take such paths too.
    assert_eq!(
        served.post(&format!("cat?arg=/ipns/{other}")).await.text(),
        "published\n"
    );
    assert_eq!(
        ok(&served, &format!("resolve?arg=/ipns/{other}")).await["Path"],
        format!("/ipfs/{cid}")
    );
    for (query, why) in [
        (
            "arg=/ipfs/bafkqaaa&key=missing",
            "no key by the given name was found",
        ),
        ("arg=/ipfs/bafkqaaa&lifetime=0s", "greater than zero"),
        (
            "arg=/ipfs/bafkqaaa&lifetime=1m&ttl=1h",
            "must not be greater than lifetime",
        ),
        ("arg=/ipfs/bafkqaaa&sequence=0", "cannot set sequence number"),
    ] {
        let message = refused(&served, &format!("name/publish?{query}")).await;
        assert!(message.contains(why), "{query}: {message}");
    }
}

#[tokio::test]
async fn records_move_between_nodes() {
    let (one, two) = (Served::start().await, Served::start().await);
    let published = ok(&one, "name/publish?arg=/ipfs/bafkqaaa&resolve=false").await;
    let name = published["Name"].as_str().unwrap();
    let record = one.post(&format!("name/get?arg={name}")).await.body;
    let event = one.post(&format!("routing/get?arg=/ipns/{name}")).await.lines();
    assert_eq!(
        (&event[0]["Type"], &event[0]["Responses"]),
        (&json!(5), &Value::Null)
    );
    let missing = refused(&two, &format!("routing/get?arg=/ipns/{name}")).await;
    assert_eq!(missing, "routing: not found");
    let put = two
        .upload(
            &format!("routing/put?arg=/ipns/{name}&allow-offline=true"),
            &[("r", OCTETS, &record)],
        )
        .await;
    assert_eq!((put.status, &put.lines()[0]["Type"]), (200, &json!(5)));
    let resolved = ok(&two, &format!("name/resolve?arg={name}")).await;
    assert_eq!(resolved["Path"], "/ipfs/bafkqaaa");
    let inspected = two
        .upload(
            &format!("name/inspect?verify={name}&dump=false"),
            &[("r", OCTETS, &record)],
        )
        .await
        .json();
    assert_eq!(inspected["Entry"]["Value"], "/ipfs/bafkqaaa");
    assert_eq!(inspected["Validation"]["Valid"], true);
    let mut forged = record.clone();
    *forged.last_mut().unwrap() ^= 1;
    let refused = two
        .upload(
            &format!("routing/put?arg=/ipns/{name}"),
            &[("r", OCTETS, &forged)],
        )
        .await;
    assert_eq!(refused.status, 500, "{}", refused.text());
}

#[tokio::test]
async fn domains_are_resolved_by_the_api() {
    let served = Served::start().await;
    let dns = FakeDns::start(&[("_dnslink.example.org", &["dnslink=/ipfs/bafkqabtimvwgy3yk"])]).await;
    served.node.use_dns_servers(&[dns.address]).unwrap();
    let resolved = ok(&served, "name/resolve?arg=example.org").await;
    assert_eq!(resolved["Path"], "/ipfs/bafkqabtimvwgy3yk");
    assert_eq!(served.post("cat?arg=/ipns/example.org").await.text(), "hello\n");
    let message = refused(&served, "name/resolve?arg=missing.example.org").await;
    assert!(message.contains("could not resolve name"), "{message}");
}

#[tokio::test]
async fn files_are_written_read_and_measured() {
    let served = Served::start().await;
    let root = ok(&served, "files/stat?arg=/").await;
    assert_eq!(root["Hash"], EMPTY_DIRECTORY);
    assert_eq!(
        (&root["Size"], &root["CumulativeSize"], &root["Blocks"]),
        (&json!(0), &json!(4), &json!(0))
    );
    assert_eq!(root["Type"], "directory");
    write(&served, "/a/b.txt&create=true&parents=true", b"Hello, World!").await;
    // The sizes of Kubo: one leaf below the root of the file.
    let stat = ok(&served, "files/stat?arg=/a/b.txt&with-local=true").await;
    assert_eq!(
        (&stat["Size"], &stat["CumulativeSize"], &stat["Blocks"]),
        (&json!(13), &json!(71), &json!(1))
    );
    assert_eq!(
        (&stat["Type"], &stat["Local"], &stat["SizeLocal"]),
        (&json!("file"), &json!(true), &json!(71))
    );
    assert_eq!(read(&served, "/a/b.txt").await, b"Hello, World!");
    assert_eq!(read(&served, "/a/b.txt&offset=7&count=5").await, b"World");
    write(&served, "/a/b.txt&offset=7", b"there").await;
    assert_eq!(read(&served, "/a/b.txt").await, b"Hello, there!");
    write(&served, "/a/b.txt&offset=15&count=2", b"xyz").await;
    assert_eq!(read(&served, "/a/b.txt").await, b"Hello, there!\0\0xy");
    write(&served, "/a/b.txt&truncate=true", b"new").await;
    assert_eq!(read(&served, "/a/b.txt").await, b"new");
    let listed = ok(&served, "files/ls?arg=/a&long=true").await;
    assert_eq!(listed["Entries"][0]["Name"], "b.txt");
    assert_eq!(
        (&listed["Entries"][0]["Type"], &listed["Entries"][0]["Size"]),
        (&json!(0), &json!(3))
    );
    assert_eq!(ok(&served, "files/ls").await["Entries"][0]["Name"], "a");
    for (path, why) in [
        ("files/stat?arg=/missing", "file does not exist"),
        ("files/stat?arg=a", "paths must start with a leading slash"),
        ("files/read?arg=/a", "was not a file"),
        ("files/stat?arg=/a/b.txt/c", "Not a directory"),
        ("files/ls?arg=", "paths must not be empty"),
        (
            "files/read?arg=/a/b.txt&offset=-1",
            "cannot specify negative offset",
        ),
        ("files/read?arg=/a/b.txt&offset=9", "offset was past end of file"),
    ] {
        let message = refused(&served, path).await;
        assert!(message.contains(why), "{path}: {message}");
    }
    let through_a_file = served
        .upload("files/write?arg=/a/b.txt/c&create=true", &[("d", OCTETS, b"x")])
        .await;
    let text = through_a_file.text();
    assert!(text.contains("Not a directory"), "{text}");
    let missing = served
        .upload("files/write?arg=/no/such&create=true", &[("d", OCTETS, b"x")])
        .await;
    assert!(
        missing.text().contains("file does not exist"),
        "{}",
        missing.text()
    );
}

#[tokio::test]
async fn new_files_take_version_and_hash_from_their_directory() {
    let served = Served::start().await;
    done(&served, "files/mkdir?arg=/v1&cid-version=1").await;
    write(&served, "/v1/file&create=true", b"content").await;
    let stat = ok(&served, "files/stat?arg=/v1/file").await;
    assert!(stat["Hash"].as_str().unwrap().starts_with("bafy"), "{stat}");
    done(&served, "files/mkdir?arg=/v1/deep/er&parents=true&hash=sha2-512").await;
    let deep = ok(&served, "files/stat?arg=/v1/deep/er").await;
    assert!(deep["Hash"].as_str().unwrap().starts_with("bafybgq"), "{deep}");
    done(&served, "files/chcid?arg=/v1&cid-version=0").await;
    let changed = ok(&served, "files/stat?arg=/v1").await;
    assert!(changed["Hash"].as_str().unwrap().starts_with("Qm"), "{changed}");
}

#[tokio::test]
async fn entries_are_copied_moved_and_removed() {
    let served = Served::start().await;
    let cid = add(&served, "copied\n").await;
    done(&served, "files/mkdir?arg=/dir").await;
    assert_eq!(
        refused(&served, "files/mkdir?arg=/dir").await,
        "file already exists"
    );
    done(&served, "files/mkdir?arg=/dir&parents=true").await;
    assert_eq!(
        refused(&served, "files/mkdir?arg=/no/such").await,
        "file does not exist"
    );
    done(&served, &format!("files/cp?arg=/ipfs/{cid}&arg=/dir/one")).await;
    let again = refused(&served, &format!("files/cp?arg=/ipfs/{cid}&arg=/dir/one")).await;
    assert!(
        again.contains("directory already has entry by that name"),
        "{again}"
    );
    done(
        &served,
        &format!("files/cp?arg=/ipfs/{cid}&arg=/dir/one&force=true"),
    )
    .await;
    done(&served, "files/cp?arg=/dir/one&arg=/made/by/parents&parents=true").await;
    assert_eq!(read(&served, "/made/by/parents").await, b"copied\n");
    done(&served, "files/mv?arg=/dir/one&arg=/made").await;
    assert_eq!(read(&served, "/made/one").await, b"copied\n");
    done(&served, "files/mv?arg=/made/one&arg=/made/two").await;
    assert_eq!(ok(&served, "files/ls?arg=/dir").await["Entries"], Value::Null);
    let into_itself = refused(&served, "files/mv?arg=/made&arg=/made/by").await;
    assert!(into_itself.contains("into itself"), "{into_itself}");
    let directory = refused(&served, "files/rm?arg=/made").await;
    assert!(
        directory.contains("path is a directory, use -r to remove directories"),
        "{directory}"
    );
    assert!(
        refused(&served, "files/rm?arg=/")
            .await
            .contains("cannot delete root")
    );
    done(&served, "files/rm?arg=/made&recursive=true").await;
    done(&served, "files/rm?arg=/made&force=true").await;
    done(&served, "files/rm?arg=/dir&recursive=true").await;
    assert_eq!(ok(&served, "files/stat?arg=/").await["Hash"], EMPTY_DIRECTORY);
    let unflushed = refused(&served, "files/rm?arg=/x&flush=false").await;
    assert!(unflushed.contains("always flushes"), "{unflushed}");
}

/// Names are bytes in UnixFS and in Go: those of a folder in Latin-1 are found by every command.
#[tokio::test]
async fn names_that_are_not_utf8_are_found_by_their_bytes() {
    let served = Served::start().await;
    write(&served, "/d/caf%E9&create=true&parents=true", b"one").await;
    write(&served, "/d/caf%E8&create=true", b"two").await;
    assert_eq!(read(&served, "/d/caf%E9").await, b"one");
    done(&served, "files/mv?arg=/d/caf%E8&arg=/d/th%E8").await;
    let root = ok(&served, "files/stat?arg=/d").await["Hash"]
        .as_str()
        .unwrap()
        .to_owned();
    let file = ok(&served, "files/stat?arg=/d/caf%E9").await["Hash"].clone();
    for command in ["cat", "get"] {
        let answer = served.post(&format!("{command}?arg=/ipfs/{root}/caf%E9")).await;
        assert!(
            answer.status == 200 && answer.body.windows(3).any(|part| part == b"one"),
            "{command}: {}",
            answer.text()
        );
    }
    let resolved = ok(&served, &format!("resolve?arg={root}/caf%E9")).await;
    assert_eq!(resolved["Path"], format!("/ipfs/{}", file.as_str().unwrap()));
    let pinned = ok(&served, &format!("pin/add/{root}%2Fth%E8")).await;
    assert_eq!(
        pinned["Pins"],
        json!([ok(&served, "files/stat?arg=/d/th%E8").await["Hash"]])
    );
    done(&served, &format!("files/cp?arg=/ipfs/{root}/caf%E9&arg=/copy%E9")).await;
    assert_eq!(read(&served, "/copy%E9").await, b"one");
    let missing = refused(&served, &format!("cat?arg={root}/x%FF")).await;
    assert_eq!(missing, format!("no link named \"x\u{fffd}\" under {root}"));
    let answer = served.post("key/gen?arg=%FF").await;
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[tokio::test]
async fn modes_and_times_are_kept_by_later_writes() {
    let served = Served::start().await;
    write(&served, "/file&create=true", b"one").await;
    done(&served, "files/chmod?arg=0644&arg=/file").await;
    done(&served, "files/touch?arg=/file&mtime=1604320482").await;
    write(&served, "/file&offset=3", b" two").await;
    let stat = ok(&served, "files/stat?arg=/file").await;
    assert_eq!(
        (&stat["Mode"], &stat["Mtime"]),
        (&json!("0644"), &json!(1_604_320_482))
    );
    assert_eq!(read(&served, "/file").await, b"one two");
    done(&served, "files/chmod?arg=0700&arg=/").await;
    assert_eq!(ok(&served, "files/stat?arg=/").await["Mode"], "0700");
}

#[tokio::test]
async fn collections_keep_the_files_and_remove_what_was_removed() {
    let served = Served::start().await;
    write(&served, "/kept&create=true", b"kept").await;
    write(&served, "/removed&create=true", b"removed").await;
    let removed = ok(&served, "files/stat?arg=/removed").await["Hash"]
        .as_str()
        .unwrap()
        .to_owned();
    done(&served, "files/rm?arg=/removed").await;
    assert_eq!(served.post("repo/gc").await.status, 200);
    assert_eq!(read(&served, "/kept").await, b"kept");
    let gone = served
        .post(&format!("block/stat?arg={removed}&offline=true"))
        .await;
    assert_eq!(gone.status, 500);
}

#[tokio::test]
async fn changes_without_a_flush_are_limited_and_flushed_together() {
    let served = Served::start().await;
    for at in 0..256 {
        done(&served, &format!("files/mkdir?arg=/{at}&flush=false")).await;
    }
    let message = refused(&served, "files/mkdir?arg=/more&flush=false").await;
    assert!(message.contains("reached limit of 256 unflushed"), "{message}");
    let flushed = ok(&served, "files/flush").await;
    assert_eq!(flushed["Cid"], ok(&served, "files/stat?arg=/").await["Hash"]);
    done(&served, "files/mkdir?arg=/more&flush=false").await;
    assert_eq!(
        ok(&served, "files/ls").await["Entries"].as_array().unwrap().len(),
        257
    );
}

#[tokio::test]
async fn uploads_go_into_the_file_system() {
    let served = Served::start().await;
    let added = served
        .upload("add?to-files=/", &[("hello.txt", OCTETS, b"hello\n")])
        .await;
    assert_eq!(added.trailer(), None);
    assert_eq!(read(&served, "/hello.txt").await, b"hello\n");
    let named = served
        .upload(
            "add?to-files=/other.txt&pin=false",
            &[("hello.txt", OCTETS, b"other\n")],
        )
        .await;
    assert_eq!(named.trailer(), None);
    assert_eq!(read(&served, "/other.txt").await, b"other\n");
    let taken = served
        .upload("add?to-files=/", &[("hello.txt", OCTETS, b"again\n")])
        .await;
    let why = taken.trailer().unwrap();
    assert!(why.contains("directory already has entry by that name"), "{why}");
}

#[tokio::test]
async fn large_directories_are_sharded_and_shrink_again() {
    let served = Served::start().await;
    let cid = add(&served, "x").await;
    let name = "n".repeat(2000);
    // Names and CIDs of more than 256 KiB together.
    for at in 0..140 {
        done(
            &served,
            &format!("files/cp?arg=/ipfs/{cid}&arg=/{name}{at}&flush=false"),
        )
        .await;
    }
    let root = ok(&served, "files/stat?arg=/").await;
    // Some names share a slot of the first shard.
    assert!(root["Blocks"].as_u64().unwrap() < 140, "{root}");
    assert_eq!(read(&served, &format!("/{name}7")).await, b"x");
    for at in 0..20 {
        done(&served, &format!("files/rm?arg=/{name}{at}")).await;
    }
    assert_eq!(ok(&served, "files/stat?arg=/").await["Blocks"], 120);
}

#[tokio::test]
async fn cids_are_converted_and_inspected() {
    let served = Served::start().await;
    let v0 = "QmVr26fY1tKyspEJBniVhqxQeEjhF78XerGiqWAwraVLQH";
    let base32 = served.post(&format!("cid/base32?arg={v0}&arg=bad")).await.lines();
    let v1 = base32[0]["Formatted"].as_str().unwrap().to_owned();
    assert!(v1.starts_with("bafybei"), "{v1}");
    assert_ne!(base32[1]["ErrorMsg"], "");
    let back = served.post(&format!("cid/format?arg={v1}&v=0")).await.lines();
    assert_eq!(back[0]["Formatted"], v0);
    let base36 = served
        .post(&format!("cid/format?arg={v0}&b=base36&mc=raw"))
        .await
        .lines();
    assert!(
        base36[0]["Formatted"].as_str().unwrap().starts_with('k'),
        "{base36:?}"
    );
    let inspected = ok(&served, &format!("cid/inspect?arg={v0}")).await;
    assert_eq!(
        (&inspected["version"], &inspected["cidV1"]),
        (&json!(0), &json!(v1))
    );
    assert_eq!(inspected["multihash"]["name"], "sha2-256");
    for listing in ["bases", "codecs", "hashes"] {
        let listed = ok(&served, &format!("cid/{listing}")).await;
        assert!(listed.as_array().unwrap().len() > 5, "{listing}");
    }
    assert!(
        refused(&served, &format!("cid/format?arg={v0}&f=x"))
            .await
            .contains("invalid format")
    );
}

#[tokio::test]
async fn the_system_is_described_and_the_program_is_asked_to_end() {
    let served = Served::start().await;
    let system = ok(&served, "diag/sys").await;
    assert!(system["diskinfo"]["total_space"].as_u64().unwrap() > 0);
    assert!(system["memory"]["virt"].is_u64());
    let requested = served.node.shutdown_requested();
    done(&served, "shutdown").await;
    requested.await;
    let late = served.post("swarm/peers").await;
    assert_eq!(
        (late.status, late.text().as_str()),
        (503, "the node is shutting down\n")
    );
}
