//! Parser for a stream of JSON values of any length, in constant memory, with their line numbers.
//!
//! Three formats are read: consecutive values (a Go peer's export, one per line or spread over several), one
//! array of values (exports and listings before 0.11), and the map that Go ipfs-cluster 0.0.12 writes into
//! `backups/` and its later `state.json`: `{"PinMap": {cid: pin, …}, "Version": 2}`.

use std::fmt;
use std::io::{BufRead, Read};

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, Visitor};

/// Maximum size of a value, in bytes. A pin has some 400.
const VALUE_MAX: usize = 1 << 20;

/// Bytes read at once where there are no line ends.
const CHUNK: u64 = 64 << 10;

/// A problem, with its line, from 1.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct Problem {
    pub(super) line: u64,
    pub(super) what: String,
}

/// Maximum length of a problem's description, in characters: it may quote the value.
const WHAT_MAX: usize = 300;

impl Problem {
    /// Returns a problem in `line`, shortened for display.
    pub(super) fn new(line: u64, what: &str) -> Self {
        let what = match what.char_indices().nth(WHAT_MAX) {
            Some((end, _)) => format!("{}…", &what[..end]),
            None => what.to_owned(),
        };
        Self { line, what }
    }
}

/// Reason to stop reading early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// Invalid content.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// A read error.
    #[error("cannot read: {0}")]
    Io(#[from] std::io::Error),
    /// The callback returned an error.
    #[error(transparent)]
    Taker(anyhow::Error),
}

/// Reads all values and passes each to `take`, with its line and, in a map, its key. Invalid values, and
/// values that `take` finds a problem with, go to `bad`: reading ends if that returns an error, and
/// otherwise continues after the value or, where the text is not JSON, in the next line.
pub(super) fn read<T, R, F, B>(mut reader: R, mut take: F, mut bad: B) -> Result<(), Stopped>
where
    T: DeserializeOwned,
    R: BufRead,
    F: FnMut(u64, Option<String>, T) -> Result<(), Stopped>,
    B: FnMut(Problem) -> Result<(), Stopped>,
{
    let mut take = |line, key, value: Result<T, Problem>| {
        let taken = match value {
            Ok(value) => take(line, key, value),
            Err(problem) => Err(problem.into()),
        };
        match taken {
            Err(Stopped::Problem(problem)) => bad(problem),
            taken => taken,
        }
    };
    if is_map(reader.fill_buf()?) {
        return read_map(reader, take);
    }
    let mut values = Values::new(reader);
    loop {
        match values.next() {
            Ok(Some((line, value))) => take(line, None, Ok(value))?,
            Ok(None) => return Ok(()),
            Err(Stopped::Problem(problem)) => {
                take(problem.line, None, Err(problem))?;
                values.skip_bad()?;
            }
            Err(stopped) => return Err(stopped),
        }
    }
}

/// Returns whether this is the start of the map of Go ipfs-cluster 0.0.12.
fn is_map(start: &[u8]) -> bool {
    let strip = |text: &[u8]| text.trim_ascii_start().to_vec();
    let start = strip(&start[..start.len().min(CHUNK as usize)]);
    let inside = start.strip_prefix(b"{").map(strip).unwrap_or_default();
    inside.starts_with(b"\"PinMap\"") || inside.starts_with(b"\"Version\"")
}

/// True if the values are in an array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Unknown,
    Stream,
    Array,
    ClosedArray,
}

struct Values<R> {
    reader: R,
    buffer: Vec<u8>,
    start: usize,
    /// Line number of `buffer[start]`.
    line: u64,
    shape: Shape,
}

impl<R: BufRead> Values<R> {
    fn new(reader: R) -> Self {
        Self {
            reader,
            buffer: Vec::new(),
            start: 0,
            line: 1,
            shape: Shape::Unknown,
        }
    }

    fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(u64, T)>, Stopped> {
        loop {
            self.skip()?;
            if self.start == self.buffer.len() {
                if self.more()? > 0 {
                    continue;
                }
                if self.shape == Shape::Array {
                    return Err(self.problem(self.line, "the list ends without \"]\": is the file whole?"));
                }
                return Ok(None);
            }
            let mut parsed = serde_json::Deserializer::from_slice(&self.buffer[self.start..]).into_iter();
            let error = match parsed.next() {
                Some(Ok(value)) => {
                    let (line, end) = (self.line, parsed.byte_offset());
                    self.advance(end);
                    return Ok(Some((line, value)));
                }
                Some(Err(error)) => error,
                // Only white space, which was skipped.
                None => continue,
            };
            if !error.is_eof() {
                return Err(self.nonsense(&error));
            }
            if self.buffer.len() - self.start > VALUE_MAX {
                let what = format!("a value of more than {VALUE_MAX} bytes is no pin");
                return Err(self.problem(self.line, &what));
            }
            self.at_least_half_as_much_again()?;
        }
    }

