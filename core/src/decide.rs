//! What a client's wish comes to, given what this peer sees: the pin as it is, and who could take it. What is
//! decided here from soft knowledge is proposed together with the version of the pin that it was decided
//! from.

use std::collections::BTreeSet;

use crate::allocator::{Candidates, NotEnough, Wanted, allocate};
use crate::command::{Command, Precondition};
use crate::effect::{Refusal, Reply};
use crate::event::Request;
use crate::ids::{Cid, PeerId};
use crate::members::MembersWish;
use crate::pin::{Pin, PinOptions, PinType, Replicas};
use crate::planted::planted;
use crate::time::Timestamp;

/// What to do about a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Decision {
    /// It needs nobody's agreement.
    Answer(Result<Reply, Refusal>),
    /// Propose this.
    Propose(Command),
}

/// Peers that allocations are chosen from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choice {
    /// Peers that can take a pin.
    pub(crate) candidates: Candidates,
    /// Living peers. One that holds a pin keeps it, even if it can take no other: its node may be full.
    pub(crate) alive: BTreeSet<PeerId>,
    /// Why living peers are no candidates, for people.
    pub(crate) unfit: Vec<String>,
}

/// Decides. `current` finds a pin as this peer has it.
pub(crate) fn decide(
    now: Timestamp,
    candidates: &Choice,
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
            let chosen = choose(cid.as_ref(), near.as_ref(), options, &holders, candidates);
            Decision::Answer(chosen.map(Reply::Allocated))
        }
        Request::Import { pin } => match import(now, candidates, current, pin) {
            Ok(command) => Decision::Propose(command),
            Err(refusal) => Decision::Answer(Err(refusal)),
        },
        Request::Pin { cid, options } => match pin(now, candidates, current, cid, options) {
            Ok(command) => Decision::Propose(command),
            Err(refusal) => Decision::Answer(Err(refusal)),
        },
        Request::Unpin { cid } => Decision::Propose(Command::Unpin {
            cid: cid.clone(),
            precondition: Precondition::Any,
        }),
        Request::Barrier | Request::Recover { .. } | Request::RecoverAll | Request::Sync { .. } => {
            unreachable!("the node answers these itself")
        }
    }
}

fn pin(
    now: Timestamp,
    candidates: &Choice,
    current: impl Fn(&Cid) -> Option<Pin>,
    cid: &Cid,
    options: &PinOptions,
) -> Result<Command, Refusal> {
    let existing = current(cid);
    let mut options = options.clone();
    let mut holders = existing
        .as_ref()
        .map_or(Vec::new(), |pin| pin.allocations.clone());
    if let Some(from) = &options.pin_update {
        match current(from) {
            Some(source) => {
                holders = source.allocations.clone();
                options = updated(source.options, options);
            }
            None if planted!(UpdateWithoutSource) => {}
            None => return Err(Refusal::NotFound),
        }
    }
    let allocations = choose(Some(cid), None, &options, &holders, candidates)?;
    let precondition = precondition(options.replicas, existing.as_ref());
    let pin = Pin {
        cid: cid.clone(),
        pin_type: PinType::Data,
        allocations,
        reference: None,
        options,
        timestamp: now,
        version: 0,
    };
    Ok(Command::Pin { pin, precondition })
}

/// The pin as it came, at peers of this cluster.
fn import(
    now: Timestamp,
    candidates: &Choice,
    current: impl Fn(&Cid) -> Option<Pin>,
    pin: &Pin,
) -> Result<Command, Refusal> {
    let existing = current(&pin.cid);
    let holders = existing
        .as_ref()
        .map_or(&[][..], |pin| pin.allocations.as_slice());
    let mut preferring = pin.options.clone();
    // Those who have the content already are the next best.
    preferring.user_allocations.extend_from_slice(&pin.allocations);
    let allocations = choose(Some(&pin.cid), None, &preferring, holders, candidates)?;
    let precondition = precondition(pin.options.replicas, existing.as_ref());
    let timestamp = match pin.timestamp {
        Timestamp(0) => now,
        given => given,
    };
    let pin = Pin {
        allocations,
        timestamp,
        version: 0,
        ..pin.clone()
    };
    Ok(Command::Pin { pin, precondition })
}

