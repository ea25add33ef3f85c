//! The simulator's command line. Exit codes: 0 no failure; 1 invalid arguments or files, or a planted bug
//! that no seed caught; 127 a panic of the core or of the simulator; 128 a liveness violation (something
//! never happened); 129 a safety violation.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::{Parser, Subcommand, value_parser};
use sim::{Options, Report, Scenario, Stats, bugs, mutant, run, run_scenario, shrink, soak};

/// Runs at once: more threads than any machine has processors only cost memory.
const JOBS_MAX: i64 = 256;

#[derive(Parser)]
#[command(about = "Whole clusters from one seed")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed and prints the report.
    Replay {
        /// Seed of the run.
        seed: u64,
        /// Changes an option: NAME=NUMBER.
        #[arg(long = "set", value_name = "NAME=NUMBER")]
        sets: Vec<String>,
        /// Prints every step.
        #[arg(long)]
        trace: bool,
        /// Prints steps up to this simulated second only.
        #[arg(long, requires = "trace", value_name = "SECOND")]
        until: Option<f64>,
        /// Looks for milder options that fail in the same way.
        #[arg(long)]
        shrink: bool,
    },
    /// Runs many seeds.
    Soak {
        /// Number of seeds.
        count: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Number of runs at once.
        #[arg(long, default_value_t = 2, value_parser = value_parser!(u16).range(1..=JOBS_MAX))]
        jobs: u16,
        /// Changes an option of all of them: NAME=NUMBER.
        #[arg(long = "set", value_name = "NAME=NUMBER")]
        sets: Vec<String>,
        /// Stops at the first failure.
        #[arg(long)]
        fail_fast: bool,
    },
    /// Switches on one planted bug of the core after the other, and prints which seed catches it.
    Mutants {
        /// Seeds for each.
        #[arg(default_value_t = 500)]
        count: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        first: u64,
        /// Number of runs at once.
        #[arg(long, default_value_t = 2, value_parser = value_parser!(u16).range(1..=JOBS_MAX))]
        jobs: u16,
        /// Runs this planted bug only; may be repeated.
        #[arg(long = "bug", value_name = "NAME")]
        names: Vec<String>,
    },
    /// Runs scenarios from files.
    Scenario {
        /// Scenario files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Seeds for each.
        #[arg(long, default_value_t = 5, value_parser = value_parser!(u64).range(1..))]
        seeds: u64,
        /// This seed only.
        #[arg(long, conflicts_with = "seeds")]
        seed: Option<u64>,
        /// Prints every step.
        #[arg(long, requires = "seed")]
        trace: bool,
        /// Prints steps up to this simulated second only.
        #[arg(long, requires = "trace", value_name = "SECOND")]
        until: Option<f64>,
    },
    /// Lists the options that a seed draws.
    Options {
        /// Seed of the run.
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Replay {
            seed,
            sets,
            trace,
            until,
            shrink,
        } => match options(seed, &sets) {
            Ok(options) => replay(&options, trace, until, shrink),
            Err(why) => refuse(&why),
        },
        Command::Soak {
            count,
            first,
            jobs,
            sets,
            fail_fast,
        } => match enough_seeds(first, count).and_then(|()| options(first, &sets)) {
            Ok(_) => soak_all(first, count, usize::from(jobs), &sets, fail_fast),
            Err(why) => refuse(&why),
        },
        Command::Mutants {
            count,
            first,
            jobs,
            names,
        } => match enough_seeds(first, count).and_then(|()| numbers(&names)) {
            Ok(numbers) => plant_all(&numbers, first, count, usize::from(jobs)),
            Err(why) => refuse(&why),
        },
        Command::Scenario {
            files,
            seeds,
            seed,
            trace,
            until,
        } => {
            let seeds = seed.map_or(0..=seeds - 1, |seed| seed..=seed);
            scenarios(&files, seeds, trace, until)
        }
        Command::Options { seed } => {
            for (name, value) in Options::draw(seed).list() {
                println!("{name}={value}");
            }
            ExitCode::SUCCESS
        }
    }
}

