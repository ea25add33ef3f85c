//! Membership while a peer runs: changes are passed on to the network, other peers are queried when a
//! leader or a peer is missing, and the end of this peer's membership is detected. Logs changes of members,
//! leader and deviating clocks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::{Envelope, Membership, Message, PeerId, VERSION};
use rand::seq::IndexedRandom;
use tokio::sync::{mpsc, watch};

use super::Ending;
use crate::discovery::{self, Answer, Question};
use crate::driver::Handle;
use crate::net::Net;

/// Interval at which deviating clocks are read from the core. Other changes are announced.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Interval of queries while something is missing. The first follows soon after the start, when that is
/// most likely.
const QUERY_INTERVAL: Duration = Duration::from_secs(3);

/// Intervals per query while nothing seems to be missing. A removed learner may not have been sent the end
/// of the log, and does not notice the leader's silence.
const IDLE_ROUNDS: u64 = 4;

/// Peers queried at once while there is no leader.
const ASKED_MAX: usize = 5;

/// Seed members kept: more than one answer names.
const SEED_MEMBERS_MAX: usize = 1024;

/// State shared by both tasks.
#[derive(Clone)]
pub(super) struct MembershipWatch {
    net: Net,
    handle: Handle,
    /// Peers with a known address at the start.
    known: Vec<PeerId>,
    /// Members named by other peers. They count as members while this peer has no leader: possibly no peer
    /// of its own membership belongs to the cluster any more.
    seed_members: Arc<watch::Sender<BTreeSet<PeerId>>>,
}

/// State read from the core.
struct Observed {
    members: BTreeSet<PeerId>,
    leader: Option<PeerId>,
    membership: Membership,
    /// The protocol version that all members read.
    version: u8,
    /// Peers whose clock deviates from the cluster time.
    skewed: BTreeSet<PeerId>,
}

impl MembershipWatch {
    pub(super) fn new(net: Net, handle: Handle, known: Vec<PeerId>, seed_members: BTreeSet<PeerId>) -> Self {
        let seed_members = Arc::new(watch::Sender::new(seed_members));
        Self {
            net,
            handle,
            known,
            seed_members,
        }
    }

