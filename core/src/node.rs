//! The state machine of one peer. It owns the submachines, none of which knows another, and routes what comes
//! out of each to where it belongs.

mod receive;
mod route;
#[cfg(test)]
mod tests;
mod versions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::command::{Command, Outcome, Proposal};
use crate::config::Config;
use crate::decide::{Choice, Decision, decide};
use crate::draft::Draft;
use crate::effect::{Batch, Effect, Refusal, Reply, StoreOp};
use crate::event::{Event, Request};
use crate::failover::Failover;
use crate::ids::{BatchId, Incarnation, PeerId, RaftId, Ticket};
use crate::membership::{Membership, Plan, Planner, Progress};
use crate::metric::Metric;
use crate::monitor::{self, Monitor};
use crate::pending::Pending;
use crate::pin::{PinOptions, Replicas};
use crate::pinset::{Change, Pinset};
use crate::planted::planted;
use crate::raft::{self, Identity, Raft, Recovered};
use crate::requests::{self, Requests};
use crate::time::{Instant, Now};
use crate::tracker::{self, Tracker};
use crate::view::PinsetView;
use crate::wire::{Envelope, Message, newest};

pub use self::view::{Counters, View};

/// On whose behalf [`Node::poll_timeout`] asks for a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Pins to repair or to remove.
    Failover,
    /// Members to add, to replace or to remove.
    Membership,
    /// Metrics to read, to send or to miss.
    Monitor,
    /// Raft's clock.
    Raft,
    /// Clients to answer, proposals to repeat.
    Requests,
    /// Operations that are stuck or due.
    Tracker,
}

/// Most proposals that share a message to the leader: some 20 KiB of usual pins. Large ones share it by their
/// bytes.
const MESSAGE_PROPOSALS: usize = 128;

/// Rounds of routing that one event may cause. Far above what happens; a loop between submachines is a bug.
const ROUNDS_MAX: usize = 10_000;

/// A cluster member, as a pure function of the events it is given.
pub struct Node {
    config: Config,
    incarnation: Incarnation,
    next_batch: BatchId,
    raft: Raft,
    pinset: Pinset,
    tracker: Tracker,
    monitor: Monitor,
    failover: Failover,
    planner: Planner,
    requests: Requests,
    /// As whom Raft goes on once no write is under way: this peer's Raft id is spent.
    retiring: Option<Identity>,
    /// Proposals that wait until the leader's last write is durable, to share the next one.
    pending: Pending,
    /// Members whose incarnation this leader has asked to record.
    admitting: BTreeSet<RaftId>,
    /// What members have said that they read, while this peer could write more than all have agreed on.
    versions: BTreeMap<PeerId, u8>,
    counters: Counters,
}

/// What one call of `handle` has come to so far.
struct Step<'a, V> {
    now: Now,
    draft: Draft<'a, V>,
    effects: Vec<Effect>,
    raft: Vec<raft::Output>,
    requests: Vec<requests::Output>,
    tracker: Vec<tracker::Output>,
    monitor: Vec<monitor::Output>,
}

impl Node {
    /// `recovered` is what was durable; `seed` feeds every random choice.
    ///
    /// # Panics
    ///
    /// If `recovered` is the founding of a cluster that this peer is not in, or the limits of `config` accept
    /// what
    /// does not fit into a message.
    pub fn new(config: Config, recovered: Recovered, seed: u64, now: Now) -> Self {
        assert!(
            config.limits.is_consistent(),
            "what is accepted can be replicated"
        );
        let raft = Raft::new(&config, &recovered, seed, now);
        let Recovered {
            incarnation,
            boot,
            applied,
            windows,
            reconciling,
            ..
        } = recovered;
        Self {
            incarnation,
            next_batch: BatchId(1),
            raft,
            pinset: Pinset::new(applied, windows),
            tracker: Tracker::new(config.peer.clone(), &config.tracker, reconciling, seed, now),
            monitor: Monitor::new(config.peer.clone(), &config.monitor, now),
            failover: Failover::new(&config.failover),
            planner: Planner::new(
                &config.membership,
                config.raft.tick * config.raft.election_ticks * 2,
            ),
            retiring: None,
            requests: Requests::new(&config.requests, config.limits.open_bytes, boot),
            pending: Pending::new(&config.limits),
            admitting: BTreeSet::new(),
            versions: BTreeMap::new(),
            counters: Counters::default(),
            config,
        }
    }

    /// The only mutation. Every returned effect may be started at once. `view` must show all that earlier
    /// calls returned in `Persist`.
    #[must_use]
    pub fn handle<V: PinsetView>(&mut self, now: Now, view: &V, event: Event) -> Vec<Effect> {
        self.handle_all(now, view, [event])
    }

