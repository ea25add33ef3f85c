//! Rebalancing: copies leave a peer only while it is switched on or a run is under way, each for one peer
//! that may take it. They leave no place that the client prefers, and do not share more zones than before.

use std::collections::BTreeSet;

use cluster_core::{Command, PeerId, Phase, Pin, RebalanceChange, Replicas, Request, StoreOp};

use super::Findings;
use super::decisions::Moment;

/// Metric that divides the peers into zones here.
const ZONE: &str = "tag:group";

impl Moment<'_> {
    /// Checks a change of the rebalancing.
    pub(super) fn of_rebalancing(&self, change: &RebalanceChange, found: &mut Findings<'_>) {
        let me = &self.step.peer().id;
        match change {
            RebalanceChange::Done { peer, since } => {
                let runs = self
                    .heard
                    .rebalances()
                    .iter()
                    .filter_map(|state| state.run.as_ref());
                let is_known = runs.into_iter().any(|run| run.since == *since);
                found.require(peer == me && is_known, "rebalance", || {
                    format!("says that {peer} has ended its part of {since:?}")
                });
            }
            RebalanceChange::End { since: Some(_) } => {
                let change = change.clone();
                self.leads(&Command::Rebalance { change }, found);
            }
            RebalanceChange::End { since: None }
            | RebalanceChange::Settings(_)
            | RebalanceChange::Start { .. } => {
                let change = change.clone();
                self.of_request(&Request::Rebalance { change }, found);
            }
        }
    }

    /// Checks a move of one of this peer's copies, which no drain explains.
    pub(super) fn of_rebalanced_pin(&self, base: &Pin, allocations: &[PeerId], found: &mut Findings<'_>) {
        let (step, heard) = (self.step, self.heard);
        let me = &step.peer().id;
        let mut states = heard.rebalances().iter();
        let is_on = states.any(|state| state.settings.automatic || state.run.is_some());
        found.require(is_on, "rebalance", || format!("moves {base:?} without need"));
        let is_range = matches!(base.options.replicas, Replicas::Range { .. });
        let lost: Vec<&PeerId> = base
            .allocations
            .iter()
            .filter(|peer| !allocations.contains(peer))
            .collect();
        let gained: Vec<&PeerId> = allocations
            .iter()
            .filter(|peer| !base.allocations.contains(peer))
            .collect();
        let is_move = is_range && lost == [me] && gained.len() == 1;
        found.require(is_move, "rebalance", || {
            format!("makes {allocations:?} of {base:?}, which is no move of one copy")
        });
        for peer in &gained {
            found.require(
                heard.may_take(step.now, peer, &self.rules.allocate_by),
                "rebalance",
                || format!("moves {base:?} to {peer}, of whom nothing says that it lives and has room"),
            );
        }
        found.require(!base.options.user_allocations.contains(me), "rebalance", || {
            format!("moves {base:?} from {me}, which the client prefers")
        });
        let local = step.peer().disk.written.locals.get(&base.cid);
        // It may have changed in this step, after the decision (seed 820006).
        let is_change = |op: &StoreOp| matches!(op, StoreOp::PutLocal { cid, .. } if *cid == base.cid);
        let is_changed = step.writes().any(is_change);
        found.require(
            is_changed || local.is_some_and(|local| local.phase == Phase::Pinned),
            "rebalance",
            || format!("moves {base:?}, which is {local:?} here"),
        );
        // The zones of peers change only with their metrics.
        let zone = |peer: &PeerId| {
            let values = heard
                .samples(peer, ZONE)
                .iter()
                .map(|sample| sample.metric.value.clone());
            values.collect::<BTreeSet<String>>()
        };
        let certain = base
            .allocations
            .iter()
            .chain(gained)
            .all(|peer| zone(peer).len() == 1);
        let zones = |peers: &[PeerId]| peers.iter().flat_map(zone).collect::<BTreeSet<_>>().len();
        found.require(
            !certain || zones(allocations) >= zones(&base.allocations),
            "rebalance",
            || format!("puts copies of {base:?} into fewer zones: {allocations:?}"),
        );
    }
}
