//! The HTTP servers of a peer: the REST API and the IPFS proxy, over [`Cluster`](crate::cluster::Cluster).
//!
//! Routes, answers and the quirks that clients rely on are the Go peer's. This module translates between
//! HTTP and `Cluster`; it decides nothing about pins or peers.

mod access_log;
mod add;
mod answer;
mod auth;
mod connection;
mod cors;
mod credentials;
mod drains;
mod events;
mod health;
mod import;
mod json_body;
mod metrics;
mod multipart;
mod openapi;
mod page;
mod peers;
mod pin_query;
mod pinning_service;
mod pins;
mod proxy;
mod rebalance;
mod refusals;
mod rest;
mod routes;
mod scopes;
mod scrub;
mod server;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use cluster_http::ListenAddress;

use crate::events::EventLog;
use crate::metrics::Observer;

pub use self::metrics::serve_metrics;
pub use self::proxy::{ProxyConfig, Upstream, serve_proxy};
pub use self::rest::{serve, serve_pinning_service};
pub use self::server::{Server, Service, StartError, check_addresses};
pub use self::tls::Tls;

/// Sources of what the API shows of the running peer. By default there are none.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Reads the components.
    pub observer: Option<Observer>,
    /// The events.
    pub events: EventLog,
}

/// Settings of the REST API, or of the pinning service API.
#[derive(Clone)]
pub struct HttpConfig {
    /// Addresses to listen on. Port 0 picks a free one.
    pub listen: Vec<ListenAddress>,
    /// Passwords by user name; with some, the API needs credentials.
    pub credentials: Option<BTreeMap<String, String>>,
    /// Demands credentials also without users: tokens of the cluster's credentials are accepted.
    pub require_credentials: bool,
    /// Headers added to every answer but those to CORS preflights.
    pub headers: BTreeMap<String, Vec<String>>,
    /// Access of web pages of other origins.
    pub cors: CorsConfig,
    /// Time for a request's headers to arrive; zero for no limit.
    pub read_header_timeout: Duration,
    /// Time after which a connection without a request is closed; zero for no limit.
    pub idle_timeout: Duration,
    /// Approximate limit of a request's headers, in bytes; values below 4096 count as 4096.
    pub max_header_bytes: usize,
    /// Certificate to serve over TLS with; there is no plain HTTP then.
    pub tls: Option<Tls>,
    /// Access log file; if absent, requests go to the peer's log at level debug.
    pub log_file: Option<PathBuf>,
}

impl fmt::Debug for HttpConfig {
    /// Leaves out passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("listen", &self.listen)
            .field("users", &self.credentials.as_ref().map(BTreeMap::len))
            .finish_non_exhaustive()
    }
}

/// Access of web pages of other origins (CORS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsConfig {
    /// Allowed origins; `*` for all, also within one (`https://*.example.com`).
    pub origins: Vec<String>,
    /// Allowed methods.
    pub methods: Vec<String>,
    /// Allowed request headers; `*` for all. Empty means the Go library's: `Origin`, `Accept`,
    /// `Content-Type`, `X-Requested-With`.
    pub headers: Vec<String>,
    /// Response headers that pages may read.
    pub exposed: Vec<String>,
    /// Allows pages to send credentials.
    pub credentials: bool,
    /// Time for which a browser may cache a preflight answer.
    pub max_age: Duration,
}
