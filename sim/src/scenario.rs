//! Scenarios: text files with one step per line, executed in order. After the last step everything that was
//! not broken permanently must recover, and the same checks hold as in any run.
//!
//! | step | what it does |
//! | --- | --- |
//! | `set NAME=NUMBER` | sets an option; before all other lines |
//! | `wait leader` | waits until a leader is ready |
//! | `run SECONDS` | waits |
//! | `kill WHO`, `cut WHO`, `start WHO` | kills a process; cuts the power of its machine; starts it again |
//! | `break WHO` | cuts the power permanently |
//! | `pause WHO`, `resume WHO` | freezes a process; resumes it |
//! | `isolate WHO`, `heal` | isolates WHO from all peers; heals all partitions |
//! | `pin CID at WHO OUTCOME` | `ok`, `refused`, `unknown` or `any` |
//! | `unpin CID at WHO OUTCOME` | the same outcomes |
//! | `read CID at WHO found`, `… none` | a linearizable read |
//! | `ipfs down WHO`, `ipfs up WHO`, `ipfs full WHO` | its IPFS node is down, up, or full |
//! | `ipfs forgets WHO` | its IPFS node loses all pins |
//! | `ipfs rots WHO` | all copies of its IPFS node are damaged, which only a scrub finds |
//! | `holds CID WHO`, `lacks CID WHO` | asserts that its IPFS node has the pin, or does not |
//! | `fill WHO`, `free WHO` | its disk becomes full; has room again |
//! | `rot WHO` | damages its data folder, which is emptied when the peer has refused to start |
//! | `moved CID from WHO` | asserts that it is not allocated there any more |
//! | `add WHO at WHO OUTCOME`, `remove …` | requests a change of the membership |
//! | `drain WHO at WHO OUTCOME`, `undrain …` | requests a drain, two moves at once, or its end |
//! | `rebalance at WHO OUTCOME` | requests a run of the rebalancing |
//! | `balanced NUMBER` | asserts that no peer deviates by more from its share of the copies by capacity |
//! | `wait member WHO`, `… voter WHO`, `… gone WHO` | waits until the newest membership says so |
//! | `voters NUMBER` | asserts the number of voters |
//! | `upgrade WHO` | restarts it with the new release; `set old=1000` starts all with the old one |
//! | `version NUMBER`, `wait version NUMBER` | asserts, or waits for, the agreed version |
//! | `empty WHO` | empties its data folder; the peer keeps its identity |
//! | `remember WHO` | sets the peer that `it` names |
//! | `leads WHO` | asserts that WHO is the only leader |
//! | `settle` | waits until nothing is pending |
//!
//! A scenario with any other line is refused as a whole. `WHO` is a number, `leader`, `follower` for the
//! first peer that does not lead, `it`, or `all`.

mod perform;
mod step;

use std::path::Path;

use self::step::Step;
use crate::options::Options;
use crate::report::{Class, Report};
use crate::world::{Shared, World, lock};
use crate::{run, runner};

/// A parsed scenario.
#[derive(Debug, Clone)]
pub struct Scenario {
    file: String,
    /// Its `set` lines, applied to quiet options.
    options: Options,
    lines: Vec<Line>,
}

/// One step of a scenario, and where it is written.
#[derive(Debug, Clone)]
struct Line {
    number: usize,
    text: String,
    step: Step,
}

impl Scenario {
    /// Reads a scenario from a file.
    ///
    /// # Errors
    ///
    /// As for [`Self::parse`], or if the file cannot be read.
    pub fn read(file: &Path) -> Result<Self, String> {
        let file = file.display().to_string();
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        Self::parse(&file, &text)
    }

