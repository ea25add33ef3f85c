//! Proposals are justified by the messages and requests that the peer received: pins by a client's request,
//! at peers whose metrics are valid; re-allocations by a silence since the start of its term; removals by a
//! client, or by clocks past the expiry. The log cannot show this, because peers agree on wrong decisions
//! too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::{
    Cid, Command, Effect, MembersWish, Message, Payload, PeerId, Pin, PinOptions, Precondition, Proposal,
    Replicas, Request, StoreOp, Timestamp, decode,
};

use super::received::{CLOCK, Heard, Process, changes_members, member};
use super::{Findings, Step};
use crate::options::Options;
use crate::owners;

/// Maximum delay of a clock's reading until the leader handles it.
const CLOCK_DELAY: Duration = Duration::from_secs(2);

/// The newest proposal that each process has made, and the settings that decide.
#[derive(Debug)]
pub(super) struct Decisions {
    newest: Vec<u64>,
    pub(super) allocate_by: Vec<String>,
    interval: Duration,
    grace: Duration,
    failover: bool,
    chunk: usize,
}

/// Knowledge that the decisions of one step are based on.
pub(super) struct Moment<'a> {
    pub(super) step: &'a Step<'a>,
    pub(super) heard: &'a Process,
    pub(super) rules: &'a Decisions,
}

