//! The loop of one peer's process: wait for one event, `handle`, start the effects. It differs from the
//! daemon's only in how each effect is carried out.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use cluster_core::{Effect, Envelope, Event, IpfsAction, IpfsError, OpId, PeerId, RaftMessage};
use madsim::runtime::NodeHandle;
use madsim::task::spawn;
use madsim::time::{TimeHandle, sleep};

use crate::checks::Violation;
use crate::coverage::sometimes;
use crate::faults;
use crate::ipfs::{self, End};
use crate::net::Fate;
use crate::report::Class;
use crate::world::{Shared, World, is_available, lock, name};

/// How often one deadline may come up. A chunked job takes a few hundred.
const SPINS_MAX: u32 = 20_000;

/// Events that are handled together at most, as in the daemon.
const EVENTS_MAX: usize = 256;

/// The longest that a process is held up by something else: time in which events gather.
const HELD_UP_US: u64 = 2_000;

/// Runs a peer's process until it is killed. `wires` is where what has left the process lives on.
pub(crate) async fn run(world: Shared, me: usize, wires: NodeHandle) {
    lock(&world).boot(me);
    loop {
        let refused = lock(&world).peers[me].refused.take();
        if let Some(refusal) = refused {
            wires.spawn(faults::after_refusal(world.clone(), me, refusal));
        }
        let held_up = lock(&world).peers[me].held_up(HELD_UP_US);
        if !held_up.is_zero() {
            sleep(held_up).await;
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

/// What happens to a peer next: what is in its inbox, or its deadline. When both are there, either may come
/// first.
async fn next_events(world: &Shared, me: usize) -> Vec<Event> {
    poll_fn(|cx| {
        let mut world = lock(world);
        let at = World::now();
        let peer = &mut world.peers[me];
        let deadline = peer.deadline(at);
        let due = deadline.is_some_and(|deadline| deadline <= at);
        if due && (peer.inbox.is_empty() || peer.rng.chance(500)) {
            return timed_out(
                &mut world,
                me,
                at,
                deadline.map_or(at, |deadline| deadline.min(at)),
            );
        }
        let events = peer.take_events(EVENTS_MAX);
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

/// `due` is the deadline that has passed. A process that is held up meanwhile lets time pass, but one that
/// never deals with its deadline still asks for the same.
fn timed_out(world: &mut World, me: usize, at: u64, due: u64) -> Poll<Vec<Event>> {
    let (since, spins) = &mut world.peers[me].spins;
    *spins = if *since == due { *spins + 1 } else { 0 };
    *since = due;
    if *spins > SPINS_MAX {
        let text = "asks to be woken at once, again and again".to_owned();
        world.violate(Violation {
            class: Class::Liveness,
            check: "spin",
            at,
            peer: Some(me),
            text,
        });
        return Poll::Pending;
    }
    Poll::Ready(vec![Event::TimedOut])
}

/// Has the task woken later. A timer that has been polled stays armed when it is dropped.
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
            // It was made visible before anything else; only the sync runs beside the loop.
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
            // Known at once: it may be cancelled in the same step.
            let begun = begin(world, me, op, action);
            spawn(operate(world.clone(), me, op, begun));
        }
    }
}

async fn measure(world: Shared, me: usize) {
    sleep(Duration::from_millis(5)).await;
    let mut world = lock(&world);
    let metrics = world.peers[me].ipfs.metrics();
    world.peers[me].post(Event::Measured { metrics });
}

/// Syncs for as long as there are batches that want it; one sync covers all that were written before it.
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
            // A store that fails to sync ends the process: what of it is on disk, nobody knows.
            wires.spawn(faults::fail_stop(world.clone(), me));
            return;
        }
    }
}

fn send(world: &Shared, me: usize, wires: &NodeHandle, to: &PeerId, envelope: Envelope) {
    let mut locked = lock(world);
    locked.stats.messages += 1;
    let Some(target) = locked.peers.iter().position(|peer| peer.id == *to) else {
        return;
    };
    let fate = locked.net.send(me, target);
    if matches!(fate, Fate::Lost(_)) {
        locked.trace.line(World::now(), &name(me), || {
            format!("loses a message to p{target}")
        });
    }
    drop(locked);
    match fate {
        Fate::Lost(None) => {}
        Fate::Lost(Some(told)) => {
            wires.spawn(report_unreachable(world.clone(), me, to.clone(), told));
        }
        Fate::Arrives(delays) => {
            for delay in delays {
                wires.spawn(deliver(world.clone(), me, target, envelope.clone(), delay));
            }
        }
    }
}

