//! Node behaviour, effect by effect.

use std::time::Duration;

use super::harness::{Harness, append_change, persist, raft_message};
use crate::testing::{cid, metrics, options, peer};
use crate::*;

#[test]
fn vote_is_sent_only_when_durable() {
    let mut harness = Harness::new(3);
    let effects = harness.receive(2, Message::Raft(raft_message(RaftKind::RequestVote, 1)));
    let hard_state = HardState {
        identity: Identity::Known(RaftId(1)),
        term: 1,
        vote: Some(RaftId(2)),
        commit: 0,
    };
    let batch = Batch {
        id: BatchId(1),
        ops: vec![StoreOp::SetHardState { hard_state }],
        sync: true,
    };
    assert_eq!(effects, [Effect::Persist(batch)]);
    let vote = RaftMessage {
        from: RaftId(1),
        to: RaftId(2),
        ..raft_message(RaftKind::RequestVoteResponse, 1)
    };
    assert_eq!(
        harness.handle(Event::Persisted { batch: BatchId(1) }),
        [harness.send(2, vote)]
    );
}

#[test]
fn entries_are_acknowledged_only_when_durable() {
    let mut harness = Harness::new(3);
    let entry = LogEntry {
        index: 1,
        term: 1,
        payload: Payload::Commands(Vec::new()),
    };
    let append = RaftMessage {
        entries: vec![entry.clone()],
        ..raft_message(RaftKind::Append, 1)
    };
    let effects = harness.receive(2, Message::Raft(append));
    let batch = persist(&effects);
    assert!(batch.sync);
    assert!(batch.ops.contains(&StoreOp::Append { entries: vec![entry] }));
    assert_eq!(effects.len(), 1, "nothing leaves before the write: {effects:?}");
    let effects = harness.handle(Event::Persisted { batch: batch.id });
    let response = RaftMessage {
        from: RaftId(1),
        to: RaftId(2),
        index: 1,
        ..raft_message(RaftKind::AppendResponse, 1)
    };
    assert_eq!(effects, [harness.send(2, response)]);
}

/// One of two voters was removed and knew it, but the other lost the change in a power cut, and could never
/// get the two votes that it needed (simulated seed 84354).
#[test]
fn no_message_leaves_before_a_membership_change_is_durable() {
    let mut harness = Harness::new(3);
    let append = append_change(MembersStep::Remove { raft_id: RaftId(3) });
    let batch = persist(&harness.receive(2, Message::Raft(append))).id;
    let _ = harness.handle(Event::Persisted { batch });
    let agreed = RaftMessage {
        commit: 1,
        ..raft_message(RaftKind::Heartbeat, 1)
    };
    let effects = harness.receive(2, Message::Raft(agreed));
    let batch = persist(&effects);
    let records = |op: &StoreOp| matches!(op, StoreOp::SetMembers { members } if members.voters.len() == 2);
    assert!(batch.sync && batch.ops.iter().any(records), "{batch:?}");
    assert_eq!(effects.len(), 1, "nothing leaves before the write: {effects:?}");
    assert_eq!(
        harness.receive(3, Message::Hello),
        [],
        "the removed peer is not notified either"
    );
    let response = RaftMessage {
        from: RaftId(1),
        to: RaftId(2),
        commit: 1,
        ..raft_message(RaftKind::HeartbeatResponse, 1)
    };
    let effects = harness.handle(Event::Persisted { batch: batch.id });
    assert_eq!(effects, [harness.send(2, response)]);
    let told = harness.receive(3, Message::Hello);
    let is_told = |effect: &Effect| {
        matches!(effect, Effect::Send { to, envelope }
            if *to == peer(3) && envelope.message == Message::NotMember { as_of: 1 })
    };
    assert!(told.iter().any(is_told), "{told:?}");
}

#[test]
fn invalid_raft_messages_are_dropped_and_counted() {
    let mut harness = Harness::new(3);
    let entry = |index| LogEntry {
        index,
        term: 1,
        payload: Payload::Commands(Vec::new()),
    };
    let gap = vec![entry(1), entry(3)];
    let unreadable = vec![LogEntry {
        payload: Payload::Commands(vec![255; 9]),
        ..entry(1)
    }];
    let nonsense = [
        // Commits more than was acknowledged: the sender remembers an earlier incarnation.
        RaftMessage {
            commit: 6,
            ..raft_message(RaftKind::Heartbeat, 1)
        },
        RaftMessage {
            index: 9,
            ..raft_message(RaftKind::AppendResponse, 1)
        },
        RaftMessage {
            entries: gap,
            ..raft_message(RaftKind::Append, 1)
        },
        RaftMessage {
            entries: unreadable,
            ..raft_message(RaftKind::Append, 1)
        },
        RaftMessage {
            from: RaftId(3),
            ..raft_message(RaftKind::Heartbeat, 1)
        },
        RaftMessage {
            index: u64::MAX,
            entries: vec![entry(0)],
            ..raft_message(RaftKind::Append, 1)
        },
        raft_message(RaftKind::Heartbeat, 0),
        raft_message(RaftKind::ReadIndex, 0),
    ];
    for (count, message) in (1..).zip(nonsense) {
        assert_eq!(
            harness.receive(2, Message::Raft(message.clone())),
            [],
            "{message:?}"
        );
        assert_eq!(harness.node.view().counters().invalid, count, "{message:?}");
    }
}

