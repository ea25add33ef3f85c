//! A pin that is agreed on is allocated to members, to each once, and to as many as it asks for; a repair
//! that finds too few peers may leave fewer.

use cluster_core::{Command, PeerId, Pin, Replicas};

use super::{Findings, Step};

pub(super) fn of_command(step: &Step<'_>, command: &Command, found: &mut Findings<'_>) {
    match command {
        Command::Pin { pin, .. } => of_pin(step, pin, command, found),
        Command::Reallocate { allocations, .. } => {
            found.require(!allocations.is_empty(), "allocations", || {
                format!("{:?} leaves a pin to nobody", command)
            });
            of_peers(step, allocations, command, found);
        }
        _ => {}
    }
}

fn of_pin(step: &Step<'_>, pin: &Pin, command: &Command, found: &mut Findings<'_>) {
    let count = pin.allocations.len();
    let fits = match pin.options.replicas {
        Replicas::Everywhere => count == 0,
        Replicas::Range { min, max } => (min as usize..=max as usize).contains(&count),
    };
    found.require(fits, "allocations", || format!("{count} copies in {pin:?}"));
    of_peers(step, &pin.allocations, command, found);
}

fn of_peers(step: &Step<'_>, peers: &[PeerId], command: &Command, found: &mut Findings<'_>) {
    let is_sorted = peers.windows(2).all(|pair| pair[0] < pair[1]);
    found.require(is_sorted, "allocations", || {
        format!("{:?} is not in order", command)
    });
    for peer in peers {
        // The proposer had applied less than this entry, so it knew no member that is unknown here. The peer
        // may have left between the decision and the commit: then `convergence` sees that its pins move.
        let members = &step.peer().disk.written.members;
        let is_member = members.raft_id(peer).is_some()
            || members.departed.contains(peer)
            || members.joining.contains(peer);
        found.require(is_member, "allocations", || {
            format!("{peer} was never a member: {:?}", command)
        });
    }
}
