//! Benchmarks of whole clusters: real processes, sockets and disks. `--help` lists the rows.
//!
//! `cargo bench -p tests --bench cluster -- [ROW …]` builds the programs with optimisations, measures the
//! rows and prints a table. With `--against FOLDER` each row is also measured with the programs in that
//! folder, in turns, and the ratio is printed: machines are noisy, and only figures of one run compare. The
//! medians of many short rounds tell more than one long round.

mod content;
mod faults;
mod load;
mod many_peers;
mod many_pins;
mod process;
mod writes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Parser;

use self::process::Side;

/// Figures of a row: name with unit, and value.
type Figures = Vec<(&'static str, f64)>;

/// A row of the table.
struct Row {
    name: &'static str,
    help: &'static str,
    measure: Measure,
}

/// Measurement of a row.
#[derive(Clone, Copy)]
enum Measure {
    /// Each measurement starts a cluster.
    Fresh(fn(&Arguments) -> Figures),
    /// All measurements are of one cluster, which takes long to prepare.
    Prepared(fn(&Arguments) -> Box<dyn FnMut() -> Figures>),
}

const ROWS: [Row; 11] = [
    Row {
        name: "writes",
        help: "pins by 64 connections to three peers: rate, latencies, CPU",
        measure: Measure::Fresh(writes::many),
    },
    Row {
        name: "named",
        help: "the same with a name and a metadata pair, which are indexed",
        measure: Measure::Fresh(writes::named),
    },
    Row {
        name: "indexed",
        help: "the same after --pins such pins",
        measure: Measure::Prepared(writes::indexed),
    },
    Row {
        name: "single",
        help: "one pin after another at an idle cluster: latencies",
        measure: Measure::Fresh(writes::single),
    },
    Row {
        name: "bulk",
        help: "100,000 pins in one request, each line answered",
        measure: Measure::Fresh(writes::bulk),
    },
    Row {
        name: "pins",
        help: "--pins pins that nobody has: memory, reads, restart",
        measure: Measure::Fresh(many_pins::measure),
    },
    Row {
        name: "newcomer",
        help: "a fourth peer receives --pins pins while writes go on",
        measure: Measure::Fresh(many_pins::newcomer),
    },
    Row {
        name: "leader",
        help: "the leader is killed: time until the next write succeeds",
        measure: Measure::Fresh(faults::leader_killed),
    },
    Row {
        name: "add",
        help: "300 MB added with two copies",
        measure: Measure::Fresh(content::add),
    },
    Row {
        name: "idle",
        help: "--peers idle peers: CPU of all together, start, status of 10,000 pins",
        measure: Measure::Fresh(many_peers::idle),
    },
    Row {
        name: "wide",
        help: "10,000 pins held by --peers peers: rate and latency",
        measure: Measure::Fresh(many_peers::writes),
    },
];

/// Measures clusters of real processes and prints a table.
#[derive(Debug, Parser)]
#[command(after_help = rows())]
struct Arguments {
    /// Rows to measure; all if none is named.
    rows: Vec<String>,
    /// Number of pins of the rows `indexed`, `pins` and `newcomer`.
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

fn main() {
    let arguments = Arguments::parse();
    for name in &arguments.rows {
        assert!(
            ROWS.iter().any(|row| row.name == name),
            "no row {name}: --help lists them"
        );
    }
    if std::env::var_os("CLUSTER_BENCH_CHILD").is_some() {
        let row = ROWS.iter().find(|row| row.name == arguments.rows[0]);
        process::serve(row.expect("checked"), &arguments);
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
fn compare(row: &Row, arguments: &Arguments, built: &Path) {
    println!("\n{}: {}", row.name, row.help);
    let mut sides = vec![Side::new(row, arguments, built)];
    sides.extend(
        arguments
            .against
            .iter()
            .map(|folder| Side::new(row, arguments, folder)),
    );
    for _ in 0..arguments.rounds.max(1) {
        for side in &mut sides {
            side.measure();
        }
    }
    let medians: Vec<BTreeMap<String, f64>> = sides.iter().map(|side| median(&side.measured)).collect();
    for (name, value) in &medians[0] {
        match medians.get(1).and_then(|other| other.get(name)) {
            Some(other) => println!("  {name:<44}{value:>12.2}{other:>12.2}{:>8.2} x", value / other),
            None => println!("  {name:<44}{value:>12.2}"),
        }
    }
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
