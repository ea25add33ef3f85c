mod alone;
mod choosing;
mod clocks;
mod comparing;
mod deposed;
mod effects;
mod limits;
mod lone;
mod membership;
mod moving;
mod rebuilt;
mod removed;
mod rescue;
mod together;
mod versions;

use std::time::Duration;

use crate::testing::{Table, cid, options, peer};
use crate::*;

const SECOND: Duration = Duration::from_secs(1);
const TWO: Replicas = Replicas::Range { min: 2, max: 2 };

fn leader(table: &Table) -> u8 {
    let leads = |number: &u8| {
        let id = peer(*number);
        !table.down.contains(&id)
            && table
                .nodes
                .get(&id)
                .is_some_and(|(node, _)| node.view().is_leader())
    };
    (1..=9).find(leads).expect("there is a leader")
}

fn phases(table: &Table, what: &Cid) -> Vec<Option<Phase>> {
    table
        .nodes
        .values()
        .map(|(_, disk)| disk.locals.get(what).map(|local| local.phase))
        .collect()
}

#[test]
fn pin_everywhere_is_pinned_by_all_peers() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    for at in 1..=3 {
        let ticket = table.request(
            at,
            Request::Pin {
                cid: cid(at),
                options: options(Replicas::Everywhere),
            },
        );
        table.run(SECOND);
        assert!(
            matches!(table.replies[&ticket], Ok(Reply::Pinned(_))),
            "{:?}",
            table.replies[&ticket]
        );
        assert_eq!(phases(&table, &cid(at)), [Some(Phase::Pinned); 3]);
        assert!(table.nodes.values().all(|(_, disk)| disk.queue.is_empty()));
    }
}

#[test]
fn single_peer_pins_and_unpins() {
    let mut table = Table::new(1);
    let ticket = table.request(
        1,
        Request::Pin {
            cid: cid(1),
            options: options(Replicas::Everywhere),
        },
    );
    table.run(5 * SECOND);
    assert!(table.replies[&ticket].is_ok());
    let ticket = table.request(1, Request::Unpin { cid: cid(1) });
    table.run(SECOND);
    assert!(matches!(table.replies[&ticket], Ok(Reply::Unpinned(_))));
    assert_eq!(phases(&table, &cid(1)), [None]);
}

#[test]
fn early_pin_waits_for_metrics() {
    let mut table = Table::new(3);
    let ticket = table.request(
        2,
        Request::Pin {
            cid: cid(1),
            options: options(TWO),
        },
    );
    table.run(5 * SECOND);
    assert!(
        matches!(table.replies[&ticket], Ok(Reply::Pinned(_))),
        "{:?}",
        table.replies[&ticket]
    );
}

#[test]
fn pins_spread_over_peers_of_equal_rank() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    for number in 0..100 {
        table.request(
            1,
            Request::Pin {
                cid: cid(number),
                options: options(TWO),
            },
        );
    }
    table.run(SECOND);
    for id in 1..=3 {
        let held = table.nodes[&peer(1)]
            .1
            .pins
            .values()
            .filter(|pin| pin.is_allocated_to(&peer(id)))
            .count();
        assert!((40..95).contains(&held), "peer {id} holds {held} of 200 copies");
    }
}

#[test]
fn pins_of_a_lost_leader_are_reallocated() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    for number in 0..30 {
        table.request(
            1,
            Request::Pin {
                cid: cid(number),
                options: options(TWO),
            },
        );
    }
    table.run(SECOND);
    let lost = peer(leader(&table));
    table.down.insert(lost.clone());
    table.run(180 * SECOND);
    for (id, (_, disk)) in table.nodes.iter().filter(|(id, _)| **id != lost) {
        assert!(
            disk.pins.values().all(|pin| !pin.is_allocated_to(&lost)),
            "at {id}"
        );
        assert_eq!(
            disk.locals
                .values()
                .filter(|local| local.phase == Phase::Pinned)
                .count(),
            30
        );
    }
}

#[test]
fn lagging_peer_gets_a_snapshot() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    let behind = (1..=3)
        .find(|number| *number != leader(&table))
        .expect("there is a follower");
    table.down.insert(peer(behind));
    let at = leader(&table);
    for round in 0..250_u64 {
        for _ in 0..100 {
            let number = u8::try_from(round % 200).expect("below 200");
            table.request(at, Request::Unpin { cid: cid(number) });
            table.request(
                at,
                Request::Pin {
                    cid: cid(number),
                    options: options(Replicas::Everywhere),
                },
            );
        }
        table.run(Duration::from_millis(10));
    }
    let (first, last, _) = table.nodes[&peer(at)].0.view().log_span();
    assert!(first > 1, "the log was compacted: {first}..={last}");
    table.down.remove(&peer(behind));
    table.restart(behind);
    table.run(10 * SECOND);
    assert_eq!(table.nodes[&peer(behind)].1.pins, table.nodes[&peer(at)].1.pins);
    assert_eq!(phases(&table, &cid(7)), [Some(Phase::Pinned); 3]);
    assert!(
        table.nodes[&peer(behind)]
            .1
            .recovered
            .as_ref()
            .is_some_and(|meta| !meta.reconciling)
    );
}

#[test]
fn minority_refuses_new_requests_and_reports_old_ones_as_unknown() {
    let mut table = Table::new(3);
    table.run(5 * SECOND);
    let alone = leader(&table);
    table.down = (1..=3).filter(|number| *number != alone).map(peer).collect();
    let early = table.request(
        alone,
        Request::Pin {
            cid: cid(1),
            options: options(Replicas::Everywhere),
        },
    );
    table.run(10 * SECOND);
    let late = table.request(
        alone,
        Request::Pin {
            cid: cid(2),
            options: options(Replicas::Everywhere),
        },
    );
    table.run(20 * SECOND);
    assert_eq!(table.replies[&early], Err(Refusal::Unknown));
    assert_eq!(table.replies[&late], Err(Refusal::NoLeader));
}
