//! Comparison of the local state with the IPFS node's pins: of all CIDs periodically, and of any on request.
//! The shell reads both and reports missing pins. Pins that the cluster never made are ignored.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{OpIds, Output, Tracker, fresh, operations};
use crate::config::TrackerConfig;
use crate::draft::Draft;
use crate::effect::Refusal;
use crate::event::{IpfsError, Missing};
use crate::ids::{Cid, OpId, Ticket};
use crate::local::{Lane, Local, Phase, QueueKey};
use crate::planted::planted;
use crate::time::{Instant, Now};
use crate::view::PinsetView;

/// Fraction of the interval before a process's first comparison: early, to find losses from before the start,
/// but not during it.
const FIRST_PART: u32 = 10;

/// Shortest pause after a comparison, as a multiple of its duration: listing loads the IPFS node.
const REST: u32 = 10;

/// Maximum number of clients that wait for comparisons: operators, who are few, while each request may list
/// all pins.
const TICKETS_MAX: usize = 64;

/// Error text of a lost pin, as the Go peer's `unexpectedly_unpinned`.
const LOST: &str = "its content is missing or damaged at the IPFS node: it will be pinned again";

/// A running comparison.
#[derive(Debug, Clone)]
struct Comparison {
    /// Only CID to compare; `None` for all.
    cid: Option<Cid>,
    tickets: Vec<Ticket>,
    /// Number of missing pins so far.
    found: u64,
    began: Instant,
    /// Time at which it counts as stuck: `pin_timeout` after the last report.
    deadline: Instant,
    cancelled: bool,
}

/// All comparisons, running and requested.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    running: BTreeMap<OpId, Comparison>,
    /// Clients that wait for the next comparison of all CIDs: the running one may have passed their change.
    queued: Vec<Ticket>,
    /// Deadline of each client.
    deadlines: BTreeMap<Ticket, Instant>,
    /// Time of the next periodic comparison; `None` if disabled.
    next: Option<Instant>,
    /// `compare_interval` of the configuration.
    interval: Duration,
    /// `pin_timeout` of the configuration.
    timeout: Duration,
}

impl Comparisons {
    pub(super) fn new(config: &TrackerConfig, now: Now) -> Self {
        let interval = config.compare_interval;
        Self {
            next: (!interval.is_zero() && !planted!(ComparesNever)).then(|| now.mono + interval / FIRST_PART),
            interval,
            timeout: config.pin_timeout,
            ..Self::default()
        }
    }

    fn compares_all(&self) -> bool {
        self.running.values().any(|comparison| comparison.cid.is_none())
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = self.next.filter(|_| !self.compares_all());
        let silent = self.running.values().filter(|running| !running.cancelled);
        let silent = silent.map(|running| running.deadline);
        silent.chain(self.deadlines.values().copied()).chain(next).min()
    }

    pub(super) fn check(&self) {
        assert!(
            self.deadlines.len() <= TICKETS_MAX,
            "no more clients than allowed"
        );
        assert!(
            self.queued.is_empty() || self.compares_all(),
            "clients wait for a running comparison"
        );
    }

    /// Handles a client's request to compare one CID, or all.
    fn sync(
        &mut self,
        now: Now,
        op_ids: &mut OpIds,
        ticket: Ticket,
        cid: Option<Cid>,
        timeout: Duration,
        out: &mut Vec<Output>,
    ) {
        if self.deadlines.len() == TICKETS_MAX {
            let outcome = Err(Refusal::Busy);
            out.push(Output::Synced { ticket, outcome });
            return;
        }
        self.deadlines.insert(ticket, now.mono + timeout);
        if cid.is_none() && self.compares_all() {
            let mut running = self.running.values_mut();
            let all = running.find(|comparison| comparison.cid.is_none());
            match all.filter(|_| planted!(SyncJoinsRunning)) {
                Some(comparison) => comparison.tickets.push(ticket),
                None => self.queued.push(ticket),
            }
        } else {
            self.compare(now, op_ids, cid, vec![ticket], out);
        }
    }

    fn compare(
        &mut self,
        now: Now,
        op_ids: &mut OpIds,
        cid: Option<Cid>,
        tickets: Vec<Ticket>,
        out: &mut Vec<Output>,
    ) {
        let op = op_ids.next();
        let comparison = Comparison {
            cid: cid.clone(),
            tickets,
            found: 0,
            began: now.mono,
            deadline: now.mono + self.timeout,
            cancelled: false,
        };
        self.running.insert(op, comparison);
        out.push(Output::Compare { op, cid });
    }

