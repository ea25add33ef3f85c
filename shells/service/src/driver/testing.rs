//! The cores and stores of a whole cluster in one process, for tests of the layers above the driver. Messages
//! between the cores arrive at once, and their clock moves only while a request waits for it. Tests decide
//! how pins at the IPFS nodes end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use cluster_core::{
    Cid, Config, Effect, Event, Incarnation, Instant, IpfsAction, IpfsError, Members, Metric, Missing, Node,
    Now, OpId, PING, PeerId, Recovered, Refusal, Reply, Request, Ticket, Timestamp, VERSION,
};
use tokio::sync::oneshot;

use super::{Handle, Input};
use crate::store::{OpenOptions, Reader, Store};

/// Steps after which a cluster that does not settle counts as stuck.
const STEPS_MAX: usize = 1_000_000;

/// Longer than any test lasts by the clock of the cores.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// Time in which the peers notice that another one is silent.
const SILENCE: Duration = Duration::from_secs(60);

/// A cluster of cores.
pub(crate) struct Cores {
    state: Arc<Mutex<State>>,
}

struct State {
    now: Now,
    peers: BTreeMap<PeerId, Peer>,
    isolated: BTreeSet<PeerId>,
    /// Answer to all requests, instead of the core's.
    refusal: Option<Refusal>,
}

/// Answer to a request.
type Outcome = Result<Reply, Refusal>;

struct Peer {
    node: Node,
    store: Store,
    metrics: Vec<Metric>,
    next_ticket: u64,
    waiters: BTreeMap<Ticket, oneshot::Sender<Outcome>>,
    replies: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    /// Pins that run at the IPFS node.
    running: BTreeMap<Cid, OpId>,
    /// Results of pins that do not run yet.
    outcomes: BTreeMap<Cid, Result<(), IpfsError>>,
    /// Pins that the IPFS node no longer has.
    lost: BTreeSet<Cid>,
}

