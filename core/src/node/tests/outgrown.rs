//! Pins for which the IPFS node of a peer has no room.

use super::*;

/// Pins a CID with one copy at peer 2, whose IPFS node is full and says that it has `free` bytes.
fn pin_at_full_peer(free: i64) -> (TestCluster, Cid) {
    let mut cluster = TestCluster::new(3);
    cluster.full.insert(peer(2));
    cluster.free.insert(peer(2), free);
    cluster.run(20 * SECOND);
    let mut wish = options(Replicas::Range { min: 1, max: 1 });
    wish.user_allocations = vec![peer(2)];
    let cid = cid(7);
    let request = Request::Pin {
        cid: cid.clone(),
        options: wish,
        owner: None,
    };
    cluster.request(1, request);
    cluster.run(SECOND);
    (cluster, cid)
}

fn holder(cluster: &TestCluster, cid: &Cid) -> PeerId {
    let (_, disk) = &cluster.nodes[&peer(1)];
    let [holder] = &disk.pins[cid].allocations[..] else {
        panic!("{:?} has not one copy", disk.pins[cid]);
    };
    holder.clone()
}

#[test]
fn pin_that_does_not_fit_twice_moves_to_a_peer_with_more_free_space() {
    let (mut cluster, cid) = pin_at_full_peer(1 << 30);
    assert_eq!(holder(&cluster, &cid), peer(2), "garbage may be collected");
    cluster.run(20 * SECOND);
    let holder = holder(&cluster, &cid);
    assert_ne!(holder, peer(2));
    let (_, disk) = &cluster.nodes[&holder];
    assert_eq!(disk.locals[&cid].phase, Phase::Pinned);
    let (_, disk) = &cluster.nodes[&peer(2)];
    assert_eq!(disk.locals.get(&cid), None);
}

#[test]
fn pin_that_does_not_fit_stays_without_a_peer_with_more_free_space() {
    let (mut cluster, cid) = pin_at_full_peer(1 << 50);
    cluster.run(120 * SECOND);
    assert_eq!(holder(&cluster, &cid), peer(2));
    let (_, disk) = &cluster.nodes[&peer(2)];
    let local = &disk.locals[&cid];
    assert_eq!(
        (local.phase, local.error.as_str()),
        (Phase::PinError, "storage full")
    );
    assert!(local.attempts > 2, "{local:?}");
}
