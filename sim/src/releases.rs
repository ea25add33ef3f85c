//! Peers of two releases in one cluster, and how it goes from one to the other: a peer at a time, while the
//! rest goes on. What the daemon's network does about it is here: it refuses who has stayed behind.

use cluster_core::{Envelope, Manifest, Members, pretend};

use crate::options::Options;
use crate::rng::Rng;
use crate::world::{Death, World};

/// The release that this is.
pub(crate) const OLD: u8 = cluster_core::VERSION;

/// The next one, which has one more thing to say.
pub(crate) const NEW: u8 = OLD + 1;

/// Does something as a peer of a release, which says what is new in it if it `speaks`; outside of it
/// everything can be read.
pub(crate) fn as_release<T>(release: u8, speaks: bool, what: impl FnOnce() -> T) -> T {
    pretend(release, speaks);
    let result = what();
    pretend(NEW, false);
    result
}

/// The release that a peer begins with.
pub(crate) fn draw(options: &Options, number: usize) -> u8 {
    let mut rng = Rng::new(options.seed, &format!("release {number}"));
    if options.old == 0 || rng.chance(options.old) {
        OLD
    } else {
        NEW
    }
}

impl World {
    /// A message that a peer's network does not let in: its sender has stayed behind, or has gone on.
    pub(crate) fn refuses(&mut self, me: usize, envelope: &Envelope) -> bool {
        let peer = &self.peers[me];
        let refuses =
            envelope.version < peer.disk.written.members.version || envelope.min_version() > peer.release;
        if refuses {
            self.coverage.hit("a message of another release was refused");
        }
        refuses
    }

    /// Whether a peer can read a snapshot.
    pub(crate) fn can_read(&self, me: usize, manifest: &Manifest) -> bool {
        manifest.members.version <= self.peers[me].release
    }

    /// A peer's process ends, and the next one will be of the new release.
    pub(crate) fn upgrade(&mut self, me: usize) {
        if self.peers[me].release < NEW {
            self.crash(me, Death::Kill);
            self.peers[me].release = NEW;
            self.coverage.hit("a peer was upgraded");
        }
    }

    /// In the second phase an upgrade that was begun is completed, where those who stayed behind may be
    /// refused: an operator looks after them. Elsewhere they may stay.
    pub(crate) fn complete_upgrade(&mut self) {
        let changes = self.options.op_members > 0 || self.options.joiners > 0;
        if self.options.old == 0 || (self.options.old_stay > 0 && !changes) {
            return;
        }
        for peer in 0..self.peers.len() {
            if !self.peers[peer].broken {
                self.upgrade(peer);
            }
        }
    }

    /// What the members have yet to agree to say, where all of them are there and could.
    pub(crate) fn silent_about(&self, members: &Members) -> Option<u8> {
        let can = |id: &cluster_core::PeerId| {
            let peer = self.peers.iter().find(|peer| peer.id == *id);
            peer.is_some_and(|peer| peer.release == NEW && !peer.broken)
        };
        (self.options.old > 0 && members.version < NEW && members.peer_ids().all(can)).then_some(NEW)
    }
}