impl Cores {
    /// Founds a cluster of peers with these metrics, and waits until all know its leader and each other.
    pub(crate) fn found_cluster(
        folder: &Path,
        wall: Timestamp,
        peers: BTreeMap<PeerId, Vec<Metric>>,
    ) -> Self {
        let members = Members {
            // As once all have announced what they can read.
            version: VERSION,
            ..Members::initial(peers.keys().cloned())
        };
        let count = peers.len();
        let now = Now {
            mono: Instant(0),
            wall,
        };
        let peers = (1..).zip(peers).map(|(number, (peer, metrics))| {
            let recovered = Recovered::founding(Incarnation(number), members.clone());
            let folder = folder.join(format!("raft{number}"));
            let mut store = Store::open(&folder, &OpenOptions::default()).unwrap();
            store.initialise(&recovered).unwrap();
            let node = Node::new(config(peer.clone()), recovered, number, now);
            (peer, Peer::new(node, store, metrics))
        });
        let mut state = State {
            now,
            peers: peers.collect(),
            isolated: BTreeSet::new(),
            refusal: None,
        };
        state.pass_until(|state| {
            state.peers.values().all(|peer| {
                let view = peer.node.view();
                view.leader().is_some() && view.metrics(state.now, PING).count() == count
            })
        });
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Returns a handle to the core of a peer, whose inputs are handled by a new thread.
    pub(crate) fn handle(&self, peer: &PeerId) -> Handle {
        let (inputs, receiver) = mpsc::channel();
        let (state, peer) = (Arc::clone(&self.state), peer.clone());
        std::thread::spawn(move || {
            for input in receiver {
                state.lock().unwrap().take(&peer, input);
            }
        });
        Handle::new(inputs)
    }

    /// Returns the members.
    pub(crate) fn members(&self, peer: &PeerId) -> Members {
        self.lock().peers[peer].node.view().members().clone()
    }

    /// Returns the database of a peer.
    pub(crate) fn reader(&self, peer: &PeerId) -> Reader {
        self.lock().peers[peer].store.reader()
    }

    /// Sets the result of all requests, instead of the core's.
    pub(crate) fn refuse(&self, refusal: Option<Refusal>) {
        self.lock().refusal = refusal;
    }

    /// Ends the pin of a CID that runs at a peer's IPFS node, or the next one.
    pub(crate) fn finish_pin(&self, peer: &PeerId, cid: &Cid, outcome: Result<(), &str>) {
        let outcome = outcome.map_err(|why| IpfsError::Failed(why.to_owned()));
        let mut state = self.lock();
        let there = state.peers.get_mut(peer).unwrap();
        match there.running.remove(cid) {
            Some(op) => state.run(peer, Event::IpfsFinished { op, outcome }),
            None => drop(there.outcomes.insert(cid.clone(), outcome)),
        }
    }

    /// Removes a CID from a peer's IPFS node, which the next comparison finds.
    pub(crate) fn lose(&self, peer: &PeerId, cid: &Cid) {
        self.lock().peers.get_mut(peer).unwrap().lost.insert(cid.clone());
    }

    /// Cuts a peer off, and waits until the others notice.
    pub(crate) fn isolate(&self, peer: &PeerId) {
        let mut state = self.lock();
        state.isolated.insert(peer.clone());
        let end = state.now.mono + SILENCE;
        state.pass_until(|state| state.now.mono >= end);
    }

    /// Returns whether a peer is cut off.
    pub(crate) fn is_isolated(&self, peer: &PeerId) -> bool {
        self.lock().isolated.contains(peer)
    }

    /// Ends all cores and closes their stores.
    pub(crate) fn close(&self) {
        self.lock().peers.clear();
    }
}

fn config(peer: PeerId) -> Config {
    let mut config = Config::new(peer);
    config.allocate_by = vec!["freespace".to_owned()];
    config.tracker.pin_timeout = NEVER;
    config.tracker.retry_min = NEVER;
    config.tracker.retry_max = NEVER;
    config.tracker.compare_interval = Duration::ZERO;
    config.failover.enabled = false;
    config
}

impl State {
    fn take(&mut self, me: &PeerId, input: Input) {
        let Some(peer) = self.peers.get_mut(me) else {
            return;
        };
        match input {
            Input::Event(event) => self.run(me, event),
            Input::Read(read) => read(peer.node.view(), self.now),
            Input::Received(..) | Input::Stop => unreachable!("the cores reach each other directly"),
            Input::Request(request, reply) => match &self.refusal {
                // The requester may be gone.
                Some(refusal) => drop(reply.send(Err(refusal.clone()))),
                None => self.request(me, request, reply),
            },
        }
    }

    /// Handles a request, and replies once all reachable members have applied it, and nothing is due.
    fn request(&mut self, me: &PeerId, request: Request, reply: oneshot::Sender<Result<Reply, Refusal>>) {
        let peer = self.peers.get_mut(me).unwrap();
        peer.next_ticket += 1;
        let ticket = Ticket(peer.next_ticket);
        peer.waiters.insert(ticket, reply);
        self.run(me, Event::Requested { ticket, request });
        self.pass_until(|state| {
            let here = &state.peers[me];
            let members = here.node.view().members();
            let applied = |peer: &Peer| peer.node.view().applied().index;
            let mut reachable = state
                .peers
                .iter()
                .filter(|(peer, _)| members.raft_id(peer).is_some() && !state.isolated.contains(*peer));
            here.waiters.is_empty()
                && reachable.all(|(_, peer)| applied(peer) == applied(here))
                && state.next_due().0 > state.now.mono
        });
        for (reply, outcome) in self.peers.get_mut(me).unwrap().replies.drain(..) {
            // The requester may be gone.
            drop(reply.send(outcome));
        }
    }

    /// Returns the next deadline, and the peer that has it.
    fn next_due(&self) -> (Instant, PeerId) {
        let due = self.peers.iter().filter_map(|(peer, state)| {
            let (at, _) = state.node.poll_timeout(self.now)?;
            Some((at, peer.clone()))
        });
        due.min().expect("Raft always has a deadline")
    }

