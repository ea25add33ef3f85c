//! The operator's manual, `docs/guide.md`: runs every command that it shows, and compares the output.
//!
//! A fenced block marked `console` has commands, each after `$ ` (a line that ends with a backslash continues
//! in the next), each followed by lines of its output: they must occur in that order, `…` matches anything,
//! and other lines may be between them. The blocks of a chapter are one session in its own home folder. All
//! commands must succeed. Other blocks are not run.

use std::path::Path;
use std::process::{Command, Stdio};

use tests::{PATIENCE, program, root, run};

/// Wrapper of the daemon that replaces the default ports by free ones, because chapters run concurrently.
const SERVICE: &str = r#"#!/bin/bash
for argument in "$@"; do
  [ "$argument" = init ] && exec "$SERVICE" "$@" --ipfs embedded $([[ " $* " = *" --randomports "* ]] || echo --randomports)
done
exec "$SERVICE" "$@"
"#;
const CTL: &str = r#"#!/bin/bash
[[ " $* " = *" --host "* ]] && exec "$CTL" "$@"
config=${IPFS_CLUSTER_PATH:-$HOME/.ipfs-cluster}/service.json
host=$(sed -n '/"restapi"/,$ s/.*"http_listen_multiaddress": "\(.*\)".*/\1/p' "$config" 2>/dev/null | head -1)
exec "$CTL" ${host:+--host "$host"} "$@"
"#;

/// One command of the manual, with its expected output.
#[derive(Debug, PartialEq)]
struct Step {
    line: usize,
    command: String,
    output: Vec<String>,
}

fn manual() -> String {
    std::fs::read_to_string(root().join("docs/guide.md")).expect("the manual")
}

/// Parses the commands by chapter; chapters without any are skipped.
fn chapters(manual: &str) -> Vec<(String, Vec<Step>)> {
    let mut chapters: Vec<(String, Vec<Step>)> = Vec::new();
    let mut block: Option<bool> = None;
    let mut goes_on = false;
    for (number, line) in manual.lines().enumerate() {
        if let Some(kind) = line.strip_prefix("```") {
            block = if block.is_some() {
                None
            } else {
                Some(kind == "console")
            };
            goes_on = false;
            continue;
        }
        match block {
            None => {
                if let Some(title) = line.strip_prefix("## ") {
                    chapters.push((title.to_owned(), Vec::new()));
                }
            }
            Some(false) => {}
            Some(true) => {
                let steps = &mut chapters.last_mut().expect("a chapter before the first block").1;
                if goes_on {
                    let last = steps.last_mut().expect("a command to continue");
                    last.command += &format!("\n{line}");
                } else if let Some(command) = line.strip_prefix("$ ") {
                    steps.push(Step {
                        line: number + 1,
                        command: command.to_owned(),
                        output: Vec::new(),
                    });
                } else {
                    let last = steps.last_mut().expect("a command before its output");
                    last.output.push(line.to_owned());
                    continue;
                }
                goes_on = line.ends_with('\\');
            }
        }
    }
    chapters.retain(|(_, steps)| !steps.is_empty());
    chapters
}

/// Returns whether a line of output matches a line of the manual.
fn fits(shown: &str, line: &str) -> bool {
    let (line, parts) = (line.trim(), shown.trim().split('…').collect::<Vec<&str>>());
    let [first, between @ .., last] = parts.as_slice() else {
        return parts == [line];
    };
    let Some(mut rest) = line.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
        return false;
    };
    between.iter().all(|part| {
        let found = rest.find(part);
        found.inspect(|at| rest = &rest[at + part.len()..]).is_some()
    })
}

/// Builds the script of a session, which prints the number before each command and the exit code after it.
fn script(steps: &[Step]) -> String {
    // Jobs that still run at the end are daemons.
    let mut script = String::from("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\ncd ~\n");
    for (number, step) in steps.iter().enumerate() {
        script += &format!(
            "echo; echo @@begin {number}\n{}\ncode=$?; echo; echo @@end {number} $code\n",
            step.command
        );
    }
    script
}

