use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::pin::{Pin, Replicas};
use crate::testing::{Disk, cid, credential, options, peer};
use crate::time::Timestamp;
use crate::*;

/// Naive model: a map of pins, and the set of all applied proposals.
#[derive(Default)]
struct Model {
    pins: BTreeMap<Cid, Pin>,
    credentials: BTreeMap<CredentialId, Credential>,
    drains: BTreeMap<PeerId, Drain>,
    rebalance: Rebalance,
    applied: BTreeSet<ProposalId>,
}

impl Model {
    fn apply(&mut self, index: Index, Proposal { id, command }: Proposal) -> Option<Outcome> {
        if !self.applied.insert(id) {
            return None;
        }
        let fits = |precondition, pin: Option<&Pin>| match precondition {
            Precondition::Absent => pin.is_none(),
            Precondition::Any => true,
            Precondition::Version(version) => pin.map(|pin| pin.version) == Some(version),
        };
        Some(match command {
            Command::Admit { .. } => Outcome::Admitted,
            Command::Members(wish) => Outcome::Recorded(wish),
            Command::CreateCredential { credential } => {
                let mut others = self.credentials.values();
                if others.any(|other| other.id == credential.id || other.name == credential.name) {
                    return Some(Outcome::CredentialRefused(CredentialError::Exists(
                        credential.name,
                    )));
                }
                self.credentials.insert(credential.id, credential.clone());
                Outcome::CredentialCreated(credential)
            }
            Command::Drain { drain } => {
                let stored = self.drains.entry(drain.peer.clone()).or_insert(drain.clone());
                stored.moves_max = drain.moves_max;
                Outcome::DrainStarted(stored.clone())
            }
            Command::EndDrain { peer } => match self.drains.remove(&peer) {
                Some(drain) => Outcome::DrainEnded(drain),
                None => Outcome::DrainRefused(DrainError::Missing),
            },
            Command::RevokeCredential { id } => match self.credentials.remove(&id) {
                Some(credential) => Outcome::CredentialRevoked(credential),
                None => Outcome::CredentialRefused(CredentialError::Missing),
            },
            Command::Pin { pin, precondition } => match self.pins.get(&pin.cid) {
                current if !fits(precondition, current) => Outcome::Stale,
                Some(current) if current.is_equivalent(&pin) => Outcome::Pinned(current.clone()),
                Some(current) if current.options.mode > pin.options.mode => Outcome::Conflict(String::new()),
                _ => {
                    let pin = Pin {
                        version: index,
                        ..pin
                    };
                    self.pins.insert(pin.cid.clone(), pin.clone());
                    Outcome::Pinned(pin)
                }
            },
            Command::Reallocate {
                cid,
                allocations,
                version,
            } => match self.pins.get_mut(&cid) {
                None => Outcome::NotFound,
                Some(pin) if pin.version != version => Outcome::Stale,
                Some(pin) => {
                    pin.allocations = allocations;
                    pin.version = index;
                    Outcome::Pinned(pin.clone())
                }
            },
            Command::Unpin { cid, precondition } => match self.pins.get(&cid) {
                None => Outcome::NotFound,
                current if !fits(precondition, current) => Outcome::Stale,
                Some(_) => Outcome::Unpinned(self.pins.remove(&cid).expect("is there")),
            },
            Command::Release { cid, owner } => self.release(index, &cid, &owner),
            Command::Rebalance { change } => self.rebalance(change),
        })
    }
}

