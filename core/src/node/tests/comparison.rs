//! Comparison of the local state with the IPFS node's pins, effect by effect.

use std::time::Duration;

use super::harness::{Harness, persist, raft_message};
use crate::codec::encode;
use crate::testing::{cid, options, peer};
use crate::*;

const EVERYWHERE: Replicas = Replicas::Everywhere;

/// Returns a sole leader with one pin, made by operation 1.
fn pinned(interval: Duration) -> Harness {
    let mut harness = Harness::comparing(1, interval);
    harness.lead();
    let pin = Request::Pin {
        cid: cid(1),
        options: options(EVERYWHERE),
        owner: None,
    };
    let batch = persist(&harness.request(1, pin)).id;
    let _ = harness.handle(Event::Persisted { batch });
    finish(&mut harness, 1);
    assert_eq!(harness.disk.locals[&cid(1)].phase, Phase::Pinned);
    harness
}

fn finish(harness: &mut Harness, op: u64) -> Vec<Effect> {
    let op = OpId(op);
    harness.handle(Event::IpfsFinished { op, outcome: Ok(()) })
}

fn compared(harness: &mut Harness, op: u64) -> Vec<Effect> {
    let op = OpId(op);
    harness.handle(Event::IpfsCompared { op, outcome: Ok(()) })
}

fn compares(op: u64, cid: Option<Cid>) -> Effect {
    Effect::CompareIpfs { op: OpId(op), cid }
}

fn reply(ticket: u64, reply: Result<Reply, Refusal>) -> Effect {
    let ticket = Ticket(ticket);
    Effect::Reply { ticket, reply }
}

fn report_missing(harness: &mut Harness, op: u64, since: Timestamp) -> Vec<Effect> {
    let missing = vec![Missing { cid: cid(1), since }];
    harness.handle(Event::IpfsLacks {
        op: OpId(op),
        missing,
    })
}

