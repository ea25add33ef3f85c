//! Encodings of keys and records.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::record::{Founding, Head, chain_entry, seal, seal_members, unchain_entry, unseal};
use super::super::{keys, record, search_index};
use super::*;
use cluster_core::{Identity, READABLE_VERSION, RaftId};

/// Includes identity CIDs, which are as long as their content.
fn cids() -> impl Strategy<Value = Cid> {
    vec(any::<u8>(), 0..40).prop_map(|content| {
        let length = u8::try_from(content.len()).expect("is short");
        Cid::from_bytes(&[&[1, 0x55, 0, length], &content[..]].concat()).expect("a CID")
    })
}

fn queue_keys() -> impl Strategy<Value = QueueKey> {
    let lanes = prop::sample::select(vec![Lane::Unpin, Lane::Fresh, Lane::Retry, Lane::Surplus]);
    (lanes, prop_oneof![0..4_u64, any::<u64>()], cids()).prop_map(|(lane, at, cid)| QueueKey {
        lane,
        at,
        cid,
    })
}

fn peers() -> impl Strategy<Value = PeerId> {
    vec(any::<u8>(), 1..62).prop_map(|digest| {
        let length = u8::try_from(digest.len()).expect("is short");
        PeerId::from_bytes(&[&[0, length], &digest[..]].concat()).expect("a peer id")
    })
}

fn heads() -> impl Strategy<Value = Head> {
    let numbers = any::<[u64; 12]>();
    let identity = (0..4_u8, any::<u64>()).prop_map(|(kind, id)| match kind {
        0 => Identity::Founding,
        1 => Identity::Unknown,
        2 => Identity::Known(RaftId(id)),
        _ => Identity::Removed(RaftId(id)),
    });
    (numbers, identity, any::<Option<u64>>(), any::<bool>()).prop_map(|(n, identity, vote, reconciling)| {
        let [
            seq,
            generation,
            term,
            commit,
            index,
            applied_term,
            pins,
            compacted,
            chain,
            last,
            from,
            to,
        ] = n;
        Head {
            seq,
            generation,
            hard_state: HardState {
                identity,
                term,
                vote: vote.map(RaftId),
                commit,
            },
            applied: Applied {
                index,
                term: applied_term,
                pins,
            },
            reconciling,
            compacted: (compacted, term),
            compacted_chain: chain,
            last,
            chain: !chain,
            purge_from: from,
            purge_to: to,
        }
    })
}

fn entries() -> impl Strategy<Value = LogEntry> {
    let bytes = vec(any::<u8>(), 0..30);
    (any::<u64>(), any::<u64>(), bytes, any::<bool>()).prop_map(|(index, term, bytes, commands)| LogEntry {
        index,
        term,
        payload: if commands {
            Payload::Commands(bytes)
        } else {
            Payload::Members(bytes)
        },
    })
}

