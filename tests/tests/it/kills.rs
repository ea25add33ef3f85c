//! SIGKILL of any process at any moment loses no acknowledged write.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::cids::{self, Numbers};
use tests::{Cluster, Peer, http, wait_until};

/// Default number of kills of each of the three processes; `KILLS` overrides it.
const KILLS: u32 = 5;
/// Concurrent clients: two per peer.
const WRITERS: usize = 6;

/// Writes between two kills, so that kills hit a working cluster and not one in an election.
const WRITES: u64 = 40;

/// State shared by the writers and the killer.
#[derive(Debug, Default)]
struct Load {
    stop: AtomicBool,
    acknowledged: AtomicU64,
}

/// A client's knowledge about one CID.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Known {
    Pinned,
    Unpinned,
    /// No response or an error: the request may have taken effect.
    Unknown,
}

/// Client that pins and unpins its own CIDs through all peers, and records acknowledged writes.
struct Writer {
    number: usize,
    ports: Vec<u16>,
    numbers: Numbers,
    cids: BTreeMap<String, Known>,
    failed: u64,
    broken_promises: Vec<String>,
}

impl Writer {
    fn new(number: usize, ports: &[u16]) -> Self {
        Self {
            number,
            ports: ports.to_vec(),
            numbers: Numbers::new(number as u64),
            cids: BTreeMap::new(),
            failed: 0,
            broken_promises: Vec::new(),
        }
    }

    fn write(mut self, load: &Load) -> Self {
        let mut at = self.number;
        while !load.stop.load(Ordering::Relaxed) {
            if self.write_one(self.ports[at % self.ports.len()]) {
                load.acknowledged.fetch_add(1, Ordering::Relaxed);
                at += usize::from(self.numbers.below(20) == 0);
            } else {
                // That peer is probably dead: use the next.
                at += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        self
    }

    /// Pins or unpins one CID, and checks that the same peer shows it.
    fn write_one(&mut self, port: u16) -> bool {
        let pinned = self.cids.iter().filter(|(_, known)| **known == Known::Pinned);
        let pinned: Vec<&String> = pinned.map(|(cid, _)| cid).collect();
        let unpin = pinned.len() > 50 && self.numbers.below(2) == 0;
        let (method, cid, aim, shown) = if unpin {
            let at = usize::try_from(self.numbers.below(pinned.len() as u64)).unwrap();
            ("DELETE", pinned[at].clone(), Known::Unpinned, 404)
        } else {
            let cid = cids::identity(&format!("writer {} pin {}", self.number, self.cids.len()));
            ("POST", cid, Known::Pinned, 200)
        };
        let answer = http::request(port, method, &format!("/pins/{cid}"), &[], &[]);
        if !answer.is_ok_and(|answer| answer.is_success()) {
            self.failed += 1;
            self.cids.insert(cid, Known::Unknown);
            return false;
        }
        if let Ok(answer) = http::request(port, "GET", &format!("/allocations/{cid}"), &[], &[])
            && answer.status != shown
            && answer.status < 500
            // It may have been restarted in between; its response then has a warning that it may be stale.
            && !answer.headers.iter().any(|(name, _)| name == "warning")
        {
            let (status, text) = (answer.status, answer.text());
            self.broken_promises
                .push(format!("{method} {cid}, then {status} {text}"));
        }
        self.cids.insert(cid, aim);
        true
    }
}

fn kills() -> u32 {
    let Ok(text) = std::env::var("KILLS") else {
        return KILLS;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("KILLS={text} is not a number"))
}

/// Kills each peer `kills` times, at moments independent of its work.
fn kill_and_restart(cluster: &mut Cluster, kills: u32, load: &Load) {
    let mut numbers = Numbers::new(u64::from(std::process::id()));
    for round in 0..kills {
        for at in 0..cluster.peers.len() {
            std::thread::sleep(Duration::from_millis(numbers.below(300)));
            cluster.peers.iter_mut().for_each(Peer::check);
            cluster.peers[at].kill();
            std::thread::sleep(Duration::from_millis(numbers.below(300)));
            cluster.peers[at].start();
            // Sometimes the next peer dies while this one is starting: no majority is left for a while.
            if round % 4 != 3 {
                wait_for_writes(cluster, load);
            }
        }
        println!(
            "round {round}: {} writes",
            load.acknowledged.load(Ordering::Relaxed)
        );
    }
}

fn wait_for_writes(cluster: &mut Cluster, load: &Load) {
    let before = load.acknowledged.load(Ordering::Relaxed);
    wait_until("writes succeed while one peer starts again", || {
        cluster.peers.iter_mut().for_each(Peer::check);
        let writes = load.acknowledged.load(Ordering::Relaxed) - before;
        if writes < WRITES {
            Err(format!("{writes} did"))
        } else {
            Ok(())
        }
    });
}

#[test]
fn repeatedly_killed_peers_lose_no_acknowledged_pin() {
    let mut cluster = Cluster::start();
    let ports: Vec<u16> = cluster.peers.iter().map(|peer| peer.rest_port).collect();
    let load = Load::default();
    let kills = kills();
    let since = Instant::now();
    let writers: Vec<Writer> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..WRITERS)
            .map(|number| {
                let writer = Writer::new(number, &ports);
                scope.spawn(|| writer.write(&load))
            })
            .collect();
        // After a failure the writers must be stopped, or the scope would never end.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            kill_and_restart(&mut cluster, kills, &load);
        }));
        load.stop.store(true, Ordering::Relaxed);
        let writers = running.into_iter().map(|writer| writer.join().unwrap()).collect();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        writers
    });
    let acknowledged = load.acknowledged.load(Ordering::Relaxed);
    let failed: u64 = writers.iter().map(|writer| writer.failed).sum();
    println!(
        "{kills} kills of each peer in {:?}: {acknowledged} writes, {failed} failed",
        since.elapsed()
    );
    for writer in &writers {
        assert_eq!(writer.broken_promises, Vec::<String>::new());
    }
    compare(&mut cluster, &writers);
}

/// Asserts that all peers have the same pinset, with every acknowledged pin and no acknowledged unpin.
fn compare(cluster: &mut Cluster, writers: &[Writer]) {
    for peer in &mut cluster.peers {
        wait_until("every peer accepts pins", || {
            peer.check();
            peer.ask("POST", &format!("/pins/{}", cids::identity("the last one")))
        });
    }
    let sets = wait_until("all peers have the same pinset", || {
        let sets: Vec<Vec<String>> = cluster.peers.iter().map(Peer::pinset).collect::<Result<_, _>>()?;
        if sets.iter().any(|set| *set != sets[0]) {
            let sizes: Vec<usize> = sets.iter().map(Vec::len).collect();
            return Err(format!("{sizes:?} pins"));
        }
        Ok(sets)
    });
    let set = &sets[0];
    let mut wrong = Vec::new();
    for (cid, known) in writers.iter().flat_map(|writer| &writer.cids) {
        let found = set.binary_search(cid).is_ok();
        match known {
            Known::Pinned if !found => wrong.push(format!("the pin of {cid} was acknowledged, and is lost")),
            Known::Unpinned if found => wrong.push(format!("{cid} was unpinned, and is back")),
            Known::Pinned | Known::Unpinned | Known::Unknown => {}
        }
    }
    assert!(wrong.is_empty(), "{} pins:\n{}", set.len(), wrong.join("\n"));
}
