//! Tests of the proxy, over an embedded node or a scripted one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ProxyConfig, Upstream, serve_proxy};
use crate::cluster::testing::{TestCluster, cid, peer};
use crate::http::Server;

/// CIDv0 of `hello
/// `, from Kubo.
const HELLO: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";

/// Time limit of every wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// The defaults of the Go peer.
impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9095)).into()],
            require_credentials: false,
            log_file: None,
            read_timeout: Duration::ZERO,
            read_header_timeout: Duration::from_secs(5),
            write_timeout: Duration::ZERO,
            idle_timeout: Duration::from_secs(60),
            max_header_bytes: 4096,
            extract_headers_extra: Vec::new(),
            extract_headers_path: "/api/v0/version".to_owned(),
            extract_headers_ttl: Duration::from_secs(5 * 60),
        }
    }
}

async fn proxy(test: &TestCluster, n: u8, upstream: Upstream) -> Server {
    let config = ProxyConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        ..ProxyConfig::default()
    };
    serve_proxy(test.cluster(n), upstream, config).await.unwrap()
}

async fn embedded(peers: u8, n: u8) -> (TestCluster, Server) {
    let test = TestCluster::new(peers).await;
    let upstream = Upstream::embedded(test.nodes[usize::from(n) - 1].clone(), None);
    let server = proxy(&test, n, upstream).await;
    (test, server)
}

