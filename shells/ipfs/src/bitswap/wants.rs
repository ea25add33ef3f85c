//! State of this node's wants: which peers were asked, and what they answered. The client half of the
//! exchange, without any I/O.
//!
//! Only *targets of broadcasts* are asked for blocks that nobody is known to have: trusted peers, those at
//! local addresses, and those that had a block before. All others are connected for other reasons, such as a
//! lookup in the DHT, and would be flooded.
//!
//! A want has at most one *target*, the peer asked for the block itself; others are asked whether they have
//! it. Peers that delivered or had a block in a session are preferred for its next wants, the least busy
//! first, so that holders share the work. Other targets of broadcasts are asked about a few of the next wants
//! too ([`SessionPeers::add_want`]), and an answer counts even after another peer has delivered the block:
//! otherwise the fastest peer of the first want would deliver all the rest alone. A peer that turns out to
//! have blocks of a session also takes over some of the wants that wait at the others. Peers record wants for
//! blocks that they lack, and answer when the block arrives; asking all again from time to time makes up for
//! lost messages.

use super::Arrival;
use crate::Cid;
use crate::Error;
use crate::store::key_of;
use libp2p::PeerId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Time after which a silent target loses the want; Kubo simulates a DONT_HAVE after as long.
const TARGET_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of asking again for blocks that no peer has.
const ROUND: Duration = Duration::from_secs(10);
/// Limit on peers asked about one want together.
const BROADCAST_MAX: usize = 64;
/// Limit on wants sent to a newly connected peer; as many as Kubo records of one peer.
const INITIAL_WANTS_MAX: usize = 1024;
/// Limit on preferred peers of a session.
const GOOD_MAX: usize = 16;
/// Limit on wants of a session between two about which all targets of broadcasts are asked: their messages
/// are a thousandth of all, and a peer that fetches the same content is noticed while it does.
const PROBE_INTERVAL_MAX: u64 = 1024;
/// Limit on settled wants whose unanswered questions are remembered. A late answer follows within a round
/// trip; each remembers at most [`BROADCAST_MAX`] peers and a few targets.
pub(super) const SETTLED_MAX: usize = 64;

/// Entry to send to a peer about one CID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Block,
    Have,
    Cancel,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Asked,
    Have,
    DontHave,
}

pub(super) type Waiter = oneshot::Sender<Result<Arrival, Error>>;

#[derive(Debug)]
struct Want {
    cid: Cid,
    session: u64,
    waiters: Vec<(u64, Waiter)>,
    asked: HashMap<PeerId, Answer>,
    target: Option<(PeerId, Instant)>,
    round: Instant,
    /// True if all targets of broadcasts are asked, even if the session knows peers that had a block.
    is_probe: bool,
}

/// Peers of a group of related wants.
#[derive(Debug)]
struct SessionPeers {
    /// Peers that had a block, the latest first.
    good: Vec<PeerId>,
    /// Number of wants so far.
    wants: u64,
    /// Number of the next want that is a probe.
    next_probe: u64,
}

impl SessionPeers {
    /// Counts a want. Returns whether it is a probe: the first, the second, the fourth, and so on, with at
    /// most [`PROBE_INTERVAL_MAX`] wants in between.
    fn add_want(&mut self) -> bool {
        self.wants += 1;
        let is_probe = self.wants >= self.next_probe;
        if is_probe {
            self.next_probe = self.wants + self.wants.min(PROBE_INTERVAL_MAX);
        }
        is_probe
    }
}

/// Peers that have not answered yet about wants that were settled meanwhile, the oldest want first.
#[derive(Debug, Default)]
struct Settled {
    unanswered: HashMap<Vec<u8>, (u64, HashSet<PeerId>)>,
    order: VecDeque<Vec<u8>>,
}

