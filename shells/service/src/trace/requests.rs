//! The requests whose traces this peer continues, by CID.
//!
//! The core and its log know nothing of traces. A peer remembers the context of a request for a CID, of its
//! own clients or as sent by the peer that received it, and finds the request's steps by the CID: its entry
//! in the log, its change of the pinset, the operations at the IPFS node. A context from another peer may
//! arrive after the change, and after the end of an operation: recent ones are kept for that.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use cluster_core::{Cid, Index};
use cluster_ipfs::Step;
use opentelemetry::trace::SpanContext;

/// Maximum number of remembered requests; some 300 bytes each. The oldest are forgotten first.
pub(super) const REQUESTS_MAX: usize = 4096;

/// Time for which a request is remembered: most pins end within it.
const KEPT: Duration = Duration::from_secs(600);

/// Maximum number of recent log entries and of recent changes: a second of a busy cluster.
const RECENT_MAX: usize = 4096;

/// Maximum number of operations that have ended; some 30 KB each at most, and rarely more than 1 KB.
const ENDED_MAX: usize = 256;

/// Time within which the context of a change or of an operation arrives after it.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A change of the pinset, as this peer applied it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) cid: Cid,
    /// Time at which its log entry was written here; `None` if it was long ago.
    pub(super) appended: Option<SystemTime>,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
}

/// An operation at the IPFS node that has ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ended {
    pub(super) name: &'static str,
    pub(super) cid: Cid,
    pub(super) start: SystemTime,
    pub(super) end: SystemTime,
    pub(super) steps: Vec<Step>,
    /// Number of steps beyond those.
    pub(super) left_out: usize,
    pub(super) error: Option<String>,
}

/// A remembered request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Known {
    /// Span of the request at the peer that received it.
    pub(super) context: SpanContext,
    /// Time of a request to this peer; `None` for one to another peer.
    pub(super) requested: Option<SystemTime>,
    since: Instant,
    /// Set once its change has been applied: a later one is of another request.
    is_applied: bool,
}

/// The remembered requests.
#[derive(Debug, Default)]
pub(super) struct Requests {
    known: BTreeMap<Cid, Known>,
    /// CIDs with the time of their request, from the oldest; some are replaced in `known`.
    order: VecDeque<(Instant, Cid)>,
    appended: VecDeque<(Index, SystemTime)>,
    /// Changes without a known request.
    applied: VecDeque<Applied>,
    /// Operations without a known request.
    ended: VecDeque<Ended>,
}

impl Requests {
    /// Remembers a request to this peer.
    pub(super) fn remember_own(&mut self, cid: &Cid, context: SpanContext, now: Instant) {
        self.insert(cid, context, Some(SystemTime::now()), now);
    }

    /// Remembers a request to another peer, and returns its change if that was applied shortly before.
    pub(super) fn remember(
        &mut self,
        cid: &Cid,
        context: SpanContext,
        now: Instant,
    ) -> Option<(Known, Applied)> {
        self.insert(cid, context, None, now);
        let at = self.applied.iter().rposition(|applied| applied.cid == *cid)?;
        let applied = self.applied.remove(at)?;
        let age = applied.end.elapsed().unwrap_or_default();
        if age > LATE_MAX {
            return None;
        }
        let known = self.known.get_mut(cid)?;
        known.is_applied = true;
        Some((known.clone(), applied))
    }

    fn insert(&mut self, cid: &Cid, context: SpanContext, requested: Option<SystemTime>, now: Instant) {
        while let Some((since, oldest)) = self.order.front() {
            if self.order.len() < REQUESTS_MAX && now.duration_since(*since) < KEPT {
                break;
            }
            if self.known.get(oldest).is_some_and(|known| known.since == *since) {
                self.known.remove(oldest);
            }
            self.order.pop_front();
        }
        let known = Known {
            context,
            requested,
            since: now,
            is_applied: false,
        };
        self.known.insert(cid.clone(), known);
        self.order.push_back((now, cid.clone()));
    }

    /// Returns the request for a CID.
    pub(super) fn get(&self, cid: &Cid, now: Instant) -> Option<&Known> {
        let known = self.known.get(cid)?;
        (now.duration_since(known.since) < KEPT).then_some(known)
    }

    /// Returns an operation that has ended with the span of its request; keeps it if that is not known yet.
    pub(super) fn end(&mut self, ended: Ended, now: Instant) -> Option<(SpanContext, Ended)> {
        if let Some(known) = self.get(&ended.cid, now) {
            return Some((known.context.clone(), ended));
        }
        if self.ended.len() == ENDED_MAX {
            self.ended.pop_front();
        }
        self.ended.push_back(ended);
        None
    }

    /// Removes and returns the operations on a CID that ended shortly before.
    pub(super) fn take_ended(&mut self, cid: &Cid) -> Vec<Ended> {
        let is_late = |ended: &Ended| ended.end.elapsed().unwrap_or_default() > LATE_MAX;
        let mut taken = Vec::new();
        self.ended.retain(|ended| {
            if ended.cid == *cid && !is_late(ended) {
                taken.push(ended.clone());
            }
            ended.cid != *cid
        });
        taken
    }

