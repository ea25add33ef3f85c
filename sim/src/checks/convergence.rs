//! Unfinished work in the healed part of the cluster. The second phase must complete all of it; a violation
//! names the first unfinished task.

use cluster_core::{Cid, Lane, PeerId, Phase, Pin, Replicas};

use crate::members::wanted_voters;
use crate::world::{World, is_available, name};

/// Returns the first unfinished task that is found, or `None`.
pub(crate) fn pending(world: &World) -> Option<String> {
    if world.history.open() > 0 {
        return Some(format!("{} client operations", world.history.open()));
    }
    if let Some(down) = world.well().find(|number| world.peers[*number].node.is_none()) {
        return Some(format!("start of {}", name(down)));
    }
    let leads = |number: &usize| world.peers[*number].is_ready_leader();
    let leaders: Vec<usize> = world.well().filter(leads).collect();
    let [leader] = leaders[..] else {
        return Some(format!("leader, there are {leaders:?}"));
    };
    let leader_id = &world.peers[leader].id;
    let decided = world.checks.decided();
    for number in world.well() {
        let peer = &world.peers[number];
        let Some(node) = &peer.node else { continue };
        let view = node.view();
        if view.leader() != Some(leader_id) {
            return Some(format!("{} to follow p{leader}", name(number)));
        }
        if view.applied().index != decided {
            let applied = view.applied().index;
            return Some(format!("{} to apply {decided}, it is at {applied}", name(number)));
        }
        if view.open_requests() > 0 {
            return Some(format!("{} requests at {}", view.open_requests(), name(number)));
        }
    }
    membership(world)
        .or_else(|| {
            let version = world.silent_about(world.members())?;
            Some(format!("the members to agree on version {version}"))
        })
        .or_else(|| {
            Some(format!(
                "removal of what is expired: {:?}",
                expired(world, leader)?
            ))
        })
        .or_else(|| repair(world))
        .or_else(|| drains(world))
        .or_else(|| rebalancing(world))
        .or_else(|| {
            let mut well = world.well();
            well.find_map(|number| scrubbing(world, number).or_else(|| tracking(world, number)))
        })
}

/// Describes a scrub that has not ended, or a rotten copy that none has found.
fn scrubbing(world: &World, number: usize) -> Option<String> {
    let peer = &world.peers[number];
    if let Some(what) = peer.scrub.unfinished().filter(|_| world.calm) {
        return Some(format!("{what} at {}", name(number)));
    }
    let rotten = peer.ipfs.rotten().next().filter(|_| world.options.scrub_ms > 0);
    rotten.map(|(cid, since)| {
        format!(
            "the scrub of {} to find {cid}, rotten since {since}",
            name(number)
        )
    })
}

/// Describes an unfinished change of the membership, if there is one.
fn membership(world: &World) -> Option<String> {
    let members = world.members();
    let waits = |peers: &std::collections::BTreeSet<cluster_core::PeerId>| {
        peers
            .iter()
            .any(|id| world.peers.iter().any(|peer| peer.id == *id && !peer.broken))
    };
    let joint = !members.outgoing.is_empty() || !members.learners_next.is_empty();
    let under_way = joint || waits(&members.joining) || !members.leaving.is_empty();
    if under_way {
        return Some(format!("a change of {members:?}"));
    }
    let is_well = |id: &&cluster_core::RaftId| {
        let peer = members.peer(**id);
        world
            .peers
            .iter()
            .any(|known| Some(&known.id) == peer && !known.broken)
    };
    let wanted = wanted_voters(members, world.options.voters_max);
    let well_voters = members.voters.iter().filter(is_well).count();
    if members.voters.len() > wanted.max(1) && well_voters >= wanted {
        return Some(format!(
            "{} of the votes to go, {wanted} are enough: {members:?}",
            members.voters.len()
        ));
    }
    let room = wanted_voters(members, world.options.voters_max).saturating_sub(members.voters.len());
    let living = members.learners.iter().filter(is_well).count();
    // The number of votes stays odd: only two learners together can be promoted.
    let useful = if members.voters.len() % 2 == 1 {
        living / 2 * 2
    } else {
        living
    };
    (room > 0 && useful > 0).then(|| format!("a vote for a learner of {members:?}"))
}

/// Returns an expired pin, if there is one.
fn expired(world: &World, leader: usize) -> Option<&Pin> {
    let now = world.peers[leader].now(World::now()).wall;
    let pins = world.checks.model().pins().values();
    pins.into_iter()
        .find(|pin| pin.options.expire_at.is_some_and(|at| at <= now))
}