impl Settled {
    fn add(&mut self, key: Vec<u8>, session: u64, unanswered: HashSet<PeerId>) {
        if unanswered.is_empty() {
            return;
        }
        if self
            .unanswered
            .insert(key.clone(), (session, unanswered))
            .is_none()
        {
            self.order.push_back(key);
        }
        if self.order.len() > SETTLED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.unanswered.remove(&oldest);
        }
    }

    /// Removes a peer that answers. Returns the session of the want.
    fn answered(&mut self, key: &[u8], peer: &PeerId) -> Option<u64> {
        let (session, unanswered) = self.unanswered.get_mut(key)?;
        unanswered.remove(peer).then_some(*session)
    }
}

#[derive(Debug)]
struct Peer {
    /// Number of wants with this peer as their target.
    busy: usize,
    /// Time of the last block or presence received.
    last_response: Instant,
    usable: bool,
    /// True if the peer is asked for blocks that nobody is known to have.
    is_target: bool,
}

/// All wants of this node.
#[derive(Debug, Default)]
pub(super) struct Wants {
    wants: HashMap<Vec<u8>, Want>,
    peers: HashMap<PeerId, Peer>,
    sessions: HashMap<u64, SessionPeers>,
    settled: Settled,
    /// Peers that are asked whenever they are connected.
    trusted: HashSet<PeerId>,
    next: u64,
    /// Entries to send; the caller takes them after every call.
    pub(super) out: Vec<(PeerId, Cid, Ask)>,
}

impl Wants {
    pub(super) fn open_session(&mut self) -> u64 {
        self.next += 1;
        let session = SessionPeers {
            good: Vec::new(),
            wants: 0,
            next_probe: 1,
        };
        self.sessions.insert(self.next, session);
        self.next
    }

    pub(super) fn close_session(&mut self, session: u64) {
        self.sessions.remove(&session);
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.wants.contains_key(key)
    }

    /// Returns the CIDs of all wants.
    pub(super) fn cids(&self) -> Vec<Cid> {
        self.wants.values().map(|want| want.cid).collect()
    }

    /// Registers a want; returns the waiter's id for [`Wants::cancel`].
    pub(super) fn want(&mut self, session: u64, cid: Cid, waiter: Waiter, now: Instant) -> u64 {
        self.next += 1;
        let id = self.next;
        let key = key_of(&cid);
        let want = self.wants.entry(key.clone()).or_insert_with(|| Want {
            cid,
            session,
            waiters: Vec::new(),
            asked: HashMap::new(),
            target: None,
            round: now,
            is_probe: self
                .sessions
                .get_mut(&session)
                .is_some_and(SessionPeers::add_want),
        });
        want.waiters.push((id, waiter));
        self.advance(&key, now);
        id
    }

    /// Removes a waiter, and the want if it was the last one.
    pub(super) fn cancel(&mut self, key: &[u8], waiter: u64) {
        let Some(want) = self.wants.get_mut(key) else {
            return;
        };
        want.waiters.retain(|(id, _)| *id != waiter);
        if want.waiters.is_empty() {
            self.settle(key, None);
        }
    }

    /// Notes that a wanted block was received from `from`, or stored by this node. Returns its waiters.
    pub(super) fn received(&mut self, key: &[u8], from: Option<PeerId>, now: Instant) -> Vec<Waiter> {
        if let Some(peer) = from {
            self.record_response(peer, now);
            if let Some(want) = self.wants.get(key) {
                let session = want.session;
                self.prefer(session, peer, now);
            }
        }
        self.settle(key, from)
    }

    fn settle(&mut self, key: &[u8], from: Option<PeerId>) -> Vec<Waiter> {
        let Some(want) = self.wants.remove(key) else {
            return Vec::new();
        };
        if let Some((target, _)) = want.target {
            self.relieve(target);
        }
        let others = || want.asked.iter().filter(|(peer, _)| Some(**peer) != from);
        let unanswered = others().filter(|(_, answer)| **answer == Answer::Asked);
        let unanswered = unanswered.map(|(peer, _)| *peer).collect();
        self.settled.add(key.to_owned(), want.session, unanswered);
        // Also to those without the block: they have recorded the want.
        self.out
            .extend(others().map(|(peer, _)| (*peer, want.cid, Ask::Cancel)));
        want.waiters.into_iter().map(|(_, waiter)| waiter).collect()
    }

