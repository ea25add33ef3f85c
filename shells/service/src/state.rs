//! Operations on the state on disk: exports and imports in the Go peer's formats, backups, and cleanup.
//! None of it needs the daemon; if one runs, [`running`] uses its REST API.

pub mod backups;
pub mod cleanup;
mod export;
mod import;
mod line;
pub mod running;
mod values;

pub use export::{Exported, export, to_file};
pub use import::{Imported, import};
pub use line::ImportOptions;

use std::time::{Duration, Instant};

/// Interval of progress lines of a long operation.
const SAY_INTERVAL: Duration = Duration::from_secs(2);

/// Counts pins, and logs the count at intervals.
struct Progress {
    doing: &'static str,
    total: Option<u64>,
    count: u64,
    said: Instant,
}

impl Progress {
    /// `doing` is a participle: "exported".
    fn new(doing: &'static str, total: Option<u64>) -> Self {
        Self {
            doing,
            total,
            count: 0,
            said: Instant::now(),
        }
    }

    fn one_more(&mut self) {
        self.count += 1;
        // The clock is not read for each pin.
        if self.count.is_multiple_of(256) && self.said.elapsed() >= SAY_INTERVAL {
            self.said = Instant::now();
            match self.total {
                Some(total) => tracing::info!("{} {} of {total} pins", self.doing, self.count),
                None => tracing::info!("{} {} pins", self.doing, self.count),
            }
        }
    }
}
