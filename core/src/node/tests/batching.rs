//! Several events in one call.

use super::harness::{Harness, persist, raft_message};
use crate::testing::{cid, options, peer};
use crate::*;

fn pin(number: u8) -> Event {
    let request = Request::Pin {
        cid: cid(number),
        options: options(Replicas::Everywhere),
        owner: None,
    };
    Event::Requested {
        ticket: Ticket(u64::from(number)),
        request,
    }
}

#[test]
fn leader_appends_requests_of_one_call_as_one_entry() {
    let mut harness = Harness::new(1);
    harness.lead();
    let effects = harness.handle_all((1..=3).map(pin));
    assert_eq!(effects.len(), 1, "only the write: {effects:?}");
    let batch = persist(&effects);
    assert!(batch.sync);
    let entries = batch.ops.iter().find_map(|op| {
        if let StoreOp::Append { entries } = op {
            Some(entries.as_slice())
        } else {
            None
        }
    });
    let [
        LogEntry {
            payload: Payload::Commands(data),
            ..
        },
    ] = entries.unwrap()
    else {
        panic!("{entries:?} instead of one entry with commands");
    };
    assert_eq!(decode::<Vec<Proposal>>(data).unwrap().len(), 3);

    let batch = batch.id;
    let effects = harness.handle(Event::Persisted { batch });
    let replies = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Reply { .. }));
    assert_eq!(replies.count(), 3);
    // The ends of all operations share a batch, too.
    let ended = (1..=3).map(|op| Event::IpfsFinished {
        op: OpId(op),
        outcome: Ok(()),
    });
    let effects = harness.handle_all(ended);
    assert_eq!(effects.len(), 1, "only the write: {effects:?}");
    assert!(!persist(&effects).sync);
    let pinned = |number| harness.disk.locals[&cid(number)].phase;
    assert_eq!([1, 2, 3].map(pinned), [Phase::Pinned; 3]);
    assert!(harness.disk.queue.is_empty());
}

#[test]
fn follower_forwards_requests_of_one_call_in_one_message() {
    let mut harness = Harness::new(3);
    let effects = harness.receive(2, Message::Raft(raft_message(RaftKind::Heartbeat, 1)));
    let batch = persist(&effects).id;
    let _ = harness.handle(Event::Persisted { batch });
    let effects = harness.handle_all((1..=3).map(pin));
    let [Effect::Send { to, envelope }] = effects.as_slice() else {
        panic!("{effects:?} instead of one message");
    };
    assert_eq!(*to, peer(2));
    let Message::Propose(proposals) = &envelope.message else {
        panic!("{envelope:?} is not a proposal");
    };
    let seqs: Vec<u64> = proposals.iter().map(|proposal| proposal.id.seq).collect();
    assert_eq!(seqs, [1, 2, 3]);
}

#[test]
#[should_panic(expected = "must be handled alone")]
fn exclusive_event_among_others_panics() {
    let mut harness = Harness::new(1);
    let _ = harness.handle_all([pin(1), Event::TimedOut]);
}
