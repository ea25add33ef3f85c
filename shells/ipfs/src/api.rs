//! HTTP API of the embedded node, compatible with Kubo's `/api/v0`.
//!
//! The `ipfs` command line, Kubo's client libraries and a cluster peer's [`crate::kubo::Client`] use it like
//! that of a Kubo daemon. `server` accepts connections and dispatches requests to the commands, `access`
//! rejects requests of foreign web pages, `request` parses calls and `reply` formats answers. Uploads,
//! downloads and listings of any size stream in constant memory.

mod access;
mod add;
mod blocks;
mod cids;
mod commands;
mod config;
mod dags;
mod diag;
mod exchange;
mod files;
mod gzip;
mod info;
mod keys;
mod kubo_types;
mod mfs;
mod names;
mod network;
mod pins;
mod provide;
mod reply;
mod repo;
mod request;
mod request_log;
mod routing;
mod server;

pub use self::kubo_types::{PIN_NAME_MAX, PinKey, PinKinds, PinLine, Pins};
pub use self::reply::Body;
pub use self::request::{RequestBody, parse_base};
pub use self::server::{Api, serve};

/// Reported version of the API: clients choose their behaviour by it, and the `ipfs` command line accepts
/// only strict semver.
pub const API_VERSION: &str = "0.43.0";

/// Name and version of this program, in the field where Kubo reports its commit.
const PROGRAM: &str = concat!("ipfs-cluster-embedded/", env!("CARGO_PKG_VERSION"));
