//! Protection of uploaded blocks from garbage collection until they are pinned.

use std::time::Duration;

use cluster_ipfs::{Backend, GcGuard};

/// Time for the tracker to pin an upload's root after its blocks are stored. After that, garbage collection
/// may remove blocks, and pinning fetches them again.
const UNTIL_PINNED: Duration = Duration::from_secs(60);

/// Protects what an IPFS node stores from garbage collection, until [`UNTIL_PINNED`] after this is dropped.
/// Only the embedded node can do that; the garbage collection of Kubo is run by its operator.
pub(in crate::cluster) struct GcHold {
    hold: Option<GcGuard>,
}

impl GcHold {
    pub(in crate::cluster) fn new(backend: &Backend) -> Self {
        let hold = match backend {
            Backend::Embedded(node) => Some(node.protect_from_gc()),
            Backend::Kubo(_) => None,
        };
        Self { hold }
    }
}

impl Drop for GcHold {
    fn drop(&mut self) {
        if let (Some(hold), Ok(runtime)) = (self.hold.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(UNTIL_PINNED).await;
                drop(hold);
            });
        }
    }
}
