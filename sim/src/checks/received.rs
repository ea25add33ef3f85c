//! Record of the messages that each process received: the samples of every metric, the data folders of the
//! sending members, and the start of its leadership. Other checks decide from this record, not from the
//! core's state.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::{
    Cid, ClusterId, Drain, Effect, Envelope, Event, Incarnation, Index, Instant, IpfsAction, IpfsError,
    Member, Members, Message, Metric, Now, OpId, PING, PeerId, Policy, RaftId, Rebalance, Request, StoreOp,
    Ticket,
};

use super::Step;
use crate::store::Store;

/// Metric with the wall clock of its sender.
pub(super) const CLOCK: &str = "clock";

/// A received metric.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) metric: Metric,
    pub(super) at: Instant,
    /// True unless the membership changed in the same step, so that it may not have counted.
    certain: bool,
}

impl Sample {
    pub(super) fn expires(&self) -> Instant {
        self.at + self.metric.ttl
    }

    /// Returns whether its sender was certainly a member when it arrived.
    pub(super) fn is_certain(&self) -> bool {
        self.certain
    }

    fn is_living(&self, now: Now) -> bool {
        self.metric.valid && self.expires() > now.mono
    }
}

/// Messages of one sender to a process.
#[derive(Debug, Clone, Default)]
pub(super) struct Sender {
    /// Samples of each metric from this step, the newest last.
    samples: BTreeMap<String, Vec<Sample>>,
    /// The last message from the recorded data folder.
    last: Option<Instant>,
    /// Messages from another data folder since then: which one, the first and the last.
    other: Option<(Incarnation, Instant, Instant)>,
}

/// Messages and requests that one process received.
#[derive(Debug, Clone, Default)]
pub(super) struct Process {
    pub(super) started: Option<Instant>,
    /// Since when it leads, before this step and after it.
    pub(super) leads_since: [Option<Instant>; 2],
    /// The membership before this step.
    pub(super) before: ByPeer,
    /// Requests of clients that were open at some moment of this step, and their times of arrival.
    pub(super) tickets: BTreeMap<Ticket, (Request, Instant)>,
    senders: BTreeMap<PeerId, Sender>,
    /// Senders of the metrics that arrived in the last step.
    fresh: BTreeSet<PeerId>,
    /// Peers that were being drained at every moment of this step.
    drained: BTreeSet<PeerId>,
    /// Drains at some moment of this step.
    drains: Vec<Drain>,
    /// States of the rebalancing at some moment of this step.
    rebalances: Vec<Rebalance>,
    /// CIDs of the operations that were started at the IPFS node.
    ops: BTreeMap<OpId, Cid>,
    /// CIDs for which the IPFS node had no room in this step.
    outgrown: BTreeSet<Cid>,
    /// Peers that have said which version of a pin they hold.
    confirmed: BTreeMap<(Cid, Index), BTreeSet<PeerId>>,
}

/// Members by identity, with their Raft ids and recorded data folders.
pub(super) type ByPeer = BTreeMap<PeerId, (RaftId, Option<Incarnation>)>;

/// All processes.
#[derive(Debug)]
pub(super) struct Heard {
    processes: Vec<Process>,
}

/// Returns the newest Raft id of a peer, and its record.
pub(super) fn member<'a>(members: &'a Members, peer: &PeerId) -> Option<(RaftId, &'a Member)> {
    let mut all = members.peers.iter().filter(|(_, member)| member.peer == *peer);
    all.next_back().map(|(id, member)| (*id, member))
}

/// Returns whether a peer of a cluster accepts a message: one of the same cluster, a `Hello` of a peer that
/// is in none yet, or anything while it is in none itself.
fn is_taken(cluster: ClusterId, envelope: &Envelope) -> bool {
    let is_greeting = envelope.cluster == ClusterId::UNKNOWN && envelope.message == Message::Hello;
    envelope.cluster == cluster || cluster == ClusterId::UNKNOWN || is_greeting
}

fn by_peer(members: &Members) -> ByPeer {
    let all = members.peers.iter();
    all.map(|(id, member)| (member.peer.clone(), (*id, member.incarnation)))
        .collect()
}

pub(super) fn changes_members(step: &Step<'_>) -> bool {
    let is_change = |op: &StoreOp| matches!(op, StoreOp::SetMembers { .. } | StoreOp::InstallSnapshot { .. });
    step.writes().any(is_change)
}

impl Heard {
    pub(super) fn new(size: usize) -> Self {
        Self {
            processes: vec![Process::default(); size],
        }
    }

    pub(super) fn of(&self, me: usize) -> &Process {
        &self.processes[me]
    }

    pub(super) fn booted(&mut self, me: usize, store: &Store) {
        self.processes[me] = Process {
            before: by_peer(&store.members),
            drained: drained(&store.policy),
            drains: store.policy.drains.clone(),
            rebalances: vec![store.policy.rebalance.clone()],
            ..Process::default()
        };
    }