/// Returns the numbers of the planted bugs with these names, of all if there are none.
fn numbers(names: &[String]) -> Result<Vec<u64>, String> {
    let bugs = bugs();
    if names.is_empty() {
        return Ok((1..=bugs.len() as u64).collect());
    }
    let number = |name: &String| {
        let position = bugs.iter().position(|bug| bug == name);
        let number = position.map(|position| position as u64 + 1);
        number.ok_or_else(|| format!("there is no planted bug {name:?}, there are {bugs:?}"))
    };
    names.iter().map(number).collect()
}

fn plant_all(numbers: &[u64], first: u64, count: u64, jobs: usize) -> ExitCode {
    println!("| planted bug | seeds until caught | caught by |\n| --- | --- | --- |");
    let mut missed = false;
    for number in numbers {
        let found = mutant(*number, first, count, jobs);
        missed |= found.caught.is_none();
        println!("{}", found.row());
    }
    if missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Refuses a search that would go beyond the last seed.
fn enough_seeds(first: u64, count: u64) -> Result<(), String> {
    match first.checked_add(count.saturating_sub(1)) {
        Some(_) => Ok(()),
        None => Err(format!(
            "--first {first}: there are no {count} seeds from there on, the last one is {}",
            u64::MAX
        )),
    }
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

fn options(seed: u64, sets: &[String]) -> Result<Options, String> {
    let mut options = Options::draw(seed);
    sets.iter().try_for_each(|set| options.set(set))?;
    Ok(options)
}

fn replay(options: &Options, trace: bool, until: Option<f64>, shrinks: bool) -> ExitCode {
    let mut report = run(options, trace);
    print_trace(&report, until);
    if shrinks && report.class().is_some() {
        report = shrink(&report);
    }
    println!("{report}");
    exit_code(Some(&report))
}

fn print_trace(report: &Report, until: Option<f64>) {
    for line in &report.lines {
        let second: f64 = line
            .split_whitespace()
            .next()
            .and_then(|at| at.parse().ok())
            .unwrap_or(0.0);
        if until.is_some_and(|until| second > until) {
            break;
        }
        println!("{line}");
    }
}

fn scenarios(files: &[PathBuf], seeds: RangeInclusive<u64>, trace: bool, until: Option<f64>) -> ExitCode {
    let mut failed = Vec::new();
    for file in files {
        let scenario = match Scenario::read(file) {
            Ok(scenario) => scenario,
            Err(why) => return refuse(&why),
        };
        for seed in seeds.clone() {
            let report = run_scenario(&scenario, seed, trace);
            print_trace(&report, until);
            if report.class().is_some() {
                println!("{} with seed {seed}: {report}\n", file.display());
                failed.push(report);
            }
        }
    }
    exit_code(&failed)
}

/// Number of seeds between two progress reports of a long search.
const REPORT_EVERY: u64 = 1000;

fn soak_all(first: u64, count: u64, jobs: usize, sets: &[String], fail_fast: bool) -> ExitCode {
    let start = Instant::now();
    let draw = |seed| options(seed, sets).expect("the options have been tried");
    let progress = Mutex::new((0u64, Stats::default()));
    let watch = |report: &Report| {
        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.0 += 1;
        progress.1.add(&report.stats);
        if progress.0.is_multiple_of(REPORT_EVERY) {
            let wall = start.elapsed().as_secs();
            println!("{} of {count} seeds after {wall} s: {}", progress.0, progress.1);
        }
        let failed = report.class().is_some();
        if failed {
            println!("{report}\n");
        }
        !(failed && fail_fast)
    };
    let sum = soak(first, count, jobs, draw, watch);
    for (situation, times) in &sum.coverage {
        println!("{times:12} {situation}");
    }
    println!("{} seeds, {}", sum.seeds, sum.stats);
    let wall = start.elapsed().as_secs_f64();
    println!("{} failed; {wall:.1} s", sum.failures.len());
    exit_code(sum.failures.values())
}

/// Returns the exit code of the worst violation in any of the reports.
fn exit_code<'a>(reports: impl IntoIterator<Item = &'a Report>) -> ExitCode {
    let class = reports.into_iter().filter_map(Report::class).max();
    class.map_or(ExitCode::SUCCESS, |class| ExitCode::from(class.exit_code()))
}
