//! Ledger of the blocks that other peers want and this node lacks.

use crate::Cid;
use crate::store::key_of;
use libp2p::PeerId;
use std::collections::{HashMap, HashSet};

/// Limit on recorded wants of one peer; Kubo's number. Further wants are answered when the peer asks again,
/// as every peer does.
const REMEMBERED_MAX: usize = 1024;

/// Unfulfilled wants, by peer and by block.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// By peer and block key: the CID, and whether only the presence is asked for.
    peers: HashMap<PeerId, HashMap<Vec<u8>, (Cid, bool)>>,
    wanted: HashMap<Vec<u8>, HashSet<PeerId>>,
}

impl Ledger {
    pub(super) fn remember(&mut self, peer: PeerId, cid: Cid, only_have: bool) {
        let wants = self.peers.entry(peer).or_default();
        let key = key_of(&cid);
        if wants.len() >= REMEMBERED_MAX && !wants.contains_key(&key) {
            return;
        }
        // A want for the block takes precedence over one for its presence.
        let (_, only) = wants.entry(key.clone()).or_insert((cid, only_have));
        *only &= only_have;
        self.wanted.entry(key).or_default().insert(peer);
    }

    pub(super) fn forget(&mut self, peer: PeerId, key: &[u8]) {
        if let Some(wants) = self.peers.get_mut(&peer) {
            wants.remove(key);
        }
        if let Some(peers) = self.wanted.get_mut(key) {
            peers.remove(&peer);
            if peers.is_empty() {
                self.wanted.remove(key);
            }
        }
    }

    /// Returns whether a peer waits for blocks.
    pub(super) fn is_waiting(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|wants| !wants.is_empty())
    }

    /// Returns the CIDs of the recorded wants of a peer.
    pub(super) fn wants_of(&self, peer: &PeerId) -> Vec<Cid> {
        let wants = self.peers.get(peer).into_iter().flat_map(HashMap::values);
        wants.map(|(cid, _)| *cid).collect()
    }

    pub(super) fn forget_peer(&mut self, peer: PeerId) {
        for key in self.peers.remove(&peer).unwrap_or_default().into_keys() {
            self.forget(peer, &key);
        }
    }

    /// Removes the wants for a stored block. Returns the peers, the CIDs they used, and whether only the
    /// presence is asked for.
    pub(super) fn take_wants(&mut self, key: &[u8]) -> Vec<(PeerId, Cid, bool)> {
        let peers = self.wanted.remove(key).unwrap_or_default();
        let wants = peers.into_iter().filter_map(|peer| {
            let (cid, only_have) = self.peers.get_mut(&peer)?.remove(key)?;
            Some((peer, cid, only_have))
        });
        wants.collect()
    }
}
