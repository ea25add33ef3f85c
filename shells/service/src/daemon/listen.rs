//! HTTP servers of a peer: REST API, proxy, and the embedded node's API.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use cluster_http::{ListenAddress, Listener};
use cluster_ipfs::{Backend, Node, gateway};
use libp2p::multiaddr::Protocol;
use tokio::net::lookup_host;
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::config::{self, Address, Config, Defaults, Embedded, Folder, HttpApi, IpfsProxy};
use crate::events::EventLog;
use crate::http::{self, CorsConfig, HttpConfig, Observed, ProxyConfig, Server, Service, Tls, Upstream};
use crate::metrics::Observer;

const PROXY_KEY: &str = "api.ipfsproxy.listen_multiaddress";
const METRICS_KEY: &str = "observations.metrics.prometheus_endpoint";
const NODE_KEY: &str = "ipfs_connector.embedded.api_listen_multiaddress";
const GATEWAY_KEY: &str = "ipfs_connector.embedded.gateway_listen_multiaddress";

/// Time limit for resolving the name in a listen address, which is one of this machine.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Serves the embedded node's own API, and its gateway.
pub(super) async fn serve_node(
    config: &Config,
    node: &Node,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
    threads: &Handle,
) -> anyhow::Result<()> {
    let Some(embedded) = &config.ipfs_connector.embedded else {
        return Ok(());
    };
    serve_ipfs_api(embedded, node, stop, tasks, threads).await?;
    serve_gateway(embedded, node, stop, tasks, threads).await
}

async fn serve_ipfs_api(
    embedded: &Embedded,
    node: &Node,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
    threads: &Handle,
) -> anyhow::Result<()> {
    for socket in sockets(&embedded.api_listen_multiaddress.0, NODE_KEY).await? {
        let listener = bind_on(threads, socket, NODE_KEY).await?;
        let address = listener.address().clone();
        if !address.is_local() {
            tracing::warn!(
                "the embedded IPFS node's API is open to other machines, without credentials: anyone who \
                 reaches it controls what the node holds. Have \
                 ipfs_connector.embedded.api_listen_multiaddress listen on 127.0.0.1"
            );
        }
        tracing::info!("the embedded IPFS node's API listens on {address}");
        let (node, stopped) = (node.clone(), stop.clone().cancelled_owned());
        tasks.spawn_on(cluster_ipfs::api::serve(node, listener, stopped), threads);
    }
    Ok(())
}

/// Serves the embedded node's gateway. A port that is in use is no reason to end: another program, or another
/// peer on this machine, may have the usual one.
async fn serve_gateway(
    embedded: &Embedded,
    node: &Node,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
    threads: &Handle,
) -> anyhow::Result<()> {
    let settings = gateway::Settings {
        no_fetch: embedded.gateway_no_fetch,
        subdomain_hosts: embedded
            .gateway_subdomain_hosts
            .iter()
            .map(|host| host.to_ascii_lowercase())
            .collect(),
    };
    for socket in sockets(&embedded.gateway_listen_multiaddress.0, GATEWAY_KEY).await? {
        let listener = match bind_on(threads, socket, GATEWAY_KEY).await {
            Ok(listener) => listener,
            Err(error) => {
                tracing::warn!("the embedded IPFS node has no gateway there: {error:#}");
                continue;
            }
        };
        let address = listener.address().clone();
        if !address.is_local() {
            let fetches = if settings.no_fetch {
                ""
            } else {
                ", and have it fetched"
            };
            tracing::warn!(
                "the embedded IPFS node's gateway is open to other machines: anyone who reaches it can read \
                 any content{fetches}"
            );
        }
        tracing::info!(
            "the embedded IPFS node's gateway listens on {address} (to have none: {GATEWAY_KEY}: [])"
        );
        let (node, stopped) = (node.clone(), stop.clone().cancelled_owned());
        let serving = gateway::serve(node, settings.clone(), listener, stopped);
        tasks.spawn_on(serving, threads);
    }
    Ok(())
}

