//! The state of one run: the peers, the network between them, the clients' open requests, and the checks.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;

use cluster_core::{Effect, Event, Index, Members, PeerId, Refusal, Reply, Request, Ticket};
use madsim::runtime::{Handle, NodeHandle};
use madsim::task::NodeId;
use madsim::time::TimeHandle;

use crate::checks::{Checks, Step, Violation};
use crate::coverage::{Coverage, sometimes};
use crate::disk::DiskError;
use crate::history::History;
use crate::net::Net;
use crate::options::Options;
use crate::peer::Peer;
use crate::report::{Class, Stats};
use crate::rng::Rng;
use crate::trace::Trace;
use crate::{members, panics};

/// The world, shared by all tasks of a run, which run on one thread.
pub(crate) type Shared = Arc<Mutex<World>>;

/// Locks the world.
pub(crate) fn lock(world: &Shared) -> MutexGuard<'_, World> {
    world.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// An open request of a client.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    peer: usize,
    /// Its answer.
    pub(crate) answer: Option<Answer>,
    pub(crate) waker: Option<Waker>,
    /// True if the client has given up.
    abandoned: bool,
}

/// Answer to a client.
#[allow(clippy::large_enum_variant, reason = "few exist at a time")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The peer's reply, and how far its copy was when it gave it.
    Reply(Result<Reply, Refusal>, Index),
    /// The peer's process died.
    Lost,
}

/// End of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The process only: what it wrote is in the page cache.
    Kill,
    /// The machine.
    Cut,
}

/// The simulated world: peers, network, clients and checks.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) peers: Vec<Peer>,
    pub(crate) net: Net,
    pub(crate) slots: BTreeMap<Ticket, Slot>,
    pub(crate) history: History,
    pub(crate) checks: Checks,
    pub(crate) coverage: Coverage,
    pub(crate) stats: Stats,
    pub(crate) trace: Trace,
    /// The second phase has begun.
    pub(crate) calm: bool,
    /// A violation was found: the run ends.
    pub(crate) stopped: bool,
    /// Number of CIDs whose content no IPFS node has.
    pub(crate) unavailable: u64,
    /// Peers whose removal clients have requested. Cleared once it is known to have had no effect.
    pub(crate) removals: BTreeSet<PeerId>,
    /// The membership that the cluster was founded with.
    pub(crate) founders: Members,
    pub(crate) nodes: Vec<NodeId>,
    /// Peer that the scenario calls `it`.
    pub(crate) it: Option<usize>,
    pub(crate) aim: Rng,
    next_ticket: u64,
}

impl World {
    pub(crate) fn new(options: Options, keep_trace: bool) -> Self {
        let count = |number: u64| usize::try_from(number).expect("a few peers");
        let size = count(options.peers + options.learners + options.joiners);
        cluster_core::shrink(options.shrink);
        let members = members::founders(count(options.peers), count(options.learners));
        let peers: Vec<Peer> = (0..size)
            .map(|number| Peer::new(&options, number, members.clone()))
            .collect();
        Self {
            net: Net::new(&options),
            slots: BTreeMap::new(),
            history: History::default(),
            checks: Checks::new(&options, size, &peers[0].config),
            coverage: Coverage::default(),
            stats: Stats::default(),
            trace: Trace::new(keep_trace),
            calm: false,
            stopped: false,
            unavailable: options.unavailable,
            removals: BTreeSet::new(),
            founders: members,
            nodes: Vec::new(),
            it: None,
            aim: Rng::new(options.seed, "aim"),
            next_ticket: 0,
            peers,
            options,
        }
    }

    /// Returns the simulated time, in nanoseconds.
    pub(crate) fn now() -> u64 {
        u64::try_from(TimeHandle::current().elapsed().as_nanos()).expect("a few centuries")
    }

    /// Records a violation, at a peer if one is given, and ends the run.
    pub(crate) fn violate(
        &mut self,
        class: Class,
        check: &'static str,
        peer: impl Into<Option<usize>>,
        text: String,
    ) {
        let (at, peer) = (Self::now(), peer.into());
        self.record(Violation {
            class,
            check,
            at,
            peer,
            text,
        });
    }

