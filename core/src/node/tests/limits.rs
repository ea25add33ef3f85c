//! Byte limits of proposals and messages, and their exception: entries of earlier releases.

use super::harness::Harness;
use super::*;

/// Size of the largest pin that the first release's REST API accepted.
const OLD_ORIGIN: usize = 8_380_000;

fn large(number: u8, size: usize) -> Request {
    let options = PinOptions {
        metadata: [("k".to_owned(), "v".repeat(size))].into(),
        ..options(Replicas::Everywhere)
    };
    let cid = cid(number);
    Request::Pin {
        cid,
        options,
        owner: None,
    }
}

fn requested(number: u8, request: Request) -> Event {
    let ticket = Ticket(u64::from(number));
    Event::Requested { ticket, request }
}

fn old_proposal(origin: RaftId, number: u8) -> Proposal {
    let mut options = options(Replicas::Everywhere);
    options.origins = vec!["o".repeat(OLD_ORIGIN)];
    let pin = Pin {
        cid: cid(number),
        pin_type: PinType::Data,
        allocations: Vec::new(),
        reference: None,
        options,
        timestamp: Timestamp(1),
        version: 0,
    };
    Proposal {
        id: ProposalId {
            origin,
            boot: 1,
            seq: u64::from(number),
        },
        command: Command::Pin {
            pin,
            precondition: Precondition::Any,
        },
    }
}

#[test]
fn oversized_pin_is_refused_with_field_and_limit() {
    let mut harness = Harness::new(1);
    harness.lead();
    let effects = harness.request(1, large(1, METADATA_MAX));
    let [
        Effect::Reply {
            ticket: Ticket(1),
            reply: Err(Refusal::TooLarge(why)),
        },
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(
        why.to_string(),
        "the pin's metadata has 16385 bytes, at most 16384 are allowed"
    );
}

/// Ten bodies of 500 pins with 16,000 bytes of metadata stopped a cluster of the first release.
#[test]
fn log_entries_are_limited_by_bytes() {
    let mut harness = Harness::new(1);
    harness.lead();
    let events = (1..=100).map(|number| requested(number, large(number, 16_000)));
    let effects = harness.node.handle_all(harness.now, &harness.disk, events);
    let (mut entries, mut batches) = (0, vec![effects]);
    while let Some(effects) = batches.pop() {
        for effect in effects {
            let Effect::Persist(batch) = effect else { continue };
            harness.disk.write(&batch);
            for op in &batch.ops {
                let StoreOp::Append { entries: appended } = op else {
                    continue;
                };
                for entry in appended {
                    let (Payload::Commands(data) | Payload::Members(data)) = &entry.payload;
                    assert!(
                        data.len() <= LimitsConfig::DEFAULT.longest_message(),
                        "{}",
                        data.len()
                    );
                    entries += usize::from(data.len() > 16_000);
                }
            }
            if batch.sync {
                let persisted = Event::Persisted { batch: batch.id };
                batches.push(harness.node.handle(harness.now, &harness.disk, persisted));
            }
        }
    }
    assert_eq!(entries, 100_usize.div_ceil(16), "sixteen share an entry");
}

#[test]
fn forwarded_proposals_are_batched_by_bytes() {
    let mut cluster = TestCluster::new(3);
    cluster.run(20 * SECOND);
    let leader = leader(&cluster);
    let follower = (1..=3).find(|number| *number != leader).unwrap();
    let (node, disk) = cluster.nodes.get_mut(&peer(follower)).unwrap();
    let events = (1..=40).map(|number| requested(number, large(number, 16_000)));
    let effects = node.handle_all(cluster.now, disk, events);
    let sizes = effects.iter().filter_map(|effect| {
        let Effect::Send { envelope, .. } = effect else {
            return None;
        };
        if let Message::Propose(proposals) = &envelope.message {
            Some(proposals.len())
        } else {
            None
        }
    });
    assert_eq!(sizes.collect::<Vec<_>>(), [16, 16, 8]);
}

#[test]
fn open_requests_are_limited_by_bytes() {
    let mut harness = Harness::new(3);
    let mut busy = 0;
    for number in 0..3000 {
        let effects = harness.request(number, large(1, 16_000));
        busy += usize::from(effects.iter().any(|effect| {
            matches!(
                effect,
                Effect::Reply {
                    reply: Err(Refusal::Busy),
                    ..
                }
            )
        }));
    }
    let fit = LimitsConfig::DEFAULT.open_bytes / 16_000;
    assert!((3000 - fit..3010 - fit + 40).contains(&busy), "{busy} of 3000");
}

/// Three requests at once, each with an origin of 8.38 MB, made an entry of 25 MB, too large for any message.
#[test]
fn oversized_entry_of_an_earlier_release_is_replicated() {
    let mut cluster = TestCluster::new(3);
    let proposals: Vec<Proposal> = (1..=3).map(|number| old_proposal(RaftId(1), number)).collect();
    let entry = LogEntry {
        index: 1,
        term: 1,
        payload: Payload::Commands(encode(&proposals)),
    };
    for number in 1..=2 {
        let (_, disk) = cluster.nodes.get_mut(&peer(number)).unwrap();
        disk.log.insert(1, entry.clone());
        disk.recovered.as_mut().unwrap().hard_state.term = 1;
        cluster.restart(number);
    }
    cluster.run(5 * SECOND);
    let has_all = |cluster: &TestCluster, number| cluster.nodes[&peer(number)].1.pins.len() == 3;
    assert!((1..=3).all(|number| has_all(&cluster, number)));
    cluster.join(4);
    let added = cluster.request(1, Request::AddPeer { peer: peer(4) });
    cluster.run(20 * SECOND);
    assert_eq!(cluster.replies[&added], Ok(Reply::PeerAdded));
    assert!(has_all(&cluster, 4));
}

#[test]
fn oversized_proposal_of_an_earlier_release_is_dropped() {
    let mut cluster = TestCluster::new(2);
    cluster.run(20 * SECOND);
    let leader = leader(&cluster);
    let other = 3 - leader;
    let members = cluster.nodes[&peer(other)].0.view().members();
    let (cluster_id, origin) = (members.cluster, members.raft_id(&peer(other)).unwrap());
    let envelope = Envelope {
        cluster: cluster_id,
        incarnation: cluster.nodes[&peer(other)].0.view().incarnation(),
        addressee: None,
        version: VERSION,
        message: Message::Propose(vec![old_proposal(origin, 9)]),
    };
    let (node, disk) = cluster.nodes.get_mut(&peer(leader)).unwrap();
    let from = peer(other);
    let effects = node.handle(cluster.now, disk, Event::Received { from, envelope });
    assert!(effects.is_empty() && node.view().pending() == 0);
}
