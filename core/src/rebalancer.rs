//! Rebalancing of this peer's copies: those above its target move to peers below theirs, and copies that
//! share a zone with another one move to a zone without. As in a [drain](crate::drainer), each peer moves its
//! own.
//!
//! ```text
//!          off the target, or a run is asked for          all pins are passed
//!   rest ----------------------------------------> pass -----------------------> rest
//! ```
//!
//! At the start of a pass, the [balance](crate::balance) says how many copies go where. Nothing is planned
//! again before the peer's count of its copies includes all moves of the last pass, and all peers have sent
//! theirs. So the moves of a pass are the fewest that reach the targets, and targets do not chase the counts.
//! A copy that comes back, as it did not fit, is not [given](given) to the same peer again.

mod given;

use std::collections::BTreeMap;
use std::time::Duration;

use self::given::Given;
use crate::allocator::rank_by_hash;
use crate::balance::{Balance, Load};
use crate::command::Command;
use crate::decide::PeerPool;
use crate::ids::{Cid, Index, PeerId};
use crate::local::{Lane, Phase};
use crate::pin::{Pin, Replicas};
use crate::planted::planted;
use crate::rebalance::{Rebalance, RebalanceChange};
use crate::time::{Instant, Now, Timestamp};
use crate::view::PinsetView;

/// Pause between two steps of a pass.
const STEP_PAUSE: Duration = Duration::from_millis(200);

/// Factor by which the rest after a pass that could move nothing is longer.
const BLOCKED_RESTS: u32 = 10;

/// Time after which a proposed move that has not been applied counts as lost.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(5);

/// The live peers, as the metrics describe them.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    /// Peers that can be allocated to, and those that can keep what they hold. None of them is drained.
    pub(crate) pool: PeerPool,
    /// Copies of each live peer that is not drained.
    pub(crate) loads: BTreeMap<PeerId, Load>,
    /// Values of the partitioning metrics of each live peer, in the order in which peers are allocated by
    /// them. Two copies with equal first values are in one zone.
    pub(crate) zones: BTreeMap<PeerId, Vec<String>>,
    /// Log index that this peer's count of its copies includes.
    pub(crate) counted: Index,
}

/// Progress of a peer's rebalancing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebalanceProgress {
    /// Set during a pass over the pins of the peer.
    pub is_passing: bool,
    /// Number of copies that the present or last pass was to move to even out the counts.
    pub planned: u64,
    /// Number of copies that it has moved, those for zones included.
    pub moved: u64,
    /// Number of copies that were moved since the start of the process.
    pub moved_in_all: u64,
    /// Number of proposed moves since then that did not take effect.
    pub undone_in_all: u64,
}

/// A pass over the pins of this peer.
#[derive(Debug)]
struct Pass {
    /// Number of copies that can still move to each peer.
    left: BTreeMap<PeerId, u64>,
    /// Last CID that was examined.
    cursor: Option<Cid>,
    /// Set if a copy has moved since the pass was at the first CID.
    has_moved: bool,
}

/// A proposed move.
#[derive(Debug)]
struct Proposed {
    /// Version of the pin that it was decided from.
    version: Index,
    to: PeerId,
}

/// The settings of the cluster, and the progress of this peer.
pub(crate) struct Rebalancer {
    me: PeerId,
    chunk: usize,
    rest: Duration,
    state: Rebalance,
    next_step: Instant,
    pass: Option<Pass>,
    progress: RebalanceProgress,
    /// The run whose part of this peer has ended.
    finished: Option<Timestamp>,
    proposed: BTreeMap<Cid, Proposed>,
    /// Time at which the proposed moves count as lost.
    lost_at: Instant,
    given: Given,
    /// Log index that a count of the own copies must include before the next pass.
    moved_at: Index,
}

impl Rebalancer {
    /// Creates the rebalancer of a peer, which examines at most `chunk` pins in one step, and rests between
    /// two passes until all peers have sent new metrics.
    pub(crate) fn new(me: PeerId, chunk: usize, metrics_interval: Duration) -> Self {
        Self {
            me,
            chunk,
            rest: metrics_interval * 2,
            state: Rebalance::default(),
            next_step: Instant(0),
            pass: None,
            progress: RebalanceProgress::default(),
            finished: None,
            proposed: BTreeMap::new(),
            lost_at: Instant(0),
            given: Given::default(),
            moved_at: 0,
        }
    }

    /// Notes the current settings and run.
    pub(crate) fn load(&mut self, now: Now, state: Rebalance) {
        if self.state == state {
            return;
        }
        let since = |state: &Rebalance| state.run.as_ref().map(|run| run.since);
        let is_new_run = state.run.is_some() && since(&state) != since(&self.state);
        if is_new_run || state.settings != self.state.settings {
            self.given = Given::default();
        }
        self.state = state;
        self.next_step = now.mono;
        if !self.is_wanted() {
            self.pass = None;
            self.progress.is_passing = false;
        }
    }

