//! Decisions on client requests, from what this peer knows: the current pin and the available peers. A
//! command that depends on such knowledge is proposed together with the version of the pin that it was
//! decided from.

use std::collections::BTreeSet;

use crate::allocator::{Candidates, NotEnough, Requirements, allocate};
use crate::command::{Command, Precondition};
use crate::effect::{Refusal, Reply};
use crate::event::Request;
use crate::ids::{Cid, PeerId};
use crate::members::MembersWish;
use crate::owners::{self, Joined, without_owners};
use crate::pin::{Pin, PinOptions, PinType, Replicas};
use crate::planted::planted;
use crate::time::Timestamp;

/// Decision on a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// Answer without consensus.
    Answer(Result<Reply, Refusal>),
    /// Propose a command.
    Propose(Command),
}

/// Peers that can be allocated to.
#[derive(Debug, Clone, Default)]
pub(crate) struct PeerPool {
    /// Peers that can take a new pin.
    pub(crate) candidates: Candidates,
    /// Live peers. They keep the pins that they hold, even if they cannot take new ones: a node may be full.
    pub(crate) alive: BTreeSet<PeerId>,
    /// Reasons why live peers cannot take new pins, for display.
    pub(crate) exclusions: Vec<String>,
}

/// Decides on a request. `current` returns a pin as applied at this peer.
pub(crate) fn decide(
    now: Timestamp,
    pool: &PeerPool,
    current: impl Fn(&Cid) -> Option<Pin>,
    request: &Request,
) -> Decision {
    match request {
        Request::AddPeer { peer } => {
            let peer = peer.clone();
            Decision::Propose(Command::Members(MembersWish::Add { peer }))
        }
        Request::RemovePeer { peer } => {
            let peer = peer.clone();
            Decision::Propose(Command::Members(MembersWish::Remove { peer }))
        }
        Request::Allocate { cid, near, options } => {
            let holders = cid
                .as_ref()
                .and_then(&current)
                .map_or(Vec::new(), |pin| pin.allocations);
            let chosen = choose(cid.as_ref(), near.as_ref(), options, &holders, pool);
            Decision::Answer(chosen.map(Reply::Allocated))
        }
        Request::CreateCredential { credential } => {
            let credential = credential.clone();
            Decision::Propose(Command::CreateCredential { credential })
        }
        Request::RevokeCredential { id } => Decision::Propose(Command::RevokeCredential { id: *id }),
        Request::Drain { drain } => {
            let drain = drain.clone();
            Decision::Propose(Command::Drain { drain })
        }
        Request::EndDrain { peer } => Decision::Propose(Command::EndDrain { peer: peer.clone() }),
        Request::Rebalance { change } => {
            let change = change.clone();
            Decision::Propose(Command::Rebalance { change })
        }
        Request::Import { pin, owner } => match import(now, pool, current, pin, owner.as_deref()) {
            Ok(command) => Decision::Propose(command),
            Err(refusal) => Decision::Answer(Err(refusal)),
        },
        Request::Pin { cid, options, owner } => match pin(now, pool, current, cid, options, owner.as_deref())
        {
            Ok(command) => Decision::Propose(command),
            Err(refusal) => Decision::Answer(Err(refusal)),
        },
        Request::Unpin { cid, owner: None } => Decision::Propose(Command::Unpin {
            cid: cid.clone(),
            precondition: Precondition::Any,
        }),
        Request::Unpin {
            cid,
            owner: Some(owner),
        } => Decision::Propose(Command::Release {
            cid: cid.clone(),
            owner: owner.clone(),
        }),
        Request::Barrier | Request::Recover { .. } | Request::RecoverAll | Request::Sync { .. } => {
            unreachable!("the node answers these")
        }
    }
}

fn pin(
    now: Timestamp,
    pool: &PeerPool,
    current: impl Fn(&Cid) -> Option<Pin>,
    cid: &Cid,
    options: &PinOptions,
    owner: Option<&str>,
) -> Result<Command, Refusal> {
    let existing = current(cid);
    let mut options = options.clone();
    let mut holders = existing
        .as_ref()
        .map_or(Vec::new(), |pin| pin.allocations.clone());
    if let Some(from) = &options.pin_update {
        let source = current(from).and_then(|source| match owner {
            Some(owner) => source.seen_by(owner),
            None => Some(source),
        });
        match source {
            Some(source) => {
                if !planted!(UpdateKeepsHolders) {
                    holders = source.allocations.clone();
                }
                options = updated(source.options, options);
            }
            None if planted!(UpdateWithoutSource) => {}
            None => return Err(Refusal::NotFound),
        }
    }
    let Joined { options, is_shared } =
        owners::join(existing.as_ref(), options, owner).map_err(Refusal::TooLarge)?;
    let allocations = choose(Some(cid), None, &options, &holders, pool)?;
    let precondition = precondition(options.replicas, existing.as_ref());
    let pin = Pin {
        cid: cid.clone(),
        pin_type: PinType::Data,
        allocations,
        reference: None,
        options,
        timestamp: existing.filter(|_| is_shared).map_or(now, |pin| pin.timestamp),
        version: 0,
    };
    Ok(Command::Pin { pin, precondition })
}

