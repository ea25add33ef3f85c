//! Stories: what happens, in order, written down in a small vocabulary, one step a line. After the last step
//! everything that was not broken for good must be repaired, and the same checks hold as in any run.
//!
//! | step | what it does |
//! | --- | --- |
//! | `set NAME=NUMBER` | an option, before any step |
//! | `wait leader` | until one is ready |
//! | `run SECONDS` | lets time pass |
//! | `kill WHO`, `cut WHO`, `start WHO` | ends a process, or its machine's power; starts it again |
//! | `break WHO` | the power goes for good |
//! | `pause WHO`, `resume WHO` | |
//! | `isolate WHO`, `heal` | nobody hears it, nor does it hear anybody; all cuts end |
//! | `pin CID at WHO OUTCOME` | `ok`, `refused`, `unknown` or `any` |
//! | `unpin CID at WHO OUTCOME` | |
//! | `read CID at WHO found`, `… none` | as of now anywhere |
//! | `ipfs down WHO`, `ipfs up WHO`, `ipfs full WHO` | |
//! | `ipfs forgets WHO` | all its pins are gone, and nobody was asked |
//! | `holds CID WHO`, `lacks CID WHO` | its IPFS node does, or does not |
//! | `fill WHO`, `free WHO` | its disk takes no more; has room again |
//! | `rot WHO` | its data folder is damaged, and emptied when it has refused to start |
//! | `moved CID from WHO` | it is not allocated there any more |
//! | `add WHO at WHO OUTCOME`, `remove …` | asks for a change of the membership |
//! | `wait member WHO`, `… voter WHO`, `… gone WHO` | until the furthest peer says so |
//! | `voters NUMBER` | so many vote |
//! | `upgrade WHO` | its process ends, and the next one is of the new release; `set old=1000` makes all old |
//! | `version NUMBER`, `wait version NUMBER` | what the members have agreed to say |
//! | `empty WHO` | its data folder is lost; started again, it has its old identity |
//! | `remember WHO` | whom `it` means from here on |
//! | `leads WHO` | it does, and nobody else |
//! | `settle` | until nothing is pending |
//!
//! A story with a line that says nothing of this is refused as a whole. `WHO` is a number, `leader`,
//! `follower` for the first that is none, `it`, or `all`.

mod perform;
mod step;

use std::path::Path;

use self::step::Step;
use crate::checks::Violation;
use crate::options::Options;
use crate::report::{Class, Report};
use crate::world::{Shared, World, lock};
use crate::{run, stage};

/// A story that has been read and understood.
#[derive(Debug, Clone)]
pub struct Story {
    file: String,
    /// What it sets, over quiet options.
    options: Options,
    lines: Vec<Line>,
}

/// One step of a story, and where it is written.
#[derive(Debug, Clone)]
struct Line {
    number: usize,
    text: String,
    step: Step,
}

impl Story {
    /// Reads a story from a file.
    ///
    /// # Errors
    ///
    /// As for [`Self::parse`], or if the file cannot be read.
    pub fn read(file: &Path) -> Result<Self, String> {
        let file = file.display().to_string();
        let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
        Self::parse(&file, &text)
    }

    /// Understands a story that is written in `file`, which is how a report says what to tell again.
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

/// Tells a story. A step that does not go as it is written is a violation.
pub fn tell(story: &Story, seed: u64, keep_trace: bool) -> Report {
    let told = story.clone();
    let options = Options {
        seed,
        ..story.options.clone()
    };
    let report = stage::perform(&options, keep_trace, move |world| play(world, told));
    Report {
        story: Some(story.file.clone()),
        ..report
    }
}

async fn play(world: Shared, story: Story) -> Report {
    let helpers = run::found(&world);
    for line in &story.lines {
        if lock(&world).stopped {
            break;
        }
        lock(&world)
            .trace
            .line(World::now(), "story", || format!("step {:?}", line.text));
        if let Err(why) = perform::take(&world, line.step).await {
            fail(&world, &story.file, line, &why);
        }
    }
    if !lock(&world).stopped {
        run::second_phase(&world).await;
    }
    run::finish(&world, &helpers).await
}

fn fail(world: &Shared, file: &str, line: &Line, why: &str) {
    let text = format!("{file}:{}: {:?}: {why}", line.number, line.text);
    let at = World::now();
    lock(world).violate(Violation {
        class: Class::Safety,
        check: "story",
        at,
        peer: None,
        text,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_says_nothing_is_refused_with_file_and_line() {
        for (line, why) in [
            ("ipfs dwon 1", "\"dwon\" is none of: down, up, full, forgets"),
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
            let text = format!("# a story\n\nwait leader\n  {line}\n");
            let refused = Story::parse("a.txt", &text).expect_err(line);
            assert!(refused.starts_with("a.txt:4: "), "{line}: {refused}");
            assert!(refused.contains(why), "{line}: {refused}");
        }
    }

    #[test]
    fn what_a_story_sets_is_refused_with_file_and_line() {
        let refused = Story::parse("a.txt", "set peers=4\nset metrics_ms=0\n").expect_err("out of range");
        assert!(refused.starts_with("a.txt:2: metrics_ms=0"), "{refused}");
        assert!(Story::parse("a.txt", "set peers=4\nkill 3").is_ok());
    }

    #[test]
    fn a_step_that_does_not_go_as_written_says_where_it_is_written() {
        let story = Story::parse("a.txt", "# not so\nwait leader\nvoters 2").expect("it makes sense");
        let report = tell(&story, 1, false);
        let [found] = report.violations.as_slice() else {
            panic!("one violation: {report}");
        };
        assert_eq!(found.text, "a.txt:3: \"voters 2\": 3 vote");
    }
}
