//! Queue heads: the first entries of each queue on disk, in memory.

use std::collections::BTreeSet;

use crate::draft::Draft;
use crate::ids::Cid;
use crate::local::{Lane, Local, QueueKey};
use crate::planted::{planted, scaled};
use crate::time::{Instant, Now};
use crate::view::PinsetView;

/// Maximum number of entries of a head. Enough to make reading the disk rare.
const HEAD_MAX: usize = 1024;

/// Head of one queue.
#[derive(Debug)]
struct Head {
    lane: Lane,
    keys: BTreeSet<QueueKey>,
    /// Lower bound of the entries that are on disk only; `Some(None)` if unknown, `None` if there are none.
    /// Starting at the bound avoids a slow scan over deleted entries.
    rest: Option<Option<QueueKey>>,
}

impl Head {
    fn new(lane: Lane) -> Self {
        Self {
            lane,
            keys: BTreeSet::new(),
            rest: Some(None),
        }
    }

    /// Notes that `key` is on disk only.
    fn leave(&mut self, key: QueueKey) {
        self.rest = Some(match self.rest.take() {
            Some(None) => None,
            Some(Some(from)) => Some(from.min(key)),
            None => Some(key),
        });
    }

    fn add(&mut self, key: QueueKey) {
        let before_rest = match &self.rest {
            None => true,
            Some(None) => false,
            Some(Some(from)) => key < *from,
        };
        if !before_rest {
            return;
        }
        self.keys.insert(key);
        if self.keys.len() > scaled(HEAD_MAX) {
            let last = self.keys.pop_last().expect("is not empty");
            if !planted!(HeadLosesRest) {
                self.leave(last);
            }
        }
    }

    fn fill(&mut self, view: &impl PinsetView) {
        if !self.keys.is_empty() {
            return;
        }
        let Some(from) = self.rest.take() else { return };
        let keys = view.queue(self.lane, from.as_ref(), scaled(HEAD_MAX) + 1);
        self.keys.extend(keys);
        if self.keys.len() > scaled(HEAD_MAX) {
            self.rest = self.keys.pop_last().map(Some);
        }
    }
}

/// Heads of all queues.
#[derive(Debug)]
pub(super) struct QueueHeads {
    unpin: Head,
    fresh: Head,
    retry: Head,
    surplus: Head,
}

impl Default for QueueHeads {
    fn default() -> Self {
        Self {
            unpin: Head::new(Lane::Unpin),
            fresh: Head::new(Lane::Fresh),
            retry: Head::new(Lane::Retry),
            surplus: Head::new(Lane::Surplus),
        }
    }
}

impl QueueHeads {
    fn head(&mut self, lane: Lane) -> &mut Head {
        match lane {
            Lane::Unpin => &mut self.unpin,
            Lane::Fresh => &mut self.fresh,
            Lane::Retry => &mut self.retry,
            Lane::Surplus => &mut self.surplus,
        }
    }

    /// Adds a key that is, or is being, written to the queue on disk.
    pub(super) fn add(&mut self, key: QueueKey) {
        self.head(key.lane).add(key);
    }

    /// Moves a CID to another place in the queues, with a new local state.
    pub(super) fn put<V: PinsetView>(
        &mut self,
        draft: &mut Draft<'_, V>,
        cid: &Cid,
        previous: Option<Local>,
        next: Local,
        key: QueueKey,
    ) {
        if let Some(old) = previous.and_then(|local| local.queued) {
            self.remove(&old);
            if !planted!(QueueKept) {
                draft.dequeue(old);
            }
        }
        draft.enqueue(key.clone());
        self.add(key.clone());
        let queued = Some(key);
        draft.put_local(cid, Local { queued, ..next });
    }

    /// Removes a key that is being deleted from the queue on disk.
    pub(super) fn remove(&mut self, key: &QueueKey) {
        self.head(key.lane).keys.remove(key);
    }

    /// Refills empty heads from disk: those of operations if one `starts`, that of surplus copies if this
    /// peer `asks` about them.
    pub(super) fn fill(&mut self, view: &impl PinsetView, starts: bool, asks: bool) {
        if starts {
            for head in [&mut self.unpin, &mut self.fresh, &mut self.retry] {
                head.fill(view);
            }
        }
        if asks {
            self.surplus.fill(view);
        }
    }

    /// Removes and returns the first key that may start: unpins, then first attempts, then due retries.
    pub(super) fn pop(&mut self, now: Now) -> Option<QueueKey> {
        let is_due = self.retry.keys.first().is_some_and(|key| key.at <= now.wall.0);
        if planted!(RetryBeforeFresh) && is_due {
            return self.retry.keys.pop_first();
        }
        let mut heads = [&mut self.unpin, &mut self.fresh];
        if planted!(UnpinAfterFresh) {
            heads.reverse();
        }
        for head in heads {
            if planted!(FreshReversed)
                && let Some(key) = head.keys.pop_last()
            {
                return Some(key);
            }
            if let Some(key) = head.keys.pop_first() {
                return Some(key);
            }
            if head.rest.is_some() {
                // More entries, on disk only, take precedence over later queues.
                return None;
            }
        }
        if self.retry.keys.first()?.at > now.wall.0 {
            return None;
        }
        self.retry.keys.pop_first()
    }

