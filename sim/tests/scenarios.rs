//! The stories in `scenarios/`, each with several seeds.

use std::path::Path;

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
        let story = std::fs::read_to_string(&path).expect("it can be read");
        for seed in 0..SEEDS {
            let report = sim::tell(&story, seed);
            if report.class().is_some() {
                failures.push(format!("{} with seed {seed}: {report}", path.display()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_story_that_is_not_true_fails() {
    let report = sim::tell("wait leader\npin 1 at leader ok\nread 1 at 0 none", 1);
    assert!(report.class().is_some());
}
