//! Parameters and results of the embedded node's calls.

use crate::Cid;
use crate::Error;
use crate::settings::PublicNetwork;
use crate::unixfs::Name;
use bytes::Bytes;
use libp2p::{Multiaddr, PeerId, identity::PublicKey};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path of the data folder; created if missing. Its `identity` file holds the keypair, created at the
    /// first open.
    pub path: PathBuf,
    /// Addresses to listen on for IPFS peers, `/ip4/…/tcp/…` and `/ip4/…/udp/…/quic-v1`. Empty: dial only.
    pub swarm_listen: Vec<Multiaddr>,
    /// Limit on the bytes of all blocks together. `None`: whatever the disk holds.
    pub storage_max: Option<u64>,
    /// Contact with nodes outside of the cluster.
    pub network: PublicNetwork,
    /// Settings that clients of the API cannot change because the environment sets them: their names in
    /// `ipfs_connector.embedded` of `service.json`, and the variables.
    pub fixed: BTreeMap<String, String>,
}

/// A block and its CID. They need not match until [`crate::Node::put`] has verified them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// CID that names the block.
    pub cid: Cid,
    /// The block's bytes.
    pub data: Bytes,
}

/// Identity of this node, as other peers see it.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Peer id of the node's keypair.
    pub peer_id: PeerId,
    /// The public key that `peer_id` is derived from.
    pub public_key: PublicKey,
    /// Current listen addresses, each ending in `/p2p/<peer id>`.
    pub addresses: Vec<Multiaddr>,
    /// Program and version, as sent to other peers by the identify protocol.
    pub agent_version: String,
    /// Supported libp2p protocols, sorted.
    pub protocols: Vec<String>,
}

/// A connected peer.
#[derive(Debug, Clone)]
pub struct ConnectedPeer {
    /// Peer id of the other node.
    pub peer_id: PeerId,
    /// The remote address of one of the connections.
    pub address: Multiaddr,
    /// True if the peer dialled this node.
    pub inbound: bool,
    /// Program and version that the peer reports, once identified.
    pub agent_version: Option<String>,
}

/// Extent of a pin: a whole DAG or one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PinMode {
    /// The block and everything that it links to.
    Recursive,
    /// Only the block.
    Direct,
}

impl PinMode {
    /// Returns Kubo's name of the mode.
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
    /// Root of the pin.
    pub cid: Cid,
    /// Recursive or direct.
    pub mode: PinMode,
    /// Label given by the user; may be empty.
    pub name: String,
}

/// Reason why a block is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinStatus {
    /// The block has its own pin.
    Pinned(Pin),
    /// The block is below this recursive pin.
    Indirect(Cid),
}

/// Filter of a listing of pins.
#[derive(Debug, Clone, Default)]
pub struct PinFilter {
    /// Only pins of this mode.
    pub mode: Option<PinMode>,
    /// Only pins whose name contains this text.
    pub name: Option<String>,
}

/// Progress of a pin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Visited blocks that are stored locally by now.
    pub blocks: u64,
    /// Bytes fetched from other peers so far.
    pub bytes: u64,
    /// Size of all blocks in bytes, as the root states it: an estimate, and of a stranger. 0 if unknown.
    pub total: u64,
}

impl Progress {
    /// Progress of a pin that was complete before.
    pub(crate) fn complete() -> Self {
        Progress {
            blocks: 1,
            ..Progress::default()
        }
    }
}

/// Blocks exchanged with other nodes since the start: numbers of blocks, and of their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExchangeStat {
    /// Wanted blocks received.
    pub received: (u64, u64),
    /// Blocks read to be sent.
    pub sent: (u64, u64),
}

/// Usage and limits of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoStat {
    /// Size of all blocks, in bytes.
    pub repo_size: u64,
    /// The configured limit, in bytes.
    pub storage_max: Option<u64>,
    /// Bytes that all blocks together may have: the smaller of `storage_max` and what the disk has room for.
    pub storage_fits: u64,
    /// Size of the file system that holds the data folder, in bytes.
    pub disk_size: u64,
    /// Number of blocks.
    pub num_objects: u64,
    /// Number of pins.
    pub num_pins: u64,
    /// Format version of the repository, as Kubo reports it.
    pub version: String,
    /// The data folder.
    pub path: PathBuf,
}

/// A link found by a walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ref {
    /// The block that contains the link.
    pub from: Cid,
    /// The target of the link.
    pub to: Cid,
    /// Name of the link; empty for codecs without names.
    pub name: String,
    /// Links between the root and `to`; 1 for the root's own.
    pub depth: u64,
}

/// A path into a DAG: a CID and the link names to follow from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DagPath {
    /// Start of the path.
    pub root: Cid,
    /// Link names to follow.
    pub segments: Vec<Name>,
}

/// Target of a resolved path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The last block on the path.
    pub cid: Cid,
    /// Rest of the path, inside that block; always empty for files and directories.
    pub remainder: Vec<Name>,
}

/// Splits a path into its head, up to the CID or name that it begins with, and the segments after it.
pub(crate) fn split_head(path: &Name) -> (Name, Vec<Name>) {
    let bytes = path.as_bytes();
    let has_scheme = [b"ipfs://", b"ipns://"].iter().any(|scheme| {
        let start = bytes.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(*scheme))
    });
    let before_root = if has_scheme || bytes.starts_with(b"/") {
        2
    } else {
        0
    };
    let (mut end, mut found) = (0, false);
    for (at, piece) in bytes.split(|byte| *byte == b'/').enumerate() {
        end += piece.len() + usize::from(at > 0);
        if at >= before_root && !piece.is_empty() {
            found = true;
            break;
        }
    }
    let (head, rest) = bytes.split_at(if found { end } else { bytes.len() });
    let names = rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
    (Name::from(head), names.map(Name::from).collect())
}

impl TryFrom<&Name> for DagPath {
    type Error = Error;

    /// Parses `CID`, `CID/a/b`, `/ipfs/CID/…`, `/ipld/CID/…`, `ipfs://CID/…`. Error texts are Kubo's.
    fn try_from(path: &Name) -> Result<DagPath, Error> {
        let (head, segments) = split_head(path);
        let bad = |why: &str| Error::invalid(format!("invalid path {:?}: {why}", path.to_string()));
        let text = head.to_string();
        let lower = text.get(..7).map(str::to_ascii_lowercase);
        let root = match (text.strip_prefix('/'), lower.as_deref()) {
            (Some(rooted), _) => match rooted.split_once('/') {
                Some(("ipfs" | "ipld", rest)) => rest,
                Some(("ipns", _)) => return Err(Error::Unsupported("/ipns".into())),
                Some((other, _)) => return Err(bad(&format!("unknown namespace: {other:?}"))),
                None => return Err(bad("path does not have enough components")),
            },
            (None, Some("ipfs://")) => &text[7..],
            (None, Some("ipns://")) => return Err(Error::Unsupported("ipns".into())),
            (None, _) => &text,
        };
        let root = root.trim_start_matches('/');
        if root.is_empty() {
            return Err(bad("path does not have enough components"));
        }
        let root = crate::hash::parse_cid(root).map_err(|why| bad(&format!("invalid cid: {why}")))?;
        Ok(DagPath { root, segments })
    }
}

impl std::str::FromStr for DagPath {
    type Err = Error;

    fn from_str(text: &str) -> Result<DagPath, Error> {
        DagPath::try_from(&Name::from(text))
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
