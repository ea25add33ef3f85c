//! The other peers: who they are, and what is known of those that do not answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cluster_api as api;
use cluster_core::{PING, PeerId, Refusal, Reply, Request};
use futures::stream::{FuturesUnordered, Stream, StreamExt};

use super::identity::api_id;
use super::rpc::{self, Answer, Call, Speaker};
use super::{Cluster, Error, PingValue};

/// How long a new member is given to come and say who it is; the membership does not depend on it.
const ARRIVAL: Duration = Duration::from_secs(10);

/// How long a peer that is to be added may take to answer.
const INTRODUCTION: Duration = Duration::from_secs(8);

/// Between two tries to ask it.
const ARRIVAL_PAUSE: Duration = Duration::from_millis(250);

/// The members, with what their pings said of them last.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    pub(super) peers: BTreeMap<PeerId, Speaker>,
}

impl Cluster {
    /// All members, each as it describes itself, in the order in which they answer. One that does not answer
    /// in time comes with nothing but its id and `error`.
    pub async fn peers(&self) -> Result<impl Stream<Item = api::Id> + Send + use<>, Error> {
        let members = self.inner.world.core.members().await.ok_or(Error::Closed)?;
        let asked: FuturesUnordered<_> = members
            .peer_ids()
            .map(|peer| {
                let (cluster, peer) = (self.clone(), peer.clone());
                async move { cluster.id_of(&peer).await }
            })
            .collect();
        Ok(asked)
    }

    /// Makes a peer a member, which it is when this returns, and waits a while for it to say who it is.
    ///
    /// # Errors
    /// It is no member yet and does not answer: one that never came would stay a member without a voice.
    pub async fn add_peer(&self, peer: &PeerId, addresses: Vec<String>) -> Result<api::Id, Error> {
        let members = self.inner.world.core.members().await.ok_or(Error::Closed)?;
        let network = self.inner.world.network.clone();
        let introduced = tokio::time::timeout(INTRODUCTION, network.introduce(peer, addresses)).await;
        let introduced = introduced.unwrap_or_else(|_| {
            Err(format!(
                "peer {peer} has not answered within {INTRODUCTION:?}: a peer must be running \
                 and reachable to \
                 be added"
            ))
        });
        // A member that cannot be reached has its addresses noted all the same: it is tried there.
        if members.raft_id(peer).is_none() {
            introduced.map_err(|why| Error::Refused(Refusal::Conflict(why)))?;
        }
        let added = Request::AddPeer { peer: peer.clone() };
        match self.request(added).await? {
            Reply::PeerAdded => {}
            Reply::Allocated(_)
            | Reply::Barrier(_)
            | Reply::PeerRemoved
            | Reply::Pinned(_)
            | Reply::Recovered(_)
            | Reply::Synced(_)
            | Reply::Unpinned(_) => return Err(Error::Closed),
        }
        let since = Instant::now();
        loop {
            let id = self.id_of(peer).await;
            let has_come = id.error.is_empty() && !id.cluster_peers.is_empty();
            if has_come || since.elapsed() >= ARRIVAL {
                return Ok(id);
            }
            tokio::time::sleep(ARRIVAL_PAUSE).await;
        }
    }

    /// Ends a membership, of a peer alive or not, this one's own included.
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
        let network = self.inner.world.network.as_ref();
        let mut channel = rpc::call(network, peer, &Call::Id).await?;
        let answer = rpc::next(channel.as_mut(), peer, self.inner.silence).await?;
        if let Some(Answer::Id(identity)) = answer {
            Ok(*identity)
        } else {
            Err(rpc::unexpected(peer))
        }
    }

    /// The members and their names.
    pub(super) async fn known_peers(&self) -> Result<Known, Error> {
        let core = &self.inner.world.core;
        let members = core.members().await.ok_or(Error::Closed)?;
        let mut peers: BTreeMap<PeerId, Speaker> = members
            .peer_ids()
            .map(|peer| {
                (
                    peer.clone(),
                    Speaker {
                        peername: peer.to_string(),
                        ..Speaker::default()
                    },
                )
            })
            .collect();
        for sample in core.metrics(PING).await.ok_or(Error::Closed)? {
            if let Some(known) = peers.get_mut(&sample.peer) {
                let said = Speaker::from(PingValue::decode(&sample.metric.value));
                if !said.peername.is_empty() {
                    *known = said;
                }
            }
        }
        Ok(Known { peers })
    }
}

/// Asks some peers the same at once, in any order.
pub(super) fn at_once<F: Future + Send>(
    calls: impl Iterator<Item = F>,
) -> impl Stream<Item = F::Output> + Send
where
    F::Output: Send,
{
    calls.collect::<FuturesUnordered<_>>().map(|answer| answer)
}
