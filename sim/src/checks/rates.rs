//! Limits on repeated messages: a notice to the same peer at most once a second, and one heartbeat to each
//! follower in one step, however long the process was held up before it.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_core::{Effect, Event, Instant, Message, PeerId, RaftId, RaftKind};

use super::{Findings, Step};

/// Shortest time between two notices to one peer: a second copy of the core's rule.
const NOTICE_PAUSE: Duration = Duration::from_secs(1);

/// The last notice of each process to each peer.
#[derive(Debug)]
pub(super) struct Rates {
    noticed: Vec<BTreeMap<PeerId, Instant>>,
}

impl Rates {
    pub(super) fn new(size: usize) -> Self {
        Self {
            noticed: vec![BTreeMap::new(); size],
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.noticed[me].clear();
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Findings<'_>) {
        let now = step.now.mono;
        let mut heartbeats: BTreeMap<RaftId, usize> = BTreeMap::new();
        for effect in step.effects {
            let Effect::Send { to, envelope } = effect else {
                continue;
            };
            match &envelope.message {
                Message::Hello | Message::NotMember { .. } => {
                    let last = self.noticed[step.me].insert(to.clone(), now);
                    let is_soon = last.is_some_and(|last| now.since(last) < NOTICE_PAUSE);
                    found.require(!is_soon, "rates", || {
                        format!("notifies {to} again within {NOTICE_PAUSE:?}: {envelope:?}")
                    });
                }
                // One with a context belongs to a read.
                Message::Raft(message)
                    if message.kind == RaftKind::Heartbeat && message.context.is_empty() =>
                {
                    *heartbeats.entry(message.to).or_default() += 1;
                }
                _ => {}
            }
        }
        // Those that waited for a write leave together when it is durable.
        let is_alone = step.events == [Event::TimedOut];
        let most = heartbeats.iter().find(|(_, count)| is_alone && **count > 1);
        found.require(most.is_none(), "rates", || {
            format!("makes up for missed ticks: heartbeats in one step {most:?}")
        });
    }
}
