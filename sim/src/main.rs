//! The simulator's command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sim::{Options, run};

#[derive(Parser)]
#[command(about = "Whole clusters from one seed")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one seed, and tells what happened.
    Replay {
        /// Which.
        seed: u64,
        /// Changes an option: NAME=NUMBER.
        #[arg(long = "set")]
        sets: Vec<String>,
        /// Prints every step.
        #[arg(long)]
        trace: bool,
        /// Prints steps only from this simulated second on.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Runs many seeds, one after the other, on all cores.
    Soak {
        /// How many.
        count: u64,
        /// The first.
        #[arg(long, default_value_t = 0)]
        first: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Replay {
            seed, sets, trace, ..
        } => {
            let mut options = Options::draw(seed);
            for set in &sets {
                if let Err(why) = options.set(set) {
                    eprintln!("error: {why}");
                    return ExitCode::FAILURE;
                }
            }
            let report = run(&options, trace);
            for line in &report.lines {
                println!("{line}");
            }
            println!("{report}");
            report
                .class()
                .map_or(ExitCode::SUCCESS, |class| ExitCode::from(class.exit_code()))
        }
        Command::Soak { count, first } => {
            let mut failures = 0;
            for seed in first..first + count {
                let report = run(&Options::draw(seed), false);
                if report.class().is_some() {
                    failures += 1;
                    println!("{report}");
                }
            }
            println!("{failures} of {count} failed");
            ExitCode::SUCCESS
        }
    }
}
