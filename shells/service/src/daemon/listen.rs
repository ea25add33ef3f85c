//! What a peer serves over HTTP.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use cluster_ipfs::{Backend, Node};
use libp2p::multiaddr::Protocol;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::{self, Address, Config, HttpApi, Rest};
use crate::http::{self, Behind, CorsConfig, HttpConfig, ProxyConfig, Server, Tls};

/// Serves the embedded node's own API.
pub(super) async fn serve_ipfs_api(
    config: &Config,
    node: &Node,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
    threads: &Handle,
) -> anyhow::Result<()> {
    let Some(embedded) = &config.ipfs_connector.embedded else {
        return Ok(());
    };
    for address in &embedded.api_listen_multiaddress.0 {
        let address = address.clone();
        let binding = async move { bind(&address, "ipfs_connector.embedded.api_listen_multiaddress").await };
        let listener = threads.spawn(binding).await??;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            tracing::warn!(
                "the embedded IPFS node's API is open to other machines, without credentials: whoever \
                 reaches it controls what the node holds. Have \
                 ipfs_connector.embedded.api_listen_multiaddress listen on 127.0.0.1"
            );
        }
        tracing::info!("the embedded IPFS node's API listens on {address}");
        let (node, stopped) = (node.clone(), stop.clone().cancelled_owned());
        let serving = async move {
            if let Err(error) = cluster_ipfs::api::serve(node, listener, stopped).await {
                tracing::error!("the embedded IPFS node's API ended: {error}");
            }
        };
        tasks.spawn_on(serving, threads);
    }
    Ok(())
}

/// Serves the REST API, unless it is not configured.
pub(super) async fn serve_rest(
    config: &Config,
    folder: &Path,
    cluster: Cluster,
) -> anyhow::Result<Option<Server>> {
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
        tls: tls(rest, folder)?,
        log_file: (!rest.http_log_file.is_empty()).then(|| folder.join(&rest.http_log_file)),
    };
    let scheme = if http.tls.is_some() { "HTTPS" } else { "HTTP" };
    let open = http.listen.iter().any(|address| !address.ip().is_loopback());
    if open && http.credentials.is_none() {
        tracing::warn!(
            "the REST API is open to other machines, without credentials: whoever reaches it controls the \
             cluster. Set api.restapi.basic_auth_credentials, or listen on 127.0.0.1"
        );
    }
    if open && http.credentials.is_some() && http.tls.is_none() {
        tracing::warn!(
            "the REST API is open to other machines over plain HTTP: passwords can be read on the way. Set \
             api.restapi.ssl_cert_file and ssl_key_file, or listen on 127.0.0.1"
        );
    }
    let server = http::serve(cluster, http).await?;
    for address in server.addresses() {
        let kind = if address.is_ipv4() { "ip4" } else { "ip6" };
        tracing::info!(
            "REST API ({scheme}): /{kind}/{}/tcp/{}",
            address.ip(),
            address.port()
        );
    }
    Ok(Some(server))
}

/// Serves the IPFS proxy, unless it is not configured. It stands before this peer's own IPFS node, where that
/// is in this process.
pub(super) async fn serve_proxy(
    config: &Config,
    folder: &Path,
    cluster: Cluster,
    backend: &Backend,
) -> anyhow::Result<Option<Server>> {
    const KEY: &str = "api.ipfsproxy.listen_multiaddress";
    let Some(proxy) = &config.api.ipfsproxy else {
        return Ok(None);
    };
    let listen: Vec<SocketAddr> = proxy
        .listen_multiaddress
        .0
        .iter()
        .map(|address| socket(address, KEY))
        .collect::<anyhow::Result<_>>()?;
    let behind = match backend {
        Backend::Embedded(node) => {
            let port = listen.first().map_or(0, SocketAddr::port);
            Behind::embedded(node.clone(), port)
        }
        Backend::Kubo(_) if proxy.node_https => anyhow::bail!(
            "api.ipfsproxy.node_https: an IPFS node cannot be reached over TLS yet: give its plain HTTP \
             address in node_multiaddress, and set node_https to false"
        ),
        Backend::Kubo(_) => {
            let behind = Behind::kubo(&proxy.node_multiaddress.0);
            behind.context("api.ipfsproxy.node_multiaddress")?
        }
    };
    if listen.iter().any(|address| !address.ip().is_loopback()) {
        tracing::warn!(
            "the IPFS proxy is open to other machines, without credentials: whoever reaches it controls what \
             the cluster pins, and the IPFS node behind it. Listen on 127.0.0.1"
        );
    }
    let settings = ProxyConfig {
        listen,
        log_file: (!proxy.log_file.is_empty()).then(|| folder.join(&proxy.log_file)),
        read_timeout: proxy.read_timeout.0,
        read_header_timeout: proxy.read_header_timeout.0,
        write_timeout: proxy.write_timeout.0,
        idle_timeout: proxy.idle_timeout.0,
        max_header_bytes: proxy.max_header_bytes as usize,
        extract_headers_extra: proxy.extract_headers_extra.clone(),
        extract_headers_path: proxy.extract_headers_path.clone(),
        extract_headers_ttl: proxy.extract_headers_ttl.0,
    };
    let server = http::serve_proxy(cluster, behind, settings).await?;
    for address in server.addresses() {
        let kind = if address.is_ipv4() { "ip4" } else { "ip6" };
        tracing::info!("IPFS Proxy: /{kind}/{}/tcp/{}", address.ip(), address.port());
    }
    Ok(Some(server))
}

/// Says so when whoever reaches the port for peers may become one.
pub(super) fn warn_of_strangers(cluster: &config::Cluster) {
    let listens = &cluster.listen_multiaddress.0;
    let open = listens.iter().any(|address| !is_loopback(address));
    let mut secrets = cluster.accepted_secrets.iter().chain([&cluster.secret]);
    if open && secrets.any(|secret| secret.0.is_none()) {
        let listens: Vec<String> = listens.iter().map(|address| address.0.to_string()).collect();
        tracing::warn!(
            "the cluster has no secret: whoever reaches {} can join it and read and change all that it pins. \
             Set the same cluster.secret (32 bytes in hexadecimal, as `openssl rand -hex 32` makes them) in \
             service.json on all peers, or have cluster.listen_multiaddress listen on 127.0.0.1 only",
            listens.join(", ")
        );
    }
}

fn is_loopback(address: &Address) -> bool {
    match address.0.iter().next() {
        Some(Protocol::Ip4(ip)) => ip.is_loopback(),
        Some(Protocol::Ip6(ip)) => ip.is_loopback(),
        Some(_) | None => false,
    }
}

/// The certificate, if there is one; files are looked for from the configuration folder on.
fn tls(rest: &HttpApi<Rest>, folder: &Path) -> anyhow::Result<Option<Tls>> {
    if rest.ssl_cert_file.is_empty() {
        return Ok(None);
    }
    let loaded = Tls::load(
        &folder.join(&rest.ssl_cert_file),
        &folder.join(&rest.ssl_key_file),
    );
    loaded
        .map(Some)
        .map_err(|why| anyhow::anyhow!("api.restapi.ssl_cert_file: {why}"))
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