    fn relieve(&mut self, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.busy = peer.busy.saturating_sub(1);
        }
    }

    fn record_response(&mut self, peer: PeerId, now: Instant) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.last_response = now;
        }
    }

    fn prefer(&mut self, session: u64, peer: PeerId, now: Instant) {
        if let Some(known) = self.sessions.get_mut(&session)
            && !known.good.contains(&peer)
        {
            known.good.truncate(GOOD_MAX - 1);
            known.good.insert(0, peer);
            self.share(session, peer, now);
        }
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.is_target = true;
        }
    }

    /// Moves wants of a session to a peer that turns out to have its blocks, until it has as many as each of
    /// the others. The first wants of a target stay: their blocks may be on their way.
    fn share(&mut self, session: u64, newcomer: PeerId, now: Instant) {
        let holders = self.sessions.get(&session).map_or(1, |known| known.good.len());
        if holders < 2 || !self.peers.get(&newcomer).is_some_and(|peer| peer.usable) {
            return;
        }
        let mut targeted: Vec<(u64, PeerId, &Vec<u8>)> = Vec::new();
        for (key, want) in &self.wants {
            if want.session == session
                && let (Some((target, _)), Some((id, _))) = (want.target, want.waiters.first())
            {
                targeted.push((*id, target, key));
            }
        }
        targeted.sort_unstable_by_key(|(id, ..)| *id);
        let fair = targeted.len() / holders;
        let mut counts: HashMap<PeerId, usize> = HashMap::new();
        let mut surplus = Vec::new();
        for (_, target, key) in targeted {
            let count = counts.entry(target).or_default();
            *count += 1;
            if *count > fair && target != newcomer {
                surplus.push((target, key.clone()));
            }
        }
        let own = counts.get(&newcomer).copied().unwrap_or_default();
        for (target, key) in surplus.into_iter().rev().take(fair.saturating_sub(own)) {
            self.retarget(&key, target, newcomer, now);
        }
    }

    /// Asks another peer for a block instead of its target.
    fn retarget(&mut self, key: &[u8], target: PeerId, newcomer: PeerId, now: Instant) {
        let Some(want) = self.wants.get_mut(key) else {
            return;
        };
        if want.asked.get(&newcomer) == Some(&Answer::DontHave) {
            return;
        }
        want.target = Some((newcomer, now));
        want.asked.remove(&target);
        want.asked.entry(newcomer).or_insert(Answer::Asked);
        let cid = want.cid;
        self.out.push((target, cid, Ask::Cancel));
        self.out.push((newcomer, cid, Ask::Block));
        self.relieve(target);
        if let Some(peer) = self.peers.get_mut(&newcomer) {
            peer.busy += 1;
        }
    }

    /// Records a peer's answer whether it has a block.
    pub(super) fn presence_received(&mut self, peer: PeerId, key: &[u8], has: bool, now: Instant) {
        self.record_response(peer, now);
        let Some(want) = self.wants.get_mut(key) else {
            self.answered_late(peer, key, has, now);
            return;
        };
        let Some(answer) = want.asked.get_mut(&peer) else {
            return;
        };
        let targeted = want.target.is_some_and(|(target, _)| target == peer);
        if has {
            *answer = Answer::Have;
            let session = want.session;
            self.prefer(session, peer, now);
        } else {
            *answer = Answer::DontHave;
            if targeted {
                want.target = None;
                self.relieve(peer);
            }
        }
        self.advance(key, now);
    }

    /// Notes that a peer had a block that is not wanted any more, or lacked it. A peer that was asked for it
    /// is asked for the next blocks of the session too.
    pub(super) fn answered_late(&mut self, peer: PeerId, key: &[u8], has: bool, now: Instant) {
        if let Some(session) = self.settled.answered(key, &peer)
            && has
            && self.peers.contains_key(&peer)
            && self.sessions.contains_key(&session)
        {
            self.prefer(session, peer, now);
        }
    }

    /// Adds a peer that connected. One at a local address is asked for blocks like a trusted one.
    pub(super) fn connected(&mut self, peer: PeerId, is_local: bool, now: Instant) {
        let is_target = is_local || self.trusted.contains(&peer);
        let new = Peer {
            busy: 0,
            last_response: now,
            usable: true,
            is_target,
        };
        self.peers.insert(peer, new);
        if is_target {
            self.ask_newcomer(peer, now);
        }
    }

    /// Starts or stops to ask a peer for all blocks that nobody is known to have.
    pub(super) fn set_trusted(&mut self, peer: PeerId, trusted: bool, now: Instant) {
        if !trusted {
            self.trusted.remove(&peer);
        } else if self.trusted.insert(peer) {
            self.make_target(peer, now);
        }
    }

    /// Notes that a connected peer is a provider of what a session wants.
    pub(super) fn provider_found(&mut self, session: u64, peer: PeerId, now: Instant) {
        // First, because preferring it makes it a target without asking for anything.
        self.make_target(peer, now);
        self.prefer(session, peer, now);
    }

    fn make_target(&mut self, peer: PeerId, now: Instant) {
        if let Some(known) = self.peers.get_mut(&peer)
            && !known.is_target
        {
            known.is_target = true;
            self.ask_newcomer(peer, now);
        }
    }

    /// Returns whether any connected peer is asked for blocks that nobody is known to have.
    pub(super) fn has_targets(&self) -> bool {
        self.peers.values().any(|peer| peer.usable && peer.is_target)
    }

    /// Returns whether a session knows peers that had a block.
    pub(super) fn has_session_peers(&self, session: u64) -> bool {
        let session = self.sessions.get(&session);
        session.is_some_and(|session| !session.good.is_empty())
    }

    /// Returns whether blocks are expected from a peer.
    pub(super) fn is_in_use(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_some_and(|known| known.busy > 0)
            || self.sessions.values().any(|session| session.good.contains(peer))
    }

    /// Returns the number of settled wants that are remembered.
    #[cfg(test)]
    pub(super) fn settled_len(&self) -> usize {
        self.settled.unanswered.len().max(self.settled.order.len())
    }

    fn ask_newcomer(&mut self, peer: PeerId, now: Instant) {
        // The other peers were asked already. Considering only the new one keeps a stranger that reconnects
        // often from causing a scan of all peers for each want.
        let waiting = self.wants.values_mut().filter(|want| want.target.is_none());
        for want in waiting.take(INITIAL_WANTS_MAX) {
            let ask = if want.asked.is_empty() {
                want.target = Some((peer, now));
                Ask::Block
            } else {
                Ask::Have
            };
            want.asked.insert(peer, Answer::Asked);
            self.out.push((peer, want.cid, ask));
            if ask == Ask::Block
                && let Some(newcomer) = self.peers.get_mut(&peer)
            {
                newcomer.busy += 1;
            }
        }
    }

    /// Removes a peer that disconnected.
    pub(super) fn disconnected(&mut self, peer: PeerId, now: Instant) {
        self.peers.remove(&peer);
        self.abandon(peer, now);
    }

    /// Abandons a peer that cannot be sent messages: it does not support bitswap (`for_good`), or writing
    /// failed.
    pub(super) fn failed(&mut self, peer: PeerId, for_good: bool, now: Instant) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.usable = !for_good;
            known.busy = 0;
        }
        self.abandon(peer, now);
    }

    fn abandon(&mut self, peer: PeerId, now: Instant) {
        for session in self.sessions.values_mut() {
            session.good.retain(|known| *known != peer);
        }
        let mut orphans = Vec::new();
        for (key, want) in &mut self.wants {
            if want.asked.remove(&peer).is_some() && want.target.is_some_and(|(target, _)| target == peer) {
                want.target = None;
                orphans.push(key.clone());
            }
        }
        let remains = self.peers.contains_key(&peer);
        for key in orphans {
            if let Some(want) = self.wants.get_mut(&key)
                && remains
            {
                // It is asked again in the next round, not at once.
                want.asked.insert(peer, Answer::DontHave);
            }
            self.advance(&key, now);
        }
    }

    /// Moves wants away from silent targets, and asks again for blocks that no peer had.
    pub(super) fn tick(&mut self, now: Instant) {
        let mut silent = Vec::new();
        let mut stale = Vec::new();
        for (key, want) in &self.wants {
            match want.target {
                Some((peer, since)) => {
                    let last_response = self
                        .peers
                        .get(&peer)
                        .map_or(since, |peer| peer.last_response.max(since));
                    if now.saturating_duration_since(last_response) >= TARGET_TIMEOUT {
                        silent.push((key.clone(), peer));
                    }
                }
                None if now.saturating_duration_since(want.round) >= ROUND => stale.push(key.clone()),
                None => {}
            }
        }
        for (key, peer) in silent {
            if let Some(want) = self.wants.get_mut(&key) {
                want.target = None;
                want.asked.insert(peer, Answer::DontHave);
            }
            self.relieve(peer);
            self.advance(&key, now);
        }
        for key in stale {
            if let Some(want) = self.wants.get_mut(&key) {
                want.round = now;
                want.asked.clear();
            }
            self.broadcast(&key);
        }
    }

    /// Finds a target for a want without one, or asks peers that could become one.
    fn advance(&mut self, key: &[u8], now: Instant) {
        let Some(want) = self.wants.get(key) else { return };
        if want.target.is_some() {
            return;
        }
        let session = self.sessions.get(&want.session);
        let good = session.map_or(&[][..], |session| session.good.as_slice());
        let usable = || self.peers.iter().filter(|(_, peer)| peer.usable);
        let rank = |id: &PeerId, is_target: bool| match want.asked.get(id) {
            Some(Answer::Have) => Some(0),
            Some(Answer::DontHave) => None,
            Some(Answer::Asked) | None if good.contains(id) => Some(1),
            Some(Answer::Asked) => None,
            // If nobody was asked yet, one stranger is asked for the block itself: this saves a round trip.
            None if want.asked.is_empty() && is_target => Some(2),
            None => None,
        };
        let ranked =
            usable().filter_map(|(id, peer)| rank(id, peer.is_target).map(|rank| (rank, peer.busy, *id)));
        let best = ranked.min_by_key(|(rank, busy, _)| (*rank, *busy));
        let (cid, is_probe) = (want.cid, want.is_probe);
        if let Some((_, _, target)) = best {
            if let Some(want) = self.wants.get_mut(key) {
                want.target = Some((target, now));
                want.asked.entry(target).or_insert(Answer::Asked);
            }
            if let Some(peer) = self.peers.get_mut(&target) {
                peer.busy += 1;
            }
            self.out.push((target, cid, Ask::Block));
            if best.is_some_and(|(rank, ..)| rank < 2) && !is_probe {
                return;
            }
        }
        self.broadcast(key);
    }

    fn broadcast(&mut self, key: &[u8]) {
        let Some(want) = self.wants.get_mut(key) else {
            return;
        };
        let unasked = self
            .peers
            .iter()
            .filter(|(id, peer)| peer.usable && peer.is_target && !want.asked.contains_key(id));
        let unasked: Vec<PeerId> = unasked.map(|(id, _)| *id).take(BROADCAST_MAX).collect();
        for peer in unasked {
            want.asked.insert(peer, Answer::Asked);
            self.out.push((peer, want.cid, Ask::Have));
        }
    }
}
