//! The loop of one peer's process: wait for one event, `handle`, start the effects. It differs from the
//! daemon's only in how each effect is carried out.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cluster_core::{
    Effect, Envelope, Event, IpfsAction, IpfsError, OpId, PeerId, RaftMessage, decode, encode_for_version,
};
use madsim::runtime::NodeHandle;
use madsim::task::spawn;
use madsim::time::{TimeHandle, sleep};

use crate::coverage::sometimes;
use crate::ipfs::{self, End};
use crate::net::Fate;
use crate::report::Class;
use crate::world::{Shared, World, is_available, lock};
use crate::{faults, scrub};

/// Maximum number of times that one deadline may be handled. A chunked job takes a few hundred; a queue of
/// 8,000 operations of which few may run, with retries, tens of thousands (seed 308052).
const SPINS_MAX: u32 = 200_000;

/// Events that are handled together at most, as in the daemon.
const EVENTS_MAX: usize = 256;

/// Maximum time for a chunk of a snapshot. Messages may be later, but a stream that stalls for so long breaks
/// off (seed 110231).
const CHUNK_TIME_MAX: Duration = Duration::from_secs(2);

/// Maximum time for which a process is delayed, so that events gather.
const DELAY_US_MAX: u64 = 2_000;

/// Runs a peer's process until it is killed. Its sent messages outlive it in `wires`.
pub(crate) async fn run(world: Shared, me: usize, wires: NodeHandle) {
    lock(&world).boot(me);
    spawn(scrub::run(world.clone(), me));
    loop {
        let refused = lock(&world).peers[me].refused.take();
        if let Some(refusal) = refused {
            wires.spawn(faults::after_refusal(world.clone(), me, refusal));
        }
        let delay = {
            let mut world = lock(&world);
            let slow = if world.calm { 0 } else { world.options.step_slow };
            world.peers[me].draw_delay(DELAY_US_MAX, slow)
        };
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let events = next_events(&world, me).await;
        let effects = {
            let mut world = lock(&world);
            if world.stopped {
                return;
            }
            world.step(me, events)
        };
        let aim = lock(&world).take_aim(me, &effects);
        if let Some(aim) = aim {
            wires.spawn(faults::strike(world.clone(), aim));
        }
        for effect in effects {
            start(&world, me, &wires, effect);
        }
    }
}

/// Waits for a peer's next events, or its deadline. If both are due, either may come first.
async fn next_events(world: &Shared, me: usize) -> Vec<Event> {
    poll_fn(|cx| {
        let mut world = lock(world);
        let at = World::now();
        let gathers = world.options.gathers > 0;
        let peer = &mut world.peers[me];
        let deadline = peer.deadline(at);
        let due = deadline.is_some_and(|deadline| deadline <= at);
        // The daemon's loop checks its deadline before each batch, but not twice in a row while events wait.
        let first = if gathers {
            !std::mem::take(&mut peer.timed_out)
        } else {
            peer.rng.chance(500)
        };
        if due && (peer.inbox.is_empty() || first) {
            peer.timed_out = true;
            let due = deadline.map_or(at, |deadline| deadline.min(at));
            return timed_out(&mut world, me, due);
        }
        peer.timed_out = false;
        let events = peer.take_events(EVENTS_MAX, gathers);
        if !events.is_empty() {
            sometimes!(world.coverage, events.len() > 1, "events were handled together");
            return Poll::Ready(events);
        }
        peer.waker = Some(cx.waker().clone());
        if let Some(deadline) = deadline
            && peer.armed != Some(deadline)
        {
            peer.armed = Some(deadline);
            wake_after(cx, Duration::from_nanos(deadline - at));
        }
        Poll::Pending
    })
    .await
}

/// Counts how often the deadline `due` was handled. A delayed process lets time pass; one that never handles
/// its deadline keeps asking for the same one.
fn timed_out(world: &mut World, me: usize, due: u64) -> Poll<Vec<Event>> {
    let (since, spins) = &mut world.peers[me].spins;
    *spins = if *since == due { *spins + 1 } else { 0 };
    *since = due;
    if *spins > SPINS_MAX {
        let text = "asks to be woken at once, again and again".to_owned();
        world.violate(Class::Liveness, "spin", me, text);
        return Poll::Pending;
    }
    Poll::Ready(vec![Event::TimedOut])
}

/// Arms a timer that wakes the task. A polled timer stays armed when it is dropped.
pub(crate) fn wake_after(cx: &mut Context<'_>, delay: Duration) {
    let timer = pin!(TimeHandle::current().sleep(delay));
    if timer.poll(cx).is_ready() {
        cx.waker().wake_by_ref();
    }
}

