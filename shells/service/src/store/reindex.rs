//! Building of the search index of a folder that has none, or one that is outdated: from the first release,
//! from a release that indexes differently, or found to contradict the pins.
//!
//! The index is written to new keyspaces as final tables, and the marker that names it is written last.
//! After a crash before that the next opening deletes the remains and starts again.

use std::time::{Duration, Instant};

use cluster_core::{Pin, decode};

use super::error::StoreError;
use super::folder::SORTING;
use super::keys;
use super::record::Head;
use super::replace::{Sorter, ingest_sorted};
use super::search_index;
use super::shared::Shared;
use super::spaces::{self, Generation};
use super::view;

/// Time between two lines of progress in the log.
const PROGRESS: Duration = Duration::from_secs(5);

/// Index keys removed per write: a few milliseconds, and under a megabyte.
const REMOVE: usize = 1000;

/// Builds the search index of `generation`, whose keyspace is empty, and makes it the one in use. Durable
/// when this returns.
pub(super) fn rebuild(shared: &Shared, generation: &Generation, head: &Head) -> Result<(), StoreError> {
    let total = head.applied.pins;
    tracing::info!(pins = total, "building the search index of the pinset");
    let started = Instant::now();
    let mut reported = started;
    let mut entries = Sorter::new(&shared.folder.path.join(SORTING))?;
    for (done, guard) in generation.pins.iter().enumerate() {
        let (key, value) = guard.into_inner().map_err(StoreError::Read)?;
        let pin: Pin =
            decode(&value).map_err(|error| view::damaged(&generation.pins, &key, &error.to_string()))?;
        for (key, value) in search_index::entries(&pin) {
            entries.put(&key, &value)?;
        }
        if reported.elapsed() >= PROGRESS {
            reported = Instant::now();
            tracing::info!(done, pins = total, "building the search index of the pinset");
        }
    }
    ingest_sorted(|key| generation.search.of(key), entries)?;
    remove_names(shared, generation)?;
    // The tables must be durable before the marker.
    shared.sync_all()?;
    let mut batch = shared.db.batch();
    if let Some(marker) = shared.search_marker(generation, head) {
        batch.insert(&shared.fixed.meta, keys::SEARCH, marker);
    }
    batch.commit().map_err(StoreError::Write)?;
    shared.sync_all()?;
    tracing::info!(elapsed = ?started.elapsed(), "the search index of the pinset is complete");
    Ok(())
}

/// Removes the names that the first release had in the other index.
fn remove_names(shared: &Shared, generation: &Generation) -> Result<(), StoreError> {
    let index = &generation.index;
    let mut batch = shared.db.batch();
    for guard in index.prefix([keys::BY_NAME]) {
        batch.remove(index, guard.key().map_err(StoreError::Read)?);
        if batch.len() >= REMOVE {
            let full = std::mem::replace(&mut batch, shared.db.batch());
            full.commit().map_err(StoreError::Write)?;
            spaces::bound_memory(&[index])?;
        }
    }
    batch.commit().map_err(StoreError::Write)
}
