//! Agreement. The only module that names the `raft` crate: messages, proposals and time go in, committed
//! entries, messages and writes come out. Persistence is asynchronous: what must not leave before a write is
//! durable is held here until [`Raft::persisted`].

mod convert;
mod identity;
mod log;
mod ready;
mod receive;
mod records;

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType};
use raft::{RaftState, RawNode, ReadOnlyOption, SnapshotStatus, StateRole};

pub use self::records::{HardState, Identity, LogEntry, Payload, Recovered};

use self::log::Log;
pub(crate) use self::receive::Dropped;
use crate::command::Proposal;
use crate::config::{Config, RaftConfig};
use crate::effect::StoreOp;
use crate::ids::{BatchId, ClusterId, Incarnation, Index, PeerId, RaftId, ReadId, SnapshotId, Term};
use crate::limits::LimitsConfig;
use crate::members::{Members, MembersChange, MembersStep, MembersWish, Voting};
use crate::planted::planted;
use crate::rng::mix;
use crate::snapshot::Manifest;
use crate::time::{Instant, Now};
use crate::wire::{FIRST_VERSION, RaftKind, RaftMessage, decode, encode, encode_since};

/// What comes out of Raft, to be taken in this order.
#[derive(Debug, Clone, PartialEq)]
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
    /// The shared state is the staged snapshot's from here on. `log` is what an earlier process left that was
    /// not applied.
    Restored { manifest: Manifest, log: Vec<Proposal> },
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
    limits: LimitsConfig,
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
    /// The last entry that an earlier process left in the log.
    inherited: Index,
    /// Tells this process's reads from those of its earlier lives, whose answers may still be under way.
    process: (u64, Incarnation),
    /// The term that was last handed out to be written, and the batch that does it until it is durable.
    term: (Term, Option<BatchId>),
    /// The batch that records what was last agreed on about the membership, until it is durable.
    regrouping: Option<BatchId>,
}

/// Stands for a Raft id that is not known yet. None is ever handed out that high.
const NOBODY: RaftId = RaftId(u64::MAX);

/// Ids of unknown writers to keep. They matter only while this peer catches up with the membership.
const STRANGERS_MAX: usize = 64;

impl Raft {
    /// This peer must be a member of a membership that it was founded with.
    pub(crate) fn new(config: &Config, recovered: &Recovered, seed: u64, now: Now) -> Self {
        let me = &config.peer;
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
            raw: raw_node(id_of(identity), &config.raft, &config.limits, store, applied),
            identity,
            config: config.raft.clone(),
            limits: config.limits.clone(),
            seed,
            elections: 0,
            next_tick: now.mono + config.raft.tick,
            held: VecDeque::new(),
            leader: None,
            offered: None,
            installing: None,
            strangers: BTreeMap::new(),
            inherited: recovered.log.last().map_or(0, |entry| entry.index),
            process: (recovered.boot, recovered.incarnation),
            term: (recovered.hard_state.term, None),
            regrouping: None,
        };
        raft.rearm();
        if raft.votes_alone() {
            // Nobody else could be leading: it waits for no timeout.
            raft.next_tick = now.mono;
        }
        raft
    }

    pub(crate) fn id(&self) -> RaftId {
        RaftId(self.raw.raft.id)
    }

    /// As whom this peer takes part.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether this peer takes part: only then may it lead.
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
            if self.installing.is_none() {
                self.tick();
            }
        }
        if now.mono >= self.next_tick {
            self.next_tick = now.mono + self.config.tick;
        }
    }

    fn tick(&mut self) {
        if self.would_lead_too_soon() {
            return;
        }
        match self.identity {
            Identity::Founding | Identity::Known(_)
                if self.votes_alone() && self.raw.raft.state != StateRole::Leader =>
            {
                self.elections += 1;
                // Refused while a change of the membership waits to be applied: tried again at the next tick.
                let _ = self.raw.campaign();
                self.rearm();
            }
            Identity::Founding | Identity::Known(_) => {
                self.raw.tick();
                let fired = self.raw.raft.election_elapsed == 0 && self.raw.raft.state != StateRole::Leader;
                self.elections += u64::from(fired);
                self.rearm();
            }
            // It forgets a leader that has fallen silent, and never wants to be one.
            Identity::Removed(_) => {
                let elapsed = &mut self.raw.raft.election_elapsed;
                *elapsed = elapsed.saturating_add(1);
            }
            Identity::Unknown => {}
        }
    }

    /// Whether an election would be won on the spot, by the own vote alone, while the end of the log is not
    /// durable. Raft takes it for granted that who comes to lead has its log on disk. It does wherever others
    /// vote too: they are asked when the log is durable, and answer later.
    fn would_lead_too_soon(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        self.raw.raft.state != StateRole::Leader
            && log.persisted < log.last_index()
            && self.has_no_other_voter()
    }

    /// Whether this peer is the only voter.
    fn votes_alone(&self) -> bool {
        self.is_active() && self.members().voters.contains(&self.id()) && self.has_no_other_voter()
    }

    fn has_no_other_voter(&self) -> bool {
        let is_other = |voter: &RaftId| *voter != self.id();
        let Members { voters, outgoing, .. } = self.members();
        !voters.iter().chain(outgoing).any(is_other)
    }

    /// Appends proposals as one entry. False when this peer does not lead, or Raft is full.
    pub(crate) fn propose(&mut self, proposals: &[Proposal]) -> bool {
        if !self.leads() || self.installing.is_some() {
            return false;
        }
        let since = proposals.iter().map(|proposal| proposal.command.since());
        let entry = encode_since(since.max().unwrap_or(FIRST_VERSION), &proposals);
        let accepted = self.raw.propose(Vec::new(), entry).is_ok();
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
        if !too_long && !too_big || planted!(NeverCompacts) {
            return None;
        }
        let keep = if too_long { trailing_logs } else { log.len() / 2 };
        let keep = if planted!(CompactsAll) { 0 } else { keep };
        let index = (log.last() - keep).min(applied.index);
        if index <= log.compacted.0 {
            return None;
        }
        let term = log.compact(index);
        Some(StoreOp::Compact { index, term })
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

fn raw_node(
    id: RaftId,
    config: &RaftConfig,
    limits: &LimitsConfig,
    store: Log,
    applied: Index,
) -> RawNode<Log> {
    let election = config.election_ticks as usize;
    let settings = raft::Config {
        id: id.0,
        election_tick: election,
        min_election_tick: election,
        max_election_tick: election * 2,
        heartbeat_tick: config.heartbeat_ticks as usize,
        applied,
        max_size_per_msg: if planted!(EntryBytesIgnored) {
            u64::MAX
        } else {
            limits.message_bytes as u64
        },
        max_inflight_msgs: limits.inflight_messages,
        check_quorum: true,
        pre_vote: true,
        // Joins messages to one peer past `max_size_per_msg`.
        batch_append: false,
        max_uncommitted_size: 64 << 20,
        max_committed_size_per_ready: 16 << 20,
        read_only_option: ReadOnlyOption::Safe,
        ..raft::Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(&settings, store, &logger).expect("the settings are valid")
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
