//! Memberships are sound in themselves, and a Raft id is never given to another data folder.

use cluster_core::{Members, StoreOp};

use super::{Findings, Step};

pub(super) fn after_write(step: &Step<'_>, op: &StoreOp, found: &mut Findings<'_>) {
    let StoreOp::SetMembers { members } = op else {
        return;
    };
    let Some(node) = step.peer().node.as_ref() else {
        return;
    };
    let current = node.view().members();
    // A batch may have several: each must be consistent, and lead to the last one.
    found.require(is_sound(members), "members", || {
        format!("{members:?} makes no sense")
    });
    for (id, member) in &members.peers {
        let later = current.peers.get(id).and_then(|member| member.incarnation);
        let contradiction = member.incarnation.is_some() && later.is_some() && member.incarnation != later;
        found.require(!contradiction, "members", || {
            format!("{id} is {member:?}, then {later:?}")
        });
    }
}

fn is_sound(members: &Members) -> bool {
    let everybody = |id: &cluster_core::RaftId| members.peers.contains_key(id);
    let ids_are_known = members.voters.iter().all(everybody) && members.learners.iter().all(everybody);
    let knows_nobody_yet = members.peers.is_empty() && members.voters.is_empty();
    knows_nobody_yet
        || ids_are_known && !members.voters.is_empty() && members.voters.is_disjoint(&members.learners)
}