    /// Reads more of a value, by so much that a value of many lines is not parsed once for each.
    fn at_least_half_as_much_again(&mut self) -> Result<(), Stopped> {
        let wanted = (self.buffer.len() - self.start) / 2;
        let mut got = 0;
        while got <= wanted {
            match self.more()? {
                0 if got == 0 => {
                    return Err(self.problem(self.line, "the file ends within this value: is it whole?"));
                }
                0 => break,
                bytes => got += bytes,
            }
        }
        Ok(())
    }

    /// Skips an invalid value: all of it where it is JSON, to the end of its first line where it is not.
    fn skip_bad(&mut self) -> Result<(), Stopped> {
        if self.start == self.buffer.len() {
            // The list was not closed, and this is the end.
            self.shape = Shape::ClosedArray;
            return Ok(());
        }
        while self.buffer.len() - self.start <= VALUE_MAX {
            let rest = &self.buffer[self.start..];
            let mut values = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
            match values.next() {
                Some(Ok(_)) => {
                    let end = values.byte_offset();
                    self.advance(end);
                    return Ok(());
                }
                Some(Err(error)) if error.is_eof() && self.at_least_half_as_much_again().is_ok() => {}
                Some(Err(_)) | None => break,
            }
        }
        self.skip_line()
    }

    fn skip_line(&mut self) -> Result<(), Stopped> {
        loop {
            let rest = &self.buffer[self.start..];
            if let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                self.advance(end + 1);
                return Ok(());
            }
            self.advance(rest.len());
            if self.more()? == 0 {
                return Ok(());
            }
        }
    }

    /// Skips white space, and the separators of an array.
    fn skip(&mut self) -> Result<(), Stopped> {
        while let Some(&byte) = self.buffer.get(self.start) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {}
                b'[' if self.shape == Shape::Unknown => self.shape = Shape::Array,
                b',' if self.shape == Shape::Array => {}
                b']' if self.shape == Shape::Array => self.shape = Shape::ClosedArray,
                _ if self.shape == Shape::ClosedArray => {
                    return Err(self.problem(self.line, "something follows the end of the list"));
                }
                _ => {
                    if self.shape == Shape::Unknown {
                        self.shape = Shape::Stream;
                    }
                    return Ok(());
                }
            }
            self.advance(1);
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.buffer[self.start..self.start + bytes];
        self.line += passed.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.start += bytes;
    }

    /// Reads to the end of a line or a chunk; returns 0 at the end of the input.
    fn more(&mut self) -> Result<usize, Stopped> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let mut chunk = Read::by_ref(&mut self.reader).take(CHUNK);
        Ok(chunk.read_until(b'\n', &mut self.buffer)?)
    }

    fn nonsense(&self, error: &serde_json::Error) -> Stopped {
        let below = (error.line() as u64).saturating_sub(1);
        let what = without_place(error);
        match below {
            0 => self.problem(self.line, &what),
            below => {
                let what = format!("{what}, in the value that starts in line {}", self.line);
                self.problem(self.line + below, &what)
            }
        }
    }

    fn problem(&self, line: u64, what: &str) -> Stopped {
        Stopped::Problem(Problem::new(line, what))
    }
}

/// Returns the message without serde's line and column, which count from the start of the value.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) => format!("{what} (column {})", error.column()),
        None => text,
    }
}

fn read_map<T, R, F>(reader: R, mut take: F) -> Result<(), Stopped>
where
    T: DeserializeOwned,
    R: BufRead,
    F: FnMut(u64, Option<String>, Result<T, Problem>) -> Result<(), Stopped>,
{
    let mut stopped = None;
    let mut parser = serde_json::Deserializer::from_reader(reader);
    let mut number = 0;
    let outer = Outer {
        take: &mut |key, value| {
            number += 1;
            // Compact text has one line; the number of the map's entry is more helpful.
            let value = T::deserialize(value).map_err(|error| Problem::new(number, &error.to_string()));
            take(number, Some(key), value)
        },
        stopped: &mut stopped,
    };
    let read = outer.deserialize(&mut parser).and_then(|()| parser.end());
    if let Some(stopped) = stopped {
        return Err(stopped);
    }
    read.map_err(|error| Stopped::Problem(Problem::new(error.line() as u64, &without_place(&error))))
}

