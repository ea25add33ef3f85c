//! Peers of two releases in one cluster, and the upgrade from one to the other, a peer at a time. Includes
//! the rule of the daemon's network, which refuses peers of a release that is too old.

use cluster_core::{Envelope, Manifest, Members};

use crate::options::Options;
use crate::rng::Rng;
use crate::world::{Death, World};

/// This release.
pub(crate) const OLD: u8 = cluster_core::VERSION;

/// The next release, which adds one command.
pub(crate) const NEW: u8 = OLD + 1;

/// Draws the release that a peer begins with.
pub(crate) fn draw(options: &Options, number: usize) -> u8 {
    let mut rng = Rng::new(options.seed, &format!("release {number}"));
    if options.old == 0 || rng.chance(options.old) {
        OLD
    } else {
        NEW
    }
}

impl World {
    /// Returns whether a peer's network refuses a message, because its sender's release is too old or too
    /// new.
    pub(crate) fn refuses(&mut self, me: usize, envelope: &Envelope) -> bool {
        let peer = &self.peers[me];
        let refuses =
            envelope.version < peer.disk.written.members.version || envelope.min_version() > peer.release;
        if refuses {
            self.coverage.hit("a message of another release was refused");
        }
        refuses
    }

    /// Returns whether a peer can read a snapshot.
    pub(crate) fn can_read(&self, me: usize, manifest: &Manifest) -> bool {
        manifest.members.version <= self.peers[me].release
    }

    /// Ends a peer's process; the next one will be of the new release.
    pub(crate) fn upgrade(&mut self, me: usize) {
        if self.peers[me].release < NEW {
            self.crash(me, Death::Kill);
            self.peers[me].release = NEW;
            self.coverage.hit("a peer was upgraded");
        }
    }

    /// Completes an upgrade in the second phase, where peers of the older release may be
    /// refused. Elsewhere they may stay.
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

    /// Returns the version that the members have yet to agree on, where all of them are there and could.
    pub(crate) fn silent_about(&self, members: &Members) -> Option<u8> {
        let can = |id: &cluster_core::PeerId| {
            let peer = self.peers.iter().find(|peer| peer.id == *id);
            peer.is_some_and(|peer| peer.release == NEW && !peer.broken)
        };
        (self.options.old > 0 && members.version < NEW && members.peer_ids().all(can)).then_some(NEW)
    }
}