#[test]
fn message_for_another_raft_id_is_answered_with_hello() {
    let mut harness = Harness::new(3);
    let message = RaftMessage {
        to: RaftId(3),
        ..raft_message(RaftKind::Heartbeat, 1)
    };
    let envelope = Envelope {
        cluster: harness.members.cluster,
        incarnation: Incarnation(1),
        addressee: None,
        version: VERSION,
        message: Message::Hello,
    };
    let hello = Effect::Send {
        to: peer(2),
        envelope,
    };
    assert_eq!(harness.receive(2, Message::Raft(message.clone())), [hello]);
    assert_eq!(
        harness.receive(2, Message::Raft(message)),
        [],
        "at most one per second"
    );
}

#[test]
fn message_for_a_lost_incarnation_gets_no_vote() {
    let mut harness = Harness::new(3);
    let addressed = |incarnation, to, kind| Envelope {
        cluster: Members::initial((1..=3).map(peer)).cluster,
        incarnation: Incarnation(2),
        addressee: Some(Incarnation(incarnation)),
        version: VERSION,
        message: Message::Raft(RaftMessage {
            to: RaftId(to),
            ..raft_message(kind, 5)
        }),
    };
    let received = |envelope| Event::Received {
        from: peer(2),
        envelope,
    };
    let effects = harness.handle(received(addressed(9, 1, RaftKind::RequestVote)));
    let hard_state = |identity| StoreOp::SetHardState {
        hard_state: HardState {
            identity,
            ..HardState::default()
        },
    };
    let batch = |id, identity| {
        Effect::Persist(Batch {
            id: BatchId(id),
            ops: vec![hard_state(identity)],
            sync: true,
        })
    };
    let hello = Effect::Send {
        to: peer(2),
        envelope: Envelope {
            incarnation: Incarnation(1),
            addressee: None,
            version: VERSION,
            message: Message::Hello,
            ..addressed(9, 1, RaftKind::Heartbeat)
        },
    };
    assert_eq!(effects, [batch(1, Identity::Unknown), hello]);
    assert_eq!(harness.node.view().membership(), Membership::Joining);
    // It has no Raft id now.
    let effects = harness.receive(2, Message::Raft(raft_message(RaftKind::RequestVote, 6)));
    assert_eq!(effects, []);
    // A member assigns a new Raft id to this incarnation.
    let effects = harness.handle(received(addressed(1, 4, RaftKind::Heartbeat)));
    let Some(Effect::Persist(Batch { ops, .. })) = effects.first() else {
        panic!("{effects:?} instead of a batch");
    };
    assert_eq!(ops[0], hard_state(Identity::Known(RaftId(4))));
    // A lower Raft id is not adopted.
    let effects = harness.handle(received(addressed(1, 3, RaftKind::Heartbeat)));
    assert_eq!(effects, []);
}

#[test]
fn messages_of_another_cluster_are_dropped() {
    let mut harness = Harness::new(3);
    let message = Message::Raft(raft_message(RaftKind::RequestVote, 1));
    let envelope = Envelope {
        cluster: ClusterId([9; 16]),
        incarnation: Incarnation(2),
        addressee: None,
        version: VERSION,
        message,
    };
    assert_eq!(
        harness.handle(Event::Received {
            from: peer(2),
            envelope
        }),
        []
    );
    assert_eq!(harness.node.view().counters().from_other_clusters, 1);
}

