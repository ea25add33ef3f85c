//! One run: a first phase with faults, in which the safety checks must hold, and a second phase without
//! faults in a part of the cluster with a quorum, which must finish all work.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use cluster_core::{PeerId, Replicas};
use madsim::runtime::{Handle, NodeHandle};
use madsim::time::sleep;

use crate::checks::{convergence, linearize, wgl};
use crate::clients::{pin_once, read_once, wish};
use crate::coverage::sometimes;
use crate::faults::{FAULTS, resume};
use crate::history::Heard;
use crate::options::Options;
use crate::peer::cid;
use crate::report::{Class, Report};
use crate::rng::Rng;
use crate::world::{Death, Shared, World, lock};
use crate::{clients, driver, faults, runner};

/// Maximum number of attempts at a write whose outcome a snapshot has hidden.
const WRITES_MAX: usize = 3;

/// Interval at which the world is polled.
const LOOK: Duration = Duration::from_millis(250);

/// Runs a cluster as `options` say. Equal options give equal reports, in any process. A panic, of the core or
/// of the simulator, is a violation in the report.
pub fn run(options: &Options, keep_trace: bool) -> Report {
    runner::execute(options, keep_trace, run_phases)
}

async fn run_phases(world: Shared) -> Report {
    let helpers = start_nodes(&world);
    first_phase(&world).await;
    if !lock(&world).stopped {
        second_phase(&world).await;
    }
    finish(&world, &helpers).await
}

/// Starts the peers, the clients and the faults. Returns the nodes of everything that is not a peer.
pub(crate) fn start_nodes(world: &Shared) -> [NodeHandle; 3] {
    let handle = Handle::current();
    let helper = |name: &str| handle.create_node().name(name).build();
    let helpers = [helper("wires"), helper("clients"), helper("faults")];
    let [wires, clients, faults] = &helpers;
    let size = lock(world).peers.len();
    for peer in 0..size {
        lock(world).peers[peer].up = true;
        // The node outlives its processes, so it must not keep the world alive.
        let (weak, wires) = (Arc::downgrade(world), wires.clone());
        let process = move || {
            let (world, wires) = (weak.upgrade(), wires.clone());
            async move {
                if let Some(world) = world {
                    driver::run(world, peer, wires).await;
                }
            }
        };
        let node = handle
            .create_node()
            .name(format!("p{peer}"))
            .init(process)
            .build();
        lock(world).nodes.push(node.id());
    }
    let count = lock(world).options.clients;
    for number in 0..count {
        clients.spawn(clients::run(world.clone(), number));
    }
    for fault in FAULTS {
        faults.spawn(faults::run(world.clone(), fault));
    }
    helpers
}

async fn first_phase(world: &Shared) {
    let end = Duration::from_secs(lock(world).options.seconds);
    let end = u64::try_from(end.as_nanos()).expect("below 2^64 nanoseconds");
    while World::now() < end && !lock(world).stopped {
        sleep(LOOK).await;
    }
}

pub(crate) async fn second_phase(world: &Shared) {
    calm_down(world);
    if !converge(world, "after the faults").await {
        return;
    }
    // What was measured while an IPFS node was down must be measured again.
    let measure = Duration::from_millis(lock(world).options.metrics_ms * 2 + 1000);
    sleep(measure).await;
    if !serve(world).await || !converge(world, "after a fresh write").await {
        return;
    }
    stay_quiet(world).await;
    audit(world);
}

