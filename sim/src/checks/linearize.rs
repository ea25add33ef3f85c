//! Linearizability of all clients' operations, with the log as the witness: each operation that returned is
//! assigned a position in the history of commands that explains its answer, and an operation that was called
//! after another had returned may not have an earlier position. Linear in the length of the history.

use std::collections::{BTreeMap, BTreeSet};

use cluster_core::{Cid, Pin, PinOptions, Refusal};

use crate::history::{Call, Heard, History, Operation};
use crate::model::{Model, Position, Turn};
use crate::owners;

/// Explains every operation. Returns those without an explanation.
pub(crate) fn check(history: &History, model: &Model) -> Vec<String> {
    let mut witnesses = Witnesses {
        model,
        floor: (0, 0),
        claimed: BTreeSet::new(),
        found: Vec::new(),
    };
    witnesses.run(history);
    found_by(witnesses, history, model)
}

fn found_by(witnesses: Witnesses<'_>, history: &History, model: &Model) -> Vec<String> {
    let Witnesses {
        claimed, mut found, ..
    } = witnesses;
    found.extend(model.taken().iter().cloned());
    found.extend(effects_of_the_refused(history, model));
    found.extend(unrequested_removals(history, model, &claimed));
    found.extend(history.wishes().iter().filter_map(|(wish, possible)| {
        let times = model.times_wished(wish);
        let text = || format!("{wish:?} is recorded {times} times, could be {possible} times");
        (times > *possible).then(text)
    }));
    found
}

/// Checks that each removal other than an expiry was requested by a client, which got its result or no
/// certain answer.
fn unrequested_removals(
    history: &History,
    model: &Model,
    claimed: &BTreeSet<(Cid, Position)>,
) -> Vec<String> {
    let mut uncertain: BTreeMap<&Cid, usize> = BTreeMap::new();
    for operation in &history.operations {
        let open = matches!(&operation.returned, None | Some((_, Heard::Unknown)));
        if matches!(operation.call, Call::Unpin { .. }) && open {
            *uncertain.entry(&operation.cid).or_default() += 1;
        }
    }
    let mut found = Vec::new();
    for (cid, turns) in model.all_turns() {
        let is_open =
            |turn: &&Turn| turn.pin.is_none() && turn.by_client && !claimed.contains(&(cid.clone(), turn.at));
        let open = turns.iter().filter(is_open).count();
        let uncertain = uncertain.get(cid).copied().unwrap_or(0);
        if open > uncertain {
            found.push(format!(
                "{open} removals of {cid} were reported to nobody, {uncertain} unpins are open"
            ));
        }
    }
    found
}

struct Witnesses<'a> {
    model: &'a Model,
    /// The latest position of any operation that has returned.
    floor: Position,
    /// Removals that an unpin has been given.
    claimed: BTreeSet<(Cid, Position)>,
    found: Vec<String>,
}