    /// Returns the settings and the run.
    pub(crate) fn state(&self) -> &Rebalance {
        &self.state
    }

    pub(crate) fn progress(&self) -> &RebalanceProgress {
        &self.progress
    }

    /// Returns the run whose part of this peer is open.
    fn own_run(&self) -> Option<Timestamp> {
        let run = self.state.run.as_ref()?;
        let is_done = run.done.binary_search(&self.me).is_ok();
        (!is_done).then_some(run.since)
    }

    fn is_wanted(&self) -> bool {
        self.state.settings.automatic || self.own_run().is_some() || planted!(RebalanceThoughOff)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.is_wanted().then_some(self.next_step)
    }

    /// Returns the command that ends the run once all of these peers have done their part, for the leader.
    pub(crate) fn ended_run(&self, mut living: impl Iterator<Item = PeerId>) -> Option<Command> {
        let run = self.state.run.as_ref()?;
        let is_done = living.all(|peer| run.done.binary_search(&peer).is_ok());
        let since = Some(run.since);
        let change = RebalanceChange::End { since };
        (is_done && !planted!(RebalanceRunUnended)).then_some(Command::Rebalance { change })
    }

    /// Adds the moves to propose now, and the end of this peer's part of a run. `applied` is the last log
    /// index that `view` includes.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Now,
        view: &impl PinsetView,
        peers: &Peers,
        applied: Index,
        out: &mut Vec<Command>,
    ) {
        if !self.is_wanted() || now.mono < self.next_step {
            return;
        }
        self.next_step = now.mono + STEP_PAUSE;
        self.settle_proposed(now, view, applied);
        if !self.proposed.is_empty() {
            return;
        }
        match self.pass.take() {
            None => self.start_pass(now, peers, out),
            Some(pass) => {
                self.pass = self.step(now, view, peers, pass, out);
                if self.pass.is_none() {
                    let is_blocked = self.progress.moved == 0 && self.own_run().is_none();
                    let rests = if is_blocked { BLOCKED_RESTS } else { 1 };
                    self.end_part(now, self.rest * rests, out);
                }
            }
        }
        self.progress.is_passing = self.pass.is_some();
    }

    /// Counts the proposed moves that were applied. Those that were not, as another holder of the pin has
    /// moved its copy first, or as they were lost, can be made with another pin.
    fn settle_proposed(&mut self, now: Now, view: &impl PinsetView, applied: Index) {
        for (cid, proposed) in std::mem::take(&mut self.proposed) {
            let pin = view.pin(&cid);
            let is_open = pin.as_ref().is_some_and(|pin| pin.version == proposed.version);
            if is_open && now.mono < self.lost_at {
                self.proposed.insert(cid, proposed);
                continue;
            }
            let stays = pin.is_some_and(|pin| pin.allocations.contains(&self.me));
            if !stays {
                self.moved_at = applied;
                self.progress.moved += 1;
                self.progress.moved_in_all += 1;
                self.given.note(cid, proposed.to.clone());
            } else {
                self.progress.undone_in_all += 1;
            }
            let Some(pass) = &mut self.pass else { continue };
            if !stays {
                pass.has_moved = true;
            } else if let Some(left) = pass.left.get_mut(&proposed.to) {
                *left += 1;
            }
        }
    }

    fn start_pass(&mut self, now: Now, peers: &Peers, out: &mut Vec<Command>) {
        let own_run = self.own_run();
        if own_run.is_some() && own_run == self.finished {
            return self.end_part(now, self.rest, out);
        }
        let is_known = peers.loads.contains_key(&self.me) && peers.counted >= self.moved_at;
        if !is_known && !planted!(RebalanceOvershoots) {
            return;
        }
        let balance = Balance::new(peers.loads.clone());
        let percent = self.state.settings.threshold_percent;
        let is_off = own_run.is_some() || balance.exceeds(percent) || planted!(RebalanceOvershoots);
        let left = if is_off {
            balance.moves_from(&self.me)
        } else {
            BTreeMap::new()
        };
        let has_zones = {
            let mut first = peers.zones.values().map(|zone| zone.first());
            let some = first.next().flatten();
            some.is_some() && first.any(|other| other != some)
        };
        if left.is_empty() && !has_zones {
            return self.end_part(now, self.rest, out);
        }
        self.progress = RebalanceProgress {
            is_passing: true,
            planned: left.values().sum(),
            moved: 0,
            ..self.progress
        };
        self.pass = Some(Pass {
            left,
            cursor: None,
            has_moved: false,
        });
    }

    /// Rests, and proposes the end of this peer's part of a run.
    fn end_part(&mut self, now: Now, rest: Duration, out: &mut Vec<Command>) {
        if !planted!(RebalanceOvershoots) {
            self.next_step = now.mono + rest;
        }
        if let Some(since) = self.own_run() {
            self.finished = Some(since);
            let peer = self.me.clone();
            let change = RebalanceChange::Done { peer, since };
            out.push(Command::Rebalance { change });
        }
    }

    /// Examines the next pins. Returns the pass, unless it has ended.
    fn step(
        &mut self,
        now: Now,
        view: &impl PinsetView,
        peers: &Peers,
        mut pass: Pass,
        out: &mut Vec<Command>,
    ) -> Option<Pass> {
        let Some(at) = peers.pool.alive.iter().position(|peer| *peer == self.me) else {
            return Some(pass);
        };
        let most = self.state.settings.moves_of(at, peers.pool.alive.len());
        let waiting = view.queue(Lane::Surplus, None, most).len();
        let room = most.saturating_sub(waiting).min(self.chunk);
        if room == 0 {
            return Some(pass);
        }
        let cids = view.allocated(&self.me, pass.cursor.as_ref(), self.chunk);
        if cids.is_empty() {
            let goes_on = pass.has_moved && pass.left.values().any(|left| *left > 0);
            (pass.cursor, pass.has_moved) = (None, false);
            return goes_on.then_some(pass);
        }
        self.lost_at = now.mono + PROPOSAL_TIMEOUT;
        for cid in cids {
            if self.proposed.len() >= room {
                break;
            }
            pass.cursor = Some(cid.clone());
            let is_here = |cid: &Cid| view.local(cid).is_some_and(|local| local.phase == Phase::Pinned);
            let Some(pin) = view.pin(&cid).filter(|_| is_here(&cid)) else {
                continue;
            };
            if let Some((to, command)) = relocate(pin.clone(), &self.me, peers, &pass.left, &self.given) {
                if let Some(left) = pass.left.get_mut(&to) {
                    *left = left.saturating_sub(1);
                }
                let version = pin.version;
                self.proposed.insert(cid, Proposed { version, to });
                out.push(command);
            }
        }
        Some(pass)
    }
}

