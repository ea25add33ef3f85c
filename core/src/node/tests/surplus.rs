//! Surplus copies after a re-allocation, effect by effect.

use std::time::Duration;

use super::harness::Harness;
use crate::testing::{cid, options, peer};
use crate::*;

const ONE_OR_TWO: Replicas = Replicas::Range { min: 1, max: 2 };

fn pin(allocations: &[u8]) -> Command {
    Command::Pin {
        pin: Pin {
            cid: cid(1),
            pin_type: PinType::Data,
            allocations: allocations.iter().copied().map(peer).collect(),
            reference: None,
            options: options(ONE_OR_TWO),
            timestamp: Timestamp(1),
            version: 0,
        },
        precondition: Precondition::Any,
    }
}

fn moved(allocations: &[u8], version: Index) -> Command {
    Command::Reallocate {
        cid: cid(1),
        allocations: allocations.iter().copied().map(peer).collect(),
        version,
    }
}

fn questions(effects: &[Effect]) -> Vec<(PeerId, Vec<CopyOf>)> {
    let asks = effects.iter().filter_map(|effect| match effect {
        Effect::Send { to, envelope } => match &envelope.message {
            Message::AskCopies(copies) => Some((to.clone(), copies.clone())),
            Message::HasCopies(_)
            | Message::Hello
            | Message::Metrics(_)
            | Message::NotMember { .. }
            | Message::Propose(_)
            | Message::Raft(_) => None,
        },
        Effect::CancelIpfs { .. }
        | Effect::CompareIpfs { .. }
        | Effect::DiscardSnapshot { .. }
        | Effect::Measure
        | Effect::Persist(_)
        | Effect::Reply { .. }
        | Effect::SendSnapshot { .. }
        | Effect::StartIpfs { .. } => None,
    });
    asks.collect()
}

fn unpins(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| {
        matches!(
            effect,
            Effect::StartIpfs {
                action: IpfsAction::Unpin { .. },
                ..
            }
        )
    })
}

fn copy(version: Index) -> Vec<CopyOf> {
    vec![CopyOf { cid: cid(1), version }]
}

/// Returns peer 1 with a copy of CID 1, which entry 2 re-allocates to peers 2 and 3.
fn given_away() -> (Harness, Vec<Effect>) {
    let mut harness = Harness::new(3);
    let _ = harness.apply(2, 1, pin(&[1]));
    let op = OpId(1);
    let _ = harness.handle(Event::IpfsFinished { op, outcome: Ok(()) });
    let effects = harness.apply(2, 2, moved(&[2, 3], 1));
    (harness, effects)
}

#[test]
fn surplus_copy_is_unpinned_once_new_holders_confirm() {
    let (mut harness, effects) = given_away();
    assert_eq!(questions(&effects), [(peer(2), copy(2)), (peer(3), copy(2))]);
    assert!(!unpins(&effects));
    let effects = harness.receive(3, Message::HasCopies(copy(1)));
    assert_eq!(effects, [], "a confirmation of another version");
    let effects = harness.receive(3, Message::HasCopies(copy(2)));
    assert!(unpins(&effects), "one copy is enough: {effects:?}");
    assert_eq!(harness.receive(2, Message::HasCopies(copy(2))), []);
}

#[test]
fn surplus_copy_stays_until_confirmed() {
    let (mut harness, _) = given_away();
    for _ in 0..10 {
        harness.wait(Duration::from_secs(5));
        assert!(!unpins(&harness.handle(Event::TimedOut)));
    }
    harness.wait(Duration::from_secs(5));
    let effects = harness.handle(Event::TimedOut);
    let asked = questions(&effects);
    assert!(
        asked.is_empty() || asked.contains(&(peer(2), copy(2))),
        "{asked:?}"
    );
    assert_eq!(harness.disk.locals[&cid(1)].phase, Phase::UnpinQueued);
    harness.restart();
    harness.wait(Duration::from_secs(10));
    let asked = questions(&harness.handle(Event::TimedOut));
    assert_eq!(
        asked,
        [(peer(2), copy(2)), (peer(3), copy(2))],
        "surplus copies survive a restart"
    );
}

#[test]
fn surplus_copy_allocated_here_again_is_kept() {
    let (mut harness, _) = given_away();
    let effects = harness.apply(2, 3, moved(&[1, 2], 2));
    assert!(!unpins(&effects));
    let is_pin = |effect: &Effect| {
        matches!(
            effect,
            Effect::StartIpfs {
                action: IpfsAction::Pin { .. },
                ..
            }
        )
    };
    assert!(effects.iter().any(is_pin), "the CID is pinned again: {effects:?}");
    assert!(!unpins(&harness.receive(2, Message::HasCopies(copy(2)))));
}

#[test]
fn surplus_copy_of_a_removed_pin_is_unpinned_at_once() {
    let (mut harness, _) = given_away();
    let unpin = Command::Unpin {
        cid: cid(1),
        precondition: Precondition::Any,
    };
    assert!(unpins(&harness.apply(2, 3, unpin)));
}

