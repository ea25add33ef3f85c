//! What other peers send: taken when no honest member would send otherwise.

use super::*;

/// Why a message was dropped before Raft saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is for somebody else.
    NotForUs,
    /// It contradicts itself or the log in a way that no honest member's message does.
    Nonsense,
    /// Something must be durable first, such as a snapshot; Raft sends again what it needs.
    TooSoon,
}

impl Raft {
    /// Takes a peer's message, or says why not. `from` is who sent it, as the network vouches.
    pub(crate) fn receive(
        &mut self,
        from: &PeerId,
        message: RaftMessage,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Dropped> {
        self.validate(from, &message)?;
        if !self.members().peers.contains_key(&message.from) && self.strangers.len() < STRANGERS_MAX {
            self.strangers.insert(message.from, from.clone());
        }
        let mut message = message;
        if message.kind == RaftKind::Append && self.is_blank() {
            if message.term == self.term() && self.held.is_empty() {
                let to = message.from;
                let message = ask_for_snapshot(&message);
                outputs.push(Output::Send { to, message });
                return Ok(());
            }
            // Nothing is said in a term before the disk has it.
            message.kind = RaftKind::Heartbeat;
            message.commit = 0;
            message.entries.clear();
        }
        // Raft answers nonsense with errors that call for nothing: the message is dropped.
        let _ = self.raw.step(convert::raft_message(message));
        self.rearm();
        Ok(())
    }

    /// Offers a staged snapshot. Raft takes it or not; either way an output says what becomes of it.
    pub(crate) fn receive_snapshot(
        &mut self,
        from: &PeerId,
        snapshot: SnapshotId,
        manifest: Manifest,
        message: RaftMessage,
        outputs: &mut Vec<Output>,
    ) {
        let applied = manifest.applied;
        let fits = message.kind == RaftKind::Snapshot
            && manifest.members.cluster == self.members().cluster
            && applied.index > 0
            && self.validate(from, &message).is_ok();
        if !fits {
            outputs.push(Output::Discard { snapshot });
            return;
        }
        let mut message = convert::raft_message(message);
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = applied.index;
        metadata.term = applied.term;
        metadata.set_conf_state(log::conf_state(&manifest.members));
        self.offered = Some((snapshot, manifest));
        let _ = self.raw.step(message);
        self.rearm();
    }

    /// Whether a kind of message means anything to this peer. A member that has not heard of the removal may
    /// need the removed peer's vote, and its acknowledgement, to come as far: that one answers as a follower
    /// does, and starts nothing. The log tells it who may lead.
    fn hears(&self, kind: RaftKind) -> bool {
        match self.identity {
            Identity::Founding | Identity::Known(_) => true,
            Identity::Unknown => false,
            Identity::Removed(_) => match kind {
                RaftKind::Append
                | RaftKind::Heartbeat
                | RaftKind::RequestPreVote
                | RaftKind::RequestVote
                | RaftKind::Snapshot => true,
                RaftKind::AppendResponse
                | RaftKind::HeartbeatResponse
                | RaftKind::ReadIndex
                | RaftKind::ReadIndexResp
                | RaftKind::RequestPreVoteResponse
                | RaftKind::RequestVoteResponse
                | RaftKind::TimeoutNow
                | RaftKind::TransferLeader => false,
            },
        }
    }

    /// What every honest message fulfils. Raft panics on much that does not.
    fn validate(&self, from: &PeerId, message: &RaftMessage) -> Result<(), Dropped> {
        if self.installing.is_some() || message.kind == RaftKind::TimeoutNow && self.would_lead_too_soon() {
            return Err(Dropped::TooSoon);
        }
        if message.to != self.id() || !self.hears(message.kind) {
            return Err(Dropped::NotForUs);
        }
        let log = self.raw.store();
        let known = self.peer(message.from);
        let honest_sender = message.from != self.id() && known.is_none_or(|peer| peer == *from);
        // A term of zero marks messages that never leave a peer, but for reads.
        let is_read = matches!(message.kind, RaftKind::ReadIndex | RaftKind::ReadIndexResp);
        let body = match message.kind {
            RaftKind::Append => self.append_is_sound(message),
            // A leader does not tell a follower to commit what that follower never acknowledged.
            RaftKind::Heartbeat => message.commit <= log.last(),
            RaftKind::AppendResponse => message.index <= log.last() || message.reject,
            RaftKind::ReadIndex | RaftKind::ReadIndexResp => message.entries.len() == 1,
            RaftKind::RequestVote
            | RaftKind::RequestVoteResponse
            | RaftKind::Snapshot
            | RaftKind::HeartbeatResponse
            | RaftKind::TransferLeader
            | RaftKind::TimeoutNow
            | RaftKind::RequestPreVote
            | RaftKind::RequestPreVoteResponse => message.entries.is_empty(),
        };
        if honest_sender && (is_read || message.term > 0) && body {
            Ok(())
        } else {
            Err(Dropped::Nonsense)
        }
    }

    /// Entries can be read and are contiguous, their terms never fall nor exceed the leader's, and they
    /// contradict nothing that is committed.
    fn append_is_sound(&self, message: &RaftMessage) -> bool {
        let log = &self.raw.raft.raft_log;
        let mut index = message.index;
        let mut term = message.log_term;
        message.entries.iter().all(|entry| {
            let follows = Some(entry.index) == index.checked_add(1) && entry.term >= term;
            let readable = match &entry.payload {
                Payload::Commands(data) => data.is_empty() || decode::<Vec<Proposal>>(data).is_ok(),
                Payload::Members(data) => data.is_empty() || decode::<MembersChange>(data).is_ok(),
            };
            let agrees = entry.index > log.committed
                || log.term(entry.index).is_ok_and(|ours| ours == entry.term)
                || entry.index <= self.raw.store().compacted.0;
            index = entry.index;
            term = entry.term;
            follows && readable && agrees && term <= message.term
        })
    }
}

/// The answer of a peer that has nothing to entries that it could append: they start from a membership that
/// it does not know.
fn ask_for_snapshot(append: &RaftMessage) -> RaftMessage {
    RaftMessage {
        kind: RaftKind::AppendResponse,
        from: append.to,
        to: append.from,
        term: append.term,
        log_term: 0,
        index: append.index,
        entries: Vec::new(),
        commit: 0,
        commit_term: 0,
        // Any snapshot will do.
        request_snapshot: 1,
        reject: true,
        reject_hint: 0,
        context: Vec::new(),
        priority: 0,
    }
}
