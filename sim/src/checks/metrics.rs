//! A peer has the last metrics of each member, and of no other peer, and raises an alert
//! exactly when one is not renewed in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::{Event, Instant, Message, PING, PeerId, StoreOp};

use super::received::{Heard, member};
use super::{Found, Step};
use crate::options::Options;

/// Metrics that peers measure here; the core adds others.
const MEASURED: [&str; 3] = [PING, "freespace", "tag:group"];

/// The expiries about which each process has been found to have raised an alert.
#[derive(Debug)]
pub(super) struct Metrics {
    missed: Vec<BTreeMap<(PeerId, String), Instant>>,
    /// Longest time between a metric's expiry and its alert.
    longest: Duration,
}

impl Metrics {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        Self {
            missed: vec![BTreeMap::new(); size],
            longest: Duration::from_millis(options.metrics_ms.max(1000)),
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.missed[me].clear();
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Found<'_>) {
        if step.events.contains(&Event::TimedOut) {
            of_alerts(step, heard, found);
            self.of_silence(step, heard, found);
        } else if concerns(step) {
            of_samples(step, heard, found);
        }
    }

    /// Each metric that is not renewed in time raises an alert, every time that this happens.
    fn of_silence(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Found<'_>) {
        let Some(node) = &step.peer().node else { return };
        let process = heard.of(step.me);
        for member in step.peer().disk.written.members.peers.values() {
            for name in MEASURED {
                let [sample] = process.samples(&member.peer, name) else {
                    continue;
                };
                let key = (member.peer.clone(), name.to_owned());
                let expires = sample.expires();
                let is_due = sample.is_certain() && step.now.mono.since(expires) > self.longest;
                if !is_due || self.missed[step.me].get(&key) == Some(&expires) {
                    continue;
                }
                let is_it = |alert: &cluster_core::Alert| {
                    alert.peer == member.peer
                        && alert.metric.metric == sample.metric
                        && alert.metric.expires == expires
                };
                found.require(node.view().alerts().any(is_it), "metrics", || {
                    format!("raises no alert about {:?} of {}", sample.metric, member.peer)
                });
                self.missed[step.me].insert(key, expires);
            }
        }
    }
}

fn of_samples(step: &Step<'_>, heard: &Heard, found: &mut Found<'_>) {
    let Some(node) = &step.peer().node else { return };
    let (view, process) = (node.view(), heard.of(step.me));
    let members = &step.peer().disk.written.members;
    for name in [PING, "freespace"] {
        let known: BTreeSet<&PeerId> = view.metrics(step.now, name).map(|(peer, _)| peer).collect();
        for (peer, received) in view.metrics(step.now, name) {
            let is_own = *peer == step.peer().id;
            found.require(is_own || member(members, peer).is_some(), "metrics", || {
                format!("keeps {name:?} of {peer}, who is no member")
            });
            let samples = process.samples(peer, name);
            let told = samples
                .iter()
                .any(|sample| sample.metric == received.metric && sample.expires() == received.expires);
            found.require(told, "metrics", || {
                format!("takes {received:?} for the {name:?} of {peer}, which said {samples:?}")
            });
        }
        for member in members.peers.values() {
            let counts = process.can_take(step.now, &member.peer, &[name.to_owned()]);
            let is_old = process.before.contains_key(&member.peer);
            found.require(
                !counts || !is_old || known.contains(&member.peer),
                "metrics",
                || format!("has forgotten the {name:?} of {}", member.peer),
            );
        }
    }
}

fn of_alerts(step: &Step<'_>, heard: &Heard, found: &mut Found<'_>) {
    let Some(node) = &step.peer().node else { return };
    let process = heard.of(step.me);
    let now = step.now;
    for alert in node
        .view()
        .alerts()
        .take_while(|alert| alert.triggered_at == now.wall)
    {
        let name = alert.metric.metric.name.as_str();
        if !MEASURED.contains(&name) {
            continue;
        }
        let samples = process.samples(&alert.peer, name);
        let over = samples
            .iter()
            .any(|sample| sample.expires() <= now.mono || sample.at == now.mono);
        found.require(over, "metrics", || {
            format!("raises {alert:?}, it was told {samples:?}")
        });
        let is_same = |other: &&cluster_core::Alert| {
            other.peer == alert.peer && other.metric == alert.metric && other.triggered_at != now.wall
        };
        let before = node.view().alerts().find(is_same);
        found.require(before.is_none(), "metrics", || format!("raises {alert:?} again"));
    }
}

fn concerns(step: &Step<'_>) -> bool {
    let told = step.events.iter().any(|event| match event {
        Event::Received { envelope, .. } => matches!(envelope.message, Message::Metrics(_)),
        Event::Measured { .. } => true,
        Event::IpfsCompared { .. }
        | Event::IpfsFinished { .. }
        | Event::IpfsLacks { .. }
        | Event::IpfsProgressed { .. }
        | Event::Persisted { .. }
        | Event::Requested { .. }
        | Event::SnapshotReceived { .. }
        | Event::SnapshotSent { .. }
        | Event::TimedOut
        | Event::Unreachable { .. } => false,
    });
    told || step
        .writes()
        .any(|op| matches!(op, StoreOp::SetMembers { .. } | StoreOp::InstallSnapshot { .. }))
}
