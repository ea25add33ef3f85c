//! Switches a planted bug on for the run on this thread.

/// Switches on the bug with this number, from 1; none for 0.
pub(crate) fn plant(_number: u64) {}
