//! Record of imported CIDs, for the next run.

use crate::failure::Failure;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

/// File with the imported CIDs, one a line. Without a file, it records nothing.
pub(super) struct Record {
    file: Option<BufWriter<File>>,
    /// Two hashes of each CID that the file had: 16 bytes, however long the CID is.
    known: HashSet<(u64, u64)>,
    hashers: [RandomState; 2],
}

impl Record {
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Failure> {
        let mut record = Self {
            file: None,
            known: HashSet::new(),
            hashers: [RandomState::new(), RandomState::new()],
        };
        let Some(path) = path else {
            return Ok(record);
        };
        let failed = |error| Failure::local("opening the record", format!("{}: {error}", path.display()));
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path)
            .map_err(failed)?;
        let mut ends = true;
        let mut lines = BufReader::new(&file);
        let mut line = String::new();
        while lines.read_line(&mut line).map_err(failed)? > 0 {
            ends = line.ends_with('\n');
            // A line that was cut short is no CID: it is imported again.
            if ends {
                let key = record.key(line.trim_end());
                record.known.insert(key);
            }
            line.clear();
        }
        let mut file = BufWriter::new(file);
        if !ends {
            file.write_all(b"\n").map_err(failed)?;
        }
        record.file = Some(file);
        Ok(record)
    }

    fn key(&self, cid: &str) -> (u64, u64) {
        let [first, second] = &self.hashers;
        (first.hash_one(cid), second.hash_one(cid))
    }

    /// Returns whether an earlier run imported a CID.
    pub(super) fn has(&self, cid: &str) -> bool {
        !self.known.is_empty() && self.known.contains(&self.key(cid))
    }

    /// Records an imported CID.
    pub(super) fn add(&mut self, cid: &str) -> Result<(), Failure> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        writeln!(file, "{cid}").map_err(|error| Failure::local("writing the record", error))
    }

    /// Hands everything to the operating system.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.file.as_mut().map_or(Ok(()), BufWriter::flush);
        flushed.map_err(|error| Failure::local("writing the record", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_cids_are_known_to_the_next_run_but_a_torn_line_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("done");
        let mut record = Record::open(Some(&path)).unwrap();
        record.add("one").unwrap();
        record.add("two").unwrap();
        assert!(!record.has("one"));
        record.flush().unwrap();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"thr").unwrap();
        let mut record = Record::open(Some(&path)).unwrap();
        assert!(record.has("one") && record.has("two"));
        assert!(!record.has("thr"));
        record.add("three").unwrap();
        record.flush().unwrap();
        let record = Record::open(Some(&path)).unwrap();
        assert!(record.has("three") && record.has("one"));
    }
}
