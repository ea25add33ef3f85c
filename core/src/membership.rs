//! Who should belong to the cluster, and who should vote: what a leader proposes next, from what operators
//! wish, whose data folder was lost, and who is heard. One change at a time; one that Raft refuses or loses
//! is noticed by its absence, and proposed again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::config::MembershipConfig;
use crate::ids::{Incarnation, Index, PeerId, RaftId};
use crate::members::{Member, Members, MembersChange, MembersStep};
use crate::planted::planted;
use crate::time::{Instant, Now};

/// How a peer stands to its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It waits to be let in, or to be let in again after it lost its data.
    Joining,
    /// It follows the log.
    Learner,
    /// It was a member, and is not any more.
    Removed,
    /// It follows the log and votes.
    Voter,
}

/// What a leader should do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Plan {
    /// Propose this.
    Change(MembersChange),
    /// Let this voter lead.
    Transfer(RaftId),
}

/// How far the log is, here and at the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) committed: Index,
    pub(crate) matched: BTreeMap<RaftId, Index>,
}

/// A member that speaks from another data folder than the one that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Returned {
    incarnation: Incarnation,
    first: Instant,
    last: Instant,
}

/// How often a leader looks whether there is something to change.
const INTERVAL: Duration = Duration::from_millis(250);

/// For so long only a new data folder must have been heard before the recorded one counts as lost: longer
/// than messages are under way, and two machines that run under one identity never replace each other.
const RETURN_GRACE: Duration = Duration::from_secs(2);

/// A new leader gives votes away only after this time: by then it has heard who is there.
const SETTLED: Duration = Duration::from_secs(5);

/// A learner with no more entries to come than this has caught up.
const REACH: Index = 64;

/// A peer is told once in this time that it is unknown, or who this peer is.
const NOTICE_PAUSE: Duration = Duration::from_secs(1);

/// Peers whose last notice is remembered; more are told later.
const NOTICES_MAX: usize = 256;

/// What a peer does for the membership.
pub(crate) struct Planner {
    config: MembershipConfig,
    /// Who has not been heard for so long does not count towards a majority that a change would need.
    patience: Duration,
    /// Since when this peer leads.
    leading: Option<Instant>,
    next: Instant,
    heard: BTreeMap<RaftId, Instant>,
    returned: BTreeMap<PeerId, Returned>,
    noticed: BTreeMap<PeerId, Instant>,
}

impl Planner {
    /// `patience` is several heartbeats.
    pub(crate) fn new(config: &MembershipConfig, patience: Duration) -> Self {
        Self {
            config: config.clone(),
            patience,
            leading: None,
            next: Instant(0),
            heard: BTreeMap::new(),
            returned: BTreeMap::new(),
            noticed: BTreeMap::new(),
        }
    }

