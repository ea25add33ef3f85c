//! Planning of membership changes by the leader: replaces lost data folders, carries out requested additions
//! and removals, and balances votes. Plans one change at a time from the recorded membership; a change that
//! Raft refuses or loses is planned again. The node proposes the plans; `members` records their results.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::MembershipConfig;
use crate::ids::{Incarnation, Index, PeerId, RaftId};
use crate::members::{Member, Members, MembersChange, MembersStep};
use crate::planted::planted;
use crate::time::{Instant, Now};

/// A peer's role in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// Waits to be added, or to be added again after it lost its data.
    Joining,
    /// Follows the log without a vote.
    Learner,
    /// Former member.
    Removed,
    /// Follows the log and votes.
    Voter,
}

/// Next action of the leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Propose this membership change.
    Change(MembersChange),
    /// Transfer the leadership to this voter.
    Transfer(RaftId),
}

/// Replication progress, as known to the leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) committed: Index,
    pub(crate) matched: BTreeMap<RaftId, Index>,
}

/// A member that sends from another incarnation than the recorded one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NewIncarnation {
    incarnation: Incarnation,
    first: Instant,
    last: Instant,
}

/// Pause between two planning attempts of a leader.
const INTERVAL: Duration = Duration::from_millis(250);

/// Time for which only the new incarnation must be heard from before the recorded one counts as lost: longer
/// than any message is in flight. Two machines with the same identity thus never replace each other.
const RETURN_GRACE: Duration = Duration::from_secs(2);

/// Time for which a new leader does not change who votes, to learn which members are live.
const BALANCE_DELAY: Duration = Duration::from_secs(5);

/// Maximum number of entries that a caught-up learner may lack.
const CATCH_UP_LAG_MAX: Index = 64;

/// Shortest time between two notices (`Hello` or `NotMember`) to one peer.
const NOTICE_PAUSE: Duration = Duration::from_secs(1);

/// Maximum number of peers whose last notice is remembered; others get theirs later.
const NOTICES_MAX: usize = 256;

/// Planner of membership changes.
pub(crate) struct Planner {
    config: MembershipConfig,
    /// Silence after which a member does not count as live: several heartbeats.
    silence_max: Duration,
    /// Time at which this peer became leader; `None` if it is not.
    leading: Option<Instant>,
    next: Instant,
    last_message: BTreeMap<RaftId, Instant>,
    new_incarnations: BTreeMap<PeerId, NewIncarnation>,
    last_notice: BTreeMap<PeerId, Instant>,
}

impl Planner {
    /// Creates a planner; `silence_max` should be several heartbeats.
    pub(crate) fn new(config: &MembershipConfig, silence_max: Duration) -> Self {
        Self {
            config: config.clone(),
            silence_max,
            leading: None,
            next: Instant(0),
            last_message: BTreeMap::new(),
            new_incarnations: BTreeMap::new(),
            last_notice: BTreeMap::new(),
        }
    }

    /// Notes whether this peer leads. Silence counts from the start of the leadership.
    pub(crate) fn lead(&mut self, now: Now, leads: bool) {
        match (leads, self.leading) {
            (true, None) => {
                self.leading = Some(now.mono);
                self.next = now.mono + INTERVAL;
                self.last_message.clear();
                self.new_incarnations.clear();
            }
            (false, Some(_)) => self.leading = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Notes a message of a member's recorded incarnation.
    pub(crate) fn record_message(&mut self, now: Now, id: RaftId, peer: &PeerId) {
        if self.leading.is_some() {
            self.last_message.insert(id, now.mono);
            if !planted!(ReturnedReplaced) {
                self.new_incarnations.remove(peer);
            }
        }
    }

    /// Notes a message of a member's other incarnation.
    pub(crate) fn record_incarnation(&mut self, now: Now, peer: &PeerId, incarnation: Incarnation) {
        if self.leading.is_none() {
            return;
        }
        let returned = self
            .new_incarnations
            .entry(peer.clone())
            .or_insert(NewIncarnation {
                incarnation,
                first: now.mono,
                last: now.mono,
            });
        if returned.incarnation == incarnation {
            returned.last = now.mono;
        } else {
            *returned = NewIncarnation {
                incarnation,
                first: now.mono,
                last: now.mono,
            };
        }
    }

    /// Returns whether a notice may be sent to a peer now, and if so counts it as sent.
    pub(crate) fn may_notify(&mut self, now: Now, peer: &PeerId) -> bool {
        let is_recent = |at: &Instant| now.mono.since(*at) < NOTICE_PAUSE;
        if self.last_notice.get(peer).is_some_and(is_recent) && !planted!(NoticesUnlimited) {
            return false;
        }
        if self.last_notice.len() >= NOTICES_MAX {
            self.last_notice.retain(|_, at| is_recent(at));
        }
        let room = self.last_notice.len() < NOTICES_MAX || self.last_notice.contains_key(peer);
        if room {
            self.last_notice.insert(peer.clone(), now.mono);
        }
        room
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.leading.map(|_| self.next)
    }

    /// Returns the next action; `None` if it is not time yet or there is nothing to do.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Now,
        members: &Members,
        me: RaftId,
        progress: impl FnOnce() -> Progress,
    ) -> Option<Plan> {
        if now.mono < self.poll_timeout()? {
            return None;
        }
        self.next = now.mono + INTERVAL;
        self.last_message.retain(|id, _| members.peers.contains_key(id));
        self.new_incarnations
            .retain(|peer, _| members.raft_id(peer).is_some());
        // A joint change completes automatically.
        if !members.outgoing.is_empty() {
            return None;
        }
        let progress = progress();
        let survey = Survey {
            planner: self,
            now,
            members,
            me,
            progress: &progress,
        };
        survey
            .replace()
            .or_else(|| survey.remove())
            .or_else(|| survey.add())
            .or_else(|| survey.balance())
    }
}

/// Inputs of a plan.
struct Survey<'a> {
    planner: &'a Planner,
    now: Now,
    members: &'a Members,
    me: RaftId,
    progress: &'a Progress,
}

