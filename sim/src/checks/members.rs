//! Memberships follow each other so that any two neighbours share a quorum, and a Raft id is never given to
//! another data folder.

use cluster_core::{Members, StoreOp};

use super::{Found, Step};

pub(super) fn after_write(step: &Step<'_>, op: &StoreOp, found: &mut Found<'_>) {
    let StoreOp::SetMembers { members } = op else {
        return;
    };
    let Some(node) = step.peer().node.as_ref() else {
        return;
    };
    let current = node.view().members();
    // Several may come in one batch: each must at least be sound in itself, and lead to the last one.
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

/// Whether any two neighbours share a quorum.
pub(crate) fn may_follow(before: &Members, after: &Members) -> bool {
    match (before.outgoing.is_empty(), after.outgoing.is_empty()) {
        (true, true) => before.voters.symmetric_difference(&after.voters).count() <= 1,
        (true, false) => after.outgoing == before.voters,
        (false, true) => after.voters == before.voters,
        (false, false) => after.voters == before.voters && after.outgoing == before.outgoing,
    }
}

fn is_sound(members: &Members) -> bool {
    let everybody = |id: &cluster_core::RaftId| members.peers.contains_key(id);
    let ids_are_known = members.voters.iter().all(everybody) && members.learners.iter().all(everybody);
    let knows_nobody_yet = members.peers.is_empty() && members.voters.is_empty();
    knows_nobody_yet
        || ids_are_known && !members.voters.is_empty() && members.voters.is_disjoint(&members.learners)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::peer_id;

    #[test]
    fn two_voters_may_not_change_at_once_without_a_joint_membership() {
        let before = Members::initial((0..3).map(peer_id));
        let mut after = before.clone();
        after.voters = [after.next_raft_id].into();
        assert!(!may_follow(&before, &after));
        after.outgoing = before.voters.clone();
        assert!(may_follow(&before, &after));
    }
}
