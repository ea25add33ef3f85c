//! Bytes moved by each protocol, and their recent rates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::streams::Protocol;

/// Time constant of the rates: long enough to read one off a screen.
const MEMORY: Duration = Duration::from_secs(10);

/// Bytes moved by one protocol, in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Traffic {
    /// Bytes received since the start.
    pub received: u64,
    /// Bytes sent since the start.
    pub sent: u64,
    /// Recent rate of receiving, in bytes per second.
    pub received_rate: f64,
    /// Recent rate of sending, in bytes per second.
    pub sent_rate: f64,
}

/// The counters of one protocol.
#[derive(Debug, Default)]
pub(super) struct Meter {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Meter {
    pub(super) fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The counters of all protocols.
#[derive(Debug, Default)]
pub(super) struct Meters {
    meters: [Arc<Meter>; Protocol::ALL.len()],
    shown: Mutex<[Traffic; Protocol::ALL.len()]>,
}

impl Meters {
    pub(super) fn of(&self, protocol: Protocol) -> Arc<Meter> {
        Arc::clone(&self.meters[protocol as usize])
    }

    /// Updates the rates. Called at regular intervals.
    pub(super) fn tick(&self, elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(f64::EPSILON);
        let weight = (seconds / MEMORY.as_secs_f64()).min(1.0);
        let mut shown = self.shown.lock().expect("no panic while locked");
        for (meter, traffic) in self.meters.iter().zip(shown.iter_mut()) {
            let received = meter.received.load(Ordering::Relaxed);
            let sent = meter.sent.load(Ordering::Relaxed);
            let blend = |old: f64, bytes: u64| old + weight * (bytes as f64 / seconds - old);
            *traffic = Traffic {
                received_rate: blend(traffic.received_rate, received - traffic.received),
                sent_rate: blend(traffic.sent_rate, sent - traffic.sent),
                received,
                sent,
            };
        }
    }

    /// Totals and rates by name of the protocol.
    pub(super) fn read(&self) -> Vec<(&'static str, Traffic)> {
        let shown = *self.shown.lock().expect("no panic while locked");
        let now = |(protocol, shown): (Protocol, Traffic)| {
            let meter = &self.meters[protocol as usize];
            let received = meter.received.load(Ordering::Relaxed);
            let sent = meter.sent.load(Ordering::Relaxed);
            (
                protocol.name(),
                Traffic {
                    received,
                    sent,
                    ..shown
                },
            )
        };
        Protocol::ALL.into_iter().zip(shown).map(now).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_shows_its_rate_and_a_stopped_one_fades() {
        let meters = Meters::default();
        let second = Duration::from_secs(1);
        for _ in 0..60 {
            meters.of(Protocol::Rpc).add_sent(1_000);
            meters.tick(second);
        }
        let sent = |meters: &Meters| meters.read()[Protocol::Rpc as usize].1;
        assert_eq!(sent(&meters).sent, 60_000);
        assert!(
            (sent(&meters).sent_rate - 1_000.0).abs() < 10.0,
            "{:?}",
            sent(&meters)
        );
        (0..60).for_each(|_| meters.tick(second));
        assert!(sent(&meters).sent_rate < 10.0, "{:?}", sent(&meters));
    }
}
