//! The connections that are up, and the channels to open streams on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use cluster_core::PeerId;
use libp2p::Stream;
use libp2p::swarm::ConnectionId;
use tokio::sync::{mpsc, oneshot, watch};

use super::streams::{Opening, Protocol};

/// One connection to a peer.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) id: ConnectionId,
    openings: mpsc::Sender<Opening>,
}

impl Link {
    /// Opens a stream. The error is the reason, for people.
    pub(super) async fn open(&self, protocol: Protocol) -> Result<Stream, String> {
        let (reply, answer) = oneshot::channel();
        match self.openings.try_send(Opening { protocol, reply }) {
            Ok(()) => answer
                .await
                .unwrap_or_else(|_| Err("the connection was lost".to_owned())),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err("too many streams are being opened to it".to_owned())
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err("the connection was lost".to_owned()),
        }
    }
}

/// All connections, by peer. A peer has two when both dialled at once.
pub(super) struct Links {
    links: Mutex<BTreeMap<PeerId, Vec<Link>>>,
    changes: watch::Sender<u64>,
}

impl Links {
    pub(super) fn new() -> Self {
        Self {
            links: Mutex::new(BTreeMap::new()),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn add(&self, peer: PeerId, id: ConnectionId, openings: mpsc::Sender<Opening>) {
        self.lock().entry(peer).or_default().push(Link { id, openings });
        self.changes.send_modify(|change| *change += 1);
    }

    pub(super) fn remove(&self, peer: &PeerId, id: ConnectionId) {
        let mut links = self.lock();
        if let Some(of_peer) = links.get_mut(peer) {
            of_peer.retain(|link| link.id != id);
            if of_peer.is_empty() {
                links.remove(peer);
            }
        }
        drop(links);
        self.changes.send_modify(|change| *change += 1);
    }

    /// Returns the connection to use: the newest, because an older one of a peer that was restarted may be
    /// dead without this peer having noticed.
    pub(super) fn newest(&self, peer: &PeerId) -> Option<Link> {
        self.lock().get(peer).and_then(|links| links.last().cloned())
    }

    /// Returns the connections beyond the newest `keep`.
    pub(super) fn surplus(&self, peer: &PeerId, keep: usize) -> Vec<ConnectionId> {
        let links = self.lock();
        let all = links.get(peer).map_or(&[][..], Vec::as_slice);
        all[..all.len().saturating_sub(keep)]
            .iter()
            .map(|link| link.id)
            .collect()
    }

    pub(super) fn is_up(&self, peer: &PeerId) -> bool {
        self.lock().contains_key(peer)
    }

    pub(super) fn peers(&self) -> BTreeSet<PeerId> {
        self.lock().keys().cloned().collect()
    }

    /// Notifies of every connection that comes or goes.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PeerId, Vec<Link>>> {
        self.links.lock().expect("no panic while locked")
    }
}