proptest! {
    #[test]
    fn queue_keys_sort_like_the_queue(one in queue_keys(), other in queue_keys()) {
        prop_assert_eq!(keys::queue(&one).cmp(&keys::queue(&other)), one.cmp(&other));
        let written = keys::queue(&one);
        let (from, to) = keys::lane(one.lane);
        prop_assert!(from[..] <= written[..] && written[..] < to[..]);
        prop_assert_eq!(keys::queue_key(one.lane, &written), Some(one));
    }

    #[test]
    fn log_and_expiry_keys_sort_by_number(
        one: u64,
        other: u64,
        cid in cids(),
    ) {
        prop_assert_eq!(keys::log(one).cmp(&keys::log(other)), one.cmp(&other));
        let expiry = |at| [&keys::by_expiry(Timestamp(at))[..], cid.as_bytes()].concat();
        prop_assert_eq!(expiry(one).cmp(&expiry(other)), one.cmp(&other));
        let (from, to) = keys::EXPIRIES;
        prop_assert!(from[..] <= expiry(one)[..] && expiry(one)[..] < to[..]);
        prop_assert_eq!(keys::expiry_cid(&expiry(one)), Some(cid.clone()));
    }

    #[test]
    fn peers_and_names_with_common_prefixes_do_not_mix(
        (one, other) in (peers(), peers()),
        (name, longer) in ("\\PC{0,6}", "\\PC{1,6}"),
        cid in cids(),
    ) {
        let key = [&keys::by_peer(other.as_bytes())[..], cid.as_bytes()].concat();
        prop_assert_eq!(key.starts_with(&keys::by_peer(one.as_bytes())), one == other);
        let longer = format!("{name}{longer}");
        for (name, other) in [(&name, &longer), (&longer, &name)] {
            let key = [&search_index::by_name(other)[..], cid.as_bytes()].concat();
            prop_assert!(!key.starts_with(&search_index::by_name(name)));
        }
        prop_assert!(search_index::by_name(&longer.repeat(600)).len() <= 514);
    }

    #[test]
    fn any_key_is_parsed_or_refused(bytes in vec(any::<u8>(), 0..40)) {
        let _ = keys::expiry_cid(&bytes);
        let _ = keys::queue_key(Lane::Fresh, &bytes);
    }

    #[test]
    fn a_sealed_record_is_bound_to_its_key_and_checked(
        head in heads(),
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
        incarnation: u64,
    ) {
        let sealed = seal(keys::HEAD, &head);
        prop_assert!(unseal::<Head>(keys::BOOT, &sealed).is_err());
        let mut damaged = sealed.clone();
        damaged[at.index(sealed.len())] ^= flip;
        prop_assert!(unseal::<Head>(keys::HEAD, &damaged).is_err());
        for length in 0..sealed.len() {
            prop_assert!(unseal::<Head>(keys::HEAD, &sealed[..length]).is_err());
        }
        prop_assert_eq!(unseal(keys::HEAD, &sealed), Ok(head));
        let founding = Founding { incarnation: Incarnation(incarnation) };
        prop_assert_eq!(unseal(keys::FOUNDING, &seal(keys::FOUNDING, &founding)), Ok(founding));
    }

    #[test]
    fn an_entry_is_bound_to_its_predecessor_and_checked(
        entry in entries(),
        chain: u64,
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
    ) {
        let (bytes, next) = chain_entry(&entry, chain);
        prop_assert_eq!(unchain_entry(&bytes, chain), Ok((entry, next)));
        prop_assert!(unchain_entry(&bytes, !chain).is_err());
        let mut damaged = bytes.clone();
        damaged[at.index(bytes.len())] ^= flip;
        prop_assert!(unchain_entry(&damaged, chain).is_err());
        for length in 0..bytes.len() {
            prop_assert!(unchain_entry(&bytes[..length], chain).is_err());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..60), chain: u64) {
        let _ = unseal::<Head>(keys::HEAD, &bytes);
        let _ = unchain_entry(&bytes, chain);
        // With a valid checksum.
        let sum = |seed| xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, seed).to_le_bytes();
        let key = xxhash_rust::xxh3::xxh3_64(keys::HEAD);
        let _ = unseal::<Head>(keys::HEAD, &[&bytes[..], &sum(key)].concat());
        let _ = unseal::<Members>(keys::HEAD, &[&bytes[..], &sum(key)].concat());
        let _ = unchain_entry(&[&bytes[..], &sum(chain)].concat(), chain);
    }
}

#[test]
fn members_of_a_later_version_are_refused_by_that_version() {
    let mut members = Members::initial([peer(1)]);
    let sealed = seal_members(&members);
    assert_eq!(
        record::unseal::<Members>(keys::MEMBERS, &sealed),
        Ok(members.clone())
    );
    members.version = READABLE_VERSION + 1;
    let refused = record::unseal::<Members>(keys::MEMBERS, &seal_members(&members)).unwrap_err();
    assert!(
        refused.contains(&format!("version {}", READABLE_VERSION + 1)),
        "{refused}"
    );
}
