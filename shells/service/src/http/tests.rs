//! Tests of the REST API: requests and answers through a real socket, compared byte by byte where that
//! matters.

mod adding;
mod credentials;
mod owners;
mod pages;
mod pins;
mod routes;
mod security;
mod wire;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cluster_api::{ImportedPin, PinOptions};
use cluster_core::Refusal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{CorsConfig, HttpConfig, Observed, Server, serve};
use crate::cluster::testing::{TestCluster, cid, peer};

/// The defaults of the Go peer.
impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9094)).into()],
            credentials: None,
            require_credentials: false,
            headers: BTreeMap::new(),
            cors: CorsConfig::default(),
            read_header_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(120),
            max_header_bytes: 4096,
            tls: None,
            log_file: None,
        }
    }
}

/// The defaults of the Go peer.
impl Default for CorsConfig {
    fn default() -> Self {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self {
            origins: list(&["*"]),
            methods: list(&["GET"]),
            headers: Vec::new(),
            exposed: list(&[
                "Content-Type",
                "X-Stream-Output",
                "X-Chunked-Output",
                "X-Content-Length",
            ]),
            credentials: true,
            max_age: Duration::ZERO,
        }
    }
}

struct Api {
    test: TestCluster,
    server: Server,
}

/// A response as it came over the wire.
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
        Self::with_peers(3, change).await
    }

    async fn with_peers(peers: u8, change: impl FnOnce(&mut HttpConfig)) -> Self {
        let test = TestCluster::new(peers).await;
        let mut config = HttpConfig {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0)).into()],
            ..HttpConfig::default()
        };
        change(&mut config);
        let server = serve(test.cluster(1), Observed::default(), config).await.unwrap();
        Self { test, server }
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0].tcp().unwrap()
    }

    async fn raw(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        raw(self.address(), request).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
        send(self.address(), method, path, headers, body).await
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

async fn raw(address: SocketAddr, request: impl AsRef<[u8]>) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request.as_ref()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

async fn send(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: impl AsRef<[u8]>,
) -> Answer {
    let body = body.as_ref();
    let length = body.len();
    let line = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let mut request = format!("{line}Content-Length: {length}\r\n{headers}\r\n").into_bytes();
    request.extend_from_slice(body);
    Answer::parse(&raw(address, request).await)
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

/// CIDv0 of `hello
/// `, from Kubo.
const HELLO: &str = "QmZULkCELmmk5XNfCgTnCyFgAVxBRBXyDHGGMVoLFLiXEN";
