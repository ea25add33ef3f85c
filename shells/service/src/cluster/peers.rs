//! Membership, and the details of members, also of those that do not answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_api as api;
use cluster_core::{PING, PeerId, Refusal, Reply, Request};
use futures::stream::{FuturesUnordered, Stream, StreamExt};

use super::identity::api_id;
use super::rpc::{self, Answer, Call, PeerDetails};
use super::{Cluster, Error, PingValue};
use crate::discovery;

/// Time to wait for a new member's details; its membership does not depend on them.
const DETAILS_TIMEOUT: Duration = Duration::from_secs(10);

/// Pause between two requests for its details.
const DETAILS_POLL: Duration = Duration::from_millis(250);

/// The members, with the details from their last pings.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownMembers {
    pub(super) peers: BTreeMap<PeerId, PeerDetails>,
}

impl Cluster {
    /// Returns all members' descriptions, in the order in which they answer. A member that does not answer
    /// in time has only its id and `error`.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn peers(&self) -> Result<impl Stream<Item = api::Id> + Send + use<>, Error> {
        let members = self.members().await?;
        let asked: FuturesUnordered<_> = members
            .peer_ids()
            .map(|peer| {
                let (cluster, peer) = (self.clone(), peer.clone());
                async move { cluster.id_of(&peer).await }
            })
            .collect();
        Ok(asked)
    }

    /// Adds a peer to the members, and waits a few seconds for its description.
    ///
    /// # Errors
    /// The peer is not a member yet and cannot be reached: one that never started would count as a member
    /// that does not vote. Or the cluster refuses.
    pub async fn add_peer(&self, peer: &PeerId, addresses: Vec<String>) -> Result<api::Id, Error> {
        let members = self.members().await?;
        let addresses = addresses.iter().filter_map(|address| address.parse().ok());
        self.inner.net.add_addresses(peer, addresses.collect()).await;
        let invited = discovery::invite(&self.inner.net, peer).await;
        // For a member, the addresses are stored even if it cannot be reached: they are tried later.
        if members.raft_id(peer).is_none() {
            invited.map_err(|error| Error::Refused(Refusal::Conflict(error.to_string())))?;
        }
        let added = Request::AddPeer { peer: peer.clone() };
        let Reply::PeerAdded = self.request(added).await? else {
            return Err(Error::Closed);
        };
        let since = Instant::now();
        loop {
            let id = self.id_of(peer).await;
            let is_known = id.error.is_empty() && !id.cluster_peers.is_empty();
            if is_known || since.elapsed() >= DETAILS_TIMEOUT {
                return Ok(id);
            }
            tokio::time::sleep(DETAILS_POLL).await;
        }
    }

    /// Removes a member, reachable or not, or this peer itself.
    ///
    /// # Errors
    /// The cluster refuses, or this peer is shutting down.
    pub async fn remove_peer(&self, peer: &PeerId) -> Result<(), Error> {
        let removed = Request::RemovePeer { peer: peer.clone() };
        self.request(removed).await.map(drop)
    }

    async fn id_of(&self, peer: &PeerId) -> api::Id {
        let identity = if *peer == self.inner.config.peer {
            self.identity().await
        } else {
            self.ask_identity(peer).await
        };
        match identity {
            Ok(identity) => api_id(peer, identity),
            Err(error) => api::Id {
                id: peer.to_string(),
                error: error.to_string(),
                ..api::Id::default()
            },
        }
    }

    async fn ask_identity(&self, peer: &PeerId) -> Result<rpc::Identity, Error> {
        let mut channel = rpc::call(&self.inner.net, peer, &Call::Id).await?;
        let answer = rpc::next(&mut channel, peer, self.inner.answer_timeout).await?;
        if let Some(Answer::Id(identity)) = answer {
            Ok(*identity)
        } else {
            Err(rpc::unexpected(peer))
        }
    }

    /// Returns the members with the details from their pings.
    pub(super) async fn known_peers(&self) -> Result<KnownMembers, Error> {
        let members = self.members().await?;
        let mut peers: BTreeMap<PeerId, PeerDetails> = members
            .peer_ids()
            .map(|peer| {
                (
                    peer.clone(),
                    PeerDetails {
                        peername: peer.to_string(),
                        ..PeerDetails::default()
                    },
                )
            })
            .collect();
        let pings = self.view(|view, now| {
            let pings = view.metrics(now, PING);
            pings
                .map(|(peer, ping)| (peer.clone(), PingValue::decode(&ping.metric.value)))
                .collect::<Vec<_>>()
        });
        for (peer, ping) in pings.await? {
            if let Some(known) = peers.get_mut(&peer) {
                let details = PeerDetails::from(ping);
                if !details.peername.is_empty() {
                    *known = details;
                }
            }
        }
        Ok(KnownMembers { peers })
    }
}

/// Runs the same call to several peers at once; results come in any order.
pub(super) fn concurrently<F: Future + Send>(
    calls: impl Iterator<Item = F>,
) -> impl Stream<Item = F::Output> + Send
where
    F::Output: Send,
{
    calls.collect::<FuturesUnordered<_>>().map(|answer| answer)
}
