use super::*;
use crate::pin::{Mode, PinType};
use crate::rebalance::{RebalanceRun, RebalanceSettings};
use crate::testing::{Disk, cid, metrics, options, peer};

const ME: u8 = 1;

/// Builds peers with these copies and zones. All can take pins, but those in `full`.
fn peers(known: &[(u8, u64, &str)], full: &[u8]) -> Peers {
    let mut peers = Peers {
        counted: 100,
        ..Peers::default()
    };
    for (number, copies, zone) in known {
        let id = peer(*number);
        let takes = !full.contains(number);
        if takes {
            let free = vec![metrics(9).remove(1)];
            peers.pool.candidates.insert(id.clone(), free);
        }
        peers.pool.alive.insert(id.clone());
        peers.zones.insert(id.clone(), vec![(*zone).to_owned()]);
        let load = Load {
            copies: *copies,
            capacity: None,
            takes,
        };
        peers.loads.insert(id, load);
    }
    peers
}

fn pin(number: u8, allocations: &[u8]) -> Pin {
    let copies = u32::try_from(allocations.len()).expect("a few");
    Pin {
        cid: cid(number),
        pin_type: PinType::Data,
        allocations: allocations.iter().copied().map(peer).collect(),
        reference: None,
        options: options(Replicas::Range {
            min: copies,
            max: copies,
        }),
        timestamp: Timestamp(1),
        version: 7,
    }
}

fn moved(pin: Pin, peers: &Peers, left: &[(u8, u64)]) -> Option<Vec<PeerId>> {
    let left = left
        .iter()
        .map(|(number, count)| (peer(*number), *count))
        .collect();
    let (to, command) = relocate(pin, &peer(ME), peers, &left, &Given::default())?;
    let Command::Reallocate {
        allocations, version, ..
    } = command
    else {
        panic!("{command:?} is not a re-allocation");
    };
    assert_eq!(version, 7);
    assert!(allocations.contains(&to));
    Some(allocations)
}

#[test]
fn copy_moves_only_to_peers_that_some_are_planned_for() {
    let all = peers(&[(1, 9, "a"), (2, 0, "a"), (3, 0, "a")], &[]);
    assert_eq!(moved(pin(1, &[1]), &all, &[(2, 1)]), Some(vec![peer(2)]));
    assert_eq!(moved(pin(1, &[1]), &all, &[(2, 1), (3, 5)]), Some(vec![peer(3)]));
    assert_eq!(moved(pin(1, &[1]), &all, &[(2, 0)]), None);
    assert_eq!(moved(pin(1, &[1, 2]), &all, &[(2, 1)]), None, "it has a copy");
    assert_eq!(
        moved(pin(1, &[2]), &all, &[(3, 1)]),
        None,
        "a pin of another peer"
    );
    let full = peers(&[(1, 9, "a"), (2, 0, "a")], &[2]);
    assert_eq!(moved(pin(1, &[1]), &full, &[(2, 1)]), None);
}

#[test]
fn preferred_places_pins_of_all_peers_and_pins_under_repair_stay() {
    let all = peers(&[(1, 9, "a"), (2, 0, "a")], &[]);
    let mut preferred = pin(1, &[1]);
    preferred.options.user_allocations = vec![peer(ME)];
    assert_eq!(moved(preferred, &all, &[(2, 1)]), None);
    let mut everywhere = pin(1, &[]);
    everywhere.options.replicas = Replicas::Everywhere;
    assert_eq!(moved(everywhere, &all, &[(2, 1)]), None);
    assert_eq!(moved(pin(1, &[1, 9]), &all, &[(2, 1)]), None, "9 does not live");
}

#[test]
fn zones_are_repaired_and_never_merged() {
    let all = peers(&[(1, 9, "a"), (2, 9, "a"), (3, 9, "b"), (4, 0, "a")], &[]);
    assert_eq!(moved(pin(1, &[1, 2]), &all, &[]), Some(vec![peer(2), peer(3)]));
    assert_eq!(
        moved(pin(1, &[1, 3]), &all, &[(2, 5)]),
        Some(vec![peer(2), peer(3)])
    );
    let other = peers(&[(1, 9, "b"), (2, 9, "a"), (3, 9, "a")], &[]);
    assert_eq!(moved(pin(1, &[1, 2]), &other, &[(3, 5)]), None);
    let full = peers(&[(1, 9, "a"), (2, 9, "a"), (3, 9, "b")], &[3]);
    assert_eq!(moved(pin(1, &[1, 2]), &full, &[]), None, "3 has no room");
}

