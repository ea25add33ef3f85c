//! Recovery from a lost data folder, or from a lost end of one.

use std::collections::BTreeMap;

use super::harness::{Harness, persist, raft_message};
use crate::testing::{cid, options, peer};
use crate::*;

/// Returns peer 1 of three, with the incarnations of all recorded.
fn acquainted() -> Harness {
    let mut harness = Harness::new(3);
    let recovered = harness.disk.recovered.as_mut().expect("has been founded");
    for (id, member) in &mut recovered.members.peers {
        member.incarnation = Some(Incarnation(id.0));
    }
    harness.restart();
    let _ = harness.handle(Event::TimedOut);
    harness
}

/// Handles a heartbeat of peer 2 from a new incarnation.
fn from_a_new_folder(harness: &mut Harness, id: RaftId) -> Vec<Effect> {
    let message = RaftMessage {
        from: id,
        ..raft_message(RaftKind::Heartbeat, 1)
    };
    let envelope = Envelope {
        cluster: harness.members.cluster,
        incarnation: Incarnation(9),
        addressee: None,
        version: VERSION,
        message: Message::Raft(message),
    };
    harness.handle(Event::Received {
        from: peer(2),
        envelope,
    })
}

/// Peer 2 lost its disk, came back under another Raft id, and became leader. A peer that had missed the
/// change could learn of it from the leader only, but ignored it (simulated seed 11263).
#[test]
fn new_incarnation_with_a_later_raft_id_is_answered() {
    let mut harness = acquainted();
    let effects = from_a_new_folder(&mut harness, RaftId(4));
    let batch = persist(&effects).id;
    let effects = harness.handle(Event::Persisted { batch });
    let answer = RaftMessage {
        from: RaftId(1),
        to: RaftId(4),
        ..raft_message(RaftKind::HeartbeatResponse, 1)
    };
    assert_eq!(effects, [harness.send(2, answer)]);
}

#[test]
fn new_incarnation_with_the_old_raft_id_is_ignored() {
    let mut harness = acquainted();
    assert_eq!(from_a_new_folder(&mut harness, RaftId(2)), []);
}

/// A power cut restored a local state from before an unpin and a second pin, and a snapshot brought the pin
/// (simulated seed 2362).
#[test]
fn local_state_older_than_the_pin_is_pinned_again() {
    let mut harness = Harness::new(3);
    let local = Local {
        phase: Phase::Pinned,
        mode: Mode::Recursive,
        attempts: 0,
        error: String::new(),
        since: Timestamp(1),
        queued: None,
    };
    harness.disk.locals.insert(cid(1), local);
    let pin = Pin {
        cid: cid(1),
        pin_type: PinType::Data,
        allocations: Vec::new(),
        reference: None,
        options: options(Replicas::Everywhere),
        timestamp: Timestamp(1),
        version: 5,
    };
    let mut effects = harness.install(BTreeMap::from([(cid(1), pin)]));
    for _ in 0..4 {
        harness.wait(std::time::Duration::from_millis(1));
        effects.extend(harness.handle(Event::TimedOut));
    }
    let pins =
        |action: &IpfsAction| matches!(action, IpfsAction::Pin { cid: pinned, .. } if *pinned == cid(1));
    let starts = |effect: &Effect| matches!(effect, Effect::StartIpfs { action, .. } if pins(action));
    assert!(effects.iter().any(starts), "{effects:?}");
}
