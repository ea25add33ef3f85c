//! The values that cross the embedded node's interface.

use crate::Cid;
use crate::Error;
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, identity::PublicKey};
use std::path::PathBuf;

/// How to open a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The data folder; made if missing. Its `identity` file holds the keypair, made at the first open.
    pub path: PathBuf,
    /// Where to listen for bitswap peers, `/ip4/…/tcp/…`. Empty: dial only.
    pub swarm_listen: Vec<Multiaddr>,
    /// The most bytes that all blocks together may have. `None`: what the disk holds.
    pub storage_max: Option<u64>,
}

/// A block and its name. Nothing says that they fit until [`crate::Node::put`] has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// The name.
    pub cid: Cid,
    /// The content.
    pub data: Bytes,
}

/// Who this node is, to others.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The peer id.
    pub peer_id: PeerId,
    /// The public key behind it.
    pub public_key: PublicKey,
    /// Where it listens now, each ending in `/p2p/<peer id>`.
    pub addresses: Vec<Multiaddr>,
    /// The program and its version, as sent to other peers.
    pub agent_version: String,
    /// The protocols it speaks, sorted.
    pub protocols: Vec<String>,
}

/// Another node that is connected.
#[derive(Debug, Clone)]
pub struct ConnectedPeer {
    /// Who.
    pub peer_id: PeerId,
    /// The remote address of one of the connections.
    pub address: Multiaddr,
    /// Whether the other side dialled us.
    pub inbound: bool,
    /// What the peer says it runs, once known.
    pub agent_version: Option<String>,
}

/// How much of a DAG a pin keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinMode {
    /// The block and all that it links to.
    Recursive,
    /// Only the block.
    Direct,
}

impl PinMode {
    /// Kubo's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            PinMode::Recursive => "recursive",
            PinMode::Direct => "direct",
        }
    }
}

/// A recorded pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// What is pinned.
    pub cid: Cid,
    /// How.
    pub mode: PinMode,
    /// The label it was given; empty for none.
    pub name: String,
}

/// Why a block is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinStatus {
    /// A pin of its own.
    Pinned(Pin),
    /// Below this recursive pin.
    Indirect(Cid),
}

/// Which pins to list.
#[derive(Debug, Clone, Default)]
pub struct PinFilter {
    /// Only this mode.
    pub mode: Option<PinMode>,
    /// Only names that contain this.
    pub name: Option<String>,
}

/// How far a pin has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Blocks that are local by now, of those visited.
    pub blocks: u64,
    /// Bytes fetched from other peers so far.
    pub bytes: u64,
}

/// What the repository holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoStat {
    /// Bytes of all blocks.
    pub repo_size: u64,
    /// The configured limit, bytes.
    pub storage_max: Option<u64>,
    /// Bytes that all blocks together may have: what the limit allows, and what the disk has room for.
    pub storage_fits: u64,
    /// Size of the file system that holds the data folder, bytes.
    pub disk_size: u64,
    /// Number of blocks.
    pub num_objects: u64,
    /// Number of pins.
    pub num_pins: u64,
    /// The format of the repository, in Kubo's form.
    pub version: String,
    /// The data folder.
    pub path: PathBuf,
}

/// One link found by a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// The block that holds the link.
    pub from: Cid,
    /// The block it names.
    pub to: Cid,
    /// The name of the link, where the codec has one.
    pub name: String,
    /// Links between the root and `to`; 1 for the root's own.
    pub depth: u64,
}

/// A CID and the names below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DagPath {
    /// Where the path starts.
    pub root: Cid,
    /// The names to follow.
    pub segments: Vec<String>,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The last block on the way.
    pub cid: Cid,
    /// What is left of the path inside that block; always empty for files and directories.
    pub remainder: Vec<String>,
}

impl std::str::FromStr for DagPath {
    type Err = Error;

    /// Reads `CID`, `CID/a/b`, `/ipfs/CID/…`, `/ipld/CID/…`, `ipfs://CID/…`. Errors are Kubo's words.
    fn from_str(text: &str) -> Result<DagPath, Error> {
        let bad = |why: &str| Error::invalid(format!("invalid path {text:?}: {why}"));
        let lower = text.get(..7).map(str::to_ascii_lowercase);
        let rest = match (text.strip_prefix('/'), lower.as_deref()) {
            (Some(rooted), _) => match rooted.split_once('/') {
                Some(("ipfs" | "ipld", rest)) => rest,
                Some(("ipns", _)) => return Err(Error::Unsupported("/ipns".into())),
                Some((other, _)) => return Err(bad(&format!("unknown namespace: {other:?}"))),
                None => return Err(bad("path does not have enough components")),
            },
            (None, Some("ipfs://")) => &text[7..],
            (None, Some("ipns://")) => return Err(Error::Unsupported("ipns".into())),
            (None, _) => text,
        };
        let mut parts = rest.split('/').filter(|part| !part.is_empty());
        let root = parts
            .next()
            .ok_or_else(|| bad("path does not have enough components"))?;
        let root = crate::hash::parse(root).map_err(|why| bad(&format!("invalid cid: {why}")))?;
        Ok(DagPath {
            root,
            segments: parts.map(str::to_owned).collect(),
        })
    }
}

impl From<Cid> for DagPath {
    fn from(root: Cid) -> DagPath {
        DagPath {
            root,
            segments: Vec::new(),
        }
    }
}

impl std::fmt::Display for DagPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/ipfs/{}", self.root)?;
        self.segments
            .iter()
            .try_for_each(|segment| write!(f, "/{segment}"))
    }
}
