//! The loop of a peer: waits for one event, hands it to the core, starts the effects. It is the only part
//! that knows the store, the network and the IPFS node at once.

mod compare;
mod complaints;
mod delays;
mod informer;
mod ipfs;
mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster_core::{
    Effect, Envelope, Event, Instant, Node, Now, PeerId, Refusal, Reply, Request, Ticket, Timestamp, View,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

pub use self::delays::{Delays, WorstDelays};
pub use self::informer::{Disk, Informer, Measured};
pub use self::snapshots::stage;

use self::ipfs::Operations;
use crate::net::Net;
use crate::store::{Store, Syncer};
use cluster_ipfs::Backend;

/// What comes to the loop.
#[allow(clippy::large_enum_variant, reason = "most of them are messages and requests")]
enum Input {
    Event(Event),
    Received(PeerId, Envelope, OwnedSemaphorePermit),
    Request(Request, oneshot::Sender<Result<Reply, Refusal>>),
    Read(Box<dyn FnOnce(View<'_>, Now) + Send>),
    Stop,
}

/// Messages from other peers that may wait for the loop: some 10 ms of its work.
const MESSAGES_MAX: usize = 1024;

/// Requests of clients that may wait for the loop; the core has a limit of its own on those that it opened.
const REQUESTS_MAX: usize = 8192;

/// Events that are handled together: some milliseconds of the loop's work.
const EVENTS_MAX: usize = 256;

/// A loop that found so many events at once is busy, and more are on their way.
const BUSY: usize = 6;

/// A busy loop lets events gather for so long, to write and to send what they come to together: one write of
/// the database, one log entry and one sync cost as much for a hundred pins as for one.
const GATHER: Duration = Duration::from_micros(300);

/// Speaks to the loop. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
    waiting: Arc<Waiting>,
    clock: Clock,
    delays: Delays,
}

/// How much waits for the loop. What is not counted here is bounded by what the core has started.
struct Waiting {
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

    /// One reading of both.
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
    /// Has a request answered. A full queue is refused at once; a peer that shuts down answers that it may
    /// still happen.
    pub async fn request(&self, request: Request) -> Result<Reply, Refusal> {
        if self.waiting.requests.fetch_add(1, Ordering::Relaxed) >= REQUESTS_MAX {
            self.waiting.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Busy);
        }
        let (reply, answer) = oneshot::channel();
        if self.inputs.send(Input::Request(request, reply)).is_err() {
            self.waiting.requests.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Unknown);
        }
        answer.await.unwrap_or(Err(Refusal::Unknown))
    }

    /// Reads something off the core, between two events; `None` when this peer is shutting down.
    pub async fn view<T: Send + 'static>(
        &self,
        read: impl FnOnce(View<'_>, Now) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let read = Box::new(move |view: View<'_>, now: Now| {
            // Whoever asked may have gone away.
            let _ = reply.send(read(view, now));
        });
        self.inputs.send(Input::Read(read)).ok()?;
        answer.await.ok()
    }

    /// A message of another peer. Waits when too many do: the network then holds up its senders.
    pub async fn received(&self, from: PeerId, envelope: Envelope) {
        // The semaphore is never closed.
        if let Ok(permit) = self.waiting.messages.clone().acquire_owned().await {
            let _ = self.inputs.send(Input::Received(from, envelope, permit));
        }
    }

    /// Anything else that happened.
    pub fn event(&self, event: Event) {
        // The loop is gone only when the process ends.
        let _ = self.inputs.send(Input::Event(event));
    }

    /// Ends the loop once what came before is handled.
    pub fn stop(&self) {
        let _ = self.inputs.send(Input::Stop);
    }

    /// How late consensus runs.
    pub fn delays(&self) -> &Delays {
        &self.delays
    }

    /// One reading of both clocks, as the core sees them.
    pub fn now(&self) -> Now {
        self.clock.now()
    }
}

/// What the loop drives.
pub struct Parts {
    /// The core.
    pub config: cluster_core::Config,
    /// The disk.
    pub store: Store,
    /// The other peers.
    pub net: Net,
    /// The IPFS node.
    pub backend: Backend,
    /// Who reads this peer's metrics.
    pub informer: Informer,
}

/// A running loop.
pub struct Driver {
    /// Speaks to it.
    pub handle: Handle,
    thread: JoinHandle<Store>,
}