    /// Parses a scenario. Reports name `file` in the command that replays it.
    ///
    /// # Errors
    ///
    /// The file, the line, and what is wrong with it.
    pub fn parse(file: &str, text: &str) -> Result<Self, String> {
        let numbered = (1..).zip(text.lines().map(str::trim));
        let said: Vec<(usize, &str)> = numbered
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
            .collect();
        let at = |number: usize, why: String| format!("{file}:{number}: {why}");
        let sets = said
            .iter()
            .take_while(|(_, line)| line.starts_with("set "))
            .count();
        let (sets, steps) = said.split_at(sets);
        let mut options = Options {
            clients: 0,
            ..Options::quiet(0)
        };
        for (number, line) in sets {
            let assignment = line.trim_start_matches("set ").trim();
            options.set(assignment).map_err(|why| at(*number, why))?;
        }
        let size = usize::try_from(options.peers + options.learners + options.joiners);
        let size = size.expect("a few peers");
        let understand = |(number, line): &(usize, &str)| {
            let step = Step::parse(line, size).map_err(|why| at(*number, format!("{line:?}: {why}")))?;
            Ok(Line {
                number: *number,
                text: (*line).to_owned(),
                step,
            })
        };
        Ok(Self {
            file: file.to_owned(),
            options,
            lines: steps.iter().map(understand).collect::<Result<_, String>>()?,
        })
    }
}

/// Runs a scenario. A step whose outcome differs from what is written is a violation.
pub fn run_scenario(scenario: &Scenario, seed: u64, keep_trace: bool) -> Report {
    let played = scenario.clone();
    let options = Options {
        seed,
        ..scenario.options.clone()
    };
    let report = runner::execute(&options, keep_trace, move |world| play(world, played));
    Report {
        scenario: Some(scenario.file.clone()),
        ..report
    }
}

async fn play(world: Shared, scenario: Scenario) -> Report {
    let helpers = run::start_nodes(&world);
    for line in &scenario.lines {
        if lock(&world).stopped {
            break;
        }
        let text = &line.text;
        let at = World::now();
        lock(&world)
            .trace
            .line(at, "scenario", || format!("step {text:?}"));
        if let Err(why) = perform::take(&world, line.step).await {
            let text = format!("{}:{}: {text:?}: {why}", scenario.file, line.number);
            lock(&world).violate(Class::Safety, "scenario", None, text);
        }
    }
    if !lock(&world).stopped {
        run::second_phase(&world).await;
    }
    run::finish(&world, &helpers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_lines_are_refused_with_file_and_line() {
        for (line, why) in [
            (
                "ipfs dwon 1",
                "\"dwon\" is none of: down, up, full, forgets, rots",
            ),
            ("kil 1", "no such step"),
            ("settle 1", "no such step"),
            ("wait", "no such step"),
            ("wait votre 1", "\"votre\" is none of"),
            ("run 0", "\"0\" is not a number of seconds from 1 to 600"),
            ("run 601", "from 1 to 600"),
            ("run 1.5", "a number of seconds"),
            ("kill 3", "no peer 3, the last is 2"),
            ("kill -1", "\"-1\" is none of"),
            ("pin 1 at all ok", "one peer is needed"),
            ("pin 1 at leader oK", "\"oK\" is none of: ok, refused"),
            ("pin 1 at leader found", "none of"),
            ("read 1 at 0 ok", "none of: found, none"),
            ("pin 70000 at leader ok", "from 0 to 10000"),
            ("remove 1 at leader gone", "none of"),
            ("voters 4", "from 0 to 3"),
            ("version 256", "from 0 to 255"),
            ("set peers=5", "options are set before any step"),
        ] {
            let text = format!("# a scenario\n\nwait leader\n  {line}\n");
            let refused = Scenario::parse("a.txt", &text).expect_err(line);
            assert!(refused.starts_with("a.txt:4: "), "{line}: {refused}");
            assert!(refused.contains(why), "{line}: {refused}");
        }
    }

    #[test]
    fn invalid_set_lines_are_refused_with_file_and_line() {
        let refused = Scenario::parse("a.txt", "set peers=4\nset metrics_ms=0\n").expect_err("out of range");
        assert!(refused.starts_with("a.txt:2: metrics_ms=0"), "{refused}");
        assert!(Scenario::parse("a.txt", "set peers=4\nkill 3").is_ok());
    }

    #[test]
    fn failed_step_names_its_file_and_line() {
        let scenario = Scenario::parse("a.txt", "# not so\nwait leader\nvoters 2").expect("it makes sense");
        let report = run_scenario(&scenario, 1, false);
        let [found] = report.violations.as_slice() else {
            panic!("one violation: {report}");
        };
        assert_eq!(found.text, "a.txt:3: \"voters 2\": 3 vote");
    }
}
