//! A peer has the last metrics of each member, and of no other peer, and raises an alert
//! exactly when one is not renewed in time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::{COPIES, Effect, Event, Instant, Message, PING, PeerId};

use super::received::{CLOCK, Heard, changes_members, member};
use super::{Findings, Step};
use crate::options::Options;

/// Metrics that peers measure here; the core adds others.
const MEASURED: [&str; 3] = [PING, "freespace", "tag:group"];

/// Interval of checks of all members; between them, only members that a step concerns are checked.
const LOOK: Duration = Duration::from_millis(500);

/// The expiries about which each process has been found to have raised an alert.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Time of the last check of all members: of alerts, and of samples.
    looked: Vec<[Option<Instant>; 2]>,
    missed: Vec<BTreeMap<(PeerId, String), Instant>>,
    owed: Vec<Owed>,
    /// The last step of each process in which it may have raised alerts.
    alerted: Vec<Option<Instant>>,
    /// Maximum time between a metric's expiry and its alert.
    longest: Duration,
}

/// Peers to which a process must send its metrics, and since when: those whose first metrics came, and those
/// that were unreachable.
#[derive(Debug, Clone, Default)]
struct Owed {
    peers: BTreeMap<PeerId, Instant>,
    /// Peers whose metrics have arrived.
    known: BTreeSet<PeerId>,
    /// Its own first metrics.
    measured: Option<Instant>,
}

impl Owed {
    fn after_step(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        let (now, process) = (step.now.mono, heard.of(step.me));
        let members = &step.peer().disk.written.members;
        for event in step.events {
            match event {
                Event::Received { from, envelope } if matches!(envelope.message, Message::Metrics(_)) => {
                    let counts = !process.samples(from, PING).is_empty();
                    if counts && self.known.insert(from.clone()) {
                        self.peers.entry(from.clone()).or_insert(now);
                    }
                }
                // They go to all members.
                Event::Measured { .. } => {
                    self.peers.clear();
                    self.measured.get_or_insert(now);
                }
                Event::Unreachable { peer } if *peer != step.peer().id => {
                    self.peers.entry(peer.clone()).or_insert(now + RESEND_PAUSE);
                }
                _ => {}
            }
        }
        for effect in step.effects {
            if let Effect::Send { to, envelope } = effect
                && matches!(envelope.message, Message::Metrics(_))
            {
                self.peers.remove(to);
            }
        }
        if changes_members(step) {
            self.known.retain(|peer| member(members, peer).is_some());
            self.peers.clear();
            // Its own metrics were dropped with its membership.
            self.measured = None;
        }
        // Without its own metrics the process retries after a pause.
        let can = self.measured.is_some_and(|first| now.since(first) > RESEND_PAUSE);
        if can && step.events.contains(&Event::TimedOut) {
            let due = |at: Instant| now.since(at) > RESEND_PAUSE;
            let late = self.peers.iter().find(|(_, at)| due(**at));
            found.require(late.is_none(), "metrics", || {
                format!("does not send its metrics to {late:?}")
            });
        }
    }
}

/// A clock that deviates from all others by more than this raises an alert.
const SKEW_MAX: Duration = Duration::from_secs(70);

/// Maximum number of alerts that are kept.
const ALERTS_MAX: usize = 1000;

/// The pause before metrics are sent again to a peer that was unreachable.
const RESEND_PAUSE: Duration = Duration::from_millis(500);

