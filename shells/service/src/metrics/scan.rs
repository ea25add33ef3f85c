//! Counts of pins by status. Counting reads the whole pinset, so it runs beside everything else, and the
//! longer it takes the less often it runs.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use cluster_core::{PING, PeerId, Phase, Replicas, Timestamp, View};

use super::instrument::set;
use super::metrics;
use crate::driver::Handle;
use crate::store::{Reader, Row, StoreError};

/// Pause after a count, in multiples of its duration: it costs less than a hundredth of one processor.
const PAUSE_FACTOR: u32 = 150;

/// Number of rows read at once.
const PAGE: usize = 512;

/// Statuses of [`Counts::statuses`], in order.
const STATUSES: [(Phase, &str); 6] = [
    (Phase::PinError, "pin_error"),
    (Phase::PinQueued, "pin_queued"),
    (Phase::Pinned, "pinned"),
    (Phase::UnpinError, "unpin_error"),
    (Phase::UnpinQueued, "unpin_queued"),
    (Phase::Lost, "unexpectedly_unpinned"),
];

/// Result of a count.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    statuses: [u64; STATUSES.len()],
    under_replicated: u64,
    oldest_queued: Option<Timestamp>,
    oldest_failing: Option<Timestamp>,
}

impl Counts {
    fn add(&mut self, row: &Row, alive: &BTreeSet<PeerId>) {
        if let Some(local) = &row.local {
            let at = STATUSES.iter().position(|(phase, _)| *phase == local.phase);
            self.statuses[at.expect("every phase has a status")] += 1;
            let earliest = |known: &mut Option<Timestamp>, at: Timestamp| {
                *known = Some(known.map_or(at, |known| known.min(at)));
            };
            match local.phase {
                Phase::PinQueued => earliest(&mut self.oldest_queued, local.since),
                Phase::PinError => {
                    let requested = row.pin.as_ref().map_or(local.since, |pin| pin.timestamp);
                    earliest(&mut self.oldest_failing, requested);
                }
                Phase::Pinned | Phase::UnpinError | Phase::UnpinQueued | Phase::Lost => {}
            }
        }
        if let Some(pin) = &row.pin
            && let Replicas::Range { min, .. } = pin.options.replicas
        {
            let living = pin
                .allocations
                .iter()
                .filter(|peer| alive.contains(*peer))
                .count();
            self.under_replicated += u64::from(living < min as usize);
        }
    }

    fn publish(&self, now: Timestamp) {
        let metrics = metrics();
        for (count, (_, status)) in self.statuses.iter().zip(STATUSES) {
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            metrics.local_pins.with_label_values(&[status]).set(count);
        }
        let [pin_error, pin_queued, pinned, ..] = self.statuses;
        set(&metrics.pins_pin_error, pin_error);
        set(&metrics.pins_pin_queued, pin_queued);
        set(&metrics.pins_ipfs_pins, pinned);
        set(&metrics.pins_under_replicated, self.under_replicated);
        let age = |since: Option<Timestamp>| {
            let since = since.map_or(0, |since| now.0.saturating_sub(since.0));
            Duration::from_nanos(since).as_secs_f64()
        };
        metrics.oldest_queued_pin.set(age(self.oldest_queued));
        metrics.oldest_failing_pin.set(age(self.oldest_failing));
    }
}

/// The last count of the pins at this peer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PinCounts {
    pub(crate) pin_error: u64,
    pub(crate) pin_queued: u64,
    pub(crate) unpin_error: u64,
    /// Pins that are missing at the IPFS node.
    pub(crate) lost: u64,
    /// Pins of the whole cluster with fewer living allocations than their minimum.
    pub(crate) under_replicated: u64,
    /// Age of the oldest queued pin.
    pub(crate) oldest_queued: Duration,
    /// Time since the request of the oldest pin that fails.
    pub(crate) oldest_failing: Duration,
}