impl Model {
    fn rebalance(&mut self, change: RebalanceChange) -> Outcome {
        let Rebalance { settings, run } = &mut self.rebalance;
        match (change, run.as_mut()) {
            (RebalanceChange::Settings(new), _) => *settings = new,
            (RebalanceChange::Start { since }, None) => {
                let done = Vec::new();
                *run = Some(RebalanceRun { since, done });
            }
            (RebalanceChange::Done { peer, since }, Some(known)) if known.since == since => {
                let done: BTreeSet<PeerId> = known.done.drain(..).chain([peer]).collect();
                known.done = done.into_iter().collect();
            }
            (RebalanceChange::End { since: None }, None) => {
                return Outcome::RebalanceRefused(NotRebalancing);
            }
            (RebalanceChange::End { since }, Some(known))
                if since.is_none_or(|since| since == known.since) =>
            {
                *run = None;
            }
            _ => {}
        }
        Outcome::Rebalanced(self.rebalance.clone())
    }

    /// Pins of this test differ in their owners only.
    fn release(&mut self, index: Index, cid: &Cid, owner: &str) -> Outcome {
        let key = owner_key(owner);
        let Some(pin) = self.pins.get_mut(cid) else {
            return Outcome::NotFound;
        };
        let before = pin.clone();
        if pin.options.metadata.remove(&key).is_none() {
            return Outcome::NotFound;
        }
        pin.version = index;
        let left: Vec<String> = owners_in(&pin.options.metadata).map(str::to_owned).collect();
        if left == [""] {
            pin.options.metadata.clear();
        } else if left.is_empty() {
            self.pins.remove(cid);
        }
        Outcome::Unpinned(before)
    }
}

fn owners() -> impl Strategy<Value = BTreeMap<String, String>> {
    let marks = proptest::collection::btree_set("[ab]?", 0..3);
    marks.prop_map(|names| {
        let named = names.iter().any(|name| !name.is_empty());
        let names = names.into_iter().filter(|_| named);
        names.map(|name| (owner_key(&name), String::new())).collect()
    })
}

fn preconditions() -> impl Strategy<Value = Precondition> {
    prop_oneof![
        Just(Precondition::Absent),
        Just(Precondition::Any),
        (1_u64..30).prop_map(Precondition::Version)
    ]
}

fn commands() -> impl Strategy<Value = Command> {
    let allocations = || proptest::collection::btree_set(1_u8..4, 1..3);
    let pin = (0_u8..4, any::<bool>(), allocations(), preconditions(), owners()).prop_map(
        |(number, direct, allocations, precondition, metadata)| {
            let mut options = options(Replicas::Range { min: 1, max: 2 });
            options.mode = if direct { Mode::Direct } else { Mode::Recursive };
            options.metadata = metadata;
            let pin = Pin {
                cid: cid(number),
                pin_type: PinType::Data,
                allocations: allocations.into_iter().map(peer).collect(),
                reference: None,
                options,
                timestamp: Timestamp(7),
                version: 0,
            };
            Command::Pin { pin, precondition }
        },
    );
    let unpin = (0_u8..4, preconditions()).prop_map(|(number, precondition)| Command::Unpin {
        cid: cid(number),
        precondition,
    });
    let reallocate = (0_u8..4, allocations(), 1_u64..30).prop_map(|(number, allocations, version)| {
        let allocations = allocations.into_iter().map(peer).collect();
        Command::Reallocate {
            cid: cid(number),
            allocations,
            version,
        }
    });
    let create = (1_u64..4, "[ab]").prop_map(|(id, name)| Command::CreateCredential {
        credential: credential(id, &name),
    });
    let revoke = (1_u64..4).prop_map(|id| Command::RevokeCredential { id: CredentialId(id) });
    let release = (0_u8..4, "[ab]").prop_map(|(number, owner)| Command::Release {
        cid: cid(number),
        owner,
    });
    let drain = (1_u8..4, 0_u64..9, 1_u32..9).prop_map(|(number, pins, moves_max)| Command::Drain {
        drain: Drain {
            peer: peer(number),
            since: Timestamp(pins),
            pins,
            moves_max,
        },
    });
    let end = (1_u8..4).prop_map(|number| Command::EndDrain { peer: peer(number) });
    let since = || (1_u64..3).prop_map(Timestamp);
    let rebalance = prop_oneof![
        any::<bool>().prop_map(|automatic| {
            RebalanceChange::Settings(RebalanceSettings {
                automatic,
                ..RebalanceSettings::default()
            })
        }),
        since().prop_map(|since| RebalanceChange::Start { since }),
        (1_u8..4, since()).prop_map(|(number, since)| RebalanceChange::Done {
            peer: peer(number),
            since,
        }),
        proptest::option::of(since()).prop_map(|since| RebalanceChange::End { since }),
    ];
    let rebalance = rebalance.prop_map(|change| Command::Rebalance { change });
    let of_pins = prop_oneof![3 => pin, 2 => unpin, 2 => release, 1 => reallocate];
    prop_oneof![8 => of_pins, 1 => create, 1 => revoke, 1 => drain, 1 => end, 1 => rebalance]
}