async fn report_unreachable(world: Shared, me: usize, peer: PeerId, after: Duration) {
    sleep(after).await;
    lock(&world).peers[me].post(Event::Unreachable { peer });
}

async fn deliver(world: Shared, from: usize, to: usize, envelope: Envelope, delay: Duration) {
    sleep(delay).await;
    while lock(&world).net.is_clogged(from, to) {
        sleep(Duration::from_millis(50)).await;
    }
    let mut world = lock(&world);
    if !world.net.is_cut(from, to) && !world.refuses(to, &envelope) {
        let sender = world.peers[from].id.clone();
        world.peers[to].post(Event::Received {
            from: sender,
            envelope,
        });
    }
}

/// Streams the pinset as it is now. The copy is staged at the receiver's disk before it hears of it.
fn send_snapshot(world: &Shared, me: usize, wires: &NodeHandle, to: PeerId, message: RaftMessage) {
    let mut locked = lock(world);
    let Some(target) = locked.peers.iter().position(|peer| peer.id == to) else {
        return;
    };
    let snapshot = Arc::new(locked.peers[me].disk.written.snapshot());
    let lost = locked.options.snapshot_lost;
    let duplicate = locked.options.snapshot_duplicate;
    let calm = locked.calm;
    let fate = locked.net.send(me, target);
    let time = locked.net.delay(me, target) * 3;
    let peer = &mut locked.peers[me];
    let arrives = matches!(fate, Fate::Arrives(_)) && (calm || !peer.rng.chance(lost));
    let twice = arrives && !calm && peer.rng.chance(duplicate);
    locked.stats.snapshots += 1;
    drop(locked);
    let world = world.clone();
    wires.spawn(async move {
        sleep(time).await;
        for copy in 0..if twice { 2 } else { 1 } {
            if copy > 0 {
                sleep(time / 2).await;
            }
            let mut world = lock(&world);
            let open = arrives
                && !world.net.is_cut(me, target)
                && world.peers[target].node.is_some()
                && world.can_read(target, &snapshot.manifest);
            if open {
                let from = world.peers[me].id.clone();
                let receiver = &mut world.peers[target];
                let id = receiver.disk.stage(snapshot.clone());
                let manifest = snapshot.manifest.clone();
                let message = message.clone();
                receiver.post(Event::SnapshotReceived {
                    from,
                    snapshot: id,
                    manifest,
                    message,
                });
            }
            if copy == 0 {
                world.peers[me].post(Event::SnapshotSent {
                    to: to.clone(),
                    delivered: open,
                });
            }
        }
    });
}

/// How often an operation looks whether it is still wanted.
const IPFS_POLL: Duration = Duration::from_millis(200);

/// Begins an operation at the IPFS daemon: how it is going to go, and at which of the daemon's processes.
fn begin(world: &Shared, me: usize, op: OpId, action: IpfsAction) -> (ipfs::Plan, u64) {
    let mut world = lock(world);
    let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = &action;
    let available = is_available(cid, world.unavailable);
    world.stats.ipfs_ops += 1;
    let ipfs = &mut world.peers[me].ipfs;
    let generation = ipfs.generation;
    (ipfs.start(op, action, available), generation)
}

/// One operation at the IPFS daemon.
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
                End::Hangs => None,
            };
        } else if outcome.is_none() {
            lock(&world).peers[me].post(Event::IpfsProgressed { op });
        }
    }
    let outcome = outcome.expect("the loop ends with one");
    let mut world = lock(&world);
    world.trace.line(World::now(), &name(me), || {
        format!("ipfs operation {op} ends: {outcome:?}")
    });
    let peer = &mut world.peers[me];
    let outcome = if peer.ipfs.finish(op, outcome.is_ok(), possible) {
        Ok(())
    } else {
        outcome
    };
    peer.post(Event::IpfsFinished { op, outcome });
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
