//! Discovery: the queries that peers send each other regardless of their clusters, to identify each other,
//! to join, and to invite. The method is open to every peer that passes the handshake, which takes the
//! cluster's secret if there is one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster_core::{ClusterId, Incarnation, Index, Membership, PeerId, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::driver::Handle;
use crate::net::{CallError, Deadline, Incoming, Multiaddr, Net};

/// Name of the method.
pub(crate) const METHOD: &str = "greet";

/// Addresses sent per peer, those that it announced itself first.
const ADDRESSES_MAX: usize = 4;

/// Members sent in an answer. A newcomer needs some, and learns the others from them.
const PEERS_MAX: usize = 512;

/// Time limit of identification: a dial, and an answer from memory.
pub(crate) const IDENTIFY_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit of a join: the core's own deadline for a request is 15 s.
pub(crate) const JOIN_TIMEOUT: Duration = Duration::from_secs(18);

/// A query. Encoded with postcard, so the order of variants and fields is fixed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Question {
    /// Asks for the peer's cluster and the asker's membership in it.
    Identify,
    /// Asks to be added to the peer's cluster.
    Join,
    /// Asks the peer to leave its cluster, of which it must be the only member, and to join the asker's.
    Invite {
        /// Cluster to join.
        cluster: ClusterId,
        /// Addresses of the asker.
        addresses: Vec<String>,
    },
}

/// The answer to all queries. Encoded with postcard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    /// Cluster of the answering peer; unknown while it has none.
    pub(crate) cluster: ClusterId,
    /// Incarnation of its data folder.
    pub(crate) incarnation: Incarnation,
    /// Its applied index.
    pub(crate) as_of: Index,
    /// True if it is a member of its cluster.
    pub(crate) is_member: bool,
    /// True if it knows a leader.
    pub(crate) has_leader: bool,
    /// Membership of the asker, as the answering peer knows it.
    pub(crate) asker: AskerStatus,
    /// The members with their addresses; empty unless the asker is a member.
    pub(crate) peers: Vec<(PeerId, Vec<String>)>,
}

/// Membership of the asker in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AskerStatus {
    /// Not a member.
    NonMember,
    /// A member.
    Member {
        /// Incarnation recorded for it, if there is one.
        incarnation: Option<Incarnation>,
    },
}

impl Answer {
    /// Returns whether the answering peer is a member of a cluster, so that its answer counts.
    pub(crate) fn is_authoritative(&self) -> bool {
        self.cluster != ClusterId::UNKNOWN && self.is_member
    }

    pub(crate) fn knows_asker(&self) -> bool {
        matches!(self.asker, AskerStatus::Member { .. })
    }

    /// Passes the addresses on to the network, and returns the members.
    pub(crate) async fn add_addresses_to(&self, net: &Net) -> Vec<PeerId> {
        for (peer, addresses) in &self.peers {
            let addresses: Vec<Multiaddr> = addresses.iter().filter_map(|text| text.parse().ok()).collect();
            if peer != net.peer_id() && !addresses.is_empty() {
                net.add_addresses(peer, addresses).await;
            }
        }
        self.peers.iter().map(|(peer, _)| peer.clone()).collect()
    }
}

/// Sends a query to a peer, which is dialled if it is not connected.
pub(crate) async fn ask(net: &Net, peer: &PeerId, question: &Question) -> Result<Answer, CallError> {
    let limit = match question {
        Question::Identify | Question::Invite { .. } => IDENTIFY_TIMEOUT,
        Question::Join => JOIN_TIMEOUT,
    };
    net.ask(peer, METHOD, question, Deadline::Within(limit)).await
}

