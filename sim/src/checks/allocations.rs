//! A pin that is agreed on is allocated to members, to each once, and to as many as it asks for; a repair
//! that finds too few peers may leave fewer.

use cluster_core::{Command, PeerId, Pin, Replicas};

use super::Found;
use crate::model::Effective;

pub(super) fn of_command(effective: &Effective, found: &mut Found<'_>) {
    match &effective.command {
        Command::Pin { pin, .. } => of_pin(pin, effective, found),
        Command::Reallocate { allocations, .. } => {
            found.require(!allocations.is_empty(), "allocations", || {
                format!("{:?} leaves a pin to nobody", effective.command)
            });
            of_peers(allocations, effective, found);
        }
        Command::Admit { .. } | Command::Members(_) | Command::Unpin { .. } => {}
    }
}

fn of_pin(pin: &Pin, effective: &Effective, found: &mut Found<'_>) {
    let count = pin.allocations.len();
    let fits = match pin.options.replicas {
        Replicas::Everywhere => count == 0,
        Replicas::Range { min, max } => (min as usize..=max as usize).contains(&count),
    };
    found.require(fits, "allocations", || format!("{count} copies in {pin:?}"));
    of_peers(&pin.allocations, effective, found);
}

fn of_peers(peers: &[PeerId], effective: &Effective, found: &mut Found<'_>) {
    let is_sorted = peers.windows(2).all(|pair| pair[0] < pair[1]);
    found.require(is_sorted, "allocations", || {
        format!("{:?} is not in order", effective.command)
    });
    for peer in peers {
        let is_member = effective.members.raft_id(peer).is_some();
        found.require(is_member, "allocations", || {
            format!("{peer} is no member: {:?}", effective.command)
        });
    }
}
