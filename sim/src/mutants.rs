//! Proof that the simulator finds bugs: runs each planted bug until a seed catches it.

use crate::options::Options;
use crate::planting::bugs;
use crate::report::Report;
use crate::soak::soak;

/// Result of the search for seeds that catch a planted bug.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// Its name.
    pub name: String,
    /// Number of seeds that were run.
    pub seeds: u64,
    /// The first run that failed.
    pub caught: Option<Report>,
}

impl Mutant {
    /// Returns the bug's row of the table in `sim/mutants.md`.
    pub fn row(&self) -> String {
        let (name, seeds) = (&self.name, self.seeds);
        match self.caught.as_ref().and_then(|report| report.violations.first()) {
            Some(found) => format!("| {name} | {seeds} | {} ({}) |", found.check, found.class),
            None => format!("| {name} | not in {seeds} | |"),
        }
    }
}

/// Runs the planted bug with this number, from 1, on up to `most` seeds from `first` on, until one catches
/// it.
pub fn mutant(number: u64, first: u64, most: u64, threads: usize) -> Mutant {
    let draw = |seed| Options {
        planted: number,
        ..Options::draw(seed)
    };
    let sum = soak(first, most, threads, draw, |report| report.class().is_none());
    // Whatever came before the first seed that failed has been run to its end.
    let caught = sum.failures.into_values().next();
    let last = caught.as_ref().map(|report| report.options.seed);
    let position = number
        .checked_sub(1)
        .and_then(|position| usize::try_from(position).ok());
    let name = position.and_then(|position| bugs().get(position).cloned());
    Mutant {
        name: name.unwrap_or_default(),
        seeds: last.map_or(sum.seeds, |last| last - first + 1),
        caught,
    }
}
