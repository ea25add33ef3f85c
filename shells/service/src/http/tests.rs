//! Requests and answers through a real socket, byte by byte where that matters.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster_api::PinOptions;
use cluster_core::{Phase, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{HttpConfig, Server, serve};
use crate::cluster::testing::{Fake, Manner, cid, local, peer};

struct Api {
    fake: Fake,
    server: Server,
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
    trailers: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, rest) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no answer: {text:?}"));
        let status = head[9..12].parse().unwrap();
        let head = head.to_ascii_lowercase();
        let (body, trailers) = if head.contains("transfer-encoding: chunked") {
            unchunk(rest)
        } else {
            (rest.to_owned(), String::new())
        };
        Self {
            status,
            head,
            body,
            trailers,
        }
    }

    fn header(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .filter(|(known, _)| *known == name)
            .map(|(_, value)| value)
            .collect()
    }

    fn error(&self) -> &str {
        let end = format!("{{\"code\":{},\"message\":\"", self.status);
        let message = self
            .body
            .strip_prefix(&end)
            .unwrap_or_else(|| panic!("no error: {self:?}"));
        message.strip_suffix("\"}\n").unwrap()
    }
}

fn unchunk(mut rest: &str) -> (String, String) {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, after.trim_end().to_owned());
        }
        body.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap();
    }
}

impl Api {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut HttpConfig)) -> Self {
        let fake = Fake::new(3).await;
        let mut config = HttpConfig {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            ..HttpConfig::default()
        };
        change(&mut config);
        let server = serve(fake.cluster(1), config).await.unwrap();
        Self { fake, server }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    async fn raw(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let _ = stream.write_all(request.as_ref()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        let body = body.as_ref();
        let length = body.len();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")
                .into_bytes();
        request.extend_from_slice(body);
        Answer::parse(&self.raw(request).await)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", "").await
    }

    async fn post(&self, path: &str) -> Answer {
        self.send("POST", path, "", "").await
    }

    async fn upload(&self, query: &str, parts: &[(&str, &[u8])]) -> Answer {
        let (kind, body) = form(parts);
        self.send("POST", &format!("/add?{query}"), &kind, body).await
    }
}

fn form(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(format!("--xyz\r\n{head}\r\n\r\n").as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    (
        "Content-Type: multipart/form-data; boundary=xyz\r\n".to_owned(),
        body,
    )
}

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"hello.txt\"\r\nContent-Type: application/octet-stream";

/// Of `hello\n`, CIDv0, from Kubo.
const HELLO: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";

#[tokio::test]
async fn a_pin_is_answered_in_the_go_peers_shape() {
    let api = Api::new().await;
    let cid = cid(1);
    let answer = api
        .post(&format!(
            "/pins/{cid}?name=a%26b&replication-min=1&replication-max=2&meta-k=v&mode=direct"
        ))
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), ["application/json"]);
    let expected = format!(
        "{{\"replication_factor_min\":1,\"replication_factor_max\":2,\"name\":\"a\\u0026b\",\"mode\":\"direct\",\
         \"shard_size\":0,\"user_allocations\":null,\"expire_at\":\"0001-01-01T00:00:00Z\",\
         \"metadata\":{{\"k\":\"v\"}},\"pin_update\":null,\"origins\":[],\"cid\":\"{cid}\",\"type\":\"pin\",\
         \"allocations\":[\"{}\",\"{}\"],\"max_depth\":0,\"reference\":null,\
         \"timestamp\":\"2026-02-02T02:40:00Z\"}}\n",
        peer(1),
        peer(2)
    );
    assert_eq!(answer.body, expected);
    assert_eq!(api.get(&format!("/allocations/{cid}")).await.body, expected);
    let list = api.get("/allocations").await;
    assert_eq!(
        (list.status, list.body.as_str(), list.trailers.as_str()),
        (200, expected.as_str(), "x-stream-error:")
    );
    assert_eq!(list.header("trailer"), ["X-Stream-Error".to_ascii_lowercase()]);
    let removed = api.send("DELETE", &format!("/pins/{cid}"), "", "").await;
    assert_eq!((removed.status, removed.body), (200, expected));
    let again = api.send("DELETE", &format!("/pins/{cid}"), "", "").await;
    assert_eq!(
        (again.status, again.error()),
        (404, "pin is not part of the pinset")
    );
}