    /// Lets time pass until a condition holds.
    fn pass_until(&mut self, done: impl Fn(&Self) -> bool) {
        for _ in 0..STEPS_MAX {
            if done(self) {
                return;
            }
            let (at, peer) = self.next_due();
            self.now.mono = self.now.mono.max(at);
            self.run(&peer, Event::TimedOut);
        }
        panic!("the cluster does not settle");
    }

    /// Handles an event and all that follows from it at once.
    fn run(&mut self, peer: &PeerId, event: Event) {
        let mut events = VecDeque::from([(peer.clone(), event)]);
        while let Some((me, event)) = events.pop_front() {
            let peer = self.peers.get_mut(&me).unwrap();
            for effect in peer.node.handle(self.now, &peer.store.view(), event) {
                if let Effect::Send { to, envelope } = effect {
                    if !self.isolated.contains(&me) && !self.isolated.contains(&to) {
                        let from = me.clone();
                        events.push_back((to, Event::Received { from, envelope }));
                    }
                } else {
                    let answers = peer.start(effect).into_iter();
                    events.extend(answers.map(|event| (me.clone(), event)));
                }
            }
        }
    }
}

impl Peer {
    fn new(node: Node, store: Store, metrics: Vec<Metric>) -> Self {
        Self {
            node,
            store,
            metrics,
            next_ticket: 0,
            waiters: BTreeMap::new(),
            replies: Vec::new(),
            running: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            lost: BTreeSet::new(),
        }
    }

    /// Starts an effect; returns the events that it leads to at once.
    fn start(&mut self, effect: Effect) -> Vec<Event> {
        match effect {
            Effect::CancelIpfs { op } => {
                let before = self.running.len();
                self.running.retain(|_, running| *running != op);
                let outcome = Err(IpfsError::Cancelled);
                // One that is not running has ended already.
                let cancelled = (self.running.len() < before).then_some(Event::IpfsFinished { op, outcome });
                cancelled.into_iter().collect()
            }
            Effect::CompareIpfs { op, cid } => {
                let outcome = Ok(());
                let missing = self.take_lost(cid.as_ref());
                vec![
                    Event::IpfsLacks { op, missing },
                    Event::IpfsCompared { op, outcome },
                ]
            }
            Effect::Measure => vec![Event::Measured {
                metrics: self.metrics.clone(),
            }],
            Effect::Persist(batch) => {
                self.store.write(&batch).unwrap();
                let persisted = Event::Persisted { batch: batch.id };
                batch.sync.then_some(persisted).into_iter().collect()
            }
            Effect::Reply { ticket, reply } => {
                self.replies.push((self.waiters.remove(&ticket).unwrap(), reply));
                Vec::new()
            }
            Effect::StartIpfs { op, action } => {
                let outcome = match action {
                    IpfsAction::Unpin { .. } => Some(Ok(())),
                    IpfsAction::Pin { cid, .. } => {
                        let outcome = self.outcomes.remove(&cid);
                        if outcome.is_none() {
                            self.running.insert(cid, op);
                        }
                        outcome
                    }
                };
                let finished = outcome.map(|outcome| Event::IpfsFinished { op, outcome });
                finished.into_iter().collect()
            }
            Effect::DiscardSnapshot { .. } | Effect::Send { .. } | Effect::SendSnapshot { .. } => {
                unreachable!("messages are sent elsewhere, and no peer lags behind the log")
            }
        }
    }

    fn take_lost(&mut self, only: Option<&Cid>) -> Vec<Missing> {
        let reader = self.store.reader();
        let compared = |cid: &Cid| only.is_none_or(|only| only == cid);
        let (lost, rest) = std::mem::take(&mut self.lost).into_iter().partition(compared);
        self.lost = rest;
        let lost: BTreeSet<Cid> = lost;
        let missing = lost.into_iter().map(|cid| {
            let since = reader.local(&cid).unwrap().unwrap().since;
            Missing { cid, since }
        });
        missing.collect()
    }
}
