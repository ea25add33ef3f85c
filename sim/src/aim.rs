//! Aimed faults: a peer dies shortly after it has done something that others, or its own next process, depend
//! on. Faults at random times hit the rare ones of these moments too seldom.

use cluster_core::{Effect, StoreOp};

use crate::rng::Rng;
use crate::world::{Death, World};

/// Action of a peer that a fault may follow, from the most common to the rarest. A step with several actions
/// counts as the rarest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The peer sent a message.
    Send,
    /// The peer began a write that must become durable.
    Persist,
    /// The peer answered a client.
    Answer,
    /// The peer applied entries of the log.
    Apply,
    /// The peer began to send its pinset.
    SnapshotSent,
    /// The membership became joint: until it is left, two majorities decide.
    Joint,
    /// The peer installed a received pinset.
    Install,
}

impl Moment {
    fn of(effects: &[Effect]) -> Option<Self> {
        effects.iter().filter_map(Self::of_effect).max()
    }

    fn of_effect(effect: &Effect) -> Option<Self> {
        match effect {
            Effect::Persist(batch) => {
                let synced = batch.sync.then_some(Self::Persist);
                batch.ops.iter().filter_map(Self::of_write).chain(synced).max()
            }
            Effect::Reply { reply, .. } => reply.is_ok().then_some(Self::Answer),
            Effect::Send { .. } => Some(Self::Send),
            Effect::SendSnapshot { .. } => Some(Self::SnapshotSent),
            _ => None,
        }
    }

    fn of_write(op: &StoreOp) -> Option<Self> {
        match op {
            StoreOp::InstallSnapshot { .. } => Some(Self::Install),
            StoreOp::SetApplied { .. } => Some(Self::Apply),
            StoreOp::SetMembers { members } => (!members.outgoing.is_empty()).then_some(Self::Joint),
            _ => None,
        }
    }

    /// Returns the weight in thousandths of the option's rate: low for what happens a hundred times a second,
    /// high for what happens a few times in a run.
    fn weight(self) -> u64 {
        match self {
            Self::Send => 50,
            Self::Persist | Self::Answer | Self::Apply => 600,
            Self::SnapshotSent | Self::Install => 10_000,
            Self::Joint => 20_000,
        }
    }

    /// Returns the coverage name of a death shortly after this action.
    pub(crate) fn followed_by_death(self) -> &'static str {
        match self {
            Self::Send => "died shortly after it sent a message",
            Self::Persist => "died shortly after it began a write",
            Self::Answer => "died shortly after it answered",
            Self::Apply => "died shortly after it applied entries",
            Self::SnapshotSent => "died shortly after it began to send a snapshot",
            Self::Joint => "died shortly after its membership became joint",
            Self::Install => "died shortly after it installed a snapshot",
        }
    }
}

/// A planned fault: the peer, the kind of death, and its delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aim {
    pub(crate) peer: usize,
    pub(crate) death: Death,
    /// After this many nanoseconds.
    pub(crate) delay: u64,
    /// Action that it follows.
    pub(crate) moment: Moment,
}

/// Upper bounds of the delay after the action, in nanoseconds: before any effect, during a sync or a
/// message's flight, or within the round trip that the action causes.
const DELAYS: [u64; 3] = [1_000_000, 20_000_000, 150_000_000];

impl World {
    /// Draws whether the peer dies shortly after the actions in `effects`.
    pub(crate) fn take_aim(&mut self, me: usize, effects: &[Effect]) -> Option<Aim> {
        if self.calm || self.options.aim == 0 {
            return None;
        }
        let moment = Moment::of(effects)?;
        draw(&mut self.aim, self.options.aim, moment).map(|(death, delay)| Aim {
            peer: me,
            death,
            delay,
            moment,
        })
    }
}

fn draw(rng: &mut Rng, permille: u64, moment: Moment) -> Option<(Death, u64)> {
    if rng.below(1_000_000) >= permille * moment.weight() {
        return None;
    }
    let death = if rng.chance(600) { Death::Cut } else { Death::Kill };
    let longest = *rng.pick(&DELAYS);
    Some((death, rng.below(longest)))
}

#[cfg(test)]
mod tests {
    use cluster_core::{Batch, BatchId, Members};

    use super::*;
    use crate::peer::peer_id;

    fn persist(ops: Vec<StoreOp>, sync: bool) -> Effect {
        let id = BatchId(1);
        Effect::Persist(Batch { id, ops, sync })
    }

    #[test]
    fn step_counts_as_its_rarest_action() {
        let alone = Members::initial([peer_id(0)]);
        let mut joint = Members::initial([peer_id(0), peer_id(1)]);
        joint.outgoing = joint.voters.clone();
        let becomes = |members: &Members| {
            let members = members.clone();
            StoreOp::SetMembers { members }
        };
        assert_eq!(Moment::of(&[]), None);
        assert_eq!(Moment::of(&[Effect::Measure]), None);
        assert_eq!(Moment::of(&[persist(Vec::new(), false)]), None);
        assert_eq!(Moment::of(&[persist(Vec::new(), true)]), Some(Moment::Persist));
        assert_eq!(
            Moment::of(&[persist(vec![becomes(&alone)], true)]),
            Some(Moment::Persist)
        );
        let effects = [persist(vec![becomes(&joint)], false), persist(Vec::new(), true)];
        assert_eq!(Moment::of(&effects), Some(Moment::Joint));
    }

    #[test]
    fn rare_actions_are_struck_more_often() {
        let mut rng = Rng::new(1, "test");
        let mut struck = |moment| {
            (0..10_000)
                .filter(|_| draw(&mut rng, 20, moment).is_some())
                .count()
        };
        let (common, usual, rare) = (
            struck(Moment::Send),
            struck(Moment::Apply),
            struck(Moment::Install),
        );
        assert!(common * 4 < usual && usual * 4 < rare, "{common} {usual} {rare}");
        assert!(rare < 3000, "and not every time: {rare}");
    }
}
