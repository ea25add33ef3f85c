//! Rule for the addresses that this peer announces to others.

use libp2p::Multiaddr;

/// `cluster.announce_multiaddress` and `cluster.no_announce_multiaddress`, as configured.
#[derive(Debug)]
pub(super) struct Announce {
    instead: Vec<Multiaddr>,
    never: Vec<Multiaddr>,
}

impl Announce {
    /// Creates the rule: `instead` is announced unless it is empty, otherwise the addresses listened on; in
    /// both cases without those in `never`.
    pub(super) fn new(instead: Vec<Multiaddr>, never: Vec<Multiaddr>) -> Self {
        Self { instead, never }
    }

    /// Returns whether announced addresses can differ from those listened on.
    pub(super) fn differs(&self) -> bool {
        !(self.instead.is_empty() && self.never.is_empty())
    }

    /// Returns the addresses to announce while listening on `listening`.
    pub(super) fn addresses(&self, listening: &[Multiaddr]) -> Vec<Multiaddr> {
        let announced = match self.instead.as_slice() {
            [] => listening,
            instead => instead,
        };
        let announced = announced.iter().filter(|address| !self.never.contains(address));
        announced.cloned().collect()
    }
}