    /// As [`Node::handle`], for all that has happened meanwhile, in that order: what it comes to is written
    /// as one batch and proposed as one entry.
    ///
    /// # Panics
    ///
    /// If an event that [goes alone](Event::goes_alone) is not the only one.
    #[must_use]
    pub fn handle_all<V: PinsetView>(
        &mut self,
        now: Now,
        view: &V,
        events: impl IntoIterator<Item = Event>,
    ) -> Vec<Effect> {
        let mut step = Step {
            now,
            draft: Draft::new(view),
            effects: Vec::new(),
            raft: Vec::new(),
            requests: Vec::new(),
            tracker: Vec::new(),
            monitor: Vec::new(),
        };
        self.tracker.read_on(view);
        let applied = self.pinset.applied();
        let mut events = events.into_iter().peekable();
        let mut first = true;
        while let Some(event) = events.next() {
            let last = events.peek().is_none();
            assert!(first && last || !event.goes_alone(), "goes alone: {event:?}");
            self.take(&mut step, event);
            if !(first && last) {
                // Proposals wait for those that come with them.
                self.settle(&mut step, false);
            }
            first = false;
        }
        self.settle(&mut step, true);
        if !self.raft.is_installing() {
            self.tracker.start(now, &mut step.draft, &mut step.tracker);
        }
        self.route_tracker(&mut step);
        if self.pinset.applied() != applied {
            let behind = planted!(AppliedApart);
            let applied = if behind { applied } else { self.pinset.applied() };
            step.draft.ops.push(StoreOp::SetApplied { applied });
            step.draft.ops.extend(self.raft.applied(applied));
        }
        self.finish(step)
    }

    fn finish<V>(&mut self, step: Step<'_, V>) -> Vec<Effect> {
        let Step {
            draft: Draft { ops, sync, .. },
            mut effects,
            ..
        } = step;
        if !ops.is_empty() {
            effects.insert(
                0,
                Effect::Persist(Batch {
                    id: self.next_batch,
                    ops,
                    sync,
                }),
            );
            self.next_batch.0 += 1;
        }
        effects
    }

    fn take<V: PinsetView>(&mut self, step: &mut Step<'_, V>, event: Event) {
        let now = step.now;
        match event {
            Event::IpfsCompared { op, outcome } => self.tracker.compared(now, op, outcome, &mut step.tracker),
            Event::IpfsFinished { op, outcome } => self.tracker.finished(now, &mut step.draft, op, outcome),
            Event::IpfsLacks { op, missing } => self.tracker.lacks(now, &mut step.draft, op, missing),
            Event::IpfsProgressed { op } => self.tracker.progressed(now, op),
            Event::Measured { metrics } => {
                let told = self.membership() != Membership::Removed;
                let members = self.raft.members().peer_ids().filter(|_| told);
                self.monitor.measured(now, metrics, members, &mut step.monitor);
                self.requests.heard_metrics(&mut step.requests);
                self.raise_version();
            }
            Event::Persisted { batch } => self.raft.persisted(batch, &mut step.raft),
            Event::Received { from, envelope } => self.received(step, from, envelope),
            Event::Requested { ticket, request } => self.requested(step, ticket, request),
            Event::SnapshotReceived {
                from,
                snapshot,
                manifest,
                message,
            } => {
                self.raft
                    .receive_snapshot(&from, snapshot, manifest, message, &mut step.raft);
            }
            Event::SnapshotSent { to, delivered } => self.raft.snapshot_sent(&to, delivered),
            Event::TimedOut => self.timed_out(step),
            Event::Unreachable { peer } => {
                self.raft.unreachable(&peer);
                self.monitor.unreachable(now, peer);
            }
        }
    }

    fn requested<V: PinsetView>(&mut self, step: &mut Step<'_, V>, ticket: Ticket, request: Request) {
        let now = step.now;
        let reply = match &request {
            Request::Recover { cid } => {
                let recovered = self.tracker.recover(now, &mut step.draft, cid);
                Ok(Reply::Recovered(u64::from(recovered)))
            }
            Request::RecoverAll => {
                self.tracker.recover_all();
                Ok(Reply::Recovered(0))
            }
            Request::Sync { cid } => {
                let patience = self.config.requests.deadline;
                self.tracker
                    .sync(now, ticket, cid.clone(), patience, &mut step.tracker);
                return;
            }
            Request::AddPeer { .. }
            | Request::Allocate { .. }
            | Request::Barrier
            | Request::Import { .. }
            | Request::Pin { .. }
            | Request::RemovePeer { .. }
            | Request::Unpin { .. } => match self.membership() {
                Membership::Joining | Membership::Removed => Err(Refusal::NotMember),
                Membership::Learner | Membership::Voter => {
                    self.requests.open(now, ticket, request, &mut step.requests);
                    return;
                }
            },
        };
        step.effects.push(Effect::Reply { ticket, reply });
    }

