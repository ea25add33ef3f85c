//! What a client's wish comes to, given what this peer sees: the pin as it is, and who could take it. What is
//! decided here from soft knowledge is proposed together with the version of the pin that it was decided
//! from.

use crate::allocator::{Candidates, NotEnough, Wanted, allocate};
use crate::command::{Command, Precondition};
use crate::effect::{Refusal, Reply};
use crate::event::Request;
use crate::ids::{Cid, PeerId};
use crate::members::MembersWish;
use crate::pin::{Pin, PinOptions, PinType, Replicas};
use crate::time::Timestamp;

/// What to do about a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Decision {
    /// It needs nobody's agreement.
    Answer(Result<Reply, Refusal>),
    /// Propose this.
    Propose(Command),
}

/// Decides. `current` finds a pin as this peer has it.
pub(crate) fn decide(
    now: Timestamp,
    candidates: &Candidates,
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
    candidates: &Candidates,
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
        let Some(source) = current(from) else {
            return Err(Refusal::Conflict(format!(
                "cannot update {from}: it is not part of the pinset"
            )));
        };
        holders = source.allocations.clone();
        options = updated(source.options, options);
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
    candidates: &Candidates,
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
        (Replicas::Everywhere, _) => Precondition::Any,
        (Replicas::Range { .. }, None) => Precondition::Absent,
        (Replicas::Range { .. }, Some(pin)) => Precondition::Version(pin.version),
    }
}

/// An update takes everything over from the pin that it replaces, but for what it says of name and expiry.
fn updated(source: PinOptions, wish: PinOptions) -> PinOptions {
    PinOptions {
        name: if wish.name.is_empty() {
            source.name
        } else {
            wish.name
        },
        expire_at: wish.expire_at.or(source.expire_at),
        pin_update: wish.pin_update,
        ..source
    }
}

fn choose(
    cid: Option<&Cid>,
    near: Option<&PeerId>,
    options: &PinOptions,
    holders: &[PeerId],
    candidates: &Candidates,
) -> Result<Vec<PeerId>, Refusal> {
    let Replicas::Range { min, max } = options.replicas else {
        return Ok(Vec::new());
    };
    let current: Vec<PeerId> = holders
        .iter()
        .filter(|peer| candidates.contains_key(*peer))
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
    allocate(&wanted, candidates).map_err(|NotEnough { available }| Refusal::NotEnoughPeers {
        needed: min,
        wanted: max,
        available,
        why: "Peers count when they are alive and their metrics have been received: see `health metrics`"
            .to_owned(),
    })
}