#[test]
fn ask_copies_is_answered_with_held_copies() {
    let mut harness = Harness::new(3);
    let _ = harness.apply(2, 1, pin(&[1, 2]));
    assert_eq!(
        harness.receive(3, Message::AskCopies(copy(1))),
        [],
        "it is still being pinned"
    );
    let op = OpId(1);
    let _ = harness.handle(Event::IpfsFinished { op, outcome: Ok(()) });
    let effects = harness.receive(3, Message::AskCopies(copy(1)));
    let [Effect::Send { to, envelope }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((to, &envelope.message), (&peer(3), &Message::HasCopies(copy(1))));
    assert_eq!(
        harness.receive(3, Message::AskCopies(copy(9))),
        [],
        "unknown version"
    );
}

/// A copy was unpinned as the old pinset demanded, although the snapshot allocates it to a peer that had none
/// yet (simulated seed 4401414).
#[test]
fn copy_reallocated_by_a_snapshot_stays_until_confirmed() {
    let mut harness = Harness::new(3);
    let effects = harness.apply(2, 1, pin(&[1]));
    let Some(Effect::StartIpfs { op, .. }) = effects.last().cloned() else {
        panic!("{effects:?} start no pin");
    };
    let precondition = Precondition::Any;
    let cid = cid(1);
    let unpin = Command::Unpin {
        cid: cid.clone(),
        precondition,
    };
    let effects = harness.apply(2, 2, unpin);
    assert!(effects.contains(&Effect::CancelIpfs { op }), "{effects:?}");
    let Command::Pin { pin: given, .. } = pin(&[2]) else {
        panic!("a pin");
    };
    let given = Pin { version: 9, ..given };
    let _ = harness.install([(cid.clone(), given)].into());
    let outcome = Err(IpfsError::Cancelled);
    let effects = harness.handle(Event::IpfsFinished { op, outcome });
    let unpins = |effect: &Effect| matches!(effect, Effect::StartIpfs { .. });
    assert!(!effects.iter().any(unpins), "{effects:?}");
    assert_eq!(questions(&effects), [(peer(2), vec![CopyOf { cid, version: 9 }])]);
}

/// A peer confirmed a copy that it held in the mode of an earlier version, until it had reconciled (simulated
/// seed 100299).
#[test]
fn copy_of_a_shallower_mode_is_not_confirmed() {
    let mut harness = Harness::new(3);
    let Command::Pin { pin: given, .. } = pin(&[1]) else {
        panic!("a pin");
    };
    let of_mode = |mode: Mode, version: Index| {
        let options = PinOptions {
            mode,
            ..given.options.clone()
        };
        Pin {
            options,
            version,
            ..given.clone()
        }
    };
    let direct = Command::Pin {
        pin: of_mode(Mode::Direct, 0),
        precondition: Precondition::Any,
    };
    let _ = harness.apply(2, 1, direct);
    let (op, outcome) = (OpId(1), Ok(()));
    let _ = harness.handle(Event::IpfsFinished { op, outcome });
    let confirms = |effects: &[Effect]| {
        let is_confirmation = |effect: &Effect| match effect {
            Effect::Send { envelope, .. } => matches!(envelope.message, Message::HasCopies(_)),
            Effect::CancelIpfs { .. }
            | Effect::CompareIpfs { .. }
            | Effect::DiscardSnapshot { .. }
            | Effect::Measure
            | Effect::Persist(_)
            | Effect::Reply { .. }
            | Effect::SendSnapshot { .. }
            | Effect::StartIpfs { .. } => false,
        };
        effects.iter().any(is_confirmation)
    };
    assert!(confirms(&harness.receive(3, Message::AskCopies(copy(1)))));
    let _ = harness.install([(cid(1), of_mode(Mode::Recursive, 9))].into());
    assert_eq!(
        harness.disk.locals[&cid(1)].mode,
        Mode::Direct,
        "not reconciled yet"
    );
    let effects = harness.receive(3, Message::AskCopies(copy(9)));
    assert!(!confirms(&effects), "{effects:?}");
}

/// Surplus copies beyond those in memory were never asked about while operations took all slots (simulated
/// seed 100139).
#[test]
fn surplus_copies_are_asked_about_while_all_slots_are_taken() {
    const COPIES: u16 = 1300;
    let mut harness = Harness::new(3);
    let Command::Pin { pin: given, .. } = pin(&[2]) else {
        panic!("a pin");
    };
    let numbered = |number: u16| {
        let [high, low] = number.to_be_bytes();
        Cid::from_bytes(&[1, 0x55, 0, 2, high, low]).expect("is a CID")
    };
    let mut add = |number: u16, holder: u8, lane: Lane, phase: Phase| {
        let (cid, at) = (numbered(number), u64::from(number));
        let key = QueueKey {
            lane,
            at,
            cid: cid.clone(),
        };
        let local = Local {
            phase,
            mode: Mode::Recursive,
            attempts: 0,
            error: String::new(),
            since: Timestamp(1),
            queued: Some(key.clone()),
        };
        let pin = Pin {
            cid: cid.clone(),
            allocations: vec![peer(holder)],
            version: 1,
            ..given.clone()
        };
        harness.disk.queue.insert(key);
        harness.disk.locals.insert(cid.clone(), local);
        harness.disk.pins.insert(cid, pin);
    };
    (0..COPIES).for_each(|number| add(number, 2, Lane::Surplus, Phase::UnpinQueued));
    (COPIES..COPIES + 20).for_each(|number| add(number, 1, Lane::Fresh, Phase::PinQueued));
    harness.restart();
    let mut effects = harness.handle(Event::TimedOut);
    let mut asked = Vec::new();
    for _ in 0..20 {
        let mut copies: Vec<CopyOf> = questions(&effects)
            .into_iter()
            .flat_map(|(_, copies)| copies)
            .collect();
        effects = harness.receive(2, Message::HasCopies(copies.clone()));
        asked.append(&mut copies);
        effects.extend(harness.handle(Event::TimedOut));
        assert!(!unpins(&effects), "all slots are taken");
    }
    assert_eq!(asked.len(), usize::from(COPIES));
}
