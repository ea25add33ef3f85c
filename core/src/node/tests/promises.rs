//! State that a peer must keep across restarts, and answers that it must not give from memory.

use super::harness::{Harness, persist, raft_message};
use crate::testing::{cid, options, peer};
use crate::*;

fn vote_requested_by(harness: &mut Harness, candidate: u8) -> Vec<Effect> {
    let request = RaftMessage {
        from: RaftId(u64::from(candidate)),
        ..raft_message(RaftKind::RequestVote, 1)
    };
    harness.receive(candidate, Message::Raft(request))
}

fn pin(mode: Mode) -> Request {
    Request::Pin {
        cid: cid(1),
        options: PinOptions {
            mode,
            ..options(Replicas::Everywhere)
        },
        owner: None,
    }
}

/// Commits a request at the only peer of a cluster, and returns the effects.
fn commit(harness: &mut Harness, ticket: u64, request: Request) -> Vec<Effect> {
    let effects = harness.request(ticket, request);
    let batch = persist(&effects).id;
    harness.handle(Event::Persisted { batch })
}

#[test]
fn vote_survives_a_restart() {
    let mut harness = Harness::new(3);
    let batch = persist(&vote_requested_by(&mut harness, 2)).id;
    let effects = harness.handle(Event::Persisted { batch });
    assert_eq!(effects.len(), 1, "the vote for peer 2: {effects:?}");
    harness.restart();
    let effects = vote_requested_by(&mut harness, 3);
    let rejects = |effect: &Effect| {
        matches!(effect, Effect::Send { to, envelope: Envelope { message: Message::Raft(answer), .. } }
            if *to == peer(3) && answer.kind == RaftKind::RequestVoteResponse && answer.reject)
    };
    assert!(effects.iter().any(rejects), "{effects:?}");
}

#[test]
fn read_at_a_follower_asks_the_leader_first() {
    let mut harness = Harness::new(3);
    let effects = harness.receive(2, Message::Raft(raft_message(RaftKind::Heartbeat, 1)));
    let batch = persist(&effects).id;
    let _ = harness.handle(Event::Persisted { batch });
    let effects = harness.request(1, Request::Barrier);
    let [
        Effect::Send {
            to,
            envelope:
                Envelope {
                    message: Message::Raft(read),
                    ..
                },
        },
    ] = effects.as_slice()
    else {
        panic!("{effects:?} instead of one message");
    };
    assert_eq!((to, read.kind), (&peer(2), RaftKind::ReadIndex));
}

#[test]
fn applied_index_is_written_with_the_changes_that_it_covers() {
    let mut harness = Harness::new(1);
    harness.lead();
    let effects = commit(&mut harness, 1, pin(Mode::Recursive));
    let batch = persist(&effects);
    let version = harness.disk.pins[&cid(1)].version;
    let is_covered = |applied: &Applied| applied.index == version && applied.pins == 1;
    let covers = |op: &StoreOp| matches!(op, StoreOp::SetApplied { applied } if is_covered(applied));
    assert!(batch.ops.iter().any(covers), "{batch:?}");
}

#[test]
fn pin_whose_mode_changes_is_pinned_again() {
    let mut harness = Harness::new(1);
    harness.lead();
    let _ = commit(&mut harness, 1, pin(Mode::Direct));
    let (op, outcome) = (OpId(1), Ok(()));
    let _ = harness.handle(Event::IpfsFinished { op, outcome });
    assert_eq!(harness.disk.locals[&cid(1)].phase, Phase::Pinned);
    let effects = commit(&mut harness, 2, pin(Mode::Recursive));
    let starts = |effect: &Effect| {
        matches!(
            effect,
            Effect::StartIpfs {
                action: IpfsAction::Pin {
                    mode: Mode::Recursive,
                    ..
                },
                ..
            }
        )
    };
    assert!(effects.iter().any(starts), "{effects:?}");
}

/// Follows peer 2, asks for a read, and returns the question to the leader.
fn read_at_a_follower(harness: &mut Harness, ticket: u64) -> RaftMessage {
    let effects = harness.receive(2, Message::Raft(raft_message(RaftKind::Heartbeat, 1)));
    if let Some(Effect::Persist(batch)) = effects.first() {
        let batch = batch.id;
        let _ = harness.handle(Event::Persisted { batch });
    }
    let effects = harness.request(ticket, Request::Barrier);
    let asked = effects.into_iter().find_map(|effect| {
        if let Effect::Send { envelope, .. } = effect
            && let Message::Raft(message) = envelope.message
        {
            Some(message)
        } else {
            None
        }
    });
    asked.expect("the leader is asked")
}

#[test]
fn answer_to_a_read_of_an_earlier_process_is_ignored() {
    let mut harness = Harness::new(3);
    let early = read_at_a_follower(&mut harness, 1);
    harness.restart();
    let late = read_at_a_follower(&mut harness, 2);
    let answer = |asked: RaftMessage| {
        Message::Raft(RaftMessage {
            entries: asked.entries,
            ..raft_message(RaftKind::ReadIndexResp, 1)
        })
    };
    let replies = |effects: Vec<Effect>| {
        let is_reply = |effect: &Effect| matches!(effect, Effect::Reply { .. });
        effects.iter().filter(|effect| is_reply(effect)).count()
    };
    assert_eq!(replies(harness.receive(2, answer(early))), 0);
    assert_eq!(replies(harness.receive(2, answer(late))), 1);
}