    /// Leadership came or went. A new leader counts everybody as just heard.
    pub(crate) fn lead(&mut self, now: Now, leads: bool) {
        match (leads, self.leading) {
            (true, None) => {
                self.leading = Some(now.mono);
                self.next = now.mono + INTERVAL;
                self.heard.clear();
                self.returned.clear();
            }
            (false, Some(_)) => self.leading = None,
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// A member spoke, from the data folder that is recorded.
    pub(crate) fn heard(&mut self, now: Now, id: RaftId, peer: &PeerId) {
        if self.leading.is_some() {
            self.heard.insert(id, now.mono);
            self.returned.remove(peer);
        }
    }

    /// A member spoke from another data folder.
    pub(crate) fn returned(&mut self, now: Now, peer: &PeerId, incarnation: Incarnation) {
        if self.leading.is_none() {
            return;
        }
        let returned = self.returned.entry(peer.clone()).or_insert(Returned {
            incarnation,
            first: now.mono,
            last: now.mono,
        });
        if returned.incarnation == incarnation {
            returned.last = now.mono;
        } else {
            *returned = Returned {
                incarnation,
                first: now.mono,
                last: now.mono,
            };
        }
    }

    /// Whether a peer may be sent a notice now.
    pub(crate) fn may_notify(&mut self, now: Now, peer: &PeerId) -> bool {
        let is_recent = |at: &Instant| now.mono.since(*at) < NOTICE_PAUSE;
        if self.noticed.get(peer).is_some_and(is_recent) {
            return false;
        }
        if self.noticed.len() >= NOTICES_MAX {
            self.noticed.retain(|_, at| is_recent(at));
        }
        let room = self.noticed.len() < NOTICES_MAX || self.noticed.contains_key(peer);
        if room {
            self.noticed.insert(peer.clone(), now.mono);
        }
        room
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.leading.map(|_| self.next)
    }

    /// Says what to do next; nothing when it is not time yet.
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
        self.heard.retain(|id, _| members.peers.contains_key(id));
        self.returned.retain(|peer, _| members.raft_id(peer).is_some());
        // A joint membership completes by itself.
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

/// Everything that a plan is made from.
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
        let heard = self.planner.heard.get(&id).copied().unwrap_or(since);
        self.now.mono.since(heard.max(since))
    }

    fn is_alive(&self, id: RaftId) -> bool {
        let peer = self.members.peer(id);
        let has_lost_its_data = peer.is_some_and(|peer| self.planner.returned.contains_key(peer));
        self.silence(id) < self.planner.patience && !has_lost_its_data
    }

    /// Whether it was heard since this peer leads: until then it counts as alive without any proof.
    fn has_spoken(&self, id: RaftId) -> bool {
        id == self.me || self.planner.heard.contains_key(&id)
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
        matched > 0 && matched + REACH >= self.progress.committed || planted!(PromotedBehind)
    }

    /// Learners that could vote at once.
    fn candidates(&self) -> impl Iterator<Item = RaftId> {
        let fit = |id: &RaftId| self.is_alive(*id) && !self.is_leaving(*id) && self.has_caught_up(*id);
        self.members.learners.iter().copied().filter(fit)
    }

    /// A member whose data folder was lost comes back under a new Raft id.
    fn replace(&self) -> Option<Plan> {
        let lost = |(peer, returned): (&PeerId, &Returned)| {
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
        let (old, member) = self.planner.returned.iter().find_map(lost)?;
        let raft_id = self.members.next_raft_id;
        let mut steps = vec![MembersStep::AddLearner { raft_id, member }];
        steps.extend(self.without(old)?);
        Some(Plan::Change(MembersChange { steps }))
    }

    fn remove(&self) -> Option<Plan> {
        let leaves = |id: &RaftId| self.is_leaving(*id) && !planted!(LeaversStay);
        let leaving: Vec<RaftId> = self.members.peers.keys().copied().filter(leaves).collect();
        if let Some(id) = leaving.iter().copied().find(|id| *id != self.me) {
            let steps = self.without(id)?;
            return Some(Plan::Change(MembersChange { steps }));
        }
        if leaving.is_empty() {
            return None;
        }
        // A leader that removes itself would go on leading: another one must do it.
        let fit = |id: &RaftId| *id != self.me && self.is_alive(*id);
        let voters = self.members.voters.iter().copied().filter(fit);
        let best = voters.max_by_key(|id| self.progress.matched.get(id).copied().unwrap_or(0));
        let promote = |raft_id| MembersStep::Promote { raft_id };
        best.map(Plan::Transfer).or_else(|| {
            let steps = vec![promote(self.candidates().next()?)];
            Some(Plan::Change(MembersChange { steps }))
        })
    }

    /// Removes a member. Where the voters that remain would have no living majority, the silent ones lose
    /// their votes with it. A new leader that has not heard a majority of them yet does not know, and waits.
    fn without(&self, gone: RaftId) -> Option<Vec<MembersStep>> {
        let mut steps = vec![MembersStep::Remove { raft_id: gone }];
        if !self.members.voters.contains(&gone) {
            return Some(steps);
        }
        let rest = self.members.voters.iter().copied().filter(|id| *id != gone);
        let (alive, silent): (Vec<RaftId>, Vec<RaftId>) =
            rest.partition(|id| self.is_alive(*id) && !planted!(LivingDemoted));
        let heard = alive.iter().filter(|id| self.has_spoken(**id)).count();
        if heard * 2 > alive.len() + silent.len() {
            return Some(steps);
        }
        if !self.has_led_for(self.planner.patience) {
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

    /// Gives votes to those who can use them: few, an odd number.
    fn balance(&self) -> Option<Plan> {
        if !self.has_led_for(SETTLED.max(self.planner.patience)) {
            return None;
        }
        let voters = &self.members.voters;
        let wanted = self.wanted_voters();
        // Nothing of this is urgent: who has just fallen silent must not decide with too few others.
        let moment = self.planner.patience / 4;
        let fresh = wanted.iter().filter(|id| self.silence(**id) <= moment).count();
        if fresh * 2 <= wanted.len() {
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
        let odd = |count: usize| count - usize::from(count.is_multiple_of(2) && count > 0);
        let target = if everybody <= 2 {
            // A second voter brings no safety against a loss, and the first must not be left without it
            // where it has one: two stay as they are.
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
        if (present.len() + promoted.len()).is_multiple_of(2) && promoted.pop().is_none() {
            // Even, and nobody to make it odd: a vote that nobody casts does, where there is one.
            present.extend(gone.first());
        }
        present.extend(promoted);
        present.into_iter().collect()
    }
}

#[cfg(test)]
mod tests;