impl Survey<'_> {
    fn silence(&self, id: RaftId) -> Duration {
        if id == self.me {
            return Duration::ZERO;
        }
        let since = self.planner.leading.unwrap_or(self.now.mono);
        let last = self.planner.last_message.get(&id).copied().unwrap_or(since);
        self.now.mono.since(last.max(since))
    }

    fn is_alive(&self, id: RaftId) -> bool {
        let peer = self.members.peer(id);
        let has_lost_its_data = peer.is_some_and(|peer| self.planner.new_incarnations.contains_key(peer));
        self.silence(id) < self.planner.silence_max && !has_lost_its_data
    }

    /// Returns whether a member has sent a message since this peer became leader. Until then it is presumed
    /// live.
    fn has_sent_message(&self, id: RaftId) -> bool {
        id == self.me || self.planner.last_message.contains_key(&id)
    }

    fn has_led_for(&self, time: Duration) -> bool {
        let since = self.planner.leading;
        since.is_some_and(|since| self.now.mono.since(since) >= time)
    }

    fn is_leaving(&self, id: RaftId) -> bool {
        self.members
            .peer(id)
            .is_some_and(|peer| self.members.leaving.contains(peer))
    }

    fn has_caught_up(&self, id: RaftId) -> bool {
        let matched = self.progress.matched.get(&id).copied().unwrap_or(0);
        matched > 0 && matched + CATCH_UP_LAG_MAX >= self.progress.committed || planted!(PromotedBehind)
    }

    /// Returns the learners that can be promoted now.
    fn candidates(&self) -> impl Iterator<Item = RaftId> {
        let fit = |id: &RaftId| {
            (self.is_alive(*id) || planted!(SilentPromoted))
                && !self.is_leaving(*id)
                && self.has_caught_up(*id)
        };
        self.members.learners.iter().copied().filter(fit)
    }

    /// Plans the replacement of a lost incarnation: its peer gets a new Raft id.
    fn replace(&self) -> Option<Plan> {
        let lost = |(peer, returned): (&PeerId, &NewIncarnation)| {
            let id = self.members.raft_id(peer)?;
            let other_is_silent =
                returned.last.since(returned.first) >= RETURN_GRACE || planted!(ReplacedAtOnce);
            let recorded = self.members.peers[&id].incarnation;
            (id != self.me && other_is_silent && recorded != Some(returned.incarnation)).then(|| {
                let member = Member {
                    peer: peer.clone(),
                    incarnation: Some(returned.incarnation),
                };
                (id, member)
            })
        };
        let (old, member) = self.planner.new_incarnations.iter().find_map(lost)?;
        let raft_id = self.members.next_raft_id;
        let mut steps = vec![MembersStep::AddLearner { raft_id, member }];
        steps.extend(self.removal_steps(old)?);
        Some(Plan::Change(MembersChange { steps }))
    }

    fn remove(&self) -> Option<Plan> {
        let leaves = |id: &RaftId| self.is_leaving(*id) && !planted!(LeaversStay);
        let leaving: Vec<RaftId> = self.members.peers.keys().copied().filter(leaves).collect();
        if let Some(id) = leaving.iter().copied().find(|id| *id != self.me) {
            let steps = self.removal_steps(id)?;
            return Some(Plan::Change(MembersChange { steps }));
        }
        if leaving.is_empty() || planted!(LeaderStays) {
            return None;
        }
        // A leader cannot remove itself: Raft would let it continue to lead. Another one must do it.
        let fit = |id: &RaftId| *id != self.me && self.is_alive(*id);
        let voters = self.members.voters.iter().copied().filter(fit);
        let best = voters.max_by_key(|id| self.progress.matched.get(id).copied().unwrap_or(0));
        let promote = |raft_id| MembersStep::Promote { raft_id };
        best.map(Plan::Transfer).or_else(|| {
            let steps = vec![promote(self.candidates().next()?)];
            Some(Plan::Change(MembersChange { steps }))
        })
    }

    /// Returns the steps that remove a member. If the remaining voters would have no live majority, the
    /// silent ones are demoted too. `None` while a new leader has no messages from such a majority yet.
    fn removal_steps(&self, gone: RaftId) -> Option<Vec<MembersStep>> {
        let mut steps = vec![MembersStep::Remove { raft_id: gone }];
        if !self.members.voters.contains(&gone) {
            return Some(steps);
        }
        let rest = self.members.voters.iter().copied().filter(|id| *id != gone);
        let (alive, silent): (Vec<RaftId>, Vec<RaftId>) =
            rest.partition(|id| self.is_alive(*id) && !planted!(LivingDemoted));
        let sending = alive.iter().filter(|id| self.has_sent_message(**id)).count();
        let needed = alive.len() + silent.len() + usize::from(!planted!(HalfIsMajority));
        if sending * 2 >= needed {
            return Some(steps);
        }
        if !self.has_led_for(self.planner.silence_max) {
            return None;
        }
        steps.extend(silent.into_iter().map(|raft_id| MembersStep::Demote { raft_id }));
        Some(steps)
    }

    fn add(&self) -> Option<Plan> {
        let joins = |peer: &&PeerId| self.members.raft_id(peer).is_none();
        let peer = self.members.joining.iter().find(joins)?.clone();
        let member = Member {
            peer,
            incarnation: None,
        };
        let raft_id = self.members.next_raft_id;
        let steps = vec![MembersStep::AddLearner { raft_id, member }];
        Some(Plan::Change(MembersChange { steps }))
    }

    /// Plans promotions and demotions: at most `voters_max` voters, and an odd number.
    fn balance(&self) -> Option<Plan> {
        if !self.has_led_for(BALANCE_DELAY.max(self.planner.silence_max)) {
            return None;
        }
        let voters = &self.members.voters;
        let wanted = self.wanted_voters();
        // Not urgent, so it waits until a majority of the new voters was heard from recently: silent ones may
        // have failed.
        let moment = self.planner.silence_max / 4;
        let fresh = wanted.iter().filter(|id| self.silence(**id) <= moment).count();
        if fresh * 2 <= wanted.len() && !planted!(BalancedUnheard) {
            return None;
        }
        let steps: Vec<MembersStep> = wanted
            .difference(voters)
            .map(|raft_id| MembersStep::Promote { raft_id: *raft_id })
            .chain(
                voters
                    .difference(&wanted)
                    .map(|raft_id| MembersStep::Demote { raft_id: *raft_id }),
            )
            .collect();
        (!steps.is_empty()).then_some(Plan::Change(MembersChange { steps }))
    }

    fn wanted_voters(&self) -> BTreeSet<RaftId> {
        let is_gone = |id: &RaftId| self.silence(*id) > self.planner.config.replace_after;
        let (gone, mut present): (Vec<RaftId>, Vec<RaftId>) =
            self.members.voters.iter().copied().partition(is_gone);
        let learners = self.members.learners.iter().filter(|id| !is_gone(id));
        let everybody = present.len() + learners.count();
        let odd =
            |count: usize| count - usize::from(count.is_multiple_of(2) && count > 0 && !planted!(EvenVoters));
        let target = if everybody <= 2 {
            // Two voters tolerate no more failures than one, so a single voter gets no second one. Two
            // existing voters are kept.
            present.len()
        } else {
            let most = if planted!(VotersUnlimited) {
                everybody
            } else {
                self.planner.config.voters_max
            };
            odd(everybody.min(most)).max(1)
        };
        present.sort_by_key(|id| (*id != self.me, !self.is_alive(*id), *id));
        present.truncate(target.max(1));
        let room = target.saturating_sub(present.len());
        let mut promoted: Vec<RaftId> = self.candidates().take(room).collect();
        let is_even = (present.len() + promoted.len()).is_multiple_of(2) && !planted!(EvenVoters);
        if is_even && promoted.pop().is_none() {
            // An even number, and no candidate to make it odd: keep the vote of a silent voter, if any.
            present.extend(gone.first());
        }
        present.extend(promoted);
        present.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
