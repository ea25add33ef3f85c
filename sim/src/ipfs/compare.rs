//! Comparison of a peer's local states with the pins of its IPFS daemon, as in the daemon's driver: the pins
//! are listed at one moment, the local states are read later, and the report arrives after a delay.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::{Cid, Event, IpfsError, Local, Missing, Mode, OpId, Phase, PinsetView};
use madsim::time::sleep;

use super::Ipfs;
use crate::coverage::sometimes;
use crate::world::{Shared, World, lock};

/// Number of local states read at once: few, so that other steps happen in between.
const PAGE: usize = 3;

/// Approximate maximum number of pages of a comparison of everything.
const PAGES: usize = 100;

/// Compares one CID, or everything.
pub(crate) async fn compare(world: Shared, me: usize, op: OpId, only: Option<Cid>) {
    let (generation, hangs) = {
        let ipfs = &mut lock(&world).peers[me].ipfs;
        ipfs.comparing.insert(op, false);
        let hangs = ipfs.rng.chance(ipfs.hang);
        (ipfs.generation, hangs)
    };
    let began = World::now();
    let outcome = run(&world, me, op, generation, hangs, only).await;
    let mut world = lock(&world);
    let peer = &mut world.peers[me];
    if outcome.is_ok() {
        let longest = &mut peer.ipfs.longest_comparison;
        *longest = (*longest).max(World::now() - began);
    }
    peer.ipfs.comparing.remove(&op);
    peer.post(Event::IpfsCompared { op, outcome });
}

async fn run(
    world: &Shared,
    me: usize,
    op: OpId,
    generation: u64,
    hangs: bool,
    only: Option<Cid>,
) -> Result<(), IpfsError> {
    if hangs {
        loop {
            pause(world, me, op, generation).await?;
        }
    }
    let listed = only.is_none().then(|| lock(world).peers[me].ipfs.pinned.clone());
    let mut after = None;
    loop {
        pause(world, me, op, generation).await?;
        let page = match &only {
            Some(cid) => {
                let local = lock(world).peers[me].disk.written.local(cid);
                local.map(|local| (cid.clone(), local)).into_iter().collect()
            }
            None => {
                let store = &lock(world).peers[me].disk.written;
                store.locals(after.as_ref(), PAGE.max(store.locals.len() / PAGES))
            }
        };
        let last = page.last().map(|(cid, _)| cid.clone());
        let suspects = page
            .into_iter()
            .filter(|(cid, local)| is_suspect(listed.as_ref(), cid, local));
        let suspects: Vec<(Cid, Local)> = suspects.collect();
        pause(world, me, op, generation).await?;
        let missing = lock(world).peers[me].ipfs.without(suspects);
        if !missing.is_empty() {
            pause(world, me, op, generation).await?;
            let mut world = lock(world);
            sometimes!(world.coverage, true, "a comparison found pins missing");
            world.peers[me].post(Event::IpfsLacks { op, missing });
        }
        lock(world).peers[me].post(Event::IpfsProgressed { op });
        match last {
            Some(cid) if only.is_none() => after = Some(cid),
            Some(_) | None => return Ok(()),
        }
    }
}

fn is_suspect(listed: Option<&BTreeMap<Cid, Mode>>, cid: &Cid, local: &Local) -> bool {
    let is_listed = listed.is_some_and(|listed| holds(listed, cid, local.mode));
    local.phase == Phase::Pinned && !is_listed
}

/// Returns whether there is a pin of at least this depth.
pub(super) fn holds(pinned: &BTreeMap<Cid, Mode>, cid: &Cid, mode: Mode) -> bool {
    match pinned.get(cid) {
        Some(Mode::Recursive) => true,
        Some(Mode::Direct) => mode == Mode::Direct,
        None => false,
    }
}

/// Returns the longest of the pauses in a comparison.
const PAUSE_MAX: Duration = Duration::from_millis(300);

async fn pause(world: &Shared, me: usize, op: OpId, generation: u64) -> Result<(), IpfsError> {
    let time = {
        let ipfs = &mut lock(world).peers[me].ipfs;
        let longest = if ipfs.compares_slowly {
            PAUSE_MAX
        } else {
            ipfs.slow.min(PAUSE_MAX)
        };
        ipfs.rng.up_to(longest)
    };
    // Never zero: time must pass while a daemon hangs.
    sleep(time + Duration::from_millis(1)).await;
    let ipfs = &lock(world).peers[me].ipfs;
    if ipfs.comparing.get(&op).is_none_or(|cancelled| *cancelled) {
        Err(IpfsError::Cancelled)
    } else if !ipfs.up || ipfs.generation != generation {
        Err(IpfsError::Failed("connection reset by peer".to_owned()))
    } else {
        Ok(())
    }
}

impl Ipfs {
    /// Returns the `suspects` that it does not have now.
    fn without(&self, suspects: Vec<(Cid, Local)>) -> Vec<Missing> {
        let missing = suspects
            .into_iter()
            .filter(|(cid, local)| !holds(&self.pinned, cid, local.mode));
        let missing = missing.map(|(cid, local)| Missing {
            cid,
            since: local.since,
        });
        missing.collect()
    }
}