impl Witnesses<'_> {
    fn run(&mut self, history: &History) {
        // Calls and returns, in the order in which they happened.
        let mut moments: BTreeMap<u64, (bool, usize)> = BTreeMap::new();
        for (number, operation) in history.operations.iter().enumerate() {
            if let Some((at, _)) = &operation.returned {
                moments.insert(operation.called, (true, number));
                moments.insert(*at, (false, number));
            }
        }
        let mut given: BTreeMap<usize, Position> = BTreeMap::new();
        for (is_call, number) in moments.into_values() {
            let operation = &history.operations[number];
            if !is_call {
                self.floor = self.floor.max(given.get(&number).copied().unwrap_or(self.floor));
                continue;
            }
            match self.witness(operation) {
                Ok(Some(at)) => drop(given.insert(number, at)),
                Ok(None) => {}
                Err(why) => self
                    .found
                    .push(format!("{why}: {operation:?}, floor {:?}", self.floor)),
            }
        }
    }

    /// Returns the earliest position that explains an operation; `None` when nothing needs explaining.
    fn witness(&mut self, operation: &Operation) -> Result<Option<Position>, &'static str> {
        let Some((_, heard)) = &operation.returned else {
            return Ok(None);
        };
        let limit = (operation.applied, u32::MAX);
        let turns = self.model.turns(&operation.cid);
        match heard {
            Heard::Unknown => Ok(None),
            Heard::Refused(Refusal::NotFound) if let Call::Unpin { owner } = &operation.call => {
                let at = self.first(turns, limit, |pin| !is_held(pin, owner.as_deref()));
                at.map(Some)
                    .ok_or("was told that there is no pin, there was one all the time")
            }
            Heard::Refused(_) => Ok(None),
            Heard::Pinned(pin) => {
                let Call::Pin { options, owner, .. } = &operation.call else {
                    return Err("was told of a pin that it did not ask for");
                };
                if !is_as_asked(options, owner.as_deref(), &pin.options) {
                    return Err("was told of another pin than it asked for");
                }
                let at = self.first(turns, limit, |found| found == Some(&**pin));
                at.map(Some).ok_or("was told of a pin that never stood like this")
            }
            Heard::Unpinned(pin) => self.removal(operation, turns, pin, limit).map(Some),
            Heard::Found(found) => {
                let there = standing(turns, limit);
                if limit >= self.floor && there == found.as_deref() {
                    Ok(Some(limit))
                } else {
                    Err("read what was not there")
                }
            }
        }
    }

    /// Returns the first position, from the floor on, at which the pin is as requested.
    fn first(
        &self,
        turns: &[Turn],
        limit: Position,
        wished: impl Fn(Option<&Pin>) -> bool,
    ) -> Option<Position> {
        if wished(standing(turns, self.floor)) {
            return Some(self.floor);
        }
        let later = turns
            .iter()
            .filter(|turn| turn.at > self.floor && turn.at <= limit);
        later
            .into_iter()
            .find(|turn| wished(turn.pin.as_ref()))
            .map(|turn| turn.at)
    }

    fn removal(
        &mut self,
        operation: &Operation,
        turns: &[Turn],
        pin: &Pin,
        limit: Position,
    ) -> Result<Position, &'static str> {
        let Call::Unpin { owner } = &operation.call else {
            return Err("was told of a removal that it did not ask for");
        };
        let owner = owner.as_deref();
        for pair in turns.windows(2) {
            let at = pair[1].at;
            let (before, after) = (pair[0].pin.as_ref(), pair[1].pin.as_ref());
            let removes = before == Some(pin) && is_held(before, owner) && !is_held(after, owner);
            if removes && at > self.floor && at <= limit && self.claimed.insert((operation.cid.clone(), at)) {
                return Ok(at);
            }
        }
        Err("was told that it removed a pin that it did not remove")
    }
}

/// Returns whether a pin is there for an owner, or for those without one.
fn is_held(pin: Option<&Pin>, owner: Option<&str>) -> bool {
    let holds = |pin: &Pin| owner.is_none_or(|owner| owners::holders(&pin.options).contains(owner));
    pin.is_some_and(holds)
}

/// Returns whether a pin has the options that were requested; an update takes the rest over from its source,
/// and what others hold is at least as strong.
fn is_as_asked(asked: &PinOptions, owner: Option<&str>, given: &PinOptions) -> bool {
    let holders = owners::holders(given);
    if !holders.contains(owner.unwrap_or_default()) {
        return false;
    }
    let (name, metadata) = owners::own_fields(given);
    let given = PinOptions {
        name,
        metadata,
        ..given.clone()
    };
    let is_shared = holders.len() > 1 && owner.is_some();
    if asked.pin_update.is_none() {
        let raised = PinOptions {
            replicas: given.replicas,
            expire_at: given.expire_at,
            mode: given.mode,
            ..asked.clone()
        };
        return *asked == given || is_shared && raised == given && owners::is_kept(asked, &given);
    }
    let name = asked.name.is_empty() || asked.name == given.name;
    let end = asked.expire_at.is_none() || is_shared || asked.expire_at == given.expire_at;
    name && end && asked.pin_update == given.pin_update
}

