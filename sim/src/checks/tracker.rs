//! Operations at the IPFS node follow the pinset: a peer pins what is allocated to it, in the pin's mode,
//! and unpins only what is not.

use cluster_core::{Effect, Event, IpfsAction, Phase, StoreOp};

use super::{Findings, Step};

pub(super) fn after_step(step: &Step<'_>, found: &mut Findings<'_>) {
    let peer = step.peer();
    for op in step.writes() {
        if let StoreOp::PutLocal { cid, local } = op
            && local.phase == Phase::Lost
        {
            found.require(!peer.ipfs.holds(cid, local.mode), "tracker", || {
                format!("takes {cid} for lost, the IPFS node has it")
            });
        }
    }
    let ends = |event: &Event| matches!(event, Event::IpfsCompared { .. } | Event::IpfsFinished { .. });
    let touched = step.events.iter().any(ends);
    for cid in peer.ipfs.owned.iter().filter(|_| touched) {
        found.require(peer.ipfs.pinned.contains_key(cid), "tracker", || {
            format!("unpins {cid}, which it never pinned")
        });
    }
    for effect in step.effects {
        let Effect::StartIpfs { action, .. } = effect else {
            continue;
        };
        let (IpfsAction::Pin { cid, .. } | IpfsAction::Unpin { cid }) = action;
        let pin = peer
            .disk
            .written
            .pins
            .get(cid)
            .filter(|pin| pin.is_allocated_to(&peer.id));
        match (action, pin) {
            (IpfsAction::Pin { mode, .. }, Some(pin)) => {
                found.require(*mode == pin.options.mode, "tracker", || {
                    format!("pins {cid} {mode:?}, wanted is {pin:?}")
                });
            }
            (IpfsAction::Pin { .. }, None) => {
                found.safety_violation("tracker", format!("pins {cid}, which is not allocated to it"));
            }
            (IpfsAction::Unpin { .. }, Some(pin)) => {
                found.safety_violation("tracker", format!("unpins {cid}, wanted is {pin:?}"));
            }
            (IpfsAction::Unpin { .. }, None) => {}
        }
    }
}
