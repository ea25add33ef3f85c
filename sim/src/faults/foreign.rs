//! Another cluster's peers: one of them runs under an identity that is known here, on the data folder of
//! another cluster, and says what a member would say. Nothing of it may count.

use cluster_core::{
    ClusterId, Effect, Envelope, Event, Incarnation, LogEntry, Message, Metric, PING, Payload, RaftId,
    RaftKind, RaftMessage,
};

use crate::releases::NEW;
use crate::rng::Rng;
use crate::world::World;

/// Messages that come together.
const MESSAGES: usize = 4;

/// The other cluster.
const OTHER: ClusterId = ClusterId([7; 16]);

/// Has a peer hear a few messages of a member of another cluster.
pub(super) fn speak(world: &mut World, rng: &mut Rng) {
    let size = world.peers.len();
    let (me, other) = (rng.index(size), rng.index(size));
    // Who does not know its cluster yet takes the first that knows it: an operator sees to it that there is
    // one.
    if me == other || world.peers[me].disk.written.members.cluster == ClusterId::UNKNOWN {
        return;
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

fn draw(world: &World, me: usize, other: usize, rng: &mut Rng) -> Message {
    let store = &world.peers[me].disk.written;
    let as_of = store.applied.index + 100;
    let id = |peer: usize| {
        let members = store.members.peers.iter();
        let known = members.filter(|(_, member)| member.peer == world.peers[peer].id);
        known.map(|(id, _)| *id).next_back().unwrap_or(RaftId(99))
    };
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
                kind,
                from: id(other),
                to: id(me),
                term: log_term + 5,
                log_term,
                index,
                entries: if is_append { vec![entry] } else { Vec::new() },
                commit: if is_append { index + 1 } else { 0 },
                commit_term: 0,
                request_snapshot: 0,
                reject: false,
                reject_hint: 0,
                context: Vec::new(),
                priority: 0,
            })
        }
    }
}

/// Whether an event comes from another cluster.
pub(crate) fn is_foreign(event: &Event) -> bool {
    matches!(event, Event::Received { envelope, .. } if envelope.cluster == OTHER)
}

/// Whether an effect answers somebody, or changes what a peer is or has promised.
pub(crate) fn matters(effect: &Effect) -> bool {
    use cluster_core::StoreOp::{Append, SetHardState, SetMembers};
    match effect {
        Effect::Persist(batch) => {
            let matters = |op| matches!(op, &(SetHardState { .. } | SetMembers { .. } | Append { .. }));
            batch.ops.iter().any(matters)
        }
        Effect::Send { .. } | Effect::SendSnapshot { .. } => true,
        Effect::CancelIpfs { .. }
        | Effect::CompareIpfs { .. }
        | Effect::DiscardSnapshot { .. }
        | Effect::Measure
        | Effect::Reply { .. }
        | Effect::StartIpfs { .. } => false,
    }
}
