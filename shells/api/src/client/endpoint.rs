//! Addresses of REST APIs: parsing and display.

use super::ClientError;
use std::fmt;
use std::path::PathBuf;

/// Default port of the REST API.
const DEFAULT_PORT: u16 = 9094;

/// Address family to resolve a host name to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Any,
    V4,
    V6,
}

/// Address of a REST API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// Host name or IP address, with a port.
    Tcp {
        host: String,
        port: u16,
        family: Family,
        /// The address itself requests TLS (`https://`, `/https`, `/tls/http`).
        tls: bool,
    },
    /// Unix domain socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Parses a comma-separated list of hosts.
    pub(super) fn parse_list(text: &str) -> Result<Vec<Self>, ClientError> {
        text.split(',').map(|host| Self::parse(host.trim())).collect()
    }

    /// Parses `/ip4/…/tcp/…`, `/ip6/…`, `/dns/…`, `/dns4/…`, `/dns6/…`, `/unix/<path>`, `host:port`, `host`,
    /// `http://host:port` or `https://host:port`; a multiaddress may end in `/http`, `/https` or `/tls/http`.
    fn parse(text: &str) -> Result<Self, ClientError> {
        let bad = |why: &str| ClientError::BadHost {
            host: text.to_owned(),
            why: why.to_owned(),
        };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        match text.strip_prefix('/') {
            Some(parts) => Self::parse_multiaddress(parts).map_err(|why| bad(&why)),
            None => {
                let (plain, tls) = match text.strip_prefix("https://") {
                    Some(plain) => (plain, true),
                    None => (text.strip_prefix("http://").unwrap_or(text), false),
                };
                let plain = plain.trim_end_matches('/');
                Self::parse_plain(plain, tls)
                    .ok_or_else(|| bad("expected /ip4/<address>/tcp/<port> or host:port"))
            }
        }
    }

    fn parse_multiaddress(parts: &str) -> Result<Self, String> {
        let mut parts = parts.split('/');
        let kind = parts.next().unwrap_or_default();
        if kind == "unix" {
            let path: Vec<_> = parts.collect();
            return Ok(Self::Unix(PathBuf::from(format!("/{}", path.join("/")))));
        }
        let host = parts
            .next()
            .filter(|host| !host.is_empty())
            .ok_or("the address ends too early")?
            .to_owned();
        let family = match kind {
            "ip4" => host
                .parse::<std::net::Ipv4Addr>()
                .map(|_| Family::V4)
                .map_err(|e| e.to_string())?,
            "ip6" => host
                .parse::<std::net::Ipv6Addr>()
                .map(|_| Family::V6)
                .map_err(|e| e.to_string())?,
            "dns" => Family::Any,
            "dns4" => Family::V4,
            "dns6" => Family::V6,
            "dnsaddr" => return Err(NO_LIBP2P.to_owned()),
            other => return Err(format!("unknown protocol {other:?}")),
        };
        if parts.next() != Some("tcp") {
            return Err("expected /tcp/<port> after the host".to_owned());
        }
        let port = parts
            .next()
            .and_then(|port| port.parse().ok())
            .ok_or("the port is no number below 65536")?;
        let tls = match (parts.next(), parts.next()) {
            (None | Some("http" | ""), None) => false,
            (Some("https" | "tls"), None) | (Some("tls"), Some("http")) => true,
            (Some("p2p" | "ipfs"), _) => return Err(NO_LIBP2P.to_owned()),
            (other, _) => {
                return Err(format!(
                    "unexpected {:?} after the port",
                    other.unwrap_or_default()
                ));
            }
        };
        Ok(Self::Tcp {
            host,
            port,
            family,
            tls,
        })
    }

    fn parse_plain(text: &str, tls: bool) -> Option<Self> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let (host, port) = match bracketed {
            Some((host, after)) => (host, after.strip_prefix(':')),
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(plain) {
            return None;
        }
        let port = port.map_or(Some(DEFAULT_PORT), |port| port.parse().ok())?;
        Some(Self::Tcp {
            host: host.to_owned(),
            port,
            family: Family::Any,
            tls,
        })
    }

    /// Returns the `host:port` of a URL.
    pub(super) fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port, .. } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }
}

const NO_LIBP2P: &str =
    "HTTP over libp2p (/p2p/…, /dnsaddr/…) is not available; give the address of the HTTP API";

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { .. } => f.write_str(&self.authority()),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(text: &str) -> String {
        Endpoint::parse(text).map_or_else(|e| format!("error: {e}"), |endpoint| endpoint.to_string())
    }

    #[test]
    fn multiaddresses_and_plain_hosts_are_parsed() {
        for (text, expected) in [
            ("/ip4/127.0.0.1/tcp/9094", "127.0.0.1:9094"),
            ("/ip6/::1/tcp/1", "[::1]:1"),
            ("/dns4/example.org/tcp/80", "example.org:80"),
            ("/dns6/example.org/tcp/80/http", "example.org:80"),
            ("/unix/run/cluster.sock", "/run/cluster.sock"),
            ("example.org", "example.org:9094"),
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("[::1]:1234", "[::1]:1234"),
            ("http://a.b:1/", "a.b:1"),
            ("https://a.b:1/", "a.b:1"),
            ("/dns/a.b/tcp/1/https", "a.b:1"),
            ("/dns/a.b/tcp/1/tls/http", "a.b:1"),
        ] {
            assert_eq!(authority(text), expected);
        }
    }

    #[test]
    fn other_addresses_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", "empty"),
            ("/ip4/localhost/tcp/1", "invalid IPv4"),
            ("/ip4/127.0.0.1", "/tcp/"),
            ("/ip4/127.0.0.1/tcp/70000", "port"),
            ("/ip4/127.0.0.1/udp/1", "/tcp/"),
            ("/ip4/127.0.0.1/tcp/1/p2p/Qm", "libp2p"),
            ("/dnsaddr/example.org", "libp2p"),
            ("/onion/x/tcp/1", "onion"),
            ("a b:1", "host:port"),
            ("a:b", "host:port"),
            ("/ip4/127.0.0.1/tcp/1/http/x", "http"),
        ] {
            let got = authority(text);
            assert!(got.starts_with("error") && got.contains(reason), "{text}: {got}");
        }
    }
}
