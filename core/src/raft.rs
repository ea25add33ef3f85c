//! Consensus: wraps the `raft` crate, which no other module names. Messages, proposals and ticks go in;
//! committed entries, messages and writes come out. Persistence is asynchronous: messages that depend on a
//! write are held back until [`Raft::persisted`].

mod convert;
mod identity;
mod log;
mod ready;
mod receive;
mod seeded;

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, Message};
use raft::{RaftState, SnapshotStatus, StateRole};

pub(crate) use self::receive::Dropped;

use self::log::Log;
use self::seeded::SeededRaft;
use crate::codec::{FIRST_VERSION, encode, encode_for_version};
use crate::command::Proposal;
use crate::config::{Config, RaftConfig};
use crate::effect::StoreOp;
use crate::ids::{BatchId, Incarnation, Index, PeerId, RaftId, ReadId, SnapshotId, Term};
use crate::members::{Members, MembersChange, MembersStep, Voting};
use crate::planted::planted;
use crate::records::{Identity, Recovered};
use crate::snapshot::Manifest;
use crate::time::{Instant, Now};
use crate::wire::RaftMessage;

/// Output of Raft, to be routed in order.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Output {
    /// Apply a committed entry.
    Committed {
        index: Index,
        term: Term,
        proposals: Vec<Proposal>,
    },
    /// Delete a staged snapshot that was not installed.
    Discard { snapshot: SnapshotId },
    /// The known leader changed.
    LeaderChanged { leader: Option<RaftId> },
    /// Apply a committed membership change. `voting` is `None` if Raft rejected the change.
    MembersChanged {
        index: Index,
        term: Term,
        change: MembersChange,
        voting: Option<Voting>,
    },
    /// Serve a read once this log index is applied.
    ReadReady { read: ReadId, index: Index },
    /// Replace the state by a snapshot that is being installed. `log` is the unapplied log of an earlier
    /// process.
    Restored { manifest: Manifest, log: Vec<Proposal> },
    /// Send a message.
    Send { to: RaftId, message: RaftMessage },
    /// Stream the pinset, announced by a message.
    SendSnapshot { to: RaftId, message: RaftMessage },
    /// Write; if `sync`, report when it is durable.
    Store { op: StoreOp, sync: bool },
}

/// Messages that are held back until a write is durable.
struct Held {
    batch: BatchId,
    ready: u64,
    messages: Vec<Message>,
}

/// Raft of this peer.
pub(crate) struct Raft {
    raw: SeededRaft,
    identity: Identity,
    config: RaftConfig,
    /// Highest protocol version of log entries that this peer keeps.
    version: u8,
    next_tick: Instant,
    held: VecDeque<Held>,
    leader: Option<RaftId>,
    /// A staged snapshot that Raft has not accepted or rejected yet.
    offered: Option<(SnapshotId, Manifest)>,
    /// The batch of an accepted snapshot. Raft is stopped until it is durable.
    installing: Option<BatchId>,
    /// Senders under Raft ids that are not, or not yet, in this peer's membership.
    unknown_senders: BTreeMap<RaftId, PeerId>,
    /// Last log index of an earlier process.
    inherited: Index,
    /// Distinguishes this process's reads from those of earlier ones, whose answers may still arrive.
    process: (u64, Incarnation),
    /// Last term that was written, and its batch until that is durable.
    term: (Term, Option<BatchId>),
    /// Batch of the last committed membership change, until it is durable.
    unsynced_conf_change: Option<BatchId>,
}

/// Placeholder for an unknown Raft id. Real ones are assigned from 1.
const NO_RAFT_ID: RaftId = RaftId(u64::MAX);

/// Maximum number of unknown senders to remember. Needed only until this peer has caught up with the
/// membership.
const UNKNOWN_SENDERS_MAX: usize = 64;