/// Returns the last count; `None` before the first.
pub(crate) fn pin_counts() -> Option<PinCounts> {
    let metrics = metrics();
    if metrics.pinset_scan.get() == 0.0 {
        return None;
    }
    let unsigned = |count: i64| u64::try_from(count).unwrap_or_default();
    let count = |status: &str| unsigned(metrics.local_pins.with_label_values(&[status]).get());
    let age = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
    Some(PinCounts {
        pin_error: count("pin_error"),
        pin_queued: count("pin_queued"),
        unpin_error: count("unpin_error"),
        lost: count("unexpectedly_unpinned"),
        under_replicated: unsigned(metrics.pins_under_replicated.get()),
        oldest_queued: age(metrics.oldest_queued_pin.get()),
        oldest_failing: age(metrics.oldest_failing_pin.get()),
    })
}

/// Counts all pins, on this thread.
fn count(reader: &Reader, alive: &BTreeSet<PeerId>) -> Result<Counts, StoreError> {
    let mut counts = Counts::default();
    let mut after = None;
    loop {
        let rows = reader.rows_after(after.as_ref(), PAGE)?;
        rows.iter().for_each(|row| counts.add(row, alive));
        let Some(last) = rows.last() else {
            return Ok(counts);
        };
        after = Some(last.cid.clone());
    }
}

/// Counts the pins every `interval`, or less often if there are many, while it is polled.
pub(super) async fn watch_pins(handle: Handle, reader: Reader, interval: Duration) {
    loop {
        let read = |view: View<'_>, now| {
            let alive = view.metrics(now, PING).map(|(peer, _)| peer.clone());
            (alive.collect::<BTreeSet<_>>(), now.wall)
        };
        let Some((alive, now)) = handle.view(read).await else {
            return;
        };
        let (start, reader) = (Instant::now(), reader.clone());
        let counted = tokio::task::spawn_blocking(move || count(&reader, &alive)).await;
        match counted {
            Ok(Ok(counts)) => counts.publish(now),
            Ok(Err(error)) => tracing::error!(%error, "the pins cannot be counted"),
            Err(_) => return,
        }
        let took = start.elapsed();
        metrics().pinset_scan.set(took.as_secs_f64());
        tokio::time::sleep(interval.max(took * PAUSE_FACTOR)).await;
    }
}

#[cfg(test)]
mod tests {
    use cluster_core::{Cid, Local, Mode, Pin, PinOptions, PinType};

    use super::*;

    fn row(phase: Phase, allocations: &[PeerId], min: u32) -> Row {
        let cid = Cid::from_bytes(&[1, 0x55, 0, 1, 7]).unwrap();
        let options = PinOptions::new(Replicas::Range { min, max: 3 });
        Row {
            pin: Some(Pin {
                cid: cid.clone(),
                pin_type: PinType::Data,
                allocations: allocations.to_vec(),
                reference: None,
                options,
                timestamp: Timestamp(5),
                version: 1,
            }),
            local: Some(Local {
                phase,
                mode: Mode::Recursive,
                attempts: 0,
                error: String::new(),
                since: Timestamp(9),
                queued: None,
            }),
            cid,
        }
    }

    #[test]
    fn pins_are_counted_by_status_and_by_living_allocations() {
        let peer = |n: u8| PeerId::from_bytes(&[0, 2, n, n]).unwrap();
        let alive = BTreeSet::from([peer(1), peer(2)]);
        let mut counts = Counts::default();
        counts.add(&row(Phase::Pinned, &[peer(1), peer(2)], 2), &alive);
        counts.add(&row(Phase::PinQueued, &[peer(1), peer(3)], 2), &alive);
        counts.add(&row(Phase::PinError, &[peer(3)], 1), &alive);
        assert_eq!(counts.statuses, [1, 1, 1, 0, 0, 0]);
        assert_eq!(counts.under_replicated, 2);
        assert_eq!(counts.oldest_queued, Some(Timestamp(9)));
        assert_eq!(counts.oldest_failing, Some(Timestamp(5)));
    }
}
