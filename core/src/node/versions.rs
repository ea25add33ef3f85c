//! Agreement on the protocol version, so that peers of two releases can form one cluster during an upgrade.

use super::{Node, Step};
use crate::command::Command;
use crate::effect::Refusal;
use crate::ids::{PeerId, Ticket};
use crate::members::MembersWish;
use crate::planted::planted;

impl Node {
    /// Records the version that a member announced, if this peer supports a later one than agreed.
    pub(super) fn record_version(&mut self, from: &PeerId, version: u8) {
        if self.raft.members().version < self.config.version
            && self.versions.insert(from.clone(), version) != Some(version)
        {
            // It may have been the last one to wait for.
            self.raise_version();
        }
    }

    /// Raises the version once in each term of this leader: the members may have announced theirs before.
    pub(super) fn raise_version_as_new_leader(&mut self) {
        let term = Some(self.raft.term());
        let is_behind = self.raft.members().version < self.config.version;
        if is_behind && self.raised_in != term && self.raft.leads() {
            self.raised_in = term;
            self.raise_version();
        }
    }

    /// Refuses a request whose command needs protocol version `needed`, if a member is known to read only
    /// an earlier one. Otherwise it waits: the members announce their versions within moments.
    pub(super) fn postpone_unreadable<V>(&mut self, step: &mut Step<'_, V>, ticket: Ticket, needed: u8) {
        let read = |peer: &PeerId| match self.versions.get(peer) {
            _ if *peer == self.config.peer => Some(self.config.version),
            announced => announced.copied(),
        };
        let members = self.raft.members().peer_ids();
        let old = members.filter(|peer| read(peer).is_some_and(|version| version < needed));
        let old: Vec<String> = old.map(ToString::to_string).collect();
        if old.is_empty() {
            let why = "not all peers have announced yet that they can read this change: try again later";
            return self.requests.wait(ticket, Refusal::Unreadable(why.to_owned()));
        }
        let why = format!(
            "an older release runs on {}, which cannot read this change: upgrade all peers first",
            old.join(", ")
        );
        let refusal = Err(Refusal::Unreadable(why));
        self.requests.answer(ticket, refusal, &mut step.requests);
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
