//! Drains: the checks before a peer is drained, and the progress of all drains.

use cluster_api as api;
use cluster_core::{Cid, Drain, DrainError, MOVES_MAX, PING, PeerId, Refusal, Replicas, Reply, Request};

use super::peers::KnownMembers;
use super::{Cluster, Error, convert, now};
use crate::store::StoreError;

/// Default of the maximum number of copies that wait for their replacements: as many as a peer asks about at
/// once.
const MOVES: u32 = 256;

/// Settings of a drain.
#[derive(Debug, Clone, Copy, Default)]
pub struct DrainWish {
    /// Maximum number of copies that wait for their replacements at once; a default if absent.
    pub moves_max: Option<u32>,
    /// Drain the peer although some of its pins cannot move.
    pub force: bool,
}

/// Pins of a peer, and those among them that need more peers than there are.
#[derive(Debug, Default)]
struct Census {
    pins: u64,
    stuck: u64,
    /// The first stuck pin, with the number of peers that it needs.
    first: Option<(Cid, u32)>,
}

impl Cluster {
    /// Drains a member, or changes the settings of its drain.
    ///
    /// # Errors
    /// The peer is not a member, does not answer, or the others lack room or are too few for its pins. Or the
    /// cluster refuses.
    pub async fn start_drain(&self, peer: &PeerId, wish: DrainWish) -> Result<api::Drain, Error> {
        let moves_max = wish.moves_max.unwrap_or(MOVES);
        if !(1..=MOVES_MAX).contains(&moves_max) {
            let why = format!("the number of moves is {moves_max}, 1 to {MOVES_MAX} are possible");
            return Err(Error::Invalid(why));
        }
        let members = self.members().await?;
        if members.raft_id(peer).is_none() {
            return Err(conflict(format!("{peer} is not a member of the cluster")));
        }
        let is_drained = |drain: &Drain| drain.peer == *peer;
        let again = self.inner.reader.policy().drains.iter().any(is_drained);
        let pins = if again || wish.force {
            self.census(peer, u32::MAX).await?.pins
        } else {
            self.check_drain(peer).await?
        };
        let drain = Drain {
            peer: peer.clone(),
            since: now(),
            pins,
            moves_max,
        };
        let reply = self.request(Request::Drain { drain }).await?;
        let Reply::DrainStarted(drain) = reply else {
            return Err(Error::Closed);
        };
        self.drain_progress(&drain).await
    }

    /// Ends the drain of a peer. Its remaining pins stay where they are.
    ///
    /// # Errors
    /// The peer is not being drained, or the cluster refuses.
    pub async fn end_drain(&self, peer: &PeerId) -> Result<api::Drain, Error> {
        let shown = match self.find_drain(peer) {
            Some(drain) => Some(self.drain_progress(&drain).await?),
            None => None,
        };
        let reply = self.request(Request::EndDrain { peer: peer.clone() }).await?;
        let Reply::DrainEnded(drain) = reply else {
            return Err(Error::Closed);
        };
        match shown {
            Some(shown) => Ok(shown),
            None => self.drain_progress(&drain).await,
        }
    }

    /// Returns the progress of all drains.
    ///
    /// # Errors
    /// This peer is shutting down, or the database failed.
    pub async fn drains(&self) -> Result<Vec<api::Drain>, Error> {
        let policy = self.inner.reader.policy();
        let shown = policy.drains.iter().map(|drain| self.drain_progress(drain));
        futures::future::try_join_all(shown).await
    }

    /// Returns the progress of the drain of one peer.
    ///
    /// # Errors
    /// The peer is not being drained, this peer is shutting down, or the database failed.
    pub async fn drain_of(&self, peer: &PeerId) -> Result<api::Drain, Error> {
        let drain = self.find_drain(peer);
        let drain = drain.ok_or(Error::Refused(Refusal::Drain(DrainError::Missing)))?;
        self.drain_progress(&drain).await
    }

    fn find_drain(&self, peer: &PeerId) -> Option<Drain> {
        let policy = self.inner.reader.policy();
        policy.drains.iter().find(|drain| drain.peer == *peer).cloned()
    }

    /// Checks that the pins of a peer can move to the others, and counts them.
    async fn check_drain(&self, peer: &PeerId) -> Result<u64, Error> {
        let name = peer.clone();
        let (is_alive, others, free) = self
            .view(move |view, now| {
                let living = |id: &PeerId| {
                    let mut pings = view.metrics(now, PING);
                    pings.any(|(other, ping)| other == id && ping.metric.valid)
                };
                let is_drained = |id: &PeerId| view.drains().iter().any(|drain| drain.peer == *id);
                let takes = |id: &&PeerId| **id != name && !is_drained(id) && living(id);
                let others: Vec<&PeerId> = view.members().peer_ids().filter(takes).collect();
                let room = view.metrics(now, "freespace");
                let room = room.filter(|(id, sample)| others.contains(id) && sample.metric.valid);
                let room: Vec<i64> = room.map(|(_, sample)| sample.metric.weight).collect();
                let free = (!room.is_empty()).then(|| room.iter().map(|bytes| (*bytes).max(0) as u64).sum());
                (living(&name), others.len(), free)
            })
            .await?;
        if !is_alive {
            return Err(conflict(format!(
                "{peer} does not answer, and a peer moves its pins itself. If it is gone for good, remove \
                 it: its pins are then allocated to others"
            )));
        }
        if others == 0 {
            let why = "no other peer is alive and not being drained: new pins could not be allocated";
            return Err(conflict(why.to_owned()));
        }
        let others = u32::try_from(others).unwrap_or(u32::MAX);
        let census = self.census(peer, others).await?;
        if let Some((cid, min)) = census.first {
            return Err(conflict(format!(
                "{} of the {} pins of {peer} need more peers than the {others} others that live and are not \
                 drained: {cid} needs {min}. Add peers, or lower the minimum of these pins; with force, only \
                 the other pins move",
                census.stuck, census.pins
            )));
        }
        let needed = self.moves_of(peer).await?.bytes;
        // Without this metric, the peers do not allocate by room either.
        let free: Option<u64> = free;
        if let Some(free) = free.filter(|free| *free < needed) {
            return Err(conflict(format!(
                "the IPFS node of {peer} holds {needed} bytes, and the others have {free} bytes free. \
                 Collect its garbage, or add room; with force, pins move as long as there is room"
            )));
        }
        Ok(census.pins)
    }

