//! What peers ask each other across the borders of their clusters: who somebody is, and to be let in. The
//! method is open to all who have got through the handshake, with the cluster's secret where there is one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cluster_core::{ClusterId, Incarnation, Index, Membership, PeerId, Request};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::driver::Handle;
use crate::net::{CallError, Deadline, Incoming, Multiaddr, Net};

/// Its name.
pub(super) const METHOD: &str = "greet";

/// Addresses of each peer that are told: those that it says itself come first.
const ADDRESSES_MAX: usize = 4;

/// Peers that are told of. A newcomer needs some, and learns of the others from them.
const PEERS_MAX: usize = 512;

/// For who somebody is: a dial, and an answer out of memory.
pub(super) const WHO: Duration = Duration::from_secs(3);

/// To be let in: the core's own deadline for a request is 15 s.
pub(super) const JOIN: Duration = Duration::from_secs(18);

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Who are you, and what am I to you?
    Who,
    /// Let me into your cluster.
    Join,
    /// Leave your own cluster, of which you are all, and join mine.
    Come {
        /// Which.
        cluster: ClusterId,
        /// Where the one who asks is.
        addresses: Vec<String>,
    },
}

/// The answer to all questions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// The speaker's cluster; unknown while it has none.
    pub(super) cluster: ClusterId,
    /// The speaker's data folder.
    pub(super) incarnation: Incarnation,
    /// How far the speaker knows the log.
    pub(super) as_of: Index,
    /// Whether the speaker belongs to its cluster.
    pub(super) takes_part: bool,
    /// Whether the speaker knows who leads.
    pub(super) led: bool,
    /// What the asker is to the speaker.
    pub(super) you: Standing,
    /// The members, and where they are; told to members only.
    pub(super) peers: Vec<(PeerId, Vec<String>)>,
}

/// What somebody is to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// Not a member.
    Stranger,
    /// A member.
    Member {
        /// The data folder that is recorded for it, if one has been.
        incarnation: Option<Incarnation>,
    },
}

impl Greeting {
    /// Whether the speaker may speak for a cluster.
    pub(super) fn has_a_say(&self) -> bool {
        self.cluster != ClusterId::UNKNOWN && self.takes_part
    }

    pub(super) fn knows_you(&self) -> bool {
        matches!(self.you, Standing::Member { .. })
    }

    /// Passes on to the network where the others are, and says who they are.
    pub(super) async fn tell(&self, net: &Net) -> Vec<PeerId> {
        for (peer, addresses) in &self.peers {
            let addresses: Vec<Multiaddr> = addresses.iter().filter_map(|text| text.parse().ok()).collect();
            if peer != net.peer_id() && !addresses.is_empty() {
                net.add_addresses(peer, addresses).await;
            }
        }
        self.peers.iter().map(|(peer, _)| peer.clone()).collect()
    }
}

/// Asks a peer, which is dialled if it is not connected.
pub(super) async fn ask(net: &Net, peer: &PeerId, question: &Question) -> Result<Greeting, CallError> {
    let limit = match question {
        Question::Who | Question::Come { .. } => WHO,
        Question::Join => JOIN,
    };
    net.ask(peer, METHOD, question, Deadline::Within(limit)).await
}

/// Has a peer that is no member let go of a cluster of its own, when there is nothing in that. Then it joins
/// this one through this peer.
pub(super) async fn invite(net: &Net, peer: &PeerId) -> Result<(), String> {
    let come = Question::Come {
        cluster: net.cluster(),
        addresses: net.addresses().iter().map(ToString::to_string).collect(),
    };
    match ask(net, peer, &come).await {
        Ok(_) => Ok(()),
        // A peer that never comes would count as a member, and might get a vote.
        Err(error @ (CallError::Unreachable { .. } | CallError::Late { .. } | CallError::Lost { .. })) => {
            Err(format!(
                "{error}: a peer must be running and reachable to be added. Start it, and give \
                 its address if \
                 it is not known here (/ip4/…/tcp/9096/p2p/{peer})"
            ))
        }
        Err(error @ (CallError::Failed(_) | CallError::Refused { .. } | CallError::Invalid(_))) => {
            Err(error.to_string())
        }
    }
}

