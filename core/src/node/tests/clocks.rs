//! Expiry is judged by the median of the voters' clocks.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn expiring_in(cluster: &TestCluster, time: Duration) -> PinOptions {
    PinOptions {
        expire_at: Some(cluster.now.wall + time),
        ..options(Replicas::Everywhere)
    }
}

fn pin(cluster: &mut TestCluster, number: u8, options: PinOptions) {
    let cid = cid(number);
    let ticket = cluster.request(
        1,
        Request::Pin {
            cid,
            options,
            owner: None,
        },
    );
    cluster.run(SECOND);
    assert!(cluster.replies[&ticket].is_ok(), "{:?}", cluster.replies[&ticket]);
}

fn is_pinned(cluster: &TestCluster, number: u8) -> bool {
    cluster.nodes[&peer(1)].1.pins.contains_key(&cid(number))
}

#[test]
fn leader_with_a_fast_clock_expires_by_the_cluster_time() {
    let mut cluster = TestCluster::new(3);
    cluster.run(20 * SECOND);
    let leader = leader(&cluster);
    let (late, soon) = (
        expiring_in(&cluster, 6 * HOUR),
        expiring_in(&cluster, 60 * SECOND),
    );
    pin(&mut cluster, 1, late);
    pin(&mut cluster, 2, soon);
    cluster.ahead.insert(peer(leader), 24 * HOUR);
    cluster.run(90 * SECOND);
    assert!(is_pinned(&cluster, 1), "removed by one wrong clock");
    assert!(!is_pinned(&cluster, 2), "expired by most clocks");
    for (id, (node, _)) in &cluster.nodes {
        let skewed: Vec<&PeerId> = node.view().skewed_clocks().collect();
        assert_eq!(skewed, [&peer(leader)], "at {id}");
        let alerts: Vec<&Alert> = node.view().alerts().collect();
        let [alert] = alerts[..] else {
            panic!("{alerts:?}");
        };
        assert_eq!(alert.peer, peer(leader));
        assert!(
            alert
                .metric
                .metric
                .value
                .ends_with("s ahead of the cluster's clock"),
            "{alert:?}"
        );
    }
    cluster.ahead.clear();
    cluster.run(60 * SECOND);
    assert_eq!(cluster.nodes[&peer(1)].0.view().skewed_clocks().count(), 0);
}

#[test]
fn cluster_time_needs_a_majority_of_clocks() {
    let mut monitor = crate::monitor::Monitor::new(peer(1), &Config::new(peer(1)).monitor, Now::default());
    let now = Now {
        mono: Instant(1),
        wall: Timestamp(1_000_000_000_000),
    };
    let voters: Vec<PeerId> = (1..=3).map(peer).collect();
    assert_eq!(monitor.cluster_time(now, voters.iter()), None);
    assert_eq!(monitor.cluster_time(now, voters[..1].iter()), Some(now.wall));
    let clock = |wall: i64| Metric {
        name: "clock".to_owned(),
        value: String::new(),
        weight: wall,
        partitionable: false,
        ttl: 30 * SECOND,
        valid: true,
    };
    monitor.received(now, peer(2), vec![clock(900_000_000_000)]);
    let earlier = Some(Timestamp(900_000_000_000));
    assert_eq!(
        monitor.cluster_time(now, voters.iter()),
        earlier,
        "the earlier of two"
    );
    let later = Now {
        mono: now.mono + 10 * SECOND,
        wall: now.wall + 10 * SECOND,
    };
    let counted_on = Some(Timestamp(910_000_000_000));
    assert_eq!(
        monitor.cluster_time(later, voters.iter()),
        counted_on,
        "a reading ages"
    );
    monitor.received(later, peer(3), vec![clock(2_000_000_000_000)]);
    assert_eq!(
        monitor.cluster_time(later, voters.iter()),
        Some(later.wall),
        "the median of three"
    );
    let silent = Now {
        mono: later.mono + 40 * SECOND,
        wall: later.wall,
    };
    assert_eq!(
        monitor.cluster_time(silent, voters.iter()),
        None,
        "expired readings do not count"
    );
}