    /// Counts the pins of a peer, and those that need more than `others` peers.
    async fn census(&self, peer: &PeerId, others: u32) -> Result<Census, Error> {
        let (reader, peer) = (self.inner.reader.clone(), peer.clone());
        let counted = tokio::task::spawn_blocking(move || {
            let listing = reader.listing();
            let mut census = Census::default();
            for pin in listing.allocated(&peer) {
                let pin = pin?;
                census.pins += 1;
                if let Replicas::Range { min, .. } = pin.options.replicas
                    && min > others
                {
                    census.stuck += 1;
                    census.first.get_or_insert((pin.cid, min));
                }
            }
            Ok::<_, StoreError>(census)
        });
        Ok(counted.await.map_err(|_| Error::Closed)??)
    }

    async fn drain_progress(&self, drain: &Drain) -> Result<api::Drain, Error> {
        let (reader, peer) = (self.inner.reader.clone(), drain.peer.clone());
        let left = tokio::task::spawn_blocking(move || reader.listing().allocated_count(&peer));
        let left = left.await.map_err(|_| Error::Closed)??;
        let KnownMembers { peers } = self.known_peers().await?;
        let known = peers.get(&drain.peer);
        let mut shown = api::Drain {
            peer: drain.peer.to_string(),
            peername: known.map_or_else(String::new, |known| known.peername.clone()),
            since: convert::time(drain.since),
            moves_max: drain.moves_max,
            pins_at_start: drain.pins,
            pins_left: left,
            ..api::Drain::default()
        };
        match self.moves_of(&drain.peer).await {
            Ok(own) => {
                shown.copies_waiting = own.waiting;
                shown.repository_bytes = own.bytes;
                shown.blocked = own.blocked.min(left);
                // It may be the pin of another owner.
                let example = own.first_blocked.iter().filter(|_| self.owner().is_none());
                shown.blocked_cids = example.map(Cid::to_string).collect();
                state(&shown).clone_into(&mut shown.state);
                let elapsed = now().0.saturating_sub(drain.since.0) / 1_000_000_000;
                shown.seconds_left = seconds_left(&shown, elapsed);
            }
            Err(error) => {
                "unreachable".clone_into(&mut shown.state);
                shown.error = error.to_string();
            }
        }
        Ok(shown)
    }
}

fn conflict(why: String) -> Error {
    Error::Refused(Refusal::Conflict(why))
}

fn state(drain: &api::Drain) -> &'static str {
    match (drain.pins_left, drain.copies_waiting) {
        (0, 0) => "done",
        (0, _) => "copying",
        (left, 0) if drain.blocked >= left => "blocked",
        _ => "moving",
    }
}

/// Estimates the remaining time from the copies that have left so far.
fn seconds_left(drain: &api::Drain, elapsed: u64) -> Option<u64> {
    let rest = drain.pins_left.saturating_sub(drain.blocked) + drain.copies_waiting;
    let moved = drain
        .pins_at_start
        .saturating_sub(drain.pins_left + drain.copies_waiting);
    match (rest, moved) {
        (0, _) => Some(0),
        (_, 0) => None,
        (rest, moved) => Some(elapsed.saturating_mul(rest) / moved),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(pins_left: u64, copies_waiting: u64, blocked: u64) -> api::Drain {
        api::Drain {
            pins_at_start: 100,
            pins_left,
            copies_waiting,
            blocked,
            ..api::Drain::default()
        }
    }

    #[test]
    fn states_follow_from_the_counts() {
        assert_eq!(state(&drain(0, 0, 0)), "done");
        assert_eq!(state(&drain(0, 3, 0)), "copying");
        assert_eq!(state(&drain(5, 3, 5)), "moving");
        assert_eq!(state(&drain(5, 0, 4)), "moving");
        assert_eq!(state(&drain(5, 0, 5)), "blocked");
    }

    #[test]
    fn time_left_is_estimated_from_the_copies_that_have_left() {
        assert_eq!(seconds_left(&drain(40, 10, 0), 60), Some(60));
        assert_eq!(seconds_left(&drain(0, 25, 0), 300), Some(100));
        assert_eq!(seconds_left(&drain(0, 0, 0), 60), Some(0));
        assert_eq!(seconds_left(&drain(100, 0, 0), 60), None, "nothing has moved");
        assert_eq!(seconds_left(&drain(5, 0, 5), 60), Some(0), "the rest cannot move");
    }
}
