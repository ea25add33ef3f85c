//! A follower that cannot reach its leader.

use std::time::Duration;

use super::harness::{Harness, raft_message};
use crate::testing::peer;
use crate::*;

/// Reports the batches among these effects as durable, and returns all effects.
fn settle(harness: &mut Harness, mut effects: Vec<Effect>) -> Vec<Effect> {
    let mut next = 0;
    while next < effects.len() {
        if let Effect::Persist(Batch { id, sync: true, .. }) = &effects[next] {
            let batch = *id;
            effects.extend(harness.handle(Event::Persisted { batch }));
        }
        next += 1;
    }
    effects
}

/// Returns peer 1, which peer 2 leads in term 1.
fn follower() -> Harness {
    let mut harness = Harness::new(3);
    let effects = harness.receive(2, Message::Raft(raft_message(RaftKind::Heartbeat, 1)));
    settle(&mut harness, effects);
    assert_eq!(harness.node.view().leader(), Some(&peer(2)));
    harness
}

/// Returns whether peer 1 grants peer 3 a pre-vote.
fn grants_pre_vote(harness: &mut Harness) -> bool {
    let asked = RaftMessage {
        from: RaftId(3),
        ..raft_message(RaftKind::RequestPreVote, 2)
    };
    let effects = harness.receive(3, Message::Raft(asked));
    let effects = settle(harness, effects);
    sent(&effects).any(|message| message.kind == RaftKind::RequestPreVoteResponse && !message.reject)
}

fn sent(effects: &[Effect]) -> impl Iterator<Item = &RaftMessage> {
    effects.iter().filter_map(|effect| {
        if let Effect::Send { envelope, .. } = effect
            && let Message::Raft(message) = &envelope.message
        {
            return Some(message);
        }
        None
    })
}

/// Returns the number of ticks until peer 1 asks for pre-votes.
fn ticks_until_election(harness: &mut Harness) -> u32 {
    for ticks in 1..=20 {
        harness.wait(Duration::from_millis(100));
        let effects = harness.handle(Event::TimedOut);
        let effects = settle(harness, effects);
        if sent(&effects).any(|message| message.kind == RaftKind::RequestPreVote) {
            return ticks;
        }
    }
    panic!("no election in twice the election timeout");
}

#[test]
fn unreachable_leader_has_no_lease() {
    let mut harness = follower();
    assert!(!grants_pre_vote(&mut harness));
    let _ = harness.handle(Event::Unreachable { peer: peer(3) });
    assert!(!grants_pre_vote(&mut harness), "another peer is not the leader");
    let _ = harness.handle(Event::Unreachable { peer: peer(2) });
    assert!(grants_pre_vote(&mut harness));
    let _ = harness.receive(2, Message::Raft(raft_message(RaftKind::Heartbeat, 1)));
    assert!(!grants_pre_vote(&mut harness), "the leader is back");
}

#[test]
fn election_follows_the_loss_of_the_leader_without_the_minimum_timeout() {
    let all = ticks_until_election(&mut follower());
    let mut harness = follower();
    let _ = harness.handle(Event::Unreachable { peer: peer(2) });
    assert_eq!(ticks_until_election(&mut harness), all - 10);
}
