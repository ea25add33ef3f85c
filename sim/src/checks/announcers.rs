//! Each root has an announcer: the only live holder takes over the roots of the others, and once all holders
//! of a pin work, the configured number of them announces it.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::announce::Living;
use cluster_core::{Instant, PING, PeerId, Pin};

use super::received::{Heard, Process};
use super::{Findings, Step};
use crate::options::Options;
use crate::peer::Peer;

/// Number of pins that are checked in one step.
const PINS_MAX: usize = 32;

/// The living announcers, as each process counts them.
#[derive(Debug)]
pub(super) struct Announcers {
    /// Interval at which pings are read.
    interval: Duration,
    startup: Duration,
    grace: Duration,
    processes: Vec<Option<Reader>>,
}

/// Pings as a process has read them.
#[derive(Debug, Clone)]
struct Reader {
    living: Living,
    read_at: Instant,
    /// The last time that a valid ping of each peer was in the record of messages.
    heard: BTreeMap<PeerId, Instant>,
}

impl Announcers {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        let interval = Duration::from_millis(options.metrics_ms);
        Self {
            interval,
            startup: interval * 2,
            grace: interval * 4,
            processes: vec![None; size],
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.processes[me] = None;
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        let Some(node) = &step.peer().node else { return };
        let now = step.now.mono;
        let begin = || Reader {
            living: Living::new(now, self.startup, self.grace),
            read_at: Instant(0),
            heard: BTreeMap::new(),
        };
        let reader = self.processes[step.me].get_or_insert_with(begin);
        if now.since(reader.read_at) < self.interval {
            return;
        }
        reader.read_at = now;
        let alive = node.view().metrics(step.now, PING);
        reader.living.note(now, alive.map(|(peer, _)| peer.clone()));
        let process = heard.of(step.me);
        for member in step.peer().disk.written.members.peers.values() {
            let samples = process.samples(&member.peer, PING);
            if samples.iter().any(|sample| sample.expires() > now) {
                reader.heard.insert(member.peer.clone(), now);
            }
        }
        let me = &step.peer().id;
        // A ping may be read up to an interval after it arrived, or not yet, and a record may end an interval
        // earlier.
        let patience = self.grace + self.interval * 2;
        if !is_older(process, now, self.startup + patience) {
            return;
        }
        let pins = step.peer().disk.written.pins.values();
        for pin in pins.filter(|pin| pin.allocations.contains(me)).take(PINS_MAX) {
            let is_silent = |peer: &PeerId| {
                let last = reader.heard.get(peer);
                peer == me || last.is_none_or(|last| *last + patience <= now)
            };
            if pin.allocations.iter().all(is_silent) {
                let living = &reader.living;
                let announces = living.announces(now, me, region(pin), pin, 1);
                found.require(announces, "announcers", || {
                    format!("leaves the root of {pin:?} to silent holders: {living:?}")
                });
            }
        }
    }

    /// Returns the pins that a wrong number of holders announces, although all of them are well.
    pub(super) fn wrong(&self, at: u64, peers: &[Peer], pin: &Pin) -> Option<String> {
        for copies in [1, 2] {
            let announces = |peer: &&Peer| {
                let number = peers.iter().position(|known| known.id == peer.id)?;
                let reader = self.processes[number].as_ref()?;
                let now = peer.now(at).mono;
                Some(reader.living.announces(now, &peer.id, region(pin), pin, copies))
            };
            let holders = peers.iter().filter(|peer| pin.allocations.contains(&peer.id));
            let count = holders.filter(|peer| announces(peer) == Some(true)).count();
            let wanted = copies.min(pin.allocations.len());
            if count != wanted {
                return Some(format!("{count} holders announce {pin:?}, not {wanted}"));
            }
        }
        None
    }
}

/// Returns the region of a root. Any function is valid if all peers use the same one.
fn region(pin: &Pin) -> u8 {
    pin.cid.as_bytes().last().copied().unwrap_or_default()
}

fn is_older(process: &Process, now: Instant, age: Duration) -> bool {
    process.started.is_some_and(|started| started + age < now)
}