/// Validates the settings of all HTTP servers, down to the ports, before anything is written: a peer that
/// cannot be reached must not have founded a cluster.
pub(super) async fn check(config: &Config, folder: &Path) -> anyhow::Result<()> {
    if let Some(rest) = &config.api.restapi {
        let settings = http_config(rest, "api.restapi", folder).await?;
        http::check_addresses(Service::Rest, &settings.listen).await?;
        settings.check()?;
    }
    if let Some(pinning) = &config.api.pinsvcapi {
        let settings = http_config(pinning, "api.pinsvcapi", folder).await?;
        if !listens_by_default(pinning) {
            http::check_addresses(Service::PinningService, &settings.listen).await?;
        }
        settings.check()?;
    }
    if let Some(proxy) = &config.api.ipfsproxy {
        let settings = proxy_config(proxy, folder).await?;
        http::check_addresses(Service::Proxy, &settings.listen).await?;
        if config.ipfs_connector.embedded.is_none() {
            kubo_upstream(proxy)?;
        }
    }
    if config.observations.metrics.enable_stats {
        http::check_addresses(Service::Metrics, &metrics_sockets(config).await?).await?;
    }
    if let Some(embedded) = &config.ipfs_connector.embedded {
        for socket in sockets(&embedded.api_listen_multiaddress.0, NODE_KEY).await? {
            bind(&socket, NODE_KEY).await?;
        }
        sockets(&embedded.gateway_listen_multiaddress.0, GATEWAY_KEY).await?;
    }
    Ok(())
}

/// Reads a section of an API with Go's settings; `section` is its name.
async fn http_config<D: Defaults>(
    rest: &HttpApi<D>,
    section: &str,
    folder: &Path,
) -> anyhow::Result<HttpConfig> {
    let cors = CorsConfig {
        origins: rest.cors_allowed_origins.clone(),
        methods: rest.cors_allowed_methods.clone(),
        headers: rest.cors_allowed_headers.clone(),
        exposed: rest.cors_exposed_headers.clone(),
        credentials: rest.cors_allow_credentials,
        max_age: rest.cors_max_age.0,
    };
    let key = format!("{section}.http_listen_multiaddress");
    Ok(HttpConfig {
        listen: sockets(&rest.http_listen_multiaddress.0, &key).await?,
        credentials: rest
            .basic_auth_credentials
            .as_ref()
            .map(|credentials| credentials.0.clone()),
        require_credentials: rest.require_credentials,
        headers: rest.headers.clone(),
        cors,
        read_header_timeout: rest.read_header_timeout.0,
        idle_timeout: rest.idle_timeout.0,
        max_header_bytes: rest.max_header_bytes as usize,
        tls: tls(rest, section, folder)?,
        log_file: (!rest.http_log_file.is_empty()).then(|| folder.join(&rest.http_log_file)),
    })
}

/// Serves the REST API, if it is configured.
async fn serve_rest(
    config: &Config,
    folder: &Path,
    cluster: Cluster,
    observed: Observed,
) -> anyhow::Result<Option<Server>> {
    let Some(rest) = &config.api.restapi else {
        let why = "there is no api.restapi section";
        tracing::warn!("{why}: this peer answers no ipfs-cluster-ctl");
        return Ok(None);
    };
    let http = http_config(rest, "api.restapi", folder).await?;
    warn_of_open_api(&http, "REST API", "api.restapi");
    let scheme = scheme(&http);
    let server = http::serve(cluster, observed, http).await?;
    for address in server.addresses() {
        tracing::info!("REST API ({scheme}): {}", address.to_multiaddr());
    }
    Ok(Some(server))
}

