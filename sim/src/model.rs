//! Model of the pinset as a plain map: it applies the same committed entries by a second implementation of
//! the rules, and keeps every state that a CID has been in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cluster_core::{
    Cid, Command, Credential, CredentialId, Drain, Index, LogEntry, MembersWish, Mode, Payload, PeerId, Pin,
    Policy, Precondition, Proposal, RaftId, Rebalance, RebalanceChange, RebalanceRun, decode,
};

use crate::coverage::{Coverage, sometimes};
use crate::owners;
use crate::rng;

/// A position in the history of commands: the entry, and the command's place in it.
pub(crate) type Position = (Index, u32);

/// A state of a CID.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    pub(crate) at: Position,
    pub(crate) pin: Option<Pin>,
    /// True if a client's command led to it, not a leader's.
    pub(crate) by_client: bool,
}

/// The model.
#[derive(Default)]
pub(crate) struct Model {
    pins: BTreeMap<Cid, Pin>,
    /// For each proposer, its newest process and what of it has been applied.
    seen: BTreeMap<RaftId, (u64, BTreeSet<u64>)>,
    credentials: BTreeMap<CredentialId, Credential>,
    drains: BTreeMap<PeerId, Drain>,
    rebalance: Rebalance,
    /// The policy after each entry.
    policy_at: Vec<Arc<Policy>>,
    digest: u64,
    digests: Vec<u64>,
    turns: BTreeMap<Cid, Vec<Turn>>,
    /// Number of times that a client's pin of each name took effect.
    named: BTreeMap<String, u64>,
    wishes: Vec<(MembersWish, u64)>,
    /// Pins that holders lost to the requests of others.
    taken: Vec<String>,
    /// Maximum distance between the newest and the oldest open proposal of a peer.
    window: u64,
}

/// Width of the window of applied proposals, as in the core.
const WINDOW: u64 = 8192;

impl Model {
    /// Creates the model for peers whose windows are `shrink` times smaller than usual.
    pub(crate) fn new(shrink: u64) -> Self {
        Self {
            window: (WINDOW / shrink.max(1)).max(2),
            ..Self::default()
        }
    }

    pub(crate) fn pins(&self) -> &BTreeMap<Cid, Pin> {
        &self.pins
    }

    /// Returns the digest of the pinset as of an index, or of the newest state if the index is later.
    pub(crate) fn digest_at(&self, index: Index) -> u64 {
        let position = usize::try_from(index)
            .unwrap_or(usize::MAX)
            .min(self.digests.len());
        position
            .checked_sub(1)
            .map_or(0, |position| self.digests[position])
    }

    /// Returns the policy as of an index, or the newest if the index is later.
    pub(crate) fn policy_at(&self, index: Index) -> Policy {
        let position = usize::try_from(index)
            .unwrap_or(usize::MAX)
            .min(self.policy_at.len());
        let known = position.checked_sub(1).map(|position| &self.policy_at[position]);
        known.map_or_else(Policy::default, |policy| Policy::clone(policy))
    }

    /// Returns the peers that are being drained.
    pub(crate) fn drains(&self) -> &BTreeMap<PeerId, Drain> {
        &self.drains
    }

    /// Returns the settings of the rebalancing, and its run.
    pub(crate) fn rebalance(&self) -> &Rebalance {
        &self.rebalance
    }

    /// Returns all states of a CID, in order.
    pub(crate) fn turns(&self, cid: &Cid) -> &[Turn] {
        self.turns.get(cid).map_or(&[], Vec::as_slice)
    }

    /// Returns all states of each CID.
    pub(crate) fn all_turns(&self) -> impl Iterator<Item = (&Cid, &[Turn])> {
        self.turns.iter().map(|(cid, turns)| (cid, turns.as_slice()))
    }

    /// Returns the number of times that the log has recorded a wish for the membership.
    pub(crate) fn times_wished(&self, wish: &MembersWish) -> u64 {
        let known = self.wishes.iter().find(|(known, _)| known == wish);
        known.map_or(0, |(_, times)| *times)
    }

    /// Returns the number of times that pins of this name took effect.
    pub(crate) fn times_pinned(&self, name: &str) -> u64 {
        self.named.get(name).copied().unwrap_or(0)
    }

