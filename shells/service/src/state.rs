//! The state on disk as an operator handles it: exports and imports in the Go peer's formats, backups, and
//! starting from nothing. None of it needs the daemon; where one runs, [`running`] goes through its API.

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

/// How often something that takes long says how far it is.
const SAY_INTERVAL: Duration = Duration::from_secs(2);

/// Counts pins, and says so now and then.
struct Progress {
    doing: &'static str,
    total: Option<u64>,
    count: u64,
    said: Instant,
}

impl Progress {
    /// `doing` is what becomes of them: "exported".
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
        // The clock is not asked for each.
        if self.count.is_multiple_of(256) && self.said.elapsed() >= SAY_INTERVAL {
            self.said = Instant::now();
            match self.total {
                Some(total) => tracing::info!("{} {} of {total} pins", self.doing, self.count),
                None => tracing::info!("{} {} pins", self.doing, self.count),
            }
        }
    }
}