fn start(world: &Shared, me: usize, wires: &NodeHandle, effect: Effect) {
    match effect {
        Effect::CancelIpfs { op } => {
            let known = lock(world).peers[me].ipfs.cancel(op);
            sometimes!(lock(world).coverage, known, "an operation was cancelled");
        }
        Effect::CompareIpfs { op, cid } => {
            spawn(ipfs::compare(world.clone(), me, op, cid));
        }
        Effect::DiscardSnapshot { snapshot } => {
            let mut world = lock(world);
            let known = world.peers[me].disk.discard(snapshot);
            sometimes!(world.coverage, known, "a snapshot was not wanted");
        }
        Effect::Measure => {
            spawn(measure(world.clone(), me));
        }
        Effect::Persist(batch) => {
            // The batch is visible already; only the sync runs beside the loop.
            let mut locked = lock(world);
            if batch.sync && !locked.peers[me].syncing {
                locked.peers[me].syncing = true;
                drop(locked);
                spawn(sync(world.clone(), me, wires.clone()));
            }
        }
        Effect::Reply { ticket, reply } => lock(world).reply(me, ticket, reply),
        Effect::Send { to, envelope } => send(world, me, wires, &to, envelope),
        Effect::SendSnapshot { to, message } => send_snapshot(world, me, wires, to, message),
        Effect::StartIpfs { op, action } => {
            // Registered at once: it may be cancelled in the same step.
            let begun = begin(world, me, op, action);
            spawn(operate(world.clone(), me, op, begun));
        }
    }
}

async fn measure(world: Shared, me: usize) {
    sleep(Duration::from_millis(5)).await;
    let mut world = lock(&world);
    let rebalances = world.options.op_rebalance > 0;
    let peer = &world.peers[me];
    let store = &peer.disk.written;
    let copies = rebalances.then(|| {
        let own = store
            .pins
            .values()
            .filter(|pin| pin.allocations.contains(&peer.id));
        (own.count() as u64, store.applied.index)
    });
    let metrics = world.peers[me].ipfs.metrics(copies);
    world.peers[me].post(Event::Measured { metrics });
}

/// Syncs while there are batches that require it; one sync covers all batches written before it.
async fn sync(world: Shared, me: usize, wires: NodeHandle) {
    loop {
        let (wanted, through, time) = {
            let mut world = lock(&world);
            let options = &world.options;
            let slow = if world.calm { 0 } else { options.sync_slow };
            let (min, spread) = (options.sync_min_us, options.sync_spread_us);
            let peer = &mut world.peers[me];
            let (Some(wanted), Some(through)) = (peer.disk.wants_sync.take(), peer.disk.newest()) else {
                peer.syncing = false;
                return;
            };
            let is_slow = peer.rng.chance(slow);
            let slow = if is_slow {
                peer.rng.range(100_000, 3_000_000)
            } else {
                0
            };
            let time = Duration::from_micros(min + peer.rng.below(spread + 1) + slow);
            sometimes!(world.coverage, is_slow, "a sync was slow");
            (wanted, through, time)
        };
        sleep(time).await;
        let failed = {
            let mut world = lock(&world);
            let peer = &mut world.peers[me];
            let failed = std::mem::take(&mut peer.sync_fails);
            if !failed {
                peer.disk.synced(through);
                peer.post(Event::Persisted { batch: wanted });
            }
            failed
        };
        if failed {
            // A store that fails to sync ends the process: the content of the disk is uncertain.
            wires.spawn(faults::fail_stop(world.clone(), me));
            return;
        }
    }
}

fn send(world: &Shared, me: usize, wires: &NodeHandle, to: &PeerId, envelope: Envelope) {
    let mut locked = lock(world);
    locked.stats.messages += 1;
    let Some(target) = locked.number_of(to) else {
        return;
    };
    let message = encode_for_version(envelope.min_version(), &envelope);
    if locked.net.limits.is_too_long(&message) {
        let text = format!("sends {} bytes to {to}, more than a frame takes", message.len());
        locked.violate(Class::Safety, "frames", me, text);
        return;
    }
    let fate = locked.net.send(World::now(), me, target, &message);
    if matches!(fate, Fate::Lost(_)) {
        locked.log(me, || format!("loses a message to p{target}"));
    }
    match fate {
        Fate::Lost(None) => {}
        Fate::Lost(Some(Duration::ZERO)) => {
            locked.coverage.hit("a message was refused at once");
            locked.peers[me].post(Event::Unreachable { peer: to.clone() });
        }
        Fate::Lost(Some(told)) => {
            drop(locked);
            wires.spawn(report_unreachable(world.clone(), me, to.clone(), told));
        }
        Fate::Arrives(delays) => {
            drop(locked);
            for delay in delays {
                wires.spawn(deliver(world.clone(), me, target, message.clone(), delay));
            }
        }
        Fate::Queued(after, opened) => {
            drop(locked);
            wires.spawn(carry(world.clone(), me, target, opened, after));
        }
    }
}

