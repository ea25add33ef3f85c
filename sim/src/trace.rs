//! Trace of a run: always as a hash, so that two runs can be compared, and as text on demand.

use std::fmt;

use postcard::ser_flavors::Flavor;
use serde::Serialize;

use crate::rng;

/// The trace of a run.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hash: u64,
    latest: u64,
    buffer: Vec<u8>,
    /// The text, when it is wanted.
    pub(crate) lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(keep: bool) -> Self {
        Self {
            lines: keep.then(Vec::new),
            ..Self::default()
        }
    }

    /// Adds a step to the hash.
    pub(crate) fn step(&mut self, at: u64, peer: usize, what: &impl Serialize) {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        self.buffer =
            postcard::serialize_with_flavor(what, Buffer(buffer)).expect("events and effects can be written");
        let step = rng::hash(&self.buffer) ^ rng::mix(at ^ ((peer as u64) << 56));
        self.hash = rng::mix(self.hash.rotate_left(1) ^ step);
        self.latest = at;
    }

    /// Adds a line of text.
    pub(crate) fn line(&mut self, at: u64, who: impl fmt::Display, what: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            let (seconds, micros) = (at / 1_000_000_000, at % 1_000_000_000 / 1000);
            lines.push(format!("{seconds:5}.{micros:06} {who:6} {}", what()));
        }
    }

    /// Returns the simulated time of the latest step, in nanoseconds.
    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

/// Output of postcard that keeps its memory from step to step.
struct Buffer(Vec<u8>);

impl Flavor for Buffer {
    type Output = Vec<u8>;

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Self::Output> {
        Ok(self.0)
    }
}
