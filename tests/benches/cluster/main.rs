//! Benchmarks of whole clusters: real processes, sockets and disks. `--help` lists the rows.
//!
//! `cargo bench -p tests --bench cluster -- [ROW …]` builds the programs with optimisations, measures the
//! rows and prints a table. With `--against FOLDER` each row is also measured with the programs in that
//! folder, in turns, and the ratio is printed: machines are noisy, and only figures of one run compare.

mod content;
mod faults;
mod load;
mod many_peers;
mod many_pins;
mod writes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use clap::Parser;

/// Figures of a row: name with unit, and value.
type Figures = Vec<(&'static str, f64)>;

/// A row of the table.
struct Row {
    name: &'static str,
    help: &'static str,
    measure: fn(&Arguments) -> Figures,
}

const ROWS: [Row; 10] = [
    Row {
        name: "writes",
        help: "pins by 64 connections to three peers: rate, latencies, CPU",
        measure: writes::many,
    },
    Row {
        name: "named",
        help: "the same with a name and a metadata pair, which are indexed",
        measure: writes::named,
    },
    Row {
        name: "single",
        help: "one pin after another at an idle cluster: latencies",
        measure: writes::single,
    },
    Row {
        name: "bulk",
        help: "100,000 pins in one request, each line answered",
        measure: writes::bulk,
    },
    Row {
        name: "pins",
        help: "--pins pins that nobody has: memory, reads, restart",
        measure: many_pins::measure,
    },
    Row {
        name: "newcomer",
        help: "a fourth peer receives --pins pins while writes go on",
        measure: many_pins::newcomer,
    },
    Row {
        name: "leader",
        help: "the leader is killed: time until the next write succeeds",
        measure: faults::leader_killed,
    },
    Row {
        name: "add",
        help: "300 MB added with two copies",
        measure: content::add,
    },
    Row {
        name: "idle",
        help: "--peers idle peers: CPU of all together, start, status of 10,000 pins",
        measure: many_peers::idle,
    },
    Row {
        name: "wide",
        help: "10,000 pins held by --peers peers: rate and latency",
        measure: many_peers::writes,
    },
];

/// Measures clusters of real processes and prints a table.
#[derive(Debug, Parser)]
#[command(after_help = rows())]
struct Arguments {
    /// Rows to measure; all if none is named.
    rows: Vec<String>,
    /// Number of pins of the rows `pins` and `newcomer`.
    #[arg(long, default_value_t = 1_000_000)]
    pins: u64,
    /// Number of peers of the rows `idle` and `wide`.
    #[arg(long, default_value_t = 25)]
    peers: usize,
    /// Folder of other programs, to compare with.
    #[arg(long, value_name = "FOLDER")]
    against: Option<PathBuf>,
    /// Number of measurements of each row; the median is printed.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Accepted for cargo, which passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

fn rows() -> String {
    let rows = ROWS.iter().map(|row| format!("  {:<10}{}\n", row.name, row.help));
    format!("Rows:\n{}", rows.collect::<String>())
}

/// Marks the output lines of a process that measures one row.
const FIGURE: &str = "figure\t";

fn main() {
    let arguments = Arguments::parse();
    for name in &arguments.rows {
        assert!(
            ROWS.iter().any(|row| row.name == name),
            "no row {name}: --help lists them"
        );
    }
    if std::env::var_os("CLUSTER_BENCH_CHILD").is_some() {
        let row = ROWS
            .iter()
            .find(|row| row.name == arguments.rows[0])
            .expect("checked");
        for (name, value) in (row.measure)(&arguments) {
            println!("{FIGURE}{name}\t{value}");
        }
        return;
    }
    // Builds them once, before anything is measured.
    let built = tests::program("ipfs-cluster-service");
    let built = built.parent().expect("a program is in a folder").to_owned();
    for row in &ROWS {
        if arguments.rows.is_empty() || arguments.rows.iter().any(|name| name == row.name) {
            compare(row, &arguments, &built);
        }
    }
}

/// Measures a row with both programs in turns, and prints its part of the table.
fn compare(row: &Row, arguments: &Arguments, built: &PathBuf) {
    println!("\n{}: {}", row.name, row.help);
    let mut sides = vec![(built, Vec::new())];
    sides.extend(arguments.against.as_ref().map(|folder| (folder, Vec::new())));
    for _ in 0..arguments.rounds.max(1) {
        for (folder, measured) in &mut sides {
            measured.push(in_process(row, arguments, folder));
        }
    }
    let medians: Vec<BTreeMap<String, f64>> = sides.iter().map(|(_, measured)| median(measured)).collect();
    for (name, value) in &medians[0] {
        match medians.get(1).and_then(|other| other.get(name)) {
            Some(other) => println!("  {name:<44}{value:>12.2}{other:>12.2}{:>8.2} x", value / other),
            None => println!("  {name:<44}{value:>12.2}"),
        }
    }
}

/// Measures a row in a process of its own, with the programs in `folder`.
fn in_process(row: &Row, arguments: &Arguments, folder: &PathBuf) -> BTreeMap<String, f64> {
    let output = Command::new(std::env::current_exe().expect("a process knows its executable"))
        .arg(row.name)
        .args(["--pins", &arguments.pins.to_string()])
        .args(["--peers", &arguments.peers.to_string()])
        .env("CLUSTER_BENCH_CHILD", "1")
        .env("PROGRAMS", folder)
        .stderr(Stdio::inherit())
        .output()
        .expect("this program starts");
    assert!(output.status.success(), "{}: {}", row.name, output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix(FIGURE)?.split_once('\t')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    figures.collect()
}

/// Returns the median of each figure.
fn median(measured: &[BTreeMap<String, f64>]) -> BTreeMap<String, f64> {
    let names = measured.iter().flat_map(BTreeMap::keys);
    let one = |name: &String| {
        let mut values: Vec<f64> = measured
            .iter()
            .filter_map(|figures| figures.get(name).copied())
            .collect();
        values.sort_by(f64::total_cmp);
        (name.clone(), values[values.len() / 2])
    };
    names.map(one).collect()
}
