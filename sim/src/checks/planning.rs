//! A leader has a reason for each change of the membership: a new member was requested, a removed one was
//! requested to leave or has lost its data folder, a promoted one has the log, and a demoted one was silent
//! or exceeded the number of voters. Every Raft id belongs to one data folder, and no other one uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::{
    Effect, Identity, Incarnation, Members, MembersChange, MembersStep, Message, Payload, PeerId, RaftId,
    RaftKind, StoreOp, Term, decode,
};

use super::received::{Heard, Process};
use super::{Findings, Step};
use crate::members::wanted_voters;
use crate::options::Options;

/// Time for which only the new data folder of a member must be heard before the old one counts as lost: a
/// second copy of the core's rule.
const RETURN_GRACE: Duration = Duration::from_secs(2);

/// Maximum number of entries that a learner may lack to get a vote.
const REACH: u64 = 64;

/// Facts about all memberships that were ever written.
#[derive(Debug)]
pub(super) struct Planning {
    /// The data folder that each Raft id was given to.
    folders: BTreeMap<RaftId, (PeerId, Option<Incarnation>)>,
    /// Raft ids of a written membership that a later one lacks.
    ended: BTreeSet<RaftId>,
    /// The newest term with a leader.
    led: Term,
    patience: Duration,
    replace_after: Duration,
    voters_max: u64,
    /// True if messages may be in flight for very long.
    late: bool,
}

impl Planning {
    pub(super) fn new(options: &Options) -> Self {
        let ticks = options.tick_ms.max(1) * options.election_ticks.max(3);
        Self {
            folders: BTreeMap::new(),
            ended: BTreeSet::new(),
            led: 0,
            patience: Duration::from_millis(ticks * 2),
            replace_after: Duration::from_millis(options.replace_after_ms),
            voters_max: options.voters_max,
            late: options.late > 0,
        }
    }

    /// Notes a membership that a peer starts from.
    pub(super) fn booted(&mut self, members: &Members) {
        self.note(members);
    }

    pub(super) fn after_step(&mut self, step: &Step<'_>, heard: &Heard, found: &mut Findings<'_>) {
        let heard = heard.of(step.me);
        let view = step.peer().node.as_ref().map(|node| node.view());
        let leads = view.filter(|view| view.is_leader());
        self.led = self.led.max(leads.map_or(0, |view| view.term()));
        for op in step.writes() {
            match op {
                StoreOp::SetMembers { members } => self.note(members),
                StoreOp::InstallSnapshot { manifest, .. } => self.note(&manifest.members),
                StoreOp::SetHardState { hard_state } => self.of_identity(step, hard_state.identity, found),
                StoreOp::Append { entries } if step.peer().leads() => {
                    for entry in entries {
                        if let Payload::Members(data) = &entry.payload
                            && let Ok(change) = decode::<MembersChange>(data)
                        {
                            self.of_change(step, heard, &change, entry.term, found);
                        }
                    }
                }
                _ => {}
            }
        }
        for effect in step.effects {
            if let Effect::Send { envelope, .. } = effect
                && let Message::Raft(message) = &envelope.message
                // Read requests are forwarded unchanged.
                && !matches!(message.kind, RaftKind::ReadIndex | RaftKind::ReadIndexResp)
            {
                self.of_speaker(step, message.from, found);
            }
        }
    }

    fn note(&mut self, members: &Members) {
        for (id, member) in &members.peers {
            let folder = self.folders.entry(*id).or_insert((member.peer.clone(), None));
            folder.1 = folder.1.or(member.incarnation);
        }
        let is_gone = |id: &&RaftId| !members.peers.contains_key(*id) && **id < members.next_raft_id;
        let gone: Vec<RaftId> = self.folders.keys().filter(is_gone).copied().collect();
        self.ended.extend(gone);
    }

