//! Allocation of pins, and the reasons in refusals.

use super::*;

const ONE: Replicas = Replicas::Range { min: 1, max: 1 };

fn pin(cluster: &mut TestCluster, at: u8, number: u8, options: PinOptions) -> Result<Reply, Refusal> {
    let cid = cid(number);
    let ticket = cluster.request(
        at,
        Request::Pin {
            cid,
            options,
            owner: None,
        },
    );
    cluster.run(20 * SECOND);
    cluster.replies[&ticket].clone()
}

fn allocations(reply: Result<Reply, Refusal>) -> Vec<PeerId> {
    match reply {
        Ok(Reply::Pinned(pin)) => pin.allocations,
        other => panic!("{other:?} instead of a pin"),
    }
}

/// Adding a file again through another peer prefers that peer, which has the blocks.
#[test]
fn pinning_again_keeps_a_holder_that_has_become_full() {
    let mut cluster = TestCluster::new(3);
    cluster.run(20 * SECOND);
    let preferring = |number| PinOptions {
        user_allocations: vec![peer(number)],
        ..options(ONE)
    };
    assert_eq!(allocations(pin(&mut cluster, 1, 7, preferring(1))), [peer(1)]);
    assert_eq!(allocations(pin(&mut cluster, 2, 7, preferring(2))), [peer(1)]);
    cluster.free.insert(peer(1), 0);
    cluster.run(60 * SECOND);
    assert_eq!(allocations(pin(&mut cluster, 2, 7, preferring(2))), [peer(1)]);
    assert!(!allocations(pin(&mut cluster, 2, 8, preferring(1))).contains(&peer(1)));
}

#[test]
fn refusal_names_live_peers_that_are_full() {
    let mut cluster = TestCluster::new(2);
    cluster.free = [(peer(1), 0), (peer(2), 0)].into();
    cluster.run(60 * SECOND);
    let refused = pin(&mut cluster, 1, 7, options(ONE)).unwrap_err().to_string();
    for number in 1..=2 {
        let full = format!("{} is full", peer(number));
        assert!(refused.contains(&full), "{refused}");
    }
    assert!(!refused.contains("when they are alive"), "{refused}");
    let leader = leader(&cluster);
    let view = cluster.nodes[&peer(leader)].0.view();
    assert_eq!(
        view.metrics(cluster.now, "freespace").count(),
        2,
        "full peers are shown"
    );
}

#[test]
fn update_of_a_cid_that_is_not_pinned_is_not_found() {
    let mut cluster = TestCluster::new(1);
    cluster.run(5 * SECOND);
    let options = PinOptions {
        pin_update: Some(cid(1)),
        ..options(Replicas::Everywhere)
    };
    assert_eq!(pin(&mut cluster, 1, 2, options), Err(Refusal::NotFound));
}
