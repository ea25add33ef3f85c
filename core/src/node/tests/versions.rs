//! The agreed protocol version.

use super::alone::Alone;
use crate::testing::peer;
use crate::*;

#[test]
fn a_release_that_reads_no_more_than_all_members_proposes_nothing() {
    let mut alone = Alone::new(1);
    alone.node.heard_version(&peer(2), VERSION + 1);
    assert!(alone.node.versions.is_empty());
    alone.node.raise_version();
    assert!(alone.node.pending.is_empty());
}

#[test]
fn the_membership_remembers_the_highest_version_that_was_agreed_on() {
    let mut members = Members::initial([peer(1), peer(2)]);
    assert_eq!(members.version, FIRST_VERSION);
    for (said, agreed) in [(3, 3), (2, 3), (4, 4)] {
        members.wish(&MembersWish::Speak { version: said }).unwrap();
        assert_eq!(members.version, agreed);
    }
}

#[test]
fn a_record_of_a_later_version_is_refused_by_its_number_and_an_older_one_read() {
    assert_eq!(decode::<u64>(&encode(&7_u64)), Ok(7));
    assert_eq!(decode::<u64>(&encode_since(VERSION, &7_u64)), Ok(7));
    let later = decode::<u64>(&encode_since(VERSION + 1, &7_u64));
    let expected = DecodeError::Version {
        found: VERSION + 1,
        known: VERSION,
    };
    assert_eq!(later, Err(expected));
}

#[test]
fn an_entry_says_which_release_can_read_what_is_in_it() {
    let entry = |payload| LogEntry {
        index: 1,
        term: 1,
        payload: Payload::Commands(payload),
    };
    assert_eq!(entry(Vec::new()).since(), FIRST_VERSION);
    assert_eq!(entry(encode_since(9, &())).since(), 9);
}
