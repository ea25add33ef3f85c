//! Output of results on standard output, as text or JSON.

use crate::args::Encoding;
use crate::failure::Failure;
use crate::text::{Lines, Text};
use cluster_api::client::{self, Answer};
use cluster_api::{Time, terminal};
use cluster_http::json;
use std::io::{self, BufWriter, IsTerminal, Write};

/// Standard output with an encoding.
pub(crate) struct Output {
    encoding: Encoding,
    out: BufWriter<io::Stdout>,
    /// Standard output is a terminal: flush after each value.
    interactive: bool,
}

impl Output {
    pub(crate) fn new(encoding: Encoding) -> Self {
        let interactive = io::stdout().is_terminal();
        Self {
            encoding,
            out: BufWriter::with_capacity(64 * 1024, io::stdout()),
            interactive,
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.encoding == Encoding::Json
    }

    /// Prints one value.
    pub(crate) fn show<T: Text>(&mut self, answer: &Answer<T>) -> Result<(), Failure> {
        match self.encoding {
            // The service's JSON, reformatted, so that unknown fields are kept.
            Encoding::Json => self.json(&answer.text),
            Encoding::Text => {
                let mut lines = Lines::default();
                answer.value.text(&mut lines, Time::now());
                self.raw(&lines.into_string())
            }
        }
    }

    /// Prints the values of a listing as they arrive; in JSON as concatenated objects.
    pub(crate) async fn show_all<T>(&mut self, lines: client::Lines<T>) -> Result<(), Failure>
    where
        T: Text + serde::de::DeserializeOwned,
    {
        self.show_page(lines).await.map(|_| ())
    }

    /// As [`Output::show_all`], and returns the number of values.
    pub(crate) async fn show_page<T>(&mut self, mut lines: client::Lines<T>) -> Result<u64, Failure>
    where
        T: Text + serde::de::DeserializeOwned,
    {
        let mut shown = 0;
        let result = loop {
            match lines.next().await {
                Ok(Some(answer)) => {
                    self.show(&answer)?;
                    shown += 1;
                }
                Ok(None) => break Ok(shown),
                Err(error) => break Err(error.into()),
            }
        };
        // Print the values before the error.
        self.flush()?;
        result
    }

    /// Prints JSON text, indented.
    pub(crate) fn json(&mut self, text: &str) -> Result<(), Failure> {
        let laid_out = json::indent(text, "    ") + "\n";
        self.raw(&terminal::json(&laid_out))
    }

    /// Prints one line of text.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.raw(&(terminal::line(text) + "\n"))
    }

    /// Writes text unchanged: foreign text must be escaped already.
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes())?;
        if self.interactive {
            self.out.flush()?;
        }
        Ok(())
    }

    /// Flushes standard output.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}
