//! Rows `pins` and `newcomer`: a large pinset.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::{Cluster, Peer, cids, wait_until};

use crate::load;
use crate::{Arguments, Figures};

pub(super) fn measure(arguments: &Arguments) -> Figures {
    let mut cluster = Cluster::start();
    let empty = largest(&cluster);
    let start = Instant::now();
    load::import(&cluster.peers, 0, arguments.pins, &Value::Null);
    let imported = start.elapsed().as_secs_f64();
    let loaded = largest(&cluster);
    let (_, listed, lines) = load::read(&cluster.peers[0], "/allocations");
    assert!(lines >= arguments.pins, "{lines} of {} pins", arguments.pins);
    let (first, status, _) = load::read(&cluster.peers[0], "/pins");
    load::read(&cluster.peers[0], "/pins");
    let used = largest(&cluster);
    let peer = &mut cluster.peers[0];
    peer.kill();
    let start = Instant::now();
    peer.start();
    while peer.rest("GET", "/id").is_err() {
        peer.check();
        std::thread::sleep(Duration::from_millis(5));
    }
    let restart = start.elapsed().as_secs_f64();
    let load = load::pin(&cluster.peers, 64, 0, 30_000);
    vec![
        ("import, pins per second", arguments.pins as f64 / imported),
        ("resident memory, empty, MiB", empty),
        ("resident memory, loaded, MiB", loaded),
        ("resident memory, after two statuses, MiB", used),
        ("list of all pins, s", listed),
        ("status of all pins, first byte, ms", first * 1e3),
        ("status of all pins, s", status),
        ("restart after a kill to answering, s", restart),
        ("writes afterwards, pins per second", load.rate()),
        ("writes afterwards, p99, ms", load.percentile(0.99)),
    ]
}

pub(super) fn newcomer(arguments: &Arguments) -> Figures {
    let mut cluster = Cluster::start();
    load::import(&cluster.peers, 0, arguments.pins, &Value::Null);
    let before = load::pin(&cluster.peers, 16, 0, 10_000).rate();
    let number = cluster.newcomer();
    let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let bootstrap = cluster.peers[0].address();
    let (members, joining) = cluster.peers.split_at_mut(number);
    let peer = &mut joining[0];
    let took = std::thread::scope(|scope| {
        let (done, written, members) = (&done, &written, &*members);
        scope.spawn(move || {
            let mut next = 1_000_000;
            while !done.load(Ordering::Relaxed) {
                load::pin(members, 16, next, 500);
                next += 500;
                written.fetch_add(500, Ordering::Relaxed);
            }
        });
        let start = Instant::now();
        peer.start_with(&["--bootstrap", &bootstrap]);
        let took = caught_up(peer, arguments.pins, start);
        done.store(true, Ordering::Relaxed);
        took
    });
    let during = written.load(Ordering::Relaxed) as f64 / took;
    vec![
        ("time until the newcomer has all pins, s", took),
        ("writes before, pins per second", before),
        ("writes meanwhile, pins per second", during),
    ]
}

/// Waits until a peer has the last pin of the import, and enough others; returns the time since `start`.
fn caught_up(peer: &Peer, pins: u64, start: Instant) -> f64 {
    let last = format!("/allocations/{}", cids::missing(pins - 1));
    while !peer.try_get(&last).is_ok_and(|answer| answer.is_success()) {
        assert!(
            start.elapsed() < Duration::from_secs(900),
            "the newcomer has not caught up"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let took = start.elapsed().as_secs_f64();
    wait_until("the newcomer lists all pins", || {
        let (_, _, lines) = load::read(peer, "/allocations");
        if lines >= pins {
            Ok(())
        } else {
            Err(format!("{lines}"))
        }
    });
    took
}

/// Returns the resident memory of the peer that has most, in MiB.
fn largest(cluster: &Cluster) -> f64 {
    cluster.peers.iter().map(load::memory).fold(0.0, f64::max)
}
