//! Tests of uploads.

use std::collections::BTreeMap;

use super::*;

#[tokio::test]
async fn added_file_is_pinned_and_reported() {
    let api = Api::new().await;
    let answer = api
        .upload(
            "replication-min=2&replication-max=2&name=n",
            &[(FILE, b"hello\n")],
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let expected = format!(
        "{{\"name\":\"hello.txt\",\"cid\":\"{HELLO}\",\"size\":14,\"allocations\":[\"{}\",\"{}\"]}}\n",
        peer(1),
        peer(2)
    );
    assert_eq!(
        (answer.body.as_str(), answer.trailers.as_str()),
        (expected.as_str(), "x-stream-error:")
    );
    assert_eq!(answer.header("x-chunked-output"), ["1"]);
    assert_eq!(answer.header("connection"), ["close"]);
    assert_eq!(answer.header("cache-control"), ["no-cache"]);
    let pin = api.get(&format!("/allocations/{HELLO}")).await;
    assert!(pin.body.contains("\"name\":\"n\""), "{pin:?}");
    let array = api
        .upload(
            "stream-channels=false&replication-min=1&replication-max=1",
            &[(FILE, b"hello\n")],
        )
        .await;
    assert!(
        array.body.starts_with("[{\"name\":\"hello.txt\"") && array.body.ends_with("}]\n"),
        "{array:?}"
    );
    assert!(array.header("trailer").is_empty());
    let progress = api
        .upload(
            "progress=true&replication-min=1&replication-max=1",
            &[(FILE, b"hello\n")],
        )
        .await;
    assert!(
        progress
            .body
            .starts_with("{\"name\":\"hello.txt\",\"cid\":null,\"bytes\":6}\n"),
        "{progress:?}"
    );
}

#[tokio::test]
async fn directories_come_as_parts_with_escaped_paths() {
    let api = Api::new().await;
    let answer = api
        .upload(
            "wrap-with-directory=true",
            &[
                ("Content-Disposition: form-data; name=\"file\"; filename=\"a%20b\"\r\nContent-Type: application/x-directory", b""),
                ("Content-Disposition: form-data; name=\"file\"; filename=\"a%20b%2Fone\"", b"1"),
                ("Content-Disposition: file; filename=\"a%20b/two\"\r\nContent-Type: application/octet-stream", b"2"),
                ("Content-Disposition: form-data; name=\"file\"; filename=\"a%20b%2Flink\"\r\nContent-Type: application/symlink", b"one"),
            ],
        )
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let names: Vec<String> = answer
        .body
        .lines()
        .map(|line| {
            serde_json::from_str::<cluster_api::AddedOutput>(line)
                .unwrap()
                .name
        })
        .collect();
    assert_eq!(names, ["a b/one", "a b/two", "a b/link", "a b", ""]);
    assert_eq!(api.test.pins().len(), 1);
}

#[tokio::test]
async fn uploads_that_cannot_be_pinned_are_an_error_status() {
    let api = Api::new().await;
    let none = api.upload("replication=9", &[(FILE, b"hello\n")]).await;
    assert!(
        none.status == 500 && none.error().starts_with("not enough peers"),
        "{none:?}"
    );
    let plain = api
        .send("POST", "/add", "Content-Type: text/plain\r\n", "x")
        .await;
    assert_eq!(
        (plain.status, plain.error()),
        (400, "request Content-Type isn't multipart/form-data")
    );
    for (query, status) in [
        ("layout=flat", 400),
        ("chunker=rabin-1-2-3", 400),
        ("shard=true", 501),
        ("nocopy=true", 400),
        ("hash=x", 400),
    ] {
        assert_eq!(
            api.upload(query, &[(FILE, b"hello\n")]).await.status,
            status,
            "{query}"
        );
    }
    assert_eq!(api.upload("", &[]).await.status, 400);
    let (kind, mut body) = form(&[(FILE, b"hello\n")]);
    body.truncate(body.len() - 12);
    assert_eq!(api.send("POST", "/add", &kind, body).await.status, 400);
    assert!(api.test.pins().is_empty());
}

/// The expected CIDs are Kubo's.
#[tokio::test]
async fn kubo_options_and_non_utf8_names_are_accepted() {
    let api = Api::new().await;
    for (query, head, cid) in [
        ("chunker=rabin", FILE, HELLO),
        ("chunker=buzhash", FILE, HELLO),
        (
            "hash=sha3-512",
            FILE,
            "bafybiqehtyfxgobnysfcpeqwmh5n5rnlcijytfrjjvbbbsv4idvosfmnz7ryub7lr7zzve2pkdjodjrowbop3lkmanehj3ng7kh2o7p7rrlas",
        ),
        (
            "nocopy=true",
            "Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nabspath-encoded: http%3A%2F%2Fx%2Fa",
            "bafkreicysg23kiwv34eg2d7qweipxwosdo2py4ldv42nbauguluen5v6am",
        ),
        (
            "",
            "Content-Disposition: form-data; name=\"file\"; filename=\"dd%2Flatin1-%E9\"",
            "QmfCULYvk8yKd8QoEuwuhGU1PWjnRCNUou9o2ZByGQ1TC1",
        ),
    ] {
        let content: &[u8] = if query.is_empty() { b"x" } else { b"hello\n" };
        let answer = api.upload(query, &[(head, content)]).await;
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        assert!(answer.body.contains(cid), "{query}: {answer:?}");
    }
}

/// Returns a CARv1 with one raw block.
fn car(roots: usize) -> (Vec<u8>, String) {
    let block = b"hello\n";
    let hash = cid::multihash::Multihash::wrap(
        0x12,
        &[
            0x58, 0x91, 0xb5, 0xb5, 0x22, 0xd5, 0xdf, 0x08, 0x6d, 0x0f, 0xf0, 0xb1, 0x10, 0xfb, 0xd9, 0xd2,
            0x1b, 0xb4, 0xfc, 0x71, 0x63, 0xaf, 0x34, 0xd0, 0x82, 0x86, 0xa2, 0xe8, 0x46, 0xf6, 0xbe, 0x03,
        ],
    );
    let root = cid::Cid::new_v1(0x55, hash.unwrap());
    let header = BTreeMap::from([("roots", vec![root; roots])]);
    let mut header = serde_ipld_dagcbor::to_vec(&header).unwrap();
    // Two entries instead of one, and `"version": 1` after the roots.
    header[0] += 1;
    header.extend_from_slice(b"\x67version\x01");
    let mut car = vec![u8::try_from(header.len()).unwrap()];
    car.extend_from_slice(&header);
    car.push(u8::try_from(root.to_bytes().len() + block.len()).unwrap());
    car.extend_from_slice(&root.to_bytes());
    car.extend_from_slice(block);
    (car, root.to_string())
}

#[tokio::test]
async fn car_with_one_root_is_stored_unchanged() {
    let api = Api::new().await;
    let (content, root) = car(1);
    let answer = api.upload("format=car", &[(FILE, &content)]).await;
    let line: cluster_api::AddedOutput = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, line.name.as_str()), (200, "hello.txt"));
    assert_eq!((line.cid.as_str(), line.bytes, line.size), (root.as_str(), 6, 6));
    assert!(api.test.pins().contains_key(&root.parse().unwrap()));
    for content in [
        car(0).0,
        car(2).0,
        b"nonsense".to_vec(),
        content[..content.len() - 2].to_vec(),
        Vec::new(),
    ] {
        let answer = api.upload("format=car", &[(FILE, &content)]).await;
        assert!(
            answer.status == 400 && answer.error().starts_with("the CAR file is not valid"),
            "{answer:?}"
        );
    }
}
