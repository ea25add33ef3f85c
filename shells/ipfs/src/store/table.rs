//! Which segments there are and how much of each is alive: the writing thread's own account of them.

use super::segments::{Files, HEADER_BYTES, Place, write_error};
use crate::Error;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// What is recorded of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Usage {
    /// Where the next block goes.
    pub(super) end: u64,
    /// Bytes of blocks that are still here.
    pub(super) live: u64,
}

impl Usage {
    /// Bytes of all blocks that were written here.
    pub(super) fn held(&self) -> u64 {
        self.end.saturating_sub(HEADER_BYTES)
    }

    /// Bytes of blocks that are no longer here.
    pub(super) fn waste(&self) -> u64 {
        self.held().saturating_sub(self.live)
    }
}

/// All segments.
#[derive(Debug)]
pub(super) struct Table {
    files: Arc<Files>,
    /// See [`super::segments::SEGMENT_BYTES`].
    size: u64,
    usage: BTreeMap<u32, Usage>,
    /// The one that is written, if any is.
    active: Option<(u32, Arc<File>)>,
    /// Never used again, so that an old place never shows other bytes.
    next: u32,
    /// Written since the last sync.
    unsynced: BTreeMap<u32, Arc<File>>,
    /// Changed since the last record.
    changed: BTreeSet<u32>,
    /// Dead, to be removed once the database durably knows nothing of them.
    doomed: BTreeSet<u32>,
}

/// What the database is to be told.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) usage: Vec<(u32, Usage)>,
    pub(super) dead: Vec<u32>,
    pub(super) next: u32,
}

impl Table {
    /// Goes on where `usage`, which [`super::open`] has checked, ends.
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

    /// Writes blocks, each given with its checksum; not durable yet. A failure leaves nothing behind that
    /// matters.
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
            // If it is wholly dead already, the next record drops it.
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

    /// A block is no longer needed at this place.
    pub(super) fn drop_block(&mut self, place: &Place) {
        if let Some(usage) = self.usage.get_mut(&place.segment) {
            usage.live = usage.live.saturating_sub(u64::from(place.length));
            self.changed.insert(place.segment);
        }
    }

    /// The segments with dead bytes that are worth freeing, none of which is written any more: holes can be
    /// made in them, or what lives there can be moved.
    pub(super) fn wasteful(&mut self) -> Vec<(u32, Usage)> {
        let wastes = |share: u64, usage: &Usage| usage.waste() * share > usage.held();
        // The active segment is closed early only for much waste: it would be one more file for each run.
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

    /// Makes all blocks durable that were appended.
    pub(super) fn sync(&mut self) -> Result<(), Error> {
        for (number, file) in &self.unsynced {
            file.sync_data()
                .map_err(|error| write_error(&self.files.path(*number), error))?;
        }
        self.unsynced.clear();
        Ok(())
    }

    /// Whether all that was appended is durable.
    pub(super) fn is_synced(&self) -> bool {
        self.unsynced.is_empty()
    }

    /// Whether anything is to be recorded.
    pub(super) fn is_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What has changed since [`Table::recorded`].
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

    /// The database has taken the changes; if that is `durable`, dead segments are removed.
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

    /// The number of the segment that is written.
    pub(super) fn active(&self) -> Option<u32> {
        self.active.as_ref().map(|(number, _)| *number)
    }
}
