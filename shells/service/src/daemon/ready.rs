//! Start-up wait: until the peer is ready, it logs the missing peers.

use std::time::Duration;

use cluster_core::{Members, Membership, PeerId};
use tokio::time::Instant;

use crate::driver::Handle;
use crate::net::Net;

/// Poll interval of the core.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Interval of log lines while a peer is not ready.
const WAITING_INTERVAL: Duration = Duration::from_secs(5);

/// Peers listed by name in a log line; the others are counted.
const NAMED_MAX: usize = 10;

/// Network protocol whose received bytes count as progress.
const SNAPSHOTS: &str = "snapshot";

/// Waits until this peer is part of a cluster with a leader.
pub(super) struct Readiness<'a> {
    pub(super) net: &'a Net,
    pub(super) handle: &'a Handle,
    pub(super) me: &'a PeerId,
    /// Maximum time without progress.
    pub(super) limit: Duration,
}

/// State read from the core.
struct Observed {
    members: Members,
    membership: Membership,
    leader: Option<PeerId>,
    applied: u64,
    committed: u64,
    ready: bool,
}

impl Readiness<'_> {
    /// Waits for a leader, and for this peer to have applied its log. Returns the members.
    ///
    /// # Errors
    /// No progress for `limit`, with the list of missing peers; or the peer is shutting down.
    pub(super) async fn wait(&self) -> anyhow::Result<Members> {
        let (mut progressed_at, mut logged_at) = (Instant::now(), Instant::now());
        let mut progress = (0, 0);
        loop {
            let Some(observed) = self.observe().await else {
                anyhow::bail!("the peer was stopped while it started");
            };
            if observed.ready {
                return Ok(observed.members);
            }
            // A peer that receives a large state makes progress. One without a leader does not, whatever it
            // receives.
            let now = (observed.applied, self.received());
            let is_joining = matches!(observed.membership, Membership::Joining | Membership::Removed);
            if now != progress && (observed.leader.is_some() || is_joining) {
                (progress, progressed_at) = (now, Instant::now());
            }
            if progressed_at.elapsed() >= self.limit {
                let missing = self.missing(&observed);
                missing.iter().for_each(|line| tracing::info!("{line}"));
                anyhow::bail!(
                    "no leader within {:?} (the longer of consensus.raft.wait_for_leader_timeout and four \
                     election timeouts, and 5 s): {}. A majority of the cluster's voters must be \
                     running and reachable: start the others, or check their \
                     addresses in the peerstore, and start this peer again",
                    self.limit,
                    missing.join("; ")
                );
            }
            if logged_at.elapsed() >= WAITING_INTERVAL {
                logged_at = Instant::now();
                let missing = self.missing(&observed);
                missing.iter().for_each(|line| tracing::info!("{line}"));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    async fn observe(&self) -> Option<Observed> {
        let read = |view: cluster_core::View<'_>, _| {
            let membership = view.membership();
            let is_member = matches!(membership, Membership::Learner | Membership::Voter);
            Observed {
                members: view.members().clone(),
                membership,
                leader: view.leader().cloned(),
                applied: view.applied().index,
                committed: view.committed(),
                ready: is_member && view.leader().is_some() && view.applied().term == view.term(),
            }
        };
        self.handle.view(read).await
    }

    /// Bytes of state received from other peers.
    fn received(&self) -> u64 {
        let traffic = self.net.traffic().into_iter();
        traffic
            .filter(|(protocol, _)| protocol.contains(SNAPSHOTS))
            .map(|(_, traffic)| traffic.received)
            .sum()
    }

    /// Returns the peers that this one waits for, with the reasons: one sentence each.
    fn missing(&self, observed: &Observed) -> Vec<String> {
        let connected = self.net.connected();
        let others: Vec<&PeerId> = observed
            .members
            .peer_ids()
            .filter(|peer| *peer != self.me)
            .collect();
        let waited: Vec<String> = others
            .iter()
            .filter_map(|peer| self.failure(peer, connected.contains(*peer)))
            .collect();
        let mut lines: Vec<String> = waited.iter().take(NAMED_MAX).cloned().collect();
        if waited.len() > NAMED_MAX {
            lines.push(format!("waiting for {} more peers", waited.len() - NAMED_MAX));
        }
        lines.push(self.summary(observed, connected.len()));
        lines
    }

    fn failure(&self, peer: &PeerId, connected: bool) -> Option<String> {
        match (self.net.last_failure(peer), connected) {
            (Some(why), true) => Some(format!("waiting for {peer}: it refuses our messages: {why}")),
            (Some(why), false) => Some(format!("waiting for {peer}: cannot connect: {why}")),
            (None, true) => None,
            (None, false) if self.net.known_addresses(peer).is_empty() => Some(format!(
                "waiting for {peer}: no address of it is known: add one to the peerstore"
            )),
            (None, false) => Some(format!("waiting for {peer}: not connected yet")),
        }
    }

    fn summary(&self, observed: &Observed, connected: usize) -> String {
        match (observed.membership, &observed.leader) {
            (Membership::Joining | Membership::Removed, _) if self.received() > 0 => {
                format!("receiving the cluster's state: {} bytes so far", self.received())
            }
            (Membership::Joining | Membership::Removed, _) => {
                format!("waiting for the cluster's leader to send its state; {connected} peers are connected")
            }
            (_, Some(leader)) => format!(
                "waiting to catch up with the leader {leader}: at entry {} of {}",
                observed.applied, observed.committed
            ),
            (_, None) => {
                let reached = self.net.connected();
                let members = &observed.members;
                let voters: Vec<&PeerId> = members.voters.iter().filter_map(|id| members.peer(*id)).collect();
                let here = voters
                    .iter()
                    .filter(|peer| **peer == self.me || reached.contains(**peer) && self.listens(peer))
                    .count();
                format!(
                    "waiting for a leader: {here} of {} voters are connected, {} are needed",
                    voters.len(),
                    voters.len() / 2 + 1
                )
            }
        }
    }

    fn listens(&self, peer: &PeerId) -> bool {
        self.net.last_failure(peer).is_none()
    }
}