    /// Removes and returns the first due surplus copy.
    pub(super) fn pop_surplus(&mut self, now: Now) -> Option<QueueKey> {
        if self.surplus.keys.first()?.at > now.wall.0 {
            return None;
        }
        self.surplus.keys.pop_first()
    }

    /// Returns whether a key waits that is not a retry.
    pub(super) fn has_untried(&self) -> bool {
        !self.unpin.keys.is_empty() || !self.fresh.keys.is_empty()
    }

    /// Returns when a key is due; at once if a head must be refilled. Includes operations if one `starts`,
    /// and surplus copies if this peer `asks` about them.
    pub(super) fn next_due(&self, now: Now, starts: bool, asks: bool) -> Option<Instant> {
        let is_unread = |head: &Head| head.keys.is_empty() && head.rest.is_some();
        let operations = [&self.unpin, &self.fresh, &self.retry];
        let unread = starts && operations.into_iter().any(is_unread) || asks && is_unread(&self.surplus);
        if unread || starts && self.has_untried() {
            return Some(Instant(0));
        }
        let retry = self.retry.keys.first().filter(|_| starts);
        let surplus = self.surplus.keys.first().filter(|_| asks);
        let at = retry.into_iter().chain(surplus).map(|key| key.at).min()?;
        Some(now.mono + std::time::Duration::from_nanos(at.saturating_sub(now.wall.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Disk, cid};
    use crate::time::Timestamp;

    const NOW: Now = Now {
        mono: Instant(0),
        wall: Timestamp(100),
    };

    fn key(lane: Lane, at: u64, number: u8) -> QueueKey {
        let cid = cid(number);
        QueueKey { lane, at, cid }
    }

    fn queue_heads(keys: &[QueueKey]) -> (QueueHeads, Disk) {
        let disk = Disk {
            queue: keys.iter().cloned().collect(),
            ..Disk::default()
        };
        let mut queue_heads = QueueHeads::default();
        queue_heads.fill(&disk, true, true);
        (queue_heads, disk)
    }

    #[test]
    fn unpins_precede_first_attempts_and_due_retries() {
        let keys = [
            key(Lane::Retry, 1, 1),
            key(Lane::Fresh, 9, 2),
            key(Lane::Unpin, 8, 3),
            key(Lane::Fresh, 7, 4),
            key(Lane::Retry, 101, 5),
        ];
        let (mut queue_heads, _) = queue_heads(&keys);
        let order = [2, 3, 1, 0].map(|number: usize| Some(keys[number].clone()));
        assert_eq!([(); 4].map(|()| queue_heads.pop(NOW)), order);
        assert_eq!(queue_heads.pop(NOW), None, "the last one is not due");
    }

    #[test]
    fn surplus_copies_are_due_while_no_operation_may_start() {
        let keys = [key(Lane::Fresh, 1, 1), key(Lane::Surplus, 2, 2)];
        let disk = Disk {
            queue: keys.iter().cloned().collect(),
            ..Disk::default()
        };
        let mut queue_heads = QueueHeads::default();
        assert_eq!(
            queue_heads.next_due(NOW, false, true),
            Some(Instant(0)),
            "to be read"
        );
        queue_heads.fill(&disk, false, true);
        assert_eq!(queue_heads.next_due(NOW, false, true), Some(NOW.mono));
        assert_eq!(queue_heads.next_due(NOW, false, false), None);
        assert_eq!(queue_heads.pop(NOW), None, "not read");
        assert_eq!(queue_heads.pop_surplus(NOW).as_ref(), Some(&keys[1]));
    }

    #[test]
    fn entries_on_disk_only_precede_retries() {
        let retry = key(Lane::Retry, 1, 1);
        let (mut queue_heads, mut disk) = queue_heads(std::slice::from_ref(&retry));
        let many: Vec<QueueKey> = (0..HEAD_MAX as u64 + 2)
            .map(|at| key(Lane::Fresh, at, 2))
            .collect();
        for key in &many {
            disk.queue.insert(key.clone());
            queue_heads.add(key.clone());
        }
        for key in &many[..HEAD_MAX] {
            assert_eq!(queue_heads.pop(NOW).as_ref(), Some(key));
            disk.queue.remove(key);
        }
        assert_eq!(queue_heads.pop(NOW), None, "the head must be refilled first");
        assert_eq!(queue_heads.next_due(NOW, true, true), Some(Instant(0)), "at once");
        queue_heads.fill(&disk, true, true);
        let rest = [(); 3].map(|()| queue_heads.pop(NOW));
        assert_eq!(
            rest,
            [
                Some(many[HEAD_MAX].clone()),
                Some(many[HEAD_MAX + 1].clone()),
                Some(retry)
            ]
        );
    }
}
