//! Membership, and the details of members, also of those that do not answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_api as api;
use cluster_core::{PING, PeerId, Refusal, Reply, Request};
use futures::FutureExt;
use futures::stream::{FuturesUnordered, Stream};

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
        match self.call_once(peer, &Call::Id).await? {
            Some(Answer::Id(identity)) => Ok(*identity),
            Some(_) | None => Err(rpc::unexpected(peer)),
        }
    }

    /// Makes a call, and returns the first answer.
    pub(super) async fn call_once(&self, peer: &PeerId, call: &Call) -> Result<Option<Answer>, Error> {
        let mut channel = rpc::call(&self.inner.net, peer, call).await?;
        rpc::next(&mut channel, peer, self.inner.answer_timeout).await
    }

    /// Returns the members with the details from their pings.
    pub(super) async fn known_peers(&self) -> Result<KnownMembers, Error> {
        let members = self.members().await?;
        let unnamed = |peer: &PeerId| PeerDetails {
            peername: peer.to_string(),
            ..PeerDetails::default()
        };
        let ids = members.peer_ids();
        let mut peers: BTreeMap<PeerId, PeerDetails> = ids.map(|id| (id.clone(), unnamed(id))).collect();
        let pings = self.view(|view, now| {
            let pings = view.metrics(now, PING);
            let pings = pings.map(|(peer, ping)| (peer.clone(), PingValue::decode(&ping.metric.value)));
            pings.collect::<Vec<_>>()
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

/// Asks several peers at once. Their answers come in any order.
pub(super) fn ask_each<'p, F: Future>(
    peers: impl Iterator<Item = &'p PeerId>,
    ask: impl Fn(&'p PeerId) -> F,
) -> impl Stream<Item = (&'p PeerId, F::Output)> + Unpin {
    let asked = peers.map(|peer| ask(peer).map(move |answer| (peer, answer)));
    asked.collect::<FuturesUnordered<_>>()
}
