//! Safety and liveness checks. Every checker is called after every step of every peer; all violations are
//! collected.

mod allocations;
mod announcers;
mod answers;
mod bounds;
mod commits;
mod completeness;
pub(crate) mod convergence;
mod decisions;
mod drains;
mod election;
mod ids;
pub(crate) mod linearize;
mod log;
mod members;
mod metrics;
mod operations;
mod oscillation;
mod planning;
mod promises;
mod quorum;
mod rates;
mod reads;
mod rebalance;
mod received;
mod releases;
mod removed;
pub(crate) mod scrubs;
mod surplus;
mod tracker;
pub(crate) mod wgl;
mod wishes;

use std::collections::BTreeSet;
use std::fmt;

use cluster_core::{Cid, ClusterId, Config, Effect, Event, Index, Now, PeerId, Pin, StoreOp};

use self::announcers::Announcers;
use self::answers::Answers;
use self::bounds::Bounds;
use self::commits::Commits;
use self::decisions::Decisions;
use self::election::Election;
use self::ids::Ids;
use self::log::Logs;
use self::metrics::Metrics;
use self::operations::Operations;
use self::planning::Planning;
use self::promises::Promises;
use self::rates::Rates;
use self::received::Heard;
use self::removed::Removed;
use self::surplus::Surplus;
use crate::coverage::{Coverage, sometimes};
use crate::faults::{is_foreign, matters};
use crate::model::Model;
use crate::options::Options;
use crate::peer::Peer;
use crate::report::Class;
use crate::store::Store;

/// A failed check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Severity and kind of the failure.
    pub class: Class,
    /// Name of the check.
    pub check: &'static str,
    /// Simulated time in nanoseconds.
    pub at: u64,
    /// Number of the peer that it concerns, if it concerns one.
    pub peer: Option<usize>,
    /// Description for people, with the values that were found.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peer = self.peer.map_or_else(String::new, |peer| format!(" at p{peer}"));
        let seconds = std::time::Duration::from_nanos(self.at).as_secs_f64();
        write!(
            f,
            "{} ({}){peer} after {seconds:.6} s: {}",
            self.check, self.class, self.text
        )
    }
}

/// One step of one peer, with its writes visible.
pub(crate) struct Step<'a> {
    pub(crate) at: u64,
    pub(crate) now: Now,
    pub(crate) me: usize,
    pub(crate) events: &'a [Event],
    pub(crate) effects: &'a [Effect],
    pub(crate) peers: &'a [Peer],
}

impl<'a> Step<'a> {
    /// Returns the peer whose step it is.
    pub(crate) fn peer(&self) -> &'a Peer {
        &self.peers[self.me]
    }

    /// Returns the states that a pin may have had at some moment of this step.
    pub(crate) fn pin_states(&self, cid: &Cid) -> Vec<Option<Pin>> {
        let mut all = vec![self.peer().disk.written.pins.get(cid).cloned()];
        for op in self.writes() {
            match op {
                StoreOp::DeletePin { pin } if pin.cid == *cid => all.push(Some(pin.clone())),
                StoreOp::PutPin { pin, previous } if pin.cid == *cid => {
                    all.push(previous.as_deref().cloned());
                    all.push(Some(pin.clone()));
                }
                _ => {}
            }
        }
        all
    }

    /// Returns its writes, in order.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &'a StoreOp> + use<'a> {
        self.effects.iter().flat_map(|effect| match effect {
            Effect::Persist(batch) => batch.ops.as_slice(),
            _ => &[],
        })
    }
}

/// Collects the violations that the checks of one step find.
pub(crate) struct Findings<'a> {
    at: u64,
    me: usize,
    violations: &'a mut Vec<Violation>,
}

impl Findings<'_> {
    /// Adds a safety violation.
    pub(crate) fn safety_violation(&mut self, check: &'static str, text: String) {
        let (at, peer) = (self.at, Some(self.me));
        self.violations.push(Violation {
            class: Class::Safety,
            check,
            at,
            peer,
            text,
        });
    }

    /// Adds a safety violation unless `holds`.
    pub(crate) fn require(&mut self, holds: bool, check: &'static str, text: impl FnOnce() -> String) {
        if !holds {
            self.safety_violation(check, text());
        }
    }
}

/// All checkers, and the violations that they have found.
pub(crate) struct Checks {
    pub(crate) violations: Vec<Violation>,
    announcers: Announcers,
    answers: Answers,
    bounds: Bounds,
    commits: Commits,
    decisions: Decisions,
    election: Election,
    heard: Heard,
    ids: Ids,
    logs: Logs,
    metrics: Metrics,
    operations: Operations,
    planning: Planning,
    promises: Promises,
    rates: Rates,
    removed: Removed,
    surplus: Surplus,
}

impl Checks {
    /// Creates the checkers; `config` is the configuration of all peers.
    pub(crate) fn new(options: &Options, size: usize, config: &Config) -> Self {
        let allocate_by = &config.allocate_by;
        Self {
            violations: Vec::new(),
            announcers: Announcers::new(options, size),
            answers: Answers::new(options, allocate_by.clone()),
            bounds: Bounds::new(options, size),
            commits: Commits::new(size, options.shrink),
            decisions: Decisions::new(options, size, allocate_by.clone(), config.failover.chunk),
            election: Election::new(options, size),
            heard: Heard::new(size),
            ids: Ids::new(size),
            logs: Logs::new(size),
            metrics: Metrics::new(options, size),
            operations: Operations::new(options, size),
            planning: Planning::new(options),
            promises: Promises::default(),
            rates: Rates::new(size),
            removed: Removed::new(size),
            surplus: Surplus::new(options),
        }
    }

