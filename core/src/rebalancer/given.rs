//! Memory of the copies that this peer has moved to others. One that comes back did not fit there, and is not
//! moved to the same peer again: it would go back and forth. Lost with the process, and forgotten when
//! operators change the settings or ask for a run.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::{Cid, PeerId};
use crate::planted::planted;

/// Maximum number of remembered moves: a multiple of those whose copies wait at once by default, as a copy
/// comes back within a few attempts to pin it. A forgotten one is tried once more.
const GIVEN_MAX: usize = 4096;

/// The last moves of copies, with the peers that got them.
#[derive(Debug, Default)]
pub(super) struct Given {
    order: VecDeque<(Cid, PeerId)>,
    known: BTreeSet<(Cid, PeerId)>,
}

impl Given {
    /// Records that a peer has got a copy. Forgets the oldest record beyond the maximum.
    pub(super) fn note(&mut self, cid: Cid, to: PeerId) {
        let given = (cid, to);
        if planted!(RebalanceForgetsReturns) || !self.known.insert(given.clone()) {
            return;
        }
        self.order.push_back(given);
        if self.order.len() > GIVEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Returns whether a copy was moved to a peer.
    pub(super) fn has(&self, cid: &Cid, to: &PeerId) -> bool {
        !self.known.is_empty() && self.known.contains(&(cid.clone(), to.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cid, peer};

    #[test]
    fn oldest_moves_are_forgotten() {
        let mut given = Given::default();
        for number in 0..=u16::try_from(GIVEN_MAX).expect("a few thousand") {
            let [high, low] = number.to_be_bytes();
            let cid = Cid::from_bytes(&[1, 0x55, 0, 2, high, low]).expect("is a CID");
            given.note(cid.clone(), peer(2));
            given.note(cid, peer(2));
        }
        assert_eq!((given.order.len(), given.known.len()), (GIVEN_MAX, GIVEN_MAX));
        let first = Cid::from_bytes(&[1, 0x55, 0, 2, 0, 0]).expect("is a CID");
        let second = Cid::from_bytes(&[1, 0x55, 0, 2, 0, 1]).expect("is a CID");
        assert!(!given.has(&first, &peer(2)) && given.has(&second, &peer(2)));
        assert!(!given.has(&second, &peer(3)) && !given.has(&cid(9), &peer(2)));
    }
}
