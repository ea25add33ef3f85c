//! Seeds that must pass, and situations that they must reach.

use sim::{Options, soak};

/// Situations that the runs must reach.
const REQUIRED: [&str; 59] = [
    "a founder was wiped and founded again",
    "a message was refused at once",
    "a scrub found a rotten copy",
    "a scrub was completed",
    "a scrub was paused",
    "a snapshot broke off in the middle",
    "a snapshot had several chunks",
    "a stream broke",
    "another cluster's peer spoke",
    "another cluster's snapshot was offered",
    "a lost peer came back with its data",
    "a survivor founded a new cluster",
    "many pins were asked for at once",
    "a comparison found pins missing",
    "a damaged disk was emptied",
    "a disk was lost",
    "a fault was aimed",
    "a full disk ended a process",
    "a partition",
    "a peer stayed broken",
    "a peer was added",
    "a pin was imported",
    "a peer was removed",
    "a peer was unreachable",
    "a pin expired",
    "a pin was decided from a stale state",
    "a pin was moved",
    "a peer was upgraded",
    "a power cut lost writes",
    "a proposal came twice",
    "a snapshot was installed",
    "a snapshot was not wanted",
    "a sync failed",
    "a sync was slow",
    "a wall clock jumped",
    "an IPFS daemon forgot pins",
    "an IPFS daemon restarted at work",
    "an operation failed more than once",
    "an operation was cancelled",
    "an outcome stayed unknown",
    "died shortly after it answered",
    "died shortly after it applied entries",
    "died shortly after it began a write",
    "died shortly after it began to send a snapshot",
    "died shortly after it installed a snapshot",
    "died shortly after it sent a message",
    "died shortly after its membership became joint",
    "died while a sync was under way",
    "died while its membership was joint",
    "links were clogged",
    "more than three leaders",
    "refused: busy",
    "refused: no leader",
    "several proposals shared an entry",
    "the leader died",
    "the leader was paused",
    "the log was compacted",
    "the next release had its say",
    "the power went everywhere",
];

/// Seeds that failed once, and the options that they were given.
fn regressions() -> Vec<(u64, Vec<String>)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = folder.join("../proptest-regressions/sim-seeds.txt");
    let text = std::fs::read_to_string(file).expect("sim-seeds.txt is readable");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let seeds = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        let seed = words.next()?.parse().expect("a line starts with a seed");
        Some((seed, words.map(str::to_owned).collect()))
    });
    seeds.collect()
}

#[test]
fn once_failing_seeds_pass() {
    let seeds = regressions();
    let draw = |number| {
        let (seed, sets) = &seeds[usize::try_from(number).expect("a few")];
        let mut options = Options::draw(*seed);
        sets.iter()
            .for_each(|set| options.set(set).expect("there is such an option"));
        options
    };
    let sum = soak(0, seeds.len() as u64, 2, draw, |_| true);
    let failures: Vec<String> = sum.failures.values().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn many_seeds_pass_and_reach_every_situation() {
    let draw = |seed| {
        let drawn = Options::draw(seed);
        Options {
            peers: drawn.peers.clamp(3, 5),
            ..drawn
        }
    };
    let sum = soak(0, 150, 2, draw, |_| true);
    let failures: Vec<String> = sum.failures.values().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let missing: Vec<&str> = REQUIRED
        .into_iter()
        .filter(|situation| !sum.coverage.contains_key(situation))
        .collect();
    assert!(missing.is_empty(), "never: {missing:?}");
    println!("{} seeds: {}", sum.seeds, sum.stats);
}
