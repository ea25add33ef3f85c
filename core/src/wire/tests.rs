use proptest::prelude::*;

use super::*;
use crate::testing::{cid, options, peer};
use crate::*;

fn records() -> Vec<Vec<u8>> {
    let pin = Pin {
        cid: cid(1),
        pin_type: PinType::Data,
        allocations: vec![peer(1), peer(2)],
        reference: None,
        options: options(Replicas::Range { min: 1, max: 2 }),
        timestamp: Timestamp(1),
        version: 3,
    };
    let proposal = Proposal {
        id: ProposalId {
            origin: RaftId(1),
            boot: 2,
            seq: 3,
        },
        command: Command::Pin {
            pin: pin.clone(),
            precondition: Precondition::Version(2),
        },
    };
    let message = RaftMessage {
        kind: RaftKind::Append,
        from: RaftId(1),
        to: RaftId(2),
        term: 3,
        log_term: 2,
        index: 9,
        entries: vec![LogEntry {
            index: 10,
            term: 3,
            payload: Payload::Commands(encode(&[&proposal])),
        }],
        commit: 8,
        commit_term: 2,
        request_snapshot: 0,
        reject: false,
        reject_hint: 0,
        context: vec![1],
        priority: 0,
    };
    let members = Members::initial([peer(1), peer(2)]);
    let envelope = |message| Envelope {
        cluster: members.cluster,
        incarnation: Incarnation(4),
        addressee: Some(Incarnation(5)),
        version: VERSION,
        message,
    };
    vec![
        encode(&pin),
        encode(&proposal),
        encode(&members),
        encode(&envelope(Message::Raft(message))),
        encode(&envelope(Message::Hello)),
        encode(&envelope(Message::NotMember { as_of: 7 })),
        encode(&envelope(Message::Propose(vec![proposal]))),
        encode(&envelope(Message::Metrics(crate::testing::metrics(5)))),
    ]
}

fn try_all(bytes: &[u8]) {
    let _ = decode::<Envelope>(bytes);
    let _ = decode::<Pin>(bytes);
    let _ = decode::<Proposal>(bytes);
    let _ = decode::<Members>(bytes);
    let _ = decode::<Local>(bytes);
    let _ = decode::<Manifest>(bytes);
    let _ = decode::<MembersChange>(bytes);
    let _ = decode::<Vec<Proposal>>(bytes);
}

#[test]
fn what_is_written_is_read_again() {
    let records = records();
    let round = |bytes: &[u8]| encode(&decode::<Envelope>(bytes).expect("is sound"));
    assert_eq!(encode(&decode::<Pin>(&records[0]).expect("is sound")), records[0]);
    assert_eq!(
        encode(&decode::<Proposal>(&records[1]).expect("is sound")),
        records[1]
    );
    assert_eq!(
        encode(&decode::<Members>(&records[2]).expect("is sound")),
        records[2]
    );
    for record in &records[3..] {
        assert_eq!(round(record), *record);
    }
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = records()[0].clone();
    bytes[0] = VERSION + 1;
    assert_eq!(
        decode::<Pin>(&bytes),
        Err(DecodeError::Version {
            found: VERSION + 1,
            known: VERSION
        })
    );
    assert_eq!(decode::<Pin>(&[]), Err(DecodeError::Empty));
}

#[test]
fn bytes_too_many_are_noticed() {
    let mut bytes = records()[0].clone();
    bytes.push(0);
    assert_eq!(decode::<Pin>(&bytes), Err(DecodeError::Trailing(1)));
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        try_all(&bytes);
        try_all(&[&[VERSION], &bytes[..]].concat());
    }

    #[test]
    fn damage_never_panics(
        record in 0_usize..8,
        at in any::<prop::sample::Index>(),
        flip in 1_u8..,
        cut in any::<bool>(),
    ) {
        let mut bytes = records()[record].clone();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= flip }
        try_all(&bytes);
    }

    #[test]
    fn ids_round_trip(number in any::<u8>()) {
        prop_assert_eq!(cid(number).to_string().parse::<Cid>(), Ok(cid(number)));
        prop_assert_eq!(peer(number).to_string().parse::<PeerId>(), Ok(peer(number)));
    }
}
