//! Drains in a whole cluster: moves, new pins, restarts, and the removal of a drained peer.

use super::*;

const ONE: Replicas = Replicas::Range { min: 1, max: 1 };

fn drain(number: u8, moves_max: u32) -> Request {
    let drain = Drain {
        peer: peer(number),
        since: Timestamp(1),
        pins: 0,
        moves_max,
    };
    Request::Drain { drain }
}

/// Pins `count` CIDs with one copy each, all at the same peer, and returns them.
fn pin_at(cluster: &mut TestCluster, holder: u8, count: u8) -> Vec<Cid> {
    for number in 0..count {
        let mut options = options(ONE);
        options.user_allocations = vec![peer(holder)];
        let cid = cid(number);
        cluster.request(
            1,
            Request::Pin {
                cid,
                options,
                owner: None,
            },
        );
        cluster.run(Duration::from_millis(50));
    }
    (0..count).map(cid).collect()
}

/// Returns how many of the CIDs are pinned at a peer.
fn held(cluster: &TestCluster, holder: u8, cids: &[Cid]) -> usize {
    let (_, disk) = &cluster.nodes[&peer(holder)];
    let is_pinned = |cid: &&Cid| {
        disk.locals
            .get(*cid)
            .is_some_and(|local| local.phase == Phase::Pinned)
    };
    cids.iter().filter(is_pinned).count()
}

#[test]
fn drained_peer_ends_empty_and_is_given_no_new_pins() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let cids = pin_at(&mut cluster, 2, 20);
    assert_eq!(held(&cluster, 2, &cids), 20);
    let ticket = cluster.request(3, drain(2, 4));
    cluster.run(SECOND);
    assert!(
        matches!(cluster.replies[&ticket], Ok(Reply::DrainStarted(_))),
        "{:?}",
        cluster.replies[&ticket]
    );
    for _ in 0..600 {
        cluster.run(Duration::from_millis(100));
        let (_, disk) = &cluster.nodes[&peer(2)];
        assert!(disk.queue.len() <= 4, "{} moves under way", disk.queue.len());
        let copies: usize = (1..=3).map(|number| held(&cluster, number, &cids)).sum();
        let waiting = disk.queue.len();
        assert!(copies + waiting >= 20, "{copies} copies and {waiting} that wait");
    }
    let (node, disk) = &cluster.nodes[&peer(2)];
    assert!(disk.locals.is_empty(), "{:?}", disk.locals);
    assert_eq!(node.view().blocked(), &Blocked::default());
    assert_eq!(held(&cluster, 1, &cids) + held(&cluster, 3, &cids), 20);

    // Not even one that prefers it.
    let mut wish = options(ONE);
    wish.user_allocations = vec![peer(2)];
    let ticket = cluster.request(
        2,
        Request::Pin {
            cid: cid(99),
            options: wish,
            owner: None,
        },
    );
    cluster.run(SECOND);
    let Ok(Reply::Pinned(pin)) = &cluster.replies[&ticket] else {
        panic!("{:?}", cluster.replies[&ticket]);
    };
    assert!(!pin.allocations.contains(&peer(2)), "{pin:?}");
    let three = Replicas::Range { min: 3, max: 3 };
    let ticket = cluster.request(
        1,
        Request::Pin {
            cid: cid(98),
            options: options(three),
            owner: None,
        },
    );
    cluster.run(20 * SECOND);
    let Err(refusal @ Refusal::NotEnoughPeers { available: 2, .. }) = &cluster.replies[&ticket] else {
        panic!("{:?}", cluster.replies[&ticket]);
    };
    let named = format!("{} is being drained", peer(2));
    assert!(refusal.to_string().contains(&named), "{refusal}");
}

#[test]
fn drain_goes_on_after_restarts_a_new_leader_and_a_snapshot() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let drained = leader(&cluster);
    let cids = pin_at(&mut cluster, drained, 12);
    cluster.request(1, drain(drained, 1));
    cluster.run(2 * SECOND);
    assert!(held(&cluster, drained, &cids) > 6, "it moves one at a time");
    cluster.restart(drained);
    cluster.run(5 * SECOND);
    let other = if drained == 1 { 2 } else { 1 };
    cluster.wipe(other, 3);
    cluster.run(120 * SECOND);
    assert_eq!(held(&cluster, drained, &cids), 0);
    for (peer, (node, disk)) in &cluster.nodes {
        assert_eq!(disk.policy.drains.len(), 1, "{peer}");
        assert_eq!(node.view().drains(), disk.policy.drains, "{peer}");
    }
}

#[test]
fn ended_drain_leaves_pins_where_they_are() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let cids = pin_at(&mut cluster, 2, 12);
    cluster.request(1, drain(2, 1));
    cluster.run(SECOND);
    let ticket = cluster.request(3, Request::EndDrain { peer: peer(2) });
    cluster.run(10 * SECOND);
    assert!(
        matches!(cluster.replies[&ticket], Ok(Reply::DrainEnded(_))),
        "{:?}",
        cluster.replies[&ticket]
    );
    let left = held(&cluster, 2, &cids);
    assert!(left > 6, "{left}");
    cluster.run(30 * SECOND);
    assert_eq!(held(&cluster, 2, &cids), left);
    let ticket = cluster.request(3, Request::EndDrain { peer: peer(2) });
    cluster.run(SECOND);
    let missing = Err(Refusal::Drain(DrainError::Missing));
    assert_eq!(cluster.replies[&ticket], missing);
}

#[test]
fn removal_of_a_drained_peer_ends_its_drain() {
    let mut cluster = TestCluster::new(4);
    cluster.run(5 * SECOND);
    let drained = if leader(&cluster) == 2 { 3 } else { 2 };
    cluster.request(1, drain(drained, 9));
    cluster.run(2 * SECOND);
    let gone = peer(drained);
    cluster.request(1, Request::RemovePeer { peer: gone.clone() });
    cluster.run(30 * SECOND);
    for (id, (_, disk)) in cluster.nodes.iter().filter(|(id, _)| **id != gone) {
        assert!(disk.policy.drains.is_empty(), "{id}");
    }
}