    /// Extends the deadline of `op`. Returns `false` if `op` is not a comparison.
    pub(super) fn extend_deadline(&mut self, now: Now, op: OpId) -> bool {
        let Some(comparison) = self.running.get_mut(&op) else {
            return false;
        };
        comparison.deadline = now.mono + self.timeout;
        true
    }

    /// Ends a comparison: answers its clients and schedules the next one.
    fn compared(
        &mut self,
        now: Now,
        op_ids: &mut OpIds,
        op: OpId,
        outcome: Result<(), IpfsError>,
        out: &mut Vec<Output>,
    ) {
        let Some(comparison) = self.running.remove(&op) else {
            return;
        };
        let outcome = match outcome {
            Ok(()) => Ok(comparison.found),
            Err(_) if planted!(SyncFailureHidden) => Ok(comparison.found),
            Err(error) => Err(Refusal::IpfsFailed(operations::error_text(error))),
        };
        for ticket in comparison.tickets {
            if self.deadlines.remove(&ticket).is_some() {
                let outcome = outcome.clone();
                out.push(Output::Synced { ticket, outcome });
            }
        }
        if comparison.cid.is_some() {
            return;
        }
        // A failed comparison has cost the node little.
        let took = outcome.map_or(Duration::ZERO, |_| now.mono.since(comparison.began));
        let interval = self.interval;
        let rest = if planted!(ComparesWithoutRest) {
            Duration::ZERO
        } else {
            took * REST
        };
        let pause = if planted!(ComparesAlways) {
            interval / 2
        } else {
            interval.max(rest)
        };
        self.next = (!interval.is_zero()).then(|| now.mono + pause);
        let waiting = std::mem::take(&mut self.queued);
        if !waiting.is_empty() {
            self.compare(now, op_ids, None, waiting, out);
        }
    }

    /// Answers clients whose deadline has passed, cancels stuck comparisons, and starts a periodic one if
    /// due.
    pub(super) fn handle_timeout(&mut self, now: Now, op_ids: &mut OpIds, out: &mut Vec<Output>) {
        let late = |(ticket, deadline): (&Ticket, &Instant)| (*deadline <= now.mono).then_some(*ticket);
        let late: Vec<Ticket> = self.deadlines.iter().filter_map(late).collect();
        for ticket in late {
            self.deadlines.remove(&ticket);
            self.queued.retain(|queued| *queued != ticket);
            let outcome = Err(Refusal::Unknown);
            out.push(Output::Synced { ticket, outcome });
        }
        for (op, comparison) in &mut self.running {
            let is_stuck = comparison.deadline <= now.mono && !planted!(StuckComparisonStays);
            if !comparison.cancelled && is_stuck {
                comparison.cancelled = true;
                out.push(Output::Cancel { op: *op });
            }
        }
        if self.next.is_some_and(|next| next <= now.mono) && !self.compares_all() {
            self.compare(now, op_ids, None, Vec::new(), out);
        }
    }
}

impl Tracker {
    /// Handles a client's request to compare one CID, or all.
    pub(crate) fn sync(
        &mut self,
        now: Now,
        ticket: Ticket,
        cid: Option<Cid>,
        timeout: Duration,
        out: &mut Vec<Output>,
    ) {
        self.comparisons
            .sync(now, &mut self.op_ids, ticket, cid, timeout, out);
    }

    /// Ends a comparison.
    pub(crate) fn compared(
        &mut self,
        now: Now,
        op: OpId,
        outcome: Result<(), IpfsError>,
        out: &mut Vec<Output>,
    ) {
        self.comparisons.compared(now, &mut self.op_ids, op, outcome, out);
    }

    /// Queues missing pins to be pinned again. Ignores CIDs whose local state has changed since it was
    /// compared.
    pub(crate) fn requeue_missing<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        op: OpId,
        missing: Vec<Missing>,
    ) {
        if !self.comparisons.extend_deadline(now, op) {
            return;
        }
        let mut found = 0;
        for Missing { cid, since } in missing {
            let local = draft.local(&cid);
            let is_current = |local: &Local| local.since == since || planted!(ReportBelieved);
            let Some(local) = local.filter(|local| local.phase == Phase::Pinned && is_current(local)) else {
                continue;
            };
            found += u64::from(!planted!(SyncMiscounted));
            // First attempts take precedence: their clients are waiting.
            let key = QueueKey {
                lane: Lane::Retry,
                at: now.wall.0,
                cid: cid.clone(),
            };
            let next = Local {
                phase: Phase::Lost,
                error: LOST.to_owned(),
                ..fresh(now, local.mode)
            };
            self.queue_heads.put(draft, &cid, Some(local), next, key);
        }
        if let Some(comparison) = self.comparisons.running.get_mut(&op) {
            comparison.found += found;
        }
    }
}
