//! Admission of pins by size, so that a pin is refused before it fills the repository.
//!
//! The root of a UnixFS DAG states the size of all blocks below it. If that does not fit, the inner blocks
//! say how much is missing, without what is stored and what repeats. A running pin reserves what it still
//! needs, so that pins that fit one by one do not fill the repository together. DAGs of other codecs state no
//! size: they are fetched until the repository is full.

use super::Node;
use crate::dag::size;
use crate::reader::{Reader, blocking};
use crate::{Cid, Error, Progress};
use std::sync::{Mutex, PoisonError};

/// Stated sizes that are not checked: the largest block.
const UNCHECKED_BYTES: u64 = 2 << 20;

/// Bytes that all running pins have reserved together.
#[derive(Debug, Default)]
pub(super) struct Reserved(Mutex<u64>);

/// Room that one running pin has reserved.
pub(super) struct Reservation<'a> {
    all: &'a Reserved,
    own: Mutex<Own>,
}

/// Bytes of a pin.
#[derive(Debug, Default)]
struct Own {
    /// Needed at its admission.
    needed: u64,
    /// Still reserved.
    left: u64,
}

impl Reserved {
    pub(super) fn reservation(&self) -> Reservation<'_> {
        Reservation {
            all: self,
            own: Mutex::default(),
        }
    }
}

impl Reservation<'_> {
    /// Reserves `needed` bytes if they fit into `free` beside what others have reserved. Otherwise returns
    /// how many there are for this pin.
    fn reserve(&self, needed: u64, free: u64) -> Result<(), u64> {
        let (mut all, mut own) = (lock(&self.all.0), lock(&self.own));
        let others = *all - own.left;
        let room = free.saturating_sub(others);
        if needed > room {
            return Err(room);
        }
        *own = Own { needed, left: needed };
        *all = others + needed;
        Ok(())
    }

    /// Releases what has been fetched so far.
    pub(super) fn progressed(&self, progress: Progress) {
        let (mut all, mut own) = (lock(&self.all.0), lock(&self.own));
        let left = own.needed.saturating_sub(progress.bytes).min(own.left);
        *all -= own.left - left;
        own.left = left;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let (mut all, own) = (lock(&self.all.0), lock(&self.own));
        *all -= own.left;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Node {
    /// Fetches the root of a DAG and reserves room for the DAG. Returns the size that the root states, 0 if
    /// it states none, and the bytes that were fetched.
    ///
    /// # Errors
    /// [`Error::Full`] if what is missing of the DAG does not fit; the root cannot be fetched or decoded.
    pub(super) async fn admit(
        &self,
        root: Cid,
        reservation: &Reservation<'_>,
        reader: &Reader,
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<(u64, u64), Error> {
        let store = reader.store.clone();
        let (data, fetched) = match (blocking(move || store.get(&root)).await, &reader.session) {
            (Ok(Some(data)), _) => (data, 0),
            (Ok(None), Some(session)) => {
                let data = session.get(root).await?;
                let bytes = data.len() as u64;
                (data, bytes)
            }
            (Ok(None), None) => return Err(Error::NotFound(root)),
            // It is replaced while the DAG is fetched.
            (Err(Error::DamagedBlock { .. }), _) => return Ok((0, 0)),
            (Err(error), _) => return Err(error),
        };
        let total = size::stated(&root, &data)?;
        if total <= UNCHECKED_BYTES {
            return Ok((total, fetched));
        }
        let stat = self.stat()?;
        let free = stat.storage_fits.saturating_sub(stat.repo_size);
        if let Err(room) = reservation.reserve(total - data.len() as u64, free) {
            let alive = || progress(Progress::default());
            let missing = Box::pin(size::missing(reader, root, room, &alive)).await?;
            reservation.reserve(missing, free).map_err(|room| Error::Full {
                used: stat.storage_fits.saturating_sub(room),
                asked: missing,
                max: stat.storage_fits,
            })?;
        }
        Ok((total, fetched))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetched(bytes: u64) -> Progress {
        Progress {
            bytes,
            ..Progress::default()
        }
    }

    #[test]
    fn running_pins_share_the_room_and_release_what_they_have_fetched() {
        let all = Reserved::default();
        let (one, other) = (all.reservation(), all.reservation());
        assert_eq!(one.reserve(60, 100), Ok(()));
        assert_eq!(other.reserve(50, 100), Err(40));
        one.progressed(fetched(20));
        // The fetched bytes are not free any more.
        assert_eq!(other.reserve(50, 80), Err(40));
        assert_eq!(other.reserve(40, 80), Ok(()));
        one.progressed(fetched(90));
        assert_eq!(*lock(&all.0), 40);
        drop(one);
        drop(other);
        assert_eq!(*lock(&all.0), 0);
    }

    #[test]
    fn repeated_reservation_replaces_the_first() {
        let all = Reserved::default();
        let one = all.reservation();
        assert_eq!(one.reserve(60, 100), Ok(()));
        assert_eq!(one.reserve(90, 100), Ok(()));
        assert_eq!(*lock(&all.0), 90);
    }
}