#[tokio::test]
async fn a_path_is_resolved_and_pinned() {
    let api = Api::new().await;
    let cid = cid(1);
    let answer = api.post(&format!("/pins/ipfs/{cid}?mode=direct")).await;
    assert!(
        answer.status == 200 && answer.body.contains("\"max_depth\":0"),
        "{answer:?}"
    );
    assert_eq!(
        api.send("DELETE", &format!("/pins/ipfs/{cid}"), "", "")
            .await
            .status,
        200
    );
    for path in ["/pins/ipfs/nonsense", "/pins/ipfs/%ff", "/pins/ipld/x/y"] {
        let answer = api.post(path).await;
        assert!(
            answer.status == 400 && answer.error().starts_with("error parsing path: "),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn nothing_at_all_is_no_content() {
    let api = Api::new().await;
    for path in ["/pins", "/allocations", "/health", "/pins?filter=error"] {
        let answer = api.get(path).await;
        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{path}");
    }
    assert_eq!(api.post("/pins/recover").await.status, 204);
}

#[tokio::test]
async fn nonsense_is_a_bad_request_that_says_why_and_changes_nothing() {
    let api = Api::new().await;
    let cid = cid(1);
    for (path, why) in [
        ("/pins/nonsense".to_owned(), "error decoding Cid"),
        ("/pins/%ff".to_owned(), "error decoding Cid"),
        (
            format!("/pins/{cid}?replication-min=x"),
            "parameter replication-min invalid",
        ),
        (
            format!("/pins/{cid}?replication-min=3&replication-max=2"),
            "bad replication factors",
        ),
        (
            format!("/pins/{cid}?expire-in=1ms"),
            "expire-in duration too short",
        ),
        (
            format!("/pins/{cid}?expire-at=2020-01-01T00:00:00Z"),
            "pin.ExpireAt set before current time",
        ),
        (format!("/pins/{cid}?pin-update=x"), "error decoding Cid"),
        (
            format!("/pins/{cid}?origins=/ip4/1.2.3.4"),
            "multiaddress does not contain peer ID",
        ),
        (
            format!("/pins/{cid}/recover?local=perhaps"),
            "parameter local invalid",
        ),
        ("/peers".to_owned(), "error decoding request body"),
    ] {
        let answer = api.post(&path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.error().starts_with(why), "{path}: {answer:?}");
    }
    for path in [
        "/pins?filter=x",
        "/pins?cids=x",
        "/pins/x",
        "/allocations?filter=x",
        "/allocations/x",
        "/pins/recover",
    ] {
        assert_eq!(api.get(path).await.status, 400, "{path}");
    }
    assert!(api.fake.ledger().pins.is_empty());
}

#[tokio::test]
async fn unknown_paths_and_slashes_at_the_end() {
    let api = Api::new().await;
    let answer = api.get("/nowhere").await;
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (404, "{\"code\":404,\"message\":\"not found\"}\n")
    );
    let answer = api.post("/pins/recover/?local=true").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (307, vec!["/pins/recover?local=true"])
    );
    assert_eq!(
        api.get("//evil.example/").await.header("location"),
        ["/evil.example"]
    );
    assert_eq!(api.send("PATCH", "/pins", "", "").await.status, 405);
}

#[tokio::test]
async fn a_refusal_has_the_status_that_tells_what_to_do() {
    let api = Api::new().await;
    let needed = Refusal::NotEnoughPeers {
        needed: 3,
        wanted: 3,
        available: 1,
        why: "Two are down.".to_owned(),
    };
    for (refusal, status, message) in [
        (
            Refusal::Busy,
            429,
            "too many requests are open at this peer, try again later",
        ),
        (Refusal::NoLeader, 503, "the cluster has no leader"),
        (
            Refusal::Unknown,
            503,
            "no answer in time: the request may still take effect",
        ),
        (Refusal::Conflict("cannot repin".to_owned()), 500, "cannot repin"),
        (
            needed,
            500,
            "not enough peers to allocate CID. Needed at least: 3. Wanted at most: 3. Available candidates: 1.",
        ),
    ] {
        api.fake.ledger().refusal = Some(refusal);
        let answer = api.post(&format!("/pins/{}", cid(1))).await;
        assert_eq!(answer.status, status);
        assert!(answer.error().starts_with(message), "{answer:?}");
        assert_eq!(answer.header("retry-after").is_empty(), status == 500);
    }
}

#[tokio::test]
async fn statuses_are_listed_a_line_each() {
    let api = Api::new().await;
    for n in 1..=3 {
        api.fake
            .cluster(1)
            .pin(cid(n), &PinOptions::default())
            .await
            .unwrap();
    }
    api.fake
        .ledger()
        .locals
        .insert((peer(2), cid(2)), local(Phase::PinError, "no room"));
    let answer = api.get("/pins").await;
    assert_eq!(answer.body.lines().count(), 3);
    let one = api.get(&format!("/pins?cids={},{}", cid(3), cid(1))).await;
    let order: Vec<bool> = one
        .body
        .lines()
        .map(|line| line.contains(&cid(3).to_string()))
        .collect();
    assert_eq!(order, [true, false]);
    let failed = api.get("/pins?filter=pin_error").await;
    let expected = format!(
        "{{\"cid\":\"{}\",\"name\":\"\",\"allocations\":[],\"origins\":[],\"created\":\"2026-02-02T02:40:00Z\",\
         \"metadata\":null,\"peer_map\":{{\"{}\":{{\"peername\":\"peer2\",\"status\":\"pin_error\",\
         \"timestamp\":\"2026-02-02T02:40:00Z\",\"error\":\"no room\",\"attempt_count\":2,\
         \"priority_pin\":false}}}}}}\n",
        cid(2),
        peer(2)
    );
    // The IPFS node's identity may be known by now, or not.
    let body: serde_json::Value = serde_json::from_str(&failed.body).unwrap();
    let mut expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let shown = &body["peer_map"][peer(2).to_string()];
    for field in ["ipfs_peer_id", "ipfs_peer_addresses"] {
        if let Some(value) = shown.get(field) {
            expected["peer_map"][peer(2).to_string()][field] = value.clone();
        }
    }
    assert_eq!(body, expected);
    let recovered = api.post(&format!("/pins/{}/recover", cid(2))).await;
    assert!(
        recovered.status == 200 && recovered.body.contains("pin_queued"),
        "{recovered:?}"
    );
    let local = api.get("/pins?local=true").await;
    assert!(
        local
            .body
            .lines()
            .all(|line| line.contains(&peer(1).to_string()) && !line.contains(&peer(2).to_string()))
    );
}

#[tokio::test]
async fn peers_and_health() {
    let api = Api::new().await;
    api.fake.set(3, Manner::Down);
    let id = api.get("/id").await;
    assert!(
        id.body.starts_with(&format!("{{\"id\":\"{}\"", peer(1)))
            && id.body.contains("\"peername\":\"peer1\"")
    );
    assert_eq!(api.get("/version").await.body, "{\"version\":\"1.2.3\"}\n");
    let peers = api.get("/peers").await;
    assert_eq!(peers.body.lines().count(), 3);
    assert!(peers.body.contains("\"error\":\"connection refused\""));
    assert_eq!(
        api.get("/monitor/metrics").await.body,
        "[\"freespace\",\"ping\"]\n"
    );
    let metrics = api.get("/monitor/metrics/ping").await.body;
    assert!(
        metrics.contains("\"expire\":1770000030000000000,\"valid\":true"),
        "{metrics}"
    );
    assert_eq!(api.get("/monitor/metrics/none").await.body, "[]\n");
    assert!(
        api.get("/health/alerts")
            .await
            .body
            .contains("\"triggered_at\":\"2026-02-02T02:40:00Z\"")
    );
    assert!(
        api.get("/health/bandwidth")
            .await
            .body
            .contains("\"/x/1\":{\"total_in\":1")
    );
    let graph = api.get("/health/graph").await;
    assert!(
        graph.status == 200 && graph.body.contains("\"id_to_peername\""),
        "{graph:?}"
    );
    let gc = api.post("/ipfs/gc").await;
    assert!(
        gc.status == 200 && gc.body.contains("connection refused"),
        "{gc:?}"
    );
    let body = format!("{{\"peer_id\":\"{}\"}}", peer(2));
    assert_eq!(api.send("POST", "/peers", "", body).await.status, 501);
    assert_eq!(api.send("DELETE", "/peers/x", "", "").await.status, 400);
    assert_eq!(
        api.send("DELETE", &format!("/peers/{}", peer(2)), "", "")
            .await
            .status,
        501
    );
}

#[tokio::test]
async fn an_added_file_is_pinned_and_told() {
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
    let told = api
        .upload(
            "progress=true&replication-min=1&replication-max=1",
            &[(FILE, b"hello\n")],
        )
        .await;
    assert!(
        told.body
            .starts_with("{\"name\":\"hello.txt\",\"cid\":\"\",\"bytes\":6}\n"),
        "{told:?}"
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
    assert_eq!(api.fake.ledger().pins.len(), 1);
}

#[tokio::test]
async fn an_upload_that_cannot_be_pinned_is_an_error_status() {
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
        ("chunker=rabin", 400),
        ("shard=true", 501),
        ("nocopy=true", 501),
        ("hash=x", 400),
    ] {
        assert_eq!(
            api.upload(query, &[(FILE, b"hello\n")]).await.status,
            status,
            "{query}"
        );
    }
    assert_eq!(api.upload("", &[]).await.status, 400);
    let outside = "Content-Disposition: form-data; filename=\"..%2F..%2Fetc\"";
    assert_eq!(api.upload("", &[(outside, b"x")]).await.status, 400);
    let (kind, mut body) = form(&[(FILE, b"hello\n")]);
    body.truncate(body.len() - 12);
    assert_eq!(api.send("POST", "/add", &kind, body).await.status, 400);
    assert!(api.fake.ledger().pins.is_empty());
}

/// A CARv1 with one raw block.
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
    let header = ipld_core::ipld!({ "version": 1, "roots": vec![ipld_core::ipld::Ipld::Link(root); roots] });
    let header = serde_ipld_dagcbor::to_vec(&header).unwrap();
    let mut car = vec![u8::try_from(header.len()).unwrap()];
    car.extend_from_slice(&header);
    car.push(u8::try_from(root.to_bytes().len() + block.len()).unwrap());
    car.extend_from_slice(&root.to_bytes());
    car.extend_from_slice(block);
    (car, root.to_string())
}

