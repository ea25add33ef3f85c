use std::fmt::Debug;

use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use super::*;
use crate::testing::records as any;
use crate::testing::{cid, credential, options, peer};
use crate::*;

/// Checks that a record round-trips, and that truncated, extended and later versions are rejected.
fn is_sound<T: Serialize + DeserializeOwned + PartialEq + Debug>(record: &T) -> TestCaseResult {
    let mut bytes = encode(record);
    let read = decode::<T>(&bytes);
    prop_assert_eq!(read.as_ref(), Ok(record));
    for length in 0..bytes.len() {
        prop_assert!(
            decode::<T>(&bytes[..length]).is_err(),
            "{length} of {} bytes decode",
            bytes.len()
        );
    }
    bytes.push(0);
    prop_assert_eq!(decode::<T>(&bytes), Err(DecodeError::Trailing(1)));
    let (found, known) = (READABLE_VERSION + 1, READABLE_VERSION);
    prop_assert_eq!(
        decode::<T>(&encode_for_version(found, record)),
        Err(DecodeError::Version { found, known })
    );
    Ok(())
}

/// Generates the round-trip tests of all records that are sent or stored.
macro_rules! records {
    ($($name:ident: $record:ty = $strategy:expr;)+) => {
        proptest! {
            #![proptest_config(ProptestConfig::with_cases(48))]
            $(
                #[test]
                fn $name(record in $strategy) {
                    is_sound::<$record>(&record)?;
                }
            )+
        }

        /// Encodings of all records.
        fn written() -> impl Strategy<Value = Vec<u8>> {
            prop_oneof![$($strategy.prop_map(|record| encode(&record))),+]
        }

        /// Decodes arbitrary bytes as each record; what decodes must round-trip.
        fn read_as_anything(bytes: &[u8]) {
            $(
                if let Ok(record) = decode::<$record>(bytes) {
                    assert_eq!(decode::<$record>(&encode(&record)), Ok(record));
                }
            )+
        }
    };
}

records! {
    applied_positions_round_trip: Applied = any::applied();
    cids_round_trip: Cid = any::any_cid();
    contexts_of_reads_round_trip: (ReadId, (u64, Incarnation)) = any::read_context();
    copies_proposals_metrics_and_all_messages_round_trip: Envelope = any::envelope();
    changes_of_members_round_trip: MembersChange = any::members_change();
    policy_round_trip: Policy = any::policy();
    entries_of_the_log_round_trip: LogEntry = any::log_entry();
    hard_states_round_trip: HardState = any::hard_state();
    local_states_round_trip: Local = any::local();
    manifests_of_snapshots_round_trip: Manifest = any::manifest();
    memberships_round_trip: Members = any::members();
    messages_of_raft_round_trip: RaftMessage = any::raft_message();
    peer_ids_round_trip: PeerId = any::any_peer();
    pins_round_trip: Pin = any::pin();
    places_in_queues_round_trip: QueueKey = any::queue_key();
    proposals_of_an_entry_round_trip: Vec<Proposal> = any::proposals();
    windows_round_trip: Window = any::window();
}

#[test]
fn decode_errors_tell_empty_records_from_later_versions() {
    assert_eq!(decode::<Pin>(&[]), Err(DecodeError::Empty));
    let (found, known) = (READABLE_VERSION + 1, READABLE_VERSION);
    let refused = decode::<Pin>(&[found]);
    assert_eq!(refused, Err(DecodeError::Version { found, known }));
    assert!(matches!(
        decode::<Pin>(&[FIRST_VERSION - 1]),
        Err(DecodeError::Version { found: 0, .. })
    ));
}

/// A change of the encoding would split a cluster of two releases, and make stored data unreadable.
#[test]
fn encoding_is_stable() {
    let mut options = options(Replicas::Range { min: 1, max: 2 });
    options.name = "a".to_owned();
    options.expire_at = Some(Timestamp(300));
    let pin = Pin {
        cid: cid(9),
        pin_type: PinType::Data,
        allocations: vec![peer(7)],
        reference: None,
        options,
        timestamp: Timestamp(1),
        version: 3,
    };
    let mut expected = vec![1, 5, 1, 0x55, 0, 1, 9, 0, 1, 38];
    expected.extend_from_slice(peer(7).as_bytes());
    expected.extend_from_slice(&[0, 1, 1, 2, 1, b'a', 1, 0, 0, 1, 0xac, 2, 0, 0, 0, 1, 3]);
    assert_eq!(encode(&pin), expected);
}

