//! Minimisation of a failure: makes options milder one by one while the run still fails in the same check.

use crate::options::Options;
use crate::report::Report;
use crate::run::run;

/// Options that are made milder, and the value that is mildest.
const MILDEST: [(&str, u64); 66] = [
    ("late", 0),
    ("foreign_every", 0),
    ("found_again", 0),
    ("step_slow", 0),
    ("bulk", 0),
    ("op_update", 0),
    ("op_readd", 0),
    ("aim", 0),
    ("upgrade_every", 0),
    ("old_stay", 0),
    ("old", 0),
    ("kill_every", 0),
    ("cut_every", 0),
    ("cut_all_every", 0),
    ("leader_kill_every", 0),
    ("pause_every", 0),
    ("partition_every", 0),
    ("swizzle_every", 0),
    ("disk_fail_every", 0),
    ("disk_full_every", 0),
    ("disk_rot_every", 0),
    ("sync_slow", 0),
    ("clock_step_every", 0),
    ("drift_ppm", 0),
    ("loss", 0),
    ("duplicate", 0),
    ("reorder", 0),
    ("unreachable", 0),
    ("ipfs_hang", 0),
    ("ipfs_fail", 0),
    ("ipfs_late", 0),
    ("ipfs_restart_every", 0),
    ("ipfs_full_every", 0),
    ("ipfs_forget_every", 0),
    ("ipfs_room_gib", 0),
    ("unavailable", 0),
    ("snapshot_lost", 0),
    ("snapshot_duplicate", 0),
    ("leave_broken", 0),
    ("op_unpin", 0),
    ("op_local", 0),
    ("op_recover", 0),
    ("op_repeat", 0),
    ("op_expire", 0),
    ("op_replicas", 0),
    ("trailing_logs", 10_000),
    ("latency_spread_ms", 1),
    ("latency_min_ms", 1),
    ("op_members", 0),
    ("op_credentials", 0),
    ("op_owner", 0),
    ("op_drain", 0),
    ("op_rebalance", 0),
    ("op_scrub", 0),
    ("ipfs_rot_every", 0),
    ("scrub_ms", 0),
    ("disk_lost_every", 0),
    ("rescue_every", 0),
    ("entry_kib", 256),
    ("replace_after_ms", 600_000),
    ("joiners", 0),
    ("learners", 0),
    ("peers", 1),
    ("clients", 1),
    ("cids", 1),
    ("seconds", 5),
];

/// Maximum number of runs.
const RUNS_MAX: u32 = 300;

/// Returns the mildest options found that fail as `report` did, in the same check.
pub fn shrink(report: &Report) -> Report {
    let mut best = report.clone();
    let mut runs = 0;
    loop {
        let before = best.options.clone();
        for (name, mildest) in MILDEST {
            for candidate in milder(&best.options, name, mildest) {
                runs += 1;
                let tried = run(&candidate, false);
                if same_failure(&tried, report) {
                    best = tried;
                    break;
                }
                if runs >= RUNS_MAX {
                    return best;
                }
            }
        }
        if best.options == before {
            return best;
        }
    }
}

fn same_failure(tried: &Report, report: &Report) -> bool {
    let check = |report: &Report| report.violations.first().map(|violation| violation.check);
    check(tried).is_some() && check(tried) == check(report)
}

/// Returns the mildest value, and one half way there.
fn milder(options: &Options, name: &str, mildest: u64) -> Vec<Options> {
    let current = options
        .list()
        .into_iter()
        .find(|(known, _)| known == name)
        .map_or(0, |(_, value)| value);
    let half = current.abs_diff(mildest) / 2 + current.min(mildest);
    let mut values = vec![mildest, half];
    values.dedup();
    values.retain(|value| *value != current);
    let set = |value: &u64| {
        let mut candidate = options.clone();
        candidate
            .set_number(name, *value)
            .expect("there is such an option");
        candidate
    };
    values.iter().map(set).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Options of which no value is milder than another: how the peers are configured, and how long what is
    /// no fault takes.
    const AS_DRAWN: [&str; 38] = [
        "streams",
        "outbox_messages",
        "outbox_kib",
        "rate_kib",
        "frame_kib",
        "gathers",
        "snapshot_chunk",
        "pin_bytes",
        "log_kib",
        "shrink",
        "groups",
        "seed",
        "planted",
        "sync_min_us",
        "sync_spread_us",
        "restart_spread_ms",
        "ipfs_slow_ms",
        "think_ms",
        "patience_ms",
        "op_read",
        "to_leader",
        "tick_ms",
        "election_ticks",
        "retry_ms",
        "deadline_ms",
        "open_max",
        "concurrent_pins",
        "pin_timeout_ms",
        "retry_min_ms",
        "retry_max_ms",
        "compare_ms",
        "metrics_ms",
        "grace_ms",
        "failover",
        "scrub_share",
        "voters_max",
        "replicas_max",
        "replicas_min",
    ];

    #[test]
    fn options_are_made_milder_or_listed_as_fixed() {
        let all: BTreeSet<String> = Options::quiet(1)
            .list()
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        let milder = MILDEST.iter().map(|(name, _)| (*name).to_owned());
        let as_drawn = AS_DRAWN.iter().map(|name| (*name).to_owned());
        let listed: Vec<String> = milder.chain(as_drawn).collect();
        let known: BTreeSet<String> = listed.iter().cloned().collect();
        assert_eq!(known.len(), listed.len(), "one is listed twice");
        assert_eq!(known, all);
    }

    #[test]
    fn mildest_values_are_in_range() {
        for (name, mildest) in MILDEST {
            let range = Options::range(name).expect("there is such an option");
            assert!(range.contains(&mildest), "{name}={mildest}");
        }
    }
}
