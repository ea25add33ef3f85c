//! Choice of the peers of the cluster that announce a root to the public IPFS network.
//!
//! A provider record names only its sender, so a peer can announce only what it holds. If every holder
//! announced every root, a cluster of N peers would send N times as many records as one copy needs. So each
//! root has a few announcers, chosen by rendezvous hashing ([Thaler and Ravishankar, 1998]) among its living
//! holders: every peer computes the choice alone, and a peer that leaves or joins changes only the roots that
//! it announced or announces from then on. Peers whose views differ for a while may announce a root more than
//! once, which is harmless, or, only if each believes that others rank above it, skip it until their views
//! agree.
//!
//! The choice depends on the first bits of a root's key in the DHT, its *region*, not on the root: a peer
//! then announces few regions as a whole, and needs fewer lookups for them.
//!
//! [Thaler and Ravishankar, 1998]: https://doi.org/10.1109/90.663936

use std::collections::BTreeMap;
use std::time::Duration;

use crate::ids::PeerId;
use crate::pin::Pin;
use crate::planted::planted;
use crate::time::Instant;

/// Returns the region of a DHT key: its first 8 bits.
pub fn region_of(key: &[u8; 32]) -> u8 {
    key[0]
}

/// Returns the weight of a peer for a region; it is the same on every peer and platform.
fn weight(region: u8, peer: &PeerId) -> u64 {
    // FNV-1a over the region and the peer id, and the finaliser of MurmurHash3, which makes all bits depend
    // on each byte. Choosing identities for a high weight gains nothing: members are trusted.
    let bytes = std::iter::once(region).chain(peer.as_bytes().iter().copied());
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Returns whether `me` is among the `copies` announcers of a region's roots that these peers hold. `holders`
/// may be in any order; `me` counts as a holder only if it is among them.
pub fn announces<'a>(
    me: &PeerId,
    region: u8,
    holders: impl IntoIterator<Item = &'a PeerId>,
    copies: usize,
) -> bool {
    let own = (weight(region, me), me);
    let (mut is_holder, mut above) = (false, 0);
    for peer in holders {
        if peer == me {
            is_holder = true;
        } else if (weight(region, peer), peer) > own {
            above += 1;
        }
    }
    if planted!(OneAnnouncerTooMany) {
        return is_holder && above <= copies;
    }
    is_holder && above < copies
}

/// Peers that count as living announcers, from the pings that one peer has received.
///
/// A peer counts for the grace after its last valid ping: provider records are valid for two days, so a
/// restart is no reason for others to take over.
#[derive(Debug, Clone)]
pub struct Living {
    grace: Duration,
    /// Until then all peers count: their first pings take a while.
    judges_from: Instant,
    last: BTreeMap<PeerId, Instant>,
}

impl Living {
    /// Begins with all peers counted, for the time `startup`.
    pub fn new(now: Instant, startup: Duration, grace: Duration) -> Self {
        Self {
            grace,
            judges_from: now + startup,
            last: BTreeMap::new(),
        }
    }

    /// Notes the peers with a valid ping. Bounded by the members, of whom alone pings are kept.
    pub fn note(&mut self, now: Instant, alive: impl IntoIterator<Item = PeerId>) {
        self.last.extend(alive.into_iter().map(|peer| (peer, now)));
        if !planted!(SilentAnnounce) {
            self.last.retain(|_, last| now.since(*last) < self.grace);
        }
    }

