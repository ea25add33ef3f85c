//! Comparisons of the local states with the IPFS node's pins.

use cluster_core::{Cid, Event, Instant, Missing, OpId, Reply, Request, Timestamp};

use super::{Operations, Process};
use crate::checks::{Findings, Step};

/// One comparison.
#[derive(Debug, Clone)]
pub(super) struct Comparison {
    /// The only CID that is compared.
    pub(super) cid: Option<Cid>,
    /// Number of pins that it has found missing.
    pub(super) found: u64,
    pub(super) began: Instant,
    pub(super) moved: Instant,
    pub(super) cancelled: bool,
}

/// Shortest pause after a comparison, as a multiple of its duration: a second copy of the core's rule.
const REST: u32 = 10;

impl Operations {
    pub(super) fn of_comparison(
        &self,
        step: &Step<'_>,
        process: &mut Process,
        op: OpId,
        cid: Option<&Cid>,
        found: &mut Findings<'_>,
    ) {
        let everything = cid.is_none();
        let asked = step
            .events
            .iter()
            .any(|event| matches!(event, Event::Requested { .. } | Event::IpfsCompared { .. }));
        let now = step.now.mono;
        let soon = process.began.is_some_and(|last| now.since(last) < self.compare);
        found.require(!everything || asked || !soon, "comparisons", || {
            format!("compares everything again, before {:?} are over", self.compare)
        });
        let rests = process.rests.is_some_and(|until| now < until);
        found.require(!everything || asked || !rests, "comparisons", || {
            format!("compares everything again, before it has rested {REST} times as long as that took")
        });
        if everything && !asked {
            process.began = Some(now);
        }
        let comparison = Comparison {
            cid: cid.cloned(),
            found: 0,
            began: now,
            moved: now,
            cancelled: false,
        };
        process.comparing.insert(op, comparison);
        let all = process
            .comparing
            .values()
            .filter(|other| other.cid.is_none())
            .count();
        found.require(all <= 1, "comparisons", || format!("{all} of everything at once"));
    }

    /// Checks that the answer to a `Sync` request is the number of missing pins of a comparison that began
    /// after it.
    pub(super) fn of_reply(
        reply: &Reply,
        request: Option<&(Request, Instant)>,
        ended: &[Comparison],
        found: &mut Findings<'_>,
    ) {
        let (Reply::Synced(count), Some((Request::Sync { cid }, asked))) = (reply, request) else {
            return;
        };
        let answers =
            |ended: &Comparison| ended.found == *count && ended.began >= *asked && ended.cid == *cid;
        found.require(ended.iter().any(answers), "comparisons", || {
            format!("says that {count} pins were missing, to {request:?}: it were {ended:?}")
        });
    }
}

impl Process {
    /// Counts a CID that was found missing for the comparison that was the first to report it: for another
    /// one that reports it in the same step, it is queued already (seed 1193).
    pub(super) fn count_missing(&mut self, step: &Step<'_>, cid: &Cid, since: Timestamp) {
        let reports = |missing: &Missing| missing.cid == *cid && missing.since == since;
        let by = step.events.iter().find_map(|event| {
            let Event::IpfsLacks { op, missing } = event else {
                return None;
            };
            missing.iter().any(reports).then_some(op)
        });
        if let Some(comparison) = by.and_then(|op| self.comparing.get_mut(op)) {
            comparison.found += 1;
        }
    }

    /// Returns the comparison that ends with this event, unless it fails.
    pub(super) fn compared(&mut self, step: &Step<'_>, event: &Event) -> Option<Comparison> {
        let Event::IpfsCompared { op, outcome } = event else {
            return None;
        };
        let compared = self.comparing.remove(op)?;
        if compared.cid.is_none() {
            let now = step.now.mono;
            let rest = now.since(compared.began) * REST;
            // One that fails has cost little.
            self.rests = outcome.is_ok().then(|| now + rest);
        }
        outcome.is_ok().then_some(compared)
    }
}
