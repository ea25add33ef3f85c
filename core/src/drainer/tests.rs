use super::*;
use crate::pin::PinType;
use crate::testing::{Disk, cid, metrics, options, peer};
use crate::time::Timestamp;

const ME: u8 = 1;

fn pin(number: u8, allocations: &[u8], min: u32, max: u32) -> Pin {
    Pin {
        cid: cid(number),
        pin_type: PinType::Data,
        allocations: allocations.iter().copied().map(peer).collect(),
        reference: None,
        options: options(Replicas::Range { min, max }),
        timestamp: Timestamp(1),
        version: 7,
    }
}

/// Returns a pool in which `able` can take pins; `alive` can only keep theirs.
fn pool(able: &[u8], alive: &[u8]) -> PeerPool {
    let free = || vec![metrics(9).remove(1)];
    PeerPool {
        candidates: able.iter().map(|number| (peer(*number), free())).collect(),
        alive: able.iter().chain(alive).copied().map(peer).collect(),
        exclusions: Vec::new(),
    }
}

fn drain(number: u8, moves_max: u32) -> Drain {
    Drain {
        peer: peer(number),
        since: Timestamp(9),
        pins: 3,
        moves_max,
    }
}

fn at(seconds: u64) -> Now {
    Now {
        mono: Instant(0) + Duration::from_secs(seconds),
        wall: Timestamp(0) + Duration::from_secs(seconds),
    }
}

fn moved(pin: Pin, pool: &PeerPool) -> Result<Option<Vec<PeerId>>, TooFew> {
    let command = relocate(pin, &peer(ME), pool)?;
    Ok(command.map(|command| {
        let Command::Reallocate {
            allocations, version, ..
        } = command
        else {
            panic!("{command:?} is not a re-allocation");
        };
        assert_eq!(version, 7);
        allocations
    }))
}

#[test]
fn copy_moves_to_another_peer_and_the_number_of_copies_stays() {
    let pool = pool(&[2, 3], &[]);
    assert_eq!(
        moved(pin(1, &[1, 2], 1, 2), &pool),
        Ok(Some(vec![peer(2), peer(3)]))
    );
    assert_eq!(
        moved(pin(1, &[1], 1, 3), &pool).unwrap().unwrap().len(),
        1,
        "one copy, as before"
    );
}

#[test]
fn without_a_replacement_enough_living_copies_suffice() {
    let pool = pool(&[2], &[]);
    assert_eq!(moved(pin(1, &[1, 2], 1, 2), &pool), Ok(Some(vec![peer(2)])));
    assert_eq!(moved(pin(1, &[1, 2], 2, 2), &pool), Err(TooFew));
    assert_eq!(
        moved(pin(1, &[1, 3], 1, 2), &pool),
        Ok(Some(vec![peer(2), peer(3)]))
    );
    assert_eq!(
        moved(pin(1, &[1, 2, 3], 2, 3), &pool),
        Err(TooFew),
        "3 does not live"
    );
    let full = super::tests::pool(&[], &[2, 3]);
    assert_eq!(
        moved(pin(1, &[1, 2, 3], 2, 3), &full),
        Ok(Some(vec![peer(2), peer(3)])),
        "peers without room keep what they hold"
    );
}

#[test]
fn pins_of_other_peers_and_of_all_peers_stay() {
    let pool = pool(&[2, 3], &[]);
    assert_eq!(moved(pin(1, &[2], 1, 1), &pool), Ok(None));
    let mut everywhere = pin(1, &[], 1, 1);
    everywhere.options.replicas = Replicas::Everywhere;
    assert_eq!(moved(everywhere, &pool), Ok(None));
}

#[test]
fn preferred_peer_gets_the_copy() {
    for preferred in [2, 3] {
        let mut pin = pin(1, &[1], 1, 1);
        pin.options.user_allocations = vec![peer(ME), peer(preferred)];
        assert_eq!(moved(pin, &pool(&[2, 3], &[])), Ok(Some(vec![peer(preferred)])));
    }
}

