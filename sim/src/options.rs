//! Options of one run. Every seed draws its own subset of faults and operations, and its own rates, sizes
//! and timings: a run with few kinds of fault at high rates finds what a run with all of them hides.

mod draw;
mod profile;
mod ranges;

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The options of one run. All are numbers, so that any of them can be set from the command line and made
/// milder by the shrinker. Rates are in thousandths. `_every` is a mean time in seconds, 0 for never.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it, the comments say the rest")]
pub struct Options {
    pub seed: u64,
    /// Peers of the static membership, all with a vote.
    pub peers: u64,
    /// Founders without a vote.
    pub learners: u64,
    /// Further peers that wait to be added.
    pub joiners: u64,
    pub clients: u64,
    /// Different CIDs that the clients pin.
    pub cids: u64,
    /// The length of the phase with faults.
    pub seconds: u64,

    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub latency_min_ms: u64,
    pub latency_spread_ms: u64,
    /// Rate at which a lost message is reported to its sender.
    pub unreachable: u64,
    /// Rate of messages that take up to 40 seconds.
    pub late: u64,
    /// 1 if messages go through the daemon's outbox: in order, once, and lost in runs.
    pub streams: u64,
    /// Maximum number of messages that wait before a stream.
    pub outbox_messages: u64,
    /// Maximum size of these messages, in KiB.
    pub outbox_kib: u64,
    /// KiB that a stream carries in a millisecond; 0 for any number.
    pub rate_kib: u64,
    /// Maximum size of a message, in KiB; at least what entries of `entry_kib` need.
    pub frame_kib: u64,
    /// Maximum size of a log entry, and of the entries in one message, in KiB.
    pub entry_kib: u64,
    /// Messages of another cluster's peers, under identities that are known here.
    pub foreign_every: u64,
    pub partition_every: u64,
    pub swizzle_every: u64,

    pub sync_min_us: u64,
    pub sync_spread_us: u64,
    pub sync_slow: u64,
    pub disk_fail_every: u64,
    pub disk_lost_every: u64,
    /// Rate at which a founder that lost its disk is set up as when the cluster was founded.
    pub found_again: u64,
    /// Rescues: all members but one are lost, and it founds a new cluster on its data.
    pub rescue_every: u64,
    pub disk_full_every: u64,
    /// Bit rot, which is found when the database is opened.
    pub disk_rot_every: u64,

    pub kill_every: u64,
    pub cut_every: u64,
    pub cut_all_every: u64,
    pub leader_kill_every: u64,
    pub pause_every: u64,
    /// Rate of steps that take hundreds of milliseconds.
    pub step_slow: u64,
    /// 1 if the loop handles all waiting events at once, as the daemon's does.
    pub gathers: u64,
    /// Rate at which an interesting moment is followed by a kill or a power cut.
    pub aim: u64,
    pub restart_spread_ms: u64,
    /// Rate at which a peer outside the core stays broken in the second phase.
    pub leave_broken: u64,

    pub drift_ppm: u64,
    pub clock_step_every: u64,

    pub ipfs_slow_ms: u64,
    pub ipfs_hang: u64,
    pub ipfs_fail: u64,
    /// Rate at which an operation takes effect although it was cancelled or its peer died.
    pub ipfs_late: u64,
    pub ipfs_restart_every: u64,
    pub ipfs_full_every: u64,
    pub ipfs_forget_every: u64,
    /// Maximum size of the smallest repository of an IPFS daemon, in GiB; content has 1 to 8 GiB then. 0 for
    /// room for everything.
    pub ipfs_room_gib: u64,
    /// Damaged blocks in an IPFS daemon, which only a scrub finds.
    pub ipfs_rot_every: u64,
    /// Interval of scrubs; 0 for none.
    pub scrub_ms: u64,
    /// Share of the time for scrubs.
    pub scrub_share: u64,
    /// Number of CIDs whose content no IPFS node has.
    pub unavailable: u64,

    /// Rate of peers that begin with the older of two releases; 0 for one release.
    pub old: u64,
    /// One peer after the other is restarted with the new release.
    pub upgrade_every: u64,
    /// 1 if peers of the older release that are left by the second phase stay.
    pub old_stay: u64,

    /// Pins in one chunk of a snapshot.
    pub snapshot_chunk: u64,
    pub snapshot_lost: u64,
    pub snapshot_duplicate: u64,

