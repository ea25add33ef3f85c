//! Answers of the API about DAGs, compared with Kubo's.

mod support;

use std::io::Read;

use serde_json::json;
use support::Served;

const OCTETS: &str = "application/octet-stream";

async fn add(served: &Served, parts: &[(&str, &[u8])]) -> String {
    let parts: Vec<_> = parts
        .iter()
        .map(|(name, content)| (*name, OCTETS, *content))
        .collect();
    let lines = served.upload("add?pin=false", &parts).await.lines();
    lines.last().unwrap()["Hash"].as_str().unwrap().to_owned()
}

fn unzipped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

#[tokio::test]
async fn dag_stat_counts_shared_blocks_once() {
    let served = Served::start().await;
    let big = vec![7; 600_000];
    let file = add(&served, &[("big", &big)]).await;
    let root = add(&served, &[("d/a", b"1"), ("d/big", &big)]).await;
    let answer = served
        .post(&format!("dag/stat?progress=false&arg={root}&arg={file}"))
        .await
        .json();
    let [of_root, of_file] = [0, 1].map(|at| answer["DagStats"][at].clone());
    assert_eq!(of_root["Cid"], json!(root));
    assert_eq!(answer["TotalSize"], of_root["Size"]);
    assert_eq!(answer["UniqueBlocks"], of_root["NumBlocks"]);
    assert_eq!(answer["SharedSize"], of_file["Size"]);
    assert!(answer["Ratio"].as_f64().unwrap() > 1.9);
    let alone = served
        .post(&format!("dag/stat?progress=false&arg={root}"))
        .await
        .json();
    assert_eq!(
        (&alone["SharedSize"], &alone["Ratio"]),
        (&json!(null), &json!(1.0))
    );
}

#[tokio::test]
async fn get_compresses_files_and_archives() {
    let served = Served::start().await;
    let content = b"some content ".repeat(50_000);
    let cid = add(&served, &[("f", &content)]).await;
    let file = served.post(&format!("get?arg={cid}&compress=true")).await;
    assert_eq!(file.header("Content-Type"), Some("application/gzip"));
    assert!(file.body.len() < content.len() / 10);
    assert!(unzipped(&file.body) == content);
    let archive = served
        .post(&format!(
            "get?arg={cid}&compress=true&archive=true&compression-level=9"
        ))
        .await;
    let plain = served.post(&format!("get?arg={cid}")).await;
    assert!(unzipped(&archive.body) == plain.body);
    let folder = add(&served, &[("d/f", &content)]).await;
    let refused = served.post(&format!("get?arg={folder}&compress=true")).await;
    assert!(
        refused.text().contains("file is not regular"),
        "{}",
        refused.text()
    );
    let archive = served
        .post(&format!("get?arg={folder}&compress=true&archive=true"))
        .await;
    assert!(unzipped(&archive.body).len() > content.len());
    let refused = served
        .post(&format!("get?arg={cid}&compress=true&compression-level=10"))
        .await;
    assert_eq!(refused.status, 500);
    assert!(refused.text().contains("between 1 and 9"), "{}", refused.text());
}

