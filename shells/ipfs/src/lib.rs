//! IPFS for a cluster peer: a client of Kubo's RPC API ([`kubo`]), and an embedded IPFS node ([`Node`]) that
//! needs no other program. [`Backend`] is either of the two.
//!
//! The embedded node keeps pins and small blocks in a fjall database and large blocks in segment files beside
//! it, exchanges blocks with any bitswap peer over libp2p (TCP, QUIC), finds providers through the DHT and
//! delegated routers, builds UnixFS DAGs with the same CIDs as Kubo, and can serve enough of Kubo's HTTP API
//! ([`api`]) for the `ipfs` command line and client libraries. `examples/add_and_read.rs` adds a file and
//! reads it back.

#![recursion_limit = "256"]

pub mod api;
pub mod backend;
mod bitswap;
mod car;
mod codec;
mod config_file;
mod dag;
mod dagjson;
mod dns;
mod error;
pub mod gateway;
pub mod handshakes;
mod hash;
pub mod ipns;
mod keys;
pub mod kubo;
mod mfs;
mod names;
mod node;
mod outbound_http;
mod provider;
mod reader;
mod request_budget;
mod retrieval;
mod routing;
pub mod settings;
mod steps;
mod store;
mod swarm;
mod types;
pub mod unixfs;
mod upnp;

pub use backend::Backend;
pub use config_file::changeable_settings;
pub use error::Error;
pub use keys::NamedKey;
pub use names::{Lookup, PublishOptions, ResolvedName};
pub use node::{Collected, GcGuard, Node, Pace, Scrub, Scrubbed, Unmended, Upload};
pub use provider::{Duty, ProvideStat};
pub use routing::Provider;
pub use settings::PublicNetwork;
pub use steps::{Step, Steps};
pub use swarm::{AGENT, AGENT_NAME, DhtState, TrafficStat};
pub use types::{
    Block, Config, ConnectedPeer, DagPath, ExchangeStat, Identity, Pin, PinFilter, PinMode, PinStatus,
    Progress, Ref, RepoStat, Resolved,
};

pub use libp2p::{Multiaddr, PeerId};

/// Maximum length of a CID's digest, in bytes. Kubo's limit: its identity CIDs hold up to 128 bytes of
/// content.
const DIGEST_MAX: usize = 128;

/// A CID with a digest of up to 128 bytes.
pub type Cid = cid::CidGeneric<DIGEST_MAX>;

/// A multihash with a digest of up to 128 bytes.
pub(crate) type Multihash = cid::multihash::Multihash<DIGEST_MAX>;