    /// Records the events of a step, before other checks run.
    pub(super) fn before_checks(&mut self, step: &Step<'_>) {
        let process = &mut self.processes[step.me];
        let now = step.now.mono;
        process.started.get_or_insert(now);
        for peer in std::mem::take(&mut process.fresh) {
            let sender = process.senders.get_mut(&peer);
            for samples in sender.into_iter().flat_map(|sender| sender.samples.values_mut()) {
                samples.drain(..samples.len().saturating_sub(1));
            }
        }
        if changes_members(step) {
            // The metrics of a peer that was removed within the step are dropped, even if it was added again.
            let samples = process
                .senders
                .values_mut()
                .flat_map(|sender| sender.samples.values_mut());
            samples.flatten().for_each(|sample| sample.certain = false);
        }
        let leads = step.peer().is_ready_leader();
        process.leads_since[1] = leads.then(|| process.leads_since[0].unwrap_or(now));
        process.note_policies(step);
        let cluster = step.peer().disk.written.members.cluster;
        for event in step.events {
            match event {
                Event::Received { from, envelope } if is_taken(cluster, envelope) => {
                    process.received(step, from, envelope.incarnation, &envelope.message);
                }
                Event::Measured { metrics } => process.note(&step.peer().id, now, metrics, true),
                Event::Requested { ticket, request } => {
                    process.tickets.insert(*ticket, (request.clone(), now));
                }
                Event::IpfsFinished { op, outcome } => {
                    let cid = process.ops.remove(op);
                    let is_full = matches!(outcome, Err(IpfsError::Full(_)));
                    process.outgrown.extend(cid.filter(|_| is_full));
                }
                _ => {}
            }
        }
    }

    /// Drops records that no longer count after a step.
    pub(super) fn after_checks(&mut self, step: &Step<'_>) {
        let process = &mut self.processes[step.me];
        process.leads_since[0] = process.leads_since[1];
        let policy = &step.peer().disk.written.policy;
        process.drained = drained(policy);
        process.drains.clone_from(&policy.drains);
        process.rebalances = vec![policy.rebalance.clone()];
        process.outgrown.clear();
        for effect in step.effects {
            match effect {
                Effect::Reply { ticket, .. } => drop(process.tickets.remove(ticket)),
                Effect::StartIpfs { op, action } => {
                    let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
                    process.ops.insert(*op, cid.clone());
                }
                _ => {}
            }
        }
        if changes_members(step) {
            let members = by_peer(&step.peer().disk.written.members);
            let own = &step.peer().id;
            if !members.is_empty() {
                process
                    .senders
                    .retain(|peer, _| peer == own || members.contains_key(peer));
            }
            // A peer measures also while it is not a member, and may keep the result or not (seed 100146).
            if let Some(sender) = process
                .senders
                .get_mut(own)
                .filter(|_| !members.contains_key(own))
            {
                let samples = sender.samples.values_mut().flatten();
                samples.for_each(|sample| sample.certain = false);
            }
            // Messages under an earlier Raft id say nothing about the new one.
            for (peer, sender) in &mut process.senders {
                let id = |members: &ByPeer| members.get(peer).map(|(id, _)| *id);
                if id(&process.before) != id(&members) {
                    sender.last = None;
                    sender.other = None;
                }
            }
            process.before = members;
        }
    }
}

fn drained(policy: &Policy) -> BTreeSet<PeerId> {
    policy.drains.iter().map(|drain| drain.peer.clone()).collect()
}

impl Process {
    /// Takes the changes of the policy within a step into account.
    fn note_policies(&mut self, step: &Step<'_>) {
        let changes = step.writes().filter_map(|op| match op {
            StoreOp::SetPolicy { policy } => Some(policy),
            StoreOp::InstallSnapshot { .. } => Some(&step.peer().disk.written.policy),
            _ => None,
        });
        for policy in changes {
            let peers = drained(policy);
            self.drained.retain(|peer| peers.contains(peer));
            self.drains.extend_from_slice(&policy.drains);
            self.rebalances.push(policy.rebalance.clone());
        }
    }

    /// Returns whether a peer was being drained at some moment of this step.
    pub(super) fn may_be_drained(&self, peer: &PeerId) -> bool {
        self.drains.iter().any(|drain| drain.peer == *peer)
    }

    /// Returns whether the IPFS node of this peer had no room for a CID in this step.
    pub(super) fn has_outgrown(&self, cid: &Cid) -> bool {
        self.outgrown.contains(cid)
    }

    /// Returns whether an operation on a CID whose end the process has not seen was under way before this
    /// step.
    pub(super) fn operates_on(&self, cid: &Cid) -> bool {
        self.ops.values().any(|other| other == cid)
    }

    /// Returns the states of the rebalancing at some moment of this step.
    pub(super) fn rebalances(&self) -> &[Rebalance] {
        &self.rebalances
    }

    /// Returns the highest number of moves that the drain of a peer, or the rebalancing, permitted at some
    /// moment of this step.
    pub(super) fn moves_max(&self, peer: &PeerId) -> usize {
        let drains = self.drains.iter().filter(|drain| drain.peer == *peer);
        let drained = drains.map(|drain| drain.moves_max);
        let settings = self.rebalances.iter().map(|state| state.settings);
        let rebalanced = settings.map(|settings| settings.moves_max.min(settings.moves_total_max).max(1));
        drained.chain(rebalanced).max().unwrap_or(0) as usize
    }