impl Driver {
    /// Starts the loop on a thread of its own: a write to disk may take milliseconds, which a thread that
    /// serves sockets does not have.
    pub fn start(parts: Parts, recovered: cluster_core::Recovered) -> Self {
        let (inputs, receiver) = mpsc::channel();
        let clock = Clock::new();
        let waiting = Waiting {
            messages: Arc::new(Semaphore::new(MESSAGES_MAX)),
            requests: AtomicUsize::new(0),
        };
        let handle = Handle {
            inputs,
            waiting: Arc::new(waiting),
            clock,
            delays: Delays::default(),
        };
        let node = Node::new(parts.config.clone(), recovered, rand::random(), clock.now());
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
        };
        let thread = std::thread::Builder::new()
            .name("core".to_owned())
            .spawn(move || {
                let guard = EndsProcess;
                looper.run();
                drop(guard);
                let Loop { parts, syncer, .. } = looper;
                drop(syncer);
                parts.store
            })
            .expect("the process may start a thread");
        Self { handle, thread }
    }

    /// Ends the loop and waits for it; gives the store back, unless the core panicked.
    pub fn stop(self) -> Option<Store> {
        self.handle.stop();
        self.thread.join().ok()
    }
}

/// Ends the process when the core panics: without it nothing of a peer works, and a restart recovers all
/// that it promised.
struct EndsProcess;

impl Drop for EndsProcess {
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
}

impl Loop {
    fn run(&mut self) {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut found = 0;
        loop {
            let now = self.handle.now();
            let due = self.node.poll_timeout(now).map(|(at, _)| at);
            if let Some(at) = due.filter(|at| *at <= now.mono) {
                self.handle.delays.note_timer(now.mono.since(at));
                self.handle_events(&mut vec![Event::TimedOut]);
            }
            if found >= BUSY {
                std::thread::sleep(GATHER);
            }
            found = 0;
            let wait = due.map_or(Duration::from_secs(1), |at| at.since(now.mono));
            let mut next = self.receiver.recv_timeout(wait);
            while let Ok(input) = next {
                found += 1;
                if self.take(input, &mut events) {
                    return;
                }
                next = if found < EVENTS_MAX {
                    self.receiver.try_recv().map_err(|_| RecvTimeoutError::Timeout)
                } else {
                    Err(RecvTimeoutError::Timeout)
                };
            }
            self.handle_waiting(&mut events);
            if matches!(next, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
        }
    }

    /// Puts an event to those that wait to be handled; has them handled before what must not share their
    /// step. True when the loop shall end.
    fn take(&mut self, input: Input, events: &mut Vec<Event>) -> bool {
        match input {
            Input::Event(event) if event.goes_alone() => {
                self.handle_waiting(events);
                self.handle_events(&mut vec![event]);
            }
            Input::Event(event) => events.push(event),
            Input::Received(from, envelope, permit) => {
                drop(permit);
                events.push(Event::Received { from, envelope });
            }
            Input::Request(request, reply) => {
                self.handle.waiting.requests.fetch_sub(1, Ordering::Relaxed);
                self.next_ticket += 1;
                let ticket = Ticket(self.next_ticket);
                self.waiters.insert(ticket, reply);
                events.push(Event::Requested { ticket, request });
            }
            Input::Read(read) => {
                self.handle_waiting(events);
                read(self.node.view(), self.handle.now());
            }
            Input::Stop => {
                self.handle_waiting(events);
                return true;
            }
        }
        false
    }

    fn handle_waiting(&mut self, events: &mut Vec<Event>) {
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
        for effect in effects {
            self.start(effect);
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
                    handle.event(Event::Measured {
                        metrics: informer.measure().await,
                    });
                });
            }
            Effect::Persist(batch) => {
                if let Err(error) = self.parts.store.write(&batch) {
                    fail_stop(&error);
                }
                if batch.sync {
                    self.syncer.request(batch.id);
                } else {
                    self.syncer.note();
                }
            }
            Effect::Reply { ticket, reply } => {
                let waiter = self.waiters.remove(&ticket).expect("each ticket gets one reply");
                // Whoever asked may have gone away.
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
            Effect::StartIpfs { op, action } => self.operations.start(op, action),
        }
    }
}

/// Ends the process: after a write that failed, nobody knows what is on the disk, and going on would break
/// promises that others rely on. What was acknowledged is safe on a majority.
fn fail_stop(error: &dyn std::error::Error) -> ! {
    tracing::error!(
        "the state on disk cannot be written or read: {error}; stopping, so that no promise is broken. Check \
         the disk (full, read-only, failing), then start this peer again"
    );
    eprintln!("error writing the state: {error}");
    std::process::exit(1)
}