    /// Checks that a message under a Raft id comes from the data folder that the id was assigned to.
    fn of_speaker(&self, step: &Step<'_>, id: RaftId, found: &mut Findings<'_>) {
        let peer = step.peer();
        let Some((owner, folder)) = self.folders.get(&id) else {
            return;
        };
        let mine = peer.disk.incarnation();
        // A founder that is set up again uses its founding id until the others correct it.
        let founded = *owner == peer.id && peer.founded_again;
        let own = founded || *owner == peer.id && folder.is_none_or(|folder| folder == mine);
        found.require(own, "identity", || {
            format!("speaks as {id}, which is {owner} with {folder:?}; this is {mine}")
        });
    }

    fn of_identity(&self, step: &Step<'_>, identity: Identity, found: &mut Findings<'_>) {
        let peer = step.peer();
        match identity {
            Identity::Removed(id) => {
                found.require(self.ended.contains(&id), "identity", || {
                    format!("takes itself, {id}, for removed, and no membership is without it")
                });
            }
            Identity::Known(id) => self.of_speaker(step, id, found),
            Identity::Unknown => {
                let known = self
                    .folders
                    .values()
                    .any(|(owner, folder)| *owner == peer.id && *folder == Some(peer.disk.incarnation()));
                let ended = self.folders.iter().any(|(id, (owner, folder))| {
                    *owner == peer.id && *folder == Some(peer.disk.incarnation()) && self.ended.contains(id)
                });
                found.require(!known || ended, "identity", || {
                    "forgets its Raft id, which was given to this data folder".to_owned()
                });
            }
            Identity::Founding => {}
        }
    }

    fn of_change(
        &self,
        step: &Step<'_>,
        heard: &Process,
        change: &MembersChange,
        term: Term,
        found: &mut Findings<'_>,
    ) {
        let members = &step.peer().disk.written.members;
        let removed: BTreeSet<RaftId> = change.steps.iter().filter_map(removes).collect();
        for part in &change.steps {
            match part {
                MembersStep::AddLearner { raft_id, member } => {
                    // A deposed leader that does not know its successor may assign an id that the successor
                    // has assigned. It commits nothing any more (seed 1146).
                    let is_taken = self.folders.contains_key(raft_id) && term >= self.led;
                    found.require(!is_taken && *raft_id >= members.next_raft_id, "planning", || {
                        format!(
                            "gives {raft_id} to {member:?}, it was {:?}",
                            self.folders.get(raft_id)
                        )
                    });
                    let asked = members.joining.contains(&member.peer);
                    let replaces = removed.iter().any(|id| members.peer(*id) == Some(&member.peer));
                    found.require(asked || replaces, "planning", || {
                        format!("lets {member:?} in, nobody asked for it")
                    });
                }
                MembersStep::Remove { raft_id } => self.of_removal(step, heard, *raft_id, change, found),
                MembersStep::Promote { raft_id } => self.of_promotion(step, heard, *raft_id, found),
                MembersStep::Demote { raft_id } => {
                    self.of_demotion(step, heard, *raft_id, !removed.is_empty(), found);
                }
            }
        }
    }

    fn of_removal(
        &self,
        step: &Step<'_>,
        heard: &Process,
        id: RaftId,
        change: &MembersChange,
        found: &mut Findings<'_>,
    ) {
        let members = &step.peer().disk.written.members;
        let Some(old) = members.peers.get(&id) else {
            return;
        };
        self.of_rest(step, heard, id, change, found);
        if members.leaving.contains(&old.peer) {
            return;
        }
        let replacement = change.steps.iter().find_map(|part| match part {
            MembersStep::AddLearner { member, .. } if member.peer == old.peer => Some(member),
            _ => None,
        });
        let Some(replacement) = replacement else {
            found.safety_violation("planning", format!("removes {old:?}, nobody asked for it"));
            return;
        };
        let real = step.peers.iter().find(|peer| peer.id == old.peer);
        // While a peer is silent, delayed messages of its lost data folder may arrive and count as signs of
        // life of that folder (seeds 305141, 311987). Real connections that carry them end much sooner.
        let real = real.map(|peer| peer.disk.incarnation());
        found.require(old.incarnation != real || self.late, "planning", || {
            format!("replaces {old:?} by {replacement:?}: its data folder is there")
        });
        let other = heard.other_folder(&old.peer);
        let long = other
            .is_some_and(|(folder, time)| Some(folder) == replacement.incarnation && time >= RETURN_GRACE);
        found.require(long, "planning", || {
            format!("replaces {old:?} by {replacement:?}, having heard {other:?}")
        });
    }