impl Decisions {
    pub(super) fn new(options: &Options, size: usize, allocate_by: Vec<String>, chunk: usize) -> Self {
        Self {
            newest: vec![0; size],
            allocate_by,
            interval: Duration::from_millis(options.metrics_ms),
            grace: Duration::from_millis(options.grace_ms),
            failover: options.failover > 0,
            chunk,
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.newest[me] = 0;
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        let fresh = self.fresh(step);
        let moment = Moment {
            step,
            heard: heard.of(step.me),
            rules: self,
        };
        let (mut by_itself, mut own) = (0, 0);
        for proposal in &fresh {
            match moment.of_own_move(&proposal.command, found) {
                Some(moves) => own += moves,
                None => {
                    moment.of_proposal(&proposal.command, found);
                    by_itself += usize::from(is_by_itself(&proposal.command));
                }
            }
        }
        moment.of_moves(own, found);
        found.require(by_itself <= 2 * self.chunk, "pace", || {
            format!("moves or removes {by_itself} pins at once")
        });
        if let Some(newest) = fresh.iter().map(|proposal| proposal.id.seq).max() {
            self.newest[step.me] = newest;
        }
    }

    /// Returns the proposals that this process has made for the first time in this step.
    fn fresh(&self, step: &Step<'_>) -> Vec<Proposal> {
        let newest = self.newest[step.me];
        let Some(node) = &step.peer().node else {
            return Vec::new();
        };
        let view = node.view();
        let mut all: BTreeMap<u64, Proposal> = BTreeMap::new();
        let waiting = view.proposed_after(newest);
        let written = step.writes().filter(|_| view.is_leader()).flat_map(appended);
        let boot = step.peer().disk.boot();
        let own = member(&step.peer().disk.written.members, &step.peer().id).map(|(id, _)| id);
        let sent = step.effects.iter().flat_map(forwarded);
        let made = written.chain(sent).filter(|proposal| {
            proposal.id.boot == boot && Some(proposal.id.origin) == own && proposal.id.seq > newest
        });
        for proposal in waiting.into_iter().chain(made) {
            all.entry(proposal.id.seq).or_insert(proposal);
        }
        all.into_values().collect()
    }
}

fn appended(op: &StoreOp) -> Vec<Proposal> {
    let StoreOp::Append { entries } = op else {
        return Vec::new();
    };
    let commands = entries.iter().filter_map(|entry| match &entry.payload {
        Payload::Commands(data) if !data.is_empty() => decode::<Vec<Proposal>>(data).ok(),
        Payload::Commands(_) | Payload::Members(_) => None,
    });
    commands.flatten().collect()
}

/// Returns the proposals that a follower sends to the leader.
fn forwarded(effect: &Effect) -> Vec<Proposal> {
    match effect {
        Effect::Send { envelope, .. } => match &envelope.message {
            Message::Propose(proposals) => proposals.clone(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

impl Moment<'_> {
    /// Checks one proposal.
    fn of_proposal(&self, command: &Command, found: &mut Findings<'_>) {
        match command {
            Command::Admit { raft_id, .. } => {
                self.leads(command, found);
                let members = &self.step.peer().disk.written.members;
                let known = members.peers.contains_key(raft_id)
                    || self.heard.before.values().any(|(id, _)| id == raft_id);
                found.require(known, "admission", || {
                    format!("admits {raft_id}, who is no member")
                });
            }
            Command::Members(wish) => self.of_wish(wish, found),
            Command::CreateCredential { credential } => {
                let credential = credential.clone();
                self.of_request(&Request::CreateCredential { credential }, found);
            }
            Command::RevokeCredential { id } => {
                self.of_request(&Request::RevokeCredential { id: *id }, found);
            }
            Command::Drain { drain } => {
                let drain = drain.clone();
                self.of_request(&Request::Drain { drain }, found);
            }
            Command::EndDrain { peer } => self.of_end_of_drain(peer, found),
            Command::Rebalance { change } => self.of_rebalancing(change, found),
            Command::Pin { pin, precondition } => self.of_pin(pin, *precondition, found),
            Command::Reallocate {
                cid,
                allocations,
                version,
            } => {
                self.leads(command, found);
                let mut bases = self.bases(cid).into_iter().flatten();
                if let Some(base) = bases.find(|pin| pin.version == *version) {
                    self.of_move(&base, allocations, found);
                }
            }
            Command::Unpin { cid, precondition } => self.of_unpin(cid, *precondition, found),
            Command::Release { cid, owner } => {
                let (cid, owner) = (cid.clone(), Some(owner.clone()));
                self.of_request(&Request::Unpin { cid, owner }, found);
            }
        }
    }

    /// Checks the end of a drain: the leader ends those of former members.
    fn of_end_of_drain(&self, peer: &PeerId, found: &mut Findings<'_>) {
        let members = &self.step.peer().disk.written.members;
        let leads = self.heard.leads_since.iter().any(Option::is_some);
        let is_member = member(members, peer).is_some() && self.heard.before.contains_key(peer);
        if is_member || !leads {
            self.of_request(&Request::EndDrain { peer: peer.clone() }, found);
        }
    }

    pub(super) fn of_request(&self, asked: &Request, found: &mut Findings<'_>) {
        let is_asked = self.requests().any(|request| request == asked);
        found.require(is_asked, "unasked", || {
            format!("proposes what nobody asked for: {asked:?}")
        });
    }

    pub(super) fn leads(&self, command: &Command, found: &mut Findings<'_>) {
        let leads = self.heard.leads_since.iter().any(Option::is_some);
        found.require(leads, "duties", || {
            format!("proposes {command:?} without leading")
        });
    }

    fn bases(&self, cid: &Cid) -> Vec<Option<Pin>> {
        self.step.pin_states(cid)
    }

    fn requests(&self) -> impl Iterator<Item = &Request> {
        self.heard.tickets.values().map(|(request, _)| request)
    }

    fn of_wish(&self, wish: &MembersWish, found: &mut Findings<'_>) {
        match wish.clone() {
            MembersWish::Add { peer } => self.of_request(&Request::AddPeer { peer }, found),
            MembersWish::Remove { peer } => self.of_request(&Request::RemovePeer { peer }, found),
            MembersWish::RaiseVersion { version } => {
                let mut members = self.step.peer().disk.written.members.peers.values();
                let unable = members.find(|member| {
                    let mut peers = self.step.peers.iter();
                    peers.any(|peer| peer.id == member.peer && peer.release < version)
                });
                found.require(unable.is_none(), "releases", || {
                    format!("agrees on version {version}, which {unable:?} cannot read")
                });
            }
            MembersWish::Next => {}
        }
    }

    fn of_unpin(&self, cid: &Cid, precondition: Precondition, found: &mut Findings<'_>) {
        let Precondition::Version(version) = precondition else {
            let (cid, owner) = (cid.clone(), None);
            return self.of_request(&Request::Unpin { cid, owner }, found);
        };
        let mut bases = self.bases(cid).into_iter().flatten();
        if let Some(base) = bases.find(|pin| pin.version == version) {
            let wall = self.latest_cluster_time();
            let over = base.options.expire_at.is_some_and(|at| at <= wall);
            found.require(over, "expiry", || {
                format!("removes {base:?} at {wall:?}, before its end")
            });
            let (known, voters) = self.known_clocks();
            found.require(known * 2 > voters || changes_members(self.step), "expiry", || {
                format!("removes {base:?} by the clocks of {known} of {voters} voters")
            });
        }
    }

    /// Returns the number of voters whose clock it may know, and that of all voters.
    fn known_clocks(&self) -> (usize, usize) {
        let members = &self.step.peer().disk.written.members;
        let voters = members.voters.iter().filter_map(|id| members.peer(*id));
        let is_known = |peer: &&PeerId| {
            **peer == self.step.peer().id || self.heard.may_count(self.step.now, peer, CLOCK)
        };
        (voters.filter(is_known).count(), members.voters.len())
    }

    /// Returns the latest time that the median of the clocks of any majority of voters may show. The leader
    /// may have read the clocks up to two metric intervals ago; drift covers the rest.
    fn latest_cluster_time(&self) -> Timestamp {
        let step = self.step;
        let age = self.rules.interval * 2 + CLOCK_DELAY;
        let window = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let latest = |peer: &crate::peer::Peer| peer.clock.latest_wall(step.at, window) + age / 10;
        if changes_members(step) {
            let clocks = step.peers.iter().map(latest);
            return clocks.max().unwrap_or(step.now.wall);
        }
        let members = &step.peer().disk.written.members;
        let voters = members.voters.iter().filter_map(|id| members.peer(*id));
        let peers = voters.filter_map(|id| step.peers.iter().find(|peer| peer.id == *id));
        let mut clocks: Vec<Timestamp> = peers.map(latest).collect();
        clocks.sort();
        // Of the `heard` latest clocks, the earlier one of two in the middle.
        let highest = |heard: usize| clocks.len() - heard + (heard - 1) / 2;
        let majorities = clocks.len() / 2 + 1..=clocks.len();
        let position = majorities.map(highest).max().unwrap_or(0);
        clocks.get(position).copied().unwrap_or(step.now.wall)
    }

    fn of_pin(&self, pin: &Pin, precondition: Precondition, found: &mut Findings<'_>) {
        let asked = self.requests().any(|request| self.asks_for(request, pin));
        found.require(asked, "unasked", || {
            format!("pins {pin:?}, nobody asked for that")
        });
        let Replicas::Range { min, max } = pin.options.replicas else {
            return;
        };
        let bases = self.bases(&pin.cid);
        let fitting: Vec<&Option<Pin>> = bases
            .iter()
            .filter(|base| match (precondition, base) {
                (Precondition::Absent, None) => true,
                (Precondition::Version(version), Some(pin)) => pin.version == version,
                (Precondition::Absent | Precondition::Any | Precondition::Version(_), _) => false,
            })
            .collect();
        found.require(!fitting.is_empty(), "precondition", || {
            format!("proposes {pin:?} on {precondition:?}, there was {bases:?}")
        });
        let holders: Vec<BTreeSet<PeerId>> = match &pin.options.pin_update {
            // The source of an imported pin does not matter.
            Some(from) if !self.is_imported(pin) => self.bases(from).into_iter().map(holders).collect(),
            Some(_) | None => fitting.into_iter().cloned().map(holders).collect(),
        };
        for peer in &pin.allocations {
            // A peer that holds it already needs no free space.
            let holds = holders.iter().any(|holders| holders.contains(peer));
            let names = if holds { &[][..] } else { &self.rules.allocate_by };
            let able = self.heard.may_take(self.step.now, peer, names);
            found.require(able, "allocations", || {
                format!("gives {pin:?} to {peer}, of whom nothing says that it lives and has room")
            });
        }
        let good = holders
            .iter()
            .any(|holders| self.choice(pin, holders, min, max).is_none());
        found.require(good, "choice", || {
            let why = holders
                .first()
                .and_then(|holders| self.choice(pin, holders, min, max));
            format!("{} in {pin:?}, held by {holders:?}", why.unwrap_or_default())
        });
    }

    fn is_imported(&self, pin: &Pin) -> bool {
        let imports = |request: &&Request| matches!(request, Request::Import { .. });
        self.requests()
            .filter(imports)
            .any(|request| self.asks_for(request, pin))
    }

    /// Describes what is wrong with a choice of peers, if anything is.
    fn choice(&self, pin: &Pin, holders: &BTreeSet<PeerId>, min: u32, max: u32) -> Option<String> {
        let (now, names) = (self.step.now, &self.rules.allocate_by);
        let (min, max) = (min as usize, max as usize);
        let chosen: BTreeSet<&PeerId> = pin.allocations.iter().collect();
        let able = |peer: &&PeerId| self.heard.can_take(now, peer, names);
        let stays: Vec<&PeerId> = holders.iter().filter(able).collect();
        let may_stay = holders
            .iter()
            .filter(|peer| self.heard.may_take(now, peer, &[]))
            .count();
        if may_stay <= max
            && let Some(moved) = stays.iter().find(|peer| !chosen.contains(*peer))
        {
            return Some(format!("{moved} holds it and loses it"));
        }
        if stays.len() >= max && chosen.len() < max {
            return Some(format!("{stays:?} hold it, and fewer than {max} keep it"));
        }
        let fresh: Vec<&PeerId> = chosen
            .iter()
            .copied()
            .filter(|peer| !holders.contains(*peer))
            .collect();
        if fresh.is_empty() {
            return None;
        }
        if stays.len() >= min {
            return Some(format!("{fresh:?} get it, though enough hold it"));
        }
        let left: Vec<&PeerId> = self
            .step
            .peers
            .iter()
            .map(|peer| &peer.id)
            .filter(|peer| !chosen.contains(peer))
            .filter(able)
            .collect();
        if chosen.len() < max && !left.is_empty() {
            return Some(format!("{left:?} could have it too"));
        }
        let preferred = &pin.options.user_allocations;
        let place = |peer: &PeerId| preferred.iter().position(|other| other == peer);
        let last = fresh.iter().filter_map(|peer| place(peer)).max();
        let is_better = |peer: &&&PeerId| place(peer).is_some_and(|place| Some(place) < last);
        if let Some(missed) = left.iter().find(is_better) {
            return Some(format!("{missed} was preferred to some of {fresh:?}"));
        }
        let common: Vec<&PeerId> = fresh
            .into_iter()
            .filter(|peer| !preferred.contains(peer))
            .collect();
        if common.is_empty() {
            return None;
        }
        if let Some(missed) = left.iter().find(|peer| preferred.contains(peer)) {
            return Some(format!("{missed} was preferred, {common:?} get it"));
        }
        let by_group = || {
            self.unspread(&common, &left)
                .or_else(|| self.poorer_group(&common, &left))
        };
        self.fuller_peer(&common, &left)
            .or_else(|| (may_stay == 0 && common.len() == chosen.len()).then(by_group)?)
    }

    /// Checks that groups of peers with more free space in total are chosen.
    fn poorer_group(&self, chosen: &[&PeerId], left: &[&PeerId]) -> Option<String> {
        let (now, names) = (self.step.now, &self.rules.allocate_by);
        let group = |peer: &PeerId| match self.heard.samples(peer, "tag:group") {
            [sample] => Some(sample.metric.value.clone()),
            _ => None,
        };
        let everybody = self.step.peers.iter().map(|peer| &peer.id);
        let mut rooms: BTreeMap<String, [i128; 2]> = BTreeMap::new();
        for peer in everybody.filter(|peer| self.heard.may_take(now, peer, names)) {
            let samples = self.heard.samples(peer, "freespace").iter();
            let weights = samples.map(|sample| i128::from(sample.metric.weight));
            let (least, most) = (weights.clone().min()?, weights.max()?);
            let is_certain = self.heard.can_take(now, peer, names);
            let room = rooms.entry(group(peer)?).or_default();
            room[0] += if is_certain { least } else { least.min(0) };
            room[1] += if is_certain { most } else { most.max(0) };
        }
        let taken: BTreeSet<String> = chosen.iter().filter_map(|peer| group(peer)).collect();
        let poorest = taken
            .iter()
            .min_by_key(|group| rooms.get(*group).map(|room| room[1]))?;
        let most = rooms.get(poorest)?[1];
        let missed = left.iter().filter_map(|peer| group(peer));
        let richer = missed
            .filter(|group| !taken.contains(group))
            .find(|group| rooms.get(group).is_some_and(|room| room[0] > most))?;
        Some(format!(
            "{poorest:?} with {most} free get it, {richer:?} have more: {rooms:?}"
        ))
    }

    /// Checks that each group of peers gets a copy before any group gets another one.
    fn unspread(&self, chosen: &[&PeerId], left: &[&PeerId]) -> Option<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for peer in chosen {
            let [sample] = self.heard.samples(peer, "tag:group") else {
                return None;
            };
            *counts.entry(sample.metric.value.clone()).or_default() += 1;
        }
        let most = counts.values().max().copied().unwrap_or(0);
        for peer in left {
            let [sample] = self.heard.samples(peer, "tag:group") else {
                return None;
            };
            let group = &sample.metric.value;
            if counts.get(group).copied().unwrap_or(0) + 1 < most {
                return Some(format!("{group:?} has room at {peer}, {counts:?} get it"));
            }
        }
        None
    }

    /// Checks that of the peers of one group those with more free space are chosen; within a tenth they count
    /// as equal.
    fn fuller_peer(&self, chosen: &[&PeerId], left: &[&PeerId]) -> Option<String> {
        let room = |peer: &PeerId| -> Vec<i64> {
            let samples = self.heard.samples(peer, "freespace").iter();
            samples.map(|sample| sample.metric.weight).collect()
        };
        let group = |peer: &PeerId| -> Vec<String> {
            let samples = self.heard.samples(peer, "tag:group").iter();
            samples.map(|sample| sample.metric.value.clone()).collect()
        };
        for full in chosen {
            for roomy in left {
                let most = room(full).into_iter().max().unwrap_or(i64::MAX);
                let least = room(roomy).into_iter().min().unwrap_or(0);
                if group(full) == group(roomy) && most < least.saturating_sub(least.saturating_abs() / 10) {
                    return Some(format!("{full} has {most} free, {roomy} {least}"));
                }
            }
        }
        None
    }

    fn asks_for(&self, request: &Request, pin: &Pin) -> bool {
        match request {
            Request::Import { pin: given, owner } if given.cid == pin.cid => {
                let timestamp = if given.timestamp == Timestamp(0) {
                    self.step.now.wall
                } else {
                    given.timestamp
                };
                let outcomes = self.outcomes(&pin.cid, &given.options, owner.as_deref(), timestamp);
                outcomes.into_iter().any(|(options, timestamp)| {
                    let expected = Pin {
                        allocations: pin.allocations.clone(),
                        options,
                        timestamp,
                        version: 0,
                        ..given.clone()
                    };
                    expected == *pin
                })
            }
            Request::Pin { cid, options, owner } if *cid == pin.cid => {
                let owner = owner.as_deref();
                let wanted = self.wanted(options, owner);
                wanted.iter().any(|options| {
                    let outcomes = self.outcomes(cid, options, owner, self.step.now.wall);
                    outcomes.contains(&(pin.options.clone(), pin.timestamp))
                })
            }
            _ => false,
        }
    }

    /// Returns the options and timestamps that a wish may lead to: others that hold the pin keep it.
    fn outcomes(
        &self,
        cid: &Cid,
        wish: &PinOptions,
        owner: Option<&str>,
        timestamp: Timestamp,
    ) -> Vec<(PinOptions, Timestamp)> {
        let outcome = |base: Option<Pin>| {
            let existing = base.as_ref().map(|pin| &pin.options);
            let (options, is_shared) = owners::joined(existing, wish.clone(), owner);
            let shared = base.filter(|_| is_shared);
            (options, shared.map_or(timestamp, |pin| pin.timestamp))
        };
        self.bases(cid).into_iter().map(outcome).collect()
    }

    /// Returns the options that a request leads to: an update takes over unset ones from any state
    /// of its source in this step.
    fn wanted(&self, wish: &PinOptions, owner: Option<&str>) -> Vec<PinOptions> {
        let Some(from) = &wish.pin_update else {
            return vec![wish.clone()];
        };
        let sources = self.bases(from).into_iter().flatten();
        let seen = sources.filter_map(|source| match owner {
            Some(owner) => owners::seen_by(&source.options, owner),
            None => {
                let mut metadata = source.options.metadata;
                metadata.retain(|key, _| !key.starts_with("owner/"));
                Some(PinOptions {
                    metadata,
                    ..source.options
                })
            }
        });
        let merged = seen.map(|mut options| {
            if !wish.name.is_empty() {
                options.name.clone_from(&wish.name);
            }
            options.expire_at = wish.expire_at.or(options.expire_at);
            options.pin_update.clone_from(&wish.pin_update);
            options
        });
        merged.collect()
    }

    fn of_move(&self, base: &Pin, allocations: &[PeerId], found: &mut Findings<'_>) {
        let Replicas::Range { min, max } = base.options.replicas else {
            found.safety_violation("moves", format!("moves {base:?}, which is everywhere"));
            return;
        };
        let (min, max) = (min as usize, max as usize);
        let step = self.step;
        let members = &step.peer().disk.written.members;
        let is_member = |peer: &PeerId| member(members, peer).is_some();
        let silence = |peer: &PeerId| self.heard.silence(step.now, peer, self.rules.interval);
        let is_down =
            |peer: &PeerId| !is_member(peer) || (self.rules.failover && silence(peer) > self.rules.grace);
        for peer in base.allocations.iter().filter(|peer| !allocations.contains(peer)) {
            found.require(is_down(peer), "failover", || {
                let (silence, grace) = (silence(peer), self.rules.grace);
                format!(
                    "takes a pin from {peer} after a silence of {silence:?}, {grace:?} is the least: {base:?}"
                )
            });
        }
        let gained: Vec<&PeerId> = allocations
            .iter()
            .filter(|peer| !base.allocations.contains(peer))
            .collect();
        for peer in &gained {
            let able = self.heard.may_take(step.now, peer, &self.rules.allocate_by);
            found.require(able && !is_down(peer), "allocations", || {
                format!("moves {base:?} to {peer}, of whom nothing says that it lives and has room")
            });
        }
        let preferred = &base.options.user_allocations;
        let missed = preferred.iter().find(|peer| {
            let able = self.heard.can_take(step.now, peer, &self.rules.allocate_by);
            able && !is_down(peer) && !allocations.contains(peer)
        });
        let common = gained.iter().find(|peer| !preferred.contains(peer));
        found.require(missed.is_none() || common.is_none(), "moves", || {
            format!("gives {base:?} to {common:?}, the client prefers {missed:?}")
        });
        let living = base.allocations.iter().filter(|peer| !is_down(peer)).count();
        let lost = base.allocations.iter().filter(|peer| !allocations.contains(peer));
        let stay = lost.filter(|peer| is_member(peer)).count();
        found.require(stay == 0 || living < min, "moves", || {
            format!("takes {base:?} from members, though {living} hold it")
        });
        found.require(gained.is_empty() || living < min, "moves", || {
            format!("gives {base:?} to {gained:?}, though {living} hold it")
        });
        let count = allocations.len();
        let gone = base.allocations.iter().filter(|peer| !is_member(peer)).count();
        let least = (base.allocations.len() - gone).min(min);
        found.require(
            (least..=max.max(base.allocations.len())).contains(&count),
            "moves",
            || format!("leaves {count} of {base:?}"),
        );
    }
}

/// Returns whether a leader makes this command without a request.
fn is_by_itself(command: &Command) -> bool {
    matches!(
        command,
        Command::Reallocate { .. }
            | Command::Unpin {
                precondition: Precondition::Version(_),
                ..
            }
    )
}

fn holders(pin: Option<Pin>) -> BTreeSet<PeerId> {
    pin.map_or_else(BTreeSet::new, |pin| pin.allocations.into_iter().collect())
}