/// What must not have changed since allocations were decided from it.
fn precondition(replicas: Replicas, existing: Option<&Pin>) -> Precondition {
    match (replicas, existing) {
        (Replicas::Range { .. }, _) if planted!(PreconditionDropped) => Precondition::Any,
        (Replicas::Everywhere, _) => Precondition::Any,
        (Replicas::Range { .. }, None) => Precondition::Absent,
        (Replicas::Range { .. }, Some(pin)) => Precondition::Version(pin.version),
    }
}

/// An update takes everything over from the pin that it replaces, but for what it says of name and expiry.
fn updated(source: PinOptions, wish: PinOptions) -> PinOptions {
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
        ..source
    }
}

fn choose(
    cid: Option<&Cid>,
    near: Option<&PeerId>,
    options: &PinOptions,
    holders: &[PeerId],
    candidates: &Choice,
) -> Result<Vec<PeerId>, Refusal> {
    let Replicas::Range { min, max } = options.replicas else {
        return Ok(Vec::new());
    };
    let current: Vec<PeerId> = holders
        .iter()
        .filter(|peer| candidates.alive.contains(*peer) && !planted!(HoldersMoved))
        .cloned()
        .collect();
    let wanted = Wanted {
        cid,
        near,
        min,
        max,
        current: &current,
        preferred: &options.user_allocations,
    };
    allocate(&wanted, &candidates.candidates).map_err(|NotEnough { available }| Refusal::NotEnoughPeers {
        needed: min,
        wanted: max,
        available,
        why: why_not(&candidates.unfit),
    })
}

/// Reason for which peers are missing.
fn why_not(unfit: &[String]) -> String {
    if unfit.is_empty() {
        return "Peers count when they are alive and their metrics have been received: see `health metrics`"
            .to_owned();
    }
    /// Peers that are named; a refusal stays readable.
    const NAMED_MAX: usize = 10;
    let named = unfit
        .iter()
        .take(NAMED_MAX)
        .cloned()
        .collect::<Vec<_>>()
        .join("; ");
    match unfit.len().saturating_sub(NAMED_MAX) {
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

    fn living(numbers: &[u8]) -> Choice {
        let metrics = || vec![metrics(9).remove(1)];
        Choice {
            candidates: numbers.iter().map(|number| (peer(*number), metrics())).collect(),
            alive: numbers.iter().copied().map(peer).collect(),
            unfit: Vec::new(),
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

    /// What asking for CID 1 comes to where this pin is stored.
    fn asked(options: PinOptions, stored: &Pin) -> Decision {
        let request = Request::Pin { cid: cid(1), options };
        let current = |cid: &Cid| (*cid == stored.cid).then(|| stored.clone());
        decide(NOW, &living(&[1, 2, 3]), current, &request)
    }

    fn proposed(decision: Decision) -> (Pin, Precondition) {
        let Decision::Propose(Command::Pin { pin, precondition }) = decision else {
            panic!("{decision:?} is no pin");
        };
        (pin, precondition)
    }

    #[test]
    fn allocations_hold_only_for_the_pin_that_they_were_decided_from() {
        let other = stored(2, 2);
        let (_, precondition) = proposed(asked(options(ONE), &other));
        assert_eq!(precondition, Precondition::Absent);
        let (pin, precondition) = proposed(asked(options(ONE), &stored(1, 3)));
        assert_eq!(precondition, Precondition::Version(3));
        assert_eq!(pin.allocations, [peer(3)], "the peer that holds it keeps it");
        let (_, precondition) = proposed(asked(options(Replicas::Everywhere), &stored(1, 3)));
        assert_eq!(precondition, Precondition::Any);
    }

    #[test]
    fn an_update_takes_over_all_but_the_name_and_the_expiry_that_it_gives() {
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
    fn an_update_of_a_missing_pin_is_refused() {
        let update = PinOptions {
            pin_update: Some(cid(9)),
            ..options(ONE)
        };
        let decision = asked(update, &stored(2, 2));
        assert!(
            decision == Decision::Answer(Err(Refusal::NotFound)),
            "{decision:?}"
        );
    }
}
