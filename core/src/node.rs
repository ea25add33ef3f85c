//! The state machine of one peer. It owns the submachines (`raft`, `pinset`, `tracker`, `monitor`,
//! `failover`, `membership`, `requests`), dispatches events to them and routes their outputs. No submachine
//! knows another.

mod moves;
mod receive;
mod route;
#[cfg(test)]
mod tests;
mod versions;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::Config;
use crate::draft::Draft;
use crate::drainer::Drainer;
use crate::effect::{Batch, Effect, Refusal, Reply, StoreOp};
use crate::event::{Event, Request};
use crate::failover::Failover;
use crate::ids::{BatchId, Incarnation, PeerId, RaftId, Term, Ticket};
use crate::membership::{Membership, Plan, Planner, Progress};
use crate::monitor::{self, Monitor};
use crate::pending::Pending;
use crate::pinset::Pinset;
use crate::planted::planted;
use crate::raft::{self, Raft};
use crate::rebalancer::Rebalancer;
use crate::records::{Identity, Recovered};
use crate::requests::{self, Requests};
use crate::time::{Instant, Now};
use crate::tracker::{self, Tracker};
use crate::view::PinsetView;
use crate::wire::{Envelope, Message};

pub use self::view::{Counters, View};

/// Submachine that a deadline of [`Node::poll_timeout`] belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// Moves the pins of this peer to others, while it is being drained.
    Drain,
    /// Searches pins to re-allocate or to remove.
    Failover,
    /// Plans membership changes.
    Membership,
    /// Measures and sends metrics, and notices expired ones.
    Monitor,
    /// Drives Raft's ticks.
    Raft,
    /// Moves copies of this peer to others, to even out their numbers.
    Rebalance,
    /// Expires client requests and repeats proposals.
    Requests,
    /// Cancels stuck operations and starts queued ones.
    Tracker,
}

/// Maximum number of proposals in one message to the leader: about 20 KiB of average pins. Large ones are
/// limited by bytes.
const MESSAGE_PROPOSALS: usize = 128;

/// Maximum number of rounds of routing per event. Far above any real number: only a loop between submachines
/// exceeds it.
const ROUNDS_MAX: usize = 10_000;

/// A cluster peer, as a pure function of the events it is given.
pub struct Node {
    config: Config,
    incarnation: Incarnation,
    next_batch: BatchId,
    raft: Raft,
    pinset: Pinset,
    tracker: Tracker,
    monitor: Monitor,
    failover: Failover,
    drainer: Drainer,
    rebalancer: Rebalancer,
    planner: Planner,
    requests: Requests,
    /// Identity to restart Raft under once no write is in flight; the current Raft id is retired.
    retiring: Option<Identity>,
    /// Proposals that wait for the leader's last write to become durable, to share the next log entry.
    pending: Pending,
    /// Members whose incarnation this leader has proposed to record.
    admitting: BTreeSet<RaftId>,
    /// Versions that members have announced, while this peer could write a later one than all have agreed on.
    versions: BTreeMap<PeerId, u8>,
    /// Term in which this leader has looked whether the version can be raised.
    raised_in: Option<Term>,
    counters: Counters,
}

/// Accumulates the effects and submachine outputs of one `handle` call.
struct Step<'a, V> {
    now: Now,
    draft: Draft<'a, V>,
    effects: Vec<Effect>,
    /// Encoded bytes of the proposals in the last effect, if that is a `Message::Propose`.
    forwarded_bytes: usize,
    raft: Vec<raft::Output>,
    requests: Vec<requests::Output>,
    tracker: Vec<tracker::Output>,
    monitor: Vec<monitor::Output>,
}

