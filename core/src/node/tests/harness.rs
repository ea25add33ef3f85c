//! A single node, driven event by event.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::testing::{Disk, agreed_members, peer};
use crate::*;

const NOW: Now = Now {
    mono: Instant(1),
    wall: Timestamp(1_000_000_000_000),
};

/// Peer 1 of a cluster, without the others.
pub(super) struct Harness {
    pub(super) node: Node,
    pub(super) disk: Disk,
    pub(super) now: Now,
    pub(super) members: Members,
}

impl Harness {
    /// Creates a peer of a cluster of `size`, without periodic comparisons.
    pub(super) fn new(size: u8) -> Self {
        Self::comparing(size, Duration::ZERO)
    }

    /// Creates a peer that compares its pins with its IPFS node's periodically.
    pub(super) fn comparing(size: u8, compare_interval: Duration) -> Self {
        let mut config = Config::new(peer(1));
        config.tracker.compare_interval = compare_interval;
        Self::configured(size, config)
    }

    /// Creates a peer with this configuration.
    pub(super) fn configured(size: u8, config: Config) -> Self {
        let members = agreed_members((1..=size).map(peer));
        let recovered = Recovered::founding(Incarnation(1), members.clone());
        let disk = Disk {
            recovered: Some(recovered.clone()),
            ..Disk::default()
        };
        let node = Node::new(config, recovered, 7, NOW);
        let mut harness = Self {
            node,
            disk,
            now: NOW,
            members,
        };
        let effects = harness.handle(Event::TimedOut);
        if size > 1 {
            assert_eq!(effects, [Effect::Measure]);
        } else {
            // A sole voter campaigns at once.
            let batch = persist(&effects);
            assert!(batch.sync && effects[1..] == [Effect::Measure], "{effects:?}");
            let _ = harness.handle(Event::Persisted { batch: batch.id });
        }
        harness
    }

    /// Handles an event, applies the writes to the disk, and returns all effects.
    pub(super) fn handle(&mut self, event: Event) -> Vec<Effect> {
        self.handle_all([event])
    }

    /// As [`Harness::handle`], for several events in one call.
    pub(super) fn handle_all(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        let effects = self.node.handle_all(self.now, &self.disk, events);
        self.node.check();
        for effect in &effects {
            if let Effect::Persist(batch) = effect {
                self.disk.write(batch);
            }
        }
        effects
    }

    pub(super) fn receive(&mut self, from: u8, message: Message) -> Vec<Effect> {
        let incarnation = Incarnation(u64::from(from));
        let envelope = Envelope {
            cluster: self.members.cluster,
            incarnation,
            addressee: None,
            version: VERSION,
            message,
        };
        self.handle(Event::Received {
            from: peer(from),
            envelope,
        })
    }

    pub(super) fn send(&self, to: u8, message: RaftMessage) -> Effect {
        let envelope = Envelope {
            cluster: self.members.cluster,
            incarnation: Incarnation(1),
            addressee: None,
            version: VERSION,
            message: Message::Raft(message),
        };
        Effect::Send {
            to: peer(to),
            envelope,
        }
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now = Now {
            mono: self.now.mono + time,
            wall: self.now.wall + time,
        };
    }

    /// Advances time until this peer, the only one, is leader.
    pub(super) fn lead(&mut self) {
        for _ in 0..40 {
            self.wait(Duration::from_millis(100));
            let effects = self.handle(Event::TimedOut);
            for effect in effects {
                if let Effect::Persist(Batch { id, sync: true, .. }) = effect {
                    let _ = self.handle(Event::Persisted { batch: id });
                }
            }
        }
        assert!(self.node.view().is_leader());
    }

    /// Restarts the process from the disk.
    pub(super) fn restart(&mut self) {
        let config = Config::new(peer(1));
        self.node = Node::new(config, self.disk.recover(), 8, self.now);
    }

    /// Installs a snapshot of entry 9 from peer 2, and returns the effects.
    pub(super) fn install(&mut self, pins: BTreeMap<Cid, Pin>) -> Vec<Effect> {
        let applied = Applied {
            index: 9,
            term: 1,
            pins: pins.len() as u64,
        };
        let manifest = Manifest {
            applied,
            members: self.members.clone(),
            windows: Vec::new(),
        };
        let snapshot = SnapshotId(1);
        self.disk
            .staged
            .insert(snapshot, (manifest.clone(), pins, Policy::default()));
        let effects = self.handle(Event::SnapshotReceived {
            from: peer(2),
            snapshot,
            manifest,
            message: raft_message(RaftKind::Snapshot, 1),
        });
        let batch = persist(&effects).id;
        self.handle(Event::Persisted { batch })
    }

    /// Replicates and applies a command of a proposer, by its Raft id, as peer 2, the leader of term 1.
    pub(super) fn apply(&mut self, proposer: u64, index: Index, command: Command) -> Vec<Effect> {
        let id = ProposalId {
            origin: RaftId(proposer),
            boot: 1,
            seq: index,
        };
        let entry = LogEntry {
            index,
            term: 1,
            payload: Payload::Commands(encode(&vec![Proposal { id, command }])),
        };
        let append = RaftMessage {
            entries: vec![entry],
            index: index - 1,
            log_term: u64::from(index > 1),
            commit: index,
            ..raft_message(RaftKind::Append, 1)
        };
        let batch = persist(&self.receive(2, Message::Raft(append))).id;
        self.handle(Event::Persisted { batch })
    }

    pub(super) fn request(&mut self, ticket: u64, request: Request) -> Vec<Effect> {
        self.handle(Event::Requested {
            ticket: Ticket(ticket),
            request,
        })
    }
}

/// Builds the first append of peer 2, leader of term 1: a membership change.
pub(super) fn append_change(step: MembersStep) -> RaftMessage {
    let steps = vec![step];
    let entry = LogEntry {
        index: 1,
        term: 1,
        payload: Payload::Members(encode(&MembersChange { steps })),
    };
    RaftMessage {
        entries: vec![entry],
        ..raft_message(RaftKind::Append, 1)
    }
}

pub(super) fn raft_message(kind: RaftKind, term: Term) -> RaftMessage {
    RaftMessage::new(kind, RaftId(2), RaftId(1), term)
}

pub(super) fn persist(effects: &[Effect]) -> &Batch {
    let Effect::Persist(batch) = &effects[0] else {
        panic!("{:?} instead of a batch", effects[0]);
    };
    batch
}
