//! Copies that move to a peer while moves are limited in bytes per second.

use super::harness::Harness;
use crate::testing::{cid, options, peer};
use crate::*;

const ONE: Replicas = Replicas::Range { min: 1, max: 1 };

fn limit(bytes_per_second: u64) -> Command {
    Command::Rebalance {
        change: RebalanceChange::Settings(RebalanceSettings {
            bytes_per_second,
            ..RebalanceSettings::default()
        }),
    }
}

fn pin(number: u8, holder: u8) -> Command {
    Command::Pin {
        pin: Pin {
            cid: cid(number),
            pin_type: PinType::Data,
            allocations: vec![peer(holder)],
            reference: None,
            options: options(ONE),
            timestamp: Timestamp(1),
            version: 0,
        },
        precondition: Precondition::Any,
    }
}

fn moved_here(number: u8, version: Index) -> Command {
    Command::Reallocate {
        cid: cid(number),
        allocations: vec![peer(1)],
        version,
    }
}

/// Returns the pins that are started, and whether they count as moves.
fn started(effects: &[Effect]) -> Vec<(Cid, bool)> {
    let pins = effects.iter().filter_map(|effect| {
        if let Effect::StartIpfs { action, .. } = effect
            && let IpfsAction::Pin { cid, is_move, .. } = action
        {
            return Some((cid.clone(), *is_move));
        }
        None
    });
    pins.collect()
}

#[test]
fn only_copies_that_their_holders_give_away_count_as_moves() {
    let mut harness = Harness::new(3);
    harness.apply(3, 1, pin(1, 3));
    harness.apply(3, 2, pin(2, 3));
    harness.apply(3, 3, pin(3, 3));
    let unlimited = harness.apply(3, 4, moved_here(1, 1));
    assert_eq!(started(&unlimited), [(cid(1), false)], "nothing is limited");
    harness.apply(2, 5, limit(1_000));
    let replaced = harness.apply(2, 6, moved_here(2, 2));
    assert_eq!(
        started(&replaced),
        [(cid(2), false)],
        "the failover replaces a copy of another peer"
    );
    let moved = harness.apply(3, 7, moved_here(3, 3));
    assert_eq!(started(&moved), [(cid(3), true)]);
    let requested = harness.apply(3, 8, pin(4, 1));
    assert_eq!(started(&requested), [(cid(4), false)]);
    assert_eq!(harness.node.view().move_rate(harness.now), Some(1_000));
    harness.apply(2, 9, limit(0));
    assert_eq!(harness.node.view().move_rate(harness.now), None);
}

#[test]
fn moves_that_wait_for_their_bytes_leave_the_slots_to_other_pins() {
    let mut config = Config::new(peer(1));
    config.tracker.concurrent_pins = 1;
    let mut harness = Harness::configured(3, config);
    harness.apply(2, 1, limit(1_000));
    for number in 1..=3 {
        harness.apply(3, 1 + u64::from(number), pin(number, 3));
    }
    for number in 1..=3 {
        let index = 4 + u64::from(number);
        let effects = harness.apply(3, index, moved_here(number, 1 + u64::from(number)));
        assert_eq!(started(&effects), [(cid(number), true)]);
    }
    let requested = harness.apply(2, 8, pin(4, 1));
    assert_eq!(started(&requested), [(cid(4), false)]);
    let next = harness.apply(2, 9, pin(5, 1));
    assert_eq!(started(&next), [], "the slot is in use");
}