    /// Pins that one client asks for in the beginning, many at once.
    pub bulk: u64,
    pub think_ms: u64,
    pub patience_ms: u64,
    /// Number of these in 1000 operations of clients; the others are pins.
    pub op_unpin: u64,
    pub op_read: u64,
    pub op_local: u64,
    pub op_recover: u64,
    pub op_repeat: u64,
    pub op_expire: u64,
    /// Rate of pins that replace another one.
    pub op_update: u64,
    pub op_members: u64,
    /// Rate of changes of the credentials.
    pub op_credentials: u64,
    /// Rate of pins and unpins that act as an owner.
    pub op_owner: u64,
    /// Rate of drains, and of their ends.
    pub op_drain: u64,
    /// Rate of changes of the rebalancing; if it is 0, peers do not measure what it needs.
    pub op_rebalance: u64,
    /// Rate of changes of the scrubs.
    pub op_scrub: u64,
    /// 1 if removed peers are added again.
    pub op_readd: u64,
    /// Rate of pins with their own number of copies.
    pub op_replicas: u64,
    /// Maximum size of a pin's name and metadata, in bytes.
    pub pin_bytes: u64,
    /// Rate at which clients go to the leader.
    pub to_leader: u64,

    pub tick_ms: u64,
    pub election_ticks: u64,
    pub trailing_logs: u64,
    /// Maximum size of the log, in KiB.
    pub log_kib: u64,
    /// Divisor of windows, chunks and queue heads in memory.
    pub shrink: u64,
    pub retry_ms: u64,
    pub deadline_ms: u64,
    pub open_max: u64,
    pub concurrent_pins: u64,
    pub pin_timeout_ms: u64,
    pub retry_min_ms: u64,
    pub retry_max_ms: u64,
    pub compare_ms: u64,
    pub metrics_ms: u64,
    pub grace_ms: u64,
    pub failover: u64,
    /// Maximum number of voters.
    pub voters_max: u64,
    /// Silence after which a voter loses its vote, in milliseconds.
    pub replace_after_ms: u64,
    /// Groups of peers, each with a tag of its own, among which copies are spread.
    pub groups: u64,
    /// Default maximum number of copies; 0 for one on every peer.
    pub replicas_max: u64,
    pub replicas_min: u64,

    /// Planted bug that is switched on in the core: its position in the list, from 1; 0 for none.
    pub planted: u64,
}

/// Longer than any run.
pub(crate) const REPLACE_NEVER_MS: u64 = 600_000;

impl Options {
    /// Returns whether IPFS daemons lose pins by themselves.
    pub(crate) fn loses_pins(&self) -> bool {
        self.ipfs_forget_every > 0 || self.ipfs_rot_every > 0
    }

    /// Sets one option, `name=number`.
    ///
    /// # Errors
    ///
    /// There is no such option, or the number is outside its range. Nothing is changed then.
    pub fn set(&mut self, assignment: &str) -> Result<(), String> {
        let (name, text) = assignment
            .split_once('=')
            .ok_or_else(|| format!("{assignment:?} is not name=number"))?;
        let number: u64 = text
            .parse()
            .map_err(|error| format!("{name}: {text:?}: {error}"))?;
        self.set_number(name, number)
    }

    /// Sets one option.
    ///
    /// # Errors
    ///
    /// As for [`Self::set`].
    pub fn set_number(&mut self, name: &str, number: u64) -> Result<(), String> {
        let mut all = self.map();
        let Some(range) = Self::range(name) else {
            let known: Vec<&String> = all.keys().collect();
            return Err(format!("there is no option {name:?}, there are {known:?}"));
        };
        if !range.contains(&number) {
            let (first, last) = range.into_inner();
            return Err(format!(
                "{name}={number}: it takes a number from {first} to {last}"
            ));
        }
        all.insert(name.to_owned(), Value::from(number));
        *self = serde_json::from_value(Value::Object(all)).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Returns the range of an option, if there is such an option.
    pub fn range(name: &str) -> Option<RangeInclusive<u64>> {
        ranges::of(name)
    }

    /// Returns the name and value of every option.
    pub fn list(&self) -> Vec<(String, u64)> {
        let all = self.map().into_iter();
        all.map(|(name, value)| (name, value.as_u64().unwrap_or_default()))
            .collect()
    }

    /// Returns the assignments by which these options differ from what their seed draws.
    pub fn difference(&self) -> Vec<String> {
        let drawn = Self::draw(self.seed).map();
        let all = self.map().into_iter();
        let changed = all.filter(|(name, value)| drawn.get(name) != Some(value));
        changed.map(|(name, value)| format!("{name}={value}")).collect()
    }

    fn map(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => map,
            other => unreachable!("a struct is an object: {other:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_by_name_and_unknown_ones_refused() {
        let mut options = Options::draw(7);
        options.set("loss=999").expect("there is one");
        assert_eq!(options.loss, 999);
        assert!(options.difference().contains(&"loss=999".to_owned()));
        assert!(options.set("lose=1").expect_err("there is none").contains("lose"));
        assert!(options.set("loss=many").is_err());
    }
}