    /// Returns descriptions of pins that holders lost to the requests of others.
    pub(crate) fn taken(&self) -> &[String] {
        &self.taken
    }

    /// Applies the next entry. Returns the commands that changed something.
    pub(crate) fn apply(&mut self, entry: &LogEntry, coverage: &mut Coverage) -> Vec<Command> {
        let mut effective = Vec::new();
        let proposals: Vec<Proposal> = match &entry.payload {
            Payload::Commands(data) if !data.is_empty() => decode(data).expect("committed entries decode"),
            Payload::Commands(_) | Payload::Members(_) => Vec::new(),
        };
        sometimes!(coverage, proposals.len() > 1, "several proposals shared an entry");
        for (order, proposal) in (0..).zip(proposals) {
            if !self.is_new(&proposal) {
                coverage.hit("a proposal came twice");
                continue;
            }
            let command = proposal.command.clone();
            if self.apply_command((entry.index, order), proposal.command, coverage) {
                effective.push(command);
            }
        }
        self.digests.push(self.digest);
        let is_unchanged = !changes_policy(&effective);
        let policy = match self.policy_at.last().filter(|_| is_unchanged) {
            Some(same) => Arc::clone(same),
            None => Arc::new(Policy {
                credentials: self.credentials.values().cloned().collect(),
                drains: self.drains.values().cloned().collect(),
                rebalance: self.rebalance.clone(),
            }),
        };
        self.policy_at.push(policy);
        effective
    }

    fn apply_rebalancing(&mut self, change: RebalanceChange, coverage: &mut Coverage) -> bool {
        let Rebalance { settings, run } = &mut self.rebalance;
        let known = run.as_ref().map(|run| run.since);
        match change {
            RebalanceChange::Settings(new) => {
                sometimes!(coverage, new.automatic, "automatic rebalancing was switched on");
                *settings = new;
            }
            RebalanceChange::Start { since } if known.is_none() => {
                coverage.hit("a rebalancing was started");
                let done = Vec::new();
                *run = Some(RebalanceRun { since, done });
            }
            RebalanceChange::Done { peer, since } if known == Some(since) => {
                let done = &mut run.as_mut().expect("is known").done;
                done.push(peer);
                done.sort();
                done.dedup();
            }
            RebalanceChange::End { since } if known.is_some() && since.is_none_or(|it| known == Some(it)) => {
                sometimes!(coverage, since.is_some(), "a rebalancing ended by itself");
                *run = None;
            }
            RebalanceChange::Start { .. } | RebalanceChange::Done { .. } | RebalanceChange::End { .. } => {}
        }
        true
    }

    fn is_new(&mut self, proposal: &Proposal) -> bool {
        let id = proposal.id;
        let (boot, seen) = self.seen.entry(id.origin).or_insert((id.boot, BTreeSet::new()));
        if id.boot < *boot {
            return false;
        }
        if id.boot > *boot {
            *boot = id.boot;
            seen.clear();
        }
        // A proposal older than the window can only be a late duplicate.
        let high = seen.last().copied().unwrap_or(0);
        id.seq + self.window > high && seen.insert(id.seq)
    }