fn at(milliseconds: u64) -> Now {
    Now {
        mono: Instant(0) + Duration::from_millis(milliseconds),
        wall: Timestamp(0) + Duration::from_millis(milliseconds),
    }
}

fn automatic(moves_max: u32) -> Rebalance {
    Rebalance {
        settings: RebalanceSettings {
            automatic: true,
            moves_max,
            ..RebalanceSettings::default()
        },
        run: None,
    }
}

fn asked(done: &[u8]) -> Rebalance {
    let run = RebalanceRun {
        since: Timestamp(5),
        done: done.iter().copied().map(peer).collect(),
    };
    Rebalance {
        run: Some(run),
        ..Rebalance::default()
    }
}

fn rebalancer(state: Rebalance) -> Rebalancer {
    let mut rebalancer = Rebalancer::new(peer(ME), 64, Duration::from_secs(15));
    rebalancer.load(at(0), state);
    rebalancer
}

/// Returns a disk with `count` pins of this peer, pinned.
fn stored(count: u8) -> Disk {
    let local = |cid: Cid| {
        let local = crate::Local {
            phase: Phase::Pinned,
            mode: Mode::Recursive,
            attempts: 0,
            error: String::new(),
            since: Timestamp(1),
            queued: None,
        };
        (cid, local)
    };
    Disk {
        pins: (0..count)
            .map(|number| (cid(number), pin(number, &[ME])))
            .collect(),
        locals: (0..count).map(cid).map(local).collect(),
        ..Disk::default()
    }
}

/// Runs one step, and applies its moves: each leaves a copy that waits for its replacement. Returns their
/// number, and whether the part of a run has ended.
fn step(rebalancer: &mut Rebalancer, now: Now, disk: &mut Disk, peers: &Peers) -> (usize, bool) {
    let mut commands = Vec::new();
    rebalancer.handle_timeout(now, disk, peers, 100, &mut commands);
    let (mut moves, mut ended) = (0, false);
    for command in commands {
        if let Command::Rebalance { change } = command {
            let since = Timestamp(5);
            assert_eq!(
                change,
                RebalanceChange::Done {
                    peer: peer(ME),
                    since
                }
            );
            ended = true;
            continue;
        }
        let Command::Reallocate { cid, allocations, .. } = command else {
            panic!("{command:?} is not expected");
        };
        let pin = disk.pins.get_mut(&cid).expect("is stored");
        pin.allocations = allocations;
        pin.version += 1;
        let (lane, at) = (Lane::Surplus, 1);
        disk.queue.insert(crate::local::QueueKey { lane, at, cid });
        moves += 1;
    }
    (moves, ended)
}

#[test]
fn moves_stop_at_the_target_and_stay_within_the_limit() {
    let (mut disk, mut all) = (stored(30), peers(&[(1, 30, "a"), (2, 0, "a")], &[]));
    let mut rebalancer = rebalancer(automatic(4));
    let mut moved = 0;
    for number in 0..100 {
        let (moves, _) = step(&mut rebalancer, at(number * 200), &mut disk, &all);
        moved += moves;
        assert!(disk.queue.len() <= 4, "{} wait", disk.queue.len());
        disk.queue.pop_first();
    }
    assert_eq!(moved, 15);
    let expected = RebalanceProgress {
        is_passing: false,
        planned: 15,
        moved: 15,
        moved_in_all: 15,
        undone_in_all: 0,
    };
    assert_eq!(rebalancer.progress(), &expected);
    // The counts of the other peer arrive late: nothing is planned from an old one of this peer's.
    all.counted = 99;
    disk.queue.clear();
    assert_eq!(step(&mut rebalancer, at(100_000), &mut disk, &all), (0, false));
    assert!(!rebalancer.progress().is_passing);
    all.counted = 100;
    let even = Peers {
        counted: 100,
        ..peers(&[(1, 15, "a"), (2, 15, "a")], &[])
    };
    for number in 0..100 {
        assert_eq!(
            step(&mut rebalancer, at(200_000 + number * 200), &mut disk, &even),
            (0, false)
        );
    }
}

#[test]
fn move_that_another_holder_forestalls_is_made_with_another_pin() {
    let (mut disk, all) = (stored(40), peers(&[(1, 40, "a"), (2, 0, "a")], &[]));
    let mut rebalancer = rebalancer(asked(&[]));
    let (mut moves, mut forestalled) = (0, 0);
    for number in 0..60 {
        let mut commands = Vec::new();
        rebalancer.handle_timeout(at(number * 200), &disk, &all, 100, &mut commands);
        for command in commands {
            let Command::Reallocate { cid, allocations, .. } = command else {
                continue;
            };
            let pin = disk.pins.get_mut(&cid).expect("is stored");
            pin.version += 1;
            // Every other one comes too late.
            if forestalled < 10 && (moves + forestalled) % 2 == 0 {
                forestalled += 1;
            } else {
                pin.allocations = allocations;
                moves += 1;
            }
        }
    }
    assert_eq!((moves, forestalled), (20, 10));
    assert_eq!(rebalancer.progress().moved, 20);
}

