//! Drains: records of peers whose pins move to others, so that they can be removed without losing a copy.

use serde::{Deserialize, Serialize};

use crate::ids::PeerId;
use crate::planted::planted;
use crate::time::Timestamp;

/// Maximum number of peers that are drained at once.
pub const DRAINS_MAX: usize = 256;

/// Maximum number of moves of one peer that can be asked for: each is read from the queue at every step.
pub const MOVES_MAX: u32 = 4096;

/// A peer whose pins move to others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// The drained peer.
    pub peer: PeerId,
    /// Time of the request, by the clock of the peer that was asked.
    pub since: Timestamp,
    /// Number of pins that were allocated to the peer then.
    pub pins: u64,
    /// Maximum number of its copies that wait for their replacements at once; at most [`MOVES_MAX`].
    pub moves_max: u32,
}

/// A change of the drains is impossible.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DrainError {
    /// [`DRAINS_MAX`] peers are being drained.
    #[error("{DRAINS_MAX} peers are being drained already: remove those that are empty")]
    Full,
    /// The peer is not being drained.
    #[error("this peer is not being drained")]
    Missing,
}

/// Adds a drain, or changes the limit of the one of the same peer. Returns it as stored.
pub(crate) fn start(drains: &mut Vec<Drain>, new: Drain) -> Result<Drain, DrainError> {
    match drains.binary_search_by(|drain| drain.peer.cmp(&new.peer)) {
        Ok(at) => {
            drains[at].moves_max = new.moves_max;
            Ok(drains[at].clone())
        }
        Err(_) if drains.len() >= DRAINS_MAX => Err(DrainError::Full),
        Err(at) => {
            drains.insert(at, new.clone());
            Ok(new)
        }
    }
}

/// Removes the drain of a peer, and returns it.
pub(crate) fn end(drains: &mut Vec<Drain>, peer: &PeerId) -> Result<Drain, DrainError> {
    let at = drains.iter().position(|drain| drain.peer == *peer);
    let at = at.ok_or(DrainError::Missing)?;
    if planted!(DrainNeverEnds) {
        return Ok(drains[at].clone());
    }
    Ok(drains.remove(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::peer;

    fn drain(number: u8, moves_max: u32) -> Drain {
        Drain {
            peer: peer(number),
            since: Timestamp(9),
            pins: 3,
            moves_max,
        }
    }

    #[test]
    fn repeated_drain_changes_only_the_limit() {
        let mut drains = Vec::new();
        assert_eq!(start(&mut drains, drain(2, 5)), Ok(drain(2, 5)));
        assert_eq!(start(&mut drains, drain(1, 5)), Ok(drain(1, 5)));
        let again = Drain {
            since: Timestamp(70),
            pins: 99,
            ..drain(2, 8)
        };
        assert_eq!(start(&mut drains, again), Ok(drain(2, 8)));
        assert_eq!(drains, [drain(1, 5), drain(2, 8)], "sorted");
        assert_eq!(end(&mut drains, &peer(1)), Ok(drain(1, 5)));
        assert_eq!(end(&mut drains, &peer(1)), Err(DrainError::Missing));
        let many = (0..DRAINS_MAX).map(|number| Drain {
            peer: PeerId::from_bytes(&[&[0, 4][..], &(number as u32).to_be_bytes()].concat())
                .expect("is an id"),
            ..drain(0, 1)
        });
        let mut full: Vec<Drain> = many.collect();
        assert_eq!(start(&mut full, drain(1, 1)), Err(DrainError::Full));
    }
}