/// Serves the pinning service API, if it is configured. On its default port it yields to another program, so
/// that several peers on one machine start.
async fn serve_pinning_service(
    config: &Config,
    folder: &Path,
    cluster: Cluster,
) -> anyhow::Result<Option<Server>> {
    let Some(pinning) = &config.api.pinsvcapi else {
        return Ok(None);
    };
    let http = http_config(pinning, "api.pinsvcapi", folder).await?;
    warn_of_open_api(&http, "pinning service API", "api.pinsvcapi");
    let scheme = scheme(&http);
    match http::serve_pinning_service(cluster, http).await {
        Ok(server) => {
            for address in server.addresses() {
                tracing::info!("Pinning Service API ({scheme}): {}", address.to_multiaddr());
            }
            Ok(Some(server))
        }
        Err(error) if listens_by_default(pinning) => {
            tracing::warn!("{error}, or remove the section: this peer continues without that API");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn listens_by_default<D: Defaults>(api: &HttpApi<D>) -> bool {
    api.http_listen_multiaddress == HttpApi::<D>::default().http_listen_multiaddress
}

fn scheme(http: &HttpConfig) -> &'static str {
    if http.tls.is_some() { "HTTPS" } else { "HTTP" }
}

/// Warns when other machines can reach an API without credentials, or with credentials in the clear.
fn warn_of_open_api(http: &HttpConfig, name: &str, section: &str) {
    if http.listen.iter().all(ListenAddress::is_local) {
        return;
    }
    if http.credentials.is_none() && !http.require_credentials {
        tracing::warn!(
            "the {name} is open to other machines, without credentials: anyone who reaches it controls the \
             cluster. Set {section}.basic_auth_credentials or require_credentials, or listen on 127.0.0.1"
        );
    } else if http.tls.is_none() {
        tracing::warn!(
            "the {name} is open to other machines over plain HTTP: passwords and tokens can be read on the \
             way. Set {section}.ssl_cert_file and ssl_key_file, or listen on 127.0.0.1"
        );
    }
}

/// Starts all HTTP servers that are configured for the clients of the cluster.
pub(super) async fn serve(
    folder: &Folder,
    cluster: Cluster,
    backend: &Backend,
    observer: Observer,
    events: &EventLog,
) -> anyhow::Result<Vec<Server>> {
    let Folder { config, path, .. } = folder;
    let observed = Observed {
        observer: Some(observer.clone()),
        events: events.clone(),
    };
    let metrics = serve_metrics(config, observer).await?;
    let rest = serve_rest(config, path, cluster.clone(), observed).await?;
    let pinning = serve_pinning_service(config, path, cluster.clone()).await?;
    let proxy = serve_proxy(config, path, cluster, backend).await?;
    Ok([metrics, rest, pinning, proxy].into_iter().flatten().collect())
}

async fn metrics_sockets(config: &Config) -> anyhow::Result<Vec<ListenAddress>> {
    let endpoint = &config.observations.metrics.prometheus_endpoint;
    sockets(std::slice::from_ref(endpoint), METRICS_KEY).await
}

/// Serves the metrics for Prometheus, if they are enabled.
async fn serve_metrics(config: &Config, observer: Observer) -> anyhow::Result<Option<Server>> {
    if !config.observations.metrics.enable_stats {
        return Ok(None);
    }
    let server = http::serve_metrics(observer, &metrics_sockets(config).await?).await?;
    for address in server.addresses() {
        if !address.is_local() {
            tracing::warn!(
                "the metrics are open to other machines, without credentials: they name the peers and their \
                 load. Have observations.metrics.prometheus_endpoint listen on 127.0.0.1"
            );
        }
        tracing::info!("metrics for Prometheus: http://{address}/metrics");
    }
    Ok(Some(server))
}

async fn proxy_config(proxy: &IpfsProxy, folder: &Path) -> anyhow::Result<ProxyConfig> {
    Ok(ProxyConfig {
        listen: sockets(&proxy.listen_multiaddress.0, PROXY_KEY).await?,
        require_credentials: proxy.require_credentials,
        log_file: (!proxy.log_file.is_empty()).then(|| folder.join(&proxy.log_file)),
        read_timeout: proxy.read_timeout.0,
        read_header_timeout: proxy.read_header_timeout.0,
        write_timeout: proxy.write_timeout.0,
        idle_timeout: proxy.idle_timeout.0,
        max_header_bytes: proxy.max_header_bytes as usize,
        extract_headers_extra: proxy.extract_headers_extra.clone(),
        extract_headers_path: proxy.extract_headers_path.clone(),
        extract_headers_ttl: proxy.extract_headers_ttl.0,
    })
}

fn kubo_upstream(proxy: &IpfsProxy) -> anyhow::Result<Upstream> {
    anyhow::ensure!(
        !proxy.node_https,
        "api.ipfsproxy.node_https: an IPFS node cannot be reached over TLS yet: give its plain HTTP address \
         in node_multiaddress, and set node_https to false"
    );
    let upstream = Upstream::kubo(&proxy.node_multiaddress.0);
    upstream.context("api.ipfsproxy.node_multiaddress")
}

/// Serves the IPFS proxy, if it is configured, in front of this peer's IPFS node.
async fn serve_proxy(
    config: &Config,
    folder: &Path,
    cluster: Cluster,
    backend: &Backend,
) -> anyhow::Result<Option<Server>> {
    let Some(proxy) = &config.api.ipfsproxy else {
        return Ok(None);
    };
    let settings = proxy_config(proxy, folder).await?;
    let upstream = match backend {
        Backend::Embedded(node) => {
            let port = settings.listen.iter().find_map(ListenAddress::port);
            Upstream::embedded(node.clone(), port)
        }
        Backend::Kubo(_) => kubo_upstream(proxy)?,
    };
    let is_remote = settings.listen.iter().any(|address| !address.is_local());
    if is_remote && !settings.require_credentials {
        tracing::warn!(
            "the IPFS proxy is open to other machines, without credentials: anyone who reaches it controls \
             what the cluster pins, and the IPFS node behind it. Set api.ipfsproxy.require_credentials, \
             or listen on 127.0.0.1"
        );
    }
    let server = http::serve_proxy(cluster, upstream, settings).await?;
    for address in server.addresses() {
        tracing::info!("IPFS Proxy: {}", address.to_multiaddr());
    }
    Ok(Some(server))
}

/// Warns when anyone who reaches the port for peers may join.
pub(super) fn warn_of_open_cluster(cluster: &config::Cluster) {
    let listens = &cluster.listen_multiaddress.0;
    let open = listens.iter().any(|address| !is_loopback(address));
    let mut secrets = cluster.accepted_secrets.iter().chain([&cluster.secret]);
    if open && secrets.any(|secret| secret.0.is_none()) {
        let listens: Vec<String> = listens.iter().map(|address| address.0.to_string()).collect();
        tracing::warn!(
            "the cluster has no secret: anyone who reaches {} can join it and read and change all its pins. \
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

/// Returns the certificate, if there is one; relative paths start at the configuration folder.
fn tls<D: Defaults>(rest: &HttpApi<D>, section: &str, folder: &Path) -> anyhow::Result<Option<Tls>> {
    if rest.ssl_cert_file.is_empty() {
        return Ok(None);
    }
    let loaded = Tls::load(
        &folder.join(&rest.ssl_cert_file),
        &folder.join(&rest.ssl_key_file),
    );
    loaded
        .map(Some)
        .map_err(|why| anyhow::anyhow!("{section}.ssl_cert_file: {why}"))
}

/// As [`bind`], for a port that is served on these threads.
async fn bind_on(threads: &Handle, address: ListenAddress, key: &'static str) -> anyhow::Result<Listener> {
    threads.spawn(async move { bind(&address, key).await }).await?
}

/// Binds a port. The error advises on a port that is in use.
async fn bind(address: &ListenAddress, key: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: if another program has it, stop that one, or change {key} in \
             service.json"
        )
    })
}

/// Returns the socket addresses to listen on. A name is resolved once, to its first address, as in the Go
/// peer; a trailing `/http` is ignored.
async fn sockets(addresses: &[Address], key: &str) -> anyhow::Result<Vec<ListenAddress>> {
    let mut sockets = Vec::with_capacity(addresses.len());
    for address in addresses {
        let mut parts = address.0.iter();
        if let Some(Protocol::Unix(path)) = address.0.iter().next() {
            sockets.push(ListenAddress::Unix(format!("/{path}").into()));
            continue;
        }
        let (host, port, end) = (parts.next(), parts.next(), parts.next());
        let (Some(host), Some(Protocol::Tcp(port)), None | Some(Protocol::Http), None) =
            (host, port, end, parts.next())
        else {
            return Err(not_a_socket(address, key));
        };
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "libp2p may add protocols, none of which is a host"
        )]
        let socket = match host {
            Protocol::Ip4(ip) => SocketAddr::from((ip, port)),
            Protocol::Ip6(ip) => SocketAddr::from((ip, port)),
            Protocol::Dns4(name) => look_up(&name, port, key, SocketAddr::is_ipv4).await?,
            Protocol::Dns6(name) => look_up(&name, port, key, SocketAddr::is_ipv6).await?,
            Protocol::Dns(name) => match look_up(&name, port, key, SocketAddr::is_ipv4).await {
                Ok(socket) => socket,
                Err(_) => look_up(&name, port, key, |_| true).await?,
            },
            _ => return Err(not_a_socket(address, key)),
        };
        sockets.push(socket.into());
    }
    Ok(sockets)
}

