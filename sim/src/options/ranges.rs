//! Range of each option. Values outside would describe an impossible world, such as one without peers, or a
//! run that does not end, such as clients without pauses.

use std::ops::RangeInclusive;

use crate::planting::bugs;

/// Maximum timing, in milliseconds: nothing that is waited for takes longer than the longest run.
const MILLIS_MAX: u64 = SECONDS_MAX * 1000;

/// Maximum length of a run, and maximum mean time between two faults, in seconds.
const SECONDS_MAX: u64 = 3600;

/// Maximum number of peers of each kind, and of all that a seed draws. A run with more costs minutes, and
/// their numbers must fit into a byte.
pub(super) const PEERS_MAX: u64 = 30;

/// Returns the values that the option `name` may have, if there is such an option.
pub(super) fn of(name: &str) -> Option<RangeInclusive<u64>> {
    Some(match name {
        "seed" => 0..=u64::MAX,
        "peers" | "voters_max" => 1..=PEERS_MAX,
        "learners" | "joiners" | "replicas_max" | "replicas_min" => 0..=PEERS_MAX,
        "clients" => 0..=100,
        // Their numbers are two bytes, of which the tests' own pins take the upper end.
        "cids" => 1..=10_000,
        // Looked up one by one.
        "unavailable" => 0..=100,
        "seconds" => 1..=SECONDS_MAX,
        // Thousandths.
        "loss" | "duplicate" | "reorder" | "unreachable" | "sync_slow" | "aim" | "leave_broken"
        | "ipfs_hang" | "ipfs_fail" | "ipfs_late" | "old" | "snapshot_lost" | "snapshot_duplicate"
        | "op_unpin" | "op_read" | "op_local" | "op_recover" | "op_repeat" | "op_expire" | "op_members"
        | "op_credentials" | "op_drain" | "op_rebalance" | "op_scrub" | "op_owner" | "op_replicas"
        | "to_leader" | "late" | "found_again" | "step_slow" | "op_update" => 0..=1000,
        "partition_every" | "swizzle_every" | "disk_fail_every" | "disk_lost_every" | "disk_full_every"
        | "disk_rot_every" | "kill_every" | "cut_every" | "cut_all_every" | "leader_kill_every"
        | "pause_every" | "clock_step_every" | "ipfs_restart_every" | "ipfs_full_every"
        | "ipfs_forget_every" | "ipfs_rot_every" | "rescue_every" | "upgrade_every" | "foreign_every" => {
            0..=SECONDS_MAX
        }
        "latency_min_ms" | "latency_spread_ms" => 0..=10_000,
        "ipfs_room_gib" => 0..=1 << 10,
        // A smaller share takes longer than a run.
        "scrub_share" => 50..=1000,
        "scrub_ms" => 0..=60_000,
        "sync_min_us" | "sync_spread_us" => 0..=10_000_000,
        // A tenth: real clocks are better, and the checks allow for no more.
        "drift_ppm" => 0..=100_000,
        "old_stay" | "failover" | "streams" | "gathers" | "op_readd" => 0..=1,
        // At most the daemon's own limits.
        "outbox_messages" => 1..=1024,
        "outbox_kib" | "frame_kib" => 1..=8192,
        // A pin of at most 64 KiB, with its envelope.
        "entry_kib" => 2..=256,
        "rate_kib" => 0..=1_000_000,
        "pin_bytes" => 0..=1_000_000,
        "bulk" => 0..=10_000,
        "log_kib" => 1..=1_000_000,
        "shrink" => 1..=512,
        "snapshot_chunk" => 1..=10_000,
        "groups" => 1..=PEERS_MAX,
        "restart_spread_ms" | "ipfs_slow_ms" | "grace_ms" => 0..=MILLIS_MAX,
        // With zero, no time would pass between these timers.
        "think_ms" | "patience_ms" | "retry_ms" | "deadline_ms" | "pin_timeout_ms" | "retry_min_ms"
        | "retry_max_ms" | "replace_after_ms" => 1..=MILLIS_MAX,
        "compare_ms" | "metrics_ms" => 10..=MILLIS_MAX,
        "tick_ms" => 1..=10_000,
        // Longer than the two ticks between heartbeats.
        "election_ticks" => 3..=100,
        "trailing_logs" => 0..=1_000_000,
        "open_max" => 1..=1_000_000,
        "concurrent_pins" => 1..=1000,
        "planted" => 0..=bugs().len() as u64,
        _ => return None,
    })
}
