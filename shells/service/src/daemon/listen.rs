//! What a peer serves over HTTP.

use std::net::SocketAddr;

use anyhow::Context;
use cluster_ipfs::Node;
use libp2p::multiaddr::Protocol;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::{Address, Config};
use crate::http::{self, CorsConfig, HttpConfig, Server};

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
        let address = listener.local_addr()?;
        tracing::info!("the embedded IPFS node's API listens on {address}");
        let (node, stopped) = (node.clone(), stop.clone().cancelled_owned());
        tasks.spawn(async move {
            if let Err(error) = cluster_ipfs::api::serve(node, listener, stopped).await {
                tracing::error!("the embedded IPFS node's API ended: {error}");
            }
        });
    }
    Ok(())
}

/// Serves the REST API, unless it is not configured.
pub(super) async fn serve_rest(config: &Config, cluster: Cluster) -> anyhow::Result<Option<Server>> {
    const KEY: &str = "api.restapi.http_listen_multiaddress";
    let Some(rest) = &config.api.restapi else {
        let why = "there is no api.restapi section";
        tracing::warn!("{why}: this peer answers no ipfs-cluster-ctl");
        return Ok(None);
    };
    let listen = rest
        .http_listen_multiaddress
        .0
        .iter()
        .map(|address| socket(address, KEY));
    let cors = CorsConfig {
        origins: rest.cors_allowed_origins.clone(),
        methods: rest.cors_allowed_methods.clone(),
        headers: rest.cors_allowed_headers.clone(),
        exposed: rest.cors_exposed_headers.clone(),
        credentials: rest.cors_allow_credentials,
        max_age: rest.cors_max_age.0,
    };
    let http = HttpConfig {
        listen: listen.collect::<anyhow::Result<_>>()?,
        credentials: rest
            .basic_auth_credentials
            .as_ref()
            .map(|credentials| credentials.0.clone()),
        headers: rest.headers.clone(),
        cors,
        read_header_timeout: rest.read_header_timeout.0,
        idle_timeout: rest.idle_timeout.0,
        max_header_bytes: rest.max_header_bytes as usize,
    };
    let open = http.listen.iter().any(|address| !address.ip().is_loopback());
    if open && http.credentials.is_none() {
        tracing::warn!(
            "the REST API is open to other machines, without credentials: whoever reaches it controls the \
             cluster. Set api.restapi.basic_auth_credentials, or listen on 127.0.0.1"
        );
    }
    let server = http::serve(cluster, http).await?;
    for address in server.addresses() {
        tracing::info!("REST API (HTTP): /ip4/{}/tcp/{}", address.ip(), address.port());
    }
    Ok(Some(server))
}

/// Takes a port, or says who should let go of it.
async fn bind(address: &Address, key: &str) -> anyhow::Result<TcpListener> {
    let socket = socket(address, key)?;
    TcpListener::bind(socket).await.with_context(|| {
        format!(
            "cannot listen on {socket}: if another program has the port, stop it, or change {key} in \
             service.json"
        )
    })
}

fn socket(address: &Address, key: &str) -> anyhow::Result<SocketAddr> {
    let mut parts = address.0.iter();
    let socket = match (parts.next(), parts.next(), parts.next()) {
        (Some(Protocol::Ip4(ip)), Some(Protocol::Tcp(port)), None) => Some(SocketAddr::from((ip, port))),
        (Some(Protocol::Ip6(ip)), Some(Protocol::Tcp(port)), None) => Some(SocketAddr::from((ip, port))),
        (..) => None,
    };
    socket.with_context(|| format!("{key}: {} is not /ip4/…/tcp/… or /ip6/…/tcp/…", address.0))
}