/// Asks a non-member to give up its own cluster, if that is empty, and to join this one through this peer.
///
/// # Errors
/// [`InviteError`] when the peer cannot be reached or refuses.
pub(crate) async fn invite(net: &Net, peer: &PeerId) -> Result<(), InviteError> {
    let question = Question::Invite {
        cluster: net.cluster(),
        addresses: net.addresses().iter().map(ToString::to_string).collect(),
    };
    match ask(net, peer, &question).await {
        Ok(_) => Ok(()),
        Err(error @ (CallError::Unreachable { .. } | CallError::Late { .. } | CallError::Lost { .. })) => {
            let peer = peer.clone();
            Err(InviteError::Unreachable { peer, error })
        }
        Err(error @ (CallError::Failed(_) | CallError::Refused { .. } | CallError::Invalid(_))) => {
            Err(InviteError::Refused(error))
        }
    }
}

/// Failure of an invitation. A peer that never joins would count as a member, and might get a vote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InviteError {
    /// The peer does not accept the invitation.
    #[error(transparent)]
    Refused(CallError),
    /// There is no connection to the peer, or it broke.
    #[error(
        "{error}: a peer must be running and reachable to be added. Start it, and give its address if it is \
         not known here (/ip4/…/tcp/9096/p2p/{peer})"
    )]
    Unreachable {
        /// The invited peer.
        peer: PeerId,
        /// The error of the call.
        error: CallError,
    },
}

/// An accepted invitation to another cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invitation {
    /// The inviting peer.
    pub(crate) from: PeerId,
    /// Its addresses.
    pub(crate) addresses: Vec<Multiaddr>,
}

/// An invitation that is followed once it is answered, and its place in the queue.
type Accepted = (mpsc::OwnedPermit<Invitation>, Invitation);

/// Answers the queries of other peers.
#[derive(Clone)]
pub(crate) struct DiscoveryServer {
    net: Net,
    /// Set once the core runs.
    handle: Arc<OnceLock<Handle>>,
    invitations: mpsc::Sender<Invitation>,
    /// Returns whether the pinset is empty.
    is_free: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl DiscoveryServer {
    /// `is_free` returns whether the pinset is empty; it reads the disk.
    pub(crate) fn new(
        net: Net,
        invitations: mpsc::Sender<Invitation>,
        is_free: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            net,
            handle: Arc::default(),
            invitations,
            is_free: Arc::new(is_free),
        }
    }

    /// Sets the handle of the core, once it runs.
    pub(crate) fn set_handle(&self, handle: Handle) {
        // A second call has the same handle.
        let _ = self.handle.set(handle);
    }

    /// Answers one query.
    pub(crate) async fn answer(&self, mut incoming: Incoming) {
        let question = incoming.request_as::<Question>();
        let (from, cluster) = (incoming.from.clone(), incoming.cluster);
        let answered = match question {
            Ok(question) => self.respond(&from, cluster, question).await,
            Err(error) => Err(format!("the query cannot be decoded: {error}")),
        };
        let (sent, accepted) = match answered {
            Ok((answer, accepted)) => match incoming.respond_as(&answer).await {
                Ok(()) if accepted.is_some() => (incoming.deliver().await, accepted),
                Ok(()) => (incoming.finish(Ok(())).await, None),
                Err(error) => (Err(error), None),
            },
            Err(why) => (incoming.finish(Err(why)).await, None),
        };
        match (sent, accepted) {
            (Err(error), _) => {
                tracing::debug!(%from, %error, "the answer to a query of another peer was not sent");
            }
            // Only now, since this peer closes its connections to follow the invitation.
            (Ok(()), Some((place, invitation))) => drop(place.send(invitation)),
            (Ok(()), None) => {}
        }
    }

    async fn respond(
        &self,
        from: &PeerId,
        cluster: ClusterId,
        question: Question,
    ) -> Result<(Answer, Option<Accepted>), String> {
        let mut accepted = None;
        match question {
            Question::Identify => {}
            Question::Join => self.add_asker(from, cluster).await?,
            Question::Invite { cluster, addresses } => {
                accepted = self.accept_invitation(from, cluster, &addresses).await?;
            }
        }
        let answer = self.answer_to(from).await?;
        if answer.is_authoritative() && !answer.knows_asker() {
            self.net.note_refused_call(from);
        }
        Ok((answer, accepted))
    }

