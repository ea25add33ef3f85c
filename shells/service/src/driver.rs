//! The loop of a peer: receives events, passes them to the core and starts the effects. The only module that
//! uses the store, the network and the IPFS node together.

mod compare;
mod copy_count;
mod delays;
mod failure_log;
mod fullness;
mod informer;
mod ipfs;
mod move_pace;
mod snapshots;
#[cfg(test)]
pub(crate) mod testing;
mod transfers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster_core::{
    Batch, Effect, Envelope, Event, Instant, Membership, Node, Now, PeerId, Refusal, Reply, Request, StoreOp,
    Ticket, Timestamp, View,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use self::delays::Armed;
pub use self::delays::{Delays, WorstDelays};
pub(crate) use self::fullness::{FULL, percent};
pub use self::informer::{Disk, Informer, Measured, MeasuredDisk};
pub use self::snapshots::stage;
pub use self::transfers::Transfer;

use self::ipfs::Operations;
use self::transfers::Transfers;
use crate::events::EventLog;
use crate::metrics::{metrics, observe_since};
use crate::net::Net;
use crate::store::{Store, Syncer};
use crate::trace::{BatchStart, RequestSpan};
use cluster_ipfs::Backend;

/// Input of the loop.
#[allow(clippy::large_enum_variant, reason = "most of them are messages and requests")]
enum Input {
    Event(Event),
    Received(PeerId, Envelope, OwnedSemaphorePermit),
    Request(Request, oneshot::Sender<Result<Reply, Refusal>>),
    Read(Box<dyn FnOnce(View<'_>, Now) + Send>),
    Stop,
}

/// Messages of other peers queued for the loop: some 10 ms of its work.
const MESSAGES_MAX: usize = 1024;

/// Client requests queued for the loop; the core limits those it has opened separately.
const REQUESTS_MAX: usize = 8192;

/// Events handled together: some milliseconds of the loop's work.
const EVENTS_MAX: usize = 256;

/// Number of waiting events from which the loop counts as busy, and expects more.
const BUSY: usize = 6;

/// Time for which a busy loop gathers events, to write and send their effects together: one write of the
/// database, one log entry and one sync cost as much for a hundred pins as for one.
const GATHER: Duration = Duration::from_micros(300);

/// Handle to the running loop. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    limits: Arc<QueueLimits>,
    clock: Clock,
    delays: Delays,
    transfers: Transfers,
    changes: watch::Sender<()>,
}

/// Permits of the loop's queue. Inputs without one are bounded by the operations that the core has started.
struct QueueLimits {
    messages: Arc<Semaphore>,
    requests: AtomicUsize,
}

/// This process's clocks, as the core reads them.
#[derive(Clone, Copy)]
pub struct Clock {
    start: std::time::Instant,
}

impl Clock {
    fn new() -> Self {
        Self {
            start: std::time::Instant::now(),
        }
    }

    /// Reads both clocks.
    pub fn now(self) -> Now {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let wall = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Now {
            mono: Instant(nanos(self.start.elapsed())),
            wall: Timestamp(nanos(wall)),
        }
    }
}

impl Handle {
    fn new(inputs: mpsc::Sender<Input>) -> Self {
        let limits = QueueLimits {
            messages: Arc::new(Semaphore::new(MESSAGES_MAX)),
            requests: AtomicUsize::new(0),
        };
        Self {
            inputs,
            limits: Arc::new(limits),
            clock: Clock::new(),
            delays: Delays::default(),
            transfers: Transfers::default(),
            changes: watch::Sender::new(()),
        }
    }

