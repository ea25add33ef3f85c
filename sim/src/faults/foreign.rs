//! Another cluster's peers: one of them runs under an identity that is known here, on the data folder of
//! another cluster, and sends what a member would send. None of it may have an effect.

use std::sync::Arc;

use cluster_core::{
    ClusterId, Effect, Envelope, Event, Incarnation, LogEntry, Message, Metric, PING, Payload, RaftId,
    RaftKind, RaftMessage,
};

use crate::releases::NEW;
use crate::rng::Rng;
use crate::world::World;

/// Number of messages that are delivered together.
const MESSAGES: usize = 4;

/// The other cluster.
const OTHER: ClusterId = ClusterId([7; 16]);

/// Delivers a few messages of a member of another cluster to a peer.
pub(super) fn inject(world: &mut World, rng: &mut Rng) {
    let size = world.peers.len();
    let (me, other) = (rng.index(size), rng.index(size));
    // A peer that does not know its cluster yet joins the first one that knows the peer, and the operator's
    // configuration names the right one.
    if me == other || world.peers[me].disk.written.members.cluster == ClusterId::UNKNOWN {
        return;
    }
    if rng.chance(200) {
        offer_snapshot(world, me, other);
    }
    for _ in 0..MESSAGES {
        let message = draw(world, me, other, rng);
        let peer = &world.peers[other];
        let envelope = Envelope {
            cluster: OTHER,
            incarnation: if rng.chance(500) {
                peer.disk.incarnation()
            } else {
                Incarnation(rng.next())
            },
            addressee: rng.chance(700).then(|| world.peers[me].disk.incarnation()),
            version: NEW,
            message,
        };
        let from = peer.id.clone();
        world.peers[me].post(Event::Received { from, envelope });
    }
    world.coverage.hit("another cluster's peer spoke");
}

/// Offers the other cluster's pinset, further than this cluster's log and in a later term.
fn offer_snapshot(world: &mut World, me: usize, other: usize) {
    let store = &world.peers[me].disk.written;
    let mut snapshot = store.snapshot();
    snapshot.manifest.members.cluster = OTHER;
    snapshot.manifest.applied.index = store.last() + 100;
    snapshot.manifest.applied.term = store.hard_state.term + 5;
    let (from, to) = (raft_id(world, me, other), raft_id(world, me, me));
    let message = RaftMessage::new(RaftKind::Snapshot, from, to, store.hard_state.term + 5);
    let from = world.peers[other].id.clone();
    let manifest = snapshot.manifest.clone();
    let receiver = &mut world.peers[me];
    if receiver.node.is_none() {
        return;
    }
    let snapshot = receiver.disk.stage(Arc::new(snapshot));
    receiver.post(Event::SnapshotReceived {
        from,
        snapshot,
        manifest,
        message,
    });
    world.coverage.hit("another cluster's snapshot was offered");
}

/// Returns the Raft id of a peer, as another one knows it, or an unused id if it knows none.
fn raft_id(world: &World, me: usize, peer: usize) -> RaftId {
    let members = &world.peers[me].disk.written.members;
    members.raft_id(&world.peers[peer].id).unwrap_or(RaftId(99))
}

fn draw(world: &World, me: usize, other: usize, rng: &mut Rng) -> Message {
    let store = &world.peers[me].disk.written;
    let as_of = store.applied.index + 100;
    let id = |peer: usize| raft_id(world, me, peer);
    match rng.below(5) {
        0 => Message::Metrics(vec![Metric {
            name: PING.to_owned(),
            value: "foreign".to_owned(),
            weight: 0,
            partitionable: false,
            ttl: std::time::Duration::from_secs(1000),
            valid: true,
        }]),
        1 => Message::NotMember { as_of },
        2 => Message::Hello,
        draw => {
            let kind = if draw == 3 {
                RaftKind::Append
            } else {
                RaftKind::RequestVote
            };
            let (index, log_term) = (store.last(), store.hard_state.term);
            let entry = LogEntry {
                index: index + 1,
                term: log_term + 5,
                payload: Payload::Commands(Vec::new()),
            };
            let is_append = kind == RaftKind::Append;
            Message::Raft(RaftMessage {
                log_term,
                index,
                entries: if is_append { vec![entry] } else { Vec::new() },
                commit: if is_append { index + 1 } else { 0 },
                ..RaftMessage::new(kind, id(other), id(me), log_term + 5)
            })
        }
    }
}

/// Returns whether an event comes from another cluster.
pub(crate) fn is_foreign(event: &Event) -> bool {
    match event {
        Event::Received { envelope, .. } => envelope.cluster == OTHER,
        Event::SnapshotReceived { manifest, .. } => manifest.members.cluster == OTHER,
        _ => false,
    }
}

/// Returns whether an effect answers a peer, or changes a membership, a promise or a log.
pub(crate) fn matters(effect: &Effect) -> bool {
    use cluster_core::StoreOp::{Append, InstallSnapshot, SetHardState, SetMembers};
    match effect {
        Effect::Persist(batch) => {
            let matters = |op| {
                matches!(
                    op,
                    &(Append { .. } | InstallSnapshot { .. } | SetHardState { .. } | SetMembers { .. })
                )
            };
            batch.ops.iter().any(matters)
        }
        // Surplus copies are asked about when they are due, in any step.
        Effect::Send { envelope, .. } => !matches!(envelope.message, Message::AskCopies(_)),
        Effect::SendSnapshot { .. } => true,
        _ => false,
    }
}
