//! Shared helpers of the tests: raw HTTP requests, a fake daemon, an embedded node with its API.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

pub mod dns;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_ipfs::kubo::{Client, Config};
use cluster_ipfs::{Multiaddr, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;

/// Far longer than any test here takes, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Creates a client of the daemon at `address`.
pub fn client(address: SocketAddr) -> Client {
    client_with_pin_timeout(address, PATIENCE)
}

/// Creates a client with this time limit on pins without progress.
pub fn client_with_pin_timeout(address: SocketAddr, pin_timeout: Duration) -> Client {
    let multiaddress: Multiaddr = format!("/ip4/{}/tcp/{}", address.ip(), address.port())
        .parse()
        .unwrap();
    Client::new(Config {
        node_multiaddress: multiaddress,
        request_timeout: PATIENCE,
        pin_timeout,
        ..Config::default()
    })
    .unwrap()
}

/// Returns an address that nobody listens on, nor can while the socket is kept.
pub fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A fake daemon that answers each request with the next of the given texts, byte for byte, and then closes
/// the connection. A text that ends with `…` keeps the connection open instead.
pub struct FakeDaemon {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeDaemon {
    pub async fn answering(answers: &[&str]) -> FakeDaemon {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let mut answers: VecDeque<String> = answers.iter().map(|it| it.replace('\n', "\r\n")).collect();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let Some(answer) = answers.pop_front() else { return };
                let head = read_request(&mut socket).await;
                seen.lock().unwrap().push(head);
                tokio::spawn(async move {
                    let keep = answer.ends_with('…');
                    socket
                        .write_all(answer.trim_end_matches('…').as_bytes())
                        .await
                        .unwrap();
                    if keep {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        FakeDaemon { address, requests }
    }

    /// Returns the request lines so far, without method and version.
    pub fn paths(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests
            .iter()
            .map(|it| it.split(' ').nth(1).unwrap_or_default().to_owned())
            .collect()
    }

    /// Returns the header of each request so far, as it was sent; empty where it is absent.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        let value = |head: &String| {
            let found = head
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_default().to_owned()
        };
        requests.iter().map(value).collect()
    }
}

/// Reads the head of a request, and the body it declares.
async fn read_request(socket: &mut TcpStream) -> String {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    while !request.windows(4).any(|it| it == b"\r\n\r\n") {
        match socket.read(&mut buffer).await.unwrap() {
            0 => break,
            count => request.extend_from_slice(&buffer[..count]),
        }
    }
    if String::from_utf8_lossy(&request).contains("chunked") {
        while !request.ends_with(b"0\r\n\r\n") {
            match socket.read(&mut buffer).await.unwrap() {
                0 => break,
                count => request.extend_from_slice(&buffer[..count]),
            }
        }
    }
    String::from_utf8_lossy(&request).into_owned()
}

/// Returns an answer with these lines as chunks, and a trailer if given.
pub fn chunked(lines: &[&str], trailer: Option<&str>) -> String {
    let mut text = "HTTP/1.1 200 OK\nContent-Type: application/json\nTrailer: X-Stream-Error\n\
                    Transfer-Encoding: chunked\nConnection: close\n\n"
        .to_owned();
    for line in lines {
        // The fake turns each line end into two bytes, also the one inside the chunk.
        text.push_str(&format!("{:x}\n{line}\n\n", line.len() + 2));
    }
    text.push_str("0\n");
    if let Some(trailer) = trailer {
        text.push_str(&format!("X-Stream-Error: {trailer}\n"));
    }
    text.push('\n');
    text
}

/// Returns an answer with a `Content-Length`.
pub fn sized(status: &str, kind: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\nContent-Type: {kind}\nContent-Length: {}\nConnection: close\n\n{body}",
        body.len()
    )
}

/// An embedded node and its API, until dropped.
pub struct Served {
    pub node: Node,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub async fn start() -> Served {
        Served::start_in(cluster_ipfs::PublicNetwork::default()).await
    }

    /// Starts a node with this contact with others.
    pub async fn start_in(network: cluster_ipfs::PublicNetwork) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(cluster_ipfs::Config {
            path: folder.path().join("ipfs"),
            swarm_listen: vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()],
            storage_max: None,
            network,
            fixed: std::collections::BTreeMap::new(),
        })
        .await
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = node.clone();
        tokio::spawn(cluster_ipfs::api::serve(
            served,
            listener.try_into().unwrap(),
            async {
                let _ = stopped.await;
            },
        ));
        Served {
            node,
            address,
            stop: Some(stop),
            _folder: folder,
        }
    }

    pub fn client(&self) -> Client {
        client(self.address)
    }

    /// Sends a request unchanged, with `Connection: close`, and returns the whole answer.
    pub async fn raw(&self, request_line: &str, headers: &str, body: &[u8]) -> Answer {
        raw(self.address, request_line, headers, body).await
    }

    /// Sends `POST /api/v0/<path>` without a body.
    pub async fn post(&self, path: &str) -> Answer {
        self.raw(&format!("POST /api/v0/{path}"), "", b"").await
    }

    /// Sends `POST /api/v0/<path>` with parts of name, media type and content.
    pub async fn upload(&self, path: &str, parts: &[(&str, &str, &[u8])]) -> Answer {
        let mut body = Vec::new();
        for (name, kind, content) in parts {
            body.extend_from_slice(
                format!(
                    "--bnd\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
                     Content-Type: {kind}\r\n\r\n"
                )
                .as_bytes(),
            );
            body.extend_from_slice(content);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"--bnd--\r\n");
        let headers = "Content-Type: multipart/form-data; boundary=bnd\r\n";
        self.raw(&format!("POST /api/v0/{path}"), headers, &body).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
    }
}

pub async fn raw(address: SocketAddr, request_line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{request_line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         {headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses early closes while the rest is being sent.
    let _ = socket.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes).await;
    Answer::parse(&bytes)
}

/// A parsed answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Answer {
        let end = bytes
            .windows(4)
            .position(|it| it == b"\r\n\r\n")
            .expect("a whole head")
            + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let headers = fields(head.split("\r\n").skip(1));
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
            trailers: Vec::new(),
        };
        let mut rest = &bytes[end..];
        if answer.header("Transfer-Encoding") != Some("chunked") {
            answer.body = rest.to_vec();
            return answer;
        }
        loop {
            let line = rest.windows(2).position(|it| it == b"\r\n").expect("a chunk");
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
            rest = &rest[line + 2..];
            if size == 0 {
                let trailers = String::from_utf8_lossy(rest).into_owned();
                answer.trailers = fields(trailers.split("\r\n"));
                return answer;
            }
            answer.body.extend_from_slice(&rest[..size]);
            rest = &rest[size + 2..];
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn trailer(&self) -> Option<&str> {
        let find = |(name, _): &&(String, String)| name.eq_ignore_ascii_case("x-stream-error");
        self.trailers.iter().find(find).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn lines(&self) -> Vec<serde_json::Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
