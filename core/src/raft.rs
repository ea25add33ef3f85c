//! Agreement. The only module that names the `raft` crate: messages, proposals and time go in, committed
//! entries, messages and writes come out. Persistence is asynchronous: what must not leave before a write is
//! durable is held here until [`Raft::persisted`].

mod convert;
mod log;
mod records;

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, Message, MessageType};
use raft::{RaftState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

pub use self::records::{HardState, Identity, LogEntry, Payload, Recovered};

use self::log::Log;
use crate::command::Proposal;
use crate::config::RaftConfig;
use crate::effect::StoreOp;
use crate::ids::{BatchId, ClusterId, Incarnation, Index, PeerId, RaftId, ReadId, SnapshotId, Term};
use crate::members::{Members, MembersChange, MembersStep, MembersWish, Voting};
use crate::planted::planted;
use crate::rng::mix;
use crate::snapshot::Manifest;
use crate::time::{Instant, Now};
use crate::wire::{RaftKind, RaftMessage, decode, encode};

/// What comes out of Raft, to be taken in this order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Output {
    /// An entry is agreed on: apply it.
    Committed {
        index: Index,
        term: Term,
        proposals: Vec<Proposal>,
    },
    /// A staged snapshot is of no use.
    Discard { snapshot: SnapshotId },
    /// Somebody else leads, or nobody, or this peer.
    LeaderChanged { leader: Option<RaftId> },
    /// The membership changes with this entry, unless Raft finds that it cannot, and nothing else does.
    MembersChanged {
        index: Index,
        term: Term,
        change: MembersChange,
        voting: Option<Voting>,
    },
    /// A read may be served once this entry is applied.
    ReadReady { read: ReadId, index: Index },
    /// The shared state is the staged snapshot's from here on.
    Restored { manifest: Manifest },
    /// Send.
    Send { to: RaftId, message: RaftMessage },
    /// Stream the pinset.
    SendSnapshot { to: RaftId, message: RaftMessage },
    /// Write, and report when it is durable if `sync`.
    Store { op: StoreOp, sync: bool },
}

/// Messages that wait for a write.
struct Held {
    batch: BatchId,
    ready: u64,
    messages: Vec<Message>,
}

/// This peer's Raft.
pub(crate) struct Raft {
    raw: RawNode<Log>,
    identity: Identity,
    config: RaftConfig,
    seed: u64,
    /// How many elections have been started here: the next election timeout depends on it.
    elections: u64,
    next_tick: Instant,
    held: VecDeque<Held>,
    leader: Option<RaftId>,
    /// A snapshot that was offered to Raft and waits to be accepted or not.
    offered: Option<(SnapshotId, Manifest)>,
    /// An accepted snapshot is on its way to the disk: nothing may happen until it is there.
    installing: Option<BatchId>,
    /// Peers that write under a Raft id that the membership does not know (yet).
    strangers: BTreeMap<RaftId, PeerId>,
    /// Tells this process's reads from those of its earlier lives, whose answers may still be under way.
    process: (u64, Incarnation),
    /// The term that was last handed out to be written, and the batch that does it until it is durable.
    term: (Term, Option<BatchId>),
}

/// Stands for a Raft id that is not known yet. None is ever handed out that high.
const NOBODY: RaftId = RaftId(u64::MAX);

/// Ids of unknown writers to keep. They matter only while this peer catches up with the membership.
const STRANGERS_MAX: usize = 64;

/// A message that the others can read in one go. The network refuses frames of 8 MiB.
const MESSAGE_BYTES: u64 = 1 << 20;

/// Why a message was dropped before Raft saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is for somebody else.
    NotForUs,
    /// It contradicts itself or the log in a way that no honest member's message does.
    Nonsense,
    /// A snapshot is being installed; Raft sends again what it needs.
    Installing,
}