/// Describes a pin with fewer live copies than it needs, if there is one and peers that could take more.
fn repair(world: &World) -> Option<String> {
    let drains = world.checks.model().drains();
    for pin in world.checks.model().pins().values() {
        let Replicas::Range { min, .. } = pin.options.replicas else {
            continue;
        };
        let living = living_holders(world, pin);
        let free = (0..world.peers.len()).filter(|number| {
            let id = &world.peers[*number].id;
            takes(world, *number) && !drains.contains_key(id) && !pin.allocations.contains(id)
        });
        let most = world.well().count().min(living + free.count());
        let is_gone = |id: &PeerId| {
            let mut members = world.members().peers.values();
            !members.any(|member| member.peer == *id)
        };
        // A former member keeps its place while no other peer can take it: drained ones cannot.
        if most >= min as usize && pin.allocations.iter().any(is_gone) {
            return Some(format!("a pin to leave who is no member any more: {pin:?}"));
        }
        if world.options.failover > 0 && living < most.min(min as usize) {
            return Some(format!("repair of a pin with {living} living copies: {pin:?}"));
        }
    }
    None
}

/// Describes a pin that a drained peer can give away and has not, or a drain of a former member.
fn drains(world: &World) -> Option<String> {
    let drains = world.checks.model().drains();
    let members: Vec<&PeerId> = world.members().peer_ids().collect();
    for (drained, drain) in drains {
        if !members.contains(&drained) {
            return Some(format!("the end of the drain of {drained}, who is no member"));
        }
        let Some(at) = world.well_number(drained) else {
            continue;
        };
        if stuck_copies(world, at) >= drain.moves_max as usize {
            continue;
        }
        for pin in world.checks.model().pins().values() {
            let Replicas::Range { min, max } = pin.options.replicas else {
                continue;
            };
            if !pin.allocations.contains(drained) {
                continue;
            }
            let rest = pin.allocations.iter().filter(|peer| *peer != drained);
            let is_well = |peer: &&PeerId| world.well_number(peer).is_some();
            let living = rest.clone().filter(is_well).count();
            let is_free = |peer: &&PeerId| {
                let takes = world.number_of(peer).is_some_and(|number| takes(world, number));
                takes && !drains.contains_key(*peer) && !pin.allocations.contains(peer)
            };
            let free = members.iter().copied().filter(is_free).count();
            let wanted = pin.allocations.len().min(max as usize);
            if living >= min as usize || rest.count() + free >= wanted {
                return Some(format!("the drain of {drained} to move {pin:?}"));
            }
        }
    }
    None
}

/// Describes a part of the rebalancing that has not ended, or a pin that should have moved to another zone.
fn rebalancing(world: &World) -> Option<String> {
    let state = world.checks.model().rebalance();
    let count = u32::try_from(world.well().count()).unwrap_or(1);
    let most = (state.settings.moves_total_max / count.max(1)).min(state.settings.moves_max);
    let is_stuck = |number: usize| stuck_copies(world, number) >= most.max(1) as usize;
    let mut under_way = world.well().filter_map(|number| {
        let progress = world.peers[number].node.as_ref()?.view().rebalance_progress();
        // A pass that can move nothing is repeated.
        (progress.is_passing && progress.moved > 0).then_some((number, progress))
    });
    if let Some((number, progress)) = under_way.find(|(number, _)| !is_stuck(*number)) {
        let waiting = world.peers[number].disk.written.queued(Lane::Surplus).count();
        return Some(format!(
            "the rebalancing of {}: {progress:?}, {waiting} copies wait, {most} moves of each are allowed",
            name(number)
        ));
    }
    if state.run.is_some() && !world.well().any(is_stuck) {
        return Some(format!("the end of {:?}", state.run));
    }
    // A copy that did not fit into a zone is not moved there again.
    if !state.settings.automatic || world.options.ipfs_room_gib > 0 {
        return None;
    }
    let pins = world.checks.model().pins().values();
    pins.into_iter().find_map(|pin| unzoned(world, pin, is_stuck))
}

/// Describes a pin with copies in one zone, one of which a peer could give to a zone without.
fn unzoned(world: &World, pin: &Pin, is_stuck: impl Fn(usize) -> bool) -> Option<String> {
    let drains = world.checks.model().drains();
    let number = |id: &PeerId| world.well_number(id).filter(|_| !drains.contains_key(id));
    let holders: Option<Vec<usize>> = pin.allocations.iter().map(number).collect();
    let holders = holders.filter(|_| matches!(pin.options.replicas, Replicas::Range { .. }))?;
    let zone = |at: usize| world.peers[at].ipfs.group();
    let is_free = |at: &usize| {
        let id = &world.peers[*at].id;
        let is_member = world.members().raft_id(id).is_some();
        is_member && number(id).is_some() && takes(world, *at) && !holders.contains(at)
    };
    let other = (0..world.peers.len())
        .filter(is_free)
        .any(|at| holders.iter().all(|holder| zone(*holder) != zone(at)));
    let gives = |at: &&usize| {
        let peer = &world.peers[**at];
        let local = peer.disk.written.locals.get(&pin.cid);
        let shares = holders.iter().filter(|other| zone(**other) == zone(**at)).count() > 1;
        let is_held = local.is_some_and(|local| local.phase == Phase::Pinned);
        shares && is_held && !pin.options.user_allocations.contains(&peer.id) && !is_stuck(**at)
    };
    let giver = holders.iter().find(gives).filter(|_| other)?;
    Some(format!("{} to give {pin:?} to another zone", name(*giver)))
}

