//! Votes and acknowledgements of a removed peer, which members that do not know of the removal still need.

use std::time::Duration;

use super::harness::{Harness, append_change, persist, raft_message};
use crate::*;

fn from_third(kind: RaftKind, term: Term) -> RaftMessage {
    RaftMessage {
        from: RaftId(3),
        index: 1,
        log_term: 1,
        ..raft_message(kind, term)
    }
}

fn answer(kind: RaftKind, term: Term) -> RaftMessage {
    RaftMessage {
        from: RaftId(1),
        to: RaftId(3),
        ..raft_message(kind, term)
    }
}

fn promise(term: Term, vote: Option<RaftId>) -> StoreOp {
    StoreOp::SetHardState {
        hard_state: HardState {
            identity: Identity::Removed(RaftId(1)),
            term,
            vote,
            commit: 1,
        },
    }
}

/// Returns peer 1 of three, which has voted for peer 2 and applied its own removal.
fn removed() -> Harness {
    let mut harness = Harness::new(3);
    let batch = persist(&harness.receive(2, Message::Raft(raft_message(RaftKind::RequestVote, 1)))).id;
    let _ = harness.handle(Event::Persisted { batch });
    let append = append_change(MembersStep::Remove { raft_id: RaftId(1) });
    let batch = persist(&harness.receive(2, Message::Raft(append))).id;
    let _ = harness.handle(Event::Persisted { batch });
    let agreed = RaftMessage {
        commit: 1,
        ..raft_message(RaftKind::Heartbeat, 1)
    };
    let batch = persist(&harness.receive(2, Message::Raft(agreed))).id;
    let effects = harness.handle(Event::Persisted { batch });
    let batch = persist(&effects);
    assert_eq!(
        batch.ops,
        [promise(1, Some(RaftId(2)))],
        "promises under this id remain valid"
    );
    let batch = batch.id;
    let _ = harness.handle(Event::Persisted { batch });
    assert_eq!(harness.node.view().membership(), Membership::Removed);
    harness
}

/// The leader of two voters was removed and knew it, but its last message was lost. The other voter then
/// needed its vote, and its acknowledgement (simulated seed 718).
#[test]
fn removed_peer_still_votes_and_acknowledges() {
    let mut harness = removed();
    let effects = harness.receive(3, Message::Raft(from_third(RaftKind::RequestPreVote, 2)));
    let granted = answer(RaftKind::RequestPreVoteResponse, 2);
    assert_eq!(effects, [harness.send(3, granted)]);
    let effects = harness.receive(3, Message::Raft(from_third(RaftKind::RequestVote, 2)));
    assert_eq!(effects.len(), 1, "no vote before it is durable: {effects:?}");
    let batch = persist(&effects);
    assert!(batch.sync);
    assert_eq!(batch.ops, [promise(2, Some(RaftId(3)))]);
    let batch = batch.id;
    let vote = answer(RaftKind::RequestVoteResponse, 2);
    assert_eq!(
        harness.handle(Event::Persisted { batch }),
        [harness.send(3, vote)]
    );
    let entry = LogEntry {
        index: 2,
        term: 2,
        payload: Payload::Commands(Vec::new()),
    };
    let append = RaftMessage {
        entries: vec![entry.clone()],
        ..from_third(RaftKind::Append, 2)
    };
    let effects = harness.receive(3, Message::Raft(append));
    let batch = persist(&effects);
    assert!(batch.ops.contains(&StoreOp::Append { entries: vec![entry] }));
    let batch = batch.id;
    let acknowledged = RaftMessage {
        index: 2,
        commit: 1,
        ..answer(RaftKind::AppendResponse, 2)
    };
    assert_eq!(
        harness.handle(Event::Persisted { batch }),
        [harness.send(3, acknowledged)]
    );
    assert_eq!(harness.node.view().membership(), Membership::Removed);
}

#[test]
fn removed_peer_refuses_second_votes_and_shorter_logs() {
    let mut harness = removed();
    let same_term = RaftMessage {
        index: 1,
        log_term: 1,
        ..from_third(RaftKind::RequestVote, 1)
    };
    let behind = RaftMessage {
        index: 0,
        log_term: 0,
        ..from_third(RaftKind::RequestPreVote, 2)
    };
    for request in [same_term, behind] {
        let effects = harness.receive(3, Message::Raft(request));
        let is_refusal = |effect: &Effect| {
            matches!(effect, Effect::Send { envelope, .. }
                if matches!(&envelope.message, Message::Raft(answer) if answer.reject))
        };
        assert!(
            effects.len() == 1 && effects.iter().all(is_refusal),
            "{effects:?}"
        );
    }
}

#[test]
fn removed_peer_never_campaigns_and_forgets_a_silent_leader() {
    let mut harness = removed();
    let heartbeat = RaftMessage {
        index: 0,
        log_term: 0,
        ..from_third(RaftKind::Heartbeat, 2)
    };
    let batch = persist(&harness.receive(3, Message::Raft(heartbeat))).id;
    let _ = harness.handle(Event::Persisted { batch });
    let request = || Message::Raft(from_third(RaftKind::RequestPreVote, 3));
    assert_eq!(
        harness.receive(3, request()),
        [],
        "its leader was just heard from"
    );
    for _ in 0..200 {
        harness.wait(Duration::from_millis(100));
        for effect in harness.handle(Event::TimedOut) {
            let speaks = matches!(&effect, Effect::Send { envelope, .. }
                if matches!(envelope.message, Message::Raft(_)));
            assert!(!speaks, "{effect:?}");
        }
    }
    let hasty = Message::Raft(from_third(RaftKind::TimeoutNow, 2));
    assert_eq!(harness.receive(3, hasty), []);
    let granted = answer(RaftKind::RequestPreVoteResponse, 3);
    assert_eq!(harness.receive(3, request()), [harness.send(3, granted)]);
}
