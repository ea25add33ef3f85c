//! A linearizable read returns everything that was committed before it was requested.

use cluster_core::Index;

use super::Findings;

pub(super) fn served(floor: Index, index: Index, found: &mut Findings<'_>) {
    found.require(index >= floor, "reads", || {
        format!("serves a read at {index}, but {floor} had been decided when it was asked for")
    });
}