    /// Returns whether `me` is to announce the root of a pin, as one of `copies`.
    pub fn announces(&self, now: Instant, me: &PeerId, region: u8, pin: &Pin, copies: usize) -> bool {
        if pin.allocations.is_empty() {
            let others = self.last.keys().filter(|peer| *peer != me);
            return announces(me, region, others.chain([me]), copies);
        }
        let is_living =
            |peer: &&PeerId| *peer == me || now < self.judges_from || self.last.contains_key(*peer);
        announces(me, region, pin.allocations.iter().filter(is_living), copies)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    use crate::{Cid, PinOptions, PinType, Replicas, Timestamp};

    fn peer(number: u16) -> PeerId {
        let [high, low] = number.to_be_bytes();
        PeerId::from_bytes(&[0, 2, high, low]).expect("is a multihash")
    }

    fn pin_at(holders: &[PeerId]) -> Pin {
        Pin {
            cid: Cid::from_bytes(&[1, 0x55, 0, 1, 1]).expect("is a CID"),
            pin_type: PinType::Data,
            allocations: holders.to_vec(),
            reference: None,
            options: PinOptions::new(Replicas::Everywhere),
            timestamp: Timestamp(0),
            version: 1,
        }
    }

    fn announcers(region: u8, holders: &[PeerId], copies: usize) -> Vec<PeerId> {
        let chosen = holders.iter().filter(|me| announces(me, region, holders, copies));
        chosen.cloned().collect()
    }

    proptest! {
        #[test]
        fn each_root_has_as_many_announcers_as_configured_or_all_holders(
            region: u8, numbers in btree_set(any::<u16>(), 0..30), copies in 1_usize..5,
        ) {
            let mut holders: Vec<PeerId> = numbers.into_iter().map(peer).collect();
            let chosen = announcers(region, &holders, copies);
            prop_assert_eq!(chosen.len(), copies.min(holders.len()));
            holders.reverse();
            let mut again = announcers(region, &holders, copies);
            again.reverse();
            prop_assert_eq!(chosen, again, "the order of the holders is of no importance");
        }

        #[test]
        fn peer_that_leaves_is_replaced_by_one_other_and_changes_nothing_else(
            region: u8, numbers in btree_set(any::<u16>(), 2..30), leaving: prop::sample::Index,
            copies in 1_usize..5,
        ) {
            let holders: Vec<PeerId> = numbers.into_iter().map(peer).collect();
            let gone = leaving.get(&holders).clone();
            let rest: Vec<PeerId> = holders.iter().filter(|peer| **peer != gone).cloned().collect();
            let (before, after) = (announcers(region, &holders, copies), announcers(region, &rest, copies));
            let kept = before.iter().filter(|peer| **peer != gone).all(|peer| after.contains(peer));
            prop_assert!(kept);
            let new = after.iter().filter(|peer| !before.contains(peer)).count();
            prop_assert_eq!(new <= 1, true);
            prop_assert_eq!(after.len(), copies.min(rest.len()));
        }

        #[test]
        fn peers_that_agree_on_the_holders_never_all_skip_a_root(
            region: u8, numbers in btree_set(any::<u16>(), 1..30),
        ) {
            let holders: Vec<PeerId> = numbers.into_iter().map(peer).collect();
            prop_assert_eq!(announcers(region, &holders, 1).len(), 1);
        }
    }

    #[test]
    fn regions_are_spread_evenly_over_the_peers() {
        let holders: Vec<PeerId> = (0..10).map(peer).collect();
        for me in &holders {
            let count = (0..=255)
                .filter(|region| announces(me, *region, &holders, 2))
                .count();
            assert!(
                (25..=80).contains(&count),
                "{me} announces {count} of 256 regions, expected some 51"
            );
        }
    }

    #[test]
    fn root_of_a_silent_peer_is_taken_over_after_the_grace() {
        let (first, second) = (peer(1), peer(2));
        let region = (0..=255)
            .find(|region| announces(&first, *region, [&first, &second], 1))
            .expect("each peer announces some regions");
        let pin = pin_at(&[first.clone(), second.clone()]);
        let at = |seconds: u64| Instant(seconds * 1_000_000_000);
        let mut living = Living::new(at(0), Duration::from_secs(10), Duration::from_secs(100));
        let takes_over = |living: &Living, now| living.announces(now, &second, region, &pin, 1);
        assert!(!takes_over(&living, at(9)), "all count during the startup");
        assert!(takes_over(&living, at(10)), "no ping has come");
        living.note(at(11), [first.clone()]);
        assert!(!takes_over(&living, at(11)));
        living.note(at(110), []);
        assert!(!takes_over(&living, at(110)), "within the grace");
        living.note(at(111), []);
        assert!(takes_over(&living, at(111)));
        living.note(at(112), [first.clone()]);
        assert!(!takes_over(&living, at(112)), "it is back");
        assert!(living.announces(at(112), &first, region, &pin, 1));
    }

    #[test]
    fn pin_of_every_peer_is_announced_by_the_living() {
        let (me, other) = (peer(1), peer(2));
        let pin = pin_at(&[]);
        let mut living = Living::new(Instant(0), Duration::ZERO, Duration::from_secs(1));
        assert!((0..=255).all(|region| living.announces(Instant(1), &me, region, &pin, 1)));
        living.note(Instant(1), [me.clone(), other.clone()]);
        let announced = |me, region| living.announces(Instant(1), me, region, &pin, 1);
        assert!((0..=255).all(|region| announced(&me, region) != announced(&other, region)));
    }

    #[test]
    fn peer_that_is_no_holder_announces_nothing() {
        assert!(!announces(&peer(1), 7, &[peer(2)], 5));
        assert!(!announces(&peer(1), 7, &[], 5));
    }
}