    async fn observe(&self) -> Option<Observed> {
        let read = |view: cluster_core::View<'_>, _| Observed {
            members: view.members().peer_ids().cloned().collect(),
            leader: view.leader().cloned(),
            membership: view.membership(),
            version: view.members().version,
            skewed: view.skewed_clocks().cloned().collect(),
        };
        self.handle.view(read).await
    }

    fn seed_members(&self) -> BTreeSet<PeerId> {
        self.seed_members.borrow().clone()
    }

    /// Passes changes of the membership on to the network, and logs changes of the leader, until the
    /// membership ends.
    pub(super) async fn run(self, ending: mpsc::Sender<Ending>) {
        let (mut last, mut last_leader) = (BTreeSet::new(), None);
        let mut last_skewed = BTreeSet::new();
        let mut known: Option<BTreeSet<PeerId>> = None;
        // A peer that starts as removed has been added again, or it would not have been started: it waits
        // to learn its new Raft id.
        let mut returns = !self.seed_members().is_empty();
        let (mut changes, mut seeds) = (self.handle.changes(), self.seed_members.subscribe());
        while let Some(observed) = self.observe().await {
            let is_member = matches!(observed.membership, Membership::Learner | Membership::Voter);
            returns &= !is_member;
            if observed.membership == Membership::Removed && !returns {
                // A full channel means that the end was reported already.
                let _ = ending.try_send(Ending::Removed);
                return;
            }
            if is_member && known.as_ref() != Some(&observed.members) {
                if let Some(before) = &known {
                    log_changes(before, &observed.members);
                }
                known = Some(observed.members.clone());
            }
            let mut members = observed.members;
            if observed.leader.is_none() {
                members.extend(self.seed_members());
            }
            if self.net.set_version(observed.version) {
                tracing::info!(
                    "all members speak version {} of the protocol: peers that do not are refused",
                    observed.version
                );
            }
            if members != last {
                self.net.set_members(members.clone()).await;
                last = members;
            }
            if observed.leader != last_leader {
                match &observed.leader {
                    Some(leader) => tracing::info!("the cluster's leader is {leader}"),
                    None => tracing::warn!("the cluster has no leader: writes wait for one"),
                }
                last_leader = observed.leader;
            }
            if observed.skewed != last_skewed {
                log_skewed(&last_skewed, &observed.skewed);
                last_skewed = observed.skewed;
            }
            // Neither channel is closed: this task holds a sender of both.
            tokio::select! {
                _ = changes.changed() => {}
                _ = seeds.changed() => {}
                () = tokio::time::sleep(WATCH_INTERVAL) => {}
            }
        }
    }

    /// Queries other peers for the members and their addresses, while there is no leader or a member is not
    /// connected; otherwise, now and then, whether this peer is still a member.
    pub(super) async fn query_others(self) {
        for round in 1_u64.. {
            tokio::time::sleep(QUERY_INTERVAL).await;
            let Some(observed) = self.observe().await else {
                return;
            };
            let connected = self.net.connected();
            let is_away = |peer: &PeerId| peer != self.net.peer_id() && !connected.contains(peer);
            if observed.leader.is_none() {
                let mut candidates: BTreeSet<PeerId> = connected;
                candidates.extend(self.known.iter().cloned());
                self.ask_some(candidates, &observed).await;
            } else if observed.members.iter().any(is_away) || round % IDLE_ROUNDS == 0 {
                // Members that are not connected too: they refuse connections of a peer that they have
                // removed.
                self.ask_some(observed.members.clone(), &observed).await;
            }
        }
    }

    async fn ask_some(&self, mut candidates: BTreeSet<PeerId>, observed: &Observed) {
        candidates.remove(self.net.peer_id());
        let all: Vec<PeerId> = candidates.into_iter().collect();
        let count = if observed.leader.is_some() { 1 } else { ASKED_MAX };
        let chosen: Vec<PeerId> = all.sample(&mut rand::rng(), count).cloned().collect();
        let asked = chosen.iter().map(|peer| async move {
            let answer = discovery::ask(&self.net, peer, &Question::Identify).await;
            (peer.clone(), answer)
        });
        for (peer, answer) in futures::future::join_all(asked).await {
            // The network retries peers that do not answer.
            if let Ok(answer) = answer {
                self.on_answer(&peer, &answer).await;
            }
        }
    }

    async fn on_answer(&self, peer: &PeerId, answer: &Answer) {
        if !answer.is_authoritative() || answer.cluster != self.net.cluster() {
            return;
        }
        if answer.knows_asker() {
            let named = answer.add_addresses_to(&self.net).await;
            self.seed_members.send_if_modified(|known| {
                let before = known.clone();
                known.extend(named);
                while known.len() > SEED_MEMBERS_MAX {
                    known.pop_first();
                }
                *known != before
            });
        } else {
            // The core decides whether it or the other peer lags behind. A learner does not notice that its
            // leader is silent, so a known leader proves nothing.
            let message = Message::NotMember { as_of: answer.as_of };
            let envelope = Envelope {
                cluster: answer.cluster,
                incarnation: answer.incarnation,
                addressee: None,
                version: VERSION,
                message,
            };
            self.handle.received(peer.clone(), envelope).await;
        }
    }
}

fn log_changes(before: &BTreeSet<PeerId>, now: &BTreeSet<PeerId>) {
    for peer in now.difference(before) {
        tracing::info!("{peer} is a member of the cluster now");
    }
    for peer in before.difference(now) {
        tracing::info!("{peer} is not a member of the cluster any more");
    }
}

fn log_skewed(before: &BTreeSet<PeerId>, now: &BTreeSet<PeerId>) {
    for peer in now.difference(before) {
        tracing::warn!(
            "the clock of {peer} deviates by more than a minute from the cluster's: pins expire by the \
             cluster's clock, the median of the voters' clocks; set the clock of that machine"
        );
    }
    for peer in before.difference(now) {
        tracing::info!("the clock of {peer} agrees with the cluster's again");
    }
}