    /// Records a violation, and ends the run.
    pub(crate) fn record(&mut self, violation: Violation) {
        self.trace.line(violation.at, "CHECK", || violation.to_string());
        self.checks.violations.push(violation);
        self.stopped = true;
    }

    /// Returns whether faults and clients have ended: the second phase has begun, or the run ends.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm || self.stopped
    }

    /// Adds a line about a peer to the trace.
    pub(crate) fn log(&mut self, peer: usize, what: impl FnOnce() -> String) {
        self.trace.line(Self::now(), name(peer), what);
    }

    /// Returns the number of the peer with this identity.
    pub(crate) fn number_of(&self, id: &PeerId) -> Option<usize> {
        self.peers.iter().position(|peer| peer.id == *id)
    }

    /// Starts the process of a peer.
    pub(crate) fn boot(&mut self, me: usize) {
        let at = Self::now();
        let booted = panics::catch(AssertUnwindSafe(|| self.peers[me].boot(at)));
        match booted {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                self.refuse(me, refusal);
                return;
            }
            Err(text) => {
                self.violate(Class::Crash, "start", me, text);
                return;
            }
        }
        self.stats.boots += 1;
        let peer = &self.peers[me];
        self.trace.line(at, name(me), || {
            let store = &peer.disk.written;
            format!(
                "starts, boot {}, applied {:?}, log to {}",
                peer.disk.boot(),
                store.applied,
                store.last()
            )
        });
        self.checks.booted(at, me, &self.peers);
        self.stopped |= !self.checks.violations.is_empty();
    }

    /// Records that a process ends, or does not start, because of its disk.
    fn refuse(&mut self, me: usize, refusal: DiskError) {
        self.peers[me].refused = Some(refusal);
        self.log(me, || format!("ends: its disk is {refusal:?}"));
        self.coverage.hit(match refusal {
            DiskError::Damaged => "a damaged disk was refused",
            DiskError::Full => "a full disk ended a process",
        });
    }

    /// Handles events at a peer, makes its writes visible, and runs the checks. Returns the effects that
    /// remain to be started.
    pub(crate) fn step(&mut self, me: usize, events: Vec<Event>) -> Vec<Effect> {
        let at = Self::now();
        let peer = &mut self.peers[me];
        let now = peer.now(at);
        let Some(mut node) = peer.node.take() else {
            return Vec::new();
        };
        let store = &peer.disk.written;
        // The second phase waits until nothing happens any more.
        cluster_core::announce_news(!self.calm);
        let given = events.clone();
        let handled = catch_unwind(AssertUnwindSafe(|| {
            let effects = node.handle_all(now, store, given);
            node.check();
            effects
        }));
        let Ok(effects) = handled else {
            let text = format!("{} while handling {events:?}", panics::take());
            self.violate(Class::Crash, "panic", me, text);
            return Vec::new();
        };
        if peer.disk.full && effects.iter().any(|effect| matches!(effect, Effect::Persist(_))) {
            // A store that fails to write ends the process, before anything else is done.
            self.refuse(me, DiskError::Full);
            return Vec::new();
        }
        peer.node = Some(node);
        self.trace.step(at, me, &(&events, &effects));
        self.log(me, || format!("{}{}", listed(&events), indented(&effects)));
        self.stats.steps += 1;
        for effect in &effects {
            if let Effect::Persist(batch) = effect
                && let Err(text) = self.peers[me].disk.write(batch)
            {
                self.violate(Class::Safety, "store", me, text);
            }
        }
        let step = Step {
            at,
            now,
            me,
            events: &events,
            effects: &effects,
            peers: &self.peers,
        };
        self.checks.after_step(&step, &mut self.coverage);
        self.stopped |= !self.checks.violations.is_empty();
        effects
    }

    /// Ends a peer's process, if there is one.
    pub(crate) fn crash(&mut self, me: usize, death: Death) {
        if !self.peers[me].up {
            return;
        }
        let unavailable = self.unavailable;
        let peer = &mut self.peers[me];
        sometimes!(self.coverage, peer.leads(), "the leader died");
        sometimes!(self.coverage, peer.syncing, "died while a sync was under way");
        let joint = !peer.disk.written.members.outgoing.is_empty();
        sometimes!(self.coverage, joint, "died while its membership was joint");
        sometimes!(
            self.coverage,
            peer.ipfs.running() > 0,
            "died with operations under way"
        );
        peer.die();
        peer.ipfs.abandon(|cid| is_available(cid, unavailable));
        let lost = if death == Death::Cut {
            peer.disk.cut(&mut self.aim)
        } else {
            0
        };
        sometimes!(self.coverage, lost > 0, "a power cut lost writes");
        self.log(me, || format!("dies of a {death:?}, {lost} batches lost"));
        let slots = self.slots.values_mut();
        for slot in slots.filter(|slot| slot.peer == me && slot.answer.is_none()) {
            slot.answer = Some(Answer::Lost);
            slot.waker.take().into_iter().for_each(Waker::wake);
        }
        self.slots
            .retain(|_, slot| !slot.abandoned || slot.answer.is_none());
        self.checks.crashed(me);
        match death {
            Death::Kill => self.stats.kills += 1,
            Death::Cut => self.stats.cuts += 1,
        }
        Handle::current().kill(self.nodes[me]);
    }

    /// Starts a peer that is down.
    pub(crate) fn restart(&mut self, me: usize) {
        if !self.peers[me].up {
            self.peers[me].up = true;
            Handle::current().restart(self.nodes[me]);
        }
    }

    /// Sends a client's request to a peer. Returns `None` if its process is down.
    pub(crate) fn submit(&mut self, me: usize, request: Request) -> Option<Ticket> {
        self.peers[me].node.as_ref()?;
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        let slot = Slot {
            peer: me,
            ..Slot::default()
        };
        self.slots.insert(ticket, slot);
        self.peers[me].post(Event::Requested { ticket, request });
        Some(ticket)
    }

    /// Records that the client has given up.
    pub(crate) fn abandon(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slots.get_mut(&ticket) {
            slot.abandoned = true;
            slot.waker = None;
            if slot.answer.is_some() {
                self.slots.remove(&ticket);
            }
        }
    }

    /// Records a peer's answer.
    pub(crate) fn reply(&mut self, me: usize, ticket: Ticket, reply: Result<Reply, Refusal>) {
        let applied = self.peers[me].disk.written.applied.index;
        let Some(slot) = self.slots.get_mut(&ticket) else {
            return;
        };
        if slot.abandoned {
            self.slots.remove(&ticket);
            return;
        }
        slot.answer = Some(Answer::Reply(reply, applied));
        slot.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Ends all processes and tasks, to free the memory of this run.
    pub(crate) fn tear_down(&mut self, others: &[NodeHandle]) {
        let others = others.iter().map(NodeHandle::id);
        for node in self.nodes.iter().copied().chain(others) {
            Handle::current().kill(node);
        }
        self.forget();
    }

    /// Drops processes and open requests, which would keep this world in memory.
    pub(crate) fn forget(&mut self) {
        self.peers.iter_mut().for_each(Peer::die);
        self.slots.clear();
    }
}

/// Returns whether any IPFS node has a CID's content.
pub(crate) fn is_available(cid: &cluster_core::Cid, unavailable: u64) -> bool {
    (0..unavailable).all(|number| crate::peer::cid(number) != *cid)
}

/// Returns a peer's name in the trace.
pub(crate) fn name(me: usize) -> Name {
    Name(me)
}

/// A peer's number, shown as its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Name(usize);

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("p{}", self.0))
    }
}

/// Formats one event as it is, several with a line each.
fn listed(events: &[Event]) -> String {
    let texts: Vec<String> = events.iter().map(|event| format!("{event:?}")).collect();
    texts.join(&format!("\n{:22}and ", ""))
}

fn indented(effects: &[Effect]) -> String {
    let lines = effects.iter().map(|effect| format!("\n{:22}-> {effect:?}", ""));
    lines.collect()
}