/// Checks that a clock far ahead of those of all voters, or far behind, is listed as wrong. Uses only
/// readings that certainly count; with two others, the median is one of these.
fn of_clocks(step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
    let Some(node) = &step.peer().node else { return };
    let (now, process) = (step.now.mono, heard.of(step.me));
    let members = &step.peer().disk.written.members;
    let reading = |peer: &PeerId| match process.samples(peer, CLOCK) {
        _ if *peer == step.peer().id => Some(i128::from(step.now.wall.0)),
        [sample] if sample.is_certain() && sample.expires() > now => {
            let age = now.since(sample.at).as_nanos();
            Some(i128::from(sample.metric.weight) + i128::try_from(age).ok()?)
        }
        _ => None,
    };
    let voters: Vec<&PeerId> = members.voters.iter().filter_map(|id| members.peer(*id)).collect();
    for peer in members.peers.values().map(|member| &member.peer) {
        let Some(own) = reading(peer) else { continue };
        let others: Option<Vec<i128>> = voters
            .iter()
            .filter(|other| **other != peer)
            .map(|other| reading(other))
            .collect();
        let limit = i128::try_from(SKEW_MAX.as_nanos()).unwrap_or(i128::MAX);
        let is_far = |others: &Vec<i128>| {
            others.iter().all(|other| other - own > limit) || others.iter().all(|other| own - other > limit)
        };
        let is_wrong = others.is_some_and(|others| others.len() >= 2 && is_far(&others));
        let is_listed = node.view().skewed_clocks().any(|skewed| skewed == peer);
        found.require(!is_wrong || is_listed, "metrics", || {
            format!("takes the clock of {peer} for right")
        });
    }
    let alerts = node.view().alerts().count();
    found.require(alerts <= ALERTS_MAX, "bounds", || {
        format!("keeps {alerts} alerts")
    });
}

impl Metrics {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        Self {
            looked: vec![[None; 2]; size],
            missed: vec![BTreeMap::new(); size],
            owed: vec![Owed::default(); size],
            alerted: vec![None; size],
            longest: Duration::from_millis(options.metrics_ms.max(1000)),
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.looked[me] = [None; 2];
        self.missed[me].clear();
        self.owed[me] = Owed::default();
        self.alerted[me] = None;
    }

    /// Returns whether all members are due to be checked, and if so counts that as done.
    fn is_time(&mut self, step: &Step<'_>, kind: usize) -> bool {
        let now = step.now.mono;
        let last = &mut self.looked[step.me][kind];
        let is_time = last.is_none_or(|last| now.since(last) >= LOOK);
        if is_time {
            *last = Some(now);
        }
        is_time
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        self.owed[step.me].after_step(step, heard, found);
        if step.events.contains(&Event::TimedOut) {
            // Another step at the same moment has raised alerts that it knew the reason for (seed 101230).
            let now = step.now.mono;
            if self.alerted[step.me].replace(now) != Some(now) {
                of_alerts(step, heard, found);
            }
            if self.is_time(step, 0) {
                self.of_silence(step, heard, found);
                of_clocks(step, heard, found);
            }
        } else {
            let senders = senders(step);
            let everybody = changes_members(step) || !senders.is_empty() && self.is_time(step, 1);
            if everybody || !senders.is_empty() {
                of_samples(step, heard, |peer| everybody || senders.contains(peer), found);
            }
        }
    }

    /// Checks that each metric that is not renewed in time raises an alert, every time.
    fn of_silence(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        let Some(node) = &step.peer().node else { return };
        let process = heard.of(step.me);
        for member in step.peer().disk.written.members.peers.values() {
            for name in MEASURED {
                let [sample] = process.samples(&member.peer, name) else {
                    continue;
                };
                let expires = sample.expires();
                if !sample.is_certain() || step.now.mono.since(expires) <= self.longest {
                    continue;
                }
                let key = (member.peer.clone(), name.to_owned());
                if self.missed[step.me].get(&key) == Some(&expires) {
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

fn of_samples(step: &Step<'_>, heard: &Heard, concerns: impl Fn(&PeerId) -> bool, found: &mut Findings<'_>) {
    let Some(node) = &step.peer().node else { return };
    let (view, process) = (node.view(), heard.of(step.me));
    let members = &step.peer().disk.written.members;
    for name in [PING, "freespace", COPIES] {
        let known: BTreeSet<&PeerId> = view.metrics(step.now, name).map(|(peer, _)| peer).collect();
        for (peer, received) in view.metrics(step.now, name).filter(|(peer, _)| concerns(peer)) {
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
        for member in members.peers.values().filter(|member| concerns(&member.peer)) {
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

fn of_alerts(step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
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

/// Returns the peers whose metrics arrived in a step.
fn senders<'a>(step: &Step<'a>) -> BTreeSet<&'a PeerId> {
    let sender = |event: &'a Event| match event {
        Event::Received { from, envelope } => matches!(envelope.message, Message::Metrics(_)).then_some(from),
        Event::Measured { .. } => Some(&step.peer().id),
        _ => None,
    };
    step.events.iter().filter_map(sender).collect()
}
