//! Summary of the cluster's health: each member reports its own problems, and this peer adds those of members
//! that cannot.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_api as api;
use cluster_core::{Membership, PING, PeerId, View};
use futures::StreamExt;

use super::peers::{KnownMembers, ask_each};
use super::rpc::{self, Answer, Call, OwnProblem};
use super::{Cluster, Error};
use crate::driver::{FULL, percent};
use crate::metrics::{PinCounts, peer_name, pin_counts};

/// Log entries that a peer may lack before it counts as behind: those that arrive while it is asked.
const LAG_MAX: u64 = 1024;

/// Age of the oldest queued pin from which the queue counts as stuck.
const QUEUED_MAX: Duration = Duration::from_secs(3600);

/// Problems that a peer reports.
const PROBLEMS_MAX: usize = 32;

/// Returns the reason why the consensus of a peer does not serve, if there is one.
pub(crate) fn consensus_problem(view: &View<'_>) -> Option<String> {
    match view.membership() {
        Membership::Joining => return Some("this peer has not joined its cluster yet".to_owned()),
        Membership::Removed => return Some("this peer was removed from its cluster".to_owned()),
        Membership::Learner | Membership::Voter => {}
    }
    if view.leader().is_none() {
        let why = "no leader: a majority of the cluster's voters must be running and reachable";
        return Some(why.to_owned());
    }
    let (committed, applied) = (view.committed(), view.applied());
    let lag = committed.saturating_sub(applied.index);
    let caught_up = applied.term == view.term() && lag <= LAG_MAX;
    (!caught_up).then(|| {
        format!(
            "catching up with the leader: at entry {} of {committed}",
            applied.index
        )
    })
}

impl Cluster {
    /// Returns what is wrong in the cluster, as far as the members that answer know.
    ///
    /// # Errors
    /// This peer is shutting down.
    pub async fn health_summary(&self) -> Result<api::HealthSummary, Error> {
        let (known, alerts) = (self.known_peers().await?, self.expired_alerts().await?);
        let mut found = self.problems_of_all(&known).await?;
        found.extend(self.expired_metrics(&alerts).await?);
        let mut problems: Vec<api::Problem> = found
            .into_iter()
            .map(|(peer, problem)| api::Problem {
                peername: name_of(&peer, &known, &alerts),
                peer: peer.to_string(),
                ..problem.into()
            })
            .collect();
        if let Some(counts) = pin_counts().filter(|counts| counts.under_replicated > 0) {
            problems.push(OwnProblem::error(missing_copies(counts.under_replicated)).into());
        }
        problems.sort();
        problems.dedup();
        Ok(api::HealthSummary {
            healthy: problems.is_empty(),
            peers: known.peers.len() as u64,
            problems,
        })
    }

    /// Asks all members for their problems, and reports for those that do not answer.
    async fn problems_of_all(&self, known: &KnownMembers) -> Result<Vec<(PeerId, OwnProblem)>, Error> {
        let living = self.living().await?;
        let mut answers = ask_each(known.peers.keys(), |peer| self.problems_of(peer));
        let mut all = Vec::new();
        while let Some((peer, answer)) = answers.next().await {
            let found = match answer {
                Ok(found) => found,
                Err(_) if !living.contains(peer) => {
                    let why = "down: it sends no metrics. Start it, or remove it if it is gone for good";
                    vec![OwnProblem::error(why)]
                }
                Err(error) => vec![OwnProblem::error(format!(
                    "it is up, but does not report its problems: {error}"
                ))],
            };
            all.extend(found.into_iter().map(|problem| (peer.clone(), problem)));
        }
        Ok(all)
    }

    /// Returns the alerts of members that are up.
    async fn expired_metrics(&self, alerts: &[api::Alert]) -> Result<Vec<(PeerId, OwnProblem)>, Error> {
        let living = self.living().await?;
        let expired = alerts.iter().filter_map(|alert| {
            let peer = alert.metric.peer.parse().ok()?;
            let name = &alert.metric.name;
            let why = format!("metric {name:?} has expired: it is not measured any more");
            living.contains(&peer).then(|| (peer, OwnProblem::warning(why)))
        });
        Ok(expired.collect())
    }

    async fn living(&self) -> Result<BTreeSet<PeerId>, Error> {
        self.view(|view, now| {
            let pings = view.metrics(now, PING).filter(|(_, ping)| ping.metric.valid);
            pings.map(|(peer, _)| peer.clone()).collect()
        })
        .await
    }

    async fn problems_of(&self, peer: &PeerId) -> Result<Vec<OwnProblem>, Error> {
        if *peer == self.inner.config.peer {
            return self.own_problems().await;
        }
        match self.call_once(peer, &Call::Problems).await? {
            Some(Answer::Problems(mut found)) => {
                found.truncate(PROBLEMS_MAX);
                Ok(found)
            }
            Some(_) | None => Err(rpc::unexpected(peer)),
        }
    }

