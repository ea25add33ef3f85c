//! State shared by all parts of the network.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use cluster_core::{ClusterId, PeerId};
use libp2p::Multiaddr;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::address_book::AddressBook;
use super::admission::Admission;
use super::announce::Announce;
use super::events::CoreSender;
use super::links::{Link, Links};
use super::losses::LossLog;
use super::outbox::Outbox;
use super::rpc::Incoming;
use super::snapshot::IncomingSnapshot;
use super::swarm::Command;
use super::traffic::Meters;

/// Maximum wait for a peer to write or answer the first frame of a stream.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(10);

/// Origin of a stream, its first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    /// The newest version that the sender reads.
    pub(super) version: u8,
    pub(super) cluster: ClusterId,
}

/// Everything but the swarm itself, which its task owns.
pub(super) struct Shared {
    pub(super) me: PeerId,
    pub(super) cluster: RwLock<ClusterId>,
    /// The newest version of stream contents that this peer reads.
    pub(super) own_version: u8,
    /// The version that all members read, and that may be written.
    pub(super) version: AtomicU8,
    pub(super) open_methods: BTreeSet<String>,
    pub(super) links: Arc<Links>,
    pub(super) members: watch::Sender<Arc<BTreeSet<PeerId>>>,
    pub(super) outboxes: RwLock<BTreeMap<PeerId, Outbox>>,
    /// Number and cancellation of the one stream per peer from which core messages are read.
    pub(super) inboxes: Mutex<BTreeMap<PeerId, (u64, CancellationToken)>>,
    pub(super) book: Mutex<AddressBook>,
    pub(super) book_changes: watch::Sender<u64>,
    pub(super) listening: RwLock<Vec<Multiaddr>>,
    pub(super) announce: Announce,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) core: CoreSender,
    pub(super) calls: mpsc::Sender<Incoming>,
    pub(super) snapshots: mpsc::Sender<IncomingSnapshot>,
    pub(super) inbound: Arc<Admission>,
    pub(super) outbound: Arc<Admission>,
    pub(super) meters: Meters,
    pub(super) losses: LossLog,
    /// Last failure to reach each member, or to be accepted by it; at most one per member.
    pub(super) failures: Mutex<BTreeMap<PeerId, String>>,
    pub(super) tasks: TaskTracker,
    /// The network's runtime: messages are sent from threads outside it.
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) stop: CancellationToken,
    pub(super) numbers: AtomicU64,
}

impl Shared {
    /// Runs a task until it ends or the network is shut down.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let work = async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        };
        self.tasks.spawn_on(work, &self.runtime);
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.members.borrow().contains(peer)
    }

    /// Returns the cluster that this peer belongs to; unknown until it has joined one.
    pub(super) fn cluster(&self) -> ClusterId {
        *self.cluster.read().expect("no panic while locked")
    }

    /// Sets or clears the last failure of a member.
    pub(super) fn set_failure(&self, peer: &PeerId, why: Option<&str>) {
        let mut failures = self.failures.lock().expect("no panic while locked");
        match why {
            Some(why) if self.is_member(peer) => drop(failures.insert(peer.clone(), why.to_owned())),
            Some(_) | None => drop(failures.remove(peer)),
        }
    }

    /// Returns a number that was not returned before.
    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn origin(&self) -> Origin {
        Origin {
            version: self.own_version,
            cluster: self.cluster(),
        }
    }

    /// Returns the reason to refuse a stream of this origin, if there is one.
    pub(super) fn reason_to_refuse(&self, from: &PeerId, origin: &Origin) -> Option<String> {
        let cluster = self.cluster();
        let version = self.version.load(Ordering::Relaxed);
        let why = if origin.version < version {
            format!(
                "it speaks version {} of the protocol, and the cluster has gone on to version {version}: \
                 install the release that the other peers run",
                origin.version
            )
        } else if cluster == ClusterId::UNKNOWN {
            "this peer does not know its cluster yet".to_owned()
        } else if origin.cluster == ClusterId::UNKNOWN {
            "it has not joined a cluster yet".to_owned()
        } else if origin.cluster != cluster {
            format!(
                "it belongs to cluster {}, this is cluster {cluster}",
                origin.cluster
            )
        } else if !self.is_member(from) {
            format!("it is not a member of cluster {cluster}")
        } else {
            return None;
        };
        Some(format!("peer {from} is not accepted: {why}"))
    }

    /// Counts a refusal, and logs it unless the same was logged lately.
    pub(super) fn note_refusal(&self, from: &PeerId, what: &'static str, why: &str) {
        LossLog::count(&self.losses.refused);
        if self.cluster() == ClusterId::UNKNOWN {
            // A peer that is about to join is dialled early by members that know of it.
            tracing::debug!(peer = %from, "refused a {what} stream: {why}");
        } else if self.losses.should_log(from, what) {
            tracing::warn!(peer = %from, "refused a {what} stream: {why}");
        }
    }

    /// Counts invalid data, and logs it unless the same was logged lately.
    pub(super) fn note_malformed(&self, from: &PeerId, what: &'static str, why: &dyn std::fmt::Display) {
        LossLog::count(&self.losses.malformed);
        if self.losses.should_log(from, what) {
            tracing::warn!(peer = %from, "closed a {what} stream, its data is invalid: {why}");
        }
    }

    /// Returns a connection to this peer, dialling it if necessary.
    pub(super) async fn link(&self, peer: &PeerId) -> Result<Link, String> {
        if let Some(link) = self.links.newest(peer) {
            return Ok(link);
        }
        let gone = || "the network is shut down".to_owned();
        let (reply, connected) = oneshot::channel();
        let dial = Command::Dial {
            peer: peer.clone(),
            reply,
        };
        self.commands.send(dial).await.map_err(|_| gone())?;
        connected.await.unwrap_or_else(|_| Err(gone()))?;
        self.links
            .newest(peer)
            .ok_or_else(|| "the connection was lost at once".to_owned())
    }
}