    fn received(&mut self, step: &Step<'_>, from: &PeerId, folder: Incarnation, message: &Message) {
        let now = step.now.mono;
        let after = member(&step.peer().disk.written.members, from).map(|(_, member)| member.incarnation);
        let before = self.before.get(from).map(|(_, folder)| *folder);
        let is_recorded = |known: Option<Option<Incarnation>>| {
            known.is_some_and(|known| known.is_none_or(|known| known == folder))
        };
        let certain = is_recorded(before) && is_recorded(after);
        if let Message::Metrics(metrics) = message
            && (is_recorded(before) || is_recorded(after))
        {
            self.note(from, now, metrics, certain);
        }
        if let Message::HasCopies(copies) = message {
            for copy in copies {
                let confirmed = self
                    .confirmed
                    .entry((copy.cid.clone(), copy.version))
                    .or_default();
                confirmed.insert(from.clone());
            }
        }
        if certain {
            let sender = self.senders.entry(from.clone()).or_default();
            sender.last = Some(now);
            sender.other = None;
        } else if before.is_some() || after.is_some() {
            let sender = self.senders.entry(from.clone()).or_default();
            match &mut sender.other {
                Some((other, _, last)) if *other == folder => *last = now,
                other => *other = Some((folder, now, now)),
            }
        }
    }

    fn note(&mut self, from: &PeerId, at: Instant, metrics: &[Metric], certain: bool) {
        self.fresh.insert(from.clone());
        let sender = self.senders.entry(from.clone()).or_default();
        for metric in metrics {
            let samples = sender.samples.entry(metric.name.clone()).or_default();
            let metric = metric.clone();
            samples.push(Sample { metric, at, certain });
        }
    }

    /// Returns the samples of a metric that may have been the newest at some moment of this step.
    pub(super) fn samples(&self, peer: &PeerId, name: &str) -> &[Sample] {
        let sender = self.senders.get(peer);
        let samples = sender.and_then(|sender| sender.samples.get(name));
        samples.map_or(&[], Vec::as_slice)
    }

    /// Counts the `peers` that have said that they hold this version of a pin.
    pub(super) fn confirmations(&self, cid: &Cid, version: Index, peers: &[PeerId]) -> usize {
        let confirmed = self.confirmed.get(&(cid.clone(), version));
        confirmed.map_or(0, |confirmed| {
            peers.iter().filter(|peer| confirmed.contains(*peer)).count()
        })
    }

    /// Returns the last message from the recorded data folder of a member.
    pub(super) fn last(&self, peer: &PeerId) -> Option<Instant> {
        self.senders.get(peer)?.last
    }

    /// Returns another data folder than the recorded one, and the time for which messages came from that one
    /// only.
    pub(super) fn other_folder(&self, peer: &PeerId) -> Option<(Incarnation, Duration)> {
        let (folder, first, last) = self.senders.get(peer)?.other?;
        Some((folder, last.since(first)))
    }

    /// Returns whether a metric of a peer may have counted at some moment of this step.
    pub(super) fn may_count(&self, now: Now, peer: &PeerId, name: &str) -> bool {
        let mut samples = self.samples(peer, name).iter();
        samples.any(|sample| sample.is_living(now))
    }

    /// Returns whether a peer may have counted as able to take a pin at some moment of this step; to keep
    /// one, if `names` is empty.
    pub(super) fn may_take(&self, now: Now, peer: &PeerId, names: &[String]) -> bool {
        let counts = |name: &str| self.may_count(now, peer, name);
        let is_drained = !names.is_empty() && self.drained.contains(peer);
        !is_drained && counts(PING) && names.iter().all(|name| counts(name))
    }

    /// Returns whether a peer counted as able to take a pin during all of this step.
    pub(super) fn can_take(&self, now: Now, peer: &PeerId, names: &[String]) -> bool {
        let counts = |name: &str| {
            let samples = self.samples(peer, name);
            let was_there = samples.first().is_some_and(|sample| sample.at < now.mono);
            was_there
                && samples
                    .iter()
                    .all(|sample| sample.certain && sample.is_living(now))
        };
        let may_be_drained = !names.is_empty() && self.may_be_drained(peer);
        !may_be_drained && counts(PING) && names.iter().all(|name| counts(name))
    }

    /// Returns the time for which the `ping` of a peer has been missing, counted from the start of this
    /// leader's term at the earliest; zero when it does not lead.
    pub(super) fn silence(&self, now: Now, peer: &PeerId, interval: Duration) -> Duration {
        let since = self.leads_since.iter().flatten().min();
        let Some(since) = since else { return Duration::ZERO };
        let expires = self.samples(peer, PING).iter().map(Sample::expires);
        let from = expires.chain([*since + interval * 2]).max();
        now.mono.since(from.unwrap_or(now.mono))
    }
}
