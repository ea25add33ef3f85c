//! Owners of pins, effect by effect: several hold one pin, and the last one removes it.

use super::harness::{Harness, persist};
use super::*;

fn pin_as(owner: Option<&str>, options: PinOptions) -> Request {
    Request::Pin {
        cid: cid(1),
        options,
        owner: owner.map(str::to_owned),
    }
}

fn unpin_as(owner: Option<&str>) -> Request {
    Request::Unpin {
        cid: cid(1),
        owner: owner.map(str::to_owned),
    }
}

fn named(name: &str) -> PinOptions {
    PinOptions {
        name: name.to_owned(),
        ..options(Replicas::Everywhere)
    }
}

/// Has the only peer of a cluster agree on a request; returns its writes to the pins and the reply.
fn agree(harness: &mut Harness, ticket: u64, request: Request) -> (Vec<StoreOp>, Result<Reply, Refusal>) {
    let effects = harness.request(ticket, request);
    let batch = persist(&effects).id;
    let effects = harness.handle(Event::Persisted { batch });
    let is_pin = |op: &&StoreOp| matches!(op, StoreOp::PutPin { .. } | StoreOp::DeletePin { .. });
    let written = persist(&effects).ops.iter().filter(is_pin).cloned().collect();
    let reply = effects.iter().find_map(|effect| {
        if let Effect::Reply { reply, .. } = effect {
            Some(reply.clone())
        } else {
            None
        }
    });
    (written, reply.expect("a reply"))
}

fn put(pin: &Pin, previous: Option<&Pin>) -> Vec<StoreOp> {
    vec![StoreOp::PutPin {
        pin: pin.clone(),
        previous: previous.cloned().map(Box::new),
    }]
}

fn pinned(reply: Result<Reply, Refusal>) -> Pin {
    let Ok(Reply::Pinned(pin)) = reply else {
        panic!("{reply:?}");
    };
    pin
}

#[test]
fn pin_of_two_owners_is_deleted_when_both_have_let_go() {
    let mut harness = Harness::new(1);
    harness.lead();
    let (written, reply) = agree(&mut harness, 1, pin_as(Some("ann"), named("a")));
    let first = pinned(reply);
    assert_eq!(written, put(&first, None));
    assert_eq!(first.owners().collect::<Vec<_>>(), ["ann"]);

    let (written, reply) = agree(&mut harness, 2, pin_as(Some("bob"), named("b")));
    let shared = pinned(reply);
    assert_eq!(written, put(&shared, Some(&first)));
    assert_eq!(shared.owners().collect::<Vec<_>>(), ["ann", "bob"]);
    assert_eq!(shared.timestamp, first.timestamp);

    let (written, reply) = agree(&mut harness, 3, unpin_as(Some("cy")));
    assert_eq!((written, reply), (Vec::new(), Err(Refusal::NotFound)));

    let (written, reply) = agree(&mut harness, 4, unpin_as(Some("ann")));
    let [StoreOp::PutPin { pin: left, .. }] = &written[..] else {
        panic!("{written:?}");
    };
    assert_eq!(written, put(left, Some(&shared)));
    assert_eq!(left.owners().collect::<Vec<_>>(), ["bob"]);
    assert!(left.version > shared.version);
    assert_eq!(reply, Ok(Reply::Unpinned(shared)));

    let left = left.clone();
    let (written, reply) = agree(&mut harness, 5, unpin_as(Some("bob")));
    assert_eq!(written, [StoreOp::DeletePin { pin: left.clone() }]);
    assert_eq!(reply, Ok(Reply::Unpinned(left)));
    let (written, reply) = agree(&mut harness, 6, unpin_as(Some("bob")));
    assert_eq!((written, reply), (Vec::new(), Err(Refusal::NotFound)));
}

#[test]
fn unpin_without_an_owner_removes_the_pin_of_all_owners() {
    let mut harness = Harness::new(1);
    harness.lead();
    let _ = agree(&mut harness, 1, pin_as(Some("ann"), named("a")));
    let (_, reply) = agree(&mut harness, 2, pin_as(Some("bob"), named("b")));
    let shared = pinned(reply);
    let (written, reply) = agree(&mut harness, 3, unpin_as(None));
    assert_eq!(written, [StoreOp::DeletePin { pin: shared.clone() }]);
    assert_eq!(reply, Ok(Reply::Unpinned(shared)));
}

#[test]
fn owners_that_pin_at_two_peers_at_once_both_hold_the_pin() {
    let mut cluster = TestCluster::new(3);
    cluster.run(5 * SECOND);
    let owners = ["ann", "bob", "cy"];
    for (at, owner) in (1..).zip(owners) {
        cluster.request(at, pin_as(Some(owner), named(owner)));
    }
    cluster.run(5 * SECOND);
    for (peer, (_, disk)) in &cluster.nodes {
        let pin = &disk.pins[&cid(1)];
        assert_eq!(pin.owners().collect::<Vec<_>>(), owners, "{peer}");
        for owner in owners {
            assert_eq!(pin.seen_by(owner).unwrap().options.name, owner, "{peer}");
        }
    }
}

#[test]
fn owners_need_a_cluster_that_can_read_the_release_of_a_pin() {
    let mut cluster = TestCluster::new(1);
    let (node, disk) = cluster.nodes.get_mut(&peer(1)).unwrap();
    let recovered = disk.recovered.as_mut().unwrap();
    recovered.members.version = POLICY_VERSION - 1;
    let mut config = Config::new(peer(1));
    config.version = POLICY_VERSION - 1;
    *node = Node::new(config, recovered.clone(), 1, cluster.now);
    cluster.run(5 * SECOND);
    let ticket = cluster.request(1, unpin_as(Some("ann")));
    cluster.run(20 * SECOND);
    let reply = &cluster.replies[&ticket];
    assert!(matches!(reply, Err(Refusal::Unreadable(_))), "{reply:?}");
}