/// Starts a node that answers each request with the bytes that `answer` returns for its first line.
async fn node(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Upstream {
    let answer = Arc::new(answer);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let head = read_head(&mut stream).await;
                let answer = answer(head.lines().next().unwrap_or_default());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                // Closing with unread data would reset the connection and discard the response.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    Upstream::kubo(&format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()).unwrap()
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

async fn send(server: &Server, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(server.addresses()[0].tcp().unwrap())
        .await
        .unwrap();
    let length = body.len();
    let request = format!(
        "POST /api/v0/{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _ = timeout(PATIENCE, reading).await.expect("an answer in time");
    String::from_utf8_lossy(&answer).to_ascii_lowercase()
}

async fn call(server: &Server, command: &str) -> String {
    send(server, &format!("{command} HTTP/1.1"), "").await
}

async fn add(server: &Server, query: &str) -> String {
    let head = format!("add?{query} HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b");
    let body = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"hello\"\r\n\r\n\
                hello\n\r\n--b--\r\n";
    send(server, &head, body).await
}

fn is_pinned(test: &TestCluster, n: usize) -> bool {
    test.nodes[n - 1]
        .pin_of(&HELLO.parse().unwrap())
        .unwrap()
        .is_some()
}

#[tokio::test]
async fn node_unpins_content_that_the_cluster_refuses_to_pin() {
    let (test, server) = embedded(1, 1).await;
    test.refuse(Some(Refusal::NoLeader));
    let answer = add(&server, "").await;
    assert!(answer.contains(&HELLO.to_ascii_lowercase()), "{answer}");
    assert!(answer.contains("\r\nx-stream-error: pin: "), "{answer}");
    assert!(!is_pinned(&test, 1));
    // It is unknown whether this one was pinned, so it is kept.
    test.refuse(Some(Refusal::Unknown));
    assert!(add(&server, "").await.contains("\r\nx-stream-error: pin: "));
    assert!(is_pinned(&test, 1));
    test.refuse(None);
    assert!(!add(&server, "").await.contains("x-stream-error: "));
    assert!(test.pins().contains_key(&HELLO.parse().unwrap()));
}

#[tokio::test]
async fn single_copy_stays_where_it_was_added() {
    let (test, server) = embedded(3, 2).await;
    add(&server, "replication-min=1&replication-max=1&pin-name=a+name").await;
    let pin = test.pins()[&HELLO.parse().unwrap()].clone();
    assert_eq!(pin.allocations, [peer(2)]);
    assert_eq!(pin.options.name, "a name");
    assert!(is_pinned(&test, 2));
}

#[tokio::test]
async fn copy_of_another_peer_is_released_once_pinned_there() {
    let (test, server) = embedded(2, 1).await;
    let there = peer(2);
    test.finish_pin(2, &HELLO.parse().unwrap(), Ok(()));
    add(
        &server,
        &format!("replication-min=1&replication-max=1&user-allocations={there}"),
    )
    .await;
    assert_eq!(test.pins()[&HELLO.parse().unwrap()].allocations, [there]);
    let gone = async {
        while is_pinned(&test, 1) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the node lets go");
}

#[tokio::test]
async fn unreachable_node_is_reported_and_pins_work_without_it() {
    let test = TestCluster::new(1).await;
    // Not an ephemeral port, which another test might be given.
    let port = crate::ports::take_free().unwrap().local_addr().unwrap().port();
    let nobody = format!("/ip4/127.0.0.1/tcp/{port}");
    let server = proxy(&test, 1, Upstream::kubo(&nobody.parse().unwrap()).unwrap()).await;
    let answer = call(&server, "id").await;
    assert!(
        answer.starts_with("http/1.1 502 ") && answer.contains("connection refused"),
        "{answer}"
    );
    test.finish_pin(1, &cid(7), Ok(()));
    let pinned = call(&server, &format!("pin/add?arg={}", cid(7))).await;
    assert!(pinned.starts_with("http/1.1 200 "), "{pinned}");
    let listed = call(&server, "pin/ls").await;
    assert!(
        listed.contains(&format!("{{\"keys\":{{\"{}\":", cid(7))),
        "{listed}"
    );
    let direct = call(&server, &format!("pin/ls?type=direct&arg={}", cid(7))).await;
    let says = format!("\"message\":\"path '{}' is not pinned\"", cid(7));
    assert!(
        direct.starts_with("http/1.1 500 ") && direct.contains(&says),
        "{direct}"
    );
    let indirect = call(&server, "pin/ls?type=indirect").await;
    assert!(indirect.starts_with("http/1.1 500 "), "{indirect}");
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTrailer: X-Stream-Error\r\n\
                       Transfer-Encoding: chunked\r\n\r\n";

#[tokio::test]
async fn response_ends_for_the_client_as_for_the_proxy() {
    let test = TestCluster::new(1).await;
    let upstream = node(|line| match line {
        line if line.contains("/refs") => {
            format!("{CHUNKED}3\r\none\r\n0\r\nX-Stream-Error: no more\r\n\r\n")
        }
        line if line.contains("/cat") => format!("{CHUNKED}3\r\none\r\n5\r\ntw"),
        line if line.contains("/add") => {
            let added = format!("{{\"Name\":\"\",\"Hash\":\"{HELLO}\"}}\n");
            format!(
                "{CHUNKED}{:x}\r\n{added}\r\n0\r\nX-Stream-Error: disk full\r\n\r\n",
                added.len()
            )
        }
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    })
    .await;
    let server = proxy(&test, 1, upstream).await;
    let late = call(&server, "refs").await;
    assert!(
        late.contains("one") && late.ends_with("x-stream-error: no more\r\n\r\n"),
        "{late}"
    );
    let broken = call(&server, "cat").await;
    assert!(
        broken.contains("one") && !broken.contains("\r\n0\r\n"),
        "no end is made up: {broken}"
    );
    // Content of a response that ended in an error is not pinned.
    let added = add(&server, "wrap-with-directory=true").await;
    assert!(added.contains("x-stream-error: disk full"), "{added}");
    assert!(test.pins().is_empty());
    assert!(call(&server, "nonsense").await.starts_with("http/1.1 404 "));
}

#[tokio::test]
async fn client_disconnect_is_forwarded_to_the_node() {
    let test = TestCluster::new(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    let (out, mut events) = mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let out = out.clone();
            tokio::spawn(async move {
                read_head(&mut stream).await;
                let _ = out.send("asked").await;
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                let _ = out.send("left").await;
            });
        }
    });
    let server = proxy(&test, 1, Upstream::kubo(&address.parse().unwrap()).unwrap()).await;
    let mut client = TcpStream::connect(server.addresses()[0].tcp().unwrap())
        .await
        .unwrap();
    let request = "POST /api/v0/cat?arg=x HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some("asked"));
    drop(client);
    assert_eq!(timeout(PATIENCE, events.recv()).await.unwrap(), Some("left"));
}

async fn until(test: &TestCluster, done: impl Fn(&TestCluster) -> bool) {
    let waiting = async {
        while !done(test) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect("in time");
}

#[tokio::test]
async fn pin_add_and_update_wait_for_the_minimum_of_copies() {
    let (test, server) = embedded(2, 1).await;
    let (one, two) = (cid(1), cid(2));
    let query = format!("pin/add?arg={one}&replication-min=2&replication-max=2");
    let adding = call(&server, &query);
    let holding = async {
        until(&test, |test| test.pins().contains_key(&one)).await;
        for n in [1, 2] {
            test.finish_pin(n, &one, Ok(()));
        }
    };
    let (added, ()) = tokio::join!(adding, holding);
    assert!(added.contains(&format!("{{\"pins\":[\"{one}\"]}}")), "{added}");

    // The old pin remains until the new one is held.
    let query = format!("pin/update?arg={one}&arg={two}");
    let updating = call(&server, &query);
    let holding = async {
        until(&test, |test| test.pins().contains_key(&two)).await;
        assert!(test.pins().contains_key(&one));
        for n in [1, 2] {
            test.finish_pin(n, &two, Ok(()));
        }
    };
    let (updated, ()) = tokio::join!(updating, holding);
    assert!(updated.starts_with("http/1.1 200 "), "{updated}");
    assert!(!test.pins().contains_key(&one));
}

#[tokio::test]
async fn failed_and_late_pins_are_reported_in_kubos_words() {
    let (test, server) = embedded(1, 1).await;
    test.finish_pin(1, &cid(1), Err("block was not found"));
    let failed = call(&server, &format!("pin/add?arg={}", cid(1))).await;
    assert!(
        failed.starts_with("http/1.1 500 ") && failed.contains("\"message\":\"pin: block was not found\""),
        "{failed}"
    );
    let late = call(&server, &format!("pin/add?arg={}&timeout=50ms", cid(2))).await;
    assert!(
        late.starts_with("http/1.1 500 ") && late.contains("context deadline exceeded"),
        "{late}"
    );
}

#[tokio::test]
async fn dns_rebinding_does_not_reach_the_node() {
    let (test, server) = embedded(1, 1).await;
    for path in ["pin/add?arg=x", "version", "add"] {
        let head = format!("POST /api/v0/{path} HTTP/1.1\r\nHost: evil.example\r\nConnection: close");
        let mut stream = TcpStream::connect(server.addresses()[0].tcp().unwrap())
            .await
            .unwrap();
        let request = format!("{head}\r\nContent-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    }
    assert!(test.pins().is_empty());
}

#[tokio::test]
async fn demanded_tokens_are_checked_and_not_forwarded() {
    let (seen, mut heads) = mpsc::unbounded_channel();
    let upstream = node_with_heads(seen).await;
    let test = TestCluster::new(1).await;
    let config = ProxyConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
        require_credentials: true,
        ..ProxyConfig::default()
    };
    let server = serve_proxy(test.cluster(1), upstream, config).await.unwrap();
    let asked = cluster_api::CredentialAdd {
        name: "reader".to_owned(),
        scopes: vec!["read".to_owned()],
        ..cluster_api::CredentialAdd::default()
    };
    let (_, token) = test.cluster(1).create_credential(&asked).await.unwrap();
    let header = format!("HTTP/1.1\r\nAuthorization: Bearer {token}\r\nX-A: ");
    let with = |command: &str| format!("{command} {header}");
    let refused = send(&server, "id HTTP/1.1", "").await;
    assert!(refused.starts_with("http/1.1 401 "), "{refused}");
    let refused = send(&server, &with(&format!("pin/add?arg={}", cid(1))), "").await;
    assert!(refused.starts_with("http/1.1 403 "), "{refused}");
    assert!(refused.contains("lacks the scope \"pin\""), "{refused}");
    let refused = send(&server, &with("shutdown"), "").await;
    assert!(refused.contains("lacks the scope \"admin\""), "{refused}");
    let forwarded = send(&server, &with("id"), "").await;
    assert!(forwarded.starts_with("http/1.1 200 "), "{forwarded}");
    heads.close();
    let mut count = 0;
    while let Some(head) = heads.recv().await {
        count += 1;
        assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
        assert!(!head.contains("shutdown"), "{head}");
    }
    assert!(count > 0, "the node was asked");
}

/// Starts a node that answers each request with an empty object, and passes on what it was asked.
async fn node_with_heads(seen: mpsc::UnboundedSender<String>) -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                let _ = seen.send(read_head(&mut stream).await);
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{}\n";
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    Upstream::kubo(&format!("/ip4/127.0.0.1/tcp/{port}").parse().unwrap()).unwrap()
}
