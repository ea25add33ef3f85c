//! What a peer serves over HTTP.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use cluster_ipfs::Node;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::{Address, Config};
use crate::net::Multiaddr;

/// Serves the embedded node's own API.
pub(super) async fn serve_ipfs_api(
    config: &Config,
    node: &Node,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let Some(embedded) = &config.ipfs_connector.embedded else {
        return Ok(());
    };
    for address in &embedded.api_listen_multiaddress.0 {
        let listener = bind(address, "ipfs_connector.embedded.api_listen_multiaddress").await?;
        tracing::info!(target: "ipfshttp", "the embedded IPFS node's API listens on {}", listener.local_addr()?);
        let (node, stopped) = (node.clone(), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = cluster_ipfs::api::serve(node, listener, stopped).await {
                tracing::error!(target: "ipfshttp", "the embedded IPFS node's API ended: {error}");
            }
        });
    }
    Ok(())
}

/// Serves the REST API.
pub(super) async fn serve_rest(config: &Config, cluster: Cluster) -> anyhow::Result<()> {
    let _ = (config, cluster);
    anyhow::bail!("REST")
}

/// Takes a port, or says who should let go of it.
async fn bind(address: &Address, key: &str) -> anyhow::Result<TcpListener> {
    let socket = socket(&address.0)
        .with_context(|| format!("{key}: {} is not /ip4/…/tcp/… or /ip6/…/tcp/…", address.0))?;
    TcpListener::bind(socket).await.with_context(|| {
        format!("cannot listen on {socket}: is another daemon using the port? Stop it, or change {key} in service.json")
    })
}

fn socket(address: &Multiaddr) -> Option<SocketAddr> {
    use libp2p::multiaddr::Protocol;
    let mut parts = address.iter();
    let (Some(host), Some(Protocol::Tcp(port)), None) = (parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    let ip = if let Protocol::Ip4(ip) = host {
        IpAddr::V4(ip)
    } else if let Protocol::Ip6(ip) = host {
        IpAddr::V6(ip)
    } else {
        return None;
    };
    Some(SocketAddr::new(ip, port))
}
