//! Questions on the terminal.

use std::io::{BufRead, Write};

/// Maximum length of an answer that is read, in bytes; a secret, the longest one, has 64.
const ANSWER_MAX: u64 = 4096;

/// Reads one line from the standard input, without surrounding white space.
pub(super) fn ask(question: &str) -> anyhow::Result<String> {
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} ")?;
    stderr.flush()?;
    let mut answer = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), ANSWER_MAX);
    if input.read_line(&mut answer)? == 0 {
        anyhow::bail!("no answer on the standard input");
    }
    Ok(answer.trim().to_owned())
}

/// Asks until the answer is yes or no; returns whether it was yes.
pub(super) fn confirm(question: &str) -> anyhow::Result<bool> {
    loop {
        match ask(&format!("{question} [y/n]:"))?.to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" => return Ok(false),
            _ => super::note("Please answer y or n."),
        }
    }
}
