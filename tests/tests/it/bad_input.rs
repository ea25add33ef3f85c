//! Invalid input: it is refused with the right code, and the process keeps running.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use tests::cids::{self, Numbers};
use tests::{Cluster, Peer, http, wait_until};

fn one_peer() -> Cluster {
    Cluster::start_with(&tests::Options {
        peers: 1,
        ..tests::Options::default()
    })
}

/// Asserts that the peer has not ended, and still accepts pins.
fn assert_alive(peer: &mut Peer) {
    peer.check();
    let cid = cids::identity("still alive");
    wait_until("the peer does its work", || {
        peer.ask("POST", &format!("/pins/{cid}"))
    });
    assert!(peer.pinset().unwrap().contains(&cid));
    let id = peer.ipfs("id").unwrap();
    assert_eq!(id.status, 200, "{}", id.text());
}

#[test]
fn the_rest_api_refuses_invalid_requests_with_the_right_code() {
    let mut cluster = one_peer();
    let peer = &mut cluster.peers[0];
    let good = cids::identity("good");
    let long = "Q".repeat(5000);
    let requests: [(&str, String, u16); 20] = [
        ("POST", "/pins/nonsense".into(), 400),
        ("POST", format!("/pins/{long}"), 400),
        ("POST", "/pins/Qm%00%ff".into(), 400),
        ("GET", "/pins/nonsense".into(), 400),
        ("DELETE", "/pins/nonsense".into(), 400),
        ("POST", "/pins/nonsense/recover".into(), 400),
        ("GET", "/allocations/nonsense".into(), 400),
        ("GET", format!("/allocations/{good}"), 404),
        ("DELETE", format!("/pins/{good}"), 404),
        ("POST", "/pins/ipfs/nonsense/a/b".into(), 400),
        ("POST", format!("/pins/{good}?replication-min=many"), 400),
        (
            "POST",
            format!("/pins/{good}?replication-min=99999999999999999999"),
            400,
        ),
        (
            "POST",
            format!("/pins/{good}?replication-min=3&replication-max=2"),
            400,
        ),
        ("POST", format!("/pins/{good}?expire-at=tomorrow"), 400),
        ("POST", format!("/pins/{good}?pin-update=nonsense"), 400),
        ("GET", "/pins?filter=nonsense".into(), 400),
        ("GET", "/allocations?filter=nonsense".into(), 400),
        ("GET", "/nowhere".into(), 404),
        ("PATCH", "/id".into(), 405),
        ("POST", "/add?replication-min=x".into(), 400),
    ];
    let mut wrong = Vec::new();
    for (method, target, status) in requests {
        let answer = peer.rest(method, &target).unwrap();
        let shown = &target[..target.len().min(80)];
        let text = answer.text();
        if answer.status != status {
            wrong.push(format!(
                "{method} {shown}: {} instead of {status}: {text}",
                answer.status
            ));
        }
        let error: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        let explained = error.is_some_and(|error| {
            error["code"] == answer.status && !error["message"].as_str().unwrap_or("").is_empty()
        });
        if !explained && answer.status != 405 {
            wrong.push(format!(
                "{method} {shown}: {} without a reason: {text}",
                answer.status
            ));
        }
        peer.check();
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_eq!(peer.pinset().unwrap(), Vec::<String>::new());
    assert_alive(peer);
}

#[test]
fn uploads_that_are_not_multipart_are_refused() {
    let mut cluster = one_peer();
    let peer = &mut cluster.peers[0];
    let form = "multipart/form-data; boundary=b";
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\ncontent";
    let bodies: [(&str, String); 8] = [
        ("text/plain", "content".into()),
        ("multipart/form-data", part.into()),
        (form, String::new()),
        (form, "no boundary at all".into()),
        (form, part.into()),
        (
            form,
            format!("--b\r\n{}: x\r\n\r\ncontent\r\n--b--\r\n", "x".repeat(100_000)),
        ),
        (
            form,
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../e\"\r\n\r\nx".into(),
        ),
        (form, "--b\r\n\u{0}\u{1}\r\n\r\n--b--\r\n".into()),
    ];
    let mut wrong = Vec::new();
    for (number, (kind, body)) in bodies.iter().enumerate() {
        for query in ["stream-channels=true", "stream-channels=false"] {
            let headers = [("Content-Type", *kind)];
            let target = format!("/add?{query}");
            let answer = http::request(peer.rest_port, "POST", &target, &headers, body.as_bytes()).unwrap();
            if answer.is_success() {
                wrong.push(format!(
                    "body {number}, {query}: {} {}",
                    answer.status,
                    answer.text()
                ));
            }
        }
        let headers = [("Content-Type", *kind)];
        let answer = http::request(peer.ipfs_port, "POST", "/api/v0/add", &headers, body.as_bytes()).unwrap();
        // Like Kubo: nothing is added from an empty form.
        if answer.is_success() && answer.text().contains("Hash") {
            wrong.push(format!(
                "body {number}, IPFS: {} {}",
                answer.status,
                answer.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_eq!(peer.pinset().unwrap(), Vec::<String>::new());
    assert_alive(peer);
}

#[test]
fn the_ipfs_api_refuses_invalid_requests_and_keeps_running() {
    let mut cluster = one_peer();
    let peer = &mut cluster.peers[0];
    let calls = [
        "cat?arg=nonsense",
        "cat",
        "get?arg=/ipfs/",
        "ls?arg=%00",
        "pin/add?arg=nonsense",
        "pin/rm?arg=bafkqabtimvwgy3yk",
        "pin/ls?type=nonsense",
        "block/get?arg=nonsense",
        "block/put",
        "dag/get?arg=nonsense",
        "dag/put",
        "dag/import",
        "dag/export?arg=nonsense",
        "swarm/connect?arg=nonsense",
        "resolve?arg=nonsense",
        "add",
        "cat?arg=bafkqabtimvwgy3yk&offset=-1",
        "cat?arg=bafkqabtimvwgy3yk&length=x",
        "nowhere",
    ];
    let mut wrong = Vec::new();
    for call in calls {
        let answer = peer.ipfs(call).unwrap();
        if !(400..=501).contains(&answer.status) {
            wrong.push(format!("{call}: {} {}", answer.status, answer.text()));
        }
        peer.check();
    }
    let get = http::request(peer.ipfs_port, "GET", "/api/v0/id", &[], &[]).unwrap();
    assert_eq!(get.status, 405, "a browser's GET must change nothing");
    // Invalid and truncated CARs.
    for body in [&b"nonsense"[..], &[0x3a, 0xa2, 0x65], &[0xff; 64]] {
        let (kind, form) = http::multipart(&[("car", body)]);
        let headers = [("Content-Type", kind.as_str())];
        let answer = http::request(peer.ipfs_port, "POST", "/api/v0/dag/import", &headers, &form).unwrap();
        if answer.is_success() {
            wrong.push(format!(
                "dag/import of {body:?}: {} {}",
                answer.status,
                answer.text()
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
    assert_alive(peer);
}

#[test]
fn requests_that_are_not_http_are_refused() {
    let mut cluster = one_peer();
    let peer = &mut cluster.peers[0];
    let host = "Host: x\r\n";
    let requests = [
        "nonsense\r\n\r\n".to_owned(),
        "GET / HTTP/9.9\r\n\r\n".to_owned(),
        format!("GET /id HTTP/1.1\r\n{host}Content-Length: x\r\n\r\n"),
        format!("POST /add HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
        format!("POST /add HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
        format!("GET /id HTTP/1.1\r\n{host}{}: x\r\n\r\n", "h".repeat(200_000)),
        format!("GET /{} HTTP/1.1\r\n{host}\r\n", "p".repeat(200_000)),
        format!("GET /id HTTP/1.1\r\n{host}Bad Header: x\r\n\r\n"),
    ];
    for request in requests {
        for port in [peer.rest_port, peer.ipfs_port] {
            // A 4xx response, or a closed connection.
            if let Ok(answer) = http::send(port, request.as_bytes()) {
                let shown = &request[..request.len().min(60)];
                assert!(
                    (400..600).contains(&answer.status),
                    "{shown:?}: {}",
                    answer.status
                );
            }
            peer.check();
        }
    }
    assert_alive(peer);
}

#[test]
fn garbage_on_every_port_does_no_harm() {
    let mut cluster = Cluster::start();
    let mut numbers = Numbers::new(4);
    for round in 0..20 {
        for peer in &cluster.peers {
            for port in [peer.cluster_port, peer.rest_port, peer.ipfs_port, peer.swarm_port] {
                let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                let size = usize::try_from(numbers.below(100_000)).unwrap();
                let garbage = match round % 4 {
                    0 => cids::bytes(numbers.draw(), size),
                    1 => vec![0; size],
                    // The negotiation of Noise, then garbage.
                    2 => [b"\x13/multistream/1.0.0\n\x07/noise\n", &cids::bytes(7, size)[..]].concat(),
                    _ => vec![0xff; size],
                };
                // The peer may close at any byte.
                let _ = stream.write_all(&garbage);
                let _ = stream.read(&mut [0; 1000]);
            }
        }
    }
    for peer in &mut cluster.peers {
        assert_alive(peer);
    }
    cluster.wait_ready();
}