#[tokio::test]
async fn a_car_is_taken_in_as_it_is_when_it_has_one_root() {
    let api = Api::new().await;
    let (content, root) = car(1);
    let answer = api.upload("format=car", &[(FILE, &content)]).await;
    assert!(answer.status == 200 && answer.body.contains(&root), "{answer:?}");
    assert!(api.fake.ledger().pins.contains_key(&root.parse().unwrap()));
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

#[tokio::test]
async fn with_credentials_everything_but_health_needs_them() {
    let users = BTreeMap::from([("ann".to_owned(), "secret".to_owned())]);
    let api = Api::with(|config| config.credentials = Some(users)).await;
    let none = api.get("/id").await;
    assert_eq!(
        (none.status, none.error()),
        (401, "unauthorized: no auth provided")
    );
    assert_eq!(
        none.header("www-authenticate"),
        [
            r#"bearer realm="restricted ipfs cluster api""#,
            r#"basic realm="restricted ipfs cluster api""#
        ]
    );
    let wrong = api
        .send("GET", "/id", "Authorization: Basic YW5uOnNlY3JldHM=\r\n", "")
        .await;
    assert_eq!(
        (wrong.status, wrong.error()),
        (401, "unauthorized: access denied")
    );
    assert_eq!(
        api.send("GET", "/id", "Authorization: Basic YW5uOnNlY3JldA==\r\n", "")
            .await
            .status,
        200
    );
    assert_eq!(api.get("/health").await.status, 204);
}

#[tokio::test]
async fn web_pages_may_do_what_is_configured() {
    let api = Api::with(|config| {
        config.cors.origins = vec!["myorigin".to_owned()];
        config.cors.max_age = Duration::from_secs(600);
    })
    .await;
    let ask = "Origin: myorigin\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: content-type\r\n";
    let answer = api.send("OPTIONS", "/any", ask, "").await;
    for (name, value) in [
        ("origin", "myorigin"),
        ("methods", "get"),
        ("headers", "content-type"),
        ("credentials", "true"),
    ] {
        assert_eq!(
            answer.header(&format!("access-control-allow-{name}")),
            [value],
            "{answer:?}"
        );
    }
    assert_eq!(answer.header("access-control-max-age"), ["600"]);
    let other = api
        .send("OPTIONS", "/any", &ask.replace("myorigin", "other"), "")
        .await;
    assert!(other.header("access-control-allow-origin").is_empty());
    let plain = api.send("GET", "/version", "Origin: myorigin\r\n", "").await;
    assert_eq!(plain.header("access-control-allow-origin"), ["myorigin"]);
}

#[tokio::test]
async fn connections_that_waste_time_or_headers_are_ended() {
    let api = Api::with(|config| {
        config.read_header_timeout = Duration::from_millis(200);
        config.idle_timeout = Duration::from_millis(600);
    })
    .await;
    let timed = async |request: &str| {
        let started = Instant::now();
        let answer = api.raw(request).await;
        (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
    };
    let (answer, after) = timed("").await;
    assert!(
        answer.is_empty() && after < Duration::from_millis(500),
        "{after:?}"
    );
    let (answer, after) = timed("GET /version HTTP/1.1\r\nHost:").await;
    assert!(
        answer.is_empty() && after < Duration::from_millis(500),
        "{after:?}"
    );
    let (answer, after) = timed("GET /version HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        after > Duration::from_millis(500) && after < Duration::from_secs(2),
        "{after:?}"
    );
    let long = format!(
        "GET /version HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n",
        "x".repeat(9000)
    );
    assert!(timed(&long).await.0.starts_with("HTTP/1.1 431"));
    let fits = format!(
        "GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: {}\r\n\r\n",
        "x".repeat(4000)
    );
    assert!(timed(&fits).await.0.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn requests_one_after_the_other_on_one_connection_all_get_trailers() {
    let api = Api::new().await;
    api.fake
        .cluster(1)
        .pin(cid(1), &PinOptions::default())
        .await
        .unwrap();
    let mut stream = TcpStream::connect(api.address()).await.unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /pins HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nGE")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"x-stream-error: \r\n\r\n") {
            assert_ne!(
                stream.read_buf(&mut answer).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
        stream
            .write_all(b"POST /ipfs/gc?local=true HTTP/1.1\r\nHost: x\r\n\r\n")
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}\n") {
            assert_ne!(
                stream.read_buf(&mut answer).await.unwrap(),
                0,
                "{}",
                String::from_utf8_lossy(&answer)
            );
        }
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let api = Api::new().await;
    let config = HttpConfig {
        listen: vec![api.address()],
        ..HttpConfig::default()
    };
    let error = serve(api.fake.cluster(2), config).await.unwrap_err().to_string();
    assert!(
        error.contains(&api.address().to_string()) && error.contains("in use"),
        "{error}"
    );
}

#[tokio::test]
async fn a_shutdown_waits_for_answers_and_then_no_longer() {
    let api = Api::new().await;
    let address = api.address();
    let idle = TcpStream::connect(address).await.unwrap();
    let started = Instant::now();
    api.server.shutdown(Duration::from_secs(5)).await;
    assert!(
        started.elapsed() < Duration::from_secs(4),
        "{:?}",
        started.elapsed()
    );
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}
