//! Compaction: frees the disk space of removed blocks, in three steps. The first two need no free space:
//!
//! 1. segments without a live block are deleted;
//! 2. holes are punched where no live block is, if the file system supports it;
//! 3. live blocks of segments that are still mostly waste are rewritten, as far as there is room.
//!
//! A segment is removed, and a hole is punched, only where the database durably refers to nothing. So after a
//! crash at any moment each block is at its old or its new place, and at worst a file remains that the next
//! opening removes. The next run also finds the waste that an interrupted one leaves, which needs no record.

use super::index::Entry;
use super::reserve::FLOOR_BYTES;
use super::segments::{HEADER_BYTES, Place, Read};
use super::table::Usage;
use super::writer::{Op, Reply, Request};
use super::{Open, Store};
use crate::Error;
use fjall::{Keyspace, Readable};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes rewritten per request; other writes are served in between.
const MOVE_BYTES: u64 = 4 << 20;
/// Time limit of waiting for a flush of the database, and polling interval. Tables flushed later are freed by
/// the next collection.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

impl Store {
    /// Frees the disk space of removed blocks. Blocks the thread, for seconds; not for async tasks.
    pub(crate) fn compact(&self) -> Result<(), Error> {
        self.compact_in_steps(&mut || {})
    }

    /// As [`Store::compact`]; calls `step` after each change of what a crash would leave.
    pub(super) fn compact_in_steps(&self, step: &mut dyn FnMut()) -> Result<(), Error> {
        let mut wasteful = self.free_in_place()?;
        step();
        let open = self.db()?;
        wasteful.retain(|(segment, usage)| is_worth_moving(&open, *segment, usage));
        // Segments that cost least to move first.
        wasteful.sort_unstable_by_key(|(_, usage)| usage.live);
        while !wasteful.is_empty() {
            let room = open.files.room().unwrap_or(u64::MAX);
            let group = take_fitting(&mut wasteful, room.saturating_sub(2 * FLOOR_BYTES));
            if group.is_empty() {
                let left = wasteful.iter().map(|(_, usage)| usage.waste()).sum::<u64>();
                tracing::warn!(
                    "the disk is too full to move blocks of the ipfs repository; up to {left} bytes of {} \
                     segments stay unused until there is room",
                    wasteful.len()
                );
                break;
            }
            self.rewrite_segments(&open, &group, step)?;
        }
        compact_tables(&open)?;
        step();
        Ok(())
    }

    /// Frees what can be freed without writing blocks: dead segments, and whole pages of other segments.
    pub(crate) fn free_whole_pages(&self) -> Result<(), Error> {
        self.free_in_place().map(drop)
    }

    /// Returns whether the disk has less room than the store keeps free.
    pub(crate) fn is_short_of_room(&self) -> Result<bool, Error> {
        Ok(self.db()?.files.is_short_of_room())
    }

    /// Returns the bytes of disk that blocks occupy, in segments and in the database's tables.
    pub(crate) fn occupied(&self) -> Result<u64, Error> {
        let open = self.db()?;
        Ok(open
            .files
            .allocated_all()?
            .saturating_add(open.blocks.disk_space()))
    }

    /// Frees the reserve of a full disk, because deletions need some room.
    pub(crate) fn release_reserve(&self) -> Result<(), Error> {
        self.db()?.reserve.release_if_short();
        Ok(())
    }

    /// Restores the reserve if there is enough room.
    pub(crate) fn fill_reserve(&self) -> Result<(), Error> {
        self.db()?.reserve.fill();
        Ok(())
    }

    /// Removes dead segments, punches holes into wasteful ones, and returns those that have dead bytes.
    fn free_in_place(&self) -> Result<Vec<(u32, Usage)>, Error> {
        // Synced, so that the database records every block of these segments, and dead segments are removed.
        let mut wasteful = self.ask(Op::Wasteful)?.wasteful;
        wasteful.retain(|(_, usage)| usage.live > 0);
        let open = self.db()?;
        let files = &open.files;
        let has_holes = |(segment, usage): &(u32, Usage)| match files.allocated(*segment) {
            Ok(allocated) => allocated > usage.live.saturating_add(usage.held() / 16),
            Err(_) => false,
        };
        let to_punch: HashMap<u32, u64> = wasteful
            .iter()
            .filter(|it| has_holes(it))
            .map(|(segment, usage)| (*segment, usage.end))
            .collect();
        punch(&open, &to_punch)?;
        Ok(wasteful)
    }

    /// Rewrites the live blocks of these segments, and removes the segments.
    fn rewrite_segments(
        &self,
        open: &Open,
        group: &HashSet<u32>,
        step: &mut dyn FnMut(),
    ) -> Result<(), Error> {
        let (mut batch, mut stream_in_batches) = (Vec::new(), 0);
        for guard in open.db.snapshot().iter(&open.blocks) {
            let (key, value) = guard.into_inner()?;
            let place = match Entry::decode(value.into())? {
                Entry::At(place) if group.contains(&place.segment) => place,
                Entry::At(_) | Entry::Inline(_) => continue,
            };
            stream_in_batches += u64::from(place.length);
            batch.push((key.to_vec(), place));
            if stream_in_batches >= MOVE_BYTES {
                self.relocate(std::mem::take(&mut batch))?;
                stream_in_batches = 0;
                step();
            }
        }
        self.relocate(batch)?;
        step();
        self.ask(Op::Sync)?;
        step();
        Ok(())
    }

