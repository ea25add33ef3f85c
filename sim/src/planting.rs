//! The mistakes that can be switched on in the core, one at a time, for the run on this thread.

use cluster_core::Bug;

/// The names of all mistakes; their numbers count from 1.
pub fn bugs() -> Vec<String> {
    Bug::ALL.iter().map(|bug| format!("{bug:?}")).collect()
}

/// Switches on the mistake with this number, from 1; none for 0.
pub(crate) fn plant(number: u64) {
    let position = usize::try_from(number)
        .ok()
        .and_then(|number| number.checked_sub(1));
    cluster_core::plant(position.and_then(|position| Bug::ALL.get(position).copied()));
}