#[test]
fn encoding_of_credentials_is_stable() {
    let credential = Credential {
        id: CredentialId(300),
        scopes: [Scope::Read, Scope::Metrics].into(),
        expire_at: Some(Timestamp(9)),
        limits: vec![CredentialLimit::RequestsPerSecond(10)],
        ..credential(0, "ci")
    };
    let id = ProposalId {
        origin: RaftId(1),
        boot: 2,
        seq: 3,
    };
    let command = Command::CreateCredential { credential };
    let created = Proposal { id, command };
    let mut expected = vec![2, 1, 1, 2, 3, 5, 0xac, 2, 2, b'c', b'i'];
    expected.extend_from_slice(&[7; 32]);
    expected.extend_from_slice(&[2, 0, 4, 5, 1, 9, 1, 0, 10]);
    assert_eq!(encode_for_version(POLICY_VERSION, &vec![created]), expected);
    let id = CredentialId(300);
    let command = Command::RevokeCredential { id };
    assert_eq!(encode(&command), [1, 6, 0xac, 2]);
    let (cid, owner) = (cid(9), "ci".to_owned());
    let release = Command::Release { cid, owner };
    assert_eq!(encode(&release), [1, 7, 5, 1, 0x55, 0, 1, 9, 2, b'c', b'i']);
    assert_eq!(release.min_version(), POLICY_VERSION);
    assert_eq!(encode(&[Scope::Own]), [1, 5]);
    assert_eq!(encode(&CredentialLimit::Pins(7)), [1, 1, 7]);
    assert_eq!(encode(&CredentialLimit::Bytes(7)), [1, 2, 7]);
    assert_eq!(command.min_version(), POLICY_VERSION);
}

#[test]
fn encoding_of_drains_is_stable() {
    let drain = Drain {
        peer: peer(7),
        since: Timestamp(9),
        pins: 300,
        moves_max: 256,
    };
    let mut expected = vec![2, 8, 38];
    expected.extend_from_slice(peer(7).as_bytes());
    expected.extend_from_slice(&[9, 0xac, 2, 0x80, 2]);
    let command = Command::Drain { drain };
    assert_eq!(encode_for_version(POLICY_VERSION, &command), expected);
    assert_eq!(command.min_version(), POLICY_VERSION);
    let command = Command::EndDrain { peer: peer(7) };
    let mut expected = vec![2, 9, 38];
    expected.extend_from_slice(peer(7).as_bytes());
    assert_eq!(encode_for_version(POLICY_VERSION, &command), expected);
}

#[test]
fn encoding_of_the_rebalancing_is_stable() {
    let settings = RebalanceSettings {
        automatic: true,
        threshold_percent: 10,
        moves_max: 300,
        moves_total_max: 5,
        bytes_per_second: 300,
        bytes_total_per_second: 6,
    };
    let encoded = |change| encode_for_version(POLICY_VERSION, &Command::Rebalance { change });
    let change = RebalanceChange::Settings(settings);
    assert_eq!(encoded(change), [2, 10, 0, 1, 10, 0xac, 2, 5, 0xac, 2, 6]);
    let since = Timestamp(7);
    assert_eq!(encoded(RebalanceChange::Start { since }), [2, 10, 1, 7]);
    let peer = peer(7);
    let mut expected = vec![2, 10, 2, 38];
    expected.extend_from_slice(peer.as_bytes());
    expected.push(7);
    assert_eq!(encoded(RebalanceChange::Done { peer, since }), expected);
    let end = Command::Rebalance {
        change: RebalanceChange::End { since: Some(since) },
    };
    assert_eq!(encode_for_version(POLICY_VERSION, &end), [2, 10, 3, 1, 7]);
    assert_eq!(end.min_version(), POLICY_VERSION);
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
        read_as_anything(&bytes);
        read_as_anything(&[&[VERSION], &bytes[..]].concat());
    }

    #[test]
    fn damaged_records_never_panic(
        mut bytes in written(),
        at in proptest::arbitrary::any::<prop::sample::Index>(),
        flip in 1_u8..,
        cut in proptest::bool::ANY,
    ) {
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        read_as_anything(&bytes);
    }

    #[test]
    fn ids_parse_from_their_display_form(cid in any::any_cid(), peer in any::any_peer()) {
        prop_assert_eq!(cid.to_string().parse::<Cid>(), Ok(cid));
        prop_assert_eq!(peer.to_string().parse::<PeerId>(), Ok(peer));
    }
}
