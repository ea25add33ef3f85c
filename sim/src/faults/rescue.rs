//! Permanent loss of a majority: one member founds a new cluster on its data, as `state rescue` does, and the
//! others join it with empty data folders. One of them may first return with its old data.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_core::{
    ClusterId, Incarnation, LogEntry, Members, MembersChange, MembersStep, Payload, PeerId, RaftId, decode,
};
use madsim::time::sleep;

use super::restart;
use crate::peer::Peer;
use crate::report::Class;
use crate::rng::Rng;
use crate::world::{Death, Shared, World, lock};

/// Makes one member found a new cluster, if a member has everything that was committed.
pub(super) async fn inject(world: &Shared, rng: &mut Rng) {
    let Some((survivor, exile)) = found_new_cluster(&mut lock(world), rng) else {
        return;
    };
    let size = lock(world).peers.len();
    restart(world, survivor);
    for peer in (0..size).filter(|peer| *peer != survivor) {
        sleep(rng.up_to(Duration::from_millis(500))).await;
        restart(world, peer);
    }
    let Some(exile) = exile else { return };
    sleep(rng.up_to(Duration::from_secs(10))).await;
    {
        let mut locked = lock(world);
        if locked.is_calm() || !locked.peers[exile].exiled {
            return;
        }
        let members = locked.peers[survivor].disk.written.members.clone();
        locked.crash(exile, Death::Kill);
        wipe(&mut locked, exile, rng.next(), members);
    }
    sleep(rng.up_to(Duration::from_secs(1))).await;
    restart(world, exile);
}

/// Ends all processes and rewrites the data of the member that survives. Returns it, and the peer that keeps
/// the data of the lost cluster.
fn found_new_cluster(world: &mut World, rng: &mut Rng) -> Option<(usize, Option<usize>)> {
    let size = world.peers.len();
    let able: Vec<usize> = (0..size).filter(|peer| may_survive(world, *peer)).collect();
    if able.is_empty() || world.peers.iter().any(|peer| peer.exiled) {
        return None;
    }
    let survivor = *rng.pick(&able);
    (0..size).for_each(|peer| world.crash(peer, Death::Kill));
    let me = world.peers[survivor].id.clone();
    let others = world.members().peer_ids().filter(|peer| **peer != me);
    let survivors: BTreeSet<PeerId> = others.filter(|_| rng.chance(700)).cloned().collect();
    let mut name = [0; 16];
    name[..8].copy_from_slice(&rng.next().to_be_bytes());
    let cluster = ClusterId(name);
    let newest = newest_raft_id(world, survivor);
    let disk = &mut world.peers[survivor].disk;
    let (incarnation, boot) = (disk.incarnation(), disk.boot());
    let recovered = disk.written.recovered(incarnation, boot);
    let before = recovered.members.clone();
    let (rescue, ops) = recovered.rescue(&me, &survivors, cluster).ok()?;
    disk.rewrite(&ops);
    if let Err(text) = is_sound(&me, &survivors, cluster, newest, &before, &rescue.members) {
        world.violate(Class::Safety, "rescue", survivor, text);
    }
    let keeps_data = |peer: &usize| *peer != survivor && may_be_exiled(&world.peers[*peer]);
    let candidates: Vec<usize> = (0..size).filter(keeps_data).collect();
    let exile = (!candidates.is_empty() && rng.chance(500)).then(|| *rng.pick(&candidates));
    for peer in (0..size).filter(|peer| *peer != survivor && Some(*peer) != exile) {
        wipe(world, peer, rng.next(), rescue.members.clone());
    }
    if let Some(exile) = exile {
        world.peers[exile].exiled = true;
        world.coverage.hit("a lost peer came back with its data");
    }
    world.checks.rescued(survivor, survivors, &world.peers);
    world.coverage.hit("a survivor founded a new cluster");
    Some((survivor, exile))
}

fn wipe(world: &mut World, peer: usize, number: u64, members: Members) {
    world.peers[peer].exiled = false;
    world.peers[peer].lose_disk(Incarnation(number), members, None);
    world.checks.disk_lost(peer);
}

