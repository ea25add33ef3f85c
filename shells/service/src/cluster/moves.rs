//! Progress of the moves of a peer's copies to others, for drains and rebalancing.

use cluster_core::{Cid, Lane, PeerId};
use serde::{Deserialize, Serialize};

use super::rpc::{self, Answer, Call};
use super::{Cluster, Error};

/// Maximum number of waiting copies that are counted.
const WAITING_MAX: usize = 10_000;

/// Progress of a peer's moves, as it knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::cluster) struct OwnMoves {
    /// Number of copies whose replacements are not confirmed.
    pub(in crate::cluster) waiting: u64,
    /// Number of pins that a drain could not move.
    pub(in crate::cluster) blocked: u64,
    /// The first of them.
    pub(in crate::cluster) first_blocked: Option<Cid>,
    /// Size of the repository, in bytes.
    pub(in crate::cluster) bytes: u64,
    /// Set while the rebalancing passes over the pins.
    pub(in crate::cluster) is_passing: bool,
    /// Number of copies that the last pass was to move to even out the counts.
    pub(in crate::cluster) planned: u64,
    /// Number of copies that it has moved.
    pub(in crate::cluster) moved: u64,
}

impl Cluster {
    /// Returns the progress of the moves of a peer's copies.
    pub(super) async fn moves_of(&self, peer: &PeerId) -> Result<OwnMoves, Error> {
        if *peer == self.inner.config.peer {
            return self.own_moves().await;
        }
        match self.call_once(peer, &Call::Moves).await? {
            Some(Answer::Moves(own)) => Ok(own),
            Some(_) | None => Err(rpc::unexpected(peer)),
        }
    }

    /// Returns the progress of the moves of this peer's copies.
    pub(super) async fn own_moves(&self) -> Result<OwnMoves, Error> {
        let read = self.view(|view, _| (view.blocked().clone(), view.rebalance_progress().clone()));
        let (blocked, rebalance) = read.await?;
        let reader = self.inner.reader.clone();
        let waiting =
            tokio::task::spawn_blocking(move || reader.listing().queued(Lane::Surplus, WAITING_MAX));
        Ok(OwnMoves {
            waiting: waiting.await.map_err(|_| Error::Closed)??,
            blocked: blocked.pins,
            first_blocked: blocked.first,
            bytes: self.own_repository(false).await?.size,
            is_passing: rebalance.is_passing,
            planned: rebalance.planned,
            moved: rebalance.moved,
        })
    }
}
