//! Policy: what the operators of a cluster decide while it runs. A small record of the replicated state,
//! written whole at each change.

use serde::{Deserialize, Serialize};

use crate::credential::Credential;
use crate::drain::Drain;
use crate::rebalance::Rebalance;

/// Decisions of the operators.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Credentials of clients, sorted by id; at most [`CREDENTIALS_MAX`](crate::CREDENTIALS_MAX).
    pub credentials: Vec<Credential>,
    /// Peers whose pins move to others, sorted by id; at most [`DRAINS_MAX`](crate::DRAINS_MAX).
    pub drains: Vec<Drain>,
    /// Settings of the rebalancing, and the run that was asked for.
    pub rebalance: Rebalance,
}

impl Policy {
    /// Returns whether nothing has been decided.
    pub fn is_empty(&self) -> bool {
        self.credentials.is_empty() && self.drains.is_empty() && self.rebalance == Rebalance::default()
    }
}
