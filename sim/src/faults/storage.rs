//! Faults of disks and IPFS daemons.

use std::time::Duration;

use madsim::time::sleep;

use super::{Fault, restart};
use crate::coverage::sometimes;
use crate::disk::DiskError;
use crate::rng::Rng;
use crate::world::{Death, Shared, World, lock};

/// Pause after which a supervisor restarts a process.
const SUPERVISED: Duration = Duration::from_secs(1);

/// Time within which an operator repairs a peer that refuses to start.
const OPERATED: Duration = Duration::from_secs(5);

pub(super) async fn inject(world: &Shared, fault: Fault, peer: usize, rng: &mut Rng) {
    match fault {
        Fault::DiskFail => lock(world).peers[peer].sync_fails = true,
        Fault::DiskFull => {
            lock(world).peers[peer].disk.full = true;
            sleep(rng.up_to(Duration::from_secs(10))).await;
            lock(world).peers[peer].disk.full = false;
        }
        Fault::DiskLost => {
            lock(world).lose_disk(peer, rng.next());
            sleep(rng.up_to(Duration::from_secs(3))).await;
            restart(world, peer);
        }
        Fault::DiskRot => {
            {
                let mut world = lock(world);
                let before = world.peers[peer].disk.incarnation();
                world.lose_disk(peer, rng.next());
                // The damaged data is lost, but the folder exists, and must not be accepted as intact.
                let disk = &mut world.peers[peer].disk;
                disk.rotten |= disk.incarnation() != before;
            }
            sleep(rng.up_to(Duration::from_secs(3))).await;
            restart(world, peer);
        }
        Fault::IpfsForget => {
            let mut world = lock(world);
            let forgot = world.peers[peer].ipfs.forget(rng);
            sometimes!(world.coverage, forgot, "an IPFS daemon forgot pins");
        }
        Fault::IpfsFull => {
            lock(world).peers[peer].ipfs.full = true;
            sleep(rng.up_to(Duration::from_secs(10))).await;
            lock(world).peers[peer].ipfs.full = false;
        }
        Fault::IpfsRestart => {
            {
                let mut world = lock(world);
                let busy = world.peers[peer].ipfs.running() > 0;
                sometimes!(world.coverage, busy, "an IPFS daemon restarted at work");
                world.peers[peer].ipfs.restart();
                world.peers[peer].ipfs.up = false;
            }
            sleep(rng.up_to(Duration::from_secs(5))).await;
            lock(world).peers[peer].ipfs.up = true;
        }
        Fault::IpfsRot => {
            let mut world = lock(world);
            let share = *rng.pick(&[50, 300, 1000]);
            let rots = world.peers[peer].ipfs.rot(World::now(), share, rng);
            sometimes!(world.coverage, rots, "copies rotted");
        }
        _ => unreachable!("no fault of storage: {fault:?}"),
    }
}

/// Handles a process that ended because of its disk. If the disk is full it is restarted repeatedly; a
/// damaged folder is emptied by an operator, as the message says, and filled by the other peers.
pub(crate) async fn after_refusal(world: Shared, peer: usize, error: DiskError) {
    lock(&world).crash(peer, Death::Kill);
    let pause = match error {
        DiskError::Full => SUPERVISED,
        DiskError::Damaged => OPERATED,
    };
    sleep(pause).await;
    let mut world = lock(&world);
    if world.stopped || world.peers[peer].broken {
        return;
    }
    if error == DiskError::Damaged {
        world.peers[peer].disk.rotten = false;
        world.coverage.hit("a damaged disk was emptied");
    }
    world.restart(peer);
}
