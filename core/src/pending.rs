//! Proposals that wait at the leader until its last write is durable; they then share one log entry. Bounded
//! by count and by bytes.

use crate::codec::encoded_len;
use crate::command::Proposal;
use crate::limits::LimitsConfig;
use crate::planted::planted;

/// Maximum number of waiting proposals. Excess ones are dropped, and proposed again after a timeout.
pub(crate) const PENDING_MAX: usize = 16_384;

/// Maximum number of proposals in one log entry: about 300 KiB of average pins.
const ENTRY_PROPOSALS: usize = 1024;

/// Queue of proposals, with the encoded length of each.
pub(crate) struct Pending {
    limits: LimitsConfig,
    queue: Vec<Proposal>,
    sizes: Vec<usize>,
    bytes: usize,
}

impl Pending {
    pub(crate) fn new(limits: &LimitsConfig) -> Self {
        Self {
            limits: limits.clone(),
            queue: Vec::new(),
            sizes: Vec::new(),
            bytes: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns whether this peer should add no further proposal of its own.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= PENDING_MAX || self.bytes >= self.limits.pending_bytes
    }

    /// Adds a proposal; drops it if that would exceed a limit.
    pub(crate) fn push(&mut self, proposal: Proposal) {
        let size = encoded_len(&proposal);
        if self.queue.len() < PENDING_MAX && self.bytes + size <= self.limits.pending_bytes {
            self.bytes += size;
            self.sizes.push(size);
            self.queue.push(proposal);
        }
    }

    /// Iterates over all proposals, in order; for the simulator's coverage.
    #[cfg(planted_bugs)]
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Proposal> {
        self.queue.iter()
    }

    /// Returns the proposals of the next entry: at least one, and as many as fit into `entry_bytes`.
    pub(crate) fn next_entry(&self) -> &[Proposal] {
        let mut bytes = 0;
        let fits = |size: &&usize| {
            bytes += **size;
            bytes <= self.limits.entry_bytes || planted!(EntryBytesIgnored)
        };
        let count = self.sizes.iter().take(ENTRY_PROPOSALS).take_while(fits).count();
        &self.queue[..count.max(1).min(self.queue.len())]
    }

    /// Removes the first `count` proposals.
    pub(crate) fn advance(&mut self, count: usize) {
        self.queue.drain(..count);
        self.bytes -= self.sizes.drain(..count).sum::<usize>();
    }

    pub(crate) fn clear(&mut self) {
        self.advance(self.queue.len());
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Proposal) -> bool) {
        if self.queue.iter().all(&keep) {
            return;
        }
        for proposal in std::mem::take(&mut self.queue).into_iter().filter(keep) {
            self.queue.push(proposal);
        }
        self.sizes = self.queue.iter().map(encoded_len).collect();
        self.bytes = self.sizes.iter().sum();
    }

    /// Panics if a limit is exceeded or the sizes do not add up.
    pub(crate) fn check(&self) {
        assert!(
            self.queue.len() <= PENDING_MAX,
            "no more pending proposals than allowed"
        );
        assert!(
            self.bytes <= self.limits.pending_bytes,
            "no more pending bytes than allowed"
        );
        assert!(
            self.sizes.len() == self.queue.len(),
            "each pending proposal has a size"
        );
    }
}