    /// Checks that this leader has heard from a majority of the voters that remain after a removal, unless
    /// the silent ones lose their votes with it.
    fn of_rest(
        &self,
        step: &Step<'_>,
        heard: &Process,
        gone: RaftId,
        change: &MembersChange,
        found: &mut Findings<'_>,
    ) {
        let members = &step.peer().disk.written.members;
        let demotes = |part: &MembersStep| matches!(part, MembersStep::Demote { .. });
        if !members.voters.contains(&gone) || change.steps.iter().any(demotes) {
            return;
        }
        let since = heard.leads_since.iter().flatten().min().copied();
        let is_heard = |id: &&RaftId| {
            let peer = members.peer(**id);
            let last = peer.and_then(|peer| heard.last(peer));
            peer == Some(&step.peer().id) || last.is_some() && last >= since
        };
        let rest: Vec<&RaftId> = members.voters.iter().filter(|id| **id != gone).collect();
        let count = rest.iter().copied().filter(|id| is_heard(id)).count();
        found.require(count * 2 > rest.len(), "planning", || {
            format!(
                "removes {gone}, having heard {count} of the {} voters that remain",
                rest.len()
            )
        });
    }

    fn of_promotion(&self, step: &Step<'_>, heard: &Process, id: RaftId, found: &mut Findings<'_>) {
        let members = &step.peer().disk.written.members;
        let Some(peer) = members.peer(id) else { return };
        let committed = step
            .peer()
            .node
            .as_ref()
            .map_or(0, |node| node.view().committed());
        let real = step.peers.iter().find(|other| other.id == *peer);
        let has = real.map_or(0, |peer| peer.disk.written.last());
        found.require(has + REACH >= committed, "planning", || {
            format!("gives {id} a vote, its log ends at {has}, {committed} is agreed on")
        });
        found.require(!members.leaving.contains(peer), "planning", || {
            format!("gives {id} a vote, which is to be removed")
        });
        let silence = self.silence(step, heard, peer);
        found.require(silence < self.patience, "planning", || {
            format!("gives {id} a vote, silent for {silence:?}")
        });
    }

    fn of_demotion(
        &self,
        step: &Step<'_>,
        heard: &Process,
        id: RaftId,
        removes: bool,
        found: &mut Findings<'_>,
    ) {
        let members = &step.peer().disk.written.members;
        let Some(peer) = members.peer(id) else { return };
        let too_many = members.voters.len() > wanted_voters(members, self.voters_max);
        let least = if removes {
            self.patience
        } else {
            self.replace_after
        };
        let silence = self.silence(step, heard, peer);
        let lost = heard.other_folder(peer).is_some();
        // A member that is silent for long reduces the number of voters that is wanted.
        let others = members.peers.values().map(|member| &member.peer);
        let someone_gone = others
            .filter(|other| **other != step.peer().id)
            .any(|other| self.silence(step, heard, other) > self.replace_after);
        let justified = silence >= least || (removes && lost) || (!removes && (too_many || someone_gone));
        found.require(justified, "planning", || {
            format!("takes the vote of {id}, silent for {silence:?}, in {members:?}")
        });
    }

    /// Returns the time since the last message of a member, counted from the start of the leader's term at
    /// the earliest.
    fn silence(&self, step: &Step<'_>, heard: &Process, peer: &PeerId) -> Duration {
        let now = step.now.mono;
        let since = heard.leads_since.iter().flatten().min().copied();
        let last = heard.last(peer);
        now.since(last.max(since).unwrap_or(now))
    }
}

fn removes(part: &MembersStep) -> Option<RaftId> {
    match part {
        MembersStep::Remove { raft_id } => Some(*raft_id),
        MembersStep::AddLearner { .. } | MembersStep::Demote { .. } | MembersStep::Promote { .. } => None,
    }
}