/// Returns the state of a CID at a position.
fn standing(turns: &[Turn], at: Position) -> Option<&Pin> {
    let next = turns.partition_point(|turn| turn.at <= at);
    next.checked_sub(1).and_then(|last| turns[last].pin.as_ref())
}

/// Checks that refused requests have no effect, and that no request took effect more often than it was made.
fn effects_of_the_refused(history: &History, model: &Model) -> Vec<String> {
    let mut possible: BTreeMap<&str, (u64, &Operation)> = BTreeMap::new();
    for operation in &history.operations {
        let Call::Pin { name, .. } = &operation.call else {
            continue;
        };
        let refused = matches!(&operation.returned, Some((_, Heard::Refused(_))));
        possible.entry(name).or_insert((0, operation)).0 += u64::from(!refused);
    }
    let too_often = possible.into_iter().filter_map(|(name, (asked, operation))| {
        let times = model.times_pinned(name);
        let text = || format!("took effect {times} times, could {asked} times: {operation:?}");
        (times > asked).then(text)
    });
    too_often.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::wish;
    use crate::coverage::Coverage;
    use crate::peer::cid;
    use cluster_core::{
        Command, LogEntry, Payload, PinType, Precondition, Proposal, ProposalId, RaftId, Replicas, Timestamp,
        encode,
    };

    fn pin(name: &str, version: u64) -> Pin {
        Pin {
            cid: cid(1),
            pin_type: PinType::Data,
            allocations: Vec::new(),
            reference: None,
            options: wish(name.to_owned(), Replicas::Everywhere),
            timestamp: Timestamp(0),
            version,
        }
    }

    fn asks(name: &str) -> Call {
        let options = Box::new(wish(name.to_owned(), Replicas::Everywhere));
        let name = name.to_owned();
        let owner = None;
        Call::Pin { name, options, owner }
    }

    /// Returns a pin of one CID at each index.
    fn model(names: &[&str]) -> Model {
        let mut model = Model::new(1);
        for (index, name) in (1..).zip(names) {
            let id = ProposalId {
                origin: RaftId(1),
                boot: 1,
                seq: index,
            };
            let command = Command::Pin {
                pin: pin(name, 0),
                precondition: Precondition::Any,
            };
            let payload = Payload::Commands(encode(&vec![Proposal { id, command }]));
            model.apply(
                &LogEntry {
                    index,
                    term: 1,
                    payload,
                },
                &mut Coverage::default(),
            );
        }
        model
    }

    #[test]
    fn stale_reads_are_found() {
        let model = model(&["a", "b"]);
        let mut history = History::default();
        for (name, version) in [("b", 2), ("a", 1)] {
            let read = history.call(1, 0, cid(1), Call::Read);
            history.returns(read, Heard::Found(Some(Box::new(pin(name, version)))), version);
        }
        let found = check(&history, &model);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn refused_pins_that_took_effect_are_found() {
        let model = model(&["a"]);
        let mut history = History::default();
        let operation = history.call(1, 0, cid(1), asks("a"));
        history.returns(operation, Heard::Refused(Refusal::Busy), 0);
        assert_eq!(check(&history, &model).len(), 1);
    }

    #[test]
    fn concurrent_operations_may_take_effect_in_either_order() {
        let model = model(&["a", "b"]);
        let mut history = History::default();
        let second = history.call(1, 0, cid(1), asks("b"));
        let first = history.call(2, 0, cid(1), asks("a"));
        history.returns(second, Heard::Pinned(Box::new(pin("b", 2))), 2);
        history.returns(first, Heard::Pinned(Box::new(pin("a", 1))), 2);
        assert_eq!(check(&history, &model), Vec::<String>::new());
    }
}
