//! Where results go.

use crate::args::Encoding;
use crate::failure::Failure;
use crate::text::{Lines, Text};
use cluster_api::client::{self, Answer};
use cluster_api::{Time, json, terminal};
use std::io::{self, BufWriter, IsTerminal, Write};

/// Standard output in one encoding.
pub(crate) struct Output {
    encoding: Encoding,
    out: BufWriter<io::Stdout>,
    /// A person reads it as it comes.
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

    /// Shows one value.
    pub(crate) fn show<T: Text>(&mut self, answer: &Answer<T>) -> Result<(), Failure> {
        match self.encoding {
            // The service's own words, laid out: fields that we do not know are not lost.
            Encoding::Json => self.json(&answer.text),
            Encoding::Text => {
                let mut lines = Lines::default();
                answer.value.text(&mut lines, Time::now());
                self.raw(&lines.into_string())
            }
        }
    }

    /// Shows all values of a listing as they come: in JSON as objects one after the other.
    pub(crate) async fn show_all<T>(&mut self, mut lines: client::Lines<T>) -> Result<(), Failure>
    where
        T: Text + serde::de::DeserializeOwned,
    {
        let result = loop {
            match lines.next().await {
                Ok(Some(answer)) => self.show(&answer)?,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        // What came before an error is shown before it.
        self.flush()?;
        result
    }

    /// Shows JSON text, laid out.
    pub(crate) fn json(&mut self, text: &str) -> Result<(), Failure> {
        let laid_out = json::indent(text, "    ") + "\n";
        self.raw(&terminal::json(&laid_out))
    }

    /// Shows one line of text.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.raw(&(terminal::line(text) + "\n"))
    }

    /// Writes text as it is: what comes from elsewhere must have been escaped.
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.out.write_all(text.as_bytes())?;
        if self.interactive {
            self.out.flush()?;
        }
        Ok(())
    }

    /// Makes sure that all of it is out.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}
