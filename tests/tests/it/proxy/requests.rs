//! Peers with proxies, and requests like those of Kubo's clients.

use serde_json::{Value, json};
use tests::http::{self, Answer};
use tests::{Cluster, Options, Peer, closed_port};

/// Starts peers with a proxy each.
pub(crate) fn with_proxies(peers: usize) -> Cluster {
    Cluster::start_with(&Options {
        peers,
        edit: give_proxy,
        ..Options::default()
    })
}

pub(crate) fn give_proxy(config: &mut Value) {
    let address = format!("/ip4/127.0.0.1/tcp/{}", closed_port());
    config["api"]["ipfsproxy"] = json!({ "listen_multiaddress": address });
}

/// Returns the port of a peer's proxy, from its configuration.
pub(crate) fn proxy_port(peer: &Peer) -> u16 {
    let text = std::fs::read_to_string(peer.folder.join("service.json")).expect("is there");
    let config: Value = serde_json::from_str(&text).expect("is JSON");
    let address = &config["api"]["ipfsproxy"]["listen_multiaddress"];
    let address = address.as_str().or(address[0].as_str()).expect("an address");
    address
        .rsplit('/')
        .next()
        .and_then(|port| port.parse().ok())
        .expect("a port")
}

/// Calls a command as Kubo's clients do.
pub(crate) fn call(port: u16, command: &str) -> Answer {
    http::request(port, "POST", &format!("/api/v0/{command}"), &[], &[]).expect("an answer")
}

/// Part of an upload: its headers without line ends, and its content.
pub(crate) type Part<'a> = (&'a str, &'a [u8]);

/// Parts of an upload of a directory.
pub(crate) const DIRECTORY: [Part<'static>; 5] = [
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

pub(crate) fn upload(port: u16, command: &str, parts: &[Part<'_>]) -> Answer {
    let mut body = Vec::new();
    for (head, content) in parts {
        body.extend_from_slice(format!("--bound\r\n{}\r\n\r\n", head.replace('\n', "\r\n")).as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--bound--\r\n");
    let kind = [("Content-Type", "multipart/form-data; boundary=bound")];
    http::request(port, "POST", &format!("/api/v0/{command}"), &kind, &body).expect("an answer")
}

/// Adds a file like the `ipfs` command line.
pub(crate) fn add(port: u16, query: &str, name: &str, content: &[u8]) -> Answer {
    let head = format!(
        "Abspath-Encoded: %2Ftmp%2F{name}\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"{name}\"\n\
         Content-Type: application/octet-stream"
    );
    upload(port, &format!("add?{query}"), &[(&head, content)])
}

/// Parameters that the command line sends with each `add`.
pub(crate) const CLI_ADD: &str =
    "empty-dirs=true&encoding=json&inline-limit=32&pin=true&progress=true&stream-channels=true";

pub(crate) fn kubo_error(answer: &Answer) -> String {
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert_eq!(header(answer, "content-type"), Some("application/json"));
    let error = answer.json();
    assert_eq!(
        (error["Code"].clone(), error["Type"].clone()),
        (json!(0), json!("error")),
        "{error}"
    );
    error["Message"].as_str().expect("a message").to_owned()
}

pub(crate) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    let found = answer.headers.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.as_str())
}

/// Returns the last CID of the response to `add`.
pub(crate) fn last_hash(answer: &Answer) -> String {
    assert!(
        answer.is_success(),
        "{} {} {:?}",
        answer.status,
        answer.text(),
        answer.error()
    );
    let lines = answer.values();
    let hash = lines.last().and_then(|line| line["Hash"].as_str());
    hash.unwrap_or_else(|| panic!("no hash in {lines:?}")).to_owned()
}
