mod allocation;
mod batching;
mod clocks;
mod comparison;
mod credentials;
mod deposed;
mod drains;
mod effects;
mod harness;
mod incoming;
mod limits;
mod lost_data;
mod lost_leader;
mod membership;
mod outgrown;
mod owners;
mod promises;
mod rebalance;
mod removed_peer;
mod rescue;
mod sole_voter;
mod surplus;
mod versions;

use std::time::Duration;

use crate::testing::{Disk, TestCluster, cid, metrics, options, peer};
use crate::*;

const SECOND: Duration = Duration::from_secs(1);
const TWO: Replicas = Replicas::Range { min: 2, max: 2 };

fn leader(cluster: &TestCluster) -> u8 {
    let leads = |number: &u8| {
        let id = peer(*number);
        !cluster.down.contains(&id)
            && cluster
                .nodes
                .get(&id)
                .is_some_and(|(node, _)| node.view().is_leader())
    };
    (1..=9).find(leads).expect("there is a leader")
}

fn phases(cluster: &TestCluster, what: &Cid) -> Vec<Option<Phase>> {
    cluster
        .nodes
        .values()
        .map(|(_, disk)| disk.locals.get(what).map(|local| local.phase))
        .collect()
}

#[test]
fn pin_everywhere_is_pinned_by_all_peers() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    for at in 1..=3 {
        let ticket = cluster.request(
            at,
            Request::Pin {
                cid: cid(at),
                options: options(Replicas::Everywhere),
                owner: None,
            },
        );
        cluster.run(SECOND);
        assert!(
            matches!(cluster.replies[&ticket], Ok(Reply::Pinned(_))),
            "{:?}",
            cluster.replies[&ticket]
        );
        assert_eq!(phases(&cluster, &cid(at)), [Some(Phase::Pinned); 3]);
        assert!(cluster.nodes.values().all(|(_, disk)| disk.queue.is_empty()));
    }
}

#[test]
fn single_peer_pins_and_unpins() {
    let mut cluster = TestCluster::new(1);
    let ticket = cluster.request(
        1,
        Request::Pin {
            cid: cid(1),
            options: options(Replicas::Everywhere),
            owner: None,
        },
    );
    cluster.run(5 * SECOND);
    assert!(cluster.replies[&ticket].is_ok());
    let ticket = cluster.request(
        1,
        Request::Unpin {
            cid: cid(1),
            owner: None,
        },
    );
    cluster.run(SECOND);
    assert!(matches!(cluster.replies[&ticket], Ok(Reply::Unpinned(_))));
    assert_eq!(phases(&cluster, &cid(1)), [None]);
}

#[test]
fn early_pin_waits_for_metrics() {
    let mut cluster = TestCluster::new(3);
    let ticket = cluster.request(
        2,
        Request::Pin {
            cid: cid(1),
            options: options(TWO),
            owner: None,
        },
    );
    cluster.run(5 * SECOND);
    assert!(
        matches!(cluster.replies[&ticket], Ok(Reply::Pinned(_))),
        "{:?}",
        cluster.replies[&ticket]
    );
}

#[test]
fn pins_spread_over_peers_of_equal_rank() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    for number in 0..100 {
        cluster.request(
            1,
            Request::Pin {
                cid: cid(number),
                options: options(TWO),
                owner: None,
            },
        );
    }
    cluster.run(SECOND);
    for id in 1..=3 {
        let held = cluster.nodes[&peer(1)]
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
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    for number in 0..30 {
        cluster.request(
            1,
            Request::Pin {
                cid: cid(number),
                options: options(TWO),
                owner: None,
            },
        );
    }
    cluster.run(SECOND);
    let lost = peer(leader(&cluster));
    cluster.down.insert(lost.clone());
    cluster.run(180 * SECOND);
    for (id, (_, disk)) in cluster.nodes.iter().filter(|(id, _)| **id != lost) {
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
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let behind = (1..=3)
        .find(|number| *number != leader(&cluster))
        .expect("there is a follower");
    cluster.down.insert(peer(behind));
    let at = leader(&cluster);
    for round in 0..250_u64 {
        for _ in 0..100 {
            let number = u8::try_from(round % 200).expect("below 200");
            cluster.request(
                at,
                Request::Unpin {
                    cid: cid(number),
                    owner: None,
                },
            );
            cluster.request(
                at,
                Request::Pin {
                    cid: cid(number),
                    options: options(Replicas::Everywhere),
                    owner: None,
                },
            );
        }
        cluster.run(Duration::from_millis(10));
    }
    let (first, last, _) = cluster.nodes[&peer(at)].0.view().log_span();
    assert!(first > 1, "the log was compacted: {first}..={last}");
    cluster.down.remove(&peer(behind));
    cluster.restart(behind);
    cluster.run(10 * SECOND);
    assert_eq!(
        cluster.nodes[&peer(behind)].1.pins,
        cluster.nodes[&peer(at)].1.pins
    );
    assert_eq!(phases(&cluster, &cid(7)), [Some(Phase::Pinned); 3]);
    assert!(
        cluster.nodes[&peer(behind)]
            .1
            .recovered
            .as_ref()
            .is_some_and(|meta| !meta.reconciling)
    );
}

#[test]
fn minority_refuses_new_requests_and_reports_old_ones_as_unknown() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let isolated = leader(&cluster);
    cluster.down = (1..=3).filter(|number| *number != isolated).map(peer).collect();
    let early = cluster.request(
        isolated,
        Request::Pin {
            cid: cid(1),
            options: options(Replicas::Everywhere),
            owner: None,
        },
    );
    cluster.run(10 * SECOND);
    let late = cluster.request(
        isolated,
        Request::Pin {
            cid: cid(2),
            options: options(Replicas::Everywhere),
            owner: None,
        },
    );
    cluster.run(20 * SECOND);
    assert_eq!(cluster.replies[&early], Err(Refusal::Unknown));
    assert_eq!(cluster.replies[&late], Err(Refusal::NoLeader));
}