    fn apply_command(&mut self, at: Position, command: Command, coverage: &mut Coverage) -> bool {
        match command {
            Command::Admit { .. } => false,
            Command::CreateCredential { credential } => {
                let mut others = self.credentials.values();
                let is_taken = others.any(|other| other.name == credential.name);
                sometimes!(coverage, is_taken, "a credential's name was taken");
                if !is_taken {
                    coverage.hit("a credential was created");
                    self.credentials.insert(credential.id, credential);
                }
                !is_taken
            }
            Command::Drain { drain } => {
                coverage.hit("a drain was started");
                let (peer, moves_max) = (drain.peer.clone(), drain.moves_max);
                self.drains.entry(peer).or_insert(drain).moves_max = moves_max;
                true
            }
            Command::EndDrain { peer } => {
                let was_drained = self.drains.remove(&peer).is_some();
                sometimes!(coverage, was_drained, "a drain was ended");
                was_drained
            }
            Command::Rebalance { change } => self.apply_rebalancing(change, coverage),
            Command::RevokeCredential { id } => {
                let is_there = self.credentials.remove(&id).is_some();
                sometimes!(coverage, is_there, "a credential was revoked");
                is_there
            }
            Command::Members(wish) => {
                match self.wishes.iter_mut().find(|(known, _)| *known == wish) {
                    Some((_, times)) => *times += 1,
                    None => self.wishes.push((wish, 1)),
                }
                false
            }
            Command::Pin { pin, precondition } => self.apply_pin(at, pin, precondition, coverage),
            Command::Reallocate {
                cid,
                allocations,
                version,
            } => {
                let Some(current) = self.pins.get(&cid).filter(|pin| pin.version == version) else {
                    coverage.hit("a reallocation came too late");
                    return false;
                };
                coverage.hit("a pin was moved");
                let pin = Pin {
                    allocations,
                    ..current.clone()
                };
                self.turn(at, cid, Some(pin), false);
                true
            }
            Command::Unpin { cid, precondition } => {
                let holds = self.pins.contains_key(&cid) && self.holds(&cid, precondition);
                sometimes!(
                    coverage,
                    holds && matches!(precondition, Precondition::Version(_)),
                    "a pin expired"
                );
                if holds {
                    self.turn(at, cid, None, precondition == Precondition::Any);
                }
                holds
            }
            Command::Release { cid, owner } => self.release(at, cid, &owner, coverage),
        }
    }

    fn release(&mut self, at: Position, cid: Cid, owner: &str, coverage: &mut Coverage) -> bool {
        let current = self.pins.get(&cid);
        let Some(Ok(left)) = current.map(|pin| owners::released(pin, owner)) else {
            coverage.hit("an owner let go of what it did not hold");
            return false;
        };
        coverage.hit(match left {
            Some(_) => "a pin stayed for its other owners",
            None => "a pin went with its last owner",
        });
        self.turn(at, cid, left, true);
        true
    }

    fn apply_pin(
        &mut self,
        at: Position,
        pin: Pin,
        precondition: Precondition,
        coverage: &mut Coverage,
    ) -> bool {
        if !self.holds(&pin.cid, precondition) {
            coverage.hit("a pin was decided from a stale state");
            return false;
        }
        if let Some(current) = self.pins.get(&pin.cid) {
            let deep = current.options.mode == Mode::Recursive && pin.options.mode == Mode::Direct;
            let same = Pin {
                timestamp: current.timestamp,
                version: current.version,
                ..pin.clone()
            };
            if same == *current || deep || current.pin_type != pin.pin_type {
                return false;
            }
            let (before, after) = (owners::holders(&current.options), owners::holders(&pin.options));
            sometimes!(coverage, after.len() > 1, "a pin was shared by several owners");
            if !before.is_subset(&after) {
                let why = format!("{before:?} held {current:?}, which {pin:?} gives to {after:?}");
                self.taken.push(why);
            }
        }
        *self.named.entry(pin.options.name.clone()).or_default() += 1;
        self.turn(at, pin.cid.clone(), Some(pin), true);
        true
    }

    fn holds(&self, cid: &Cid, precondition: Precondition) -> bool {
        let current = self.pins.get(cid);
        match precondition {
            Precondition::Absent => current.is_none(),
            Precondition::Any => true,
            Precondition::Version(version) => current.is_some_and(|pin| pin.version == version),
        }
    }

    fn turn(&mut self, at: Position, cid: Cid, pin: Option<Pin>, by_client: bool) {
        let pin = pin.map(|pin| Pin { version: at.0, ..pin });
        let digest = |pin: &Pin| rng::hash(&cluster_core::encode(pin));
        self.digest ^= pin.as_ref().map_or(0, digest);
        let old = match pin.clone() {
            Some(pin) => self.pins.insert(cid.clone(), pin),
            None => self.pins.remove(&cid),
        };
        self.digest ^= old.as_ref().map_or(0, digest);
        self.turns
            .entry(cid)
            .or_default()
            .push(Turn { at, pin, by_client });
    }
}

fn changes_policy(commands: &[Command]) -> bool {
    let is_one = |command: &Command| {
        matches!(
            command,
            Command::CreateCredential { .. }
                | Command::Drain { .. }
                | Command::EndDrain { .. }
                | Command::Rebalance { .. }
                | Command::RevokeCredential { .. }
        )
    };
    commands.iter().any(is_one)
}