    fn timed_out<V: PinsetView>(&mut self, step: &mut Step<'_, V>) {
        let now = step.now;
        self.raft.handle_timeout(now);
        self.monitor.handle_timeout(now, &mut step.monitor);
        self.requests.handle_timeout(now, &mut step.requests);
        self.plan(now);
        let members = self.raft.members();
        let voters = members.voters.iter().filter_map(|id| members.peer(*id));
        let time = self.monitor.cluster_time(now, voters);
        if let Some(time) = time {
            self.monitor.judge_clocks(now, time);
        }
        let index = self.pinset.applied().index;
        self.tracker
            .handle_timeout(now, &mut step.draft, index, &mut step.tracker);
        if self.failover.poll_timeout().is_some_and(|at| at <= now.mono) {
            let down = self.down(now);
            let candidates = self.monitor.candidates(now.mono, &self.config.allocate_by);
            let view = step.draft.view;
            let mut commands = Vec::new();
            let gone = &self.raft.members().departed;
            self.failover
                .handle_timeout(now, time, view, (&down, gone), &candidates, &mut commands);
            let origin = self.raft.id();
            for command in commands {
                if !self.pending.is_full() {
                    let proposal = self.requests.mint(origin, command);
                    self.pending.push(proposal);
                }
            }
        }
    }

    /// The members that have been silent for longer than the grace period, and who is no member any more.
    fn down(&self, now: Now) -> BTreeSet<PeerId> {
        let Some(leading) = self.failover.leading() else {
            return BTreeSet::new();
        };
        let grace = if planted!(FailoverWithoutGrace) {
            Duration::ZERO
        } else {
            self.failover.grace()
        };
        let is_down =
            |peer: &&PeerId| self.failover.is_enabled() && self.monitor.silence(now, peer, leading) > grace;
        let members = self.raft.members();
        let silent = members.peer_ids().filter(is_down);
        silent.chain(&members.departed).cloned().collect()
    }

    /// A leader takes the next step towards the membership that should be.
    fn plan(&mut self, now: Now) {
        let id = self.raft.id();
        let own = self.raft.members().peers.get(&id);
        if own.is_some_and(|own| own.incarnation.is_none()) {
            self.admit(id, self.incarnation);
        }
        let Self { planner, raft, .. } = self;
        let progress = || Progress {
            committed: raft.committed(),
            matched: raft.all_matched(),
        };
        match planner.handle_timeout(now, raft.members(), raft.id(), progress) {
            // A change that cannot be proposed now is planned again.
            Some(Plan::Change(change)) => drop(raft.propose_members(&change)),
            Some(Plan::Transfer(to)) => raft.transfer(to),
            None => {}
        }
    }

    /// Routes until nothing comes out any more; proposes what waits if `flush`.
    fn settle<V: PinsetView>(&mut self, step: &mut Step<'_, V>, flush: bool) {
        for _ in 0..ROUNDS_MAX {
            if flush {
                self.flush();
            }
            self.raft.drain(self.next_batch, &mut step.raft);
            self.route_raft(step);
            self.route_requests(step);
            self.route_monitor(step);
            self.route_tracker(step);
            let quiet = step.raft.is_empty() && step.requests.is_empty();
            let flushed = !flush || !self.can_flush();
            if quiet && !self.raft.has_ready() && flushed && !self.retire(step) {
                self.failover.lead(step.now, self.raft.leads());
                self.planner.lead(step.now, self.raft.leads());
                return;
            }
        }
        panic!("the submachines keep each other busy");
    }

    fn can_flush(&self) -> bool {
        !self.pending.is_empty() && self.raft.leads() && !self.raft.awaits_disk()
    }

    /// Proposes what waits, unless a write is under way: what comes meanwhile shares the next one.
    fn flush(&mut self) {
        self.hold_back_the_future();
        while self.can_flush() {
            let entry = self.pending.next_entry();
            let count = entry.len();
            if !self.raft.propose(entry) {
                // Raft is full, or hands its leadership over: whoever waits proposes again.
                self.pending.clear();
                self.admitting.clear();
                return;
            }
            self.pending.advance(count);
        }
    }

    fn envelope(&self, message: Message) -> Envelope {
        Envelope {
            cluster: self.raft.members().cluster,
            incarnation: self.incarnation,
            addressee: None,
            version: newest(),
            message,
        }
    }

    /// When to deliver `Event::TimedOut`, and on whose behalf.
    pub fn poll_timeout(&self, now: Now) -> Option<(Instant, Timer)> {
        // While a snapshot is being installed the tracker starts nothing: asking for its turn would not end.
        let tracker = if self.raft.is_installing() {
            None
        } else {
            self.tracker.poll_timeout(now)
        };
        [
            (Some(self.raft.poll_timeout()), Timer::Raft),
            (self.planner.poll_timeout(), Timer::Membership),
            (Some(self.monitor.poll_timeout()), Timer::Monitor),
            (self.requests.poll_timeout(), Timer::Requests),
            (tracker, Timer::Tracker),
            (self.failover.poll_timeout(), Timer::Failover),
        ]
        .into_iter()
        .filter_map(|(at, timer)| at.map(|at| (at, timer)))
        .min()
    }

    /// A read-only view for the API, the simulator and the logs.
    pub fn view(&self) -> View<'_> {
        View { node: self }
    }

    /// Panics if an invariant between submachines is broken.
    pub fn check(&self) {
        self.requests.check();
        self.tracker.check();
        assert!(
            self.pinset.applied().index <= self.raft.committed(),
            "applies only what is committed"
        );
        self.pending.check();
    }
}
