//! The `raft` crate's state machine with election timeouts that are derived from the seed.

use std::ops::Deref;

use raft::{RawNode, ReadOnlyOption, StateRole};

use super::log::Log;
use crate::config::Config;
use crate::ids::{Index, RaftId};
use crate::planted::planted;
use crate::rng::mix;

/// `RawNode` that draws no randomness. Its state changes only through the methods here: each replaces the
/// election timeout that the `raft` crate may have drawn from process-wide randomness.
pub(super) struct SeededRaft {
    raw: RawNode<Log>,
    settings: raft::Config,
    seed: u64,
    /// Elections started by this process; the next election timeout is derived from it.
    elections: u64,
}

impl Deref for SeededRaft {
    type Target = RawNode<Log>;

    fn deref(&self) -> &RawNode<Log> {
        &self.raw
    }
}

impl SeededRaft {
    pub(super) fn new(id: RaftId, config: &Config, seed: u64, log: Log, applied: Index) -> Self {
        let election = config.raft.election_ticks as usize;
        let settings = raft::Config {
            id: id.0,
            election_tick: election,
            min_election_tick: election,
            max_election_tick: election * 2,
            heartbeat_tick: config.raft.heartbeat_ticks as usize,
            applied,
            max_size_per_msg: if planted!(EntryBytesIgnored) {
                32 << 20
            } else {
                config.limits.message_bytes as u64
            },
            max_inflight_msgs: config.limits.inflight_messages,
            check_quorum: !planted!(LeadsAlone),
            pre_vote: !planted!(VotesAtOnce),
            // Batching would exceed `max_size_per_msg`.
            batch_append: false,
            max_uncommitted_size: 64 << 20,
            max_committed_size_per_ready: 16 << 20,
            read_only_option: ReadOnlyOption::Safe,
            ..raft::Config::default()
        };
        let mut raft = Self {
            raw: raw_node(&settings, log),
            settings,
            seed,
            elections: 0,
        };
        raft.rearm();
        raft
    }

    /// Restarts under another Raft id.
    pub(super) fn restart(&mut self, id: RaftId, log: Log, applied: Index) {
        self.settings.id = id.0;
        self.settings.applied = applied;
        self.raw = raw_node(&self.settings, log);
        self.rearm();
    }

    /// Changes Raft's state.
    pub(super) fn call<T>(&mut self, change: impl FnOnce(&mut RawNode<Log>) -> T) -> T {
        let result = change(&mut self.raw);
        self.rearm();
        result
    }

    /// Returns the log, whose changes concern no timeout.
    pub(super) fn log_mut(&mut self) -> &mut Log {
        self.raw.mut_store()
    }

    /// Advances time by one tick.
    pub(super) fn tick(&mut self) {
        self.raw.tick();
        let fired = self.raw.raft.election_elapsed == 0 && self.raw.raft.state != StateRole::Leader;
        self.elections += u64::from(fired);
        self.rearm();
    }

    /// Starts an election. Fails while a membership change waits to be applied.
    pub(super) fn campaign(&mut self) {
        self.elections += 1;
        let _ = self.call(RawNode::campaign);
    }

    fn rearm(&mut self) {
        let election = self.settings.election_tick as u64;
        let seed = mix(self.seed ^ mix(self.settings.id));
        let timeout = election + mix(seed ^ mix(self.elections)) % election;
        self.raw
            .raft
            .set_randomized_election_timeout(usize::try_from(timeout).expect("a few ticks"));
    }
}

fn raw_node(settings: &raft::Config, log: Log) -> RawNode<Log> {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    RawNode::new(settings, log, &logger).expect("the settings are valid")
}
