//! Snapshot metadata, as sent from peer to peer. The pins and the policy are streamed by the shells.

use serde::{Deserialize, Serialize};

use crate::ids::{Index, Term};
use crate::members::Members;
use crate::window::Window;

/// Position up to which the log is applied to the pinset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Applied {
    /// Index of the last applied entry.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// Number of pins after that entry.
    pub pins: u64,
}

/// The shared state without the pins and the policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Position of the snapshot.
    pub applied: Applied,
    /// Membership at that position.
    pub members: Members,
    /// Applied proposals of each peer at that position.
    pub windows: Vec<Window>,
}
