//! Scrub of a peer's IPFS daemon, as in the daemon's `cluster/scrub.rs`: a loop around the core's
//! [`Scrubber`] that checks a few pins at a time. A rotten copy that it finds is lost, and the core is asked
//! to compare its pin, which it then pins again.

use std::ops::Bound;
use std::time::Duration;

use cluster_core::{Cid, Request, ScrubChange, ScrubConfig, ScrubCounts, ScrubRecord, ScrubStep, Scrubber};
use madsim::time::sleep;

use crate::checks::scrubs::ScrubWatch;
use crate::coverage::sometimes;
use crate::options::Options;
use crate::report::Class;
use crate::rng::Rng;
use crate::world::{Shared, World, lock};

/// Longest sleep: changes take effect within this time.
const LOOK: Duration = Duration::from_millis(200);

/// Minimum number of pins in a piece.
const PIECE: usize = 3;

/// Approximate maximum number of pieces of a cycle.
const PIECES: usize = 20;

/// Longest time that a piece takes.
const BUSY_MAX: Duration = Duration::from_millis(50);

/// The scrub of one peer: its process, its file, and what the checks know of it.
pub(crate) struct Scrub {
    config: ScrubConfig,
    /// The process's scrubber, if there is one.
    scrubber: Option<Scrubber>,
    /// Content of the file, which survives everything.
    saved: ScrubRecord,
    /// True once the second phase has requested a cycle.
    requested: bool,
    pub(crate) watch: ScrubWatch,
    rng: Rng,
}

impl Scrub {
    pub(crate) fn new(options: &Options, peer: usize) -> Self {
        let share = u16::try_from(options.scrub_share).expect("at most a thousand");
        Self {
            config: ScrubConfig {
                interval: Duration::from_millis(options.scrub_ms),
                share,
            },
            scrubber: None,
            saved: ScrubRecord::default(),
            requested: false,
            watch: ScrubWatch::new(share),
            rng: Rng::new(options.seed, &format!("scrub {peer}")),
        }
    }

    /// Returns whether peers scrub in this run.
    fn is_on(&self) -> bool {
        !self.config.interval.is_zero()
    }

    /// Drops the process's scrubber.
    pub(crate) fn die(&mut self) {
        self.scrubber = None;
    }

    /// Describes the cycle that was requested when the faults ended and is not complete, if there is one.
    pub(crate) fn unfinished(&self) -> Option<&'static str> {
        if !self.is_on() {
            None
        } else if !self.requested {
            Some("the scrub to be started")
        } else {
            self.watch.unfinished()
        }
    }
}

impl World {
    /// Changes the scrub of a peer, as a client requests. Returns `false` if its process is down.
    pub(crate) fn change_scrub(&mut self, me: usize, change: ScrubChange) -> bool {
        let peer = &mut self.peers[me];
        let now = peer.clock.now(Self::now());
        let Some(scrubber) = &mut peer.scrub.scrubber else {
            return false;
        };
        scrubber.change(now, change);
        peer.scrub.saved = scrubber.record().clone();
        scrubber.saved(now);
        peer.scrub.watch.changed(change);
        self.log(me, || format!("changes its scrub: {change:?}"));
        true
    }
}

/// Scrubs while the process runs.
pub(crate) async fn run(world: Shared, me: usize) {
    {
        let mut world = lock(&world);
        let scrub = &mut world.peers[me].scrub;
        if !scrub.is_on() {
            return;
        }
        let scrubber = Scrubber::new(scrub.config, scrub.saved.clone(), scrub.rng.next());
        scrub.watch.restarted();
        let keeps = *scrubber.record() == scrub.saved;
        scrub.scrubber = Some(scrubber);
        if !keeps {
            let text = "a restart forgets what is in the file of the scrub".to_owned();
            world.violate(Class::Safety, "scrub", me, text);
        }
    }
    loop {
        let step = {
            let mut world = lock(&world);
            if world.stopped {
                return;
            }
            if world.calm && !world.peers[me].scrub.requested && world.change_scrub(me, ScrubChange::Start) {
                world.peers[me].scrub.requested = true;
                world.peers[me].scrub.watch.await_cycle();
            }
            next(&mut world, me)
        };
        match step {
            None => return,
            Some(ScrubStep::Wait(time)) => {
                // Never zero: time must pass.
                let time = time.unwrap_or(LOOK).clamp(Duration::from_millis(1), LOOK);
                sleep(time).await;
            }
            Some(ScrubStep::Check(position)) => check(&world, me, &position).await,
        }
    }
}

/// Asks the scrubber what to do, and saves its record if it is due.
fn next(world: &mut World, me: usize) -> Option<ScrubStep> {
    let at = World::now();
    let peer = &mut world.peers[me];
    let now = peer.clock.now(at);
    let scrubber = peer.scrub.scrubber.as_mut()?;
    let step = scrubber.next(now);
    if scrubber.is_unsaved(now) {
        peer.scrub.saved = scrubber.record().clone();
        scrubber.saved(now);
    }
    if let ScrubStep::Check(position) = &step
        && let Err(text) = peer.scrub.watch.begins(at, now.mono, position)
    {
        world.violate(Class::Safety, "scrub", me, text);
        return None;
    }
    Some(step)
}

/// Checks the next pins of the daemon.
async fn check(world: &Shared, me: usize, position: &str) {
    let (piece, is_last, busy) = {
        let peer = &mut lock(world).peers[me];
        let pinned = &peer.ipfs.pinned;
        let after = position.parse::<Cid>().ok();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let count = PIECE.max(pinned.len() / PIECES);
        let mut rest = pinned.range((from, Bound::Unbounded)).map(|(cid, _)| cid.clone());
        let piece: Vec<Cid> = rest.by_ref().take(count).collect();
        let is_last = rest.next().is_none();
        (piece, is_last, peer.scrub.rng.up_to(BUSY_MAX))
    };
    sleep(busy).await;
    let mut world = lock(world);
    let peer = &mut world.peers[me];
    let now = peer.clock.now(World::now());
    let Some(scrubber) = &mut peer.scrub.scrubber else {
        return;
    };
    if !peer.ipfs.up {
        scrubber.failed(now);
        peer.scrub.watch.failed();
        return;
    }
    let rotten: Vec<Cid> = piece
        .iter()
        .filter(|cid| peer.ipfs.lose_if_rotten(cid))
        .cloned()
        .collect();
    let found = ScrubCounts {
        blocks: piece.len() as u64,
        damaged: rotten.len() as u64,
        ..ScrubCounts::default()
    };
    let position = piece.last().filter(|_| !is_last).map(ToString::to_string);
    let ended_before = scrubber.record().last.clone();
    scrubber.checked(now, busy, found, position);
    let has_ended = scrubber.record().last != ended_before || scrubber.record().cycle.is_none();
    let mut violation = None;
    if has_ended {
        violation = peer.scrub.watch.ended(peer.ipfs.rotten()).err();
    }
    peer.scrub.watch.checked(now.mono, busy);
    world.log(me, || format!("has scrubbed {piece:?}, rotten {rotten:?}"));
    sometimes!(world.coverage, !rotten.is_empty(), "a scrub found a rotten copy");
    sometimes!(world.coverage, has_ended, "a scrub was completed");
    if let Some(text) = violation {
        world.violate(Class::Safety, "scrub", me, text);
        return;
    }
    for cid in rotten {
        // The answer is of no use: a comparison that is refused is made later.
        if let Some(ticket) = world.submit(me, Request::Sync { cid: Some(cid) }) {
            world.abandon(ticket);
        }
    }
}
