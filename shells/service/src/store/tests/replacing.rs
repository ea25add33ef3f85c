//! Founding a folder again.

use super::*;

fn refounding(pins: u64) -> Recovered {
    let mut recovered = founding();
    recovered.incarnation = Incarnation(78);
    recovered.hard_state.term = 1;
    recovered.hard_state.commit = 1;
    recovered.compacted = (1, 1);
    recovered.applied = Applied {
        index: 1,
        term: 1,
        pins,
    };
    recovered.reconciling = true;
    recovered
}

fn put(replacing: &mut NewPinset, pin: &Pin) {
    replacing.put(pin, &encode(pin)).unwrap();
}

fn pins(store: &Store) -> Vec<Pin> {
    let listing = store.reader().listing();
    listing.pins(None).collect::<Result<_, _>>().unwrap()
}

#[test]
fn pins_in_any_order_replace_the_pinset_and_raft_starts_afresh() {
    let (folder, mut store) = founded();
    let path = folder.path().join("raft");
    (1..=5).for_each(|index| store.write(&batch(index, pin_ops(index))).unwrap());
    let mut replacing = store.new_pinset().unwrap();
    for pin in [pin(30, 1), pin(10, 1), pin(20, 1), pin(10, 2)] {
        put(&mut replacing, &pin);
    }
    let settled = replacing.finish().unwrap();
    assert_eq!(settled, PinCounts { pins: 3, repeated: 1 }, "the last one counts");
    assert_eq!(pins(&store).len(), 5, "not yet");
    store.reinitialise(&refounding(3), Some(replacing)).unwrap();
    let check = |store: &Store| {
        let mut expected = [pin(30, 1), pin(10, 2), pin(20, 1)];
        expected.sort_by(|a, b| a.cid.cmp(&b.cid));
        assert_eq!(pins(store), expected);
        let listing = store.reader().listing();
        for pin in &expected {
            let at = |peer| listing.allocated(peer).any(|found| found.unwrap() == *pin);
            assert!(pin.allocations.iter().all(at), "the index knows {}", pin.cid);
        }
        // The local state stays, to be compared with the new pinset.
        assert_eq!(listing.locals(None).count(), 5);
    };
    check(&store);
    store.close().unwrap();
    let mut store = open(&path);
    check(&store);
    let recovered = store.recovered().unwrap().unwrap();
    assert_eq!(
        recovered,
        Recovered {
            boot: 2,
            ..refounding(3)
        }
    );
}

#[test]
fn founding_again_may_keep_the_pins() {
    let (folder, mut store) = founded();
    (1..=5).for_each(|index| store.write(&batch(index, pin_ops(index))).unwrap());
    let before = pins(&store);
    store.reinitialise(&refounding(5), None).unwrap();
    store.close().unwrap();
    let store = open(&folder.path().join("raft"));
    assert_eq!(pins(&store), before);
}

#[test]
fn a_dropped_replacement_does_not_block_the_next_process() {
    let (folder, mut store) = founded();
    let path = folder.path().join("raft");
    for round in 1..=4 {
        // Dropped, deleted, and started again by a later process, under an unused number.
        let mut given_up = store.new_pinset().unwrap();
        put(&mut given_up, &pin(1, 1));
        given_up.finish().unwrap();
        drop(given_up);
        store.close().unwrap();
        store = open(&path);
        let mut replacing = store.new_pinset().unwrap();
        (0..round).for_each(|n| put(&mut replacing, &pin(n, 1)));
        replacing.finish().unwrap();
        store.reinitialise(&refounding(round), Some(replacing)).unwrap();
        store.close().unwrap();
        store = open(&path);
        assert_eq!(pins(&store).len() as u64, round);
    }
}

#[test]
fn a_repeated_cid_becomes_one_pin_with_the_last_options() {
    let (_folder, mut store) = founded();
    let mut replacing = store.new_pinset().unwrap();
    for n in 0..1500 {
        put(&mut replacing, &pin(n, 4));
    }
    put(&mut replacing, &pin(3, 1));
    let expected = PinCounts {
        pins: 1500,
        repeated: 1,
    };
    assert_eq!(replacing.finish().unwrap(), expected);
    store.reinitialise(&refounding(1500), Some(replacing)).unwrap();
    let listing = store.reader().listing();
    assert_eq!(listing.pins(None).count(), 1500);
    assert_eq!(listing.pin(&cid(3)).unwrap(), Some(pin(3, 1)));
    for number in 0..5 {
        let pins = listing.allocated(&peer(number)).map(Result::unwrap);
        let found = pins.filter(|pin| pin.cid == cid(3)).count();
        let allocated = pin(3, 1).allocations.contains(&peer(number));
        assert_eq!(found, usize::from(allocated), "no stale index of peer {number}");
    }
}

#[test]
fn an_empty_replacement_replaces_and_an_unsettled_one_does_not() {
    let (_folder, mut store) = founded();
    (1..=5).for_each(|index| store.write(&batch(index, pin_ops(index))).unwrap());
    let unsettled = store.new_pinset().unwrap();
    assert!(store.reinitialise(&refounding(0), Some(unsettled)).is_err());
    assert_eq!(pins(&store).len(), 5);
    let mut empty = store.new_pinset().unwrap();
    assert_eq!(empty.finish().unwrap(), PinCounts::default());
    assert!(empty.finish().is_err() && empty.put(&pin(1, 1), &encode(&pin(1, 1))).is_err());
    store.reinitialise(&refounding(0), Some(empty)).unwrap();
    assert_eq!(pins(&store), []);
}
