//! Rows `writes`, `named`, `single` and `bulk`.

use std::time::Instant;

use serde_json::{Value, json};
use tests::Cluster;
use tests::http::Connection;

use crate::load;
use crate::{Arguments, Figures};

/// Pins of a measurement of the rows `writes`, `named` and `indexed`.
const MANY: u64 = 30_000;

/// Options of the pins of the rows `named` and `indexed`.
const NAMED: &str = "name=docs/2026/report&meta-team=storage";

pub(super) fn many(_: &Arguments) -> Figures {
    measure(&warm(""), 0, "")
}

pub(super) fn named(_: &Arguments) -> Figures {
    measure(&warm(NAMED), 0, NAMED)
}

pub(super) fn indexed(arguments: &Arguments) -> Box<dyn FnMut() -> Figures> {
    let cluster = Cluster::start();
    let fields = json!({ "name": "docs/2026/report", "metadata": { "team": "storage" } });
    load::import(&cluster.peers, 0, arguments.pins, &fields);
    load::settle(&cluster);
    let mut rounds = 0;
    Box::new(move || {
        rounds += 1;
        measure(&cluster, rounds * MANY, NAMED)
    })
}

/// Starts a cluster, and pins a third as much as will be measured.
fn warm(query: &str) -> Cluster {
    let cluster = Cluster::start();
    load::pin_with(&cluster.peers, 64, MANY, MANY / 3, query);
    cluster
}

/// Measures `MANY` pins from `first` on.
fn measure(cluster: &Cluster, first: u64, query: &str) -> Figures {
    let before = load::cpu(cluster);
    let load = load::pin_with(&cluster.peers, 64, first, MANY, query);
    let cpu = load::cpu(cluster) - before;
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
    let body = load::missing_pins(0, BULK, &Value::Null);
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
