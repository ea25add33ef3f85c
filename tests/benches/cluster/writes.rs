//! Rows `writes`, `named`, `single` and `bulk`.

use std::time::Instant;

use tests::Cluster;
use tests::http::Connection;

use crate::load;
use crate::{Arguments, Figures};

/// Pins of the rows `writes` and `named`, after as many that are not measured.
const MANY: u64 = 30_000;

pub(super) fn many(_: &Arguments) -> Figures {
    measure("")
}

pub(super) fn named(_: &Arguments) -> Figures {
    measure("name=docs/2026/report&meta-team=storage")
}

fn measure(query: &str) -> Figures {
    let cluster = Cluster::start();
    load::pin_with(&cluster.peers, 64, 0, MANY / 3, query);
    let before = load::cpu(&cluster);
    let load = load::pin_with(&cluster.peers, 64, MANY, MANY, query);
    let cpu = load::cpu(&cluster) - before;
    vec![
        ("pins per second", load.rate()),
        ("p50, ms", load.percentile(0.5)),
        ("p99, ms", load.percentile(0.99)),
        (
            "CPU per pin and peer, microseconds",
            cpu / 3.0 / MANY as f64 * 1e6,
        ),
    ]
}

pub(super) fn single(_: &Arguments) -> Figures {
    let cluster = Cluster::start();
    load::pin(&cluster.peers, 1, 0, 200);
    let leader = cluster.leader();
    let at_leader = load::pin(&cluster.peers[leader..=leader], 1, 1000, 2000);
    let follower = (leader + 1) % 3;
    let at_follower = load::pin(&cluster.peers[follower..=follower], 1, 10_000, 2000);
    vec![
        ("p50 at the leader, ms", at_leader.percentile(0.5)),
        ("p99 at the leader, ms", at_leader.percentile(0.99)),
        ("p50 at a follower, ms", at_follower.percentile(0.5)),
    ]
}

/// Pins of the row `bulk`.
const BULK: u64 = 100_000;

pub(super) fn bulk(_: &Arguments) -> Figures {
    let cluster = Cluster::start();
    let leader = &cluster.peers[cluster.leader()];
    let body = load::missing_pins(0, BULK);
    let mut connection = Connection::open(leader.rest_port).expect("the peer listens");
    let start = Instant::now();
    let mut lines = 0;
    let answer = connection.request("POST", "/allocations?stream=true", &body, &mut |bytes| {
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    });
    let answer = answer.expect("the peer answers");
    let took = start.elapsed().as_secs_f64();
    assert!(answer.is_success(), "{} {:?}", answer.status, answer.error());
    assert_eq!(lines, BULK, "each pin is answered");
    vec![("pins per second", BULK as f64 / took)]
}