async fn report_unreachable(world: Shared, me: usize, peer: PeerId, after: Duration) {
    sleep(after).await;
    lock(&world).peers[me].post(Event::Unreachable { peer });
}

async fn deliver(world: Shared, from: usize, to: usize, message: Vec<u8>, delay: Duration) {
    sleep(delay).await;
    while lock(&world).net.is_clogged(from, to) {
        sleep(Duration::from_millis(50)).await;
    }
    let mut world = lock(&world);
    if !world.net.is_cut(from, to) {
        receive(&mut world, from, to, &message);
    }
}

/// Delivers the first message of an outbox. If the receiver is down, the stream breaks.
async fn carry(world: Shared, from: usize, to: usize, opened: u64, after: Duration) {
    sleep(after).await;
    while lock(&world).net.is_clogged(from, to) {
        sleep(Duration::from_millis(50)).await;
    }
    let mut world = lock(&world);
    let is_away = world.net.is_cut(from, to) || world.peers[to].node.is_none();
    let breaks = is_away || {
        let message = world.net.arrive(from, to, opened);
        message.is_some_and(|message| !receive(&mut world, from, to, &message))
    };
    if breaks && world.net.break_off(World::now(), from, to, opened) {
        sometimes!(world.coverage, is_away, "a stream broke");
        let peer = world.peers[to].id.clone();
        world.peers[from].post(Event::Unreachable { peer });
    }
}

/// Delivers a message. Returns `false` if the receiver refuses it.
fn receive(world: &mut World, from: usize, to: usize, message: &[u8]) -> bool {
    let Ok(envelope) = decode::<Envelope>(message) else {
        let text = format!("sends what nobody can read: {message:?}");
        world.violate(Class::Safety, "wire", from, text);
        return false;
    };
    if world.refuses(to, &envelope) {
        return false;
    }
    let from = world.peers[from].id.clone();
    world.peers[to].post(Event::Received { from, envelope });
    true
}

/// Streams the current pinset in chunks; the stream may break after any of them. The copy is staged on the
/// receiver's disk before the receiver is notified.
fn send_snapshot(world: &Shared, me: usize, wires: &NodeHandle, to: PeerId, message: RaftMessage) {
    let mut locked = lock(world);
    let Some(target) = locked.number_of(&to) else {
        return;
    };
    locked.stats.snapshots += 1;
    let snapshot = Arc::new(locked.peers[me].disk.written.snapshot());
    let pins = usize::try_from(locked.options.snapshot_chunk.max(1)).expect("a small number");
    let chunks = snapshot.pins.len() / pins + 1;
    sometimes!(locked.coverage, chunks > 2, "a snapshot had several chunks");
    let (lost, duplicate) = (locked.options.snapshot_lost, locked.options.snapshot_duplicate);
    let calm = locked.calm;
    let rng = &mut locked.peers[me].rng;
    let breaks = (!calm && rng.chance(lost)).then(|| rng.index(chunks));
    let twice = breaks.is_none() && !calm && rng.chance(duplicate);
    let boot = locked.peers[me].disk.boot();
    drop(locked);
    let world = world.clone();
    wires.spawn(async move {
        let delivered = stream_snapshot(&world, (me, boot), target, chunks, breaks).await;
        for copy in 0..if twice && delivered { 2 } else { 1 } {
            if copy > 0 {
                sleep(Duration::from_millis(100)).await;
            }
            let mut world = lock(&world);
            let open =
                delivered && world.peers[target].node.is_some() && world.can_read(target, &snapshot.manifest);
            if open {
                let from = world.peers[me].id.clone();
                let receiver = &mut world.peers[target];
                let id = receiver.disk.stage(snapshot.clone());
                receiver.post(Event::SnapshotReceived {
                    from,
                    snapshot: id,
                    manifest: snapshot.manifest.clone(),
                    message: message.clone(),
                });
            }
            if copy == 0 && world.peers[me].disk.boot() == boot {
                // The receiver's confirmation may be lost even if the snapshot arrived.
                let delivered = open && !world.net.is_cut(target, me);
                let to = to.clone();
                world.peers[me].post(Event::SnapshotSent { to, delivered });
            }
        }
    });
}

