//! Bootstrap of a peer: decides whether it resumes from its disk, joins a cluster, or founds one.
//!
//! A fresh data folder may be that of a member whose disk was lost. So before a cluster is founded, the
//! known peers (from `init_peerset`, the peerstore, `cluster.peer_addresses`) are queried once (see
//! `discovery`):
//!
//! - A peer answers that this one is a member, with a recorded data folder: the disk was lost. This peer
//!   returns under a new incarnation, and its state is streamed to it.
//! - This peer is a member without a recorded folder: no leader has heard from it yet. If `init_peerset`
//!   names it as a founder, it founds, unless the cluster has a leader: then it joins and is given the
//!   state. (A founder that loses its disk between its first vote and its first entry in the log, a moment
//!   after the cluster's first election, cannot be distinguished from one that starts for the first time.
//!   It may vote twice in one term, which does harm only when another founder's disk is lost at the same
//!   time.)
//! - No answer names a cluster: the peers of `init_peerset` found theirs, in any order and hours apart,
//!   since all compute the same first membership. A folder that was lost while no peer could be reached is
//!   harmless then: the other peers ignore a data folder other than the recorded one, and report it. But
//!   when a founder belongs to another cluster (a new one of survivors, say), nothing is founded: this peer
//!   waits to be added there.
//! - A peer without `init_peerset` founds its own cluster only when all peers of its peerstore are as fresh
//!   as it is, or the peerstore is empty.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use cluster_core::{ClusterId, Identity, Incarnation, Members, PeerId, Recovered};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::discovery::{self, Answer, AskerStatus, Question};
use crate::net::Net;
use crate::store::Store;

/// Pause between two rounds of queries.
const PAUSE: Duration = Duration::from_millis(500);

/// Interval of the log lines about the reason to wait.
const WAITING_INTERVAL: Duration = Duration::from_secs(5);

/// Peers queried at once. Of a larger cluster, enough of them know its members.
const ASKED_MAX: usize = 64;

/// Inputs of the bootstrap.
pub(super) struct Bootstrap<'a> {
    pub(super) net: &'a Net,
    /// Peers to join through.
    pub(super) bootstrap: Vec<PeerId>,
    /// Peers with a known address.
    pub(super) known: Vec<PeerId>,
    /// Founders of the cluster, this peer among them; only itself when `init_peerset` is empty.
    pub(super) founders: Vec<PeerId>,
    /// True if `init_peerset` names any peers.
    pub(super) is_static: bool,
    /// Maximum wait for an answer.
    pub(super) limit: Duration,
    /// The data folder, for messages.
    pub(super) data: PathBuf,
}

/// State from which the core starts.
pub(super) struct StartingPoint {
    pub(super) recovered: Recovered,
    /// Members named by other peers, from which a peer without a membership accepts messages.
    pub(super) seed_members: BTreeSet<PeerId>,
}

/// Answers to a round of queries.
#[derive(Default)]
struct Round {
    /// Answers of clusters that this peer is a member of.
    members: Vec<(PeerId, Answer)>,
    /// Answers of clusters that this peer is not a member of.
    others: Vec<(PeerId, Answer)>,
    /// Number of peers without a cluster.
    fresh: usize,
    /// Errors of peers that did not answer, or refused.
    failures: BTreeMap<PeerId, String>,
}