impl Raft {
    /// `me` is this peer. It must be a member of a membership that it was founded with.
    pub(crate) fn new(me: &PeerId, config: &RaftConfig, recovered: &Recovered, seed: u64, now: Now) -> Self {
        let identity = match recovered.hard_state.identity {
            Identity::Founding => {
                let id = recovered.members.raft_id(me);
                Identity::Known(id.expect("this peer is a member of what it is founded with"))
            }
            known @ (Identity::Known(_) | Identity::Removed(_) | Identity::Unknown) => known,
        };
        let applied = recovered.applied.index;
        let entries: Vec<Entry> = recovered.log.iter().cloned().map(convert::entry).collect();
        let mut hard_state = convert::raft_hard_state(&recovered.hard_state);
        // The applied state may be newer than the last synced commit: applying proves that it was committed.
        hard_state.commit = hard_state.commit.max(applied);
        if planted!(VoteForgotten) {
            hard_state.vote = raft::INVALID_ID;
        }
        let start = RaftState {
            hard_state,
            conf_state: log::conf_state(&recovered.members),
        };
        let members = recovered.members.clone();
        let store = Log::new(start, recovered.compacted, entries, recovered.applied, members);
        let mut raft = Self {
            raw: raw_node(id_of(identity), config, store, applied),
            identity,
            config: config.clone(),
            seed,
            elections: 0,
            next_tick: now.mono + config.tick,
            held: VecDeque::new(),
            leader: None,
            offered: None,
            installing: None,
            strangers: BTreeMap::new(),
            process: (recovered.boot, recovered.incarnation),
            term: (recovered.hard_state.term, None),
        };
        raft.rearm();
        raft
    }

    pub(crate) fn id(&self) -> RaftId {
        RaftId(self.raw.raft.id)
    }

    /// As whom this peer takes part.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether this peer takes part at all: only then does its clock run, and is it spoken to.
    fn is_active(&self) -> bool {
        match self.identity {
            Identity::Founding | Identity::Known(_) => true,
            Identity::Removed(_) | Identity::Unknown => false,
        }
    }

    /// Whether nothing is known here yet, not even the membership that the log starts from: only a
    /// snapshot can help.
    fn is_blank(&self) -> bool {
        self.raw.store().last() == 0 && self.members().peers.is_empty()
    }

    pub(crate) fn members(&self) -> &Members {
        &self.raw.store().members
    }

    pub(crate) fn term(&self) -> Term {
        self.raw.raft.term
    }

    pub(crate) fn committed(&self) -> Index {
        self.raw.raft.raft_log.committed
    }

    pub(crate) fn leader(&self) -> Option<RaftId> {
        self.leader
    }

    /// Whether this peer leads and knows all that was committed before.
    pub(crate) fn leads(&self) -> bool {
        self.is_active() && self.raw.raft.state == StateRole::Leader && self.raw.raft.commit_to_current_term()
    }

    /// The log that is in memory: first and last index, and bytes.
    pub(crate) fn log_span(&self) -> (Index, Index, usize) {
        let log = self.raw.store();
        (log.compacted.0 + 1, log.last(), log.bytes())
    }

