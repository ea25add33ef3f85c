//! The protocol of calls between peers, beside Raft. Requests and responses are encoded with
//! [`cluster_core::encode`]; the order of variants and fields is the wire format.
//!
//! ```text
//! caller  ── Call ───────────────────────▶  called peer
//!         ── chunk of blocks, … end ─────▶  (`PutBlocks` only)
//!         ◀──────────── Answer::Working ──  (every second while it works)
//!         ◀─────────── Answer, …, … end ──  (or an error text)
//! ```

pub(super) mod blocks;
mod server;

use std::time::Duration;

use cluster_api::TrackerStatus;
use cluster_core::{Cid, FIRST_VERSION, POLICY_VERSION, PeerId, ScrubChange, Timestamp, decode, encode};
use serde::{Deserialize, Serialize};

pub(super) use self::server::{send, with_heartbeats};
use super::Error;
use crate::net::{self, CallError, CallSender, Deadline, Net};
use crate::trace::RequestContext;

/// Name of the method of these calls.
const METHOD: &str = "cluster";

/// Protocol version of the release that added [`Call::Trace`] and the calls after it.
const TRACE_VERSION: u8 = 2;

/// Time of silence after which the network ends a call.
const DEADLINE: Deadline = Deadline::Silence(Duration::from_secs(60));

/// Time without any answer after which a call fails. The Go peer waits 15 s for the end of a call; here an
/// answer that takes longer is preceded by [`Answer::Working`].
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Time limit for connecting: a peer is connected already, refuses at once, or cannot be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A request to another peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Call {
    /// Describe yourself. Answered by `Id`.
    Id,
    /// Return the status of a CID. Answered by `Details` and `Status`.
    Status {
        /// The CID.
        cid: Cid,
    },
    /// Stream the statuses of all CIDs. Answered by `Details` and `Rows` in CID order.
    StatusAll {
        /// Statuses to return, as names like in the API's filter; empty for all.
        filter: String,
    },
    /// Retry a CID. Answered by `Details` and `Status`.
    Recover {
        /// The CID.
        cid: Cid,
    },
    /// Retry everything that failed. Answered by `Details` and `Rows` of the retried CIDs.
    RecoverAll,
    /// Compare a CID with the IPFS node. Answered by `Details` and `Status`.
    Sync {
        /// The CID.
        cid: Cid,
    },
    /// Compare everything with the IPFS node. Answered by `Details` and `Rows` of what changed and what
    /// failed.
    SyncAll,
    /// Store the blocks in the following chunks. Answered by `Stored`.
    PutBlocks,
    /// Collect garbage. Answered by `Collected`, repeatedly, without the freed space: for older callers.
    RepoGc,
    /// List your connections and your IPFS node's. Answered by `Links`.
    Links,
    /// Return the size of your repository. Answered by `RepoStat`.
    RepoStat {
        /// Count the blocks too, which may take long.
        objects: bool,
    },
    /// Continue the traces of these requests. Answered by nothing. Older peers refuse it, which changes
    /// nothing.
    Trace {
        /// Contexts of requests to the caller, at most [`CONTEXTS_MAX`](super::contexts::CONTEXTS_MAX).
        contexts: Vec<RequestContext>,
    },
    /// Stream the changes of your local states from now on. Answered by `Statuses`, at first an empty one,
    /// until the caller closes the call.
    Statuses,
    /// Collect garbage. Answered by `Collected`, repeatedly, with the freed space last. Older peers refuse
    /// it.
    CollectGarbage,
    /// Return the progress of the moves of your copies. Answered by `Moves`. Older peers refuse it.
    Moves,
    /// Return your problems. Answered by `Problems`. Older peers refuse it.
    Problems,
    /// Change your scrub, if there is a change, and return its state. Answered by `Scrub`. Older peers refuse
    /// it.
    Scrub {
        /// Changes to make, in this order; a few.
        changes: Vec<ScrubChange>,
    },
}

impl Call {
    /// Returns the protocol version of the first release that can read the call.
    fn min_version(&self) -> u8 {
        match self {
            Self::Id
            | Self::Status { .. }
            | Self::StatusAll { .. }
            | Self::Recover { .. }
            | Self::RecoverAll
            | Self::Sync { .. }
            | Self::SyncAll
            | Self::PutBlocks
            | Self::RepoGc
            | Self::Links
            | Self::RepoStat { .. } => FIRST_VERSION,
            Self::Trace { .. } | Self::Statuses | Self::CollectGarbage => TRACE_VERSION,
            Self::Moves | Self::Problems | Self::Scrub { .. } => POLICY_VERSION,
        }
    }
}

/// A part of the response to a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// Description of the peer.
    Id(Box<Identity>),
    /// Details of the peer that the following statuses belong to.
    Details(PeerDetails),
    /// Status of one CID.
    Status(CidStatus),
    /// Statuses in CID order, so far complete up to `upto`.
    Rows {
        /// The rows that match the filter.
        rows: Vec<Row>,
        /// Last CID covered.
        upto: Cid,
    },
    /// Heartbeat: the call is still being processed.
    Working,
    /// All blocks are stored.
    Stored {
        /// Number of stored blocks.
        blocks: u64,
    },
    /// Steps of the garbage collection.
    Collected(Vec<Collected>),
    /// Connections of a peer and of its IPFS node.
    Links {
        /// Peers that this peer is connected to.
        cluster: Vec<PeerId>,
        /// Id of the IPFS node; empty if it does not answer.
        ipfs: String,
        /// Ids of the IPFS nodes that it is connected to.
        ipfs_links: Vec<String>,
    },
    /// Size of the repository.
    RepoStat {
        /// Used space in bytes.
        size: u64,
        /// Maximum space in bytes.
        storage_max: u64,
        /// Number of blocks; 0 if they were not to be counted.
        objects: u64,
    },
    /// The rest of the status of one CID, after its status. Older peers do not send it, and have closed the
    /// call before they would read it.
    Activity(Activity),
    /// Changes of the peer's local states, in order.
    Statuses(Vec<StatusChange>),
    /// Progress of the moves of the peer's copies.
    Moves(super::moves::OwnMoves),
    /// Problems of the peer.
    Problems(Vec<OwnProblem>),
    /// State of the peer's scrub.
    Scrub {
        /// The API's `Scrub` in JSON, so that later releases can add to it.
        json: String,
    },
}

