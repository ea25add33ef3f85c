//! A black-box check of short histories, one CID at a time (Wing and Gong, "Testing and verifying concurrent
//! objects", 1993, with Lowe's memory of states). It knows nothing of the log, so it also finds bugs in the
//! check that does.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{Cid, Refusal};

use crate::history::{Call, Heard, History, Operation};

/// Maximum number of operations on one CID; longer histories are left to `linearize`.
const LENGTH_MAX: usize = 40;

/// Maximum number of states that are visited before the search gives up.
const STATES_MAX: usize = 50_000;

/// Precondition and result of an operation.
#[derive(Debug, Clone)]
struct Action {
    called: u64,
    returned: u64,
    effect: Effect,
    /// True if it may have had no effect.
    optional: bool,
}

#[derive(Debug, Clone)]
enum Effect {
    /// Leaves a pin of this name.
    Write(String),
    /// Removes a pin, of this name where it is known.
    Remove(Option<String>),
    /// Returns this state.
    Find(Option<String>),
}

/// Names a CID whose history has no explanation.
pub(crate) fn check(history: &History) -> Vec<String> {
    // The name of a pin with owners depends on more than the last write.
    let is_owned = |operation: &&Operation| match &operation.call {
        Call::Pin { owner, .. } | Call::Unpin { owner } => owner.is_some(),
        Call::Read => false,
    };
    let owned = history.operations.iter().filter(is_owned);
    let owned: BTreeSet<&Cid> = owned.map(|operation| &operation.cid).collect();
    let mut by_cid: BTreeMap<&Cid, Vec<Action>> = BTreeMap::new();
    let plain = |operation: &&Operation| !owned.contains(&operation.cid);
    for operation in history.operations.iter().filter(plain) {
        by_cid
            .entry(&operation.cid)
            .or_default()
            .extend(action(operation));
    }
    let unexplained = by_cid
        .into_iter()
        .filter(|(_, actions)| !is_linearizable(actions));
    unexplained
        .map(|(cid, _)| format!("no order explains what was done to {cid}"))
        .collect()
}

fn action(operation: &Operation) -> Option<Action> {
    let (returned, heard) = match &operation.returned {
        Some((returned, heard)) => (*returned, heard),
        None => (u64::MAX, &Heard::Unknown),
    };
    let (effect, optional) = match (&operation.call, heard) {
        (Call::Pin { name, .. }, Heard::Pinned(_)) => (Effect::Write(name.clone()), false),
        (Call::Pin { name, .. }, Heard::Unknown) => (Effect::Write(name.clone()), true),
        (Call::Unpin { .. }, Heard::Unpinned(pin)) => (Effect::Remove(Some(pin.options.name.clone())), false),
        (Call::Unpin { .. }, Heard::Unknown) => (Effect::Remove(None), true),
        (Call::Unpin { .. }, Heard::Refused(Refusal::NotFound)) => (Effect::Find(None), false),
        (Call::Read, Heard::Found(pin)) => (
            Effect::Find(pin.as_ref().map(|pin| pin.options.name.clone())),
            false,
        ),
        (Call::Pin { .. } | Call::Unpin { .. } | Call::Read, _) => return None,
    };
    let returned = if optional { u64::MAX } else { returned };
    Some(Action {
        called: operation.called,
        returned,
        effect,
        optional,
    })
}

fn is_linearizable(actions: &[Action]) -> bool {
    if actions.len() > LENGTH_MAX {
        return true;
    }
    let mut seen: BTreeSet<(u64, Option<String>)> = BTreeSet::new();
    let mut open: Vec<(u64, Option<String>)> = vec![(0, None)];
    while let Some((done, state)) = open.pop() {
        let rest = || (0..actions.len()).filter(|number| done & (1 << number) == 0);
        if rest().all(|number| actions[number].optional) {
            return true;
        }
        if seen.len() > STATES_MAX {
            return true;
        }
        let horizon = rest()
            .map(|number| actions[number].returned)
            .min()
            .unwrap_or(u64::MAX);
        for number in rest().filter(|number| actions[*number].called < horizon) {
            if let Some(next) = after(&actions[number].effect, &state) {
                let candidate = (done | 1 << number, next);
                if seen.insert(candidate.clone()) {
                    open.push(candidate);
                }
            }
        }
    }
    false
}

fn after(effect: &Effect, state: &Option<String>) -> Option<Option<String>> {
    match effect {
        Effect::Write(name) => Some(Some(name.clone())),
        Effect::Remove(Some(name)) => (state.as_ref() == Some(name)).then_some(None),
        Effect::Remove(None) => Some(None),
        Effect::Find(found) => (found == state).then(|| state.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::cid;

    #[test]
    fn stale_reads_are_found_and_concurrent_ones_accepted() {
        let mut history = History::default();
        let write = history.call(1, 0, cid(1), Call::Unpin { owner: None });
        let read = history.call(2, 0, cid(1), Call::Read);
        history.returns(read, Heard::Found(None), 0);
        history.returns(write, Heard::Refused(Refusal::NotFound), 0);
        assert!(check(&history).is_empty());
        let read = history.call(2, 0, cid(1), Call::Unpin { owner: None });
        let gone = crate::clients::wish("a".to_owned(), cluster_core::Replicas::Everywhere);
        let pin = cluster_core::Pin {
            cid: cid(1),
            pin_type: cluster_core::PinType::Data,
            allocations: Vec::new(),
            reference: None,
            options: gone,
            timestamp: cluster_core::Timestamp(0),
            version: 1,
        };
        history.returns(read, Heard::Unpinned(Box::new(pin)), 0);
        assert_eq!(check(&history).len(), 1);
    }
}
