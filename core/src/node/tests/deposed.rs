//! A leader that loses its vote by a change that an earlier leader proposed.

use std::time::Duration;

use super::harness::{Harness, append_change, raft_message};
use crate::*;

/// Reports batches as durable until there are none.
fn settle(harness: &mut Harness, effects: Vec<Effect>) {
    for effect in effects {
        if let Effect::Persist(Batch { id, sync: true, .. }) = effect {
            let effects = harness.handle(Event::Persisted { batch: id });
            settle(harness, effects);
        }
    }
}

fn hear(harness: &mut Harness, from: u8, message: RaftMessage) {
    let from_id = RaftId(u64::from(from));
    let message = RaftMessage {
        from: from_id,
        ..message
    };
    let effects = harness.receive(from, Message::Raft(message));
    settle(harness, effects);
}

/// Returns peer 1 of three, with a membership change in its log and elected by peer 3.
fn elected_with(step: MembersStep) -> Harness {
    let mut harness = Harness::new(3);
    hear(&mut harness, 2, append_change(step));
    for _ in 0..100 {
        harness.wait(Duration::from_millis(100));
        let effects = harness.handle(Event::TimedOut);
        settle(&mut harness, effects);
        let term = harness.node.view().term();
        hear(
            &mut harness,
            3,
            raft_message(RaftKind::RequestPreVoteResponse, term + 1),
        );
        let term = harness.node.view().term();
        if term > 1 {
            hear(&mut harness, 3, raft_message(RaftKind::RequestVoteResponse, term));
            break;
        }
    }
    assert_eq!(harness.node.view().leader(), Some(&crate::testing::peer(1)));
    harness
}

/// Simulated seed 51847: Raft panicked at the next acknowledgement.
#[test]
fn leader_that_loses_its_vote_steps_down() {
    let raft_id = RaftId(1);
    for step in [MembersStep::Remove { raft_id }, MembersStep::Demote { raft_id }] {
        let mut harness = elected_with(step);
        for index in 1..=3 {
            let term = harness.node.view().term();
            for from in [2, 3] {
                let message = RaftMessage {
                    index,
                    ..raft_message(RaftKind::AppendResponse, term)
                };
                hear(&mut harness, from, message);
            }
        }
        assert!(!harness.node.view().members().voters.contains(&raft_id));
        assert_eq!(harness.node.view().leader(), None);
    }
}
