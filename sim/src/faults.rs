//! Faults: one task for each kind, each with its own stream of random numbers, so
//! that switching one off leaves the others as they are.

mod foreign;
mod rescue;
mod storage;

use std::time::Duration;

use madsim::runtime::Handle;
use madsim::time::sleep;

pub(crate) use self::foreign::{is_foreign, matters};
pub(crate) use self::rescue::end_exile;
pub(crate) use self::storage::after_refusal;
use crate::aim::Aim;
use crate::coverage::sometimes;
use crate::net::PARTITIONS;
use crate::options::Options;
use crate::releases::NEW;
use crate::rng::Rng;
use crate::world::{Death, Shared, World, lock};

/// Faults that are injected at random times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    ClockStep,
    Cut,
    CutAll,
    DiskFail,
    DiskFull,
    DiskLost,
    DiskRot,
    Foreign,
    IpfsForget,
    IpfsFull,
    IpfsRestart,
    IpfsRot,
    Kill,
    LeaderKill,
    Partition,
    Pause,
    Rescue,
    Swizzle,
    Upgrade,
}

/// Option for the mean interval of a fault, in seconds; 0 for never.
type Every = fn(&Options) -> u64;

/// All of them.
pub(crate) const FAULTS: [(Fault, Every); 19] = [
    (Fault::ClockStep, |options| options.clock_step_every),
    (Fault::Cut, |options| options.cut_every),
    (Fault::CutAll, |options| options.cut_all_every),
    (Fault::DiskFail, |options| options.disk_fail_every),
    (Fault::DiskFull, |options| options.disk_full_every),
    (Fault::DiskLost, |options| options.disk_lost_every),
    (Fault::DiskRot, |options| options.disk_rot_every),
    (Fault::Foreign, |options| options.foreign_every),
    (Fault::IpfsForget, |options| options.ipfs_forget_every),
    (Fault::IpfsFull, |options| options.ipfs_full_every),
    (Fault::IpfsRestart, |options| options.ipfs_restart_every),
    (Fault::IpfsRot, |options| options.ipfs_rot_every),
    (Fault::Kill, |options| options.kill_every),
    (Fault::LeaderKill, |options| options.leader_kill_every),
    (Fault::Partition, |options| options.partition_every),
    (Fault::Pause, |options| options.pause_every),
    (Fault::Rescue, |options| options.rescue_every),
    (Fault::Swizzle, |options| options.swizzle_every),
    (Fault::Upgrade, |options| options.upgrade_every),
];

/// Injects one kind of fault at random intervals until the first phase ends.
pub(crate) async fn run(world: Shared, (fault, every): (Fault, Every)) {
    let (mean, seed) = {
        let world = lock(&world);
        let options = &world.options;
        (Duration::from_secs(every(options)), options.seed)
    };
    if mean.is_zero() {
        return;
    }
    let mut rng = Rng::new(seed, &format!("{fault:?}"));
    loop {
        sleep(rng.interval(mean)).await;
        if lock(&world).is_calm() {
            return;
        }
        inject(&world, fault, &mut rng).await;
    }
}

async fn inject(world: &Shared, fault: Fault, rng: &mut Rng) {
    let size = lock(world).peers.len();
    match fault {
        Fault::ClockStep => {
            let by = i64::try_from(rng.below(40_000_000_000)).expect("small") - 20_000_000_000;
            let mut world = lock(world);
            world.peers[rng.index(size)].clock.step(World::now(), by);
            world.coverage.hit("a wall clock jumped");
        }
        Fault::Cut => down(world, rng.index(size), Death::Cut, rng).await,
        Fault::CutAll => {
            (0..size).for_each(|peer| lock(world).crash(peer, Death::Cut));
            lock(world).coverage.hit("the power went everywhere");
            for peer in 0..size {
                sleep(rng.up_to(Duration::from_millis(500))).await;
                restart(world, peer);
            }
        }
        Fault::DiskFail
        | Fault::DiskFull
        | Fault::DiskLost
        | Fault::DiskRot
        | Fault::IpfsForget
        | Fault::IpfsFull
        | Fault::IpfsRestart
        | Fault::IpfsRot => storage::inject(world, fault, rng.index(size), rng).await,
        Fault::Foreign => foreign::inject(&mut lock(world), rng),
        Fault::Kill => down(world, rng.index(size), Death::Kill, rng).await,
        Fault::LeaderKill => {
            let leader = lock(world).peers.iter().position(crate::peer::Peer::leads);
            let death = if rng.chance(500) { Death::Cut } else { Death::Kill };
            if let Some(leader) = leader {
                down(world, leader, death, rng).await;
            }
        }
        Fault::Partition => partition(world, rng).await,
        Fault::Pause => pause(world, rng.index(size), rng).await,
        Fault::Rescue => rescue::inject(world, rng).await,
        Fault::Swizzle => swizzle(world, rng).await,
        Fault::Upgrade => {
            let old = lock(world).peers.iter().position(|peer| peer.release < NEW);
            if let Some(peer) = old {
                lock(world).upgrade(peer);
                sleep(rng.up_to(Duration::from_secs(3))).await;
                restart(world, peer);
            }
        }
    }
}