/// Builds the command of an import: the exported pin, allocated to peers of this cluster.
fn import(
    now: Timestamp,
    pool: &PeerPool,
    current: impl Fn(&Cid) -> Option<Pin>,
    pin: &Pin,
    owner: Option<&str>,
) -> Result<Command, Refusal> {
    let existing = current(&pin.cid);
    let holders = existing
        .as_ref()
        .filter(|_| !planted!(ImportMovesHolders))
        .map_or(&[][..], |pin| pin.allocations.as_slice());
    let Joined { options, is_shared } =
        owners::join(existing.as_ref(), pin.options.clone(), owner).map_err(Refusal::TooLarge)?;
    let mut preferring = options.clone();
    // Peers that had the pin before probably have its content.
    preferring.user_allocations.extend_from_slice(&pin.allocations);
    let allocations = choose(Some(&pin.cid), None, &preferring, holders, pool)?;
    let precondition = precondition(options.replicas, existing.as_ref());
    let timestamp = match (existing.filter(|_| is_shared), pin.timestamp) {
        (Some(existing), _) => existing.timestamp,
        (None, Timestamp(0)) => now,
        (None, _) if planted!(ImportTimeDropped) => now,
        (None, given) => given,
    };
    let pin = Pin {
        allocations,
        options,
        timestamp,
        version: 0,
        ..pin.clone()
    };
    Ok(Command::Pin { pin, precondition })
}

/// Returns the condition under which the allocations and the owners stay valid.
fn precondition(replicas: Replicas, existing: Option<&Pin>) -> Precondition {
    match (replicas, existing) {
        (Replicas::Range { .. }, _) if planted!(PreconditionDropped) => Precondition::Any,
        (_, None) => Precondition::Absent,
        (_, Some(pin)) => Precondition::Version(pin.version),
    }
}

/// Merges the options of an updated pin: those of `source`, except a name and an expiry if the request has
/// them.
fn updated(source: PinOptions, wish: PinOptions) -> PinOptions {
    if planted!(UpdateLosesOptions) {
        return wish;
    }
    PinOptions {
        name: if wish.name.is_empty() || planted!(UpdateKeepsName) {
            source.name
        } else {
            wish.name
        },
        expire_at: if planted!(UpdateNeverEnds) {
            source.expire_at
        } else {
            wish.expire_at.or(source.expire_at)
        },
        pin_update: wish.pin_update,
        metadata: without_owners(&source.metadata),
        ..source
    }
}

fn choose(
    cid: Option<&Cid>,
    near: Option<&PeerId>,
    options: &PinOptions,
    holders: &[PeerId],
    pool: &PeerPool,
) -> Result<Vec<PeerId>, Refusal> {
    let Replicas::Range { min, max } = options.replicas else {
        return Ok(Vec::new());
    };
    let current: Vec<PeerId> = holders
        .iter()
        .filter(|peer| pool.alive.contains(*peer) && !planted!(HoldersMoved))
        .cloned()
        .collect();
    let wanted = Requirements {
        cid,
        near,
        min,
        max,
        current: &current,
        preferred: &options.user_allocations,
    };
    allocate(&wanted, &pool.candidates).map_err(|NotEnough { available }| Refusal::NotEnoughPeers {
        needed: min,
        wanted: max,
        available,
        why: shortage(&pool.exclusions),
    })
}

