//! Duties of the leader on the pinset: re-allocates pins of peers that are down, and removes expired pins, a
//! chunk at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::allocator::{Candidates, Requirements, allocate};
use crate::command::{Command, Precondition, is_expired};
use crate::config::FailoverConfig;
use crate::ids::{Cid, PeerId};
use crate::pin::{Pin, Replicas};
use crate::planted::planted;
use crate::time::{Instant, Now, Timestamp};
use crate::view::PinsetView;

/// Pause between two searches for expired pins.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);

/// Search for pins to re-allocate or to remove, by the leader.
pub(crate) struct Failover {
    config: FailoverConfig,
    /// Time at which this peer became leader; `None` if it is not.
    leading: Option<Instant>,
    next_chunk: Instant,
    next_expiry: Instant,
    /// Position of the search in each down peer's pins: the last CID, `Some(None)` at the start, `None` at
    /// the end.
    cursors: BTreeMap<PeerId, Option<Option<Cid>>>,
}

impl Failover {
    pub(crate) fn new(config: &FailoverConfig) -> Self {
        Self {
            config: config.clone(),
            leading: None,
            next_chunk: Instant(0),
            next_expiry: Instant(0),
            cursors: BTreeMap::new(),
        }
    }

    /// Notes whether this peer leads. A new leader starts without any state of the old one.
    pub(crate) fn lead(&mut self, now: Now, leads: bool) {
        match (leads, self.leading) {
            (true, None) if planted!(NewLeaderRests) => {}
            (true, None) => {
                self.leading = Some(now.mono);
                self.next_chunk = now.mono;
                self.next_expiry = now.mono;
                self.cursors.clear();
            }
            (false, Some(_)) => self.leading = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Returns the time at which this peer became leader; `None` if it is not.
    pub(crate) fn leading(&self) -> Option<Instant> {
        self.leading
    }

    /// Returns the silence after which a peer counts as down.
    pub(crate) fn grace(&self) -> Duration {
        if planted!(GraceHalved) {
            return self.config.grace / 2;
        }
        self.config.grace
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.leading.map(|_| self.next_chunk.min(self.next_expiry))
    }

    /// Returns whether pins of silent peers are re-allocated. Pins of removed peers always are.
    pub(crate) fn is_enabled(&self) -> bool {
        self.config.enabled || planted!(FailoverThoughOff)
    }

    /// Adds the commands to propose now: removals of pins that have expired by the cluster's `time` (none
    /// while it is unknown), and re-allocations from the peers in `down`. Those in `gone` have been removed
    /// from the cluster.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Now,
        time: Option<Timestamp>,
        view: &impl PinsetView,
        (down, gone): (&BTreeSet<PeerId>, &BTreeSet<PeerId>),
        candidates: &Candidates,
        out: &mut Vec<Command>,
    ) {
        if self.leading.is_none() {
            return;
        }
        if now.mono >= self.next_expiry {
            let time = time.map(|time| {
                if planted!(ExpiresEarly) {
                    time + EXPIRY_INTERVAL
                } else {
                    time
                }
            });
            let chunk = if planted!(ExpiresAllAtOnce) {
                usize::MAX
            } else {
                self.config.chunk
            };
            let expired = time.map_or(Vec::new(), |time| view.expiring(time, chunk));
            // A full chunk probably means that more have expired.
            let pause = if expired.len() < self.config.chunk {
                EXPIRY_INTERVAL
            } else {
                self.config.pause
            };
            self.next_expiry = now.mono + pause;
            out.extend(expired.iter().filter_map(|cid| expire(time?, view.pin(cid)?)));
        }
        if now.mono >= self.next_chunk {
            self.cursors.retain(|peer, _| down.contains(peer));
            let worked = self.repair_chunk(view, (down, gone), candidates, out);
            let pause = if worked {
                self.config.pause
            } else {
                EXPIRY_INTERVAL.min(self.config.grace)
            };
            self.next_chunk = now.mono + pause.max(Duration::from_millis(1));
        }
    }

    /// Examines one chunk of one peer's pins. Returns `false` if there is none left.
    fn repair_chunk(
        &mut self,
        view: &impl PinsetView,
        (down, gone): (&BTreeSet<PeerId>, &BTreeSet<PeerId>),
        candidates: &Candidates,
        out: &mut Vec<Command>,
    ) -> bool {
        let some = if planted!(OneDownOnly) { 1 } else { down.len() };
        for peer in down.iter().take(some) {
            let Some(after) = self.cursors.entry(peer.clone()).or_insert(Some(None)).take() else {
                self.cursors.insert(peer.clone(), None);
                continue;
            };
            let cids = view.allocated(peer, after.as_ref(), self.config.chunk);
            let next = cids.last().map(|last| Some(last.clone()));
            out.extend(
                cids.iter()
                    .filter_map(|cid| repair(view.pin(cid)?, down, gone, candidates)),
            );
            let more = next.is_some();
            self.cursors.insert(peer.clone(), next);
            if more {
                return true;
            }
        }
        if !down.is_empty() && !planted!(RepairOnce) {
            // Finished: start over, for pins that could not be repaired or whose command was lost.
            self.cursors.clear();
        }
        false
    }
}

fn expire(time: Timestamp, pin: Pin) -> Option<Command> {
    if !is_expired(&pin, time) || planted!(ExpirySkipped) {
        return None;
    }
    Some(Command::Unpin {
        precondition: if planted!(ExpiryUnconditional) {
            Precondition::Any
        } else {
            Precondition::Version(pin.version)
        },
        cid: pin.cid,
    })
}

/// Builds the command that removes the peers that have left the cluster from a pin.
fn remove_departed(pin: Pin, gone: &BTreeSet<PeerId>) -> Option<Command> {
    let before = pin.allocations.len();
    let mut allocations = pin.allocations;
    allocations.retain(|peer| !gone.contains(peer) || planted!(DepartedHold));
    let changed = allocations.len() < before;
    changed.then_some(Command::Reallocate {
        cid: pin.cid,
        allocations,
        version: pin.version,
    })
}

/// Builds the command that adds peers to a pin with fewer live copies than its minimum, or else removes the
/// peers that have left the cluster. `None` if the pin needs neither.
fn repair(
    pin: Pin,
    down: &BTreeSet<PeerId>,
    gone: &BTreeSet<PeerId>,
    candidates: &Candidates,
) -> Option<Command> {
    let Replicas::Range { min, max } = pin.options.replicas else {
        return None;
    };
    let living: Vec<PeerId> = pin
        .allocations
        .iter()
        .filter(|peer| !down.contains(*peer))
        .cloned()
        .collect();
    let enough = if planted!(HealthyRepaired) { max } else { min };
    if living.len() >= enough as usize {
        return remove_departed(pin, gone);
    }
    let candidates: Candidates = candidates
        .iter()
        .filter(|(peer, _)| !down.contains(*peer))
        .map(|(peer, metrics)| (peer.clone(), metrics.clone()))
        .collect();
    let preferred = if planted!(RepairPreferenceIgnored) {
        &[][..]
    } else {
        &pin.options.user_allocations
    };
    let wanted = Requirements {
        cid: Some(&pin.cid),
        near: None,
        min,
        max,
        current: if planted!(RepairMovesAll) { &[] } else { &living },
        preferred,
    };
    // With too few candidates, as many copies as possible are better than none.
    let one_more = Requirements {
        min: living.len() as u32 + 1,
        ..wanted.clone()
    };
    let mut allocations = allocate(&wanted, &candidates)
        .or_else(|error| {
            if planted!(RepairNeedsAll) {
                return Err(error);
            }
            allocate(&one_more, &candidates)
        })
        .ok()?;
    // Peers that are down fill the places that could not be taken, so that the search finds the pin again.
    let missing = (min as usize).saturating_sub(allocations.len());
    allocations.extend(
        pin.allocations
            .iter()
            .filter(|peer| down.contains(*peer))
            .take(if planted!(PlaceholdersDropped) { 0 } else { missing })
            .cloned(),
    );
    allocations.sort();
    Some(Command::Reallocate {
        cid: pin.cid,
        allocations,
        version: pin.version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pin::PinType;
    use crate::testing::{Disk, cid, metrics, options, peer};

    fn pin(allocations: &[u8], min: u32, max: u32) -> Pin {
        Pin {
            cid: cid(1),
            pin_type: PinType::Data,
            allocations: allocations.iter().copied().map(peer).collect(),
            reference: None,
            options: options(Replicas::Range { min, max }),
            timestamp: Timestamp(1),
            version: 7,
        }
    }

    fn repaired(pin: Pin, down: &[u8], living: &[u8]) -> Option<Vec<PeerId>> {
        let down = down.iter().copied().map(peer).collect();
        let free = || vec![metrics(9).remove(1)];
        let candidates = living.iter().map(|number| (peer(*number), free())).collect();
        match repair(pin, &down, &BTreeSet::new(), &candidates)? {
            Command::Reallocate { allocations, .. } => Some(allocations),
            Command::Admit { .. }
            | Command::CreateCredential { .. }
            | Command::Drain { .. }
            | Command::EndDrain { .. }
            | Command::Members { .. }
            | Command::Pin { .. }
            | Command::Rebalance { .. }
            | Command::Release { .. }
            | Command::RevokeCredential { .. }
            | Command::Unpin { .. } => None,
        }
    }

    #[test]
    fn lost_copy_is_reallocated() {
        assert_eq!(
            repaired(pin(&[1, 2], 2, 2), &[2], &[1, 3]),
            Some(vec![peer(1), peer(3)])
        );
        assert_eq!(repaired(pin(&[1, 2], 1, 2), &[2], &[1, 3]), None, "one is enough");
    }

    #[test]
    fn sufficient_copies_lose_only_departed_peers() {
        let sets = |numbers: &[u8]| numbers.iter().copied().map(peer).collect::<BTreeSet<_>>();
        let (down, gone) = (sets(&[2, 3]), sets(&[3]));
        let candidates = Candidates::new();
        let kept = repair(pin(&[1, 2, 3], 1, 3), &down, &gone, &candidates);
        let expected = Command::Reallocate {
            cid: cid(1),
            allocations: vec![peer(1), peer(2)],
            version: 7,
        };
        assert_eq!(kept, Some(expected), "2 is silent, and may come back");
        assert_eq!(repair(pin(&[1, 2], 1, 3), &down, &gone, &candidates), None);
    }

    #[test]
    fn partly_repaired_pin_keeps_a_place_for_the_search() {
        let partly = repaired(pin(&[1, 2], 2, 3), &[1, 2], &[3]).expect("one copy is better than none");
        assert_eq!(partly, [peer(1), peer(3)], "a down peer keeps a place");
        assert_eq!(
            repaired(pin(&[1, 3], 2, 3), &[1, 2], &[3]),
            None,
            "nothing more can be done"
        );
        let whole = repaired(pin(&[1, 3], 2, 3), &[1, 2], &[3, 4]);
        assert_eq!(whole, Some(vec![peer(3), peer(4)]));
    }

    fn at(seconds: u64) -> Now {
        Now {
            mono: Instant(0) + Duration::from_secs(seconds),
            wall: Timestamp(0) + Duration::from_secs(seconds),
        }
    }

    fn leader(enabled: bool) -> Failover {
        let mut failover = Failover::new(&FailoverConfig {
            enabled,
            grace: Duration::from_secs(60),
            chunk: 2,
            pause: Duration::from_millis(50),
        });
        failover.lead(at(0), true);
        failover
    }

    fn stored(pins: impl IntoIterator<Item = Pin>) -> Disk {
        Disk {
            pins: pins.into_iter().map(|pin| (pin.cid.clone(), pin)).collect(),
            ..Disk::default()
        }
    }

    fn proposed(failover: &mut Failover, now: Now, disk: &Disk, down: &[u8], living: &[u8]) -> Vec<Command> {
        let down = down.iter().copied().map(peer).collect();
        let free = || vec![metrics(9).remove(1)];
        let candidates = living.iter().map(|number| (peer(*number), free())).collect();
        let mut out = Vec::new();
        failover.handle_timeout(
            now,
            Some(now.wall),
            disk,
            (&down, &BTreeSet::new()),
            &candidates,
            &mut out,
        );
        out
    }

    #[test]
    fn expired_pin_is_removed_in_its_version_only() {
        let mut pin = pin(&[1], 1, 1);
        pin.options.expire_at = Some(Timestamp(0) + Duration::from_secs(20));
        let disk = stored([pin.clone()]);
        let mut failover = leader(true);
        assert_eq!(proposed(&mut failover, at(10), &disk, &[], &[1]), []);
        assert_eq!(proposed(&mut failover, at(19), &disk, &[], &[1]), []);
        let expected = Command::Unpin {
            cid: pin.cid,
            precondition: Precondition::Version(7),
        };
        assert_eq!(proposed(&mut failover, at(24), &disk, &[], &[1]), [expected]);
    }

    #[test]
    fn pins_of_all_down_peers_are_reallocated_in_chunks() {
        let number = |number: u8, holder: u8| Pin {
            cid: cid(number),
            ..pin(&[holder], 1, 1)
        };
        let mut disk = stored((1..=3).map(|n| number(n, 1)).chain([number(4, 2)]));
        let mut failover = leader(true);
        let mut moved = BTreeSet::new();
        for second in 1..30 {
            let commands = proposed(&mut failover, at(second), &disk, &[1, 2], &[3]);
            assert!(commands.len() <= 2, "a chunk at a time");
            for command in commands {
                let Command::Reallocate { cid, allocations, .. } = command else {
                    panic!("{command:?} is not a re-allocation");
                };
                assert_eq!(allocations, [peer(3)]);
                disk.pins.get_mut(&cid).expect("it is there").allocations = allocations;
                moved.insert(cid);
            }
        }
        assert_eq!(moved.len(), 4);
    }

    #[test]
    fn grace_period_and_switch_are_configurable() {
        assert_eq!(leader(true).grace(), Duration::from_secs(60));
        assert!(leader(true).is_enabled() && !leader(false).is_enabled());
    }
}