#[test]
fn copy_that_comes_back_is_not_moved_to_the_same_peer_again() {
    let (mut disk, all) = (stored(20), peers(&[(1, 20, "a"), (2, 0, "a")], &[]));
    let mut rebalancer = rebalancer(automatic(64));
    let mut pass = |rebalancer: &mut Rebalancer, from: u64| {
        let mut moved = Vec::new();
        for number in 0..60 {
            step(rebalancer, at(from + number * 200), &mut disk, &all);
            let gone = disk.pins.values_mut().filter(|pin| pin.allocations == [peer(2)]);
            gone.for_each(|pin| moved.push(pin.cid.clone()));
        }
        disk.queue.clear();
        // No copy fits there.
        for pin in disk.pins.values_mut() {
            pin.allocations = vec![peer(ME)];
            pin.version += 1;
        }
        moved.sort();
        moved.dedup();
        moved
    };
    let first = pass(&mut rebalancer, 0);
    let second = pass(&mut rebalancer, 400_000);
    assert_eq!((first.len(), second.len()), (10, 10));
    assert!(first.iter().all(|cid| !second.contains(cid)));
    assert_eq!(pass(&mut rebalancer, 800_000), [], "all were tried");
    rebalancer.load(at(1_200_000), asked(&[]));
    assert_eq!(
        pass(&mut rebalancer, 1_200_000),
        first,
        "an operator asked for it"
    );
}

#[test]
fn small_deviations_move_nothing_unless_a_run_is_asked_for() {
    let near = [(1, 105, "a"), (2, 95, "a")];
    let mut disk = stored(105);
    let mut idle = rebalancer(Rebalance::default());
    assert_eq!(idle.poll_timeout(), None, "off");
    assert_eq!(step(&mut idle, at(0), &mut disk, &peers(&near, &[])), (0, false));
    let mut by_itself = rebalancer(automatic(64));
    assert_eq!(
        step(&mut by_itself, at(0), &mut disk, &peers(&near, &[])),
        (0, false)
    );
    assert_eq!(by_itself.poll_timeout(), Some(at(30_000).mono), "rests");
    let mut run = rebalancer(asked(&[]));
    let (mut moved, mut ends) = (0, 0);
    for number in 0..20 {
        let (moves, ended) = step(&mut run, at(number * 200), &mut disk, &peers(&near, &[]));
        moved += moves;
        ends += usize::from(ended);
    }
    assert_eq!((moved, ends), (5, 1));
    // The end may be lost: it is proposed again, and nothing else.
    assert_eq!(
        step(&mut run, at(60_000), &mut disk, &peers(&near, &[])),
        (0, true)
    );
    run.load(at(61_000), asked(&[ME]));
    assert_eq!(run.poll_timeout(), None);
}

#[test]
fn cancelled_run_stops_and_the_next_one_plans_anew() {
    let (mut disk, all) = (stored(30), peers(&[(1, 30, "a"), (2, 0, "a")], &[]));
    let mut rebalancer = rebalancer(asked(&[]));
    assert_eq!(step(&mut rebalancer, at(0), &mut disk, &all), (0, false));
    assert!(rebalancer.progress().is_passing);
    rebalancer.load(at(100), Rebalance::default());
    assert!(!rebalancer.progress().is_passing);
    assert_eq!(rebalancer.poll_timeout(), None);
    rebalancer.load(at(300), asked(&[]));
    let even = peers(&[(1, 15, "a"), (2, 15, "a")], &[]);
    assert_eq!(step(&mut rebalancer, at(400), &mut disk, &even), (0, true));
}

#[test]
fn run_ends_once_all_live_peers_have_done_their_part() {
    let living = |numbers: &[u8]| numbers.iter().copied().map(peer).collect::<Vec<_>>().into_iter();
    let rebalancer = rebalancer(asked(&[1, 3]));
    assert_eq!(rebalancer.ended_run(living(&[1, 2, 3])), None);
    let since = Some(Timestamp(5));
    let change = RebalanceChange::End { since };
    let expected = Some(Command::Rebalance { change });
    assert_eq!(rebalancer.ended_run(living(&[1, 3])), expected);
    assert_eq!(
        super::tests::rebalancer(automatic(4)).ended_run(living(&[])),
        None
    );
}
