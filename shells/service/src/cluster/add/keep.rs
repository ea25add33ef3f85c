//! Blocks that no pin keeps yet.

use std::time::Duration;

use cluster_ipfs::{Backend, Hold};

/// How long the tracker may take until it has an upload's root pinned, after the blocks came. Past that a
/// collection may take some of them, and pinning fetches them again.
const UNTIL_PINNED: Duration = Duration::from_secs(60);

/// Keeps what an IPFS node stores from now on from being collected, until a while after this is dropped.
/// Only the embedded node can do that; Kubo is told by its operator when to collect.
pub(in crate::cluster) struct Keep {
    hold: Option<Hold>,
}

impl Keep {
    pub(in crate::cluster) fn new(backend: &Backend) -> Self {
        let hold = match backend {
            Backend::Embedded(node) => Some(node.hold()),
            Backend::Kubo(_) => None,
        };
        Self { hold }
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if let (Some(hold), Ok(runtime)) = (self.hold.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                tokio::time::sleep(UNTIL_PINNED).await;
                drop(hold);
            });
        }
    }
}
