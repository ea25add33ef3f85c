//! A pinset as it is carried from peer to peer. The pins themselves are streamed by the shells.

use serde::{Deserialize, Serialize};

use crate::ids::{Index, Term};
use crate::members::Members;
use crate::window::Window;

/// How far the log is applied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Applied {
    /// The last applied entry.
    pub index: Index,
    /// Its term.
    pub term: Term,
    /// How many pins there are as of it.
    pub pins: u64,
}

/// All of the shared state but the pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// What the snapshot is as of.
    pub applied: Applied,
    /// The membership as of it.
    pub members: Members,
    /// The applied proposals of each peer as of it.
    pub windows: Vec<Window>,
}
