//! The OpenAPI document: answers of real peers are as it says, and it describes all that they answer.

#[path = "openapi/schema.rs"]
mod schema;

use std::collections::BTreeSet;

use serde_json::Value;
use tests::http::{self, Answer};
use tests::{Cluster, Peer, cids, wait_until};

use self::schema::Schemas;
use crate::observability::Stream;

/// Requests that were made, as `METHOD PATH STATUS`, with the path as the document has it.
#[derive(Default)]
struct Seen(BTreeSet<String>);

/// A request: method, path in the document, target and body.
type Request<'a> = (&'static str, &'static str, String, &'a [u8]);

fn document(peer: &Peer) -> Value {
    let answer = peer.rest("GET", "/openapi.json").expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer
            .headers
            .iter()
            .find(|(name, _)| name == "content-type")
            .map(|(_, kind)| kind.as_str()),
        Some("application/json")
    );
    answer.json()
}

impl Seen {
    /// Makes a request, and compares the answer with its description.
    fn ask(&mut self, peer: &Peer, document: &Value, (method, path, target, body): &Request<'_>) -> Answer {
        let (kind, upload) = http::multipart(&[("hello.txt", b"hello from the document")]);
        let (headers, body) = match *path {
            "/add" => (vec![("Content-Type", kind.as_str())], upload.as_slice()),
            _ => (Vec::new(), *body),
        };
        let answer = http::request(peer.rest_port, method, target, &headers, body).expect("an answer");
        self.compare(document, method, path, &answer);
        answer
    }

    fn compare(&mut self, document: &Value, method: &str, path: &str, answer: &Answer) {
        let what = format!("{method} {path}: {} {}", answer.status, answer.text());
        let operation = &document["paths"][path][method.to_ascii_lowercase()];
        assert!(operation.is_object(), "{what} is not described");
        let responses = &operation["responses"];
        let status = answer.status.to_string();
        let mut described = &responses[&status];
        if described.is_null() {
            assert!(answer.status >= 400, "{what}: its status is not described");
            described = &document["components"]["responses"]["Error"];
        }
        self.0.insert(format!("{method} {path} {status}"));
        let Some(content) = described.get("content") else {
            assert!(answer.body.is_empty(), "{what}: it has a body");
            return;
        };
        let schemas = Schemas { document };
        let Some(json) = content.get("application/json") else {
            assert!(!answer.body.is_empty(), "{what}");
            return;
        };
        let values = match json.get("x-json-lines") {
            Some(_) => answer.values(),
            None => vec![answer.json()],
        };
        for value in &values {
            let checked = schemas.check(&json["schema"], value);
            assert!(checked.is_ok(), "{what}: {checked:?}");
        }
    }
}

fn plain(method: &'static str, path: &'static str) -> Request<'static> {
    (method, path, path.to_owned(), b"")
}

/// Returns requests that read, for all routes that need no pin.
fn reads() -> Vec<Request<'static>> {
    let paths = [
        "/",
        "/health",
        "/health/ready",
        "/auth/self",
        "/auth/credentials",
        "/id",
        "/version",
        "/peers",
        "/health/graph",
        "/health/summary",
        "/health/alerts",
        "/health/bandwidth",
        "/monitor/metrics",
        "/metrics",
        "/metrics/history",
        "/allocations",
        "/pins",
        "/pins/recover",
        "/pins/sync",
        "/drains",
        "/rebalance",
        "/ipfs/scrub",
        "/openapi.json",
    ];
    let mut all: Vec<Request<'static>> = paths.map(|path| plain("GET", path)).to_vec();
    let of = |path, target: &str| -> Request<'static> { ("GET", path, target.to_owned(), b"") };
    all.push(of("/ui/{file}", "/ui/app.js"));
    all.push(of("/monitor/metrics/{name}", "/monitor/metrics/ping"));
    all
}

/// Returns requests that create a credential, read it, and revoke it.
fn credential() -> Vec<Request<'static>> {
    let new: &[u8] = br#"{"name":"ci","scopes":["read","pin","own"],"max_pins":5}"#;
    let of = |method, path, target: &str| -> Request<'static> { (method, path, target.to_owned(), b"") };
    let one = "/auth/credentials/{credential}";
    vec![
        ("POST", "/auth/credentials", "/auth/credentials".to_owned(), new),
        plain("GET", "/auth/credentials"),
        of(
            "GET",
            "/auth/credentials/{credential}/usage",
            "/auth/credentials/ci/usage",
        ),
        of("DELETE", one, "/auth/credentials/ci"),
    ]
}