    fn relocate(&self, places: Vec<(Vec<u8>, Place)>) -> Result<(), Error> {
        let open = self.db()?;
        let mut blocks = Vec::with_capacity(places.len());
        for (key, place) in places {
            match open.files.read(&place)? {
                Read::Data(data) => blocks.push((key, place, data)),
                // It was deleted in the meantime.
                Read::Gone => {}
                // It stays in place, and its segment too, until it is deleted or repaired.
                Read::Damaged(why) => tracing::error!("a block of the ipfs repository is damaged: {why}"),
            }
        }
        if blocks.is_empty() {
            return Ok(());
        }
        self.ask(Op::Move(blocks)).map(drop)
    }

    fn ask(&self, op: Op) -> Result<Reply, Error> {
        let durable = !matches!(op, Op::Move(_));
        let (done, reply) = oneshot::channel();
        let requests = self.requests()?;
        let sent = requests.blocking_send(Request { op, durable, done });
        sent.map_err(|_| Error::Closed)?;
        drop(requests);
        reply.blocking_recv().map_err(|_| Error::Closed)?
    }
}

/// Takes the first segments whose live bytes together fit into `room`.
fn take_fitting(wasteful: &mut Vec<(u32, Usage)>, room: u64) -> HashSet<u32> {
    let mut left = room;
    let fits = |(_, usage): &&(u32, Usage)| {
        let rest = left.checked_sub(usage.live);
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let count = wasteful.iter().take_while(fits).count();
    wasteful.drain(..count).map(|(segment, _)| segment).collect()
}

/// Returns whether moving a segment pays: it wastes more than a quarter of the disk that it occupies, so that
/// moving costs at most three bytes per byte freed; or it holds too little to be worth a file.
fn is_worth_moving(open: &Open, segment: u32, usage: &Usage) -> bool {
    let occupied = match open.files.allocated(segment) {
        Ok(allocated) => allocated.min(usage.held()),
        Err(_) => usage.held(),
    };
    occupied.saturating_sub(usage.live).saturating_mul(4) > occupied || usage.live < usage.held() / 8
}

/// Punches holes wherever the database refers to nothing in these segments, given with their ends.
fn punch(open: &Open, segments: &HashMap<u32, u64>) -> Result<(), Error> {
    if segments.is_empty() {
        return Ok(());
    }
    // 8 bytes for each live block of these segments: less than marking needs for it.
    let mut live: HashMap<u32, Vec<(u32, u32)>> = HashMap::new();
    for guard in open.db.snapshot().iter(&open.blocks) {
        if let Entry::At(place) = Entry::decode(guard.value()?.into())?
            && segments.contains_key(&place.segment)
        {
            live.entry(place.segment)
                .or_default()
                .push((place.offset, place.length));
        }
    }
    for (segment, end) in segments {
        let mut places = live.remove(segment).unwrap_or_default();
        places.sort_unstable();
        let mut dead_from = HEADER_BYTES;
        let ends = places.into_iter().chain(u32::try_from(*end).map(|end| (end, 0)));
        for (offset, length) in ends {
            let offset = u64::from(offset);
            if offset > dead_from && !open.files.punch_hole(*segment, dead_from..offset)? {
                return Ok(());
            }
            dead_from = dead_from.max(offset + u64::from(length));
        }
    }
    Ok(())
}

/// Frees the disk space of removed entries, including small blocks, if there is room to rewrite the tables.
fn compact_tables(open: &Open) -> Result<(), Error> {
    let blocks = &open.blocks;
    flush(blocks, FLUSH_TIMEOUT)?;
    let needed = blocks.disk_space().saturating_add(FLOOR_BYTES);
    if open.files.room().is_some_and(|room| room < needed) {
        tracing::warn!(
            "the disk is too full to compact the tables of the ipfs repository; collect again later"
        );
        return Ok(());
    }
    blocks.major_compact()?;
    // Files of old tables are removed only when a later table is flushed.
    open.meta.insert("compacted", "")?;
    flush(&open.meta, FLUSH_TIMEOUT)
}

/// Flushes what is in memory, and waits for that and earlier flushes, at most for `limit`: where a flush has
/// failed, none follows, and fjall's own `rotate_memtable_and_wait` does not return.
fn flush(keyspace: &Keyspace, limit: Duration) -> Result<(), Error> {
    keyspace.rotate_memtable()?;
    let started = Instant::now();
    while keyspace.sealed_memtable_count() > 0 && started.elapsed() < limit {
        std::thread::sleep(FLUSH_PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flush_that_fails_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let db = fjall::Database::builder(folder.path().join("db"))
            .open()
            .expect("it opens");
        let keyspace = db.keyspace("blocks", Default::default).expect("it can be made");
        keyspace.insert("a", "b").expect("it can be written");
        std::fs::remove_dir_all(folder.path().join("db")).expect("it can be removed");
        flush(&keyspace, Duration::from_millis(50)).expect("the writes are in memory");
        assert_eq!(keyspace.sealed_memtable_count(), 1, "the flush has failed");
    }
}
