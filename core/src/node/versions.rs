//! Agreement on the protocol version, so that peers of two releases can form one cluster during an upgrade.

use super::Node;
use crate::command::Command;
use crate::ids::PeerId;
use crate::members::MembersWish;
use crate::planted::planted;

impl Node {
    /// Records the version that a member announced, if this peer supports a later one than agreed.
    pub(super) fn record_version(&mut self, from: &PeerId, version: u8) {
        if self.raft.members().version < self.config.version {
            self.versions.insert(from.clone(), version);
        }
    }

    /// On the leader, proposes to raise the agreed version to the highest that every member can read.
    pub(super) fn raise_version(&mut self) {
        if !self.raft.leads() || self.pending.is_full() {
            return;
        }
        #[cfg(any(debug_assertions, planted_bugs))]
        if self.config.version >= MembersWish::Next.min_version() && crate::planted::announces_news() {
            self.propose_wish(MembersWish::Next);
        }
        let members = self.raft.members();
        let own = self.config.version;
        if members.version >= own {
            return;
        }
        let me = &self.config.peer;
        let others = members.peer_ids().filter(|peer| *peer != me);
        let read = others.map(|peer| {
            let unknown = if planted!(VersionUnheard) { own } else { 0 };
            self.versions.get(peer).copied().unwrap_or(unknown)
        });
        let read = read.chain([own]);
        let version = if planted!(VersionHighest) {
            read.max()
        } else {
            read.min()
        };
        let version = version.unwrap_or(own);
        if version > members.version {
            self.propose_wish(MembersWish::RaiseVersion { version });
        }
    }

    fn propose_wish(&mut self, wish: MembersWish) {
        let proposal = self.requests.mint(self.raft.id(), Command::Members(wish));
        self.pending.push(proposal);
    }

    /// Drops pending proposals that not all members could read. Their owners propose them again.
    pub(super) fn drop_unreadable_proposals(&mut self) {
        let agreed = self.raft.members().version;
        if agreed < self.config.version && !planted!(FutureNotHeldBack) {
            self.pending
                .retain(|proposal| proposal.command.min_version() <= agreed);
        }
    }
}
