//! Who is alive, and how full they are: the latest metrics of every peer, each with a time to live.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::allocator::Candidates;
use crate::config::MonitorConfig;
use crate::ids::PeerId;
use crate::metric::{CLOCK, Metric, PING};
use crate::planted::planted;
use crate::time::{Instant, Now, Timestamp};

/// A metric as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What.
    pub metric: Metric,
    /// When, by this peer's clock.
    pub at: Timestamp,
    /// Until when it counts.
    pub expires: Instant,
}

/// A metric that has not been renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// Whose.
    pub peer: PeerId,
    /// The last that came.
    pub metric: Received,
    /// When it was missed.
    pub triggered_at: Timestamp,
}

/// What comes out of the monitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Output {
    /// Read this peer's own metrics.
    Measure,
    /// Tell a peer about this one.
    Tell { to: PeerId, metrics: Vec<Metric> },
}

/// Alerts that are kept, the newest; as many as the Go peer keeps.
const ALERTS_MAX: usize = 1000;

/// Metrics that one peer may have: a lying one must not fill the memory.
const METRICS_MAX: usize = 64;

/// Largest difference between a peer's clock and the cluster's that raises no alert: far above the delay of a
/// message and the drift between two synchronisations.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(60);

/// A peer that could not be told, or that has not spoken yet, is told again after this time.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// Everything known of everybody.
pub(crate) struct Monitor {
    me: PeerId,
    config: MonitorConfig,
    metrics: BTreeMap<PeerId, BTreeMap<String, Received>>,
    alerts: VecDeque<Alert>,
    alerted: BTreeSet<(PeerId, String)>,
    /// Peers whose clocks are wrong.
    skewed: BTreeSet<PeerId>,
    owed: BTreeSet<PeerId>,
    next_measure: Instant,
    next_check: Instant,
    next_tell: Option<Instant>,
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
            owed: BTreeSet::new(),
            next_measure: now.mono,
            next_check: now.mono + config.interval,
            next_tell: None,
            started: now.mono,
        }
    }

    /// This peer's own metrics: they count like the others', and the others are told.
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
                out.push(Output::Tell {
                    to: peer.clone(),
                    metrics: metrics.clone(),
                });
            }
        }
        self.owed.clear();
        self.note(now, self.me.clone(), metrics);
    }

    /// A member's metrics. One that is heard for the first time is told about this peer at once.
    pub(crate) fn received(&mut self, now: Now, from: PeerId, metrics: Vec<Metric>) {
        if !self.metrics.contains_key(&from) {
            self.owe(now, from.clone(), Duration::ZERO);
        }
        self.note(now, from, metrics);
    }

    fn note(&mut self, now: Now, from: PeerId, metrics: Vec<Metric>) {
        for metric in metrics.into_iter().take(METRICS_MAX) {
            self.alerted.remove(&(from.clone(), metric.name.clone()));
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

    /// A peer could not be reached: it has not heard of this one.
    pub(crate) fn unreachable(&mut self, now: Now, peer: PeerId) {
        self.owe(now, peer, TELL_AGAIN);
    }

    fn owe(&mut self, now: Now, peer: PeerId, pause: Duration) {
        if peer != self.me {
            self.owed.insert(peer);
            let at = now.mono + pause;
            self.next_tell = Some(self.next_tell.map_or(at, |next| next.min(at)));
        }
    }

    /// Forgets who is no member any more.
    pub(crate) fn members_changed(&mut self, members: &BTreeSet<PeerId>) {
        self.metrics
            .retain(|peer, _| members.contains(peer) || planted!(MetricsKept));
        self.alerted.retain(|(peer, _)| members.contains(peer));
        self.skewed.retain(|peer| members.contains(peer));
        self.owed.retain(|peer| members.contains(peer));
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        let next = self.next_measure.min(self.next_check);
        self.next_tell.map_or(next, |tell| tell.min(next))
    }

    pub(crate) fn handle_timeout(&mut self, now: Now, out: &mut Vec<Output>) {
        if now.mono >= self.next_measure {
            self.next_measure = now.mono + self.config.interval;
            out.push(Output::Measure);
        }
        if self.next_tell.is_some_and(|tell| now.mono >= tell) {
            self.next_tell = None;
            let own: Vec<Metric> = self.metrics.get(&self.me).map_or(Vec::new(), |own| {
                let kept = own.values().filter(|received| received.metric.name != CLOCK);
                let kept = kept.map(|received| received.metric.clone());
                kept.chain([self.clock(now)]).collect()
            });
            if own.is_empty() {
                self.next_tell = Some(now.mono + TELL_AGAIN);
            } else {
                let owed = std::mem::take(&mut self.owed);
                out.extend(owed.into_iter().map(|to| Output::Tell {
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
        self.alerts.truncate(ALERTS_MAX);
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

    /// A peer's wall clock as of `now`, if it has been received lately. Too early by the time that the
    /// message
    /// took.
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

    /// The cluster's time: the median of the voters' clocks, the earlier one of two in the middle. `None`
    /// unless
    /// a majority of voters have sent theirs. A minority of wrong clocks, this peer's own among them, cannot
    /// move it beyond what the right ones show.
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
        (readings.len() * 2 > count).then(|| readings[(readings.len() - 1) / 2])
    }

    /// Raises an alert for each peer whose clock has come to differ from the cluster's time.
    pub(crate) fn judge_clocks(&mut self, now: Now, time: Timestamp) {
        let peers: Vec<PeerId> = self.metrics.keys().cloned().collect();
        for peer in peers {
            let Some(reading) = self.reading(now, &peer) else {
                continue;
            };
            let skew = Duration::from_nanos(reading.0.abs_diff(time.0));
            if skew <= CLOCK_SKEW_MAX {
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

    /// Peers whose clocks differ from the cluster's time by more than a minute.
    pub(crate) fn skewed(&self) -> impl Iterator<Item = &PeerId> {
        self.skewed.iter()
    }

    /// The latest value of a metric of each peer that has not expired at `now`. It may be
    /// [invalid](Metric::valid).
    pub(crate) fn latest(&self, now: Instant, name: &str) -> impl Iterator<Item = (&PeerId, &Received)> {
        self.metrics.iter().filter_map(move |(peer, metrics)| {
            metrics
                .get(name)
                .filter(|received| received.expires > now)
                .map(|received| (peer, received))
        })
    }

    /// The names of all metrics.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.metrics
            .values()
            .flat_map(BTreeMap::keys)
            .map(String::as_str)
            .filter(|name| *name != CLOCK)
            .collect()
    }

    /// The newest first.
    pub(crate) fn alerts(&self) -> impl Iterator<Item = &Alert> {
        self.alerts.iter()
    }

    /// The peers that can be allocated to: those with a living value of each of these metrics, and of
    /// `ping`.
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

    /// Peers whose `ping` counts.
    pub(crate) fn alive(&self, now: Instant) -> BTreeSet<PeerId> {
        let pings = self
            .latest(now, PING)
            .filter(|(_, received)| received.metric.valid);
        pings.map(|(peer, _)| peer.clone()).collect()
    }

    /// Living peers that cannot be allocated to because a metric that counts for it is invalid, and why.
    pub(crate) fn unfit(&self, now: Instant, allocate_by: &[String]) -> Vec<String> {
        let mut reasons = Vec::new();
        for peer in self.alive(now) {
            let known = &self.metrics[&peer];
            let invalid = |name: &&String| {
                let metric = known.get(*name);
                metric.is_some_and(|received| received.expires > now && !received.metric.valid)
            };
            reasons.extend(allocate_by.iter().find(invalid).map(|name| match name.as_str() {
                "freespace" => {
                    format!("{peer} is full, or its IPFS node does not say how much free space it has")
                }
                other => format!("{peer} has no valid value of {other}"),
            }));
        }
        reasons
    }

    /// Whether metrics that have not come yet may still come: somebody has never been heard, and this
    /// process is young.
    pub(crate) fn may_hear_more<'a>(&self, now: Now, mut members: impl Iterator<Item = &'a PeerId>) -> bool {
        now.mono.since(self.started) < self.config.interval * 2
            && members.any(|peer| !self.metrics.contains_key(peer))
    }

    /// How long a peer's `ping` has been missing; zero while it counts. One that was never heard counts as
    /// heard at `since`.
    pub(crate) fn silence(&self, now: Now, peer: &PeerId, since: Instant) -> Duration {
        let expires = self
            .metrics
            .get(peer)
            .and_then(|metrics| metrics.get(PING))
            .map(|ping| ping.expires);
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
