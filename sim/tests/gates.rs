//! The same seed gives the same run: twice in one process, alone and in a batch, and in another process, step
//! by step.

use std::process::Command;

use sim::{Options, Report, run, soak};

const SEEDS: std::ops::Range<u64> = 0..8;

/// Returns the trace that another process prints.
fn elsewhere(seed: u64) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["replay", &seed.to_string(), "--trace", "--set", "seconds=10"])
        .output()
        .expect("the simulator starts");
    String::from_utf8(output.stdout)
        .expect("text")
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Returns the output of a process that runs the same seed: its trace and its report.
fn printed(report: &Report) -> Vec<String> {
    let trace = report.lines.iter().flat_map(|line| line.lines());
    let told = report.to_string();
    trace.chain(told.lines()).map(str::to_owned).collect()
}

fn options(seed: u64) -> Options {
    Options {
        seconds: 10,
        ..Options::draw(seed)
    }
}

#[test]
fn seed_runs_the_same_alone_in_a_batch_and_with_threads() {
    let batch = soak(SEEDS.start, SEEDS.end, 1, options, |_| true);
    let threads = soak(SEEDS.start, SEEDS.end, 3, options, |_| true);
    assert_eq!(batch.hashes, threads.hashes);
    for seed in SEEDS {
        assert_eq!(
            run(&options(seed), false).hash,
            batch.hashes[&seed],
            "seed {seed}"
        );
    }
    let different: std::collections::BTreeSet<&u64> = batch.hashes.values().collect();
    assert_eq!(different.len(), batch.hashes.len(), "and no two seeds run alike");
}

#[test]
fn seed_gives_the_same_trace_in_every_process() {
    for seed in [1, 5] {
        let (first, second) = (elsewhere(seed), elsewhere(seed));
        assert_eq!(first, second, "seed {seed}");
        let here = printed(&run(&options(seed), true));
        assert!(here.len() > 100, "there is a trace");
        for (number, (here, there)) in here.iter().zip(&first).enumerate() {
            assert_eq!(here, there, "seed {seed}, line {number}");
        }
        assert_eq!(
            here.len(),
            first.len(),
            "seed {seed}: one goes on where the other ends"
        );
    }
}