/// Transfers the chunks of a snapshot. Returns `false` if the stream broke: at the chunk `breaks`, or because
/// a peer or the link between them was down.
async fn stream_snapshot(
    world: &Shared,
    (me, boot): (usize, u64),
    target: usize,
    chunks: usize,
    breaks: Option<usize>,
) -> bool {
    let receiver = lock(world).peers[target].disk.boot();
    for chunk in 0..chunks {
        let time = lock(world).net.delay(me, target);
        // The first one takes another round trip, to open the stream.
        let time = if chunk == 0 { time * 3 } else { time / 4 };
        sleep(time.min(CHUNK_TIME_MAX)).await;
        let mut world = lock(world);
        let both = world.peers[me].node.is_some() && world.peers[target].node.is_some();
        let same = world.peers[me].disk.boot() == boot && world.peers[target].disk.boot() == receiver;
        if !both || !same || world.net.is_cut(me, target) || breaks == Some(chunk) {
            sometimes!(world.coverage, chunk > 0, "a snapshot broke off in the middle");
            return false;
        }
    }
    true
}

/// Interval at which an operation checks whether it was cancelled.
const IPFS_POLL: Duration = Duration::from_millis(200);

/// Begins an operation at the IPFS daemon. Returns its course, and the daemon's process that runs it.
fn begin(world: &Shared, me: usize, op: OpId, action: IpfsAction) -> (ipfs::Plan, u64) {
    let mut world = lock(world);
    let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = &action;
    let available = is_available(cid, world.unavailable);
    world.stats.ipfs_ops += 1;
    let ipfs = &mut world.peers[me].ipfs;
    let generation = ipfs.generation;
    (ipfs.start(op, action, available), generation)
}

/// Runs one operation at the IPFS daemon.
async fn operate(world: Shared, me: usize, op: OpId, (plan, generation): (ipfs::Plan, u64)) {
    let possible = plan.end == End::Done;
    let mut outcome = None;
    let mut parts = plan.parts.into_iter().peekable();
    while outcome.is_none() {
        let mut left = parts.next().unwrap_or(IPFS_POLL);
        while outcome.is_none() && !left.is_zero() {
            let part = left.min(IPFS_POLL);
            sleep(part).await;
            left -= part;
            outcome = interrupted(&world, me, op, generation);
        }
        if outcome.is_none() && parts.peek().is_none() {
            outcome = match &plan.end {
                End::Done => Some(Ok(())),
                End::Failed(text) => Some(Err(IpfsError::Failed(text.clone()))),
                End::Full => Some(Err(IpfsError::Full("no space left on device".to_owned()))),
                End::Hangs => None,
            };
        } else if outcome.is_none() {
            lock(&world).peers[me].post(Event::IpfsProgressed { op });
        }
    }
    let outcome = outcome.expect("the loop ends with one");
    let mut world = lock(&world);
    world.log(me, || format!("ipfs operation {op} ends: {outcome:?}"));
    let peer = &mut world.peers[me];
    let outcome = if outcome.is_ok() && !peer.ipfs.is_within_room(op) {
        Err(IpfsError::Full("the content has outgrown the room".to_owned()))
    } else {
        outcome
    };
    let outgrown = matches!(outcome, Err(IpfsError::Full(_)));
    let outcome = if peer.ipfs.finish(op, outcome.is_ok(), possible) {
        Ok(())
    } else {
        outcome
    };
    peer.post(Event::IpfsFinished { op, outcome });
    let excess = peer.ipfs.excess();
    sometimes!(world.coverage, outgrown, "an IPFS daemon had no room for a pin");
    if let Some(text) = excess {
        world.violate(Class::Safety, "room", me, text);
    }
}

fn interrupted(world: &Shared, me: usize, op: OpId, generation: u64) -> Option<Result<(), IpfsError>> {
    let world = lock(world);
    let ipfs = &world.peers[me].ipfs;
    if ipfs.is_cancelled(op) {
        Some(Err(IpfsError::Cancelled))
    } else if !ipfs.up || ipfs.generation != generation {
        Some(Err(IpfsError::Failed("connection reset by peer".to_owned())))
    } else {
        None
    }
}
