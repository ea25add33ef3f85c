//! External sort: orders records by key in constant memory. Records that do not fit are kept in a file, in
//! sorted runs that are merged at the end.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::store::StoreError;

/// Bytes of keys and values sorted in memory at once: some hundred thousand pins.
const RUN: usize = 32 << 20;

/// Memory for reading all runs together, in bytes.
const READING: usize = 16 << 20;

/// Collects records in any order and returns them in the order of their keys.
pub(in crate::store) struct Sorter {
    /// Unlinked, so that it vanishes with the process.
    file: File,
    runs: Vec<Range<u64>>,
    /// Keys and values of the records that are not in a run yet.
    bytes: Vec<u8>,
    records: Vec<Record>,
    limit: usize,
}

/// Position of a record in `bytes`, its value after its key.
#[derive(Clone, Copy)]
struct Record {
    /// First bytes of the key: most keys differ there.
    prefix: u64,
    at: u32,
    key: u16,
    value: u32,
}

impl Record {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at as usize..][..self.key.into()]
    }

    fn value<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.at as usize + usize::from(self.key)..][..self.value as usize]
    }
}

impl Sorter {
    /// Creates the file for records that do not fit into memory at `path`, which must be free.
    pub(in crate::store) fn new(path: &Path) -> Result<Self, StoreError> {
        Self::with_run(path, RUN)
    }

    /// As [`Sorter::new`], with another number of bytes sorted in memory at once.
    pub(in crate::store) fn with_run(path: &Path, bytes: usize) -> Result<Self, StoreError> {
        Self::with_limit(path, bytes).map_err(StoreError::Sort)
    }

    fn with_limit(path: &Path, limit: usize) -> io::Result<Self> {
        let mut options = File::options();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        fs::remove_file(path)?;
        Ok(Self {
            file,
            runs: Vec::new(),
            bytes: Vec::new(),
            records: Vec::new(),
            limit,
        })
    }

    /// Adds a record. [`Sorter::each`] marks the last one of several with the same key.
    pub(in crate::store) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.try_put(key, value).map_err(StoreError::Sort)
    }

    fn try_put(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let (Ok(key_len), Ok(value_len)) = (u16::try_from(key.len()), u32::try_from(value.len())) else {
            return Err(io::Error::other("a key or a value is too long"));
        };
        if self.bytes.len() + key.len() + value.len() > self.limit {
            self.end_run()?;
        }
        let at = u32::try_from(self.bytes.len()).map_err(io::Error::other)?;
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value);
        self.records.push(Record {
            prefix: prefix(key),
            at,
            key: key_len,
            value: value_len,
        });
        Ok(())
    }

    fn end_run(&mut self) -> io::Result<()> {
        let bytes = &self.bytes;
        // A stable sort: records with the same key stay in the order in which they were put.
        self.records.sort_by(|a, b| {
            let by_key = || a.key(bytes).cmp(b.key(bytes));
            a.prefix.cmp(&b.prefix).then_with(by_key)
        });
        let start = self.runs.last().map_or(0, |run| run.end);
        let mut out = BufWriter::with_capacity(READING / 16, &self.file);
        let mut end = start;
        for record in &self.records {
            out.write_all(&record.key.to_le_bytes())?;
            out.write_all(&record.value.to_le_bytes())?;
            out.write_all(record.key(bytes))?;
            out.write_all(record.value(bytes))?;
            end += HEADER as u64 + u64::from(record.key) + u64::from(record.value);
        }
        out.flush()?;
        drop(out);
        if end > start {
            self.runs.push(start..end);
        }
        self.bytes.clear();
        self.records.clear();
        Ok(())
    }

    /// Returns whether no record was put.
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.runs.is_empty()
    }

    /// Calls `visit` with all records in the order of their keys, those with the same key in the order in
    /// which they were put: key, value, and whether another one with the same key follows.
    pub(in crate::store) fn each(
        mut self,
        mut visit: impl FnMut(&[u8], &[u8], bool) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.end_run().map_err(StoreError::Sort)?;
        // Frees that memory for the merge.
        (self.bytes, self.records) = (Vec::new(), Vec::new());
        let mut sources = self.sources().map_err(StoreError::Sort)?;
        let (mut key, mut value) = (Vec::new(), Vec::new());
        loop {
            let Some(mut first) = sources.peek_mut() else {
                return Ok(());
            };
            std::mem::swap(&mut key, &mut first.key);
            std::mem::swap(&mut value, &mut first.value);
            if first.advance().map_err(StoreError::Sort)? {
                // Dropping the guard moves the run to its new place in the heap.
                drop(first);
            } else {
                PeekMut::pop(first);
            }
            let again = sources.peek().is_some_and(|next| next.key == key);
            visit(&key, &value, again)?;
        }
    }

    /// Opens the runs, each at its first record.
    fn sources(&self) -> io::Result<BinaryHeap<Source<'_>>> {
        let buffer = (READING / self.runs.len().max(1)).clamp(4 << 10, 256 << 10);
        let mut sources = BinaryHeap::with_capacity(self.runs.len());
        for (number, run) in self.runs.iter().enumerate() {
            let place = Place {
                file: &self.file,
                range: run.clone(),
            };
            let mut source = Source {
                place: BufReader::with_capacity(buffer, place),
                number,
                key: Vec::new(),
                value: Vec::new(),
            };
            if source.advance()? {
                sources.push(source);
            }
        }
        Ok(sources)
    }
}

