//! Membership while a peer runs: changes are passed on to the network, other peers are queried when a
//! leader or a peer is missing, and the end of this peer's membership is detected.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_core::{Envelope, Membership, Message, PeerId, VERSION};
use rand::seq::IndexedRandom;
use tokio::sync::mpsc;

use super::Ending;
use super::greeting::{self, Greeting, Question};
use crate::driver::Handle;
use crate::net::Net;

/// Interval at which the membership is read from the core.
const WATCH_INTERVAL: Duration = Duration::from_millis(200);

/// Interval of queries while something is missing. The first follows soon after the start, when that is
/// most likely.
const INQUIRY_PAUSE: Duration = Duration::from_secs(3);

/// Intervals per query while nothing seems to be missing. A removed learner may not have been sent the end
/// of the log, and does not notice the leader's silence.
const ROUNDS_OF_REST: u64 = 4;

/// Peers queried at once while there is no leader.
const ASKED_MAX: usize = 5;

/// Seed members kept: more than one answer names.
const GUIDES_MAX: usize = 1024;

/// State shared by both tasks.
#[derive(Clone)]
pub(super) struct Watch {
    net: Net,
    handle: Handle,
    /// Peers with a known address at the start.
    known: Vec<PeerId>,
    /// Members named by other peers. They count as members while this peer has no leader: possibly no peer
    /// of its own membership belongs to the cluster any more.
    guides: Arc<Mutex<BTreeSet<PeerId>>>,
}

/// State read from the core.
struct Look {
    members: BTreeSet<PeerId>,
    leader: Option<PeerId>,
    membership: Membership,
    /// The protocol version that all members read.
    version: u8,
}

impl Watch {
    pub(super) fn new(net: Net, handle: Handle, known: Vec<PeerId>, guides: BTreeSet<PeerId>) -> Self {
        let guides = Arc::new(Mutex::new(guides));
        Self {
            net,
            handle,
            known,
            guides,
        }
    }

    async fn look(&self) -> Option<Look> {
        let read = |view: cluster_core::View<'_>, _| Look {
            members: view.members().peer_ids().cloned().collect(),
            leader: view.leader().cloned(),
            membership: view.membership(),
            version: view.members().version,
        };
        self.handle.view(read).await
    }

    fn guides(&self) -> BTreeSet<PeerId> {
        self.guides.lock().expect("no panic while locked").clone()
    }

    /// Passes changes of the membership on to the network, and logs changes of the leader, until the
    /// membership ends.
    pub(super) async fn run(self, ending: mpsc::Sender<Ending>) {
        let (mut last, mut last_leader) = (BTreeSet::new(), None);
        let mut known: Option<BTreeSet<PeerId>> = None;
        // A peer that starts as removed has been added again, or it would not have been started: it waits
        // to learn its new Raft id.
        let mut returns = !self.guides().is_empty();
        while let Some(look) = self.look().await {
            let is_member = matches!(look.membership, Membership::Learner | Membership::Voter);
            returns &= !is_member;
            if look.membership == Membership::Removed && !returns {
                // A full channel means that the end was reported already.
                let _ = ending.try_send(Ending::Removed);
                return;
            }
            if is_member && known.as_ref() != Some(&look.members) {
                if let Some(before) = &known {
                    tell_changes(before, &look.members);
                }
                known = Some(look.members.clone());
            }
            let mut members = look.members;
            if look.leader.is_none() {
                members.extend(self.guides());
            }
            if self.net.set_version(look.version) {
                tracing::info!(
                    "all members speak version {} of the protocol: peers that do not are refused",
                    look.version
                );
            }
            if members != last {
                self.net.set_members(members.clone()).await;
                last = members;
            }
            if look.leader != last_leader {
                match &look.leader {
                    Some(leader) => tracing::info!("the cluster's leader is {leader}"),
                    None => tracing::warn!("the cluster has no leader: writes wait for one"),
                }
                last_leader = look.leader;
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    /// Queries other peers for the members and their addresses, while there is no leader or a member is not
    /// connected; otherwise, now and then, whether this peer is still a member.
    pub(super) async fn inquire(self) {
        for round in 1_u64.. {
            tokio::time::sleep(INQUIRY_PAUSE).await;
            let Some(look) = self.look().await else { return };
            let connected = self.net.connected();
            let is_away = |peer: &PeerId| peer != self.net.peer_id() && !connected.contains(peer);
            if look.leader.is_none() {
                let mut candidates: BTreeSet<PeerId> = connected;
                candidates.extend(self.known.iter().cloned());
                self.ask_some(candidates, &look).await;
            } else if look.members.iter().any(is_away) || round % ROUNDS_OF_REST == 0 {
                // Members that are not connected too: they refuse connections of a peer that they have
                // removed.
                self.ask_some(look.members.clone(), &look).await;
            }
        }
    }

    async fn ask_some(&self, mut candidates: BTreeSet<PeerId>, look: &Look) {
        candidates.remove(self.net.peer_id());
        let all: Vec<PeerId> = candidates.into_iter().collect();
        let count = if look.leader.is_some() { 1 } else { ASKED_MAX };
        let chosen: Vec<PeerId> = all.sample(&mut rand::rng(), count).cloned().collect();
        let asked = chosen.iter().map(|peer| async move {
            let answer = greeting::ask(&self.net, peer, &Question::Who).await;
            (peer.clone(), answer)
        });
        for (peer, answer) in futures::future::join_all(asked).await {
            // The network retries peers that do not answer.
            if let Ok(greeting) = answer {
                self.on_answer(&peer, &greeting).await;
            }
        }
    }

    async fn on_answer(&self, peer: &PeerId, greeting: &Greeting) {
        if !greeting.has_a_say() || greeting.cluster != self.net.cluster() {
            return;
        }
        if greeting.knows_you() {
            let told = greeting.tell(&self.net).await;
            let mut guides = self.guides.lock().expect("no panic while locked");
            guides.extend(told);
            while guides.len() > GUIDES_MAX {
                guides.pop_first();
            }
        } else {
            // The core decides whether it or the other peer lags behind. A learner does not notice that its
            // leader is silent, so a known leader proves nothing.
            let message = Message::NotMember {
                as_of: greeting.as_of,
            };
            let envelope = Envelope {
                cluster: greeting.cluster,
                incarnation: greeting.incarnation,
                addressee: None,
                version: VERSION,
                message,
            };
            self.handle.received(peer.clone(), envelope).await;
        }
    }
}

fn tell_changes(before: &BTreeSet<PeerId>, now: &BTreeSet<PeerId>) {
    for peer in now.difference(before) {
        tracing::info!("{peer} is a member of the cluster now");
    }
    for peer in before.difference(now) {
        tracing::info!("{peer} is not a member of the cluster any more");
    }
}