    /// Sends a client's request to the core and waits for its reply.
    ///
    /// # Errors
    /// The core's [`Refusal`]. A full queue is refused at once; a peer that shuts down answers that the
    /// request may still take effect.
    pub async fn request(&self, request: Request) -> Result<Reply, Refusal> {
        if self.limits.requests.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            self.limits.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Busy);
        }
        let (reply, answer) = oneshot::channel();
        let (start, span) = (std::time::Instant::now(), RequestSpan::begin(&request));
        if self.inputs.send(Input::Request(request, reply)).is_err() {
            self.limits.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Unknown);
        }
        let reply = answer.await.unwrap_or(Err(Refusal::Unknown));
        note_reply(&reply, start);
        if let Some(span) = span {
            span.end(reply.as_ref().err());
        }
        reply
    }

    /// Reads a value from the core, between two events; `None` when this peer is shutting down.
    pub async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(View<'_>, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |view: View<'_>, now: Now| {
            // The requester may be gone.
            let _ = reply.send(read(view, now));
        });
        self.inputs.send(Input::Read(read)).ok()?;
        answer.await.ok()
    }

    /// Returns a receiver that is notified when the leader, the members or this peer's membership changes.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Queues a message of another peer. Waits while the queue is full, so that the network slows its senders
    /// down.
    pub async fn received(&self, from: PeerId, envelope: Envelope) {
        // The semaphore is never closed.
        if let Ok(permit) = self.limits.messages.clone().acquire_owned().await {
            let _ = self.inputs.send(Input::Received(from, envelope, permit));
        }
    }

    /// Queues any other event.
    pub fn event(&self, event: Event) {
        // The loop is gone only when the process ends.
        let _ = self.inputs.send(Input::Event(event));
    }

    /// Ends the loop once earlier inputs are handled.
    pub fn stop(&self) {
        let _ = self.inputs.send(Input::Stop);
    }

    /// Lists the loop's queues: name, used places and all places.
    pub fn queues(&self) -> [(&'static str, usize, usize); 2] {
        let messages = MESSAGES_MAX - self.limits.messages.available_permits().min(MESSAGES_MAX);
        let requests = self.limits.requests.load(Ordering::Relaxed);
        [
            ("core_messages", messages, MESSAGES_MAX),
            ("core_requests", requests, REQUESTS_MAX),
        ]
    }

    /// Delays of consensus.
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// Returns the transfer of a CID to the IPFS node, if it has lasted for a second.
    pub fn transfer(&self, cid: &cluster_core::Cid) -> Option<Transfer> {
        self.transfers.get(cid)
    }

    /// Reads both clocks, as the core sees them.
    pub fn now(&self) -> Now {
        self.clock.now()
    }
}

/// Components that the loop drives.
pub struct Parts {
    /// Configuration of the core.
    pub config: cluster_core::Config,
    /// The opened store.
    pub store: Store,
    /// The running network.
    pub net: Net,
    /// Client of the IPFS node.
    pub backend: Backend,
    /// Source of this peer's metrics.
    pub informer: Informer,
    /// Receives the changes that the loop writes.
    pub events: EventLog,
}

/// A running loop, with its thread.
pub struct Driver {
    /// Handle to the loop.
    pub handle: Handle,
    thread: JoinHandle<Store>,
}

impl Driver {
    /// Starts the loop in its own thread: a write to disk may take milliseconds, which would delay the
    /// sockets of a runtime thread.
    pub fn start(parts: Parts, recovered: cluster_core::Recovered) -> Self {
        let (inputs, receiver) = mpsc::channel();
        let handle = Handle::new(inputs);
        let node = Node::new(parts.config.clone(), recovered, rand::random(), handle.now());
        let runtime = tokio::runtime::Handle::current();
        let synced = handle.clone();
        let syncer = Syncer::start(&parts.store, move |done| match done {
            Ok(batch) => synced.event(Event::Persisted { batch }),
            Err(error) => fail_stop(&error),
        });
        let syncer = syncer.expect("the process may start a thread");
        let operations = Operations::new(parts.backend.clone(), handle.clone(), runtime.clone());
        let mut looper = Loop {
            node,
            parts,
            runtime,
            handle: handle.clone(),
            receiver,
            syncer,
            operations,
            next_ticket: 0,
            waiters: BTreeMap::new(),
            announced: (None, Membership::Joining),
        };
        let thread = std::thread::Builder::new()
            .name("core".to_owned())
            .spawn(move || {
                let guard = ExitOnPanic;
                looper.run();
                drop(guard);
                let Loop { parts, syncer, .. } = looper;
                drop(syncer);
                parts.store
            })
            .expect("the process may start a thread");
        Self { handle, thread }
    }