#[test]
fn silent_peer_keeps_its_pins_during_the_grace_period() {
    let mut cluster = TestCluster::new(4);
    cluster.run(20 * SECOND);
    let cid = cid(1);
    let request = Request::Pin {
        cid: cid.clone(),
        options: options(TWO),
        owner: None,
    };
    let ticket = cluster.request(1, request);
    cluster.run(SECOND);
    let Ok(Reply::Pinned(pin)) = &cluster.replies[&ticket] else {
        panic!("{:?}", cluster.replies[&ticket]);
    };
    let leader = peer(leader(&cluster));
    let holder = pin.allocations.iter().find(|holder| **holder != leader);
    let holder = holder.expect("two peers hold it").clone();
    cluster.down.insert(holder.clone());
    let holds = |cluster: &TestCluster| cluster.nodes[&leader].1.pins[&cid].is_allocated_to(&holder);
    // Its metrics expire within 30 s, and the grace period of 60 s starts then.
    cluster.run(70 * SECOND);
    assert!(holds(&cluster), "moved before the grace period has passed");
    cluster.run(30 * SECOND);
    assert!(!holds(&cluster), "not moved after the grace period");
}

/// The metrics of the leader had expired when it went on, and it moved its pins away (simulated seed 509).
#[test]
fn leader_keeps_its_pins_after_a_pause() {
    let mut cluster = TestCluster::new(3);
    cluster.run(20 * SECOND);
    let (at, cid) = (leader(&cluster), cid(1));
    let preferring = PinOptions {
        user_allocations: vec![peer(at)],
        ..options(Replicas::Range { min: 1, max: 1 })
    };
    let request = Request::Pin {
        cid: cid.clone(),
        options: preferring,
        owner: None,
    };
    cluster.request(at, request);
    cluster.run(SECOND);
    let (node, disk) = cluster.nodes.get_mut(&peer(at)).expect("has been started");
    assert_eq!(disk.pins[&cid].allocations, [peer(at)]);
    // Longer than the time to live of a metric and the grace period.
    let pause = 200 * SECOND;
    let now = Now {
        mono: cluster.now.mono + pause,
        wall: cluster.now.wall + pause,
    };
    // The metrics of the others arrive first.
    for number in (1..=3).filter(|number| *number != at) {
        let envelope = Envelope {
            cluster: disk.recovered.as_ref().expect("has been founded").members.cluster,
            incarnation: Incarnation(u64::from(number)),
            addressee: None,
            version: VERSION,
            message: Message::Metrics(metrics(1 << 40)),
        };
        let from = peer(number);
        let _ = node.handle(now, disk, Event::Received { from, envelope });
    }
    let effects = node.handle(now, disk, Event::TimedOut);
    assert!(node.view().is_leader());
    let is_write = |effect: &Effect| matches!(effect, Effect::Persist(Batch { sync: true, .. }));
    assert!(!effects.iter().any(is_write), "{effects:?}");
}

#[test]
fn lost_snapshot_is_sent_again() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let at = leader(&cluster);
    let behind = if at == 1 { 2 } else { 1 };
    cluster.down.insert(peer(behind));
    for round in 0..250_u64 {
        let number = u8::try_from(round).expect("below 250");
        cluster.request(
            at,
            Request::Unpin {
                cid: cid(number),
                owner: None,
            },
        );
        cluster.run(Duration::from_millis(10));
    }
    let (first, ..) = cluster.nodes[&peer(at)].0.view().log_span();
    assert!(first > 1, "the log was compacted");
    cluster.lost_snapshots = 1;
    cluster.down.remove(&peer(behind));
    cluster.run(10 * SECOND);
    assert_eq!(cluster.lost_snapshots, 0, "a snapshot was sent");
    let applied = |number: u8| cluster.nodes[&peer(number)].0.view().applied();
    assert_eq!(applied(behind), applied(at));
}
