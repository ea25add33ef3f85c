//! Metrics of all members, each with a time to live: liveness, free space, clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::allocator::Candidates;
use crate::balance::Load;
use crate::config::MonitorConfig;
use crate::ids::{Index, PeerId};
use crate::metric::{CAPACITY, CLOCK, COPIES, FREE_SPACE, Metric, PING, counted_at};
use crate::planted::planted;
use crate::time::{Instant, Now, Timestamp};

/// A metric sample with its time of receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The sample.
    pub metric: Metric,
    /// Time of receipt, by this peer's wall clock.
    pub at: Timestamp,
    /// Expiry, by this peer's monotonic clock.
    pub expires: Instant,
}

/// A metric that expired without being renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Peer that the metric is about.
    pub peer: PeerId,
    /// The last sample.
    pub metric: Received,
    /// Time at which the expiry was noticed.
    pub triggered_at: Timestamp,
}

/// Output of the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Measure this peer's metrics.
    Measure,
    /// Send this peer's metrics to another one.
    SendMetrics { to: PeerId, metrics: Vec<Metric> },
}

/// Maximum number of alerts that are kept, newest first; as in the Go peer.
const ALERTS_MAX: usize = 1000;

/// Maximum number of metrics of one peer, so that a malicious one cannot exhaust the memory.
const METRICS_MAX: usize = 64;

/// Maximum deviation of a peer's clock from the cluster time that raises no alert: far above message delays
/// and the drift between two synchronisations.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// Time after which metrics are sent again to a peer that was unreachable.
const RESEND_PAUSE: Duration = Duration::from_millis(500);

/// Metrics and alerts of all members.
pub(crate) struct Monitor {
    me: PeerId,
    config: MonitorConfig,
    metrics: BTreeMap<PeerId, BTreeMap<String, Received>>,
    alerts: VecDeque<Alert>,
    alerted: BTreeSet<(PeerId, String)>,
    /// Peers with a deviating clock.
    skewed: BTreeSet<PeerId>,
    unsent: BTreeSet<PeerId>,
    next_measure: Instant,
    next_check: Instant,
    next_send: Option<Instant>,
    started: Instant,
}

impl Monitor {
    pub(crate) fn new(me: PeerId, config: &MonitorConfig, now: Now) -> Self {
        Self {
            me,
            config: config.clone(),
            metrics: BTreeMap::new(),
            alerts: VecDeque::new(),
            alerted: BTreeSet::new(),
            skewed: BTreeSet::new(),
            unsent: BTreeSet::new(),
            next_measure: now.mono,
            next_check: now.mono + config.interval,
            next_send: None,
            started: now.mono,
        }
    }

