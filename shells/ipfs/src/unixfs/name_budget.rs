//! Memory budget for the names of uploads, limited for each upload and for all of them together.

use crate::Error;
use std::sync::{Arc, LazyLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Limit of one upload, in bytes: some 700,000 names of 40 bytes.
pub(super) const UPLOAD_MAX: usize = 256 << 20;
/// Limit of all uploads of this process, in bytes: four uploads of the largest size, next to many small ones.
const PROCESS_MAX: usize = 1 << 30;
/// Unit in which memory is taken from the process, in bytes, so that most names need no lock.
const STEP: usize = 64 << 10;

/// Permits count steps, not bytes: a number of permits is a `u32`.
static PROCESS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(PROCESS_MAX / STEP)));

/// Memory budget of one upload; released when dropped.
#[derive(Debug, Default)]
pub(super) struct NameBudget {
    used: usize,
    reserved: Option<OwnedSemaphorePermit>,
}

impl NameBudget {
    /// Returns the bytes in use.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Charges `bytes` more.
    ///
    /// # Errors
    /// The upload or the process exceeds its limit.
    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        let used = self.used + bytes;
        if used > UPLOAD_MAX {
            return Err(Error::invalid(format!(
                "the names of this upload need more than {} MiB of memory: add it in several parts",
                UPLOAD_MAX >> 20
            )));
        }
        let steps = used.div_ceil(STEP);
        let held = self
            .reserved
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        if steps > held {
            let more = u32::try_from(steps - held).unwrap_or(u32::MAX);
            let more = PROCESS.clone().try_acquire_many_owned(more).map_err(|_| {
                Error::Busy("the names of all running uploads hold 1 GiB of memory, the maximum")
            })?;
            match &mut self.reserved {
                Some(reserved) => reserved.merge(more),
                None => self.reserved = Some(more),
            }
        }
        self.used = used;
        Ok(())
    }

    /// Releases all but `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        self.used = self.used.min(bytes);
        let steps = self.used.div_ceil(STEP);
        if let Some(reserved) = &mut self.reserved {
            let spare = reserved.num_permits().saturating_sub(steps);
            drop(reserved.split(spare));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upload_above_its_limit_is_refused_and_releases_its_memory() {
        let mut budget = NameBudget::default();
        budget.charge(UPLOAD_MAX - 10).unwrap();
        assert!(matches!(budget.charge(11), Err(Error::Invalid(_))));
        budget.charge(10).unwrap();
        budget.shrink_to(1);
        assert_eq!(budget.used(), 1);
        assert_eq!(budget.reserved.as_ref().unwrap().num_permits(), 1);
    }
}
