//! A sole voter, which wins any election at once by its own vote.

use std::time::Duration;

use super::harness::{Harness, append_change, persist, raft_message};
use crate::*;

/// Returns peer 1 of two after peer 2, its leader, was removed, and the batch of one further entry, which is
/// not durable yet.
fn left_behind() -> (Harness, BatchId) {
    let mut harness = Harness::new(2);
    let append = append_change(MembersStep::Remove { raft_id: RaftId(2) });
    let batch = persist(&harness.receive(2, Message::Raft(append))).id;
    let _ = harness.handle(Event::Persisted { batch });
    let entry = LogEntry {
        index: 2,
        term: 1,
        payload: Payload::Commands(Vec::new()),
    };
    let append = RaftMessage {
        index: 1,
        log_term: 1,
        entries: vec![entry],
        commit: 1,
        ..raft_message(RaftKind::Append, 1)
    };
    let batch = persist(&harness.receive(2, Message::Raft(append))).id;
    assert_eq!(harness.node.view().members().voters, [RaftId(1)].into());
    (harness, batch)
}

#[test]
fn sole_voter_leads_without_a_timeout() {
    let mut harness = Harness::new(1);
    for _ in 0..2 {
        let effects = harness.handle(Event::TimedOut);
        for effect in effects {
            if let Effect::Persist(Batch { id, sync: true, .. }) = effect {
                let _ = harness.handle(Event::Persisted { batch: id });
            }
        }
    }
    assert!(harness.node.view().is_leader());
}

/// Raft panicked because it assumes that a leader's log is durable (simulated seed 1242).
#[test]
fn sole_voter_campaigns_only_when_its_log_is_durable() {
    let (mut harness, batch) = left_behind();
    for _ in 0..100 {
        harness.wait(Duration::from_millis(100));
        let effects = harness.handle(Event::TimedOut);
        let writes = |effect: &Effect| matches!(effect, Effect::Persist(batch) if batch.sync);
        assert!(!effects.iter().any(writes), "{effects:?}");
        assert_eq!(harness.node.view().term(), 1);
    }
    let _ = harness.handle(Event::Persisted { batch });
    harness.lead();
}

/// The old leader transfers its leadership.
#[test]
fn sole_voter_accepts_leadership_only_when_its_log_is_durable() {
    let (mut harness, batch) = left_behind();
    let hurry = raft_message(RaftKind::TimeoutNow, 1);
    let _ = harness.receive(2, Message::Raft(hurry.clone()));
    assert_eq!(harness.node.view().term(), 1);
    let _ = harness.handle(Event::Persisted { batch });
    let _ = harness.receive(2, Message::Raft(hurry));
    assert_eq!(harness.node.view().term(), 2);
}