/// A peer that wants this one in its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Invitation {
    /// Who.
    pub(super) from: PeerId,
    /// Where it is.
    pub(super) addresses: Vec<Multiaddr>,
}

/// Answers.
#[derive(Clone)]
pub(super) struct Greeter {
    net: Net,
    /// Once there is one.
    handle: Arc<OnceLock<Handle>>,
    invitations: mpsc::Sender<Invitation>,
    /// Whether this peer founded a cluster of its own, and holds nothing.
    is_free: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Greeter {
    /// `is_free` says whether the pinset is empty; it reads the disk.
    pub(super) fn new(
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

    /// The state machine runs from here on.
    pub(super) fn set_handle(&self, handle: Handle) {
        // A second one would be of the same peer.
        let _ = self.handle.set(handle);
    }

    /// Answers one question.
    pub(super) async fn answer(&self, mut incoming: Incoming) {
        let question = incoming.request_as::<Question>();
        let (from, cluster) = (incoming.from.clone(), incoming.cluster);
        let answered = match question {
            Ok(question) => self.respond(&from, cluster, question).await,
            Err(error) => Err(format!("the question cannot be read: {error}")),
        };
        let sent = match answered {
            Ok(greeting) => match incoming.respond_as(&greeting).await {
                Ok(()) => incoming.finish(Ok(())).await,
                Err(error) => Err(error),
            },
            Err(why) => incoming.finish(Err(why)).await,
        };
        if let Err(error) = sent {
            tracing::debug!(%from, %error, "a question of another peer was not answered to its end");
        }
    }

    async fn respond(
        &self,
        from: &PeerId,
        cluster: ClusterId,
        question: Question,
    ) -> Result<Greeting, String> {
        match question {
            Question::Who => {}
            Question::Join => self.let_in(from, cluster).await?,
            Question::Come { cluster, addresses } => self.accept(from, cluster, &addresses).await?,
        }
        let greeting = self.greeting(from).await?;
        if greeting.has_a_say() && !greeting.knows_you() {
            self.net.note_stranger(from);
        }
        Ok(greeting)
    }

    async fn greeting(&self, to: &PeerId) -> Result<Greeting, String> {
        let Some(handle) = self.handle.get() else {
            return Ok(Greeting {
                cluster: self.net.cluster(),
                incarnation: Incarnation(0),
                as_of: 0,
                takes_part: false,
                led: false,
                you: Standing::Stranger,
                peers: Vec::new(),
            });
        };
        let asker = to.clone();
        let read = move |view: cluster_core::View<'_>, _| {
            let members = view.members();
            let you = match members.raft_id(&asker) {
                Some(id) => Standing::Member {
                    incarnation: members.peers[&id].incarnation,
                },
                None => Standing::Stranger,
            };
            let greeting = Greeting {
                cluster: members.cluster,
                incarnation: view.incarnation(),
                as_of: view.applied().index,
                takes_part: matches!(view.membership(), Membership::Learner | Membership::Voter),
                led: view.leader().is_some(),
                you,
                peers: Vec::new(),
            };
            (greeting, members.peer_ids().cloned().collect::<Vec<_>>())
        };
        let (mut greeting, members) = handle.view(read).await.ok_or("this peer is shutting down")?;
        if greeting.knows_you() {
            greeting.peers = members
                .into_iter()
                .take(PEERS_MAX)
                .map(|peer| {
                    let addresses = self.addresses(&peer);
                    (peer, addresses)
                })
                .collect();
        }
        Ok(greeting)
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

    async fn let_in(&self, from: &PeerId, cluster: ClusterId) -> Result<(), String> {
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

    /// Takes an invitation, when there is nothing that this peer would lose by it.
    async fn accept(&self, from: &PeerId, cluster: ClusterId, addresses: &[String]) -> Result<(), String> {
        let own = self.net.cluster();
        if own == ClusterId::UNKNOWN || own == cluster {
            return Ok(());
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
        self.invitations.try_send(invitation).map_err(busy)
    }
}
