use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::testing::{cid, peer};

fn metric(value: &str, weight: i64, partitionable: bool) -> Metric {
    let (name, ttl) = ("m".to_owned(), Duration::from_secs(1));
    Metric {
        name,
        value: value.to_owned(),
        weight,
        partitionable,
        ttl,
        valid: true,
    }
}

fn candidates(weights: &[(u8, &str, i64)]) -> Candidates {
    let values = |group: &str, weight| vec![metric(group, 0, true), metric("", weight, false)];
    weights
        .iter()
        .map(|(number, group, weight)| (peer(*number), values(group, *weight)))
        .collect()
}

fn wanted<'a>(cid: &'a Cid, min: u32, max: u32, current: &'a [PeerId]) -> Requirements<'a> {
    Requirements {
        cid: Some(cid),
        near: None,
        min,
        max,
        current,
        preferred: &[],
    }
}

#[test]
fn equal_rank_is_broken_by_the_next_metric() {
    // As for `pinqueue`, then `freespace`: peer 3 has the most space, but its queue is one bucket longer.
    let values = |queue, room| vec![metric("", queue, false), metric("", room, false)];
    let candidates: Candidates = [(1, 0, 10), (2, 0, 90), (3, -1, 99), (4, 0, 50)]
        .into_iter()
        .map(|(number, queue, room)| (peer(number), values(queue, room)))
        .collect();
    for n in 0..10 {
        let cid = cid(n);
        let first = |count| allocate(&wanted(&cid, count, count, &[]), &candidates).unwrap();
        assert_eq!(first(1), [peer(2)]);
        assert_eq!(first(2), [peer(2), peer(4)]);
        assert_eq!(first(3), [peer(1), peer(2), peer(4)]);
    }
}

#[test]
fn emptiest_peers_are_chosen_first() {
    let candidates = candidates(&[(1, "a", 100), (2, "a", 1000), (3, "a", 500)]);
    assert_eq!(
        allocate(&wanted(&cid(1), 1, 1, &[]), &candidates),
        Ok(vec![peer(2)])
    );
    assert_eq!(
        allocate(&wanted(&cid(1), 2, 2, &[]), &candidates),
        Ok(vec![peer(2), peer(3)])
    );
}

#[test]
fn copies_are_spread_over_groups() {
    let candidates = candidates(&[(1, "a", 1000), (2, "a", 1000), (3, "b", 10)]);
    for number in 0..20 {
        let chosen = allocate(&wanted(&cid(number), 2, 2, &[]), &candidates).expect("enough candidates");
        assert!(chosen.contains(&peer(3)), "one of each group: {chosen:?}");
    }
}

#[test]
fn peers_of_equal_rank_share_the_pins() {
    let candidates = candidates(&[(1, "a", 1000), (2, "a", 990), (3, "a", 1010)]);
    let takes = |number: u8| {
        let gets = |pin: &u8| allocate(&wanted(&cid(*pin), 1, 1, &[]), &candidates) == Ok(vec![peer(number)]);
        (0..=255_u8).filter(gets).count()
    };
    for number in 1..=3 {
        assert!(
            (50..120).contains(&takes(number)),
            "peer {number} gets {} of 256",
            takes(number)
        );
    }
}

#[test]
fn preferred_peers_are_chosen_first() {
    let candidates = candidates(&[(1, "a", 100), (2, "a", 1000), (3, "a", 500)]);
    let preferred = [peer(9), peer(1)];
    let cid = cid(1);
    let wanted = Requirements {
        preferred: &preferred,
        ..wanted(&cid, 2, 2, &[])
    };
    assert_eq!(allocate(&wanted, &candidates), Ok(vec![peer(1), peer(2)]));
}

#[test]
fn near_peer_is_preferred_only_at_equal_rank() {
    let near = peer(1);
    let takes = |weight: i64, number: u8| {
        let candidates = candidates(&[(1, "a", weight), (2, "a", 1000), (3, "a", 1000)]);
        let cid = cid(number);
        let wanted = Requirements {
            near: Some(&near),
            ..wanted(&cid, 2, 2, &[])
        };
        allocate(&wanted, &candidates).unwrap()
    };
    let others: BTreeSet<PeerId> = (0..20)
        .flat_map(|number| {
            let taken = takes(950, number);
            assert!(taken.contains(&near), "pin {number}: {taken:?}");
            taken
        })
        .collect();
    assert_eq!(others.len(), 3, "the CID still spreads the other copies");
    assert_eq!(
        takes(500, 1),
        [peer(2), peer(3)],
        "a fuller peer is not preferred"
    );
}

proptest! {
    /// Checks the rules one by one.
    #[test]
    fn allocation_satisfies_all_rules(
        peers in proptest::collection::btree_map(1_u8..12, (0_u8..3, 0_i64..2000), 0..8),
        current in proptest::collection::btree_set(1_u8..12, 0..4),
        min in 1_u32..4,
        more in 0_u32..3,
        pin in any::<u8>(),
    ) {
        let groups = ["a", "b", "c"];
        let weights: Vec<(u8, &str, i64)> = peers
            .iter()
            .map(|(number, (group, weight))| (*number, groups[*group as usize], *weight))
            .collect();
        let candidates = candidates(&weights);
        let current: Vec<PeerId> = current.into_iter().map(peer).collect();
        let max = min + more;
        let cid = cid(pin);
        let chosen = allocate(&wanted(&cid, min, max, &current), &candidates);
        let able: BTreeSet<&PeerId> = candidates.keys().chain(&current).collect();
        match chosen {
            Err(NotEnough { available }) => {
                prop_assert!(able.len() < min as usize);
                prop_assert_eq!(available as usize, able.len());
            }
            Ok(chosen) => {
                let distinct: BTreeSet<&PeerId> = chosen.iter().collect();
                prop_assert_eq!(distinct.len(), chosen.len());
                prop_assert!(chosen.is_sorted());
                prop_assert!(distinct.is_subset(&able));
                prop_assert!(chosen.len() >= min as usize && chosen.len() <= max as usize);
                let kept = current.iter().filter(|peer| distinct.contains(*peer)).count();
                prop_assert_eq!(kept, current.len().min(max as usize), "holders keep the pin");
                if current.len() >= min as usize {
                    prop_assert_eq!(kept, chosen.len(), "no copies beyond the need");
                } else {
                    prop_assert_eq!(chosen.len(), able.len().min(max as usize), "filled up to the maximum");
                }
            }
        }
    }
}
