//! A leader takes a pin away only from a peer that it has not heard for longer than the grace period.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::{Command, Event, Instant, Message, Payload, PeerId, Proposal, StoreOp, decode};

use super::{Found, Step};
use crate::options::Options;

/// When a peer was last heard, and the latest long silence before that.
#[derive(Clone, Copy, Debug)]
struct Heard {
    last: Instant,
    silence: Duration,
    ended: Instant,
}

/// A proposal may wait so long for the leader's disk after it was decided, while the peer that it is about
/// comes back: for the sync that runs and the one that covers what was written meanwhile, 3 s each at most,
/// and for the process, which may be paused for 6 s; the rest is for clocks that drift and what else holds it
/// up. It is carried out all the same: it was right when it was decided, and a copy too many costs little.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// When each process started, and when it last heard each peer's metrics.
#[derive(Debug)]
pub(super) struct Failover {
    heard: Vec<(Option<Instant>, BTreeMap<PeerId, Heard>)>,
    grace: Duration,
    lifetime: Duration,
}

impl Failover {
    pub(super) fn new(options: &Options, size: usize) -> Self {
        Self {
            heard: vec![(None, BTreeMap::new()); size],
            grace: Duration::from_millis(options.grace_ms),
            lifetime: Duration::from_millis(options.metrics_ms * 2),
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.heard[me] = (None, BTreeMap::new());
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Found<'_>) {
        let now = step.now.mono;
        let (started, heard) = &mut self.heard[step.me];
        let started = *started.get_or_insert(now);
        for event in step.events {
            let Event::Received { from, envelope } = event else {
                continue;
            };
            if !matches!(envelope.message, Message::Metrics(_)) {
                continue;
            }
            let first = Heard {
                last: started,
                silence: Duration::ZERO,
                ended: started,
            };
            let known = heard.entry(from.clone()).or_insert(first);
            if now.since(known.last) >= self.grace {
                known.silence = now.since(known.last);
                known.ended = now;
            }
            known.last = now;
        }
        if step.peer().leads() {
            for op in step.writes() {
                if let StoreOp::Append { entries } = op {
                    entries
                        .iter()
                        .for_each(|entry| self.of_entry(step, &entry.payload, found));
                }
            }
        }
    }

    fn of_entry(&self, step: &Step<'_>, payload: &Payload, found: &mut Found<'_>) {
        let Payload::Commands(data) = payload else { return };
        for proposal in decode::<Vec<Proposal>>(data).unwrap_or_default() {
            let Command::Reallocate {
                cid,
                allocations,
                version,
            } = proposal.command
            else {
                continue;
            };
            let pin = step
                .peer()
                .disk
                .written
                .pins
                .get(&cid)
                .filter(|pin| pin.version == version);
            let members = &step.peer().disk.written.members;
            for peer in pin.iter().flat_map(|pin| &pin.allocations) {
                // Who leaves loses its pins at once.
                let stays = members.raft_id(peer).is_some() && !members.leaving.contains(peer);
                if stays && !allocations.contains(peer) && *peer != step.peer().id {
                    self.of_loser(step, peer, found);
                }
            }
        }
    }

    fn of_loser(&self, step: &Step<'_>, peer: &PeerId, found: &mut Found<'_>) {
        let (started, heard) = &self.heard[step.me];
        let (since, least) = match (heard.get(peer), started) {
            (Some(heard), _) => (heard.last, self.lifetime + self.grace),
            (None, Some(started)) => (*started, self.grace),
            (None, None) => return,
        };
        let now = step.now.mono;
        let silent = now.since(since);
        // It may have been decided a while ago, when the peer was silent still.
        let was = heard.get(peer).filter(|heard| now.since(heard.ended) <= WAIT_MAX);
        let excused = was.is_some_and(|heard| heard.silence >= self.grace);
        found.require(silent >= least || excused, "failover", || {
            format!("takes a pin from {peer} after a silence of {silent:?}, {least:?} is the least")
        });
    }
}
