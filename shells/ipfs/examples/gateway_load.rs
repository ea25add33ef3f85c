//! Loads a gateway, this node's own or any other, and prints requests per second:
//!
//! `cargo run --release -p cluster-ipfs --example gateway_load -- 64 10 [ADDRESS PATH]`
//!
//! with the number of connections, the seconds, and the gateway, such as `127.0.0.1:8080 /ipfs/CID`. Without
//! a gateway it starts a node in a temporary folder and asks it for a file of 1 MiB. With `serve` as the only
//! argument it starts that node for other clients, and prints the address and the path.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster_ipfs::gateway::{self, Settings};
use cluster_ipfs::unixfs::{AddOptions, Metadata};
use cluster_ipfs::{Config, Node};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: gateway_load serve | CONNECTIONS SECONDS [ADDRESS PATH]";
    let folder = tempfile::tempdir()?;
    let first = args.next().ok_or(usage)?;
    if first == "serve" {
        let (address, path) = start(folder.path()).await?;
        println!("{address} {path}");
        return Ok(tokio::signal::ctrl_c().await?);
    }
    let connections: usize = first.parse()?;
    let seconds: u64 = args.next().ok_or(usage)?.parse()?;
    let (address, path) = match (args.next(), args.next()) {
        (Some(address), Some(path)) => (address, path),
        _ => start(folder.path()).await?,
    };
    let (requests, bytes) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let end = began + Duration::from_secs(seconds);
    let mut clients = Vec::new();
    for _ in 0..connections {
        let (address, path) = (address.clone(), path.clone());
        let (requests, bytes) = (requests.clone(), bytes.clone());
        clients.push(tokio::spawn(async move {
            let mut socket = TcpStream::connect(&address).await?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
            while Instant::now() < end {
                socket.write_all(request.as_bytes()).await?;
                bytes.fetch_add(receive(&mut socket).await?, Ordering::Relaxed);
                requests.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), Failure>(())
        }));
    }
    for client in clients {
        client.await??;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let rate = requests.load(Ordering::Relaxed) as f64 / elapsed;
    let mib = bytes.load(Ordering::Relaxed) as f64 / elapsed / f64::from(1 << 20);
    println!("{connections} connections: {rate:.0} requests/s, {mib:.0} MiB/s");
    Ok(())
}

/// Starts a node with its gateway; returns the address and the path of a file.
async fn start(folder: &std::path::Path) -> Result<(String, String), Failure> {
    let node = Node::open(Config {
        path: folder.join("ipfs"),
        swarm_listen: Vec::new(),
        storage_max: None,
        network: cluster_ipfs::PublicNetwork::default(),
        fixed: std::collections::BTreeMap::new(),
    })
    .await?;
    let content: Vec<u8> = (0..1 << 20).map(|at: u32| (at % 251) as u8).collect();
    let mut upload = node.add(AddOptions::default())?;
    let file = upload
        .file("file.bin", Metadata::default(), content.as_slice(), |_| ())
        .await?;
    upload.finish(Some(String::new()), mpsc::channel(1).0).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let served = gateway::serve(
        node,
        Settings::default(),
        listener.try_into()?,
        std::future::pending(),
    );
    tokio::spawn(served);
    Ok((address, format!("/ipfs/{}", file.cid)))
}

/// Reads one answer, whose head states its length; returns the length of the body.
async fn receive(socket: &mut TcpStream) -> Result<u64, Failure> {
    let mut buffer = vec![0; 256 << 10];
    let mut filled = 0;
    let head = loop {
        let read = socket.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Err("the gateway closed the connection".into());
        }
        filled += read;
        if let Some(end) = buffer[..filled].windows(4).position(|it| it == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(text.into());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: u64 = length.ok_or("an answer without a length")?.trim().parse()?;
    let mut left = length.saturating_sub((filled - head) as u64);
    while left > 0 {
        match socket.read(&mut buffer).await? {
            0 => return Err("the answer was cut off".into()),
            read => left = left.saturating_sub(read as u64),
        }
    }
    Ok(length)
}