/// A problem that a peer has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnProblem {
    /// Set if content or service is affected.
    pub(super) is_error: bool,
    /// The problem, and what to do about it.
    pub(super) text: String,
}

/// A change of a local state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StatusChange {
    /// Time at the peer.
    pub(super) at: Timestamp,
    pub(super) cid: Cid,
    /// Name of the new status.
    pub(super) status: String,
    pub(super) error: String,
}

/// Answer of one peer about one CID.
pub(super) struct OneStatus {
    pub(super) details: PeerDetails,
    pub(super) state: CidStatus,
    pub(super) activity: Activity,
}

/// Details that only the status of a single CID has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Activity {
    /// Time at which the IPFS node last announced the CID to the DHT, if known.
    pub(super) announced: Option<Timestamp>,
    /// Time of the next attempt, if one is scheduled.
    pub(super) retry_at: Option<Timestamp>,
    /// Progress of the transfer to the IPFS node, if one has lasted for a second.
    pub(super) transfer: Option<Transfer>,
}

/// Progress of a transfer to an IPFS node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Transfer {
    /// Number of blocks that the node holds by now.
    pub(super) blocks: u64,
    /// Bytes fetched so far.
    pub(super) bytes: u64,
    /// Size of the whole in bytes; 0 if unknown.
    pub(super) total_bytes: u64,
    /// Time of the last progress.
    pub(super) updated: Timestamp,
}

/// A peer's description of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) addresses: Vec<String>,
    pub(super) cluster_peers: Vec<String>,
    pub(super) cluster_peers_addresses: Vec<String>,
    pub(super) version: String,
    /// Always empty; kept for the encoding.
    pub(super) commit: String,
    pub(super) ipfs: IpfsIdentity,
    pub(super) peername: String,
}

/// Description of a peer's IPFS node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IpfsIdentity {
    pub(super) id: String,
    pub(super) addresses: Vec<String>,
    pub(super) error: String,
}

/// Details of a peer that are part of each status.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PeerDetails {
    pub(super) peername: String,
    pub(super) ipfs_id: String,
    pub(super) ipfs_addresses: Vec<String>,
}

/// Status of a CID at a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CidStatus {
    #[serde(with = "bit")]
    pub(super) status: TrackerStatus,
    pub(super) since: Timestamp,
    pub(super) attempts: u32,
    pub(super) fresh: bool,
    pub(super) error: String,
}

/// Serialises a status as its bit in the API's filters: short, and a newer peer may have more of them.
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

/// A CID with its status at a peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) cid: Cid,
    pub(super) state: CidStatus,
}

/// A step of a garbage collection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Collected {
    /// CID of a removed block.
    Removed(String),
    /// Reason why a block could not be removed.
    Failed(String),
    /// Bytes of disk that were freed. The last step, and only of the embedded node.
    Freed(u64),
}

/// Opens a call without an upload.
pub(super) async fn call(net: &Net, peer: &PeerId, call: &Call) -> Result<net::Call, Error> {
    let request = encode(call);
    connected(peer, net.call(peer, METHOD, &request, DEADLINE)).await
}

/// Opens a call of [`Call::PutBlocks`].
pub(super) async fn upload(net: &Net, peer: &PeerId) -> Result<(CallSender, net::Call), Error> {
    let request = encode(&Call::PutBlocks);
    connected(peer, net.upload(peer, METHOD, &request, DEADLINE)).await
}

async fn connected<T>(
    peer: &PeerId,
    opening: impl Future<Output = Result<T, CallError>>,
) -> Result<T, Error> {
    match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(Error::Peer(format!(
            "cannot reach peer {peer}: no connection within {CONNECT_TIMEOUT:?}"
        ))),
    }
}

/// Returns the next answer other than [`Answer::Working`]; `None` at the end. Every chunk restarts the time
/// limit.
pub(super) async fn next(
    call: &mut net::Call,
    peer: &PeerId,
    answer_timeout: Duration,
) -> Result<Option<Answer>, Error> {
    loop {
        let chunk = tokio::time::timeout(answer_timeout, call.next())
            .await
            .map_err(|_| Error::Peer(format!("no answer from peer {peer} within {answer_timeout:?}")))?;
        let Some(chunk) = chunk else { return Ok(None) };
        match decode(&chunk?) {
            Ok(Answer::Working) => {}
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => {
                return Err(Error::Peer(format!(
                    "peer {peer} sent an invalid answer: {error}"
                )));
            }
        }
    }
}

/// Returns the error for an answer of the wrong kind.
pub(super) fn unexpected(peer: &PeerId) -> Error {
    Error::Peer(format!(
        "peer {peer} sent an unexpected answer: do all peers run the same release?"
    ))
}
