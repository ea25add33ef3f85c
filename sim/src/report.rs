//! Report of a run.

use std::fmt;

use crate::checks::Violation;
use crate::coverage::Counts;
use crate::options::Options;

/// Class of a violation, from the mildest to the worst: after a crash a process is restarted; a stall is
/// noticed and loses no data; a safety violation means that wrong data was acknowledged or pinned unnoticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// The core panicked, or the simulator itself (check "harness").
    Crash,
    /// Something that must happen does not.
    Liveness,
    /// Something happened that must not.
    Safety,
}

impl Class {
    /// Returns the exit code of a process that found a violation of this class.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Crash => 127,
            Self::Liveness => 128,
            Self::Safety => 129,
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crash => "crash",
            Self::Liveness => "liveness",
            Self::Safety => "safety",
        })
    }
}

/// Statistics of the run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub struct Stats {
    pub nanos: u64,
    pub boots: u64,
    pub steps: u64,
    pub messages: u64,
    pub snapshots: u64,
    pub ipfs_ops: u64,
    pub client_ops: u64,
    pub client_ok: u64,
    pub elections: u64,
    pub entries: u64,
    pub kills: u64,
    pub cuts: u64,
    pub partitions: u64,
    pub pauses: u64,
    pub membership_changes: u64,
}

impl Stats {
    /// Adds the statistics of another run.
    pub fn add(&mut self, other: &Self) {
        self.nanos += other.nanos;
        self.boots += other.boots;
        self.steps += other.steps;
        self.messages += other.messages;
        self.snapshots += other.snapshots;
        self.ipfs_ops += other.ipfs_ops;
        self.client_ops += other.client_ops;
        self.client_ok += other.client_ok;
        self.elections += other.elections;
        self.entries += other.entries;
        self.kills += other.kills;
        self.cuts += other.cuts;
        self.partitions += other.partitions;
        self.pauses += other.pauses;
        self.membership_changes += other.membership_changes;
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} simulated s, {} steps, {} messages, {} client operations ({} ok), {} entries, \
             {} elections, {} kills, {} power cuts, {} partitions, {} pauses, {} snapshots, \
             {} ipfs operations, {} membership changes",
            self.nanos / 1_000_000_000,
            self.steps,
            self.messages,
            self.client_ops,
            self.client_ok,
            self.entries,
            self.elections,
            self.kills,
            self.cuts,
            self.partitions,
            self.pauses,
            self.snapshots,
            self.ipfs_ops,
            self.membership_changes,
        )
    }
}

/// The result of one run.
#[derive(Debug, Clone)]
pub struct Report {
    /// Options of the run.
    pub options: Options,
    /// File of the scenario, if the run was one.
    pub scenario: Option<String>,
    /// Everything that was found wrong.
    pub violations: Vec<Violation>,
    /// Statistics of the run.
    pub stats: Stats,
    /// Situations that occurred.
    pub coverage: Counts,
    /// Hash of the trace; equal for equal runs.
    pub hash: u64,
    /// The trace, if it was kept.
    pub lines: Vec<String>,
}

impl Report {
    /// Returns the worst class of all violations, if there are any, which may not be the class of the first
    /// one.
    pub fn class(&self) -> Option<Class> {
        self.violations.iter().map(|violation| violation.class).max()
    }

    /// Returns the command that replays this run.
    pub fn command(&self) -> String {
        let seed = self.options.seed;
        if let Some(file) = &self.scenario {
            // What a scenario sets is in its file.
            return format!("{PROGRAM} scenario {} --seed {seed}", quoted(file));
        }
        let sets = self
            .options
            .difference()
            .iter()
            .fold(String::new(), |all, one| format!("{all} --set {one}"));
        format!("{PROGRAM} replay {seed}{sets}")
    }
}

/// Command that starts the simulator from the repository.
const PROGRAM: &str = "cargo run --profile sim -p sim --";

/// Quotes a file's name as one word of a shell.
fn quoted(file: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+".contains(letter);
    if !file.is_empty() && file.chars().all(plain) {
        file.to_owned()
    } else {
        format!("'{}'", file.replace('\'', r"'\''"))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(class) = self.class() else {
            return write!(
                f,
                "seed {}: fine, trace {:016x}, {}",
                self.options.seed, self.hash, self.stats
            );
        };
        writeln!(f, "seed {}: {class}, trace {:016x}", self.options.seed, self.hash)?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        writeln!(f, "  {}", self.stats)?;
        writeln!(f, "  {:?}", self.options)?;
        write!(f, "replay: {}", self.command())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn report(classes: &[Class]) -> Report {
        let violation = |class: &Class| Violation {
            class: *class,
            check: "a check",
            at: 0,
            peer: None,
            text: String::new(),
        };
        Report {
            options: Options::quiet(1),
            scenario: None,
            violations: classes.iter().map(violation).collect(),
            stats: Stats::default(),
            coverage: Counts::default(),
            hash: 0,
            lines: Vec::new(),
        }
    }

    #[test]
    fn class_of_a_report_is_that_of_its_worst_violation() {
        let (crash, liveness, safety) = (Class::Crash, Class::Liveness, Class::Safety);
        assert_eq!(report(&[]).class(), None);
        assert_eq!(report(&[crash]).class(), Some(crash));
        assert_eq!(report(&[crash, liveness]).class(), Some(liveness));
        assert_eq!(report(&[liveness, crash]).class(), Some(liveness));
        assert_eq!(report(&[liveness, safety, crash]).class(), Some(safety));
        assert_eq!(report(&[safety, liveness]).class(), Some(safety));
    }

    #[test]
    fn worse_classes_have_higher_exit_codes() {
        let codes = [Class::Crash, Class::Liveness, Class::Safety].map(Class::exit_code);
        assert_eq!(codes, [127, 128, 129]);
    }

    #[test]
    fn file_names_are_quoted_for_the_shell() {
        assert_eq!(quoted("sim/scenarios/842-a.txt"), "sim/scenarios/842-a.txt");
        assert_eq!(quoted("my scenarios/$1.txt"), "'my scenarios/$1.txt'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
