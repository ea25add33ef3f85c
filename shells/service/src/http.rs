//! The REST API: the Go peer's routes, answers and quirks that clients rely on, over
//! [`Cluster`](crate::cluster::Cluster).

mod access;
mod add;
mod answer;
mod auth;
mod connection;
mod cors;
mod health;
mod import;
mod multipart;
mod peers;
mod pins;
mod proxy;
mod rest;
mod routes;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use self::proxy::{Behind, ProxyConfig, serve_proxy};
pub use self::rest::serve;
pub use self::server::{Server, Service, StartError, check};
pub use self::tls::Tls;

/// How the API is served. The defaults are the Go peer's.
#[derive(Clone)]
pub struct HttpConfig {
    /// Where to listen. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// User names with passwords; `None` lets everybody in.
    pub credentials: Option<BTreeMap<String, String>>,
    /// Added to every answer.
    pub headers: BTreeMap<String, Vec<String>>,
    /// What web pages of other origins may do.
    pub cors: CorsConfig,
    /// A request's headers must arrive within this time; zero for no limit.
    pub read_header_timeout: Duration,
    /// A connection without a request is closed after this time; zero for no limit.
    pub idle_timeout: Duration,
    /// Headers of about this many bytes are taken; 4096 is the least.
    pub max_header_bytes: usize,
    /// Serve over TLS with this certificate, and not without.
    pub tls: Option<Tls>,
    /// Where to write a line for each request; to the peer's log, at level debug, if absent.
    pub log_file: Option<PathBuf>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 9094))],
            credentials: None,
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

impl fmt::Debug for HttpConfig {
    /// Without passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("listen", &self.listen)
            .field("users", &self.credentials.as_ref().map(BTreeMap::len))
            .finish_non_exhaustive()
    }
}

/// What web pages of other origins may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// Which origins; `*` for all, also within one (`https://*.example.com`).
    pub origins: Vec<String>,
    /// With which methods.
    pub methods: Vec<String>,
    /// With which headers; `*` for all. Empty means the Go library's: `Origin`, `Accept`, `Content-Type`,
    /// `X-Requested-With`.
    pub headers: Vec<String>,
    /// What they may read of the answer's headers.
    pub exposed: Vec<String>,
    /// Whether they may send credentials.
    pub credentials: bool,
    /// How long a browser may remember this.
    pub max_age: Duration,
}

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
