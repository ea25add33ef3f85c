//! What others are told of where this peer listens.

use libp2p::Multiaddr;

/// The rule, as configured.
#[derive(Debug)]
pub(super) struct Announce {
    instead: Vec<Multiaddr>,
    never: Vec<Multiaddr>,
}

impl Announce {
    /// `instead` of what is listened on, unless it is empty, and `never` what is in that.
    pub(super) fn new(instead: Vec<Multiaddr>, never: Vec<Multiaddr>) -> Self {
        Self { instead, never }
    }

    /// Whether others are told anything but what is listened on.
    pub(super) fn differs(&self) -> bool {
        !(self.instead.is_empty() && self.never.is_empty())
    }

    /// What others are told while these are listened on.
    pub(super) fn addresses(&self, listening: &[Multiaddr]) -> Vec<Multiaddr> {
        let told = match self.instead.as_slice() {
            [] => listening,
            instead => instead,
        };
        let told = told.iter().filter(|address| !self.never.contains(address));
        told.cloned().collect()
    }
}
