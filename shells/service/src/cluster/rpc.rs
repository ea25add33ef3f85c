//! What peers ask each other outside of Raft. A call begins with a [`Call`], for an upload chunks of blocks
//! follow; the other side answers with chunks of one [`Answer`] each. Both are records of
//! [`cluster_core::encode`].

pub(super) mod blocks;
mod server;

use std::time::Duration;

use cluster_api::TrackerStatus;
use cluster_core::{Cid, PeerId, Timestamp, decode, encode};
use serde::{Deserialize, Serialize};

use super::Error;
use super::world::{Channel, Network};

/// A peer that says nothing for so long in the middle of a call is taken to be gone. The Go peer waits 15 s
/// for the end of a call; here every answer that takes longer tells its progress.
pub(super) const SILENCE: Duration = Duration::from_secs(5);

/// To reach a peer: it is either connected already, or its address refuses at once, or it is not there.
const OPEN: Duration = Duration::from_secs(5);

/// What one peer asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Call {
    /// Who are you? Answered by `Id`.
    Id,
    /// Where does this CID stand with you? Answered by `Speaker` and `State`.
    Status {
        /// Which.
        cid: Cid,
    },
    /// Where does everything stand with you? Answered by `Speaker` and `Rows` in CID order.
    StatusAll {
        /// The statuses wanted, as the bits of the API's filter in words; empty for all.
        filter: String,
    },
    /// Try this CID again. Answered by `Speaker` and `State`.
    Recover {
        /// Which.
        cid: Cid,
    },
    /// Try again all that failed. Answered by `Speaker` and `Rows` of what is tried again.
    RecoverAll,
    /// Compare this CID with what your IPFS node has. Answered by `Speaker` and `State`.
    Sync {
        /// Which.
        cid: Cid,
    },
    /// Compare everything with what your IPFS node has. Answered by `Speaker` and `Rows` of what changed by
    /// it and what is in error.
    SyncAll,
    /// Store the blocks that follow in chunks of their own. Answered by `Stored`.
    PutBlocks,
    /// Collect garbage. Answered by `Collected`s.
    RepoGc,
    /// Whom are you and your IPFS node connected to? Answered by `Links`.
    Links,
    /// How much does your IPFS node hold? Answered by `RepoStat`.
    RepoStat {
        /// Whether to count its blocks, which may take long.
        objects: bool,
    },
}

/// What comes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Who the peer is.
    Id(Box<Identity>),
    /// Who speaks in what follows.
    Speaker(Speaker),
    /// Where one CID stands.
    State(State),
    /// Where some stand, in order; and nothing else up to `upto`, so that a merge may go on.
    Rows {
        /// Those of them that are wanted.
        rows: Vec<Row>,
        /// The last CID looked at.
        upto: Cid,
    },
    /// The peer is still at it.
    Working,
    /// All blocks are stored.
    Stored {
        /// How many.
        blocks: u64,
    },
    /// What the collection removed.
    Collected(Vec<Collected>),
    /// Who is connected.
    Links {
        /// The peers.
        cluster: Vec<PeerId>,
        /// The peer's IPFS node; empty when it could not be asked.
        ipfs: String,
        /// Those that the IPFS node is connected to.
        ipfs_links: Vec<String>,
    },
    /// How much the IPFS node holds.
    RepoStat {
        /// Bytes in use.
        size: u64,
        /// Bytes allowed.
        storage_max: u64,
        /// Blocks.
        objects: u64,
    },
}

/// What a peer says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) addresses: Vec<String>,
    pub(super) cluster_peers: Vec<String>,
    pub(super) cluster_peers_addresses: Vec<String>,
    pub(super) version: String,
    pub(super) commit: String,
    pub(super) ipfs: IpfsIdentity,
    pub(super) peername: String,
}

/// What a peer says of its IPFS node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IpfsIdentity {
    pub(super) id: String,
    pub(super) addresses: Vec<String>,
    pub(super) error: String,
}

/// Who says where CIDs stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Speaker {
    pub(super) peername: String,
    pub(super) ipfs_id: String,
    pub(super) ipfs_addresses: Vec<String>,
}

/// Where a CID stands at a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    #[serde(with = "bit")]
    pub(super) status: TrackerStatus,
    pub(super) since: Timestamp,
    pub(super) attempts: u32,
    pub(super) fresh: bool,
    pub(super) error: String,
}

/// A status as its bit in the API's filters: short, and a newer peer may know more of them.
mod bit {
    use super::TrackerStatus;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(status: &TrackerStatus, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u16(status.bit())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<TrackerStatus, D::Error> {
        Ok(TrackerStatus::from_bit(u16::deserialize(from)?).unwrap_or_default())
    }
}

/// A CID and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) cid: Cid,
    pub(super) state: State,
}

/// One step of a garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Collected {
    /// A block that is gone, by its CID.
    Removed(String),
    /// One that could not be removed, with the reason.
    Failed(String),
}

/// Asks a peer something.
pub(super) async fn call(
    network: &dyn Network,
    peer: &PeerId,
    call: &Call,
) -> Result<Box<dyn Channel>, Error> {
    let upload = *call == Call::PutBlocks;
    match tokio::time::timeout(OPEN, network.call(peer, encode(call).into(), upload)).await {
        Ok(channel) => channel.map_err(Error::Peer),
        Err(_) => Err(Error::Peer(format!(
            "cannot reach peer {peer}: no connection within {OPEN:?}"
        ))),
    }
}

/// The next answer that says something; `None` when that was all. Every chunk, also one that only says that
/// the peer is at work, starts the time anew.
pub(super) async fn next(
    channel: &mut dyn Channel,
    peer: &PeerId,
    silence: Duration,
) -> Result<Option<Answer>, Error> {
    loop {
        let chunk = tokio::time::timeout(silence, channel.next())
            .await
            .map_err(|_| Error::Peer(format!("no answer from peer {peer} within {silence:?}")))?;
        let Some(chunk) = chunk else { return Ok(None) };
        match decode(&chunk.map_err(Error::Peer)?) {
            Ok(Answer::Working) => {}
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => return Err(Error::Peer(format!("peer {peer} answers nonsense: {error}"))),
        }
    }
}

/// The answer was well-formed but does not belong to the question.
pub(super) fn unexpected(peer: &PeerId) -> Error {
    Error::Peer(format!(
        "peer {peer} answers something else: do all peers run the same release?"
    ))
}