    /// Whether a write that Raft waits for is under way: proposals that come now had better go together.
    pub(crate) fn awaits_disk(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a snapshot is on its way to the disk: reads still show what it replaces.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Whether [`Raft::drain`] would bring anything.
    pub(crate) fn has_ready(&self) -> bool {
        self.installing.is_none() && self.raw.has_ready()
    }

    /// The peer behind a Raft id, as far as it is known.
    pub(crate) fn peer(&self, id: RaftId) -> Option<PeerId> {
        self.members()
            .peer(id)
            .or_else(|| self.strangers.get(&id))
            .cloned()
    }

    /// How far a follower's log is known to agree with ours; leaders only.
    pub(crate) fn matched(&self, id: RaftId) -> Option<Index> {
        let leads = self.raw.raft.state == StateRole::Leader;
        leads
            .then(|| self.raw.raft.prs().get(id.0).map(|progress| progress.matched))
            .flatten()
    }

    /// How far every member's log is known to agree with ours; leaders only.
    pub(crate) fn all_matched(&self) -> BTreeMap<RaftId, Index> {
        let progress = self.raw.raft.prs().iter();
        progress
            .map(|(id, progress)| (RaftId(*id), progress.matched))
            .collect()
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next_tick
    }

    /// Lets time pass. A process that wakes up late ticks at most twice, or it would run through its
    /// election timeout at once and disturb a healthy cluster.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        for _ in 0..2 {
            if now.mono < self.next_tick {
                return;
            }
            self.next_tick = self.next_tick + self.config.tick;
            if self.installing.is_none() && self.is_active() {
                self.raw.tick();
                let fired = self.raw.raft.election_elapsed == 0 && self.raw.raft.state != StateRole::Leader;
                self.elections += u64::from(fired);
                self.rearm();
            }
        }
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + self.config.tick;
        }
    }

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

    /// What every honest message fulfils. Raft panics on much that does not.
    fn validate(&self, from: &PeerId, message: &RaftMessage) -> Result<(), Dropped> {
        if self.installing.is_some() {
            return Err(Dropped::Installing);
        }
        if message.to != self.id() || !self.is_active() {
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

    /// Appends proposals as one entry. False when this peer does not lead, or Raft is full.
    pub(crate) fn propose(&mut self, proposals: &[Proposal]) -> bool {
        if !self.leads() || self.installing.is_some() {
            return false;
        }
        let accepted = self.raw.propose(Vec::new(), encode(&proposals)).is_ok();
        self.rearm();
        accepted
    }

    /// Proposes a change of the membership. False when it cannot be proposed now.
    pub(crate) fn propose_members(&mut self, change: &MembersChange) -> bool {
        if !self.leads() || self.installing.is_some() || self.raw.raft.has_pending_conf() {
            return false;
        }
        let accepted = self
            .raw
            .propose_conf_change(encode(change), conf_change(change))
            .is_ok();
        self.rearm();
        accepted
    }

    /// Asks for the position that a linearizable read must wait for. May be lost: ask again.
    pub(crate) fn read(&mut self, read: ReadId) {
        if self.installing.is_none() {
            // Raft drops a request whose context it has seen.
            self.raw.read_index(encode(&(read, self.process)));
            self.rearm();
        }
    }

    pub(crate) fn unreachable(&mut self, peer: &PeerId) {
        if let Some(id) = self.members().raft_id(peer) {
            self.raw.report_unreachable(id.0);
            self.rearm();
        }
    }

    pub(crate) fn snapshot_sent(&mut self, peer: &PeerId, delivered: bool) {
        if planted!(SnapshotFailureIgnored) && !delivered {
            return;
        }
        if let Some(id) = self.members().raft_id(peer) {
            let status = if delivered {
                SnapshotStatus::Finish
            } else {
                SnapshotStatus::Failure
            };
            self.raw.report_snapshot(id.0, status);
            self.rearm();
        }
    }

    /// Every batch up to this one is durable.
    pub(crate) fn persisted(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        let installed = self.installing.take_if(|installing| *installing <= batch);
        self.term.1.take_if(|term| *term <= batch);
        while self.held.front().is_some_and(|held| held.batch <= batch) {
            let held = self.held.pop_front().expect("there is a first one");
            self.raw.on_persist_ready(held.ready);
            self.rearm();
            self.send(held.messages, outputs);
        }
        if installed.is_some() {
            // Raft does not conclude from an installed snapshot that its entries are applied.
            self.raw.advance_apply_to(self.raw.store().applied.index);
        }
    }

    /// Takes all that Raft has ready. What it wants written goes into `batch`.
    pub(crate) fn drain(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        while self.installing.is_none() && self.raw.has_ready() {
            self.take_ready(batch, outputs);
        }
        if let Some((snapshot, _)) = self.offered.take() {
            outputs.push(Output::Discard { snapshot });
        }
    }

    fn take_ready(&mut self, batch: BatchId, outputs: &mut Vec<Output>) {
        let mut ready = self.raw.ready();
        let leader = match ready.ss() {
            Some(state) => (state.leader_id != raft::INVALID_ID).then_some(RaftId(state.leader_id)),
            None => self.leader,
        };
        let mut messages = ready.take_messages();
        let mut held = ready.take_persisted_messages();
        let mut sync = ready.must_sync() && !planted!(VoteUnsynced);
        if ready.snapshot().get_metadata().index != 0 {
            let (snapshot, manifest) = self.offered.take().expect("raft only takes what was offered");
            assert!(
                manifest.applied.index == ready.snapshot().get_metadata().index,
                "takes what was offered"
            );
            self.raw
                .mut_store()
                .reset(manifest.applied, manifest.members.clone());
            let op = StoreOp::InstallSnapshot {
                snapshot,
                manifest: manifest.clone(),
            };
            outputs.push(Output::Store { op, sync: true });
            outputs.push(Output::Restored { manifest });
            self.installing = Some(batch);
            sync = true;
        }
        if !ready.entries().is_empty() {
            self.raw.mut_store().append(ready.entries());
            let entries = ready.entries().iter().map(convert::log_entry).collect();
            outputs.push(Output::Store {
                op: StoreOp::Append { entries },
                sync: true,
            });
            sync = true;
        }
        if let Some(hard_state) = ready.hs() {
            // A peer that votes alone comes to lead without asking anybody: not even a learner may hear of
            // the new term before the disk has it. (Raft lets a leader's messages go at once.)
            if hard_state.term != self.term.0 {
                self.term = (hard_state.term, Some(batch));
            }
            let op = StoreOp::SetHardState {
                hard_state: convert::hard_state(self.identity, hard_state),
            };
            outputs.push(Output::Store { op, sync });
        }
        if self.term.1.is_some() {
            held.splice(0..0, messages.drain(..));
        }
        let reads = ready.take_read_states();
        let committed = ready.take_committed_entries();
        let number = ready.number();
        self.raw.advance_append_async(ready);
        self.commit(committed, outputs);
        self.rearm();
        // What needs no write of its own waits for the writes before it.
        let waits_for = if planted!(AckBeforeFsync) {
            None
        } else if sync {
            Some(batch)
        } else {
            self.held.back().map(|held| held.batch)
        };
        if let Some(batch) = waits_for {
            self.held.push_back(Held {
                batch,
                ready: number,
                messages: std::mem::take(&mut held),
            });
        } else {
            self.raw.on_persist_ready(number);
            self.rearm();
        }
        self.send(messages, outputs);
        self.send(held, outputs);
        if leader != self.leader {
            self.leader = leader;
            outputs.push(Output::LeaderChanged { leader });
        }
        for read in reads {
            let context = decode::<(ReadId, (u64, Incarnation))>(&read.request_ctx);
            if let Ok((id, process)) = context
                && process == self.process
            {
                outputs.push(Output::ReadReady {
                    read: id,
                    index: read.index,
                });
            }
        }
    }

    fn commit(&mut self, entries: Vec<Entry>, outputs: &mut Vec<Output>) {
        let Some(last) = entries.last().map(|entry| entry.index) else {
            return;
        };
        for entry in entries {
            let (index, term) = (entry.index, entry.term);
            match convert::log_entry(&entry).payload {
                Payload::Commands(data) if data.is_empty() => {
                    outputs.push(Output::Committed {
                        index,
                        term,
                        proposals: Vec::new(),
                    });
                }
                Payload::Commands(data) => {
                    // The leader encoded them; one that cannot be read would part the peers' states.
                    let proposals = decode(&data).expect("a committed entry can be read");
                    outputs.push(Output::Committed {
                        index,
                        term,
                        proposals,
                    });
                }
                Payload::Members(data) => {
                    let (change, voting) = self.change_members(&data);
                    outputs.push(Output::MembersChanged {
                        index,
                        term,
                        change,
                        voting,
                    });
                }
            }
        }
        self.raw.advance_apply_to(last);
    }

    /// Applies a change of the membership to Raft; an empty one completes the change that is under way. The
    /// record follows in the order of the log: [`Raft::members_changed`].
    fn change_members(&mut self, data: &[u8]) -> (MembersChange, Option<Voting>) {
        let change = if data.is_empty() {
            MembersChange { steps: Vec::new() }
        } else {
            decode(data).expect("a committed entry can be read")
        };
        let ids = |ids: &[u64]| ids.iter().copied().map(RaftId).collect();
        let state = self.raw.apply_conf_change(&conf_change(&change)).ok();
        let voting = state.map(|state| Voting {
            voters: ids(&state.voters),
            outgoing: ids(&state.voters_outgoing),
            learners: ids(&state.learners),
            learners_next: ids(&state.learners_next),
            auto_leave: state.auto_leave,
        });
        (change, voting)
    }

    /// Takes a committed change over into the record. True when this peer is no member any more by it.
    pub(crate) fn members_changed(&mut self, change: &MembersChange, voting: Option<Voting>) -> bool {
        let id = self.id();
        let members = &mut self.raw.mut_store().members;
        let was_member = members.peers.contains_key(&id);
        if let Some(voting) = voting {
            members.take(change, voting);
        }
        was_member && !members.peers.contains_key(&id)
    }

    /// Notes what an operator wants of the membership, or says why it cannot be.
    pub(crate) fn wish(&mut self, wish: &MembersWish) -> Result<(), String> {
        self.raw.mut_store().members.wish(wish)
    }

    /// Lets a voter lead.
    pub(crate) fn transfer(&mut self, to: RaftId) {
        if self.leads() && self.installing.is_none() {
            self.raw.transfer_leader(to.0);
            self.rearm();
        }
    }

    /// Takes part under a Raft id that a member says belongs to this data folder; false when that is not
    /// possible now. The log stays: it is a part of the same cluster's, whoever holds it, and what was
    /// promised under another id binds nobody under this one.
    pub(crate) fn adopt(&mut self, id: RaftId, cluster: ClusterId, outputs: &mut Vec<Output>) -> bool {
        // An unfinished write must not be taken for a finished one by the Raft that starts anew.
        let busy = self.installing.is_some() || !self.held.is_empty() || self.raw.has_ready();
        let newer = match self.identity {
            Identity::Founding | Identity::Unknown => true,
            Identity::Known(known) | Identity::Removed(known) => id > known,
        };
        if busy || !newer || id >= NOBODY || (self.members().cluster != cluster && !self.is_blank()) {
            return false;
        }
        if self.members().cluster != cluster {
            self.raw.mut_store().members.cluster = cluster;
            outputs.push(Output::Store {
                op: StoreOp::SetMembers {
                    members: self.members().clone(),
                },
                sync: true,
            });
        }
        self.restart(Identity::Known(id), outputs);
        true
    }

    /// Takes part no more: the id belongs to another data folder, or its membership has ended.
    pub(crate) fn retire(&mut self, identity: Identity, outputs: &mut Vec<Output>) -> bool {
        if !self.is_active() || self.installing.is_some() || !self.held.is_empty() || self.raw.has_ready() {
            return false;
        }
        self.restart(identity, outputs);
        true
    }

    /// Starts Raft anew, as somebody else, on the log as it is.
    fn restart(&mut self, identity: Identity, outputs: &mut Vec<Output>) {
        self.identity = identity;
        let mut hard_state = self.raw.raft.hard_state();
        hard_state.vote = raft::INVALID_ID;
        let mut store = self.raw.store().clone();
        store.start = RaftState {
            hard_state: hard_state.clone(),
            conf_state: log::conf_state(&store.members),
        };
        let applied = self.raw.raft.raft_log.applied;
        self.raw = raw_node(id_of(identity), &self.config, store, applied);
        self.strangers.clear();
        self.rearm();
        outputs.push(Output::Store {
            op: StoreOp::SetHardState {
                hard_state: convert::hard_state(identity, &hard_state),
            },
            sync: true,
        });
        if self.leader.take().is_some() {
            outputs.push(Output::LeaderChanged { leader: None });
        }
    }

    /// Records an incarnation in the membership.
    pub(crate) fn admit(&mut self, id: RaftId, incarnation: Incarnation) -> Option<Members> {
        let log = self.raw.mut_store();
        let member = log.members.peers.get_mut(&id)?;
        if member.incarnation.is_some() {
            return None;
        }
        member.incarnation = Some(incarnation);
        Some(log.members.clone())
    }

    /// Notes how far the state is, and compacts the log when it has grown beyond its limits. What followers
    /// may still need is kept, as far as the limit on bytes allows.
    pub(crate) fn applied(&mut self, applied: crate::snapshot::Applied) -> Option<StoreOp> {
        let RaftConfig {
            trailing_logs,
            log_bytes,
            ..
        } = self.config;
        let log = self.raw.mut_store();
        log.applied = applied;
        let too_long = log.len() > trailing_logs * 2;
        let too_big = log.bytes() > log_bytes;
        if !too_long && !too_big {
            return None;
        }
        let keep = if too_long { trailing_logs } else { log.len() / 2 };
        let index = (log.last() - keep).min(applied.index);
        if index <= log.compacted.0 {
            return None;
        }
        let term = log.compact(index);
        Some(StoreOp::Compact { index, term })
    }

    fn send(&mut self, messages: Vec<Message>, outputs: &mut Vec<Output>) {
        for message in messages {
            let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            if let Some(message) = convert::message(message) {
                let to = message.to;
                outputs.push(if is_snapshot {
                    Output::SendSnapshot { to, message }
                } else {
                    Output::Send { to, message }
                });
            }
        }
    }

    /// Replaces the election timeout that Raft drew from the process's own randomness by one that follows
    /// from the seed. Called after everything that may have drawn.
    fn rearm(&mut self) {
        let election = u64::from(self.config.election_ticks);
        let seed = mix(self.seed ^ mix(self.id().0));
        let timeout = election + mix(seed ^ mix(self.elections)) % election;
        self.raw
            .raft
            .set_randomized_election_timeout(usize::try_from(timeout).expect("a few ticks"));
    }
}

fn id_of(identity: Identity) -> RaftId {
    match identity {
        Identity::Known(id) | Identity::Removed(id) => id,
        Identity::Founding | Identity::Unknown => NOBODY,
    }
}

fn raw_node(id: RaftId, config: &RaftConfig, store: Log, applied: Index) -> RawNode<Log> {
    let election = config.election_ticks as usize;
    let settings = raft::Config {
        id: id.0,
        election_tick: election,
        min_election_tick: election,
        max_election_tick: election * 2,
        heartbeat_tick: config.heartbeat_ticks as usize,
        applied,
        max_size_per_msg: MESSAGE_BYTES,
        max_inflight_msgs: 256,
        check_quorum: true,
        pre_vote: true,
        batch_append: true,
        max_uncommitted_size: 64 << 20,
        max_committed_size_per_ready: 16 << 20,
        read_only_option: ReadOnlyOption::Safe,
        ..raft::Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&settings, store, &logger).expect("the settings are valid")
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

fn conf_change(change: &MembersChange) -> ConfChangeV2 {
    let mut out = ConfChangeV2::default();
    let steps: Vec<ConfChangeSingle> = change
        .steps
        .iter()
        .map(|step| {
            let (kind, id) = match step {
                MembersStep::AddLearner { raft_id, .. } | MembersStep::Demote { raft_id } => {
                    (ConfChangeType::AddLearnerNode, raft_id)
                }
                MembersStep::Promote { raft_id } => (ConfChangeType::AddNode, raft_id),
                MembersStep::Remove { raft_id } => (ConfChangeType::RemoveNode, raft_id),
            };
            let mut single = ConfChangeSingle::default();
            single.set_change_type(kind);
            single.node_id = id.0;
            single
        })
        .collect();
    out.set_changes(steps.into());
    out
}
