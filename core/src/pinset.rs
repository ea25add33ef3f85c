//! The shared state: how a committed command changes the pinset.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ids::RaftId;

/// Which proposals of one peer have been applied. As wide as the number of proposals that a peer may have
/// open, so what falls out of it can only be a late duplicate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Whose.
    pub origin: RaftId,
    /// Of which of its processes. Proposals of earlier ones are dropped: nobody waits for them.
    pub boot: u64,
    /// Every proposal up to this one counts as applied.
    pub low: u64,
    /// The applied ones above it.
    pub applied: BTreeSet<u64>,
}