fn proposals() -> impl Strategy<Value = Proposal> {
    let id = (1_u64..3, 1_u64..40).prop_map(|(origin, seq)| ProposalId {
        origin: RaftId(origin),
        boot: 1,
        seq,
    });
    (id, commands()).prop_map(|(id, command)| Proposal { id, command })
}

fn same(ours: &Outcome, models: &Outcome) -> bool {
    matches!((ours, models), (Outcome::Conflict(_), Outcome::Conflict(_))) || ours == models
}

proptest! {
    #[test]
    fn apply_agrees_with_the_naive_model(
        entries in proptest::collection::vec(proptest::collection::vec(proposals(), 0..5), 0..30),
    ) {
        let mut model = Model::default();
        let members = Members::initial([peer(1)]);
        let recovered = Some(Recovered::founding(Incarnation(1), members));
        let mut disk = Disk { recovered, ..Disk::default() };
        let mut pinset = Pinset::new(Applied::default(), Vec::new());
        for (index, entry) in (1..).zip(entries) {
            let expected: Vec<(ProposalId, Outcome)> = entry
                .iter()
                .filter_map(|proposal| Some((proposal.id, model.apply(index, proposal.clone())?)))
                .collect();
            let mut draft = Draft::new(&disk);
            let changes = pinset.apply(&mut draft, index, 1, entry);
            let ops = draft.ops;
            disk.write(&Batch { id: BatchId(index), ops, sync: false });
            prop_assert_eq!(changes.len(), expected.len());
            for (change, (id, outcome)) in changes.iter().zip(&expected) {
                prop_assert_eq!(change.id, *id);
                prop_assert!(same(&change.outcome, outcome), "{:?} for {:?}", change.outcome, outcome);
            }
            prop_assert_eq!(&disk.pins, &model.pins);
            let credentials: Vec<Credential> = model.credentials.values().cloned().collect();
            prop_assert_eq!(&disk.policy.credentials, &credentials);
            let drains: Vec<Drain> = model.drains.values().cloned().collect();
            prop_assert_eq!(&disk.policy.drains, &drains);
            prop_assert_eq!(pinset.applied().pins, model.pins.len() as u64);
            // The written windows suffice to continue.
            let windows = disk.recovered.as_ref().expect("has been founded").windows.clone();
            pinset = Pinset::new(pinset.applied(), windows);
        }
    }
}

#[test]
fn snapshot_restores_the_windows_of_applied_proposals() {
    let id = ProposalId {
        origin: RaftId(1),
        boot: 1,
        seq: 1,
    };
    let mut window = Window::new(id.origin, id.boot);
    assert!(window.admit(id));
    let applied = Applied {
        index: 5,
        term: 1,
        pins: 0,
    };
    let manifest = Manifest {
        applied,
        members: Members::initial([peer(1)]),
        windows: vec![window],
    };
    let mut pinset = Pinset::new(Applied::default(), Vec::new());
    assert!(!pinset.has_applied(id));
    pinset.restore(&manifest);
    assert!(pinset.has_applied(id));
    assert_eq!(pinset.applied(), applied);
}
