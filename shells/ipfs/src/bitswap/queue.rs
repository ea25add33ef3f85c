//! A bounded first-in-first-out queue of CIDs without duplicates, from which a CID is removed by hash lookup.
//!
//! A peer decides what is queued for it and what it cancels. With a plain queue, each cancel of a message
//! would scan all queued CIDs, and a message has room for a hundred thousand cancels.

use crate::Cid;
use std::collections::{BTreeMap, HashMap};

/// CIDs in order of arrival, each with a value.
#[derive(Debug)]
pub(super) struct Queue<V> {
    limit: usize,
    order: BTreeMap<i64, (Cid, V)>,
    places: HashMap<Cid, i64>,
}

impl<V> Queue<V> {
    pub(super) fn new(limit: usize) -> Queue<V> {
        Queue {
            limit,
            order: BTreeMap::new(),
            places: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// Appends a CID, or replaces its value if it is queued already. Returns `false` if the queue is full.
    pub(super) fn push(&mut self, cid: Cid, value: V) -> bool {
        if let Some(queued) = self.places.get(&cid).and_then(|place| self.order.get_mut(place)) {
            queued.1 = value;
            return true;
        }
        if self.len() >= self.limit {
            return false;
        }
        let place = self.order.last_key_value().map_or(0, |(last, _)| last + 1);
        self.insert(place, cid, value);
        true
    }

    /// Puts unused CIDs from [`Queue::take`] back to the front. Unlike [`Queue::push`] it may exceed the
    /// limit, by the CIDs taken.
    pub(super) fn put_back(&mut self, taken: impl DoubleEndedIterator<Item = (Cid, V)>) {
        for (cid, value) in taken.rev() {
            if !self.places.contains_key(&cid) {
                let place = self.order.first_key_value().map_or(0, |(first, _)| first - 1);
                self.insert(place, cid, value);
            }
        }
    }

    fn insert(&mut self, place: i64, cid: Cid, value: V) {
        self.places.insert(cid, place);
        self.order.insert(place, (cid, value));
    }

    pub(super) fn remove(&mut self, cid: &Cid) -> Option<V> {
        let place = self.places.remove(cid)?;
        self.order.remove(&place).map(|(_, value)| value)
    }

    /// Removes and returns up to `max` CIDs from the front.
    pub(super) fn take(&mut self, max: usize) -> Vec<(Cid, V)> {
        let mut taken = Vec::with_capacity(max.min(self.len()));
        while taken.len() < max
            && let Some((_, (cid, value))) = self.order.pop_first()
        {
            self.places.remove(&cid);
            taken.push((cid, value));
        }
        taken
    }

    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.places.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cid(number: u8) -> Cid {
        crate::hash::compute_cid(cid::Version::V1, crate::codec::RAW, 0x12, &[number]).unwrap()
    }

    proptest! {
        /// Model: a plain vector, scanned linearly.
        #[test]
        fn queue_equals_a_scanned_vector(steps in prop::collection::vec((0..5u8, 0..12u8), 0..60)) {
            const LIMIT: usize = 6;
            let mut queue = Queue::new(LIMIT);
            let mut model: Vec<(Cid, u8)> = Vec::new();
            for (value, (step, number)) in steps.into_iter().enumerate() {
                let (cid, value) = (cid(number), u8::try_from(value).unwrap());
                match step {
                    0 | 1 => {
                        let at = model.iter().position(|(known, _)| *known == cid);
                        let room = at.is_some() || model.len() < LIMIT;
                        match at {
                            Some(at) => model[at].1 = value,
                            None if room => model.push((cid, value)),
                            None => {}
                        }
                        prop_assert_eq!(queue.push(cid, value), room);
                    }
                    2 => {
                        let at = model.iter().position(|(known, _)| *known == cid);
                        prop_assert_eq!(queue.remove(&cid), at.map(|at| model.remove(at).1));
                    }
                    3 => {
                        let taken: Vec<_> = model.drain(..model.len().min(usize::from(number))).collect();
                        prop_assert_eq!(queue.take(usize::from(number)), taken);
                    }
                    _ => {
                        let taken = queue.take(usize::from(number));
                        queue.put_back(taken.into_iter());
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
            }
            prop_assert_eq!(queue.take(LIMIT), model);
        }
    }
}