    /// Notes that an entry of the log was written.
    pub(super) fn append(&mut self, index: Index, at: SystemTime) {
        if self.appended.len() == RECENT_MAX {
            self.appended.pop_front();
        }
        self.appended.push_back((index, at));
    }

    /// Notes that the entry at `index` changed the pin of a CID, and returns the change with its request, if
    /// that is known.
    pub(super) fn apply(
        &mut self,
        cid: &Cid,
        index: Index,
        (start, end): (SystemTime, SystemTime),
        now: Instant,
    ) -> Option<(Known, Applied)> {
        let entry = self
            .appended
            .iter()
            .rev()
            .find(|(appended, _)| *appended == index);
        let applied = Applied {
            cid: cid.clone(),
            appended: entry.map(|(_, at)| *at),
            start,
            end,
        };
        if self.get(cid, now).is_some_and(|known| !known.is_applied)
            && let Some(known) = self.known.get_mut(cid)
        {
            known.is_applied = true;
            return Some((known.clone(), applied));
        }
        if self.applied.len() == RECENT_MAX {
            self.applied.pop_front();
        }
        self.applied.push_back(applied);
        None
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    use super::*;

    fn context(number: u64) -> SpanContext {
        let (trace, span) = (TraceId::from(u128::from(number)), SpanId::from(number));
        SpanContext::new(trace, span, TraceFlags::SAMPLED, true, TraceState::default())
    }

    fn cid(number: u16) -> Cid {
        let [high, low] = number.to_be_bytes();
        Cid::from_bytes(&[1, 0x55, 0, 2, high, low]).unwrap()
    }

    #[test]
    fn change_finds_its_request_once_and_the_time_of_its_entry() {
        let (mut requests, now, at) = (Requests::default(), Instant::now(), SystemTime::now());
        requests.remember_own(&cid(1), context(1), now);
        requests.append(7, at);
        let (known, applied) = requests.apply(&cid(1), 7, (at, at), now).unwrap();
        assert_eq!(known.context, context(1));
        assert!(known.requested.is_some());
        assert_eq!(applied.appended, Some(at));
        assert_eq!(requests.apply(&cid(1), 8, (at, at), now), None);
        // The IPFS node's operations may take longer.
        assert_eq!(requests.get(&cid(1), now).unwrap().context, context(1));
        assert_eq!(requests.get(&cid(1), now + KEPT), None);
    }

    #[test]
    fn context_that_arrives_after_the_change_gets_it() {
        let (mut requests, now, at) = (Requests::default(), Instant::now(), SystemTime::now());
        assert_eq!(requests.apply(&cid(1), 7, (at, at), now), None);
        let (known, applied) = requests.remember(&cid(1), context(1), now).unwrap();
        assert_eq!((known.requested, applied.cid), (None, cid(1)));
        assert_eq!(requests.remember(&cid(1), context(2), now), None);
        let long_ago = at - 2 * LATE_MAX;
        requests.apply(&cid(2), 7, (long_ago, long_ago), now);
        assert_eq!(requests.remember(&cid(2), context(1), now), None);
    }

    #[test]
    fn context_that_arrives_after_the_end_of_an_operation_gets_it() {
        let (mut requests, now, at) = (Requests::default(), Instant::now(), SystemTime::now());
        let ended = |number, end| Ended {
            name: "ipfs.pin",
            cid: cid(number),
            start: end,
            end,
            steps: Vec::new(),
            left_out: 0,
            error: None,
        };
        assert_eq!(requests.end(ended(1, at), now), None);
        assert_eq!(requests.end(ended(2, at - 2 * LATE_MAX), now), None);
        assert_eq!(requests.take_ended(&cid(1)), [ended(1, at)]);
        assert_eq!(requests.take_ended(&cid(1)), [], "only once");
        assert_eq!(requests.take_ended(&cid(2)), [], "long ago");
        requests.remember(&cid(1), context(1), now);
        assert_eq!(requests.end(ended(1, at), now), Some((context(1), ended(1, at))));
        for _ in 0..ENDED_MAX + 5 {
            requests.end(ended(3, at), now);
        }
        assert_eq!(requests.ended.len(), ENDED_MAX);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_go_first() {
        let (mut requests, now, at) = (Requests::default(), Instant::now(), SystemTime::now());
        let count = u16::try_from(REQUESTS_MAX + 10).unwrap();
        for number in 0..count {
            requests.remember_own(&cid(number), context(1), now);
            requests.append(u64::from(number), at);
            requests.apply(&cid(number), 1, (at, at), now);
            requests.apply(&cid(number), 1, (at, at), now);
        }
        assert_eq!(
            (requests.known.len(), requests.order.len()),
            (REQUESTS_MAX, REQUESTS_MAX)
        );
        assert_eq!(requests.appended.len(), RECENT_MAX);
        assert_eq!(requests.applied.len(), RECENT_MAX);
        assert_eq!(requests.get(&cid(9), now), None);
        assert!(requests.get(&cid(10), now).is_some());
        // A request that replaced one is not forgotten with it.
        requests.remember_own(&cid(10), context(2), now + Duration::from_secs(1));
        requests.remember_own(&cid(0), context(3), now + KEPT);
        assert_eq!(requests.get(&cid(10), now + KEPT).unwrap().context, context(2));
        assert_eq!(requests.known.len(), 2);
    }
}