#[test]
fn sync_pins_missing_cids_again_and_counts_them() {
    let mut harness = pinned(Duration::ZERO);
    assert_eq!(
        harness.request(2, Request::Sync { cid: None }),
        [compares(2, None)]
    );
    harness.wait(Duration::from_secs(1));
    let since = harness.disk.locals[&cid(1)].since;
    let effects = report_missing(&mut harness, 2, since);
    let local = &harness.disk.locals[&cid(1)];
    assert_eq!(
        (local.phase, local.attempts, local.since),
        (Phase::Lost, 0, harness.now.wall)
    );
    let [Effect::Persist(batch), Effect::StartIpfs { op: OpId(3), action }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert!(!batch.sync, "no message depends on the write");
    assert!(
        matches!(action, IpfsAction::Pin { cid: what, .. } if *what == cid(1)),
        "{action:?}"
    );
    assert_eq!(compared(&mut harness, 2), [reply(2, Ok(Reply::Synced(1)))]);
    finish(&mut harness, 3);
    let local = &harness.disk.locals[&cid(1)];
    assert_eq!((local.phase, local.error.as_str()), (Phase::Pinned, ""));
    assert!(harness.disk.queue.is_empty());
}

#[test]
fn outdated_report_of_missing_pins_is_ignored() {
    let mut harness = pinned(Duration::ZERO);
    let since = harness.disk.locals[&cid(1)].since;
    assert_eq!(
        harness.request(2, Request::Sync { cid: Some(cid(1)) }),
        [compares(2, Some(cid(1)))]
    );
    assert_eq!(report_missing(&mut harness, 2, Timestamp(since.0 - 1)), []);
    assert_eq!(report_missing(&mut harness, 9, since), [], "no such comparison");
    harness.wait(Duration::from_secs(1));
    let batch = persist(&harness.request(
        3,
        Request::Unpin {
            cid: cid(1),
            owner: None,
        },
    ))
    .id;
    let _ = harness.handle(Event::Persisted { batch });
    assert_eq!(harness.disk.locals[&cid(1)].phase, Phase::UnpinQueued);
    assert_eq!(report_missing(&mut harness, 2, since), [], "it is being unpinned");
    assert_eq!(compared(&mut harness, 2), [reply(2, Ok(Reply::Synced(0)))]);
}

#[test]
fn lost_pin_that_fails_again_is_retried() {
    let mut harness = pinned(Duration::ZERO);
    let _ = harness.request(2, Request::Sync { cid: None });
    let since = harness.disk.locals[&cid(1)].since;
    let _ = report_missing(&mut harness, 2, since);
    let outcome = Err(IpfsError::Failed("nobody has it".to_owned()));
    let _ = harness.handle(Event::IpfsFinished { op: OpId(3), outcome });
    let local = &harness.disk.locals[&cid(1)];
    assert_eq!(
        (local.phase, local.attempts, local.error.as_str()),
        (Phase::PinError, 1, "nobody has it")
    );
    assert!(local.queued.is_some());
}

#[test]
fn periodic_comparison_pauses_in_proportion_to_its_duration() {
    let minute = Duration::from_secs(60);
    let mut harness = pinned(10 * minute);
    let begins = |harness: &mut Harness| harness.handle(Event::TimedOut).contains(&compares(2, None));
    assert!(!begins(&mut harness));
    harness.wait(minute);
    assert!(begins(&mut harness), "soon after the start");
    harness.wait(2 * minute - Duration::from_secs(1));
    let _ = harness.handle(Event::IpfsProgressed { op: OpId(2) });
    assert_eq!(compared(&mut harness, 2), []);
    let again = |harness: &mut Harness| harness.handle(Event::TimedOut).contains(&compares(3, None));
    harness.wait(18 * minute);
    assert!(!again(&mut harness), "pauses ten times as long as the comparison");
    harness.wait(2 * minute);
    assert!(again(&mut harness));
}

#[test]
fn sync_waits_for_a_comparison_started_after_the_request() {
    let mut harness = pinned(Duration::ZERO);
    assert_eq!(
        harness.request(2, Request::Sync { cid: None }),
        [compares(2, None)]
    );
    for ticket in 3..5 {
        assert_eq!(harness.request(ticket, Request::Sync { cid: None }), []);
    }
    assert_eq!(
        compared(&mut harness, 2),
        [reply(2, Ok(Reply::Synced(0))), compares(3, None)]
    );
    let outcome = Err(IpfsError::Failed("connection refused".to_owned()));
    let effects = harness.handle(Event::IpfsCompared { op: OpId(3), outcome });
    let refused = || Err(Refusal::IpfsFailed("connection refused".to_owned()));
    assert_eq!(effects, [reply(3, refused()), reply(4, refused())]);
}

#[test]
fn stuck_comparison_is_cancelled_after_its_clients_are_answered() {
    let mut harness = pinned(Duration::ZERO);
    let _ = harness.request(2, Request::Sync { cid: None });
    harness.wait(Duration::from_secs(15));
    let effects = harness.handle(Event::TimedOut);
    assert!(effects.contains(&reply(2, Err(Refusal::Unknown))), "{effects:?}");
    harness.wait(Duration::from_secs(105));
    let effects = harness.handle(Event::TimedOut);
    assert!(
        effects.contains(&Effect::CancelIpfs { op: OpId(2) }),
        "{effects:?}"
    );
    let outcome = Err(IpfsError::Cancelled);
    assert_eq!(harness.handle(Event::IpfsCompared { op: OpId(2), outcome }), []);
}

#[test]
fn sync_requests_beyond_the_limit_are_refused() {
    let mut harness = pinned(Duration::ZERO);
    for ticket in 0..64 {
        let _ = harness.request(ticket, Request::Sync { cid: Some(cid(1)) });
    }
    assert_eq!(
        harness.request(64, Request::Sync { cid: None }),
        [reply(64, Err(Refusal::Busy))]
    );
}

/// Simulates a power cut that lost the unsynced local state of entry 1, but not the entry.
#[test]
fn unapplied_pins_are_unpinned_after_a_snapshot() {
    let mut harness = Harness::new(3);
    let pin = Pin {
        cid: cid(1),
        pin_type: PinType::Data,
        allocations: Vec::new(),
        reference: None,
        options: options(EVERYWHERE),
        timestamp: Timestamp(1),
        version: 0,
    };
    let proposal = |seq, cid: Cid, replicas, allocations: Vec<PeerId>| Proposal {
        id: ProposalId {
            origin: RaftId(2),
            boot: 1,
            seq,
        },
        command: Command::Pin {
            pin: Pin {
                cid,
                allocations,
                options: options(replicas),
                ..pin.clone()
            },
            precondition: Precondition::Any,
        },
    };
    let proposals = vec![
        proposal(1, cid(1), EVERYWHERE, Vec::new()),
        proposal(
            2,
            cid(2),
            Replicas::Range { min: 1, max: 2 },
            vec![peer(2), peer(3)],
        ),
    ];
    let entry = LogEntry {
        index: 1,
        term: 1,
        payload: Payload::Commands(encode(&proposals)),
    };
    let append = RaftMessage {
        entries: vec![entry],
        ..raft_message(RaftKind::Append, 1)
    };
    let batch = persist(&harness.receive(2, Message::Raft(append))).id;
    let _ = harness.handle(Event::Persisted { batch });
    harness.restart();

    let _ = harness.install(std::collections::BTreeMap::new());
    let locals: Vec<&Cid> = harness.disk.locals.keys().collect();
    assert_eq!(locals, [&cid(1)], "the other pin is allocated to other peers");
    let mut unpinned = false;
    for _ in 0..4 {
        harness.wait(Duration::from_millis(1));
        let effects = harness.handle(Event::TimedOut);
        let unpin = IpfsAction::Unpin { cid: cid(1) };
        unpinned |= effects
            .iter()
            .any(|effect| matches!(effect, Effect::StartIpfs { action, .. } if *action == unpin));
    }
    assert!(unpinned, "{:?}", harness.disk.locals);
}