impl Bootstrap<'_> {
    /// Determines the state to start from; founds a fresh store.
    ///
    /// # Errors
    /// This peer can neither resume, join nor found; the error contains advice.
    pub(super) async fn run(
        &self,
        store: &mut Store,
        recovered: Option<Recovered>,
    ) -> anyhow::Result<StartingPoint> {
        let Some(recovered) = recovered else {
            return self.start_fresh(store).await;
        };
        let seed_members = match recovered.hard_state.identity {
            Identity::Founding | Identity::Known(_) => {
                self.check_owner(&recovered)?;
                self.check_bootstrap(recovered.members.cluster).await?;
                BTreeSet::new()
            }
            Identity::Unknown => {
                tracing::info!(
                    "this peer was joining the cluster {} when it stopped, and continues",
                    recovered.members.cluster
                );
                self.find_members(recovered.members.cluster).await?
            }
            Identity::Removed(_) => {
                let seed_members = self.find_members(recovered.members.cluster).await?;
                tracing::info!("this peer was removed from its cluster, and is a member again");
                seed_members
            }
        };
        Ok(StartingPoint {
            recovered,
            seed_members,
        })
    }

    async fn start_fresh(&self, store: &mut Store) -> anyhow::Result<StartingPoint> {
        let me = self.net.peer_id();
        if !self.bootstrap.is_empty() {
            let answer = self.join().await?;
            return self.prepare_to_join(store, &answer).await;
        }
        let others = self.others();
        let since = Instant::now();
        let mut logged_at = since;
        while !others.is_empty() {
            let round = self.ask(&others, &Question::Identify).await;
            if let Some(answer) = self.own_cluster(&round)? {
                return self.prepare_to_join(store, answer).await;
            }
            self.refuse_other_clusters(&round)?;
            let rival = self.founder_elsewhere(&round);
            if rival.is_none() && (self.is_static || round.failures.is_empty()) {
                break;
            }
            if since.elapsed() >= self.limit {
                if let Some((peer, cluster)) = rival {
                    anyhow::bail!(
                        "{peer}, which is in init_peerset, belongs to the cluster {cluster}, of which this \
                         peer ({me}) is not a member. To join it, start with --bootstrap <address of \
                         {peer}>; to found another cluster without {peer}, take it out of \
                         consensus.raft.init_peerset"
                    );
                }
                anyhow::bail!(
                    "no peer of the peerstore could be asked whether this peer ({me}) belongs to a cluster: \
                     {}. Start the others and then this peer again; or start it with --bootstrap to join a \
                     cluster; or empty the peerstore to found a cluster of this peer alone",
                    listed(&round.failures)
                );
            }
            if logged_at.elapsed() >= WAITING_INTERVAL {
                logged_at = Instant::now();
                match rival {
                    Some((peer, cluster)) => tracing::info!(
                        "waiting for the cluster {cluster}, to which {peer} belongs, to add this peer"
                    ),
                    None => {
                        tracing::info!("waiting for a peer of the peerstore: {}", listed(&round.failures));
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        let members = Members::initial(self.founders.iter().cloned());
        let recovered = Recovered::founding(Incarnation(rand::random()), members);
        store.initialise(&recovered)?;
        let (cluster, peers) = (recovered.members.cluster, recovered.members.peers.len());
        tracing::info!("founding the cluster {cluster} of {peers} peers");
        self.set_cluster(cluster, recovered.members.peer_ids().cloned().collect())
            .await;
        let seed_members = BTreeSet::new();
        Ok(StartingPoint {
            recovered,
            seed_members,
        })
    }

    /// Sets the members first: callers in between are asked to wait, instead of being refused as
    /// non-members.
    async fn set_cluster(&self, cluster: ClusterId, members: BTreeSet<PeerId>) {
        self.net.set_members(members).await;
        self.net.set_cluster(cluster);
    }

    /// Returns the answer of the cluster that this peer is a member of, if it is to fetch its state there.
    fn own_cluster<'b>(&self, round: &'b Round) -> anyhow::Result<Option<&'b Answer>> {
        let own = Members::initial(self.founders.iter().cloned()).cluster;
        let Some((first, answer)) = round.members.first() else {
            return Ok(None);
        };
        let other = round
            .members
            .iter()
            .find(|(_, other)| other.cluster != answer.cluster);
        if let Some((second, other)) = other {
            anyhow::bail!(
                "this peer ({}) is a member of two clusters: of {} by what {first} says, and of {} by what \
                 {second} says. Remove it from one of them (`ipfs-cluster-ctl peers rm`), and the other's \
                 peers from the peerstore",
                self.net.peer_id(),
                answer.cluster,
                other.cluster
            );
        }
        let members = round.members.iter().map(|(_, answer)| answer);
        let is_recorded = |answer: &&Answer| match answer.asker {
            AskerStatus::Member { incarnation } => incarnation.is_some(),
            AskerStatus::NonMember => false,
        };
        let recorded = members.clone().find(is_recorded);
        if let Some(answer) = recorded {
            tracing::warn!(
                "the data folder {} is empty, and this peer is a member of the cluster {}: its state is \
                 fetched from the others",
                self.data.display(),
                answer.cluster
            );
            return Ok(Some(answer));
        }
        let founds = self.is_static && answer.cluster == own;
        Ok(members.clone().find(|answer| answer.has_leader || !founds))
    }

    /// Refuses to found a cluster beside one whose peers are in this peer's configuration.
    fn refuse_other_clusters(&self, round: &Round) -> anyhow::Result<()> {
        let own = Members::initial(self.founders.iter().cloned()).cluster;
        let me = self.net.peer_id();
        for (peer, answer) in &round.others {
            let cluster = answer.cluster;
            if self.is_static && cluster == own {
                anyhow::bail!(
                    "{me} was removed from the cluster {cluster}, says {peer}. {}",
                    how_to_come_back(me)
                );
            }
            if !self.is_static {
                anyhow::bail!(
                    "{peer}, which is in the peerstore, belongs to the cluster {cluster}, of which this \
                     peer ({me}) is not a member. To join it, start with --bootstrap <address of {peer}>; to \
                     found a cluster of this peer alone, empty the peerstore"
                );
            }
            if !self.founders.contains(peer) {
                tracing::warn!("{peer} belongs to another cluster, {cluster}");
            }
        }
        Ok(())
    }

    /// Returns a founder that belongs to another cluster by now, and so cannot be in a newly founded one.
    fn founder_elsewhere<'r>(&self, round: &'r Round) -> Option<(&'r PeerId, ClusterId)> {
        let mut others = round.others.iter();
        let (peer, answer) = others.find(|(peer, _)| self.is_static && self.founders.contains(peer))?;
        Some((peer, answer.cluster))
    }

    async fn prepare_to_join(&self, store: &mut Store, answer: &Answer) -> anyhow::Result<StartingPoint> {
        let recovered = Recovered::joining(Incarnation(rand::random()), answer.cluster);
        store.initialise(&recovered)?;
        let seed_members: BTreeSet<PeerId> = answer.add_addresses_to(self.net).await.into_iter().collect();
        self.set_cluster(answer.cluster, seed_members.clone()).await;
        tracing::info!("joining the cluster {}", answer.cluster);
        Ok(StartingPoint {
            recovered,
            seed_members,
        })
    }

    /// Asks the peers of the bootstrap list to add this one.
    async fn join(&self) -> anyhow::Result<Answer> {
        let since = Instant::now();
        let mut logged_at = since;
        loop {
            let mut round = self.ask(&self.bootstrap, &Question::Join).await;
            if let Some((_, answer)) = round.members.pop() {
                return Ok(answer);
            }
            let why = listed(&round.failures);
            if since.elapsed() >= self.limit {
                anyhow::bail!(
                    "cannot join a cluster within {:?} (the longer of consensus.raft.wait_for_leader_timeout \
                     and four election timeouts, and 5 s): {why}",
                    self.limit
                );
            }
            if logged_at.elapsed() >= WAITING_INTERVAL || logged_at == since {
                logged_at = Instant::now();
                tracing::info!("waiting to join a cluster: {why}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Finds members of the cluster in this peer's data; with a bootstrap list, asks them to add this peer
    /// again.
    async fn find_members(&self, cluster: ClusterId) -> anyhow::Result<BTreeSet<PeerId>> {
        let me = self.net.peer_id();
        let since = Instant::now();
        let mut logged_at = since;
        loop {
            let mut round = if self.bootstrap.is_empty() {
                self.ask(&self.others(), &Question::Identify).await
            } else {
                self.ask(&self.bootstrap, &Question::Join).await
            };
            round.members.retain(|(_, answer)| answer.cluster == cluster);
            if let Some((_, answer)) = round.members.first() {
                return Ok(answer.add_addresses_to(self.net).await.into_iter().collect());
            }
            let (same, other): (Vec<_>, Vec<_>) = round
                .others
                .iter()
                .partition(|(_, answer)| answer.cluster == cluster);
            if let Some((peer, _)) = same.first() {
                anyhow::bail!(
                    "{me} is not a member of the cluster {cluster} any more, says {peer}. {}",
                    how_to_come_back(me)
                );
            }
            let mut why = round.failures;
            for (peer, answer) in other {
                why.insert(
                    peer.clone(),
                    format!("it belongs to another cluster, {}", answer.cluster),
                );
            }
            if since.elapsed() >= self.limit {
                anyhow::bail!(
                    "no member of the cluster {cluster}, to which the data in {} belongs, could be reached \
                     within {:?}: {}",
                    self.data.display(),
                    self.limit,
                    listed(&why)
                );
            }
            if logged_at.elapsed() >= WAITING_INTERVAL || logged_at == since {
                logged_at = Instant::now();
                tracing::info!("waiting for a member of the cluster {cluster}: {}", listed(&why));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Checks that the data belongs to the peer of the identity file beside it.
    fn check_owner(&self, recovered: &Recovered) -> anyhow::Result<()> {
        let me = self.net.peer_id();
        let members = &recovered.members;
        let is_mine = match recovered.hard_state.identity {
            Identity::Known(id) => members.peer(id).is_none_or(|peer| peer == me),
            Identity::Founding => members.raft_id(me).is_some(),
            Identity::Unknown | Identity::Removed(_) => true,
        };
        anyhow::ensure!(
            is_mine,
            "the data in {} belongs to the cluster {}, and to another peer of it than {me}, whose identity \
             is in identity.json. Put the right identity there; to start anew, move the folder away",
            self.data.display(),
            members.cluster,
        );
        Ok(())
    }

    /// Checks that the peers of the bootstrap list belong to the cluster that this peer is a member of.
    async fn check_bootstrap(&self, own: ClusterId) -> anyhow::Result<()> {
        if self.bootstrap.is_empty() {
            return Ok(());
        }
        let round = self.ask(&self.bootstrap, &Question::Identify).await;
        let all = round.members.iter().chain(&round.others);
        if let Some((peer, answer)) = all.into_iter().find(|(_, answer)| answer.cluster != own) {
            anyhow::bail!(
                "{peer} belongs to the cluster {}, but the data in {} to the cluster {own}: two clusters' \
                 data are never mixed. To join, run `ipfs-cluster-service state cleanup` first, which moves \
                 this peer's state out of the way; to go on without, leave out --bootstrap",
                answer.cluster,
                self.data.display(),
            );
        }
        tracing::info!("this peer is a member of the cluster {own} already: --bootstrap changes nothing");
        Ok(())
    }

    /// Peers that may know this one.
    fn others(&self) -> Vec<PeerId> {
        let all: BTreeSet<&PeerId> = self.known.iter().chain(&self.founders).collect();
        let others = all.into_iter().filter(|peer| *peer != self.net.peer_id());
        others.take(ASKED_MAX).cloned().collect()
    }

    /// Sends the same query to several peers. One success of a join is enough.
    async fn ask(&self, peers: &[PeerId], question: &Question) -> Round {
        let mut asked: FuturesUnordered<_> = peers
            .iter()
            .map(|peer| async move { (peer.clone(), discovery::ask(self.net, peer, question).await) })
            .collect();
        let mut round = Round::default();
        while let Some((peer, answer)) = asked.next().await {
            match answer {
                Ok(answer) if !answer.is_authoritative() => {
                    round.fresh += 1;
                    if *question == Question::Join {
                        round
                            .failures
                            .insert(peer, "it does not belong to a cluster itself".to_owned());
                    }
                }
                Ok(answer) if answer.knows_asker() => {
                    round.members.push((peer, answer));
                    if *question == Question::Join {
                        break;
                    }
                }
                Ok(answer) => round.others.push((peer, answer)),
                Err(error) => {
                    round.failures.insert(peer, error.to_string());
                }
            }
        }
        tracing::debug!(
            members = round.members.len(),
            others = round.others.len(),
            fresh = round.fresh,
            failures = round.failures.len(),
            "asked {} peers",
            peers.len()
        );
        round
    }
}

/// Returns advice for the operator of a removed peer.
pub(super) fn how_to_come_back(me: &PeerId) -> String {
    format!(
        "To bring it back, start it with --bootstrap <address of a member>. To start a new cluster with it, \
         run `ipfs-cluster-service state cleanup` and empty the peerstore and consensus.raft.init_peerset \
         first; a peer that runs like that also joins by `ipfs-cluster-ctl peers add {me}` at a member"
    )
}

/// Reasons by peer, as text for people.
fn listed(reasons: &BTreeMap<PeerId, String>) -> String {
    let reasons = reasons.iter().map(|(peer, why)| {
        let why = why.as_str();
        // Most reasons name the peer themselves.
        if why.contains(&peer.to_string()) {
            why.to_owned()
        } else {
            format!("{peer}: {why}")
        }
    });
    let listed: Vec<String> = reasons.collect();
    if listed.is_empty() {
        return "no other peer is known".to_owned();
    }
    listed.join("; ")
}