    /// Ends the loop and waits for it; returns the store, unless the core panicked.
    pub fn stop(self) -> Option<Store> {
        self.handle.stop();
        self.thread.join().ok()
    }
}

/// Ends the process when the core panics: a peer cannot work without it, and a restart recovers all durable
/// state.
struct ExitOnPanic;

impl Drop for ExitOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("the core panicked, which is a bug; stopping. Start this peer again");
            std::process::exit(1);
        }
    }
}

struct Loop {
    node: Node,
    parts: Parts,
    runtime: tokio::runtime::Handle,
    handle: Handle,
    receiver: mpsc::Receiver<Input>,
    syncer: Syncer,
    operations: Operations,
    next_ticket: u64,
    waiters: BTreeMap<Ticket, oneshot::Sender<Result<Reply, Refusal>>>,
    /// Leader and membership when their change was last announced.
    announced: (Option<PeerId>, Membership),
}

impl Loop {
    fn run(&mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut found = 0;
        let mut armed = Armed::default();
        loop {
            let now = self.handle.now();
            let mut due = self.node.poll_timeout(now).map(|(at, _)| at);
            if due.is_some_and(|at| at <= now.mono) {
                if let Some(delay) = armed.delay(now.mono) {
                    self.handle.delays.note_timer(delay);
                }
                self.handle_events(&mut vec![Event::TimedOut]);
                due = self.node.poll_timeout(now).map(|(at, _)| at);
            }
            armed = Armed::new(due, now.mono);
            if found >= BUSY {
                std::thread::sleep(GATHER);
            }
            found = 0;
            let wait = due.map_or(Duration::from_secs(1), |at| at.since(now.mono));
            let mut next = self.receiver.recv_timeout(wait);
            while let Ok(input) = next {
                found += 1;
                if self.enqueue(input, &mut events) {
                    return;
                }
                next = if found < EVENTS_MAX {
                    self.receiver.try_recv().map_err(|_| RecvTimeoutError::Timeout)
                } else {
                    Err(RecvTimeoutError::Timeout)
                };
            }
            self.handle_pending(&mut events);
            if matches!(next, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
        }
    }

    /// Adds an input to the pending events; before an input that must not share a step, they are handled
    /// first. Returns `true` when the loop must end.
    fn enqueue(&mut self, input: Input, events: &mut Vec<Event>) -> bool {
        match input {
            Input::Event(event) if event.is_exclusive() => {
                self.handle_pending(events);
                self.handle_events(&mut vec![event]);
            }
            Input::Event(event) => events.push(event),
            Input::Received(from, envelope, permit) => {
                drop(permit);
                events.push(Event::Received { from, envelope });
            }
            Input::Request(request, reply) => {
                self.handle.limits.requests.fetch_sub(1, Ordering::Relaxed);
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.waiters.insert(ticket, reply);
                events.push(Event::Requested { ticket, request });
            }
            Input::Read(read) => {
                self.handle_pending(events);
                read(self.node.view(), self.handle.now());
            }
            Input::Stop => {
                self.handle_pending(events);
                return true;
            }
        }
        false
    }

    fn handle_pending(&mut self, events: &mut Vec<Event>) {
        if !events.is_empty() {
            self.handle_events(events);
        }
    }

    fn handle_events(&mut self, events: &mut Vec<Event>) {
        let view = self.parts.store.view();
        let effects = self.node.handle_all(self.handle.now(), &view, events.drain(..));
        if cfg!(debug_assertions) {
            self.node.check();
        }
        let has_new_members = effects.iter().any(changes_members);
        for effect in effects {
            self.start(effect);
        }
        self.announce(has_new_members);
    }

    /// Notifies those who wait for changes of the leader, the members or the membership, if there are any.
    fn announce(&mut self, has_new_members: bool) {
        let view = self.node.view();
        let (leader, membership) = (view.leader(), view.membership());
        if has_new_members || (leader, membership) != (self.announced.0.as_ref(), self.announced.1) {
            self.announced = (leader.cloned(), membership);
            self.handle.changes.send_replace(());
        }
    }

    fn start(&mut self, effect: Effect) {
        match effect {
            Effect::CancelIpfs { op } => self.operations.cancel(op),
            Effect::CompareIpfs { op, cid } => {
                self.operations.compare(op, cid, self.parts.store.reader());
            }
            Effect::DiscardSnapshot { snapshot } => {
                if let Err(error) = self.parts.store.stager().discard(snapshot) {
                    fail_stop(&error);
                }
            }
            Effect::Measure => {
                let (informer, handle) = (self.parts.informer.clone(), self.handle.clone());
                self.runtime.spawn(async move {
                    // Boxed, since the future is large.
                    let metrics = Box::pin(informer.measure()).await;
                    handle.event(Event::Measured { metrics });
                });
            }
            Effect::Persist(batch) => {
                let (start, trace) = (std::time::Instant::now(), BatchStart::now());
                if let Err(error) = self.parts.store.write(&batch) {
                    fail_stop(&error);
                }
                observe_since(&metrics().store_write, start);
                trace.written(&batch);
                self.parts.events.append_batch(self.handle.now().wall, &batch);
                if batch.sync {
                    self.syncer.request(batch.id);
                } else {
                    self.syncer.note();
                }
            }
            Effect::Reply { ticket, reply } => {
                let waiter = self.waiters.remove(&ticket).expect("each ticket gets one reply");
                // The requester may be gone.
                let _ = waiter.send(reply);
            }
            Effect::Send { to, envelope } => self.parts.net.send(&to, &envelope),
            Effect::SendSnapshot { to, message } => {
                let source = match self.parts.store.reader().snapshot_source() {
                    Ok(source) => source,
                    Err(error) => fail_stop(&error),
                };
                let (net, handle) = (self.parts.net.clone(), self.handle.clone());
                self.runtime.spawn(async move {
                    let delivered = snapshots::send(&net, &to, message, source).await;
                    handle.event(Event::SnapshotSent { to, delivered });
                });
            }
            Effect::StartIpfs { op, action } => {
                self.parts.events.append_start(self.handle.now().wall, &action);
                self.operations.start(op, action);
            }
        }
    }
}

/// Returns whether an effect writes another membership.
fn changes_members(effect: &Effect) -> bool {
    let writes = |op: &StoreOp| matches!(op, StoreOp::SetMembers { .. } | StoreOp::InstallSnapshot { .. });
    matches!(effect, Effect::Persist(Batch { ops, .. }) if ops.iter().any(writes))
}

/// Counts the reply to a request.
fn note_reply(reply: &Result<Reply, Refusal>, start: std::time::Instant) {
    let reason = match reply {
        Ok(Reply::Pinned(_) | Reply::Unpinned(_)) => {
            observe_since(&metrics().commit_duration, start);
            return;
        }
        Ok(_) => return,
        Err(Refusal::Busy) => "busy",
        Err(Refusal::Conflict(_)) => "conflict",
        Err(Refusal::Credential(_)) => "credential",
        Err(Refusal::Drain(_)) => "drain",
        Err(Refusal::IpfsFailed(_)) => "ipfs_failed",
        Err(Refusal::NoLeader) => "no_leader",
        Err(Refusal::NotEnoughPeers { .. }) => "not_enough_peers",
        Err(Refusal::NotFound) => "not_found",
        Err(Refusal::NotMember) => "not_member",
        Err(Refusal::Rebalance(_)) => "rebalance",
        Err(Refusal::TooLarge(_)) => "too_large",
        Err(Refusal::Unknown) => "unknown",
        Err(Refusal::Unreadable(_)) => "unreadable",
    };
    metrics().requests_refused.with_label_values(&[reason]).inc();
}

/// Ends the process: after a failed write the contents of the disk are unknown, and continuing could break
/// promises to other peers. Acknowledged entries are safe on a majority.
fn fail_stop(error: &dyn std::error::Error) -> ! {
    tracing::error!(
        "the state on disk cannot be written or read: {error}; stopping, so that no promise is broken. Check \
         the disk (full, read-only, failing), then start this peer again"
    );
    eprintln!("error writing the state: {error}");
    std::process::exit(1)
}