/// Bytes before each record of a run: the lengths of its key and its value.
const HEADER: usize = 2 + 4;

fn prefix(key: &[u8]) -> u64 {
    let mut start = [0; 8];
    let len = key.len().min(8);
    start[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(start)
}

/// Unread part of a run.
struct Place<'a> {
    file: &'a File,
    range: Range<u64>,
}

impl Read for Place<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.range.start)?;
        self.range.start += read as u64;
        Ok(read)
    }
}

/// A run, and its next record.
struct Source<'a> {
    place: BufReader<Place<'a>>,
    number: usize,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl Source<'_> {
    /// Reads the next record; `false` at the end of the run.
    fn advance(&mut self) -> io::Result<bool> {
        let mut header = [0; HEADER];
        if self.place.buffer().is_empty() && self.place.get_ref().range.is_empty() {
            return Ok(false);
        }
        self.place.read_exact(&mut header)?;
        let [k0, k1, value @ ..] = header;
        self.key.resize(u16::from_le_bytes([k0, k1]).into(), 0);
        self.value.resize(u32::from_le_bytes(value) as usize, 0);
        self.place.read_exact(&mut self.key)?;
        self.place.read_exact(&mut self.value)?;
        Ok(true)
    }
}

impl Ord for Source<'_> {
    /// Reversed, because a heap has the greatest on top: the smallest key, of the oldest run.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .key
            .cmp(&self.key)
            .then_with(|| other.number.cmp(&self.number))
    }
}

impl PartialOrd for Source<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Source<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Source<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn records_are_returned_by_key_and_then_in_put_order(
            keys in proptest::collection::vec(proptest::collection::vec(0_u8..3, 0..11), 0..200),
            limit in 30_usize..1000,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::with_limit(&folder.path().join("runs"), limit).unwrap();
            let mut expected = Vec::new();
            for (number, key) in keys.into_iter().enumerate() {
                let value = u32::try_from(number).unwrap().to_be_bytes()[..number % 5].to_vec();
                sorter.put(&key, &value).unwrap();
                expected.push((key, value));
            }
            expected.sort_by(|a, b| a.0.cmp(&b.0));
            let mut found = Vec::new();
            let taken = sorter.each(|key, value, again| {
                found.push((key.to_vec(), value.to_vec(), again));
                Ok(())
            });
            taken.unwrap();
            let again = |at: usize| expected.get(at + 1).is_some_and(|next| next.0 == expected[at].0);
            let expected: Vec<_> = expected
                .iter()
                .enumerate()
                .map(|(at, (key, value))| (key.clone(), value.clone(), again(at)))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        }
    }
}
