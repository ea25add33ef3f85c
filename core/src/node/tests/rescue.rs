//! Rescue of a cluster that has lost its majority.

use super::*;
use crate::rescue::RescueError;

const NEW: ClusterId = ClusterId([3; 16]);

/// Pins CIDs 0 to 3, then isolates the leader with a removal and a pin that only it has in its log.
fn isolate(cluster: &mut TestCluster, survivor: u8, others: &[u8]) {
    for number in 0..4 {
        let pinned = cluster.request(
            survivor,
            Request::Pin {
                cid: cid(number),
                options: options(TWO),
                owner: None,
            },
        );
        cluster.run(SECOND / 2);
        assert!(cluster.replies[&pinned].is_ok());
    }
    cluster.down = others.iter().map(|number| peer(*number)).collect();
    cluster.request(
        survivor,
        Request::RemovePeer {
            peer: peer(others[0]),
        },
    );
    cluster.request(
        survivor,
        Request::Pin {
            cid: cid(9),
            options: options(Replicas::Everywhere),
            owner: None,
        },
    );
    cluster.run(SECOND / 10);
}

#[test]
fn rescued_survivor_keeps_all_pins_and_others_join() {
    let mut cluster = TestCluster::new(5);
    cluster.run(5 * SECOND);
    let survivor = leader(&cluster);
    let others: Vec<u8> = (1..=5).filter(|number| *number != survivor).collect();
    let (second, lost) = (others[0], &others[1..]);
    isolate(&mut cluster, survivor, &others);
    let old = cluster.nodes[&peer(survivor)].0.view().members().clone();

    let (node, disk) = cluster.nodes.get_mut(&peer(survivor)).unwrap();
    let next = node.view().members().next_raft_id;
    let recovered = disk.recover();
    let (rescue, ops) = recovered
        .rescue(&peer(survivor), &[peer(survivor), peer(second)].into(), NEW)
        .unwrap();
    assert!(rescue.kept_entries > 0);
    assert_eq!(rescue.members.raft_id(&peer(survivor)), Some(next));
    assert_eq!(rescue.members.joining, [peer(second)].into());
    assert_eq!(
        rescue.members.departed,
        lost.iter().map(|number| peer(*number)).collect()
    );
    let id = BatchId(1);
    disk.write(&Batch { id, ops, sync: true });
    cluster.restart(survivor);
    cluster.nodes.remove(&peer(second));
    cluster.run(5 * SECOND);

    let view = cluster.nodes[&peer(survivor)].0.view();
    assert!(view.is_leader());
    assert_eq!(view.members().cluster, NEW);
    assert_ne!(old.cluster, NEW);
    assert_eq!(
        cluster.nodes[&peer(survivor)].1.pins.len(),
        5,
        "entries that only the leader had are kept"
    );
    cluster.down.remove(&peer(second));
    cluster.join(second);
    cluster.run(10 * SECOND);
    assert_eq!(cluster.nodes[&peer(second)].1.pins.len(), 5);
    let view = cluster.nodes[&peer(second)].0.view();
    assert_eq!((view.members().cluster, view.members().peers.len()), (NEW, 2));
    // The pins of the lost peers are re-allocated.
    cluster.run(60 * SECOND);
    for pin in cluster.nodes[&peer(survivor)].1.pins.values() {
        for gone in lost {
            assert!(!pin.allocations.contains(&peer(*gone)), "{pin:?}");
        }
    }
}

#[test]
fn data_without_a_membership_cannot_be_rescued() {
    let recovered = Recovered::joining(Incarnation(1), ClusterId::UNKNOWN);
    let outcome = recovered.rescue(&peer(1), &[peer(1)].into(), NEW);
    assert_eq!(outcome, Err(RescueError::NoMembership));
}

/// Pins of a peer that the first rescue was still to add, and the second one was not, stayed with it
/// (simulated seed 100815).
#[test]
fn peers_that_were_being_added_count_as_departed() {
    let members = Members::initial((1..=3).map(peer));
    let mut recovered = Recovered::founding(Incarnation(1), members);
    let everybody = (1..=3).map(peer).collect();
    let (first, _) = recovered.rescue(&peer(1), &everybody, NEW).unwrap();
    assert_eq!(first.members.joining, [peer(2), peer(3)].into());
    assert_eq!(first.members.departed, [].into());
    recovered.members = first.members;
    let survivors = [peer(1), peer(3)].into();
    let (second, _) = recovered.rescue(&peer(1), &survivors, NEW).unwrap();
    assert_eq!(second.members.joining, [peer(3)].into());
    assert_eq!(second.members.departed, [peer(2)].into());
}
