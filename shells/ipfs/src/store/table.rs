//! Table of segments, with the live bytes of each; owned by the writing thread.

use super::segments::{Files, HEADER_BYTES, Place, write_error};
use crate::Error;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Recorded usage of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Usage {
    /// Offset of the next block.
    pub(super) end: u64,
    /// Bytes of live blocks.
    pub(super) live: u64,
}

impl Usage {
    /// Returns the bytes of all blocks written to the segment.
    pub(super) fn held(&self) -> u64 {
        self.end.saturating_sub(HEADER_BYTES)
    }

    /// Returns the bytes of dead blocks.
    pub(super) fn waste(&self) -> u64 {
        self.held().saturating_sub(self.live)
    }
}

/// All segments and their usage.
#[derive(Debug)]
pub(super) struct Table {
    files: Arc<Files>,
    /// Size limit; see [`super::segments::SEGMENT_BYTES`].
    size: u64,
    usage: BTreeMap<u32, Usage>,
    /// The segment being written, if any.
    active: Option<(u32, Arc<File>)>,
    /// Number of the next segment. Numbers are never reused, so that an old place never shows other bytes.
    next: u32,
    /// Segments written since the last sync.
    unsynced: BTreeMap<u32, Arc<File>>,
    /// Segments changed since the last record.
    changed: BTreeSet<u32>,
    /// Dead segments, to be removed once the database durably has no reference to them.
    doomed: BTreeSet<u32>,
}

/// Changes to record in the database.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) usage: Vec<(u32, Usage)>,
    pub(super) dead: Vec<u32>,
    pub(super) next: u32,
}

impl Table {
    /// Restores the table from `usage`, which [`super::open`] has checked.
    pub(super) fn resume(
        files: Arc<Files>,
        size: u64,
        usage: BTreeMap<u32, Usage>,
        next: u32,
    ) -> Result<Table, Error> {
        let active = match usage.last_key_value() {
            Some((number, last)) if last.end < size => Some((*number, files.resume(*number, last.end)?)),
            Some(_) | None => None,
        };
        Ok(Table {
            files,
            size,
            usage,
            active,
            next,
            unsynced: BTreeMap::new(),
            changed: BTreeSet::new(),
            doomed: BTreeSet::new(),
        })
    }

    /// Appends blocks, each given with its checksum; not durable yet. After a failure nothing refers to the
    /// bytes already written.
    pub(super) fn append<'a>(
        &mut self,
        blocks: impl Iterator<Item = (&'a Bytes, u32)>,
    ) -> Result<Vec<Place>, Error> {
        let mut places: Vec<Place> = Vec::new();
        for (data, crc) in blocks {
            match self.append_one(data, crc) {
                Ok(place) => places.push(place),
                Err(error) => {
                    places.iter().for_each(|place| self.drop_block(place));
                    return Err(error);
                }
            }
        }
        Ok(places)
    }

    fn append_one(&mut self, data: &Bytes, crc: u32) -> Result<Place, Error> {
        let length = data.len() as u64;
        let (segment, file) = self.active_for(length)?;
        let usage = self.usage.entry(segment).or_insert(Usage {
            end: HEADER_BYTES,
            live: 0,
        });
        let out_of_range = || Error::invalid(format!("a block of {length} bytes fits in no segment"));
        let place = Place {
            segment,
            offset: u32::try_from(usage.end).map_err(|_| out_of_range())?,
            length: u32::try_from(length).map_err(|_| out_of_range())?,
            crc,
        };
        let written = file.write_all_at(data, usage.end);
        written.map_err(|error| write_error(&self.files.path(segment), error))?;
        usage.end += length;
        usage.live += length;
        self.changed.insert(segment);
        self.unsynced.insert(segment, file);
        Ok(place)
    }

    fn active_for(&mut self, length: u64) -> Result<(u32, Arc<File>), Error> {
        if let Some((number, file)) = &self.active {
            let end = self.usage.get(number).map_or(HEADER_BYTES, |usage| usage.end);
            if end + length <= self.size || end == HEADER_BYTES {
                return Ok((*number, file.clone()));
            }
            // The next record drops it if it is wholly dead already.
            self.changed.insert(*number);
        }
        let number = self.next;
        let file = self.files.create(number)?;
        let Some(next) = number.checked_add(1) else {
            return Err(Error::Store("the numbers of segments are used up".into()));
        };
        self.next = next;
        self.active = Some((number, file.clone()));
        Ok((number, file))
    }

    /// Counts the block at this place as dead.
    pub(super) fn drop_block(&mut self, place: &Place) {
        if let Some(usage) = self.usage.get_mut(&place.segment) {
            usage.live = usage.live.saturating_sub(u64::from(place.length));
            self.changed.insert(place.segment);
        }
    }

    /// Returns the segments with enough dead bytes to be worth freeing, none of which is still written to:
    /// holes can be punched into them, or their live blocks moved.
    pub(super) fn wasteful(&mut self) -> Vec<(u32, Usage)> {
        let wastes = |share: u64, usage: &Usage| usage.waste() * share > usage.held();
        // The active segment is closed early only for much waste, since each run would add a file.
        if let Some((number, _)) = &self.active
            && self.usage.get(number).is_some_and(|usage| wastes(4, usage))
        {
            self.active = None;
        }
        let active = self.active();
        let found: Vec<(u32, Usage)> = self
            .usage
            .iter()
            .filter(|(number, usage)| Some(**number) != active && wastes(16, usage))
            .map(|(number, usage)| (*number, *usage))
            .collect();
        // The next record drops those that are wholly dead.
        self.changed.extend(found.iter().map(|(number, _)| number));
        found
    }

    /// Makes all appended blocks durable.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        for (number, file) in &self.unsynced {
            file.sync_data()
                .map_err(|error| write_error(&self.files.path(*number), error))?;
        }
        self.unsynced.clear();
        Ok(())
    }

    /// Returns whether all appended blocks are durable.
    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Returns whether there are changes to record.
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Returns the changes since [`Table::recorded`].
    pub(super) fn changes(&self) -> Changes {
        let mut changes = Changes {
            next: self.next,
            ..Changes::default()
        };
        let active = self.active.as_ref().map(|(number, _)| *number);
        for number in &self.changed {
            match self.usage.get(number) {
                Some(usage) if usage.live == 0 && Some(*number) != active => changes.dead.push(*number),
                Some(usage) => changes.usage.push((*number, *usage)),
                None => {}
            }
        }
        changes
    }

    /// Notes that the database has recorded the changes; if they are `durable`, removes dead segments.
    pub(super) fn recorded(&mut self, changes: &Changes, durable: bool) {
        self.changed.clear();
        for number in &changes.dead {
            self.usage.remove(number);
            self.doomed.insert(*number);
        }
        if durable {
            for number in std::mem::take(&mut self.doomed) {
                self.files.remove(number);
            }
        }
    }

    /// Returns the number of the segment being written.
    pub(super) fn active(&self) -> Option<u32> {
        self.active.as_ref().map(|(number, _)| *number)
    }
}