/// Empties the data folder of a peer that runs on the data of the lost cluster.
pub(crate) fn end_exile(world: &mut World) {
    let members = world.members().clone();
    for peer in 0..world.peers.len() {
        if world.peers[peer].exiled {
            world.crash(peer, Death::Kill);
            wipe(world, peer, u64::MAX - peer as u64, members.clone());
        }
    }
}

/// Returns whether a peer is a member that has everything that was committed, in the latest term of all.
/// Other survivors would lose committed entries, which the checks would report.
fn may_survive(world: &World, me: usize) -> bool {
    let peer = &world.peers[me];
    let store = &peer.disk.written;
    let id = store.members.raft_id(&peer.id);
    let recorded = id.and_then(|id| store.members.peers.get(&id)?.incarnation);
    let latest = world
        .peers
        .iter()
        .map(|peer| peer.disk.written.hard_state.term)
        .max();
    let decided = world.checks.decided();
    // A change that was committed must have been applied, or the rescue would drop it.
    let unapplied = store
        .log
        .values()
        .filter(|entry| entry.index > store.applied.index);
    let mut committed = unapplied.take_while(|entry| entry.index <= decided);
    let drops_change = committed.any(|entry| matches!(entry.payload, Payload::Members(_)));
    recorded == Some(peer.disk.incarnation())
        && Some(store.hard_state.term) == latest
        && world.checks.is_complete(store)
        && !drops_change
        && !peer.disk.full
        && !peer.disk.rotten
        && !peer.broken
}

/// Returns whether a peer on its own data cannot reach a quorum alone.
fn may_be_exiled(peer: &Peer) -> bool {
    let members = &peer.disk.written.members;
    members.voters.len() > 1
        && members.outgoing.is_empty()
        && !peer
            .disk
            .written
            .log
            .values()
            .any(|entry| matches!(entry.payload, Payload::Members(_)))
}

/// Returns the highest Raft id that any membership, or the log of the survivor, has assigned.
fn newest_raft_id(world: &World, survivor: usize) -> RaftId {
    let stores = world.peers.iter().map(|peer| &peer.disk.written);
    let members = stores.flat_map(|store| store.members.peers.keys().copied());
    // Ids that only a lost leader's log has cannot be known; the new cluster's id distinguishes them (seed
    // 302115).
    let log = world.peers[survivor].disk.written.log.values();
    let entries = log.flat_map(handed_out);
    members.chain(entries).max().unwrap_or_default()
}

fn handed_out(entry: &LogEntry) -> Vec<RaftId> {
    let Payload::Members(data) = &entry.payload else {
        return Vec::new();
    };
    let steps = decode::<MembersChange>(data).map_or_else(|_| Vec::new(), |change| change.steps);
    let ids = steps.iter().filter_map(|step| match step {
        MembersStep::AddLearner { raft_id, .. } => Some(*raft_id),
        MembersStep::Demote { .. } | MembersStep::Promote { .. } | MembersStep::Remove { .. } => None,
    });
    ids.collect()
}

/// Checks that the new membership is that of another cluster, of this member alone, under an unused Raft id,
/// and leaves out none of the old members.
fn is_sound(
    me: &PeerId,
    survivors: &BTreeSet<PeerId>,
    cluster: ClusterId,
    newest: RaftId,
    before: &Members,
    after: &Members,
) -> Result<(), String> {
    let voters: Vec<&PeerId> = after.voters.iter().filter_map(|id| after.peer(*id)).collect();
    let is_new = after.voters.iter().all(|id| *id > newest);
    let is_known = |peer: &PeerId| peer == me || survivors.contains(peer) || after.departed.contains(peer);
    let is_sound = after.cluster == cluster
        && voters == [me]
        && after.peers.len() == 1
        && is_new
        && after.joining == *survivors
        && before.peer_ids().all(is_known);
    if is_sound {
        return Ok(());
    }
    Err(format!(
        "makes {after:?} of {before:?}, where {newest} was handed out"
    ))
}