impl Raft {
    /// Creates Raft from the recovered state.
    ///
    /// # Panics
    ///
    /// If this peer is not a member of the membership that it is founded with.
    pub(crate) fn new(config: &Config, recovered: &Recovered, seed: u64, now: Now) -> Self {
        let me = &config.peer;
        let identity = match recovered.hard_state.identity {
            Identity::Founding => {
                let id = recovered.members.raft_id(me);
                Identity::Known(id.expect("a founding peer is a member"))
            }
            known @ (Identity::Known(_) | Identity::Removed(_) | Identity::Unknown) => known,
        };
        let applied = recovered.applied.index;
        let entries: Vec<Entry> = recovered.log.iter().cloned().map(convert::entry).collect();
        let mut hard_state = convert::raft_hard_state(&recovered.hard_state);
        // The applied state may be newer than the last synced commit index: what is applied was committed.
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
            raw: SeededRaft::new(id_of(identity), config, seed, store, applied),
            identity,
            config: config.raft.clone(),
            version: config.version,
            next_tick: now.mono + config.raft.tick,
            held: VecDeque::new(),
            leader: None,
            offered: None,
            installing: None,
            unknown_senders: BTreeMap::new(),
            inherited: recovered.log.last().map_or(0, |entry| entry.index),
            process: (recovered.boot, recovered.incarnation),
            term: (recovered.hard_state.term, None),
            unsynced_conf_change: None,
        };
        if raft.is_sole_voter() {
            // No other peer can be leader: campaign without waiting for the timeout.
            raft.next_tick = now.mono;
        }
        raft
    }

    pub(crate) fn id(&self) -> RaftId {
        RaftId(self.raw.raft.id)
    }

    /// Returns the identity that this peer uses in Raft.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns whether this peer is a member, as only members may lead.
    fn is_active(&self) -> bool {
        match self.identity {
            Identity::Founding | Identity::Known(_) => true,
            Identity::Removed(_) | Identity::Unknown => false,
        }
    }

    /// Returns whether this peer has neither log nor membership, so that only a snapshot can help it.
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

    /// Returns whether this peer leads and has committed an entry of its term.
    pub(crate) fn leads(&self) -> bool {
        self.is_active() && self.raw.raft.state == StateRole::Leader && self.raw.raft.commit_to_current_term()
    }

    /// Returns the log in memory: first index, last index, bytes.
    pub(crate) fn log_span(&self) -> (Index, Index, usize) {
        let log = self.raw.store();
        (log.compacted.0 + 1, log.last(), log.bytes())
    }

    /// Returns whether messages are held back for a write. New proposals should then be batched.
    pub(crate) fn awaits_disk(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns whether a snapshot is being installed. Until it is durable, reads return the old state.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// Returns whether [`Raft::drain`] has anything to do.
    pub(crate) fn has_ready(&self) -> bool {
        self.installing.is_none() && self.raw.has_ready()
    }

    /// Returns the peer behind a Raft id, if known.
    pub(crate) fn peer(&self, id: RaftId) -> Option<PeerId> {
        self.members()
            .peer(id)
            .or_else(|| self.unknown_senders.get(&id))
            .cloned()
    }

    /// Returns the highest log index that a follower is known to have; on the leader only.
    pub(crate) fn matched(&self, id: RaftId) -> Option<Index> {
        let leads = self.raw.raft.state == StateRole::Leader;
        leads
            .then(|| self.raw.raft.prs().get(id.0).map(|progress| progress.matched))
            .flatten()
    }

    /// Returns [`Raft::matched`] of all members; empty unless this peer leads.
    pub(crate) fn all_matched(&self) -> BTreeMap<RaftId, Index> {
        let progress = self.raw.raft.prs().iter();
        progress
            .map(|(id, progress)| (RaftId(*id), progress.matched))
            .collect()
    }

    pub(crate) fn poll_timeout(&self) -> Instant {
        self.next_tick
    }

    /// Advances time. A process that wakes up late ticks at most twice: more could run through the election
    /// timeout at once, and disturb a healthy cluster.
    pub(crate) fn handle_timeout(&mut self, now: Now) {
        for _ in 0..if planted!(TicksMadeUp) { 1000 } else { 2 } {
            if now.mono < self.next_tick {
                return;
            }
            self.next_tick = self.next_tick + self.config.tick;
            if self.installing.is_none() {
                self.tick();
            }
        }
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + self.config.tick;
        }
    }

    fn tick(&mut self) {
        if self.must_delay_election() {
            return;
        }
        match self.identity {
            Identity::Founding | Identity::Known(_)
                if self.is_sole_voter() && self.raw.raft.state != StateRole::Leader =>
            {
                self.raw.campaign();
            }
            Identity::Founding | Identity::Known(_) => self.raw.tick(),
            Identity::Removed(_) if planted!(RemovedCampaigns) => self.raw.tick(),
            // A removed peer only forgets a silent leader; it never campaigns.
            Identity::Removed(_) => self.raw.call(|raw| {
                let elapsed = &mut raw.raft.election_elapsed;
                *elapsed = elapsed.saturating_add(1);
            }),
            Identity::Unknown => {}
        }
    }

    /// Returns whether an election would be won at once, by this peer's own vote, before its log is durable.
    /// Raft assumes that a leader's log is durable. With other voters it is: they are asked after the write.
    fn must_delay_election(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        self.raw.raft.state != StateRole::Leader
            && log.persisted < log.last_index()
            && self.has_no_other_voter()
    }

    /// Returns whether this peer is the only voter.
    fn is_sole_voter(&self) -> bool {
        self.is_active() && self.members().voters.contains(&self.id()) && self.has_no_other_voter()
    }

    fn has_no_other_voter(&self) -> bool {
        let is_other = |voter: &RaftId| *voter != self.id();
        let Members { voters, outgoing, .. } = self.members();
        !voters.iter().chain(outgoing).any(is_other)
    }

    /// Appends proposals as one entry. Returns `false` if this peer does not lead or Raft's queue is full.
    pub(crate) fn propose(&mut self, proposals: &[Proposal]) -> bool {
        if !self.leads() || self.installing.is_some() {
            return false;
        }
        let versions = proposals.iter().map(|proposal| proposal.command.min_version());
        let entry = encode_for_version(versions.max().unwrap_or(FIRST_VERSION), &proposals);
        self.raw.call(|raw| raw.propose(Vec::new(), entry).is_ok())
    }

    /// Proposes a membership change. Returns `false` if that is not possible now.
    pub(crate) fn propose_members(&mut self, change: &MembersChange) -> bool {
        if !self.leads() || self.installing.is_some() || self.raw.raft.has_pending_conf() {
            return false;
        }
        let (context, change) = (encode(change), conf_change(change));
        self.raw
            .call(|raw| raw.propose_conf_change(context, change).is_ok())
    }

    /// Requests the log index that a linearizable read must wait for (Raft thesis, section 6.4). The request
    /// may be lost: repeat it.
    pub(crate) fn read(&mut self, read: ReadId) {
        if self.installing.is_none() {
            // Raft drops a request whose context it has seen.
            let context = encode(&(read, self.process));
            self.raw.call(|raw| raw.read_index(context));
        }
    }

    /// Notes that messages to a peer may be lost. Without them the leader may be dead: this peer no longer
    /// refuses its vote to others, and its own timeout is short. The leader's next message restores both.
    pub(crate) fn unreachable(&mut self, peer: &PeerId) {
        let Some(id) = self.members().raft_id(peer) else {
            return;
        };
        let is_leader = self.raw.raft.leader_id == id.0 && id != self.id() && !planted!(LeaseOutlivesLeader);
        self.raw.call(|raw| {
            raw.report_unreachable(id.0);
            if is_leader {
                let lease = raw.raft.election_timeout();
                raw.raft.election_elapsed = raw.raft.election_elapsed.max(lease);
            }
        });
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
            self.raw.call(|raw| raw.report_snapshot(id.0, status));
        }
    }

    /// Records the applied position, and compacts the log if it exceeds its limits. Entries that followers
    /// may still need are kept, within the limit on bytes.
    pub(crate) fn applied(&mut self, applied: crate::snapshot::Applied) -> Option<StoreOp> {
        let RaftConfig {
            trailing_logs,
            log_bytes,
            ..
        } = self.config;
        let log = self.raw.log_mut();
        log.applied = applied;
        let too_long = log.len() > trailing_logs * 2;
        let too_big = log.bytes() > log_bytes;
        if !too_long && !too_big || planted!(NeverCompacts) {
            return None;
        }
        let keep = if too_long { trailing_logs } else { log.len() / 2 };
        let keep = if planted!(CompactsAll) { 0 } else { keep };
        let most = if planted!(CompactsUnapplied) {
            log.last()
        } else {
            applied.index
        };
        let index = (log.last() - keep).min(most);
        if index <= log.compacted.0 {
            return None;
        }
        let term = log.compact(index);
        Some(StoreOp::Compact { index, term })
    }
}

fn id_of(identity: Identity) -> RaftId {
    match identity {
        Identity::Known(id) | Identity::Removed(id) => id,
        Identity::Founding | Identity::Unknown => NO_RAFT_ID,
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
