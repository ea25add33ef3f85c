//! Fetching a file from one provider, and from three at once, over links of limited rate.

use crate::{Outcome, open};
use cluster_ipfs::settings::PublicNetwork;
use cluster_ipfs::unixfs::{AddOptions, Metadata};
use cluster_ipfs::{Cid, Multiaddr, Node, PinMode};
use libp2p::multiaddr::Protocol;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// Number of providers.
const PROVIDERS: usize = 3;
/// Time by which a link may make up for late wake-ups.
const SLACK: Duration = Duration::from_millis(50);
/// Bytes that pass a link together.
const PIECE: usize = 16 << 10;

/// Forwards a connection to a provider; what the provider sends passes at a limited rate.
async fn forward(near: TcpStream, provider: u16, rate: usize) -> Outcome<()> {
    let far = TcpStream::connect(("127.0.0.1", provider)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.into_split(), far.into_split());
    tokio::spawn(async move { tokio::io::copy(&mut from_near, &mut to_far).await });
    let (mut buffer, mut free) = (vec![0; PIECE], tokio::time::Instant::now());
    loop {
        let read = from_far.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let earliest = tokio::time::Instant::now().checked_sub(SLACK).unwrap_or(free);
        free = free.max(earliest) + Duration::from_secs_f64(read as f64 / rate as f64);
        to_near.write_all(&buffer[..read]).await?;
        tokio::time::sleep_until(free).await;
    }
}

/// Starts a link to a provider. Returns the provider's address behind it.
async fn link(provider: &Node, rate: usize) -> Outcome<Multiaddr> {
    let id = provider.id();
    let address = id.addresses.first().ok_or("a node that listens")?;
    let port = address.iter().find_map(|part| {
        if let Protocol::Tcp(port) = part {
            Some(port)
        } else {
            None
        }
    });
    let port = port.ok_or("a node without TCP")?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let behind = format!(
        "/ip4/127.0.0.1/tcp/{}/p2p/{}",
        listener.local_addr()?.port(),
        id.peer_id
    );
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(forward(near, port, rate));
        }
    });
    Ok(behind.parse()?)
}

/// Opens the providers, which all hold a file. Returns its CID.
async fn providers(folder: &Path, bytes: usize) -> Outcome<(Vec<Node>, Cid)> {
    let first = open(&folder.join("provider-0"), PublicNetwork::default()).await?;
    let content: Vec<u8> = (0..bytes / 8)
        .flat_map(|number| (number as u64).to_le_bytes())
        .collect();
    let mut upload = first.add(AddOptions::default())?;
    let file = upload
        .file("file", Metadata::default(), content.as_slice(), |_| ())
        .await?;
    upload.finish(Some(String::new()), mpsc::channel(1).0).await?;
    let address = first.id().addresses.remove(0);
    let mut all = vec![first];
    for number in 1..PROVIDERS {
        let node = open(
            &folder.join(format!("provider-{number}")),
            PublicNetwork::default(),
        )
        .await?;
        node.connect(address.clone()).await?;
        node.pin(file.cid, PinMode::Recursive, String::new(), |_| {})
            .await?;
        all.push(node);
    }
    Ok((all, file.cid))
}

/// Measures a pin from one provider and from all.
pub(crate) async fn run(bytes: usize, rate: usize) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let (providers, cid) = providers(folder.path(), bytes).await?;
    let mut times = Vec::new();
    for count in [1, PROVIDERS] {
        let fetcher = open(
            &folder.path().join(format!("fetcher-{count}")),
            PublicNetwork::default(),
        )
        .await?;
        for provider in &providers[..count] {
            fetcher.connect(link(provider, rate).await?).await?;
        }
        let start = Instant::now();
        fetcher
            .pin(cid, PinMode::Recursive, String::new(), |_| {})
            .await?;
        times.push(start.elapsed().as_secs_f64());
        fetcher.shutdown().await;
    }
    println!(
        "{bytes} bytes over links of {rate} bytes/s: {:.1} s from one provider, {:.1} s from {PROVIDERS}: {:.2} times \
         as fast",
        times[0],
        times[1],
        times[0] / times[1]
    );
    Ok(())
}
