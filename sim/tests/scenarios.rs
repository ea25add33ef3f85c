//! The stories in `scenarios/`, each with several seeds.

use std::path::{Path, PathBuf};
use std::process::Command;

use sim::Story;

/// Seeds for each story.
const SEEDS: u64 = 5;

#[test]
fn every_story_ends_well() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut stories: Vec<_> = std::fs::read_dir(folder)
        .expect("there is such a folder")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    stories.sort();
    assert!(stories.len() >= 10, "the stories are there");
    let mut failures = Vec::new();
    for path in stories {
        let story = Story::read(&path).expect("it can be read");
        for seed in 0..SEEDS {
            let report = sim::tell(&story, seed, false);
            if report.class().is_some() {
                failures.push(format!("{} with seed {seed}: {report}", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// A story that is not true, in a file of its own.
fn lie(name: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, "wait leader\npin 1 at leader ok\nread 1 at 0 none\n")
        .expect("a file can be written");
    file
}

/// What the simulator prints, and its exit code.
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

/// What the simulator prints when a shell starts it.
fn shell(arguments: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("\"$0\" {arguments}"), env!("CARGO_BIN_EXE_sim")])
        .output()
        .expect("there is a shell");
    String::from_utf8(output.stdout).expect("text")
}

/// The part of a report that says how to run it again, without the program.
fn replay(printed: &str) -> &str {
    let (_, command) = printed
        .split_once("replay: cargo run --release -p sim -- ")
        .expect("a failure says how to replay it");
    command.lines().next().expect("one line")
}

#[test]
fn a_story_that_is_not_true_fails_and_says_how_to_tell_it_again() {
    let file = lie("a lie.txt");
    let file = file.to_str().expect("a readable path");
    let (printed, code) = sim(&["story", file, "--seeds", "1"]);
    assert_eq!(code, Some(129), "{printed}");
    assert_eq!(replay(&printed), format!("story '{file}' --seed 0"));

    let (again, code) = sim(&["story", file, "--seed", "0"]);
    assert_eq!((again, code), (printed, Some(129)));
}

#[test]
fn what_a_report_says_to_replay_gives_the_same_trace() {
    let file = lie("another-lie.txt");
    let report = sim::tell(&Story::read(&file).expect("it is there"), 3, true);
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
fn a_story_with_a_misspelt_word_is_refused_before_it_begins() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("misspelt.txt");
    std::fs::write(&file, "wait leader\nipfs dwon 1\n").expect("a file can be written");
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .arg("story")
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
