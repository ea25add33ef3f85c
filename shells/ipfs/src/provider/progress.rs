//! Times at which the regions of the keyspace were last announced, saved in the file `provided`.

use super::region::REGIONS;
use crate::Error;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the file.
const FILE: &str = "provided";

/// Times of the regions.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    path: PathBuf,
    /// Seconds since 1970 of the last announcement; zero for none.
    last: Vec<u64>,
    /// Seconds since 1970 before which a region is not tried.
    not_before: Vec<u64>,
}

/// Content of the file.
#[derive(Serialize, Deserialize)]
struct Saved {
    version: u8,
    last: Vec<u64>,
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Default for Progress {
    fn default() -> Progress {
        Progress {
            path: PathBuf::new(),
            last: vec![0; REGIONS],
            not_before: vec![0; REGIONS],
        }
    }
}

impl Progress {
    /// Reads the saved times. Without them everything is announced.
    pub(super) fn load(folder: &Path) -> Progress {
        let path = folder.join(FILE);
        let mut progress = Progress {
            path: path.clone(),
            ..Progress::default()
        };
        match std::fs::read(&path) {
            Ok(bytes) => match postcard::from_bytes::<Saved>(&bytes) {
                Ok(saved) if saved.version == 1 && saved.last.len() == REGIONS => progress.last = saved.last,
                Ok(_) | Err(_) => {
                    let path = path.display();
                    tracing::warn!(%path, "the saved progress of announcing is invalid: all is announced");
                }
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the progress of announcing cannot be read");
            }
        }
        progress
    }

    /// Writes the times.
    pub(super) fn save(&self) -> Result<(), Error> {
        let saved = Saved {
            version: 1,
            last: self.last.clone(),
        };
        let bytes = postcard::to_stdvec(&saved).map_err(|error| Error::Damaged(error.to_string()))?;
        let partial = self.path.with_extension("partial");
        std::fs::write(&partial, bytes)
            .and_then(|()| std::fs::rename(&partial, &self.path))
            .map_err(|error| Error::io(format!("writing {}", self.path.display()), error))
    }

    /// Returns the region to announce now: the one that waits longest.
    pub(super) fn due(&self, now: SystemTime, interval: Duration) -> Option<u8> {
        let now = seconds(now);
        let is_due = |region: &usize| {
            self.last[*region].saturating_add(interval.as_secs()) <= now && self.not_before[*region] <= now
        };
        let due = (0..REGIONS)
            .filter(is_due)
            .min_by_key(|region| self.last[*region]);
        due.and_then(|region| u8::try_from(region).ok())
    }

    pub(super) fn done(&mut self, region: u8, now: SystemTime) {
        self.last[usize::from(region)] = seconds(now);
        self.not_before[usize::from(region)] = 0;
    }

    pub(super) fn postpone(&mut self, region: u8, until: SystemTime) {
        self.not_before[usize::from(region)] = seconds(until);
    }

    /// Makes a region due at once.
    pub(super) fn make_due(&mut self, region: u8) {
        self.last[usize::from(region)] = 0;
    }

    /// Makes all regions due.
    pub(super) fn make_all_due(&mut self) {
        self.last.fill(0);
        self.not_before.fill(0);
    }

    /// Returns the time of the announcement of the region that waits longest, of those that were announced.
    pub(super) fn oldest(&self) -> Option<SystemTime> {
        let oldest = self.last.iter().filter(|last| **last > 0).min();
        oldest.map(|oldest| UNIX_EPOCH + Duration::from_secs(*oldest))
    }

    /// Returns the region that is announced next, and the time when it is due.
    pub(super) fn next(&self, now: SystemTime, interval: Duration) -> Option<(u8, SystemTime)> {
        let due = |region: usize| {
            let last = self.last[region].saturating_add(interval.as_secs());
            last.max(self.not_before[region]).max(seconds(now))
        };
        let next = (0..REGIONS).min_by_key(|region| (due(*region), self.last[*region]))?;
        let time = UNIX_EPOCH + Duration::from_secs(due(next));
        u8::try_from(next).ok().map(|region| (region, time))
    }

    pub(super) fn last(&self, region: u8) -> Option<SystemTime> {
        let last = self.last[usize::from(region)];
        (last > 0).then(|| UNIX_EPOCH + Duration::from_secs(last))
    }

    /// Returns the number of regions announced within the interval.
    pub(super) fn current(&self, now: SystemTime, interval: Duration) -> usize {
        let since = seconds(now).saturating_sub(interval.as_secs());
        self.last.iter().filter(|last| **last > since).count()
    }

    /// Returns the time by which the region that waits longest is overdue; zero before the first pass is
    /// over.
    pub(super) fn lag(&self, now: SystemTime, interval: Duration) -> Duration {
        let oldest = self.last.iter().filter(|last| **last > 0).min();
        let due = oldest.map(|oldest| oldest.saturating_add(interval.as_secs()));
        Duration::from_secs(due.map_or(0, |due| seconds(now).saturating_sub(due)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_repeats_no_region_and_leaves_none_out() {
        let folder = tempfile::tempdir().unwrap();
        let interval = Duration::from_secs(3600);
        let start = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let mut progress = Progress::load(folder.path());
        let mut announced = Vec::new();
        for step in 0..REGIONS as u64 {
            let now = start + Duration::from_secs(step);
            let region = progress.due(now, interval).unwrap();
            announced.push(region);
            progress.done(region, now);
            progress.save().unwrap();
            if step % 50 == 0 {
                progress = Progress::load(folder.path());
            }
        }
        announced.sort_unstable();
        announced.dedup();
        assert_eq!(announced.len(), REGIONS);
        let end = start + Duration::from_secs(300);
        assert_eq!(progress.due(end, interval), None);
        assert_eq!(
            (progress.current(end, interval), progress.lag(end, interval)),
            (REGIONS, Duration::ZERO)
        );
        let late = start + interval + Duration::from_secs(10);
        assert_eq!(
            progress.due(late, interval),
            Some(announced[0]),
            "the oldest first"
        );
        assert_eq!(progress.lag(late, interval), Duration::from_secs(10));
        progress.postpone(announced[0], late + Duration::from_secs(1));
        assert_ne!(progress.due(late, interval), Some(announced[0]));
        progress.make_due(9);
        assert_eq!(progress.due(late, interval), Some(9));
        assert_eq!(progress.next(late, interval), Some((9, late)));
        progress.make_all_due();
        assert_eq!((progress.current(late, interval), progress.oldest()), (0, None));
        std::fs::write(folder.path().join(FILE), b"x").unwrap();
        assert_eq!(Progress::load(folder.path()).current(late, interval), 0);
    }
}
