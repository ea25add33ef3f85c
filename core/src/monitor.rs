//! Who is alive, and how full they are: the latest metrics of every peer, each with a time to live.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::allocator::Candidates;
use crate::config::MonitorConfig;
use crate::ids::PeerId;
use crate::metric::{Metric, PING};
use crate::planted::planted;
use crate::time::{Instant, Now, Timestamp};

/// A metric as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What.
    pub metric: Metric,
    /// When, by this peer's clock.
    pub at: Timestamp,
    /// Until when it counts.
    pub expires: Instant,
}

/// A metric that has not been renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Whose.
    pub peer: PeerId,
    /// The last that came.
    pub metric: Received,
    /// When it was missed.
    pub triggered_at: Timestamp,
}

/// What comes out of the monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// A peer that could not be told, or that has not spoken yet, is told again after this time.
const TELL_AGAIN: Duration = Duration::from_millis(500);

/// Everything known of everybody.
pub(crate) struct Monitor {
    me: PeerId,
    config: MonitorConfig,
    metrics: BTreeMap<PeerId, BTreeMap<String, Received>>,
    alerts: VecDeque<Alert>,
    alerted: BTreeSet<(PeerId, String)>,
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
        metrics: Vec<Metric>,
        members: impl Iterator<Item = &'a PeerId>,
        out: &mut Vec<Output>,
    ) {
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
                own.values().map(|received| received.metric.clone()).collect()
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
                let is_over = received.expires <= now.mono;
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

    /// The latest value of a metric of each peer that counts at `now`.
    pub(crate) fn latest(&self, now: Instant, name: &str) -> impl Iterator<Item = (&PeerId, &Received)> {
        self.metrics.iter().filter_map(move |(peer, metrics)| {
            metrics
                .get(name)
                .filter(|received| counts(received, now))
                .map(|received| (peer, received))
        })
    }

    /// The names of all metrics.
    pub(crate) fn names(&self) -> BTreeSet<&str> {
        self.metrics
            .values()
            .flat_map(BTreeMap::keys)
            .map(String::as_str)
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