async fn down(world: &Shared, peer: usize, death: Death, rng: &mut Rng) {
    let spread = {
        let mut world = lock(world);
        world.crash(peer, death);
        Duration::from_millis(world.options.restart_spread_ms)
    };
    sleep(rng.up_to(spread)).await;
    restart(world, peer);
}

fn restart(world: &Shared, peer: usize) {
    let mut world = lock(world);
    if !world.is_calm() {
        world.restart(peer);
    }
}

async fn partition(world: &Shared, rng: &mut Rng) {
    let kind = *rng.pick(&PARTITIONS);
    {
        let mut world = lock(world);
        let at = World::now();
        world.trace.line(at, "world", || format!("partition {kind:?}"));
        let world = &mut *world;
        world.net.partition(kind, rng);
        world.stats.partitions += 1;
        sometimes!(world.coverage, world.peers.len() > 2, "a partition");
    }
    sleep(rng.up_to(Duration::from_secs(8))).await;
    let mut world = lock(world);
    if !world.calm {
        world.net.heal();
    }
}

async fn pause(world: &Shared, peer: usize, rng: &mut Rng) {
    {
        let mut world = lock(world);
        if !world.peers[peer].up || world.peers[peer].paused {
            return;
        }
        let leads = world.peers[peer].leads();
        sometimes!(world.coverage, leads, "the leader was paused");
        world.peers[peer].paused = true;
        world.stats.pauses += 1;
        world.log(peer, || "is paused".to_owned());
        Handle::current().pause(world.nodes[peer]);
    }
    sleep(rng.up_to(Duration::from_secs(6))).await;
    resume(world, peer);
}

/// Resumes a paused peer.
pub(crate) fn resume(world: &Shared, peer: usize) {
    let mut world = lock(world);
    if world.peers[peer].paused && !world.peers[peer].broken {
        world.peers[peer].paused = false;
        world.log(peer, || "is resumed".to_owned());
        Handle::current().resume(world.nodes[peer]);
    }
}

/// Clogs peers one after the other, and clears them one after the other, in another order.
async fn swizzle(world: &Shared, rng: &mut Rng) {
    let mut order: Vec<usize> = (0..lock(world).peers.len()).collect();
    rng.shuffle(&mut order);
    order.truncate(1 + rng.index(order.len()));
    for peer in &order {
        {
            let mut world = lock(world);
            if world.calm {
                return;
            }
            world.net.clog(*peer, true);
        }
        sleep(rng.up_to(Duration::from_secs(2))).await;
    }
    lock(world).coverage.hit("links were clogged");
    rng.shuffle(&mut order);
    for peer in &order {
        sleep(rng.up_to(Duration::from_secs(2))).await;
        lock(world).net.clog(*peer, false);
    }
}

/// Executes a fault that was aimed at a peer's last actions.
pub(crate) async fn strike(world: Shared, aim: Aim) {
    sleep(Duration::from_nanos(aim.delay)).await;
    let pause = {
        let mut world = lock(&world);
        if world.is_calm() {
            return;
        }
        if world.peers[aim.peer].up {
            world.coverage.hit("a fault was aimed");
            world.coverage.hit(aim.moment.followed_by_death());
        }
        world.crash(aim.peer, aim.death);
        let spread = Duration::from_millis(world.options.restart_spread_ms);
        Rng::new(world.options.seed ^ World::now(), "strike").up_to(spread)
    };
    sleep(pause).await;
    restart(&world, aim.peer);
}

/// Ends a peer whose disk fails; its supervisor restarts it.
pub(crate) async fn fail_stop(world: Shared, peer: usize) {
    {
        let mut world = lock(&world);
        world.coverage.hit("a sync failed");
        world.crash(peer, Death::Cut);
    }
    sleep(Duration::from_secs(1)).await;
    let mut world = lock(&world);
    if !world.stopped && !world.peers[peer].broken {
        world.restart(peer);
    }
}