    async fn answer_to(&self, to: &PeerId) -> Result<Answer, String> {
        let Some(handle) = self.handle.get() else {
            return Ok(Answer {
                cluster: self.net.cluster(),
                incarnation: Incarnation(0),
                as_of: 0,
                is_member: false,
                has_leader: false,
                asker: AskerStatus::NonMember,
                peers: Vec::new(),
            });
        };
        let asker = to.clone();
        let read = move |view: cluster_core::View<'_>, _| {
            let members = view.members();
            let asker = match members.raft_id(&asker) {
                Some(id) => AskerStatus::Member {
                    incarnation: members.peers[&id].incarnation,
                },
                None => AskerStatus::NonMember,
            };
            let answer = Answer {
                cluster: members.cluster,
                incarnation: view.incarnation(),
                as_of: view.applied().index,
                is_member: matches!(view.membership(), Membership::Learner | Membership::Voter),
                has_leader: view.leader().is_some(),
                asker,
                peers: Vec::new(),
            };
            (answer, members.peer_ids().cloned().collect::<Vec<_>>())
        };
        let (mut answer, members) = handle.view(read).await.ok_or("this peer is shutting down")?;
        if answer.knows_asker() {
            answer.peers = members
                .into_iter()
                .take(PEERS_MAX)
                .map(|peer| {
                    let addresses = self.addresses(&peer);
                    (peer, addresses)
                })
                .collect();
        }
        Ok(answer)
    }

    fn addresses(&self, peer: &PeerId) -> Vec<String> {
        let known = if peer == self.net.peer_id() {
            self.net.addresses()
        } else {
            self.net.known_addresses(peer)
        };
        let texts = known.iter().map(ToString::to_string);
        texts.take(ADDRESSES_MAX).collect()
    }

    async fn add_asker(&self, from: &PeerId, cluster: ClusterId) -> Result<(), String> {
        let handle = self
            .handle
            .get()
            .ok_or("this peer has no cluster yet: it is starting")?;
        let own = self.net.cluster();
        if cluster != ClusterId::UNKNOWN && cluster != own {
            return Err(format!(
                "{from} has the data of cluster {cluster}, this is cluster {own}: two clusters' data are \
                 never mixed"
            ));
        }
        let added = handle.request(Request::AddPeer { peer: from.clone() }).await;
        added.map_err(|refusal| format!("{from} cannot be added: {refusal}"))?;
        tracing::info!("{from} joins the cluster through this peer");
        Ok(())
    }

    /// Accepts an invitation, if this peer is the only member of its cluster and has no pins.
    async fn accept_invitation(
        &self,
        from: &PeerId,
        cluster: ClusterId,
        addresses: &[String],
    ) -> Result<Option<Accepted>, String> {
        let own = self.net.cluster();
        if own == ClusterId::UNKNOWN || own == cluster {
            return Ok(None);
        }
        let me = self.net.peer_id();
        let handle = self.handle.get().ok_or("this peer is starting")?;
        let alone = handle.view(|view, _| view.members().peers.len() == 1).await;
        let is_free = self.is_free.clone();
        let free = tokio::task::spawn_blocking(move || is_free())
            .await
            .unwrap_or(false);
        if alone != Some(true) || !free {
            let why = if free {
                "other peers belong to it"
            } else {
                "it has pins"
            };
            return Err(format!(
                "{me} belongs to another cluster, {own}, and {why}: two clusters' data are never mixed. To \
                 give that up, stop it, run `ipfs-cluster-service state cleanup` there, and start it with \
                 --bootstrap"
            ));
        }
        let invitation = Invitation {
            from: from.clone(),
            addresses: addresses.iter().filter_map(|text| text.parse().ok()).collect(),
        };
        let busy = |_| "another peer has just invited it: try again later".to_owned();
        let place = self.invitations.clone().try_reserve_owned().map_err(busy)?;
        Ok(Some((place, invitation)))
    }
}
