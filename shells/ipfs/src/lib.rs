//! How a cluster peer reaches IPFS: a client of Kubo's RPC API ([`kubo`]), and an IPFS node of its own
//! ([`Node`]) that needs no other program.
//!
//! The embedded node keeps pins and small blocks in a fjall database of its own and large blocks in segment
//! files beside it, exchanges blocks with any bitswap peer over libp2p (TCP, noise, yamux), builds UnixFS
//! DAGs with the same CIDs as Kubo, and can serve enough of Kubo's HTTP API ([`api`]) for the `ipfs`
//! command line and client libraries.

#![recursion_limit = "256"]

pub mod api;
pub mod backend;
mod bitswap;
mod budget;
mod car;
mod codec;
mod dag;
mod dagjson;
mod error;
pub mod handshakes;
mod hash;
pub mod kubo;
mod node;
pub mod pages;
mod reader;
mod store;
mod swarm;
pub mod trailers;
mod types;
pub mod unixfs;

pub use backend::Backend;
pub use error::Error;
pub use node::{Adding, Collected, Hold, Node};
pub use swarm::{AGENT, AGENT_NAME};
pub use types::{
    Block, Config, ConnectedPeer, DagPath, Identity, Pin, PinFilter, PinMode, PinStatus, Progress, Ref,
    RepoStat, Resolved,
};

pub use libp2p::{Multiaddr, PeerId};

/// The longest digest of a CID: what Kubo takes, whose identity CIDs hold up to 128 bytes of content.
const DIGEST_MAX: usize = 128;

/// A CID with a digest of up to 128 bytes.
pub type Cid = cid::CidGeneric<DIGEST_MAX>;

/// A multihash of the same size.
pub(crate) type Multihash = cid::multihash::Multihash<DIGEST_MAX>;