    /// Records this peer's own metrics, and sends them to all other members.
    pub(crate) fn measured<'a>(
        &mut self,
        now: Now,
        mut metrics: Vec<Metric>,
        members: impl Iterator<Item = &'a PeerId>,
        out: &mut Vec<Output>,
    ) {
        metrics.retain(|metric| metric.name != CLOCK);
        metrics.push(self.clock(now));
        for peer in members {
            if *peer != self.me {
                out.push(Output::SendMetrics {
                    to: peer.clone(),
                    metrics: metrics.clone(),
                });
            }
        }
        self.unsent.clear();
        self.store(now, self.me.clone(), metrics);
    }

    /// Records a member's metrics. Sends this peer's own at once if these are the first.
    pub(crate) fn received(&mut self, now: Now, from: PeerId, metrics: Vec<Metric>) {
        if !self.metrics.contains_key(&from) && !planted!(FirstMetricsUnanswered) {
            self.schedule_send(now, from.clone(), Duration::ZERO);
        }
        self.store(now, from, metrics);
    }

    fn store(&mut self, now: Now, from: PeerId, metrics: Vec<Metric>) {
        for metric in metrics.into_iter().take(METRICS_MAX) {
            if !planted!(AlertOnce) {
                self.alerted.remove(&(from.clone(), metric.name.clone()));
            }
            let known = self.metrics.entry(from.clone()).or_default();
            if known.len() < METRICS_MAX || known.contains_key(&metric.name) {
                let received = Received {
                    at: now.wall,
                    expires: if planted!(TtlIgnored) {
                        Instant(u64::MAX)
                    } else {
                        now.mono + metric.ttl
                    },
                    metric,
                };
                known.insert(received.metric.name.clone(), received);
            }
        }
    }

    /// Schedules a peer that was unreachable to be sent this peer's metrics again.
    pub(crate) fn unreachable(&mut self, now: Now, peer: PeerId) {
        if !planted!(MetricsNotResent) {
            self.schedule_send(now, peer, RESEND_PAUSE);
        }
    }

    fn schedule_send(&mut self, now: Now, peer: PeerId, pause: Duration) {
        if peer != self.me {
            self.unsent.insert(peer);
            let at = now.mono + pause;
            self.next_send = Some(self.next_send.map_or(at, |next| next.min(at)));
        }
    }

    /// Drops the metrics of peers that are not members any more.
    pub(crate) fn members_changed(&mut self, members: &BTreeSet<PeerId>) {
        self.metrics
            .retain(|peer, _| members.contains(peer) || planted!(MetricsKept));
        self.alerted.retain(|(peer, _)| members.contains(peer));
        self.skewed.retain(|peer| members.contains(peer));
        self.unsent.retain(|peer| members.contains(peer));
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let next = self.next_measure.min(self.next_check);
        self.next_send.map_or(next, |at| at.min(next))
    }

    pub(crate) fn handle_timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono >= self.next_measure {
            self.next_measure = now.mono + self.config.interval;
            out.push(Output::Measure);
        }
        if self.next_send.is_some_and(|at| now.mono >= at) {
            self.next_send = None;
            let own: Vec<Metric> = self.metrics.get(&self.me).map_or(Vec::new(), |own| {
                let kept = own.values().filter(|received| received.metric.name != CLOCK);
                let kept = kept.map(|received| received.metric.clone());
                kept.chain([self.clock(now)]).collect()
            });
            if own.is_empty() {
                self.next_send = Some(now.mono + RESEND_PAUSE);
            } else {
                let unsent = std::mem::take(&mut self.unsent);
                out.extend(unsent.into_iter().map(|to| Output::SendMetrics {
                    to,
                    metrics: own.clone(),
                }));
            }
        }
        if now.mono >= self.next_check {
            self.next_check = now.mono + self.config.interval.min(Duration::from_secs(1));
            self.raise_alerts(now);
        }
    }

    fn raise_alerts(&mut self, now: Now) {
        for (peer, metrics) in &self.metrics {
            for (name, received) in metrics {
                let is_over = name != CLOCK && received.expires <= now.mono;
                let is_news = is_over && self.alerted.insert((peer.clone(), name.clone()));
                if is_news || is_over && planted!(AlertsRepeated) {
                    let alert = Alert {
                        peer: peer.clone(),
                        metric: received.clone(),
                        triggered_at: now.wall,
                    };
                    self.alerts.push_front(alert);
                }
            }
        }
        if !planted!(AlertsUnlimited) {
            self.alerts.truncate(ALERTS_MAX);
        }
    }

    fn clock(&self, now: Now) -> Metric {
        Metric {
            name: CLOCK.to_owned(),
            value: String::new(),
            weight: i64::try_from(now.wall.0).unwrap_or(i64::MAX),
            partitionable: false,
            ttl: self.config.interval * 2,
            valid: true,
        }
    }

    /// Returns a peer's wall clock as of `now`, if known. It is behind by the delay of the message.
    fn reading(&self, now: Now, peer: &PeerId) -> Option<Timestamp> {
        if *peer == self.me {
            return Some(now.wall);
        }
        let received = self.metrics.get(peer)?.get(CLOCK)?;
        if !counts(received, now.mono) {
            return None;
        }
        let age = received
            .metric
            .ttl
            .saturating_sub(received.expires.since(now.mono));
        Some(Timestamp(u64::try_from(received.metric.weight).unwrap_or(0)) + age)
    }

    /// Returns the cluster time: the median of the voters' clocks, or the earlier of the two in the middle.
    /// `None` unless a majority of the voters' clocks is known. A minority of wrong clocks, possibly this
    /// peer's own, cannot move it out of the range of the correct ones.
    pub(crate) fn cluster_time<'a>(
        &self,
        now: Now,
        voters: impl Iterator<Item = &'a PeerId>,
    ) -> Option<Timestamp> {
        if planted!(OwnClockTrusted) {
            return Some(now.wall);
        }
        let (mut count, mut readings) = (0, Vec::new());
        for voter in voters {
            count += 1;
            readings.extend(self.reading(now, voter));
        }
        readings.sort();
        let heard = readings.len() * 2 > count || planted!(ClockMajorityIgnored) && !readings.is_empty();
        let middle = |len: usize| if planted!(ClockMedianHigh) { len } else { len - 1 };
        heard.then(|| readings[middle(readings.len()) / 2])
    }

    /// Raises an alert for each peer whose clock deviates too far from the cluster time, once until it is
    /// right again.
    pub(crate) fn check_clocks(&mut self, now: Now, time: Timestamp) {
        let peers: Vec<PeerId> = self.metrics.keys().cloned().collect();
        for peer in peers {
            let Some(reading) = self.reading(now, &peer) else {
                continue;
            };
            let skew = Duration::from_nanos(reading.0.abs_diff(time.0));
            if skew <= CLOCK_SKEW_MAX || planted!(SkewUnnoticed) {
                self.skewed.remove(&peer);
                continue;
            }
            if self.skewed.insert(peer.clone()) {
                let side = if reading > time { "ahead of" } else { "behind" };
                let mut metric = self.clock(now);
                metric.value = format!("{} s {side} the cluster's clock", skew.as_secs());
                let expires = now.mono + metric.ttl;
                let metric = Received {
                    metric,
                    at: now.wall,
                    expires,
                };
                self.alerts.push_front(Alert {
                    peer,
                    metric,
                    triggered_at: now.wall,
                });
            }
        }
        self.alerts.truncate(ALERTS_MAX);
    }

    /// Iterates over the peers with a deviating clock.
    pub(crate) fn skewed(&self) -> impl Iterator<Item = &PeerId> {
        self.skewed.iter()
    }

    /// Iterates over each peer's latest sample of a metric, unless it has expired at `now`. It may be
    /// [invalid](Metric::valid).
    pub(crate) fn latest(&self, now: Instant, name: &str) -> impl Iterator<Item = (&PeerId, &Received)> {
        self.metrics.iter().filter_map(move |(peer, metrics)| {
            metrics
                .get(name)
                .filter(|received| received.expires > now)
                .map(|received| (peer, received))
        })
    }

    /// Returns the names of all known metrics.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.metrics
            .values()
            .flat_map(BTreeMap::keys)
            .map(String::as_str)
            .filter(|name| *name != CLOCK)
            .collect()
    }

    /// Iterates over the alerts, newest first.
    pub(crate) fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter()
    }

    /// Returns the peers that can be allocated to: those with valid, unexpired samples of `ping` and of each
    /// of these metrics.
    pub(crate) fn candidates(&self, now: Instant, allocate_by: &[String]) -> Candidates {
        let living = |metrics: &BTreeMap<String, Received>, name: &str| -> Option<Metric> {
            metrics
                .get(name)
                .filter(|received| counts(received, now) || planted!(DeadAllocated))
                .map(|received| received.metric.clone())
        };
        self.metrics
            .iter()
            .filter(|(_, metrics)| living(metrics, PING).is_some())
            .filter_map(|(peer, metrics)| {
                let values: Option<Vec<Metric>> =
                    allocate_by.iter().map(|name| living(metrics, name)).collect();
                values.map(|values| (peer.clone(), values))
            })
            .collect()
    }

    /// Returns the copies and the capacity of each live peer that has sent them. None of them takes any yet.
    pub(crate) fn loads(&self, now: Instant) -> BTreeMap<PeerId, Load> {
        let valid = |name| {
            self.latest(now, name)
                .filter(|(_, received)| received.metric.valid)
        };
        let weight = |received: &Received| u64::try_from(received.metric.weight).unwrap_or(0);
        let capacities: BTreeMap<&PeerId, u64> = valid(CAPACITY)
            .map(|(peer, received)| (peer, weight(received)))
            .collect();
        let living = valid(COPIES).filter(|(peer, _)| self.is_alive(now, peer));
        living
            .map(|(peer, copies)| {
                let load = Load {
                    copies: weight(copies),
                    capacity: capacities.get(peer).copied(),
                    takes: false,
                };
                (peer.clone(), load)
            })
            .collect()
    }

    /// Returns the free space of each live peer, in bytes, whether new pins can be allocated to it or not.
    pub(crate) fn free_space(&self, now: Instant) -> BTreeMap<&PeerId, i64> {
        let living = self
            .latest(now, FREE_SPACE)
            .filter(|(peer, _)| self.is_alive(now, peer));
        living.map(|(peer, free)| (peer, free.metric.weight)).collect()
    }

    /// Returns the log index that this peer's count of its copies includes; 0 if there is none.
    pub(crate) fn counted(&self) -> Index {
        let copies = self.metrics.get(&self.me).and_then(|own| own.get(COPIES));
        copies
            .and_then(|copies| counted_at(&copies.metric.value))
            .unwrap_or(0)
    }

    /// Returns the values of the partitioning metrics among these, in their order, of each live peer.
    pub(crate) fn zones(&self, now: Instant, allocate_by: &[String]) -> BTreeMap<PeerId, Vec<String>> {
        let living = self.metrics.iter().filter(|(peer, _)| self.is_alive(now, peer));
        living
            .map(|(peer, metrics)| {
                let known = allocate_by.iter().filter_map(|name| metrics.get(name));
                let divides = known.filter(|known| known.metric.partitionable && counts(known, now));
                (
                    peer.clone(),
                    divides.map(|known| known.metric.value.clone()).collect(),
                )
            })
            .collect()
    }

    /// Returns the peers with a valid, unexpired `ping`.
    pub(crate) fn alive(&self, now: Instant) -> BTreeSet<PeerId> {
        let pings = self
            .latest(now, PING)
            .filter(|(_, received)| received.metric.valid);
        pings.map(|(peer, _)| peer.clone()).collect()
    }

    /// Returns whether a peer has a valid, unexpired `ping`.
    pub(crate) fn is_alive(&self, now: Instant, peer: &PeerId) -> bool {
        let ping = self.metrics.get(peer).and_then(|metrics| metrics.get(PING));
        ping.is_some_and(|received| counts(received, now))
    }

    /// Returns the reason, for display, of each live peer with an invalid sample of one of these metrics.
    pub(crate) fn exclusions(&self, now: Instant, allocate_by: &[String]) -> Vec<String> {
        let mut reasons = Vec::new();
        for peer in self.alive(now) {
            let known = &self.metrics[&peer];
            let invalid = |name: &&String| {
                let metric = known.get(*name);
                metric.is_some_and(|received| received.expires > now && !received.metric.valid)
            };
            reasons.extend(allocate_by.iter().find(invalid).map(|name| match name.as_str() {
                FREE_SPACE => {
                    format!("{peer} is full, or its IPFS node does not say how much free space it has")
                }
                other => format!("{peer} has no valid value of {other}"),
            }));
        }
        reasons
    }

    /// Returns whether first metrics of a member may still arrive: some are unknown, and this process has
    /// just started.
    pub(crate) fn awaits_first_metrics<'a>(
        &self,
        now: Now,
        mut members: impl Iterator<Item = &'a PeerId>,
    ) -> bool {
        now.mono.since(self.started) < self.config.interval * 2
            && members.any(|peer| !self.metrics.contains_key(peer))
    }

    /// Returns how long a peer's `ping` has been expired; zero if it has not. A peer without one, or with an
    /// older one, counts as expired only two intervals after `since`.
    pub(crate) fn silence(&self, now: Now, peer: &PeerId, since: Instant) -> Duration {
        let expires = self
            .metrics
            .get(peer)
            .and_then(|metrics| metrics.get(PING))
            .map(|ping| {
                if planted!(SilenceFromMessage) {
                    Instant(
                        ping.expires
                            .0
                            .saturating_sub(u64::try_from(ping.metric.ttl.as_nanos()).unwrap_or(0)),
                    )
                } else {
                    ping.expires
                }
            });
        let since = since + self.config.interval * 2;
        let from = match expires {
            Some(expires) if planted!(TermNotAwaited) => expires,
            Some(expires) => expires.max(since),
            None => since,
        };
        now.mono.since(from)
    }
}

fn counts(received: &Received, now: Instant) -> bool {
    (received.metric.valid || planted!(InvalidAllocated)) && received.expires > now
}

#[cfg(test)]
mod tests;
