//! Processes that measure rows: each has the programs of one folder, and reads a line before each
//! measurement.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::{Arguments, Measure, Row};

/// Start of the output lines with figures.
const FIGURE: &str = "figure\t";

/// Output line after a measurement, and when the first one may start.
const READY: &str = "ready";

/// Measures a row after each line of the standard input.
pub(super) fn serve(row: &Row, arguments: &Arguments) {
    let mut measure = match row.measure {
        Measure::Fresh(measure) => Box::new(move || measure(arguments)),
        Measure::Prepared(prepare) => prepare(arguments),
    };
    println!("{READY}");
    for _ in std::io::stdin().lines() {
        for (name, value) in measure() {
            println!("{FIGURE}{name}\t{value}");
        }
        println!("{READY}");
    }
}

/// A row with the programs of one folder.
pub(super) struct Side<'a> {
    row: &'a Row,
    arguments: &'a Arguments,
    folder: PathBuf,
    /// The process with the prepared cluster.
    prepared: Option<Process>,
    /// Figures of each measurement.
    pub(super) measured: Vec<BTreeMap<String, f64>>,
}

impl<'a> Side<'a> {
    /// Prepares the measurements.
    pub(super) fn new(row: &'a Row, arguments: &'a Arguments, folder: &Path) -> Self {
        let prepared = match row.measure {
            Measure::Fresh(_) => None,
            Measure::Prepared(_) => Some(Process::start(row, arguments, folder)),
        };
        Self {
            row,
            arguments,
            folder: folder.to_owned(),
            prepared,
            measured: Vec::new(),
        }
    }

    /// Adds a measurement.
    pub(super) fn measure(&mut self) {
        let figures = match &mut self.prepared {
            Some(process) => process.measure(),
            None => Process::start(self.row, self.arguments, &self.folder).measure(),
        };
        self.measured.push(figures);
    }
}

struct Process {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts it, and waits until it is ready.
    fn start(row: &Row, arguments: &Arguments, folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("a process knows its executable"))
            .arg(row.name)
            .args(["--pins", &arguments.pins.to_string()])
            .args(["--peers", &arguments.peers.to_string()])
            .env("CLUSTER_BENCH_CHILD", "1")
            .env("PROGRAMS", folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let output = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut process = Self { child, output };
        process.figures();
        process
    }

    fn measure(&mut self) -> BTreeMap<String, f64> {
        let mut input = self.child.stdin.as_ref().expect("piped");
        input.write_all(b"\n").expect("the process reads");
        self.figures()
    }

    /// Reads figures until the process is ready for the next measurement.
    fn figures(&mut self) -> BTreeMap<String, f64> {
        let mut figures = BTreeMap::new();
        loop {
            let line = self.output.next().expect("the process goes on");
            let line = line.expect("the output is readable");
            if line == READY {
                return figures;
            }
            let figure = line.strip_prefix(FIGURE).and_then(|line| line.split_once('\t'));
            if let Some((name, value)) = figure {
                figures.insert(name.to_owned(), value.parse().expect("a figure is a number"));
            }
        }
    }
}

impl Drop for Process {
    /// Ends it as its input ends, so that it stops its cluster.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
