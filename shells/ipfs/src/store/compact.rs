//! Giving the disk space of removed blocks back: what lives in segments that are mostly dead is written
//! anew, like any block. A segment is removed when the database durably names nothing in it any more; so a
//! crash at any moment leaves each block at its old place or at its new one, and at worst a file that the
//! next opening removes.

use super::index::Entry;
use super::segments::{Place, Read};
use super::writer::{Op, Reply, Request};
use super::{Open, Store};
use crate::Error;
use fjall::Readable;
use std::collections::HashSet;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Bytes written anew in one request; other writes come in between.
const MOVE_BYTES: u64 = 4 << 20;
/// How long a flush of the database is waited for, and in which steps. Later ones come with the next
/// collection.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(30);
const FLUSH_PAUSE: Duration = Duration::from_millis(5);

impl Store {
    /// Frees the disk of removed blocks. Blocks the thread, for seconds; not for async tasks.
    pub(crate) fn compact(&self) -> Result<(), Error> {
        self.compact_in_steps(&mut || {})
    }

    /// Calls `step` wherever a crash could leave something else behind.
    pub(super) fn compact_in_steps(&self, step: &mut dyn FnMut()) -> Result<(), Error> {
        // Synced, so that the database names every block of the segments in question.
        let wasteful: HashSet<u32> = self.ask(Op::Wasteful)?.wasteful.into_iter().collect();
        step();
        let open = self.db()?;
        if !wasteful.is_empty() {
            let (mut batch, mut batched) = (Vec::new(), 0);
            for guard in open.db.snapshot().iter(&open.blocks) {
                let (key, value) = guard.into_inner()?;
                let place = match Entry::decode(value.into())? {
                    Entry::At(place) if wasteful.contains(&place.segment) => place,
                    Entry::At(_) | Entry::Inline(_) => continue,
                };
                batched += u64::from(place.length);
                batch.push((key.to_vec(), place));
                if batched >= MOVE_BYTES {
                    self.relocate(std::mem::take(&mut batch))?;
                    batched = 0;
                    step();
                }
            }
            self.relocate(batch)?;
            step();
            self.ask(Op::Sync)?;
            step();
        }
        compact_tables(&open)?;
        step();
        Ok(())
    }

    fn relocate(&self, places: Vec<(Vec<u8>, Place)>) -> Result<(), Error> {
        let open = self.db()?;
        let mut blocks = Vec::with_capacity(places.len());
        for (key, place) in places {
            match open.files.read(&place)? {
                Read::Data(data) => blocks.push((key, place, data)),
                // It was deleted meanwhile.
                Read::Gone => {}
                // It stays where it is, and its segment with it, until it is deleted.
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

/// Frees the disk of removed entries, small blocks among them.
fn compact_tables(open: &Open) -> Result<(), Error> {
    let blocks = &open.blocks;
    blocks.rotate_memtable_and_wait()?;
    // That returns at once when there is nothing to rotate, although an earlier flush may be under way.
    let started = Instant::now();
    while blocks.sealed_memtable_count() > 0 && started.elapsed() < FLUSH_TIMEOUT {
        std::thread::sleep(FLUSH_PAUSE);
    }
    blocks.major_compact()?;
    // Files of old tables vanish only when some later table is flushed.
    open.meta.insert("compacted", "")?;
    open.meta.rotate_memtable_and_wait()?;
    Ok(())
}