/// Returns requests for the other routes but the stream of events, in an order in which they succeed.
fn changes(peers: &[Peer]) -> Vec<Request<'static>> {
    let (cid, other) = (cids::identity("of the document"), cids::identity("of a path"));
    let of = |method, path, target: String| -> Request<'static> { (method, path, target, b"") };
    let at = |method, path: &'static str| of(method, path, path.replace("{hash}", &cid));
    let named = |kind: &str| format!("/pins/{kind}/{other}?name=path");
    let third = peers[2].id.clone();
    let exported = format!("{{\"cid\":\"{cid}\",\"type\":\"pin\",\"metadata\":{{\"k\":\"v\"}}}}");
    let exported: &'static [u8] = Box::leak(exported.into_bytes().into_boxed_slice());
    let import = |query| ("POST", "/allocations", format!("/allocations{query}"), exported);
    let unknown: &[u8] = br#"{"peer_id":"12D3KooWGRYZDHBembyGJQqQ6WgLqJWYNjnECJwGBnCg8vbCeo8F"}"#;
    vec![
        plain("POST", "/add"),
        of(
            "POST",
            "/pins/{hash}",
            format!("/pins/{cid}?name=a&meta-k=v&expire-in=24h"),
        ),
        import(""),
        import("?stream=true"),
        of("POST", "/pins/ipfs/{path}", named("ipfs")),
        of("DELETE", "/pins/ipfs/{path}", named("ipfs")),
        of("POST", "/pins/ipld/{path}", named("ipld")),
        plain("GET", "/allocations"),
        plain("GET", "/pinlist"),
        plain("GET", "/pins"),
        at("GET", "/allocations/{hash}"),
        at("GET", "/pins/{hash}"),
        at("POST", "/pins/{hash}/recover"),
        at("POST", "/pins/{hash}/sync"),
        plain("POST", "/pins/recover"),
        plain("POST", "/pins/sync"),
        plain("DELETE", "/pins/recover"),
        plain("DELETE", "/pins/sync"),
        of("DELETE", "/pins/ipld/{path}", named("ipld")),
        at("DELETE", "/pins/{hash}"),
        // Refused, as the document says for all.
        at("DELETE", "/pins/{hash}"),
        at("GET", "/allocations/{hash}"),
        of("POST", "/pins/{hash}", "/pins/nothing".to_owned()),
        of("POST", "/pins/ipns/{path}", "/pins/ipns/nothing".to_owned()),
        of("DELETE", "/pins/ipns/{path}", "/pins/ipns/nothing".to_owned()),
        plain("POST", "/token"),
        ("POST", "/peers", "/peers".to_owned(), unknown),
        plain("POST", "/ipfs/gc"),
        of(
            "POST",
            "/ipfs/scrub",
            "/ipfs/scrub?action=start&fraction=0.5".to_owned(),
        ),
        plain("POST", "/ipfs/scrub"),
        of(
            "POST",
            "/drains/{peer}",
            format!("/drains/{third}?moves=9&force=true"),
        ),
        plain("POST", "/rebalance"),
        of(
            "POST",
            "/rebalance/settings",
            "/rebalance/settings?automatic=true&threshold=20&moves=9&total-moves=30&bytes-per-second=50MB&total-bytes-per-second=0".to_owned(),
        ),
        plain("DELETE", "/rebalance"),
        of("GET", "/drains/{peer}", format!("/drains/{third}")),
        plain("GET", "/drains"),
        of("DELETE", "/drains/{peer}", format!("/drains/{third}")),
        of("DELETE", "/peers/{peer}", format!("/peers/{third}")),
    ]
}

#[test]
fn answers_of_real_peers_are_as_the_document_says() {
    let cluster = Cluster::start();
    let peer = &cluster.peers[0];
    let document = document(peer);
    assert_eq!(document["openapi"], "3.1.0");
    let mut seen = Seen::default();
    wait_until("all peers show their metrics", || {
        let metrics = peer.rest("GET", "/monitor/metrics/ping").expect("an answer");
        match metrics.json().as_array().map(Vec::len) {
            Some(3) => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
    let mut events = Stream::open_with(peer, "/events?type=pin_added,pin_removed", "Accept: */*");
    for request in [reads(), credential(), changes(&cluster.peers)].concat() {
        seen.ask(peer, &document, &request);
    }
    let schema = &document["paths"]["/events"]["get"]["responses"]["200"]["content"]["application/x-ndjson"];
    let lines = events.lines_to("pin_removed");
    for line in lines.iter().filter(|line| line.starts_with('{')) {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let checked = Schemas { document: &document }.check(&schema["schema"], &event);
        assert!(checked.is_ok(), "{line}: {checked:?}");
    }
    seen.0.insert("GET /events 200".to_owned());

    // What a healthy cluster without users does not answer.
    let unseen = [
        "GET /health/ready 503",
        "POST /peers 200",
        "POST /pins/ipns/{path} 200",
        "DELETE /pins/ipns/{path} 200",
        "POST /token 200",
        "GET /allocations 204",
        "GET /pins 204",
        "POST /pins/recover 200",
        "POST /pins/recover 204",
        "POST /pins/sync 200",
        "POST /pins/sync 204",
    ];
    let paths = document["paths"].as_object().expect("paths");
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().expect("operations") {
            let method = method.to_ascii_uppercase();
            let asked = format!("{method} {path} ");
            assert!(
                seen.0.iter().any(|seen| seen.starts_with(&asked)),
                "{asked} was not asked"
            );
            let statuses = operation["responses"].as_object().expect("responses").keys();
            for status in statuses.filter(|status| *status != "default") {
                let answer = format!("{asked}{status}");
                let is_seen = seen.0.contains(&answer) || unseen.contains(&answer.as_str());
                assert!(is_seen, "{answer} is described, and was not seen");
            }
        }
    }
}