#[tokio::test]
async fn cat_beyond_the_end_of_an_empty_file_is_empty() {
    let served = Served::start().await;
    let empty = add(&served, &[("f", b"")]).await;
    let full = add(&served, &[("f", b"abc")]).await;
    for (path, expected) in [
        (format!("cat?arg={empty}&offset=5"), ""),
        (format!("cat?arg={empty}"), ""),
        (format!("cat?arg={empty}&arg={full}&offset=1"), "bc"),
        (format!("cat?arg={full}&arg={full}&offset=4"), "bc"),
        (format!("cat?arg={full}&offset=3"), ""),
    ] {
        let answer = served.post(&path).await;
        assert_eq!(answer.text(), expected, "{path}");
        assert_eq!(
            answer.header("X-Content-Length"),
            Some(expected.len().to_string().as_str()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn indirect_pin_is_found_behind_a_direct_one() {
    let served = Served::start().await;
    let child = add(&served, &[("a", b"child")]).await;
    let root = add(&served, &[("d/a", b"child")]).await;
    served.post(&format!("pin/add?arg={root}")).await.json();
    served
        .post(&format!("pin/add?arg={child}&recursive=false"))
        .await
        .json();
    let kind = async |kind: &str| served.post(&format!("pin/ls?arg={child}&type={kind}")).await;
    let shown = |answer: support::Answer| answer.json()["Keys"][&child]["Type"].clone();
    let through = format!("indirect through {root}");
    assert_eq!(shown(kind("indirect").await), through.as_str());
    assert_eq!(shown(kind("direct").await), "direct");
    assert_eq!(shown(kind("all").await), "direct");
    assert_eq!(kind("recursive").await.status, 500);
}

#[tokio::test]
async fn default_storage_limit_is_the_disk() {
    let served = Served::start().await;
    let stat = served.post("repo/stat").await.json();
    let max = stat["StorageMax"].as_u64().unwrap();
    assert!(max > stat["RepoSize"].as_u64().unwrap() && max < 1 << 60, "{max}");
}

#[tokio::test]
async fn dag_cbor_with_strings_that_are_not_utf8_is_exported_whole() {
    let served = Served::start().await;
    let leaf = served.upload("block/put", &[("b", OCTETS, b"leaf")]).await.json();
    let leaf: cluster_ipfs::Cid = leaf["Key"].as_str().unwrap().parse().unwrap();
    let mut block = b"\xa2\x61l\xd8\x2a\x58".to_vec();
    let link = [&[0], &leaf.to_bytes()[..]].concat();
    block.push(link.len() as u8);
    block.extend(&link);
    block.extend(b"\x62\xff\xfe\x61\x80");
    let root = served
        .upload("block/put?cid-codec=dag-cbor&pin=true", &[("b", OCTETS, &block)])
        .await
        .json();
    let root = root["Key"].as_str().unwrap();
    let car = served.post(&format!("dag/export?arg={root}")).await;
    assert_eq!((car.status, car.trailer()), (200, None));
    assert!(car.body.windows(4).any(|it| it == b"leaf"));
    let data = served.post(&format!("dag/get?arg={root}")).await.json();
    assert_eq!(data["\u{fffd}\u{fffd}"], "\u{fffd}");
}

#[tokio::test]
async fn dag_jose_is_stored_walked_and_shown() {
    let served = Served::start().await;
    let leaf = served.upload("block/put", &[("b", OCTETS, b"leaf")]).await.json();
    let leaf: cluster_ipfs::Cid = leaf["Key"].as_str().unwrap().parse().unwrap();
    let mut block = b"\xa2\x67payload\x58".to_vec();
    block.push(leaf.to_bytes().len() as u8);
    block.extend(leaf.to_bytes());
    block.extend(b"\x6asignatures\x81\xa1\x69signature\x42\xff\xfe");
    let query = "dag/put?input-codec=dag-jose&store-codec=dag-jose";
    let put = served.upload(query, &[("b", OCTETS, &block)]).await.json();
    let root = put["Cid"]["/"].as_str().unwrap();
    let data = served.post(&format!("dag/get?arg={root}")).await.json();
    assert_eq!(data["link"]["/"], leaf.to_string());
    assert_eq!(data["signatures"][0]["signature"], "__4");
    let links = served.post(&format!("refs?arg={root}")).await.json();
    assert_eq!(links["Ref"], leaf.to_string());
    assert_eq!(served.post(&format!("cat?arg={root}/link")).await.text(), "leaf");
}

#[tokio::test]
async fn refs_of_a_missing_block_report_the_timeout_in_line() {
    let served = Served::start().await;
    let missing = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    let missing = missing.replace("bafkrei", "bafybei");
    let answer = served.post(&format!("refs?arg={missing}&timeout=300ms")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.lines(),
        [json!({"Ref": "", "Err": "context deadline exceeded"})]
    );
}

/// Kubo inlines up to 128 bytes: `add --inline --inline-limit=128`.
#[tokio::test]
async fn identity_cid_of_128_bytes_is_read_linked_and_pinned() {
    let served = Served::start().await;
    let content = [b'x'; 128];
    let hash = cid::multihash::Multihash::<128>::wrap(0, &content).unwrap();
    let inline = cluster_ipfs::Cid::new_v1(0x55, hash).to_string();
    let answer = served.post(&format!("cat?arg={inline}")).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &content[..]));

    let upload = "add?pin=false&inline=true&inline-limit=128&raw-leaves=true";
    let added = served
        .upload(upload, &[("d/inline", OCTETS, &content)])
        .await
        .lines();
    assert_eq!(added[0]["Hash"], json!(inline));
    let root = added.last().unwrap()["Hash"].as_str().unwrap().to_owned();
    let read = served.post(&format!("cat?arg={root}/inline")).await;
    assert_eq!((read.status, &read.body[..]), (200, &content[..]), "{root}");
    for cid in [&inline, &root] {
        let pinned = served.post(&format!("pin/add?arg={cid}")).await.json();
        assert_eq!(pinned["Pins"], json!([cid]));
    }
    let refs = served.post(&format!("refs?arg={root}")).await.lines();
    assert_eq!(refs[0]["Ref"], json!(inline));

    let linking = json!({"to": {"/": inline}});
    let put = served
        .upload("dag/put", &[("", OCTETS, linking.to_string().as_bytes())])
        .await;
    let node = put.json()["Cid"]["/"].as_str().unwrap().to_owned();
    let read = served.post(&format!("dag/get?arg={node}")).await;
    assert_eq!(read.json(), linking);
    let resolved = served.post(&format!("resolve?arg={node}/to")).await;
    assert_eq!(resolved.json()["Path"], json!(format!("/ipfs/{inline}")));
}
