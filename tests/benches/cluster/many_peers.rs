//! Rows `idle` and `wide`: many peers on one machine.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::{Cluster, Options, PATIENCE};

use crate::load;
use crate::{Arguments, Figures};

/// Time over which an idle cluster is watched.
const WATCHED: Duration = Duration::from_secs(30);

fn start(arguments: &Arguments) -> (Cluster, f64) {
    let options = Options {
        peers: arguments.peers,
        // The default, in place of the tests' short interval.
        edit: |config| config["cluster"]["monitor_ping_interval"] = json!("15s"),
        ..Options::default()
    };
    let mut cluster = Cluster::prepare(&options);
    let start = Instant::now();
    for peer in &mut cluster.peers {
        peer.start();
    }
    for peer in &mut cluster.peers {
        while !peer.log().contains("** IPFS Cluster is READY **") {
            peer.check();
            assert!(start.elapsed() < PATIENCE * 4, "{} is not ready", peer.name);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let took = start.elapsed().as_secs_f64();
    cluster.wait_ready();
    (cluster, took)
}

pub(super) fn idle(arguments: &Arguments) -> Figures {
    let (cluster, started) = start(arguments);
    // Connections and first metrics of all peers.
    std::thread::sleep(WATCHED);
    let before = load::cpu(&cluster);
    std::thread::sleep(WATCHED);
    let used = load::cpu(&cluster) - before;
    load::import(&cluster.peers, 0, 10_000, &Value::Null);
    let (first, status, _) = load::read(&cluster.peers[0], "/pins");
    vec![
        ("start of all until ready, s", started),
        ("cores used by all, idle", used / WATCHED.as_secs_f64()),
        ("status of 10,000 pins, first byte, s", first),
        ("status of 10,000 pins, s", status),
    ]
}

pub(super) fn writes(arguments: &Arguments) -> Figures {
    let (cluster, _) = start(arguments);
    let load = load::pin(&cluster.peers, 64, 0, 10_000);
    let single = load::pin(&cluster.peers[..1], 1, 100_000, 200);
    vec![
        ("pins per second, 64 connections", load.rate()),
        ("p99, ms", load.percentile(0.99)),
        ("one after another, p50, ms", single.percentile(0.5)),
    ]
}
