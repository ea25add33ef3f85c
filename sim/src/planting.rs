//! Switches planted bugs of the core on, one at a time, for the run on this thread.

use cluster_core::Bug;

/// Returns the names of all planted bugs; their numbers count from 1.
pub fn bugs() -> Vec<String> {
    Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect()
}

/// Switches on the planted bug with this number, from 1; none for 0.
pub(crate) fn plant(number: u64) {
    let position = usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_sub(1));
    cluster_core::plant(position.and_then(|position| Bug::ALL.get(position).copied()));
}