/// Builds the command that moves the copy of `me` to another peer: to a zone without one, if a zone has
/// several; or else to a peer that some of `left` can move to. Returns it with that peer. `None` if the copy
/// stays: as its place is preferred by the client, as a copy is being repaired or drained, or as no peer is
/// better to which it was not `given` before.
fn relocate(
    pin: Pin,
    me: &PeerId,
    peers: &Peers,
    left: &BTreeMap<PeerId, u64>,
    given: &Given,
) -> Option<(PeerId, Command)> {
    let Replicas::Range { .. } = pin.options.replicas else {
        return None;
    };
    let is_preferred = pin.options.user_allocations.contains(me) && !planted!(RebalancePreferenceIgnored);
    let settled = |peer: &PeerId| peers.loads.contains_key(peer);
    if is_preferred || !pin.allocations.contains(me) || !pin.allocations.iter().all(settled) {
        return None;
    }
    let rest: Vec<&PeerId> = pin.allocations.iter().filter(|peer| *peer != me).collect();
    let now = spread(peers, rest.iter().copied().chain([me]));
    let room = |peer: &PeerId| left.get(peer).copied().unwrap_or(0);
    let takers: Vec<&PeerId> = if planted!(RebalanceToFull) {
        peers.pool.alive.iter().collect()
    } else {
        peers.pool.candidates.keys().collect()
    };
    let takers = takers
        .into_iter()
        .filter(|peer| !pin.allocations.contains(*peer) && !given.has(&pin.cid, peer));
    let better = takers.filter_map(|peer| {
        let then = spread(peers, rest.iter().copied().chain([peer]));
        let repairs = then > now && !planted!(ZonesUnrepaired);
        let evens = (then >= now || planted!(RebalanceMergesZones)) && room(peer) > 0;
        (repairs || evens).then_some((then, room(peer), rank_by_hash(Some(&pin.cid), peer), peer))
    });
    let (.., to) = better.max()?;
    let mut allocations: Vec<PeerId> = rest.iter().copied().cloned().collect();
    if !planted!(RebalanceReducesCopies) {
        allocations.push(to.clone());
    }
    allocations.sort();
    let command = Command::Reallocate {
        cid: pin.cid.clone(),
        allocations,
        version: pin.version,
    };
    Some((to.clone(), command))
}

/// Counts the different zones of some peers, by the first partitioning metric, by the first two, and so on.
fn spread<'a>(peers: &Peers, of: impl Iterator<Item = &'a PeerId>) -> Vec<usize> {
    let zones: Vec<&[String]> = of
        .map(|peer| peers.zones.get(peer).map_or(&[][..], Vec::as_slice))
        .collect();
    let depth = zones.iter().map(|zone| zone.len()).max().unwrap_or(0);
    let distinct = |depth: usize| {
        let first = zones.iter().map(|zone| &zone[..depth.min(zone.len())]);
        first.collect::<std::collections::BTreeSet<_>>().len()
    };
    (1..=depth).map(distinct).collect()
}

#[cfg(test)]
mod tests;
