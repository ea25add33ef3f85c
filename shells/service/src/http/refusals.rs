//! Refusals of requests for their credentials: counted all, logged some, and never with a secret.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics;
use super::server::Service;
use crate::cluster::Error;

/// Most lines of log in a second: enough to see who fails, too few for a stranger to fill the disk.
const LINES_MAX: u64 = 10;

/// Second of the last line, and the number of lines in it: `second * 2^16 + lines`.
static LOGGED: AtomicU64 = AtomicU64::new(0);

/// Counts a refusal under `reason`, and logs `why`, which must contain no secret.
pub(super) fn note(api: &'static str, reason: &'static str, why: &str) {
    metrics::count_refusal(api, reason);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if may_log(&LOGGED, since.as_secs()) {
        tracing::info!(api, reason, "a request was refused: {why}");
    }
}

/// Counts and logs an error that is the refusal of a credential at one of its limits.
pub(super) fn note_limit(service: Service, error: &Error) {
    if let Error::Limit { limit, why } = error {
        note(service.label(), limit, why);
    }
}

fn may_log(logged: &AtomicU64, second: u64) -> bool {
    let next = |last: u64| {
        let lines = if last >> 16 == second { last & 0xffff } else { 0 };
        (lines < LINES_MAX).then_some((second << 16) + lines + 1)
    };
    logged
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_log_are_limited_in_each_second() {
        let logged = AtomicU64::new(0);
        for second in [1_700_000_000, 1_700_000_001, 1_700_000_005] {
            let lines = (0..100).filter(|_| may_log(&logged, second)).count();
            assert_eq!(lines as u64, LINES_MAX);
        }
    }
}
