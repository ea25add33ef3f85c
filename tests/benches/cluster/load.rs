//! Load on a cluster: many connections, latencies, CPU time.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::http::Connection;
use tests::{Cluster, Peer, cids};

/// Time over which [`settle`] looks at the CPU.
const SETTLING: Duration = Duration::from_secs(3);

/// Latencies of a load, and its duration.
pub(super) struct Load {
    latencies: Vec<Duration>,
    /// Time from the first request to the last response.
    pub(super) took: Duration,
}

impl Load {
    /// Responses per second.
    pub(super) fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// Latency that this part of the requests did not exceed, in milliseconds.
    pub(super) fn percentile(&self, part: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let at = (last as f64 * part) as usize;
        self.latencies
            .get(at)
            .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }
}

/// Sends `POST /pins/CID?QUERY` for identity CIDs `first` to `first + count`, on `connections` connections
/// spread over these peers.
///
/// # Panics
/// If a request fails.
pub(super) fn pin_with(peers: &[Peer], connections: usize, first: u64, count: u64, query: &str) -> Load {
    let next = AtomicU64::new(first);
    let start = Instant::now();
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..connections)
            .map(|number| {
                let port = peers[number % peers.len()].rest_port;
                let next = &next;
                scope.spawn(move || {
                    let mut connection = Connection::open(port).expect("the peer listens");
                    let mut latencies = Vec::new();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= first + count {
                            return latencies;
                        }
                        let cid = cids::identity(&format!("load {number:010}"));
                        let target = format!("/pins/{cid}?{query}");
                        let start = Instant::now();
                        let answer = connection.request("POST", &target, &[], &mut |_| {});
                        let answer = answer.expect("the peer answers");
                        assert_eq!(answer.status, 200, "{target}");
                        latencies.push(start.elapsed());
                    }
                })
            })
            .collect();
        for thread in running {
            latencies.extend(thread.join().expect("no request fails"));
        }
    });
    let took = start.elapsed();
    latencies.sort();
    Load { latencies, took }
}

/// As [`pin_with`], without options.
pub(super) fn pin(peers: &[Peer], connections: usize, first: u64, count: u64) -> Load {
    pin_with(peers, connections, first, count, "")
}

/// Lines of `POST /allocations` for pins `first` to `first + count` whose content nobody has. `fields` are
/// added to each.
pub(super) fn missing_pins(first: u64, count: u64, fields: &Value) -> Vec<u8> {
    let line = |number| {
        let mut pin = json!({ "cid": cids::missing(number), "type": "pin" });
        for (name, value) in fields.as_object().into_iter().flatten() {
            pin[name] = value.clone();
        }
        format!("{pin}\n")
    };
    (first..first + count).map(line).collect::<String>().into_bytes()
}

/// Pins in one request of [`import`].
const PINS_PER_REQUEST: u64 = 4000;

/// Adds the pins of [`missing_pins`] on four connections.
///
/// # Panics
/// If a request fails.
pub(super) fn import(peers: &[Peer], first: u64, count: u64, fields: &Value) {
    let next = AtomicU64::new(first);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let port = peers[number % peers.len()].rest_port;
            let next = &next;
            scope.spawn(move || {
                let mut connection = Connection::open(port).expect("the peer listens");
                loop {
                    let from = next.fetch_add(PINS_PER_REQUEST, Ordering::Relaxed);
                    let Some(left) = (first + count).checked_sub(from).filter(|left| *left > 0) else {
                        return;
                    };
                    let body = missing_pins(from, left.min(PINS_PER_REQUEST), fields);
                    // A peer that is busy refuses, and may be asked again.
                    loop {
                        let answer = connection.request("POST", "/allocations", &body, &mut |_| {});
                        let answer = answer.expect("the peer answers");
                        if answer.status == 204 {
                            break;
                        }
                        assert_eq!(answer.status, 503, "POST /allocations");
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
            });
        }
    });
}

/// Reads a stream of lines: time to the first byte, and in all, in seconds, and the number of lines.
///
/// # Panics
/// If the request fails.
pub(super) fn read(peer: &Peer, target: &str) -> (f64, f64, u64) {
    let mut connection = Connection::open(peer.rest_port).expect("the peer listens");
    let start = Instant::now();
    let (mut first, mut lines) = (None, 0);
    let answer = connection.request("GET", target, &[], &mut |bytes| {
        first.get_or_insert_with(|| start.elapsed());
        lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
    });
    let answer = answer.expect("the peer answers");
    assert!(
        answer.is_success(),
        "{target}: {} {:?}",
        answer.status,
        answer.error()
    );
    let first = first.unwrap_or_default();
    (first.as_secs_f64(), start.elapsed().as_secs_f64(), lines)
}

/// Returns the CPU time that the running peers have used together, in seconds.
pub(super) fn cpu(cluster: &Cluster) -> f64 {
    let of = |peer: &Peer| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", peer.pid())).unwrap_or_default();
        // Fields 14 and 15, in ticks of 10 ms; the second may contain blanks, and ends with a parenthesis.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let ticks = rest
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|ticks| ticks.parse::<u64>().ok());
        ticks.sum::<u64>() as f64 / 100.0
    };
    cluster
        .peers
        .iter()
        .filter(|peer| peer.is_started())
        .map(of)
        .sum()
}

/// Waits until the peers use little CPU: what a load left for later is done.
pub(super) fn settle(cluster: &Cluster) {
    let mut before = cpu(cluster);
    loop {
        std::thread::sleep(SETTLING);
        let now = cpu(cluster);
        if now - before < 0.15 * SETTLING.as_secs_f64() * cluster.peers.len() as f64 {
            return;
        }
        before = now;
    }
}

/// Returns the resident memory of a peer, in MiB.
pub(super) fn memory(peer: &Peer) -> f64 {
    let status = fs::read_to_string(format!("/proc/{}/status", peer.pid())).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    kib.unwrap_or(f64::NAN) / 1024.0
}
