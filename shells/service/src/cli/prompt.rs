//! Asks whoever sits at the terminal.

use std::io::{BufRead, Write};

/// The most of an answer that is read, in bytes; a secret, the longest one, takes 64.
const ANSWER_MAX: u64 = 4096;

/// One line from the standard input, without the blanks around it.
pub(super) fn ask(question: &str) -> anyhow::Result<String> {
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} ")?;
    stderr.flush()?;
    let mut answer = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), ANSWER_MAX);
    if input.read_line(&mut answer)? == 0 {
        anyhow::bail!("nobody answered");
    }
    Ok(answer.trim().to_owned())
}

/// Whether the answer was yes. Asks until it is one or the other.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    loop {
        match ask(&format!("{question} [y/n]:"))?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => super::note("Please answer y or n."),
        }
    }
}