/// Returns the reason for missing candidates, for display.
fn shortage(exclusions: &[String]) -> String {
    if exclusions.is_empty() {
        return "Peers count when they are alive and their metrics have been received: see `health metrics`"
            .to_owned();
    }
    /// Maximum number of excluded peers in the text, to keep it readable.
    const NAMED_MAX: usize = 10;
    let named = exclusions
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    match exclusions.len().saturating_sub(NAMED_MAX) {
        0 => format!("Living peers that take no new pins: {named}"),
        more => format!("Living peers that take no new pins: {named}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, metrics, options, peer};

    const ONE: Replicas = Replicas::Range { min: 1, max: 1 };
    const NOW: Timestamp = Timestamp(5);

    fn living(numbers: &[u8]) -> PeerPool {
        let metrics = || vec![metrics(9).remove(1)];
        PeerPool {
            candidates: numbers.iter().map(|number| (peer(*number), metrics())).collect(),
            alive: numbers.iter().copied().map(peer).collect(),
            exclusions: Vec::new(),
        }
    }

    fn stored(number: u8, holder: u8) -> Pin {
        Pin {
            cid: cid(number),
            pin_type: PinType::Data,
            allocations: vec![peer(holder)],
            reference: None,
            options: PinOptions {
                name: "stored".to_owned(),
                expire_at: Some(Timestamp(77)),
                ..options(ONE)
            },
            timestamp: Timestamp(1),
            version: 3,
        }
    }

    /// Decides on a request to pin CID 1 while `stored` exists.
    fn asked(options: PinOptions, stored: &Pin) -> Decision {
        asked_by(options, None, stored)
    }

    fn asked_by(options: PinOptions, owner: Option<&str>, stored: &Pin) -> Decision {
        let owner = owner.map(str::to_owned);
        let request = Request::Pin {
            cid: cid(1),
            options,
            owner,
        };
        let current = |cid: &Cid| (*cid == stored.cid).then(|| stored.clone());
        decide(NOW, &living(&[1, 2, 3]), current, &request)
    }

    fn proposed(decision: Decision) -> (Pin, Precondition) {
        let Decision::Propose(Command::Pin { pin, precondition }) = decision else {
            panic!("{decision:?} is not a pin command");
        };
        (pin, precondition)
    }

    #[test]
    fn allocations_are_proposed_with_the_version_of_the_pin() {
        let other = stored(2, 2);
        let (_, precondition) = proposed(asked(options(ONE), &other));
        assert_eq!(precondition, Precondition::Absent);
        let (pin, precondition) = proposed(asked(options(ONE), &stored(1, 3)));
        assert_eq!(precondition, Precondition::Version(3));
        assert_eq!(pin.allocations, [peer(3)], "the holder keeps the pin");
        let (_, precondition) = proposed(asked(options(Replicas::Everywhere), &stored(1, 3)));
        assert_eq!(precondition, Precondition::Version(3), "its owners may change");
    }

    #[test]
    fn update_overrides_only_name_and_expiry() {
        let update = |name: &str, expire_at| PinOptions {
            name: name.to_owned(),
            expire_at,
            pin_update: Some(cid(2)),
            ..options(Replicas::Everywhere)
        };
        let (pin, _) = proposed(asked(update("", None), &stored(2, 2)));
        assert_eq!(
            (pin.options.name.as_str(), pin.options.expire_at),
            ("stored", Some(Timestamp(77)))
        );
        assert_eq!((pin.options.replicas, pin.allocations), (ONE, vec![peer(2)]));
        let (pin, _) = proposed(asked(update("new", Some(Timestamp(99))), &stored(2, 2)));
        assert_eq!(
            (pin.options.name.as_str(), pin.options.expire_at),
            ("new", Some(Timestamp(99)))
        );
    }

    #[test]
    fn update_of_a_missing_pin_is_refused() {
        let update = PinOptions {
            pin_update: Some(cid(9)),
            ..options(ONE)
        };
        let decision = asked(update.clone(), &stored(2, 2));
        assert!(
            decision == Decision::Answer(Err(Refusal::NotFound)),
            "{decision:?}"
        );
        let others = PinOptions {
            pin_update: Some(cid(2)),
            ..update
        };
        let decision = asked_by(others, Some("ann"), &stored(2, 2));
        assert!(
            decision == Decision::Answer(Err(Refusal::NotFound)),
            "{decision:?}"
        );
    }

    #[test]
    fn second_owner_is_added_to_the_pin_as_it_is() {
        let existing = Pin {
            options: owners::join(None, options(Replicas::Range { min: 2, max: 3 }), Some("ann"))
                .unwrap()
                .options,
            ..stored(1, 3)
        };
        let (pin, precondition) = proposed(asked_by(options(ONE), Some("bob"), &existing));
        assert_eq!(pin.owners().collect::<Vec<_>>(), ["ann", "bob"]);
        assert_eq!(pin.options.replicas, Replicas::Range { min: 2, max: 3 });
        assert_eq!((pin.allocations.len(), pin.timestamp), (3, existing.timestamp));
        assert_eq!(precondition, Precondition::Version(3));
        let (pin, _) = proposed(asked_by(options(ONE), Some("ann"), &existing));
        assert_eq!((pin.options.replicas, pin.timestamp), (ONE, NOW));
    }

    #[test]
    fn update_takes_over_no_owner() {
        let source = Pin {
            options: owners::join(None, options(ONE), Some("ann")).unwrap().options,
            ..stored(2, 3)
        };
        let update = PinOptions {
            pin_update: Some(cid(2)),
            ..options(ONE)
        };
        let (pin, _) = proposed(asked(update.clone(), &source));
        assert_eq!(pin.owners().count(), 0);
        let (pin, _) = proposed(asked_by(update, Some("ann"), &source));
        assert_eq!(pin.owners().collect::<Vec<_>>(), ["ann"]);
    }
}
