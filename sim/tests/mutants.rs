//! Planted bugs of the core are caught by the seeds that sim/mutants.md lists.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim::{Mutant, bugs, mutant};

/// Number of seeds among which one must catch a bug.
const SEEDS: u64 = 500;

/// Seeds that catch these bugs twenty times sooner than seed 0, where 24 peers wait for ten simulated
/// minutes.
const SOONER: [(&str, u64); 4] = [
    ("JoiningKept", 16),
    ("LeaversStay", 19),
    ("LeavingKept", 19),
    ("VotersUnlimited", 9),
];

/// Returns the text of `sim/mutants.md`.
fn text() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants.md");
    std::fs::read_to_string(path).expect("sim/mutants.md is readable")
}

/// Returns a seed that catches each bug, by the table in sim/mutants.md and [`SOONER`].
fn known_seeds() -> BTreeMap<String, u64> {
    let table = text();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (name, seeds) = (cells.next()?.to_owned(), cells.next()?.parse::<u64>().ok()?);
        Some((name, seeds.checked_sub(1)?))
    });
    let sooner = SOONER.map(|(name, seed)| (name.to_owned(), seed));
    rows.chain(sooner).collect()
}

/// Returns the bugs that no seed has caught, by the same table.
fn uncaught() -> Vec<String> {
    let table = text();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.to_owned();
        (cells.next()? == "none").then_some(name)
    });
    rows.collect()
}

/// Runs the known seed, and the first [`SEEDS`] if that no longer catches the bug because the core has
/// changed.
fn hunt(number: u64, known: Option<u64>) -> Mutant {
    let quick = known.map(|seed| mutant(number, seed, 1, 1));
    quick
        .filter(|mutant| mutant.caught.is_some())
        .unwrap_or_else(|| mutant(number, 0, SEEDS, 1))
}

#[test]
fn planted_bugs_are_caught() {
    let (known, uncaught) = (known_seeds(), uncaught());
    let names = bugs();
    let is_caught = |number: &u64| {
        let name = &names[usize::try_from(number - 1).expect("a few")];
        !uncaught.contains(name)
    };
    let numbers: Vec<u64> = (1..=names.len() as u64).filter(is_caught).collect();
    let next = AtomicUsize::new(0);
    let missed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let name = &names[usize::try_from(number - 1).expect("a few")];
                    if hunt(*number, known.get(name).copied()).caught.is_none() {
                        missed.lock().expect("no panic while locked").push(name.clone());
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().expect("no panic while locked");
    assert!(missed.is_empty(), "nothing catches {missed:?}");
    assert!(numbers.len() >= 54);
}

#[test]
fn table_names_every_planted_bug() {
    let table = text();
    let missing: Vec<String> = bugs()
        .into_iter()
        .filter(|name| !table.contains(&format!("| {name} | ")))
        .collect();
    assert!(
        missing.is_empty(),
        "`sim mutants` prints the table, sim/mutants.md lacks {missing:?}"
    );
}

/// The canary: a run that must fail, through the same command and exit code as a real find.
#[test]
fn canary_fails_with_the_exit_code_of_its_class() {
    let number = bugs()
        .iter()
        .position(|name| name == "AckBeforeFsync")
        .expect("there is one")
        + 1;
    let status = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["soak", "20", "--fail-fast", "--set", &format!("planted={number}")])
        .output()
        .expect("the simulator starts")
        .status;
    assert_eq!(status.code(), Some(129));
}
