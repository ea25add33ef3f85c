//! What counts as pinned here against what the IPFS node really has: of everything now and then, and of
//! whatever a client asks for. The shell reads both and reports what is missing; what this peer never pinned
//! is nobody's business.

use super::*;
use crate::event::{IpfsError, Missing};

/// The first comparison of a process comes after this part of the interval: what the node lost while nobody
/// watched is found soon, and a start has better things to do than that.
const FIRST_PART: u32 = 10;

/// A pause is at least so many times as long as the comparison before it: listing is work for the node.
const REST: u32 = 10;

/// Clients that may wait for comparisons at once: operators, who are few, and each may cost a listing.
const TICKETS_MAX: usize = 64;

/// What a lost pin says, in the Go peer's sense of `unexpectedly_unpinned`.
const LOST: &str = "the item should be pinned but it is not: it will be pinned again";

/// A comparison that is under way.
#[derive(Debug, Clone)]
struct Comparison {
    /// Of what; `None` for everything.
    cid: Option<Cid>,
    tickets: Vec<Ticket>,
    /// What was found missing so far.
    found: u64,
    began: Instant,
    /// When it counts as stuck: it was heard of as long ago as a pin may go without progress.
    deadline: Instant,
    cancelled: bool,
}

/// All comparisons.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    running: BTreeMap<OpId, Comparison>,
    /// Who waits for a comparison of everything that has yet to begin: the one that is under way may have
    /// passed by what they want looked at.
    queued: Vec<Ticket>,
    /// Until when each client gets its answer.
    deadlines: BTreeMap<Ticket, Instant>,
    /// When everything is compared next; never when the interval is zero.
    next: Option<Instant>,
}

impl Comparisons {
    pub(super) fn new(config: &TrackerConfig, now: Now) -> Self {
        let interval = config.compare_interval;
        Self {
            next: (!interval.is_zero() && !planted!(ComparesNever)).then(|| now.mono + interval / FIRST_PART),
            ..Self::default()
        }
    }

    fn all_is_compared(&self) -> bool {
        self.running.values().any(|comparison| comparison.cid.is_none())
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let next = self.next.filter(|_| !self.all_is_compared());
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
            self.queued.is_empty() || self.all_is_compared(),
            "who waits has something to wait for"
        );
    }
}

impl Tracker {
    /// A client wants everything compared, or one CID.
    pub(crate) fn sync(
        &mut self,
        now: Now,
        ticket: Ticket,
        cid: Option<Cid>,
        patience: Duration,
        out: &mut Vec<Output>,
    ) {
        if self.comparisons.deadlines.len() == TICKETS_MAX {
            let outcome = Err(Refusal::Busy);
            out.push(Output::Synced { ticket, outcome });
            return;
        }
        self.comparisons.deadlines.insert(ticket, now.mono + patience);
        if cid.is_none() && self.comparisons.all_is_compared() {
            self.comparisons.queued.push(ticket);
        } else {
            self.compare(now, cid, vec![ticket], out);
        }
    }

    fn compare(&mut self, now: Now, cid: Option<Cid>, tickets: Vec<Ticket>, out: &mut Vec<Output>) {
        self.next_op += 1;
        let op = OpId(self.next_op);
        let comparison = Comparison {
            cid: cid.clone(),
            tickets,
            found: 0,
            began: now.mono,
            deadline: now.mono + self.config.pin_timeout,
            cancelled: false,
        };
        self.comparisons.running.insert(op, comparison);
        out.push(Output::Compare { op, cid });
    }

    /// A comparison goes on; false when it is none.
    pub(super) fn compares_on(&mut self, now: Now, op: OpId) -> bool {
        let Some(comparison) = self.comparisons.running.get_mut(&op) else {
            return false;
        };
        comparison.deadline = now.mono + self.config.pin_timeout;
        true
    }

    /// The IPFS node lacks what counts as pinned. It is pinned again, unless its local state has changed
    /// since it was compared: then the report says nothing about it.
    pub(crate) fn lacks<V: PinsetView>(
        &mut self,
        now: Now,
        draft: &mut Draft<'_, V>,
        op: OpId,
        missing: Vec<Missing>,
    ) {
        if !self.compares_on(now, op) {
            return;
        }
        let mut found = 0;
        for Missing { cid, since } in missing {
            let local = draft.local(&cid);
            let Some(local) = local.filter(|local| local.phase == Phase::Pinned && local.since == since)
            else {
                continue;
            };
            found += u64::from(!planted!(SyncMiscounted));
            // What is pinned for the first time goes before: whoever asked for that waits for it.
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
            self.queue(draft, &cid, Some(local), next, key);
        }
        if let Some(comparison) = self.comparisons.running.get_mut(&op) {
            comparison.found += found;
        }
    }

    /// A comparison has ended: clients are told, and the next one is planned.
    pub(crate) fn compared(
        &mut self,
        now: Now,
        op: OpId,
        outcome: Result<(), IpfsError>,
        out: &mut Vec<Output>,
    ) {
        let Some(comparison) = self.comparisons.running.remove(&op) else {
            return;
        };
        let outcome = match outcome {
            Ok(()) => Ok(comparison.found),
            Err(error) => Err(Refusal::IpfsFailed(run::error_text(error))),
        };
        for ticket in comparison.tickets {
            if self.comparisons.deadlines.remove(&ticket).is_some() {
                let outcome = outcome.clone();
                out.push(Output::Synced { ticket, outcome });
            }
        }
        if comparison.cid.is_some() {
            return;
        }
        // One that failed has cost the node little.
        let took = outcome.map_or(Duration::ZERO, |_| now.mono.since(comparison.began));
        let interval = self.config.compare_interval;
        let pause = if planted!(ComparesAlways) {
            interval / 2
        } else {
            interval.max(took * REST)
        };
        self.comparisons.next = (!interval.is_zero()).then(|| now.mono + pause);
        let waiting = std::mem::take(&mut self.comparisons.queued);
        if !waiting.is_empty() {
            self.compare(now, None, waiting, out);
        }
    }

    /// Answers who has waited long enough, gives up what hangs, and begins what is due.
    pub(super) fn compare_on(&mut self, now: Now, out: &mut Vec<Output>) {
        let late = |(ticket, deadline): (&Ticket, &Instant)| (*deadline <= now.mono).then_some(*ticket);
        let late: Vec<Ticket> = self.comparisons.deadlines.iter().filter_map(late).collect();
        for ticket in late {
            self.comparisons.deadlines.remove(&ticket);
            self.comparisons.queued.retain(|queued| *queued != ticket);
            let outcome = Err(Refusal::Unknown);
            out.push(Output::Synced { ticket, outcome });
        }
        for (op, comparison) in &mut self.comparisons.running {
            if !comparison.cancelled && comparison.deadline <= now.mono {
                comparison.cancelled = true;
                out.push(Output::Cancel { op: *op });
            }
        }
        if self.comparisons.next.is_some_and(|next| next <= now.mono) && !self.comparisons.all_is_compared() {
            self.compare(now, None, Vec::new(), out);
        }
    }
}
