//! Rebalancing in a whole cluster: new peers, zones, leader changes, and the end of runs.

use super::*;

const ONE: Replicas = Replicas::Range { min: 1, max: 1 };

fn pin(cluster: &mut TestCluster, number: u8, replicas: Replicas) {
    let request = Request::Pin {
        cid: cid(number),
        options: options(replicas),
        owner: None,
    };
    cluster.request(1, request);
    cluster.run(Duration::from_millis(50));
}

fn change(cluster: &mut TestCluster, at: u8, change: RebalanceChange) -> Result<Reply, Refusal> {
    let ticket = cluster.request(at, Request::Rebalance { change });
    cluster.run(SECOND);
    cluster.replies[&ticket].clone()
}

fn start() -> RebalanceChange {
    RebalanceChange::Start { since: Timestamp(7) }
}

/// Returns the numbers of copies that the peers hold.
fn held(cluster: &TestCluster) -> Vec<usize> {
    let count = |(_, disk): &(Node, Disk)| {
        let pinned = disk.locals.values().filter(|local| local.phase == Phase::Pinned);
        pinned.count()
    };
    cluster.nodes.values().map(count).collect()
}

/// Makes peer 3 unable to take pins until the first `count` are pinned at the others.
fn filled_without_the_third(count: u8) -> TestCluster {
    let mut cluster = TestCluster::new(3);
    cluster.free.insert(peer(3), 0);
    cluster.run(5 * SECOND);
    for number in 0..count {
        pin(&mut cluster, number, ONE);
    }
    assert_eq!(held(&cluster)[2], 0);
    cluster.free.clear();
    cluster.run(40 * SECOND);
    assert_eq!(held(&cluster)[2], 0, "nothing moves without a request");
    cluster
}

#[test]
fn run_evens_out_the_copies_and_ends() {
    let mut cluster = filled_without_the_third(60);
    let Ok(Reply::Rebalanced(state)) = change(&mut cluster, 2, start()) else {
        panic!("is started");
    };
    assert!(state.run.is_some());
    cluster.restart(leader(&cluster));
    for _ in 0..120 {
        cluster.run(SECOND);
        let copies: usize = held(&cluster).iter().sum();
        let waiting: usize = cluster.nodes.values().map(|(_, disk)| disk.queue.len()).sum();
        assert!(copies + waiting >= 60, "{copies} copies and {waiting} that wait");
    }
    for (count, (id, (node, disk))) in held(&cluster).iter().zip(&cluster.nodes) {
        assert!((18..=22).contains(count), "{id} holds {count}");
        assert_eq!(disk.policy.rebalance.run, None, "{id}");
        assert_eq!(node.view().rebalance(), &disk.policy.rebalance, "{id}");
        assert!(disk.queue.is_empty(), "{id}");
    }
    let end = RebalanceChange::End { since: None };
    let refused = change(&mut cluster, 1, end);
    assert_eq!(refused, Err(Refusal::Rebalance(NotRebalancing)));
}

#[test]
fn new_peer_fills_up_without_an_operator_and_then_nothing_moves() {
    let mut cluster = filled_without_the_third(60);
    let settings = RebalanceSettings {
        automatic: true,
        moves_max: 3,
        ..RebalanceSettings::default()
    };
    let set = change(&mut cluster, 1, RebalanceChange::Settings(settings));
    assert!(matches!(set, Ok(Reply::Rebalanced(_))), "{set:?}");
    for _ in 0..200 {
        cluster.run(SECOND);
        for (id, (_, disk)) in &cluster.nodes {
            assert!(disk.queue.len() <= 3, "{} moves of {id} wait", disk.queue.len());
        }
    }
    let even = held(&cluster);
    assert!(even.iter().all(|count| (18..=22).contains(count)), "{even:?}");
    let applied: Vec<Index> = cluster
        .nodes
        .values()
        .map(|(node, _)| node.view().applied().index)
        .collect();
    cluster.run(300 * SECOND);
    assert_eq!(held(&cluster), even);
    for (before, (node, _)) in applied.iter().zip(cluster.nodes.values()) {
        assert_eq!(node.view().applied().index, *before, "nothing is proposed");
    }
}

#[test]
fn copies_in_one_zone_are_separated() {
    let mut cluster = TestCluster::new(4);
    cluster.run(5 * SECOND);
    for number in 0..30 {
        pin(&mut cluster, number, TWO);
    }
    for number in 1..=4 {
        let zone = if number <= 2 { "east" } else { "west" };
        cluster.groups.insert(peer(number), zone.to_owned());
    }
    cluster.run(40 * SECOND);
    let broken = |cluster: &TestCluster| {
        let zone = |id: &PeerId| cluster.groups[id].clone();
        let (_, disk) = &cluster.nodes[&peer(1)];
        let same = |pin: &&Pin| zone(&pin.allocations[0]) == zone(&pin.allocations[1]);
        disk.pins.values().filter(same).count()
    };
    assert!(broken(&cluster) > 3, "{}", broken(&cluster));
    change(&mut cluster, 1, start()).expect("is started");
    cluster.run(120 * SECOND);
    assert_eq!(broken(&cluster), 0);
    assert_eq!(held(&cluster).iter().sum::<usize>(), 60);
    assert_eq!(cluster.nodes[&peer(1)].1.policy.rebalance.run, None);
}

#[test]
fn too_many_moves_are_refused() {
    let mut cluster = TestCluster::new(1);
    cluster.run(5 * SECOND);
    let settings = RebalanceSettings {
        moves_max: MOVES_MAX + 1,
        ..RebalanceSettings::default()
    };
    let refused = change(&mut cluster, 1, RebalanceChange::Settings(settings));
    assert!(matches!(refused, Err(Refusal::TooLarge(_))), "{refused:?}");
}
