//! Mistakes that are switched on in the core are found, and the tool that runs them says so.

use std::process::Command;

use sim::{Mutant, bugs, mutants};

/// Seeds that a mistake may take.
const SEEDS: u64 = 500;

#[test]
fn every_planted_mistake_is_caught() {
    let all = mutants(0, SEEDS, 2);
    println!("| mistake | seeds until caught | caught by |\n| --- | --- | --- |");
    all.iter().map(Mutant::row).for_each(|row| println!("{row}"));
    let missed: Vec<&str> = all
        .iter()
        .filter(|mutant| mutant.caught.is_none())
        .map(|mutant| mutant.name.as_str())
        .collect();
    assert!(missed.is_empty(), "nothing catches {missed:?}");
    assert!(all.len() >= 15);
}

#[test]
fn the_readme_names_every_planted_mistake() {
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(readme).expect("there is one");
    let missing: Vec<String> = bugs()
        .into_iter()
        .filter(|name| !readme.contains(&format!("| {name} | ")))
        .collect();
    assert!(
        missing.is_empty(),
        "`sim mutants` prints the table, README.md lacks {missing:?}"
    );
}

/// The canary: a run that must fail, through the same command and exit code as a real find.
#[test]
fn the_canary_fails_with_the_exit_code_of_its_class() {
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
