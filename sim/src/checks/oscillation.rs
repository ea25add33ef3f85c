//! Moves come to an end: once the faults and the clients have ended, no copy leaves the same peer again and
//! again, however slowly. What operators change permits new moves.

use std::collections::BTreeMap;

use cluster_core::{Cid, Command, PeerId, RebalanceChange};

use super::Findings;

/// Maximum number of times that a copy may leave one peer: because of the last faults, because the balance
/// was taken from old metrics, and because another peer gave it the copy before it knew that it has no room.
const LEAVES_MAX: u32 = 3;

/// Copies that have left each peer since the faults ended.
#[derive(Debug, Default)]
pub(super) struct Oscillation {
    is_calm: bool,
    allocations: BTreeMap<Cid, Vec<PeerId>>,
    left: BTreeMap<Cid, BTreeMap<PeerId, u32>>,
}

impl Oscillation {
    /// Records the end of the faults.
    pub(super) fn calm_down(&mut self) {
        self.is_calm = true;
    }

    /// Checks a command that has taken effect.
    pub(super) fn of_command(&mut self, command: &Command, found: &mut Findings<'_>) {
        match command {
            Command::Pin { pin, .. } => {
                self.left.remove(&pin.cid);
                self.allocations.insert(pin.cid.clone(), pin.allocations.clone());
            }
            Command::Reallocate { cid, allocations, .. } => {
                let before = self.allocations.insert(cid.clone(), allocations.clone());
                let before = before.unwrap_or_default();
                for peer in before.iter().filter(|peer| !allocations.contains(peer)) {
                    self.of_leaving(cid, peer, found);
                }
            }
            Command::Unpin { cid, .. } | Command::Release { cid, .. } => drop(self.left.remove(cid)),
            Command::Drain { .. }
            | Command::EndDrain { .. }
            | Command::Members(_)
            | Command::Rebalance {
                change: RebalanceChange::Settings(_) | RebalanceChange::Start { .. },
            } => self.left.clear(),
            _ => {}
        }
    }

    fn of_leaving(&mut self, cid: &Cid, peer: &PeerId, found: &mut Findings<'_>) {
        if !self.is_calm {
            return;
        }
        let peers = self.left.entry(cid.clone()).or_default();
        let count = peers.entry(peer.clone()).or_default();
        *count += 1;
        found.require(*count <= LEAVES_MAX, "oscillation", || {
            format!("{cid} leaves {peer} for the time number {count} since the faults ended")
        });
    }
}