#[test]
fn pin_is_answered_and_started_when_applied() {
    let mut harness = Harness::new(1);
    harness.lead();
    let _ = harness.handle(Event::Measured { metrics: metrics(10) });
    let pin = Request::Pin {
        cid: cid(1),
        options: options(Replicas::Everywhere),
        owner: None,
    };
    let effects = harness.request(1, pin.clone());
    assert_eq!(effects.len(), 1, "only the write: {effects:?}");
    let batch = persist(&effects).id;
    // Proposals that arrive while the disk is busy share the next entry.
    assert_eq!(
        harness.request(
            2,
            Request::Pin {
                cid: cid(2),
                options: options(Replicas::Everywhere),
                owner: None,
            }
        ),
        []
    );
    assert_eq!(
        harness.request(
            3,
            Request::Unpin {
                cid: cid(3),
                owner: None
            }
        ),
        []
    );
    let effects = harness.handle(Event::Persisted { batch });
    let appended = |op: &StoreOp| matches!(op, StoreOp::Append { entries } if entries.len() == 1);
    assert!(
        persist(&effects).ops.iter().any(appended),
        "both in one entry: {effects:?}"
    );
    assert!(matches!(
        &effects[1],
        Effect::Reply {
            ticket: Ticket(1),
            reply: Ok(Reply::Pinned(_))
        }
    ));
    assert!(
        matches!(&effects[2], Effect::StartIpfs { op: OpId(1), .. }),
        "{effects:?}"
    );
    assert_eq!(effects.len(), 3);
}

#[test]
fn unpin_cancels_the_running_pin() {
    let mut harness = Harness::new(1);
    harness.lead();
    let pin = Request::Pin {
        cid: cid(1),
        options: options(Replicas::Everywhere),
        owner: None,
    };
    let batch = persist(&harness.request(1, pin)).id;
    let _ = harness.handle(Event::Persisted { batch });
    let batch = persist(&harness.request(
        2,
        Request::Unpin {
            cid: cid(1),
            owner: None,
        },
    ))
    .id;
    let effects = harness.handle(Event::Persisted { batch });
    assert!(
        effects.contains(&Effect::CancelIpfs { op: OpId(1) }),
        "{effects:?}"
    );
    let cancelled = Err(IpfsError::Cancelled);
    let effects = harness.handle(Event::IpfsFinished {
        op: OpId(1),
        outcome: cancelled,
    });
    let unpin = IpfsAction::Unpin { cid: cid(1) };
    assert_eq!(
        effects,
        [Effect::StartIpfs {
            op: OpId(2),
            action: unpin
        }]
    );
    let _ = harness.handle(Event::IpfsFinished {
        op: OpId(2),
        outcome: Ok(()),
    });
    assert!(harness.disk.locals.is_empty() && harness.disk.queue.is_empty());
}

#[test]
fn failed_pin_is_retried_with_growing_pauses() {
    let mut harness = Harness::new(1);
    harness.lead();
    let pin = Request::Pin {
        cid: cid(1),
        options: options(Replicas::Everywhere),
        owner: None,
    };
    let batch = persist(&harness.request(1, pin)).id;
    let _ = harness.handle(Event::Persisted { batch });
    let mut last = Duration::ZERO;
    for attempt in 1..5 {
        let outcome = Err(IpfsError::Failed("no such block".to_owned()));
        let _ = harness.handle(Event::IpfsFinished {
            op: OpId(attempt),
            outcome,
        });
        let local = &harness.disk.locals[&cid(1)];
        assert_eq!(
            (local.phase, u64::from(local.attempts)),
            (Phase::PinError, attempt)
        );
        assert_eq!(local.error, "no such block");
        let due = local.queued.as_ref().expect("is queued").at;
        let pause = Duration::from_nanos(due - harness.now.wall.0);
        assert!(pause > last, "{pause:?} after {last:?}");
        last = pause;
        harness.wait(pause);
        let effects = harness.handle(Event::TimedOut);
        let started = |effect: &Effect| matches!(effect, Effect::StartIpfs { op, .. } if op.0 == attempt + 1);
        assert!(effects.iter().any(started), "{effects:?}");
    }
}

/// Requests one pin more than the limit on running operations.
fn pin_eleven(harness: &mut Harness) {
    for number in 1..=11 {
        let pin = Request::Pin {
            cid: cid(number),
            options: options(Replicas::Everywhere),
            owner: None,
        };
        let effects = harness.request(u64::from(number), pin);
        if let Some(Effect::Persist(batch)) = effects.first() {
            let _ = harness.handle(Event::Persisted { batch: batch.id });
        }
    }
}

#[test]
fn stuck_pin_is_cancelled_and_frees_its_slot() {
    let mut harness = Harness::new(1);
    harness.lead();
    pin_eleven(&mut harness);
    assert_eq!(harness.node.view().running().count(), 10);
    for _ in 0..12 {
        harness.wait(Duration::from_secs(10));
        let _ = harness.handle(Event::IpfsProgressed { op: OpId(2) });
        let _ = harness.handle(Event::TimedOut);
    }
    let outcome = Err(IpfsError::Cancelled);
    let effects = harness.handle(Event::IpfsFinished { op: OpId(1), outcome });
    assert_eq!(harness.disk.locals[&cid(1)].phase, Phase::PinError);
    let eleventh = |effect: &Effect| {
        let Effect::StartIpfs { action, .. } = effect else {
            return false;
        };
        matches!(action, IpfsAction::Pin { cid: what, .. } if *what == cid(11))
    };
    assert!(effects.iter().any(eleventh), "{effects:?}");
    let _ = harness.handle(Event::IpfsFinished {
        op: OpId(2),
        outcome: Ok(()),
    });
    assert_eq!(
        harness.disk.locals[&cid(2)].phase,
        Phase::Pinned,
        "progress resets the timeout"
    );
}