    /// Returns the problems of this peer.
    pub(super) async fn own_problems(&self) -> Result<Vec<OwnProblem>, Error> {
        let mut found = Vec::new();
        let (consensus, blocked) = self
            .view(|view, _| (consensus_problem(&view), view.blocked().pins))
            .await?;
        found.extend(consensus.map(OwnProblem::error));
        let ipfs = self.ipfs_identity().await;
        if ipfs.error.is_empty() {
            let stat = self.own_repository(false).await;
            found.extend(stat.ok().and_then(|stat| {
                let high_water = self.inner.config.high_water;
                fullness(stat.size, stat.storage_max, high_water)
            }));
        } else {
            let why = format!("the IPFS node does not answer: {}", ipfs.error);
            found.push(OwnProblem::error(why));
        }
        if blocked > 0 {
            let why =
                format!("the drain is blocked: {blocked} pins cannot move, because too few peers have room");
            found.push(OwnProblem::warning(why));
        }
        found.extend(self.scrub_alert().map(OwnProblem::error));
        found.extend(pin_counts().iter().flat_map(failed_pins));
        Ok(found)
    }
}

impl OwnProblem {
    fn error(text: impl Into<String>) -> Self {
        Self {
            is_error: true,
            text: text.into(),
        }
    }

    fn warning(text: impl Into<String>) -> Self {
        Self {
            is_error: false,
            text: text.into(),
        }
    }
}

impl From<OwnProblem> for api::Problem {
    fn from(problem: OwnProblem) -> Self {
        Self {
            severity: if problem.is_error { "error" } else { "warning" }.to_owned(),
            problem: problem.text,
            ..Self::default()
        }
    }
}

/// Returns the name of a peer. The last ping of a peer that is down has it.
fn name_of(peer: &PeerId, known: &KnownMembers, alerts: &[api::Alert]) -> String {
    let id = peer.to_string();
    // Without a ping that counts, the id stands for the name.
    let name = known.peers.get(peer).map(|known| known.peername.clone());
    let last = || {
        let is_last = |alert: &&api::Alert| alert.metric.peer == id && alert.metric.name == PING;
        let alert = alerts.iter().find(is_last);
        alert.map(|alert| peer_name(&alert.metric.value))
    };
    name.filter(|name| *name != id).or_else(last).unwrap_or_default()
}

fn missing_copies(pins: u64) -> String {
    let (have, lists) = (
        plural(pins, "pin has", "pins have"),
        "\"pin ls --under-replicated\" lists them",
    );
    format!(
        "{have} fewer copies at living peers than the minimum. They are repaired after the grace period, if \
         enough peers have room: {lists}"
    )
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// Returns the problem of a repository of which at least the share `high_water` is used.
fn fullness(size: u64, max: u64, high_water: u64) -> Option<OwnProblem> {
    let percent = percent(size, max);
    if percent < high_water {
        return None;
    }
    let why = format!(
        "the repository is {percent} % full: {size} of {max} bytes. Unpin content and collect garbage, or \
         raise its maximum"
    );
    Some(match percent {
        FULL.. => OwnProblem::error(why),
        _ => OwnProblem::warning(why),
    })
}

/// Returns the problems of the pins of a peer.
fn failed_pins(counts: &PinCounts) -> Vec<OwnProblem> {
    let mut found = Vec::new();
    let minutes = |age: Duration| age.as_secs() / 60;
    if counts.pin_error > 0 {
        found.push(OwnProblem::error(format!(
            "{} failed, the oldest was requested {} minutes ago. They are retried: \"status --filter \
             pin_error\" shows the reasons",
            plural(counts.pin_error, "pin", "pins"),
            minutes(counts.oldest_failing)
        )));
    }
    if counts.lost > 0 {
        found.push(OwnProblem::error(format!(
            "{} missing at the IPFS node, and pinned again: \"status --filter unexpectedly_unpinned\" shows \
             them",
            plural(counts.lost, "pin is", "pins are")
        )));
    }
    if counts.unpin_error > 0 {
        found.push(OwnProblem::warning(format!(
            "{} failed. They are retried: \"status --filter unpin_error\" shows the reasons",
            plural(counts.unpin_error, "unpin", "unpins")
        )));
    }
    if counts.pin_queued > 0 && counts.oldest_queued >= QUEUED_MAX {
        found.push(OwnProblem::warning(format!(
            "{} queued, the oldest for {} minutes: the IPFS node is slow, or content cannot be found",
            plural(counts.pin_queued, "pin is", "pins are"),
            minutes(counts.oldest_queued)
        )));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_counts_as_full_by_its_share() {
        assert_eq!(fullness(89, 100, 90), None);
        assert_eq!(fullness(0, 0, 90), None);
        assert_eq!(fullness(5, u64::MAX, 90), None, "without a limit");
        assert!(!fullness(90, 100, 90).unwrap().is_error);
        assert!(fullness(95, 100, 90).unwrap().is_error);
        assert_eq!(fullness(90, 100, 91), None, "as configured");
    }

    #[test]
    fn failed_pins_are_errors_and_a_stuck_queue_is_a_warning() {
        let counts = PinCounts {
            pin_error: 1,
            pin_queued: 7,
            oldest_queued: QUEUED_MAX,
            oldest_failing: Duration::from_secs(120),
            ..PinCounts::default()
        };
        let found = failed_pins(&counts);
        assert!(
            found[0].is_error
                && found[0]
                    .text
                    .starts_with("1 pin failed, the oldest was requested 2 minutes")
        );
        assert!(
            !found[1].is_error
                && found[1]
                    .text
                    .starts_with("7 pins are queued, the oldest for 60 minutes")
        );
        assert_eq!(found.len(), 2);
        let fresh = PinCounts {
            pin_queued: 7,
            ..PinCounts::default()
        };
        assert_eq!(failed_pins(&fresh), []);
    }
}
