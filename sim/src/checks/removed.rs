//! A peer that applies its own removal retires as soon as its disk has it, and a removed peer starts no
//! election.

use cluster_core::{Effect, Event, Identity, Message, RaftKind, StoreOp};

use super::{Findings, Step};

/// The processes that have applied their own removal and not retired yet.
#[derive(Debug)]
pub(super) struct Removed {
    due: Vec<bool>,
}

impl Removed {
    pub(super) fn new(size: usize) -> Self {
        Self {
            due: vec![false; size],
        }
    }

    pub(super) fn booted(&mut self, me: usize) {
        self.due[me] = false;
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, found: &mut Findings<'_>) {
        let disk = &step.peer().disk;
        let identity = disk.written.hard_state.identity;
        let mut was_removed = matches!(identity, Identity::Removed(_));
        for op in step.writes() {
            // Messages sent before it retired in the same step do not count.
            was_removed &= !matches!(op, StoreOp::SetHardState { .. });
            if let StoreOp::InstallSnapshot { .. } | StoreOp::SetHardState { .. } = op {
                self.due[step.me] = false;
            }
            if let (StoreOp::SetMembers { members }, Identity::Known(id)) = (op, identity) {
                // A peer that starts with an empty folder also applies memberships from before its id was
                // assigned (seed 300933).
                let is_given = id < members.next_raft_id && !members.peers.is_empty();
                self.due[step.me] = is_given && !members.peers.contains_key(&id);
            }
        }
        let reports = |event: &Event| matches!(event, Event::Persisted { .. });
        let is_idle =
            disk.wants_sync.is_none() && !step.peer().syncing && !step.peer().inbox.iter().any(reports);
        found.require(!self.due[step.me] || !is_idle, "removal", || {
            format!("has applied its removal, and still takes part as {identity:?}")
        });
        let is_removed = |identity| matches!(identity, Identity::Removed(_));
        let retires = step.writes().any(|op| match op {
            StoreOp::SetHardState { hard_state } => is_removed(hard_state.identity),
            _ => false,
        });
        let node = step.peer().node.as_ref();
        let open = node.map_or(0, |node| node.view().open_requests());
        found.require(!retires || open == 0, "removal", || {
            format!("was removed, and leaves {open} requests without an answer")
        });
        if was_removed {
            let vote = step.effects.iter().find(|effect| asks_for_votes(effect));
            found.require(vote.is_none(), "removal", || {
                format!("was removed, and starts an election: {vote:?}")
            });
        }
    }
}

fn asks_for_votes(effect: &Effect) -> bool {
    let Effect::Send { envelope, .. } = effect else {
        return false;
    };
    let Message::Raft(message) = &envelope.message else {
        return false;
    };
    matches!(message.kind, RaftKind::RequestVote | RaftKind::RequestPreVote)
}
