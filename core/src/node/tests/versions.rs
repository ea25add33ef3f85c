//! The agreed protocol version.

use super::harness::Harness;
#[cfg(any(debug_assertions, planted_bugs))]
use super::harness::persist;
use crate::testing::peer;
use crate::*;

#[test]
fn version_is_not_raised_beyond_this_release() {
    let mut harness = Harness::new(1);
    harness.node.record_version(&peer(2), VERSION + 1);
    assert!(harness.node.versions.is_empty());
    harness.node.raise_version();
    assert!(harness.node.pending.is_empty());
}

#[test]
fn agreed_version_never_decreases() {
    let mut members = Members::initial([peer(1), peer(2)]);
    assert_eq!(members.version, FIRST_VERSION);
    for (said, agreed) in [(3, 3), (2, 3), (4, 4)] {
        members
            .record_wish(&MembersWish::RaiseVersion { version: said })
            .unwrap();
        assert_eq!(members.version, agreed);
    }
}

#[test]
fn record_of_a_later_version_is_refused() {
    assert_eq!(decode::<u64>(&encode(&7_u64)), Ok(7));
    assert_eq!(decode::<u64>(&encode_for_version(VERSION, &7_u64)), Ok(7));
    let later = decode_up_to::<u64>(VERSION, &encode_for_version(VERSION + 1, &7_u64));
    let expected = DecodeError::Version {
        found: VERSION + 1,
        known: VERSION,
    };
    assert_eq!(later, Err(expected));
}

#[test]
fn log_entry_reports_the_version_of_its_payload() {
    let entry = |payload| LogEntry {
        index: 1,
        term: 1,
        payload: Payload::Commands(payload),
    };
    assert_eq!(entry(Vec::new()).min_version(), FIRST_VERSION);
    assert_eq!(entry(encode_for_version(9, &())).min_version(), 9);
}

/// This release has nothing to hold back: only builds that have a next version can show it.
#[cfg(any(debug_assertions, planted_bugs))]
#[test]
fn command_of_a_later_version_waits_until_all_members_agree() {
    let mut harness = Harness::new(1);
    harness.lead();
    harness.node.config.version = VERSION + 1;
    let effects = harness.handle(Event::Measured { metrics: Vec::new() });
    let newest = |op: &StoreOp| {
        if let StoreOp::Append { entries } = op {
            entries.iter().map(LogEntry::min_version).max()
        } else {
            None
        }
    };
    let versions = persist(&effects).ops.iter().filter_map(newest);
    assert_eq!(versions.max(), Some(FIRST_VERSION));
}