/// Runs one step, and applies its moves to the disk: each leaves a copy that waits for its replacement.
fn step(drainer: &mut Drainer, now: Now, disk: &mut Disk, pool: &PeerPool) -> usize {
    let mut commands = Vec::new();
    drainer.handle_timeout(now, disk, pool, &mut commands);
    for command in &commands {
        let Command::Reallocate { cid, allocations, .. } = command else {
            panic!("{command:?} is not a re-allocation");
        };
        let pin = disk.pins.get_mut(cid).expect("is stored");
        pin.allocations.clone_from(allocations);
        pin.version += 1;
        disk.queue.insert(crate::local::QueueKey {
            lane: Lane::Surplus,
            at: 1,
            cid: cid.clone(),
        });
    }
    commands.len()
}

fn stored(count: u8) -> Disk {
    let pins = (0..count).map(|number| (cid(number), pin(number, &[ME], 1, 1)));
    Disk {
        pins: pins.collect(),
        ..Disk::default()
    }
}

#[test]
fn moves_under_way_stay_within_the_limit() {
    let (mut disk, pool) = (stored(10), pool(&[2], &[]));
    let mut drainer = Drainer::new(peer(ME), 4);
    assert_eq!(drainer.poll_timeout(), None);
    drainer.load(at(1), vec![drain(ME, 6)]);
    assert_eq!(drainer.poll_timeout(), Some(at(1).mono));
    assert_eq!(step(&mut drainer, at(1), &mut disk, &pool), 4, "one chunk");
    assert_eq!(step(&mut drainer, at(2), &mut disk, &pool), 2, "up to the limit");
    assert_eq!(step(&mut drainer, at(3), &mut disk, &pool), 0);
    disk.queue.pop_first();
    assert_eq!(
        step(&mut drainer, at(4), &mut disk, &pool),
        1,
        "one was confirmed"
    );
    disk.queue.clear();
    assert_eq!(step(&mut drainer, at(5), &mut disk, &pool), 3, "all are moved");
    assert!(disk.pins.values().all(|pin| pin.allocations == [peer(2)]));
}

#[test]
fn proposed_moves_are_awaited_and_repeated_when_lost() {
    let (disk, pool) = (stored(2), pool(&[2], &[]));
    let mut drainer = Drainer::new(peer(ME), 4);
    drainer.load(at(0), vec![drain(ME, 256)]);
    let proposals = |drainer: &mut Drainer, seconds| {
        let mut commands = Vec::new();
        drainer.handle_timeout(at(seconds), &disk, &pool, &mut commands);
        commands.len()
    };
    assert_eq!(proposals(&mut drainer, 0), 2);
    assert_eq!(proposals(&mut drainer, 1), 0, "not applied yet");
    assert_eq!(proposals(&mut drainer, 6), 0, "end of the pass");
    assert_eq!(proposals(&mut drainer, 12), 2, "the next pass finds them again");
}

#[test]
fn pins_that_cannot_move_are_counted_until_they_can() {
    let mut disk = stored(3);
    let mut drainer = Drainer::new(peer(ME), 2);
    drainer.load(at(0), vec![drain(ME, 256)]);
    let nobody = pool(&[], &[]);
    for seconds in 0..4 {
        assert_eq!(step(&mut drainer, at(seconds), &mut disk, &nobody), 0);
    }
    let blocked = Blocked {
        pins: 3,
        first: Some(cid(0)),
    };
    assert_eq!(drainer.blocked(), &blocked);
    let pool = pool(&[2], &[]);
    let moved: usize = (4..30)
        .map(|seconds| step(&mut drainer, at(seconds), &mut disk, &pool))
        .sum();
    assert_eq!(moved, 3);
    assert_eq!(drainer.blocked(), &Blocked::default());
    drainer.load(at(30), Vec::new());
    assert_eq!(drainer.poll_timeout(), None, "the drain has ended");
}

#[test]
fn drained_peers_are_no_candidates() {
    let mut candidates = pool(&[1, 2, 3], &[]).candidates;
    let reasons = exclude(|other| *other == peer(2), &mut candidates);
    assert_eq!(candidates.keys().collect::<Vec<_>>(), [&peer(1), &peer(3)]);
    assert_eq!(reasons, [format!("{} is being drained", peer(2))].into());
}