/// The map around `PinMap`.
struct Outer<'a> {
    take: &'a mut dyn FnMut(String, serde_json::Value) -> Result<(), Stopped>,
    stopped: &'a mut Option<Stopped>,
}

/// `PinMap` itself.
struct PinMap<'a, 'b>(&'a mut Outer<'b>);

impl<'de> DeserializeSeed<'de> for Outer<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Outer<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a state with a PinMap")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            if key == "PinMap" {
                map.next_value_seed(PinMap(&mut self))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for PinMap<'_, '_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for PinMap<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pins by their CIDs")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry::<String, serde_json::Value>()? {
            if let Err(stopped) = (self.0.take)(key, value) {
                *self.0.stopped = Some(stopped);
                return Err(serde::de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(u64, Option<String>, u64)>, String> {
        let mut found = Vec::new();
        let reader = std::io::BufReader::with_capacity(7, text.as_bytes());
        let take = |line, key, value| {
            found.push((line, key, value));
            Ok(())
        };
        let read = read(reader, take, |problem| Err(problem.into()));
        read.map(|()| found).map_err(|stopped| stopped.to_string())
    }

    /// Returns the valid values, and the lines of the invalid ones.
    fn good(text: &str) -> (Vec<u64>, Vec<u64>) {
        let (mut found, mut problems) = (Vec::new(), Vec::new());
        // Large enough to distinguish a map from other values.
        let reader = std::io::BufReader::with_capacity(9, text.as_bytes());
        let take = |line, _, value: u64| {
            if value == 13 {
                return Err(Problem::new(line, "thirteen").into());
            }
            found.push(value);
            Ok(())
        };
        let bad = |problem: Problem| {
            problems.push(problem.line);
            Ok(())
        };
        read(reader, take, bad).unwrap();
        (found, problems)
    }

    #[test]
    fn streams_and_arrays_give_their_values_with_their_lines() {
        let plain = |lines: &[(u64, u64)]| lines.iter().map(|(l, v)| (*l, None, *v)).collect::<Vec<_>>();
        assert_eq!(all("1\n2\n\n3"), Ok(plain(&[(1, 1), (2, 2), (4, 3)])));
        assert_eq!(all("1 2\n3\n"), Ok(plain(&[(1, 1), (1, 2), (2, 3)])));
        assert_eq!(all("[1,\n 2,\n 3]\n"), Ok(plain(&[(1, 1), (2, 2), (3, 3)])));
        assert_eq!(all(""), Ok(vec![]));
        assert_eq!(all("[]"), Ok(vec![]));
    }

    #[test]
    fn problems_have_their_line() {
        let unfinished = all("1\n2\n[1").unwrap_err();
        assert!(unfinished.starts_with("line 3: "), "{unfinished}");
        assert_eq!(
            all("[1,2").unwrap_err(),
            "line 1: the list ends without \"]\": is the file whole?"
        );
        assert!(all("1\nx\n").unwrap_err().starts_with("line 2: expected value"));
        assert!(
            all("[1]\n2")
                .unwrap_err()
                .starts_with("line 2: something follows")
        );
    }

    #[test]
    fn an_endless_value_is_read_up_to_the_limit_only() {
        let text = format!("1\n\"{}", "x".repeat(3 * VALUE_MAX));
        let error = all(&text).unwrap_err();
        assert!(error.starts_with("line 2: "), "{error}");
    }

    #[test]
    fn invalid_values_can_be_skipped() {
        for (text, values, bad) in [
            ("1\n\"x\"\n3\n", vec![1, 3], vec![2]),
            ("1\n13\n3\n", vec![1, 3], vec![2]),
            ("1\nnonsense [\n3\n", vec![1, 3], vec![2]),
            // A value that is JSON is skipped as a whole, with all its lines.
            ("1\n{\"a\":\n{}}\n3\n", vec![1, 3], vec![2]),
            // A truncated value does not affect the others.
            ("{\"a\":\n2\n3", vec![2, 3], vec![1]),
            ("1\n\"cut off", vec![1], vec![2]),
            ("[1,\n\"x\",\n13,\n4]\n", vec![1, 4], vec![2, 3]),
            ("[1,\n2", vec![1, 2], vec![2]),
            ("[1]\n2\n", vec![1], vec![2]),
            ("{\"PinMap\":{\"a\":1,\"b\":\"x\",\"c\":3}}", vec![1, 3], vec![2]),
        ] {
            assert_eq!(good(text), (values, bad), "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in "[\\[\\]{}\",:0-9a-z \\n]{0,60}") {
            let _ = all(&text);
            let _ = all(&format!("{{\"PinMap\":{text}"));
            let _ = good(&text);
        }
    }
}