    /// Checks a process that has started from its disk.
    pub(crate) fn booted(&mut self, at: u64, me: usize, peers: &[Peer]) {
        let mut found = Findings {
            at,
            me,
            violations: &mut self.violations,
        };
        let store = &peers[me].disk.written;
        self.logs.booted(me, store);
        self.commits.booted(me, store, &mut found);
        self.promises.booted(me, store, &mut found);
        self.bounds.booted(me);
        self.election.booted(me, store);
        self.surplus.booted(me, store);
        self.heard.booted(me, store);
        self.decisions.booted(me);
        self.operations.booted(me, store);
        self.planning.booted(&store.members);
        self.ids.booted(me);
        self.metrics.booted(me);
        self.rates.booted(me);
        self.announcers.booted(me);
        self.removed.booted(me);
    }

    /// Records the loss of a peer's data folder, and with it of its promises: other peers ignore its old id.
    pub(crate) fn disk_lost(&mut self, me: usize) {
        self.promises.disk_lost(me);
    }

    /// Records that all members but `me` were lost, and that it founded a new cluster with `survivors`.
    pub(crate) fn rescued(&mut self, me: usize, survivors: BTreeSet<PeerId>, peers: &[Peer]) {
        let store = &peers[me].disk.written;
        self.logs.rescued(store);
        self.commits.rescued(&store.members, survivors);
    }

    /// Records the end of the faults.
    pub(crate) fn calm_down(&mut self) {
        self.commits.calm_down();
    }

    /// Returns whether a peer's log contains everything that was committed.
    pub(crate) fn is_complete(&self, store: &Store) -> bool {
        let latest = self.commits.history().last();
        latest.is_none_or(|latest| store.holds(latest.entry.index, latest.entry.term))
    }

    /// Records the end of a process.
    pub(crate) fn crashed(&mut self, me: usize) {
        self.ids.booted(me);
    }

    /// Runs all checks on one step.
    pub(crate) fn after_step(&mut self, step: &Step<'_>, coverage: &mut Coverage) {
        let mut found = Findings {
            at: step.at,
            me: step.me,
            violations: &mut self.violations,
        };
        let found = &mut found;
        self.heard.before_checks(step);
        let outcome = step
            .effects
            .iter()
            .find(|effect| matters(effect) && has_foreign_messages_only(step));
        found.require(outcome.is_none(), "strangers", || {
            format!("does {outcome:?} because another cluster's peer spoke")
        });
        self.ids.after_step(step, found);
        for op in step.writes() {
            self.logs.after_write(step, op, found);
            self.commits.after_write(step, op, &self.logs, found, coverage);
            members::after_write(step, op, found);
            releases::after_write(step, op, found, coverage);
            cover(op, coverage);
        }
        self.promises.after_step(step, found);
        if let Some(term) = self.election.after_step(step, found) {
            completeness::of_new_leader(step, term, &self.commits, found);
        }
        self.election.of_solitude(step, &self.heard, found);
        self.election.of_candidate(step, found);
        tracker::after_step(step, found);
        self.surplus
            .after_step(step, self.commits.model(), &self.heard, found);
        self.decisions.after_step(step, &self.heard, found);
        self.planning.after_step(step, &self.heard, found);
        self.metrics.after_step(step, &self.heard, found);
        self.rates.after_step(step, found);
        self.announcers.after_step(step, &self.heard, found);
        self.removed.after_step(step, found);
        self.answers.after_step(step, &self.heard, found);
        self.operations
            .after_step(step, &self.heard, self.commits.model(), found);
        self.bounds.after_step(step, found);
        self.heard.after_checks(step);
        sometimes!(
            coverage,
            step.events
                .iter()
                .any(|event| matches!(event, Event::Unreachable { .. })),
            "a peer was unreachable"
        );
    }

    /// Returns the highest index that any peer has applied.
    pub(crate) fn decided(&self) -> Index {
        self.commits.decided()
    }

    /// Checks a read that was served at `index`; `floor` had been decided when it was requested.
    pub(crate) fn read_served(&mut self, at: u64, me: usize, floor: Index, index: Index) {
        let mut found = Findings {
            at,
            me,
            violations: &mut self.violations,
        };
        reads::served(floor, index, &mut found);
    }

    /// Returns the wrong announcers of a pin whose holders all work.
    pub(crate) fn wrong_announcers(&self, at: u64, peers: &[Peer], pin: &Pin) -> Option<String> {
        self.announcers.wrong(at, peers, pin)
    }

    /// Returns the model of the pinset, which follows the log.
    pub(crate) fn model(&self) -> &Model {
        self.commits.model()
    }

    /// Returns the number of terms with a leader.
    pub(crate) fn elections(&self) -> u64 {
        self.election.count()
    }
}

/// Returns whether all events are messages of other clusters: of the one that the simulator makes up, or of
/// one that was lost.
fn has_foreign_messages_only(step: &Step<'_>) -> bool {
    let own = step.peer().disk.written.members.cluster;
    let is_other = |event: &Event| match event {
        Event::Received { envelope, .. } => {
            let is_known = own != ClusterId::UNKNOWN && envelope.cluster != ClusterId::UNKNOWN;
            is_known && envelope.cluster != own
        }
        _ => false,
    };
    step.events
        .iter()
        .all(|event| is_foreign(event) || is_other(event))
}

fn cover(op: &StoreOp, coverage: &mut Coverage) {
    match op {
        StoreOp::Compact { .. } => coverage.hit("the log was compacted"),
        StoreOp::InstallSnapshot { .. } => coverage.hit("a snapshot was installed"),
        StoreOp::PutLocal { local, .. } if local.attempts > 1 => {
            coverage.hit("an operation failed more than once");
        }
        StoreOp::SetMembers { .. } => coverage.hit("the membership was written"),
        _ => {}
    }
}