/// Runs a chapter.
fn run_chapter(steps: &[Step]) {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join(".bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, text) in [("ipfs-cluster-service", SERVICE), ("ipfs-cluster-ctl", CTL)] {
        std::fs::write(bin.join(name), text).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(bin.join(name), mode).unwrap();
    }
    let file = home.path().join(".session");
    std::fs::write(&file, script(steps)).unwrap();
    let output = session(home.path(), &bin, &file);
    let mut wrong = Vec::new();
    for (number, step) in steps.iter().enumerate() {
        let said = output
            .split_once(&format!("@@begin {number}\n"))
            .map(|(_, after)| after);
        let Some((said, after)) = said.and_then(|said| said.split_once(&format!("\n@@end {number} "))) else {
            wrong.push(format!("line {}: did not end: {}", step.line, step.command));
            break;
        };
        let code = after.lines().next().unwrap_or("");
        if code != "0" {
            wrong.push(format!(
                "line {}: exits {code}: {}\n{said}",
                step.line, step.command
            ));
        }
        let mut lines = said.lines();
        for shown in &step.output {
            if shown.trim() != "…" && !lines.any(|line| fits(shown, line)) {
                wrong.push(format!(
                    "line {}: does not say {shown:?}: {}\n{said}",
                    step.line, step.command
                ));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// Runs a session and returns its output.
fn session(home: &Path, bin: &Path, file: &Path) -> String {
    let said = home.join(".said");
    let log = std::fs::File::create(&said).unwrap();
    // `timeout` ends the whole group, daemons included.
    let status = Command::new("timeout")
        .args(["--kill-after=5", &(PATIENCE.as_secs() * 4).to_string(), "bash"])
        .arg(file)
        .env_clear()
        .env("HOME", home)
        .env("CLUSTER_EMBEDDED_PRIVATE", "true")
        .env("CLUSTER_MDNSINTERVAL", "0s")
        .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()))
        .env("SERVICE", program("ipfs-cluster-service"))
        .env("CTL", program("ipfs-cluster-ctl"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    let said = std::fs::read_to_string(said).unwrap();
    if status.code() == Some(124) {
        let logs = run(Command::new("sh")
            .arg("-c")
            .arg("tail -n 20 ~/*log")
            .env("HOME", home))
        .out;
        panic!("it does not end:\n{said}\n{logs}");
    }
    said
}

#[test]
fn commands_of_the_manual_give_the_output_shown() {
    let manual = manual();
    let chapters = chapters(&manual);
    assert!(
        chapters.len() >= 8,
        "only {} chapters have commands",
        chapters.len()
    );
    let mut failed = Vec::new();
    // Two at a time, for machines with two processors.
    for pair in chapters.chunks(2) {
        std::thread::scope(|scope| {
            let running: Vec<_> = pair
                .iter()
                .map(|(title, steps)| (title, scope.spawn(|| run_chapter(steps))))
                .collect();
            failed.extend(
                running
                    .into_iter()
                    .filter_map(|(title, ran)| ran.join().err().map(|_| title)),
            );
        });
    }
    assert!(failed.is_empty(), "chapters that are wrong: {failed:?}");
}

#[test]
fn chapters_and_patterns_of_the_manual_are_parsed() {
    let text = "## One\n```console\n$ a \\\n  b\nsays …\n$ c\n```\n```text\n$ d\n```\n## Two\nwords\n";
    let step = |line, command: &str, output: &[&str]| Step {
        line,
        command: command.to_owned(),
        output: output.iter().map(|line| (*line).to_owned()).collect(),
    };
    let steps = vec![step(3, "a \\\n  b", &["says …"]), step(6, "c", &[])];
    assert_eq!(chapters(text), [("One".to_owned(), steps)]);
    assert!(fits("a … c", "a b c") && fits("…", "anything") && fits("a…", "ab") && fits("a", "a"));
    assert!(!fits("a … c", "a b") && !fits("a", "ab") && !fits("b…", "ab"));
}