fn not_a_socket(address: &Address, key: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "{key}: cannot listen on {}: write it like /ip4/127.0.0.1/tcp/9094, /ip6/::1/tcp/9094, \
         /dns4/NAME/tcp/9094 or /unix/run/cluster.sock",
        address.0
    )
}

async fn look_up(
    name: &str,
    port: u16,
    key: &str,
    fits: fn(&SocketAddr) -> bool,
) -> anyhow::Result<SocketAddr> {
    let found = timeout(LOOK_UP, lookup_host((name, port))).await;
    let found = found.with_context(|| format!("{key}: {name:?} cannot be resolved within {LOOK_UP:?}"))?;
    let mut found = found.with_context(|| format!("{key}: {name:?} cannot be resolved"))?;
    let fitting = found.find(fits);
    fitting.with_context(|| format!("{key}: {name:?} has no address of this kind"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str) -> Result<String, String> {
        let found = sockets(&[text.parse().unwrap()], "KEY").await;
        found
            .map(|sockets| sockets[0].to_string())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn listen_addresses_are_ips_or_names_with_or_without_http() {
        for (text, socket) in [
            ("/ip4/127.0.0.1/tcp/9094", "127.0.0.1:9094"),
            ("/ip6/::1/tcp/9094", "[::1]:9094"),
            ("/ip4/127.0.0.1/tcp/9094/http", "127.0.0.1:9094"),
            ("/dns4/localhost/tcp/9094", "127.0.0.1:9094"),
            ("/dns/localhost/tcp/9094/http", "127.0.0.1:9094"),
            ("/unix/run/cluster.sock", "/run/cluster.sock"),
        ] {
            assert_eq!(read(text).await.as_deref(), Ok(socket), "{text}");
        }
        for text in [
            "/ip4/127.0.0.1/udp/9094",
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/tcp/9094/ws",
            "/ip4/127.0.0.1/tcp/9094/http/p2p-circuit",
        ] {
            let error = read(text).await.unwrap_err();
            assert!(error.starts_with("KEY: cannot listen on "), "{error}");
        }
    }
}
