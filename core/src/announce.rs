//! Choice of the peers of the cluster that announce a root to the public IPFS network.
//!
//! A provider record names only its sender, so a peer can announce only what it holds. If every holder
//! announced every root, a cluster of N peers would send N times as many records as one copy needs. So each
//! root has a few announcers, chosen by rendezvous hashing ([Thaler and Ravishankar, 1998]) among its living
//! holders: every peer computes the choice by itself, and a peer that leaves or joins changes only the roots
//! that it announced or announces from then on. Peers whose views differ for a while may announce a root more
//! than once, which is harmless, or, only if each believes that others rank above it, skip it until their
//! views agree.
//!
//! The choice depends on the first bits of a root's key in the DHT, its *region*, not on the root: a peer
//! then announces few regions as a whole, and needs fewer lookups for them.
//!
//! [Thaler and Ravishankar, 1998]: https://doi.org/10.1109/90.663936

use crate::ids::PeerId;

/// Number of bits of a DHT key that are its region.
pub const REGION_BITS: u32 = 8;

/// Returns the region of a DHT key: its first [`REGION_BITS`] bits.
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
    is_holder && above < copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_set;
    use proptest::prelude::*;

    fn peer(number: u16) -> PeerId {
        let [high, low] = number.to_be_bytes();
        PeerId::from_bytes(&[0, 2, high, low]).expect("is a multihash")
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
    fn peer_that_is_no_holder_announces_nothing() {
        assert!(!announces(&peer(1), 7, &[peer(2)], 5));
        assert!(!announces(&peer(1), 7, &[], 5));
    }
}
