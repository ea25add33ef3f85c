//! What is committed is durable at a quorum: at a majority of the voters, and of the outgoing ones while
//! there are any, as read from their disks.

use std::collections::BTreeSet;

use cluster_core::{LogEntry, RaftId};

use super::{Found, Step};

pub(super) fn of_new_commit(step: &Step<'_>, entry: &LogEntry, found: &mut Found<'_>) {
    let members = &step.peer().disk.written.members;
    let holds = |id: &&RaftId| {
        let peer = members.peer(**id);
        let peer = step.peers.iter().find(|candidate| Some(&candidate.id) == peer);
        peer.is_some_and(|peer| peer.disk.durable.holds(entry.index, entry.term))
    };
    for voters in [&members.voters, &members.outgoing] {
        let have: BTreeSet<&RaftId> = voters.iter().filter(holds).collect();
        found.require(
            voters.is_empty() || have.len() * 2 > voters.len(),
            "durable quorum",
            || {
                let (index, term) = (entry.index, entry.term);
                format!("applies {index} of term {term}, durable at {have:?} of {voters:?} only")
            },
        );
    }
}