/// Ends the faults for a random part of the cluster that has a quorum; the other peers stay broken.
fn calm_down(world: &Shared) {
    let size = lock(world).peers.len();
    {
        let mut locked = lock(world);
        let mut rng = Rng::new(locked.options.seed, "core");
        locked.calm = true;
        locked.checks.calm_down();
        locked.net.calm();
        faults::end_exile(&mut locked);
        let at = World::now();
        locked.trace.line(at, "world", || "the faults end".to_owned());
        let mut order: Vec<usize> = (0..size).collect();
        rng.shuffle(&mut order);
        let mut lost: BTreeSet<PeerId> = locked.doubtful_voters();
        for peer in order {
            let id = locked.peers[peer].id.clone();
            let mut without = lost.clone();
            without.insert(id);
            if !locked.has_quorum_without(&without) {
                continue;
            }
            lost = without;
            if rng.chance(locked.options.leave_broken) && locked.may_break(peer) {
                let how = rng.below(3);
                let text =
                    ["without power", "cut off", "paused"][usize::try_from(how).expect("one of three")];
                locked.log(peer, || format!("stays broken: {text}"));
                locked.peers[peer].broken = true;
                locked.coverage.hit("a peer stayed broken");
                match how {
                    0 => locked.crash(peer, Death::Cut),
                    1 => locked.net.cut_off(peer, true),
                    _ => {
                        locked.peers[peer].paused = true;
                        let node = locked.nodes[peer];
                        Handle::current().pause(node);
                    }
                }
            }
        }
        for peer in &mut locked.peers {
            peer.ipfs.calm();
            peer.sync_fails = false;
            peer.disk.full = false;
        }
        locked.complete_upgrade();
    }
    for peer in (0..size).filter(|peer| !lock(world).peers[*peer].broken) {
        resume(world, peer);
        lock(world).restart(peer);
    }
}

/// Waits until nothing is pending. Fails after a time without progress.
async fn converge(world: &Shared, when: &str) -> bool {
    let mut last = (World::now(), 0);
    let start = last.0;
    loop {
        sleep(LOOK).await;
        let mut locked = lock(world);
        if locked.stopped {
            return false;
        }
        let Some(pending) = convergence::pending(&locked) else {
            return true;
        };
        let patience = patience(&locked);
        let (at, progress) = (World::now(), convergence::progress(&locked));
        if progress != last.1 {
            last = (at, progress);
        }
        if at - last.0 > patience || at - start > patience * 10 {
            let text = format!("pending {when}: {pending}");
            locked.violate(Class::Liveness, "convergence", None, text);
            return false;
        }
    }
}

/// Returns the time without progress after which the cluster counts as stalled, in nanoseconds: every timer
/// may have to expire once, on the slowest clock.
fn patience(world: &World) -> u64 {
    let options = &world.options;
    // A comparison is followed by a pause of ten times its duration, before the one that finds what is lost.
    let longest = world.peers.iter().map(|peer| peer.ipfs.longest_comparison).max();
    let (compare_ms, comparison) = if options.loses_pins() {
        (2 * options.compare_ms + 6000, longest.unwrap_or(0) * 12)
    } else {
        (0, 0)
    };
    let once = options.deadline_ms
        + options.patience_ms
        + 2 * options.retry_max_ms
        + 3 * options.pin_timeout_ms
        + options.grace_ms
        + 4 * options.metrics_ms
        + compare_ms
        + 2 * options.scrub_ms
        + 20 * options.tick_ms * options.election_ticks;
    let steps = if options.clock_step_every > 0 { 600_000 } else { 0 };
    (once + 30_000 + steps) * 1_000_000 + comparison
}

/// Requires that a fresh write is served, and read at all peers.
async fn serve(world: &Shared) -> bool {
    let (patience, well, writer, has_takers) = {
        let world = lock(world);
        let options = &world.options;
        let well: Vec<usize> = world.well().collect();
        let writer = *Rng::new(options.seed, "writer").pick(&well);
        let patience = Duration::from_millis(options.deadline_ms + 5000);
        // All peers may be drained, or full.
        let has_takers = world.checks.model().drains().is_empty() && options.ipfs_room_gib == 0;
        (patience, well, writer, has_takers)
    };
    let fresh = cid(60_000);
    let replicas = if has_takers {
        Replicas::Range { min: 1, max: 1 }
    } else {
        Replicas::Everywhere
    };
    let options = wish("fresh".to_owned(), replicas);
    let (mut heard, mut by_snapshot) = (Heard::Unknown, true);
    for _ in 0..WRITES_MAX {
        if heard == Heard::Unknown && by_snapshot {
            let before = lock(world).peers[writer].disk.installed();
            let target = (fresh.clone(), None);
            heard = pin_once(world, 1000, writer, target, options.clone(), patience).await;
            by_snapshot = lock(world).peers[writer].disk.installed() > before;
        }
    }
    // A peer that installs a snapshot does not learn the outcome of its client's write. If the log is always
    // empty, each write may end that way (seed 377). The reads below show that it took effect.
    let is_served = matches!(heard, Heard::Pinned(_)) || heard == Heard::Unknown && by_snapshot;
    if !is_served {
        fail(world, writer, format!("a fresh write is answered {heard:?}"));
        return false;
    }
    for reader in well {
        let heard = read_once(world, 1001, reader, fresh.clone(), patience).await;
        if !matches!(&heard, Heard::Found(Some(_))) {
            fail(world, reader, format!("a fresh read is answered {heard:?}"));
            return false;
        }
    }
    true
}

