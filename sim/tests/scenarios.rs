//! The scenarios in `scenarios/`, each with several seeds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sim::Scenario;

/// Seeds for each scenario.
const SEEDS: u64 = 5;

/// Reports of the seeds with which a scenario fails.
fn failures_of(path: &Path) -> Vec<String> {
    let scenario = Scenario::read(path).expect("it can be read");
    let reports = (0..SEEDS).map(|seed| (seed, sim::run_scenario(&scenario, seed, false)));
    reports
        .filter(|(_, report)| report.class().is_some())
        .map(|(seed, report)| format!("{} with seed {seed}: {report}", path.display()))
        .collect()
}

#[test]
fn every_scenario_passes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut scenarios: Vec<_> = std::fs::read_dir(folder)
        .expect("there is such a folder")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    scenarios.sort();
    assert!(scenarios.len() >= 10, "the scenarios are there");
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(path) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let failed = failures_of(path);
                    failures.lock().expect("no panic while locked").extend(failed);
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no panic while locked");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Writes a scenario with a false assertion to a file.
fn lie(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, "wait leader\npin 1 at leader ok\nread 1 at 0 none\n")
        .expect("a file can be written");
    file
}

/// Returns the output and exit code of the simulator.
fn sim(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(arguments)
        .output()
        .expect("the simulator starts");
    (
        String::from_utf8(output.stdout).expect("text"),
        output.status.code(),
    )
}

/// Returns the output of the simulator when a shell starts it.
fn shell(arguments: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("\"$0\" {arguments}"), env!("CARGO_BIN_EXE_sim")])
        .output()
        .expect("there is a shell");
    String::from_utf8(output.stdout).expect("text")
}

/// Returns the part of a report that says how to run it again, without the program.
fn replay(printed: &str) -> &str {
    let (_, command) = printed
        .split_once("replay: cargo run --profile sim -p sim -- ")
        .expect("a failure says how to replay it");
    command.lines().next().expect("one line")
}

#[test]
fn failed_scenario_prints_its_replay_command() {
    let file = lie("a lie.txt");
    let file = file.to_str().expect("a readable path");
    let (printed, code) = sim(&["scenario", file, "--seeds", "1"]);
    assert_eq!(code, Some(129), "{printed}");
    assert_eq!(replay(&printed), format!("scenario '{file}' --seed 0"));

    let (again, code) = sim(&["scenario", file, "--seed", "0"]);
    assert_eq!((again, code), (printed, Some(129)));
}

#[test]
fn replay_command_of_a_report_gives_the_same_trace() {
    let file = lie("another-lie.txt");
    let report = sim::run_scenario(&Scenario::read(&file).expect("it is there"), 3, true);
    let told = report.to_string();
    let command = replay(&told);
    let printed = shell(&format!("{command} --trace"));
    let lines = report.lines.join("\n");
    assert!(printed.starts_with(&lines), "{printed}");
    assert!(printed.contains(&told), "{printed}");

    let beginning = shell(&format!("{command} --trace --until 0.000001"));
    assert!(beginning.len() < printed.len() / 2, "{beginning}");
}

#[test]
fn scenario_with_a_misspelt_word_is_refused() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misspelt.txt");
    std::fs::write(&file, "wait leader\nipfs dwon 1\n").expect("a file can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .arg("scenario")
        .arg(&file)
        .output()
        .expect("the simulator starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("misspelt.txt:2: ") && error.contains("dwon"),
        "{error}"
    );
}
