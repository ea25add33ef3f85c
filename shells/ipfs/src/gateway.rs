//! HTTP gateway of the embedded node: content for browsers and for clients that verify it
//! ([specifications](https://specs.ipfs.tech/http-gateways/)).
//!
//! ```text
//! server     connections, limits of time and number
//! handler    one request: host, path, format, then one of
//!   unixfs     files and directories      block    raw blocks, DAG-JSON, DAG-CBOR
//!   car        archives of DAGs           archive  tar
//!   record     IPNS records               routing  /routing/v1 from local knowledge
//! ```
//!
//! It listens on a port of its own: to browsers its pages are of another origin than the API, which refuses
//! them. On one host all content shares an origin; with subdomains each root has its own.

mod archive;
mod block;
mod car;
mod content_path;
mod failure;
mod format;
mod handler;
mod headers;
mod hosts;
mod media_type;
mod pages;
mod ranges;
mod record;
mod redirects;
mod reply;
mod routing;
mod server;
mod unixfs;

pub use self::server::serve;

use crate::Node;

use self::media_type::Sniffed;

/// Settings of a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Serves only what the node holds, and asks no other peer.
    pub no_fetch: bool,
    /// Host names, with the port unless it is 80 or 443, on which each root gets a subdomain of its own, such
    /// as `<cid>.ipfs.localhost:8080`.
    pub subdomain_hosts: Vec<String>,
}

/// A gateway: the node and its settings.
#[derive(Debug, Clone)]
struct Gateway {
    node: Node,
    settings: Settings,
    sniffed: Sniffed,
}
