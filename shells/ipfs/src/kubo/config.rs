//! Address of the Kubo daemon and time limits of requests to it.

use std::path::PathBuf;
use std::time::Duration;

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// Settings of a [`Client`](super::Client); defaults are those of `ipfs_connector.ipfshttp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Address of Kubo's RPC API: `/ip4|ip6|dns|dns4|dns6/…/tcp/…` or `/unix/…`.
    pub node_multiaddress: Multiaddr,
    /// Time limit of requests that answer at once, and of the silence between two lines of a listing.
    pub request_timeout: Duration,
    /// Time limit of a pin without progress.
    pub pin_timeout: Duration,
    /// Time limit of one unpin: Kubo takes long to walk a very large DAG.
    pub unpin_timeout: Duration,
    /// Time limit of one garbage collection.
    pub repo_gc_timeout: Duration,
    /// Refuses every unpin.
    pub unpin_disable: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            node_multiaddress: Multiaddr::empty()
                .with(Protocol::Ip4(std::net::Ipv4Addr::LOCALHOST))
                .with(Protocol::Tcp(5001)),
            request_timeout: Duration::from_secs(5 * 60),
            pin_timeout: Duration::from_secs(2 * 60),
            unpin_timeout: Duration::from_secs(3 * 60 * 60),
            repo_gc_timeout: Duration::from_secs(24 * 60 * 60),
            unpin_disable: false,
        }
    }
}

/// A node address that this client does not support.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot reach an ipfs node at {0}: use /ip4/…/tcp/…, /ip6/…, /dns4/…, /dns6/…, /dns/… or /unix/…")]
pub struct BadAddress(pub String);

/// Parses a node address as operators write it. Unlike the general parser, but like Go's, it takes everything
/// after `/unix` as one path.
///
/// # Errors
/// [`BadAddress`] if `text` is not a multiaddress of a supported kind.
pub fn parse_node_address(text: &str) -> Result<Multiaddr, BadAddress> {
    let address = match text.strip_prefix("/unix/") {
        Some(path) => Some(Multiaddr::empty().with(Protocol::Unix(path.into()))),
        None => text.parse().ok(),
    };
    let address = address.ok_or_else(|| BadAddress(text.to_owned()))?;
    Endpoint::parse(&address).map(|_| address)
}

/// Connection target of a node address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `host:port`, with an IPv6 host in brackets.
    Tcp(String),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    pub(super) fn parse(address: &Multiaddr) -> Result<Self, BadAddress> {
        let parts: Vec<Protocol<'_>> = address.iter().collect();
        if let [Protocol::Unix(path)] = parts.as_slice() {
            // `path` lacks its leading slash.
            return Ok(Endpoint::Unix(PathBuf::from("/").join(path.as_ref())));
        }
        let (host, rest) = parts
            .split_first()
            .ok_or_else(|| BadAddress(address.to_string()))?;
        let host = host_of(host).ok_or_else(|| BadAddress(address.to_string()))?;
        let port = match rest {
            [Protocol::Tcp(port)] | [Protocol::Tcp(port), Protocol::Http] => *port,
            _ => return Err(BadAddress(address.to_string())),
        };
        Ok(Endpoint::Tcp(format!("{host}:{port}")))
    }
}

fn host_of(part: &Protocol<'_>) -> Option<String> {
    if let Protocol::Ip4(ip) = part {
        return Some(ip.to_string());
    }
    if let Protocol::Ip6(ip) = part {
        return Some(format!("[{ip}]"));
    }
    if let Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) = part {
        return Some(name.to_string());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(address: &str) -> Option<Endpoint> {
        Endpoint::parse(&parse_node_address(address).ok()?).ok()
    }

    #[test]
    fn supported_node_addresses_are_parsed() {
        assert_eq!(
            parse("/ip4/127.0.0.1/tcp/5001"),
            Some(Endpoint::Tcp("127.0.0.1:5001".into()))
        );
        assert_eq!(
            parse("/ip6/::1/tcp/5001"),
            Some(Endpoint::Tcp("[::1]:5001".into()))
        );
        assert_eq!(
            parse("/dns4/ipfs/tcp/5001/http"),
            Some(Endpoint::Tcp("ipfs:5001".into()))
        );
        assert_eq!(
            parse("/unix/run/ipfs.sock"),
            Some(Endpoint::Unix("/run/ipfs.sock".into()))
        );
    }

    #[test]
    fn unsupported_node_addresses_are_refused() {
        for address in [
            "/ip4/127.0.0.1",
            "/ip4/127.0.0.1/udp/5001",
            "/ip4/127.0.0.1/tcp/5001/tls",
            "/tcp/5001",
        ] {
            assert_eq!(parse(address), None, "{address}");
        }
    }
}