impl Node {
    /// Creates a peer from its `recovered` state. `seed` determines all random choices.
    ///
    /// # Panics
    ///
    /// If this peer is not a member of the cluster that `recovered` founds, or if the limits of `config`
    /// accept pins that do not fit into a message.
    pub fn new(config: Config, recovered: Recovered, seed: u64, now: Now) -> Self {
        assert!(config.limits.is_consistent(), "accepted pins fit into messages");
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
            drainer: Drainer::new(config.peer.clone(), config.failover.chunk),
            rebalancer: Rebalancer::new(
                config.peer.clone(),
                config.failover.chunk,
                config.monitor.interval,
            ),
            planner: Planner::new(
                &config.membership,
                config.raft.tick * config.raft.election_ticks * 2,
            ),
            retiring: None,
            requests: Requests::new(&config.requests, config.limits.open_bytes, boot),
            pending: Pending::new(&config.limits),
            admitting: BTreeSet::new(),
            versions: BTreeMap::new(),
            raised_in: None,
            counters: Counters::default(),
            config,
        }
    }

    /// Handles one event. Every returned effect may be started at once. `view` must include all batches of
    /// earlier calls.
    #[must_use]
    pub fn handle<V: PinsetView>(&mut self, now: Now, view: &V, event: Event) -> Vec<Effect> {
        self.handle_all(now, view, [event])
    }

    /// Handles several events in order, with one batch and one log entry for all. Otherwise as
    /// [`Node::handle`].
    ///
    /// # Panics
    ///
    /// If one of several events [must be handled alone](Event::is_exclusive).
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
            forwarded_bytes: 0,
            raft: Vec::new(),
            requests: Vec::new(),
            tracker: Vec::new(),
            monitor: Vec::new(),
        };
        if !self.drainer.is_loaded() {
            let policy = view.policy();
            self.drainer.load(now, policy.drains);
            self.rebalancer.load(now, policy.rebalance);
        }
        self.tracker.refill_queues(view);
        let applied = self.pinset.applied();
        let mut events = events.into_iter().peekable();
        let mut first = true;
        while let Some(event) = events.next() {
            let last = events.peek().is_none();
            assert!(
                first && last || !event.is_exclusive(),
                "must be handled alone: {event:?}"
            );
            self.dispatch(&mut step, event);
            if !(first && last) {
                // Proposals wait for those of the other events.
                self.settle(&mut step, false);
            }
            first = false;
        }
        self.settle(&mut step, true);
        if !self.raft.is_installing() {
            let Self { tracker, monitor, .. } = self;
            let is_alive = |peer: &PeerId| monitor.is_alive(now.mono, peer);
            tracker.start_ops(now, &mut step.draft, is_alive, &mut step.tracker);
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

    fn dispatch<V: PinsetView>(&mut self, step: &mut Step<'_, V>, event: Event) {
        let now = step.now;
        match event {
            Event::IpfsCompared { op, outcome } => self.tracker.compared(now, op, outcome, &mut step.tracker),
            Event::IpfsFinished { op, outcome } => {
                self.tracker
                    .finished(now, &mut step.draft, (op, outcome), &mut step.tracker);
            }
            Event::IpfsLacks { op, missing } => {
                self.tracker.requeue_missing(now, &mut step.draft, op, missing)
            }
            Event::IpfsProgressed { op } => self.tracker.progressed(now, op),
            Event::Measured { metrics } => {
                let is_member = self.membership() != Membership::Removed;
                let members = self.raft.members().peer_ids().filter(|_| is_member);
                self.monitor.measured(now, metrics, members, &mut step.monitor);
                self.requests.metrics_changed(&mut step.requests);
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
                let timeout = self.config.requests.deadline;
                self.tracker
                    .sync(now, ticket, cid.clone(), timeout, &mut step.tracker);
                return;
            }
            Request::AddPeer { .. }
            | Request::Allocate { .. }
            | Request::Barrier
            | Request::CreateCredential { .. }
            | Request::Drain { .. }
            | Request::EndDrain { .. }
            | Request::Import { .. }
            | Request::Pin { .. }
            | Request::Rebalance { .. }
            | Request::RemovePeer { .. }
            | Request::RevokeCredential { .. }
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
        self.raise_version_as_new_leader();
        let members = self.raft.members();
        let voters = members.voters.iter().filter_map(|id| members.peer(*id));
        let time = self.monitor.cluster_time(now, voters);
        if let Some(time) = time {
            self.monitor.check_clocks(now, time);
        }
        let index = self.pinset.applied().index;
        self.tracker
            .handle_timeout(now, &mut step.draft, index, &mut step.tracker);
        if self.failover.poll_timeout().is_some_and(|at| at <= now.mono) {
            let down = self.down(now);
            let candidates = self.pool(now).candidates;
            let view = step.draft.view;
            let mut commands = Vec::new();
            let gone = &self.raft.members().departed;
            self.failover
                .handle_timeout(now, time, view, (&down, gone), &candidates, &mut commands);
            commands.extend(self.ended_drains());
            commands.extend(self.ended_run(now));
            let origin = self.raft.id();
            for command in commands {
                if !self.pending.is_full() {
                    let proposal = self.requests.mint(origin, command);
                    self.pending.push(proposal);
                }
            }
        }
        self.drain(step);
        self.rebalance(step);
    }

    /// Returns the other members that have been silent for longer than the grace period, and all former
    /// members. This peer is alive, even if a pause of its process has let its own metrics expire.
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
        let others = members.peer_ids().filter(|peer| **peer != self.config.peer);
        let silent = others.filter(is_down);
        silent.chain(&members.departed).cloned().collect()
    }

    /// Carries out the next planned membership change, on the leader.
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
            // If it cannot be proposed now, it is planned again.
            Some(Plan::Change(change)) => drop(raft.propose_members(&change)),
            Some(Plan::Transfer(to)) => raft.transfer(to),
            None => {}
        }
    }

    /// Routes outputs until there are none. Proposes pending proposals if `flush`.
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
        panic!("outputs remain after {ROUNDS_MAX} rounds: the submachines loop");
    }

    fn can_flush(&self) -> bool {
        !self.pending.is_empty() && self.raft.leads() && !self.raft.awaits_disk()
    }

    /// Proposes pending proposals, unless a write is in flight: those that arrive meanwhile share the next
    /// one.
    fn flush(&mut self) {
        self.drop_unreadable_proposals();
        while self.can_flush() {
            let entry = self.pending.next_entry();
            let count = entry.len();
            if !self.raft.propose(entry) {
                // Raft's queue is full or the leadership is being transferred. Their owners propose them
                // again.
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
            version: self.config.version,
            message,
        }
    }

    /// Returns when to deliver `Event::TimedOut`, and for which submachine.
    pub fn poll_timeout(&self, now: Now) -> Option<(Instant, Timer)> {
        // The tracker starts nothing while a snapshot is being installed: its deadline would fire in a loop.
        let tracker = if self.raft.is_installing() {
            None
        } else {
            self.tracker.poll_timeout(now)
        };
        let is_removed = self.membership() == Membership::Removed;
        let drain = self.drainer.poll_timeout().filter(|_| !is_removed);
        let rebalance = self.rebalancer.poll_timeout().filter(|_| !is_removed);
        [
            (Some(self.raft.poll_timeout()), Timer::Raft),
            (self.planner.poll_timeout(), Timer::Membership),
            (Some(self.monitor.poll_timeout()), Timer::Monitor),
            (self.requests.poll_timeout(), Timer::Requests),
            (tracker, Timer::Tracker),
            (self.failover.poll_timeout(), Timer::Failover),
            (drain, Timer::Drain),
            (rebalance, Timer::Rebalance),
        ]
        .into_iter()
        .filter_map(|(at, timer)| at.map(|at| (at, timer)))
        .min()
    }

    /// Returns a read-only view, for the API, the simulator and the logs.
    pub fn view(&self) -> View<'_> {
        View { node: self }
    }

    /// Checks the invariants.
    ///
    /// # Panics
    ///
    /// If an invariant within or between submachines is broken.
    pub fn check(&self) {
        self.requests.check();
        self.tracker.check();
        assert!(
            self.pinset.applied().index <= self.raft.committed(),
            "applied entries are committed"
        );
        self.pending.check();
    }
}
