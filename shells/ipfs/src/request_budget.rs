//! Memory budgets of requests.
//!
//! Blocks of a few KiB can describe directories, files and data of any size. So a request is charged for the
//! memory that it really holds, and refused when that becomes too much. Streaming requests hold little,
//! whatever their length.

use crate::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Limit of one request, in bytes: enough for listings of some 300,000 names in one answer, and for walks as
/// wide and deep as any tree of files.
pub(crate) const REQUEST_BYTES: usize = 128 << 20;
/// Limit of all requests of a node together, in bytes.
const NODE_BYTES: usize = 512 << 20;

/// Bytes held by all requests of a node together.
#[derive(Debug, Clone, Default)]
pub(crate) struct NodeMemory(Arc<AtomicUsize>);

/// Memory budget of one request; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct RequestBudget {
    used: Arc<AtomicUsize>,
    total: NodeMemory,
}

impl RequestBudget {
    pub(crate) fn new(total: &NodeMemory) -> RequestBudget {
        RequestBudget {
            used: Arc::default(),
            total: total.clone(),
        }
    }

    /// Opens an account for a structure that grows and shrinks.
    pub(crate) fn holding(&self) -> HeldBytes {
        HeldBytes {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

/// Bytes charged to a [`RequestBudget`] until dropped.
#[derive(Debug)]
pub(crate) struct HeldBytes {
    budget: RequestBudget,
    bytes: usize,
}

impl HeldBytes {
    /// Charges for more bytes.
    ///
    /// # Errors
    /// [`Error::TooMuchMemory`] if the request exceeds its limit, [`Error::Busy`] if all requests together
    /// do.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        let RequestBudget { used, total } = &self.budget;
        if !add(used, bytes, REQUEST_BYTES) {
            return Err(Error::TooMuchMemory { max: REQUEST_BYTES });
        }
        if !add(&total.0, bytes, NODE_BYTES) {
            used.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Error::Busy(
                "other requests hold all the memory that requests may",
            ));
        }
        self.bytes += bytes;
        Ok(())
    }

    pub(crate) fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.total.0.fetch_sub(bytes, Ordering::Relaxed);
        self.bytes -= bytes;
    }

    /// Sets the charge to `bytes`.
    pub(crate) fn resize(&mut self, bytes: usize) -> Result<(), Error> {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.grow(more),
            None => {
                self.shrink(self.bytes - bytes);
                Ok(())
            }
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

/// Adds `bytes` if the sum stays within `max`; returns whether it did.
fn add(sum: &AtomicUsize, bytes: usize, max: usize) -> bool {
    let added = |now: usize| now.checked_add(bytes).filter(|sum| *sum <= max);
    sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_beyond_their_limit_are_refused_and_release_their_memory() {
        let total = NodeMemory::default();
        let budget = RequestBudget::new(&total);
        let (mut one, mut other) = (budget.holding(), budget.holding());
        one.grow(REQUEST_BYTES - 10).unwrap();
        other.grow(10).unwrap();
        assert!(matches!(other.grow(1), Err(Error::TooMuchMemory { .. })));
        one.resize(5).unwrap();
        other.resize(100).unwrap();
        drop((one, other));
        assert_eq!(
            (
                budget.used.load(Ordering::Relaxed),
                total.0.load(Ordering::Relaxed)
            ),
            (0, 0)
        );
        let all: Vec<HeldBytes> = std::iter::repeat_with(|| {
            let mut held = RequestBudget::new(&total).holding();
            held.grow(REQUEST_BYTES).map(|()| held)
        })
        .map_while(Result::ok)
        .collect();
        assert_eq!(all.len(), NODE_BYTES / REQUEST_BYTES);
        assert!(matches!(
            RequestBudget::new(&total).holding().grow(1),
            Err(Error::Busy(_))
        ));
    }
}