/// Counts the surplus copies of a peer that nobody else can get. They may use up the limit of its moves.
fn stuck_copies(world: &World, number: usize) -> usize {
    let waiting = world.peers[number].disk.written.queued(Lane::Surplus);
    waiting.filter(|key| must_stay(world, number, &key.cid)).count()
}

/// Counts the holders of a pin that take part in the second phase.
fn living_holders(world: &World, pin: &Pin) -> usize {
    let is_well = |id: &&PeerId| world.well_number(id).is_some();
    pin.allocations.iter().filter(is_well).count()
}

/// Returns whether a peer gets new pins.
fn takes(world: &World, number: usize) -> bool {
    world.is_well(number) && world.peers[number].ipfs.takes_pins()
}

/// Returns a peer with more free space than this one, to which it can give a pin that it has no room for.
fn roomier(world: &World, number: usize, pin: &Pin) -> Option<usize> {
    if !matches!(pin.options.replicas, Replicas::Range { .. }) {
        return None;
    }
    let drains = world.checks.model().drains();
    let own = world.peers[number].ipfs.free_space();
    (0..world.peers.len()).find(|other| {
        let peer = &world.peers[*other];
        let is_free = !drains.contains_key(&peer.id) && !pin.allocations.contains(&peer.id);
        takes(world, *other) && is_free && peer.ipfs.free_space() > own
    })
}

/// Compares what a peer's IPFS node holds with what it should hold.
fn tracking(world: &World, number: usize) -> Option<String> {
    let peer = &world.peers[number];
    let store = &peer.disk.written;
    for pin in store.pins.values().filter(|pin| pin.is_allocated_to(&peer.id)) {
        if !is_available(&pin.cid, world.unavailable) {
            continue;
        }
        let phase = store.locals.get(&pin.cid).map(|local| local.phase);
        if phase == Some(Phase::PinError) && !peer.ipfs.has_room(&pin.cid) {
            if let Some(to) = roomier(world, number, pin) {
                return Some(format!("{pin:?} to move from {} to {}", name(number), name(to)));
            }
            continue;
        }
        if phase != Some(Phase::Pinned) {
            return Some(format!("{} at {} is {phase:?}", pin.cid, name(number)));
        }
        let held = peer.ipfs.pinned.get(&pin.cid);
        if held != Some(&pin.options.mode) {
            let (cid, at) = (&pin.cid, name(number));
            return Some(format!("{cid} in the IPFS node of {at} is {held:?}"));
        }
    }
    let is_surplus = |cid: &Cid| {
        let pin = store.pins.get(cid);
        !pin.is_some_and(|pin| pin.is_allocated_to(&peer.id)) && !must_stay(world, number, cid)
    };
    let foreign = peer
        .ipfs
        .pinned
        .keys()
        .filter(|cid| !peer.ipfs.owned.contains(*cid));
    for cid in foreign.filter(|cid| is_surplus(cid)) {
        let local = store.locals.get(cid);
        if local.is_some() || !peer.forgetful {
            let at = name(number);
            return Some(format!("surplus {cid} in the IPFS node of {at}: {local:?}"));
        }
    }
    if let Some((cid, local)) = store.locals.iter().find(|(cid, _)| is_surplus(cid)) {
        return Some(format!("local state of {cid} at {}: {local:?}", name(number)));
    }
    (peer.disk.staged() > 0).then(|| format!("staged snapshots at {}", name(number)))
}

/// Returns whether a surplus copy waits for peers that cannot take its place: they are
/// broken, or cannot get the content.
fn must_stay(world: &World, number: usize, cid: &Cid) -> bool {
    let store = &world.peers[number].disk.written;
    let local = store.locals.get(cid);
    let waits = local
        .and_then(|local| local.queued.as_ref())
        .is_some_and(|key| key.lane == Lane::Surplus);
    let Some(pin) = store.pins.get(cid).filter(|_| waits) else {
        return false;
    };
    let least = match pin.options.replicas {
        Replicas::Everywhere => 1,
        Replicas::Range { min, .. } => min as usize,
    };
    let holds = |other: &usize| {
        let peer = &world.peers[*other];
        let local = peer.disk.written.locals.get(cid);
        pin.allocations.contains(&peer.id) && local.is_some_and(|local| local.phase == Phase::Pinned)
    };
    let held = world.well().filter(holds).count();
    let least = least.max(living_holders(world, pin));
    held < least.clamp(1, pin.allocations.len().max(1))
}

/// Returns a hash that changes with all progress.
pub(crate) fn progress(world: &World) -> u64 {
    let mut sum = world.checks.decided().wrapping_mul(31) ^ world.history.open() as u64;
    for peer in &world.peers {
        let store = &peer.disk.written;
        let settled = store
            .locals
            .values()
            .filter(|local| local.phase == Phase::Pinned)
            .count();
        let rotten = peer.ipfs.rotten().count() as u64;
        let parts = [
            store.applied.index,
            peer.ipfs.pinned.len() as u64,
            settled as u64,
            rotten,
        ];
        sum = parts
            .into_iter()
            .fold(sum, |sum, part| crate::rng::mix(sum ^ part));
    }
    sum
}