#[test]
fn pin_without_progress_frees_its_slot_for_waiting_pins() {
    let mut harness = Harness::new(1);
    harness.lead();
    pin_eleven(&mut harness);
    harness.wait(Duration::from_secs(3));
    let _ = harness.handle(Event::IpfsProgressed { op: OpId(2) });
    harness.wait(Duration::from_secs(3));
    let effects = harness.handle(Event::TimedOut);
    assert!(
        effects.contains(&Effect::CancelIpfs { op: OpId(1) }),
        "{effects:?}"
    );
    assert!(
        !effects.contains(&Effect::CancelIpfs { op: OpId(2) }),
        "progress resets the timeout"
    );
    let outcome = Err(IpfsError::Cancelled);
    let effects = harness.handle(Event::IpfsFinished { op: OpId(1), outcome });
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::StartIpfs { .. }))
    );
    let local = &harness.disk.locals[&cid(1)];
    assert_eq!((local.phase, local.attempts), (Phase::PinError, 1));
    assert_eq!(local.error, "no progress for 6 s");
}

/// The recorded depth was the one requested first (simulated seed 50165).
#[test]
fn depth_changed_while_queued_is_recorded_as_pinned() {
    let mut harness = Harness::new(1);
    harness.lead();
    let pin = |number, mode| {
        let mut options = options(Replicas::Everywhere);
        options.mode = mode;
        let cid = cid(number);
        Request::Pin {
            cid,
            options,
            owner: None,
        }
    };
    let durable = |harness: &mut Harness, effects: &[Effect]| {
        let batch = persist(effects).id;
        harness.handle(Event::Persisted { batch })
    };
    for number in 1..=11 {
        let effects = harness.request(u64::from(number), pin(number, Mode::Recursive));
        let _ = durable(&mut harness, &effects);
    }
    // Requests that arrive while the disk is busy share the next entry, and its effects.
    let effects = harness.request(12, pin(12, Mode::Recursive));
    let _ = harness.request(
        13,
        Request::Unpin {
            cid: cid(11),
            owner: None,
        },
    );
    let _ = harness.request(14, pin(11, Mode::Direct));
    let effects = durable(&mut harness, &effects);
    // The pin was decided from the one that is removed, and is decided again.
    let effects = durable(&mut harness, &effects);
    let _ = durable(&mut harness, &effects);
    let done = |op| Event::IpfsFinished {
        op: OpId(op),
        outcome: Ok(()),
    };
    for op in [1, 2, 11, 12] {
        let _ = harness.handle(done(op));
    }
    let local = &harness.disk.locals[&cid(11)];
    assert_eq!((local.phase, local.mode), (Phase::Pinned, Mode::Direct));
}

#[test]
fn imported_pin_keeps_its_fields_and_is_allocated_to_members() {
    let mut harness = Harness::new(1);
    harness.lead();
    let _ = harness.handle(Event::Measured { metrics: metrics(10) });
    let brought = Pin {
        cid: cid(1),
        pin_type: PinType::Meta,
        allocations: vec![peer(8), peer(9)],
        reference: Some(cid(2)),
        options: PinOptions {
            pin_update: Some(cid(3)),
            user_allocations: vec![peer(8)],
            ..options(Replicas::Range { min: 1, max: 2 })
        },
        timestamp: Timestamp(77),
        version: 5,
    };
    let mut import = |ticket, pin: &Pin| {
        let effects = harness.request(
            ticket,
            Request::Import {
                pin: pin.clone(),
                owner: None,
            },
        );
        let batch = persist(&effects).id;
        let effects = harness.handle(Event::Persisted { batch });
        let found = effects.iter().find_map(|effect| {
            let Effect::Reply { reply, .. } = effect else {
                return None;
            };
            let Ok(Reply::Pinned(pin)) = reply else {
                return None;
            };
            Some(pin.clone())
        });
        found.expect("it is pinned")
    };
    // `cid(3)` is not pinned here; an import must not be refused for that.
    let first = import(1, &brought);
    let expected = Pin {
        allocations: vec![peer(1)],
        version: first.version,
        ..brought.clone()
    };
    assert_eq!(first, expected);
    assert_eq!(import(2, &brought), first, "already pinned");
    let timeless = Pin {
        cid: cid(4),
        timestamp: Timestamp(0),
        ..brought
    };
    assert!(import(3, &timeless).timestamp > Timestamp(77), "as of now");
}