fn fail(world: &Shared, peer: usize, text: String) {
    lock(world).violate(Class::Liveness, "service", peer, text);
}

/// Requires that without faults the leader stays, and the cluster stays converged.
async fn stay_quiet(world: &Shared) {
    let terms = || lock(world).checks.elections();
    let before = terms();
    let time = Duration::from_millis({
        let world = lock(world);
        let options = &world.options;
        // Automatic rebalancing rests for twenty intervals after a pass that moved nothing.
        let is_automatic = world.checks.model().rebalance().settings.automatic;
        let passes = if is_automatic {
            60 * options.metrics_ms + 10 * options.retry_max_ms
        } else {
            0
        };
        30 * options.tick_ms * options.election_ticks.min(10) + passes
    });
    sleep(time).await;
    let elections = terms() - before;
    if elections > 0 {
        fail(world, 0, format!("{elections} elections while nothing was wrong"));
    }
    converge(world, "after a quiet time").await;
}

/// Returns the pins with wrong announcers at the end of the run, of those whose holders all work.
fn wrong_announcers(world: &World, at: u64) -> Option<String> {
    let mut pins = world.checks.model().pins().values();
    pins.find_map(|pin| {
        let mut holders = pin.allocations.iter();
        let all_well = !pin.allocations.is_empty() && holders.all(|id| world.well_number(id).is_some());
        all_well.then(|| world.checks.wrong_announcers(at, &world.peers, pin))?
    })
}

/// Runs the checks of the whole history.
fn audit(world: &Shared) {
    let mut world = lock(world);
    if world.stopped {
        return;
    }
    let mut found: Vec<(&'static str, String)> = Vec::new();
    let unexplained = linearize::check(&world.history, world.checks.model());
    found.extend(unexplained.into_iter().map(|text| ("linearizability", text)));
    if world.options.op_expire == 0 {
        let unexplained = wgl::check(&world.history).into_iter();
        found.extend(unexplained.map(|text| ("linearizability (wgl)", text)));
    }
    found.extend(wrong_announcers(&world, World::now()).map(|text| ("announcers", text)));
    for (check, text) in found {
        world.violate(Class::Safety, check, None, text);
    }
}

pub(crate) async fn finish(world: &Shared, helpers: &[NodeHandle; 3]) -> Report {
    let at = World::now();
    lock(world).tear_down(helpers);
    // Killed tasks end when they are scheduled.
    sleep(Duration::from_millis(1)).await;
    report(&mut lock(world), at)
}

/// Builds the report of a world that has ended at `at` nanoseconds.
pub(crate) fn report(world: &mut World, at: u64) -> Report {
    world.stats.nanos = at;
    world.stats.elections = world.checks.elections();
    world.stats.entries = world.checks.decided();
    sometimes!(
        world.coverage,
        world.stats.elections > 3,
        "more than three leaders"
    );
    Report {
        options: world.options.clone(),
        scenario: None,
        violations: std::mem::take(&mut world.checks.violations),
        stats: world.stats.clone(),
        coverage: std::mem::take(&mut world.coverage).into_counts(),
        hash: world.trace.hash(),
        lines: world.trace.lines.take().unwrap_or_default(),
    }
}
