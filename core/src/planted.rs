//! Mistakes that the simulator switches on one at a time, to prove that it would find them. They are compiled
//! into the simulator's own build of these sources only, which sets `cfg(planted_bugs)`: everywhere else
//! `planted!` is the constant `false`, and this module holds nothing but the macro.

/// Whether a mistake is switched on.
#[cfg(not(planted_bugs))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

/// Whether a mistake is switched on.
#[cfg(planted_bugs)]
macro_rules! planted {
    ($bug:ident) => {
        crate::planted::is_active(crate::planted::Bug::$bug)
    };
}

pub(crate) use planted;

/// A limit of this process: as it is written, but for the simulator, which has runs with smaller ones, where
/// little is needed to get beyond them.
#[cfg(not(planted_bugs))]
pub(crate) const fn scaled(limit: usize) -> usize {
    limit
}

#[cfg(planted_bugs)]
pub(crate) use self::switch::scaled;
#[cfg(planted_bugs)]
pub use self::switch::{Bug, plant, pretend, shrink};
#[cfg(planted_bugs)]
pub(crate) use self::switch::{is_active, release, says_what_is_new};

#[cfg(planted_bugs)]
mod switch {
    use std::cell::Cell;

    macro_rules! bugs {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// A mistake.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Bug {
                $($(#[$doc])* $name,)*
            }

            impl Bug {
                /// All of them.
                pub const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    bugs! {
        /// A pin that was decided from there being none replaces one.
        AbsentUnchecked,
        /// Promises leave before the disk has them.
        AckBeforeFsync,
        /// A peer is reported to be a member when the wish for it is recorded.
        AddedEarly,
        /// A missing metric is reported again and again.
        AlertsRepeated,
        /// The applied position is saved apart from the state.
        AppliedApart,
        /// Failed attempts are not counted.
        AttemptsForgotten,
        /// The tracker does not cancel what is overtaken or stuck.
        CancelForgotten,
        /// The log keeps nothing for followers that lag.
        CompactsAll,
        /// What the IPFS node lost is looked for all the time.
        ComparesAlways,
        /// What the IPFS node lost is not looked for.
        ComparesNever,
        /// A peer confirms copies that it does not hold yet.
        ConfirmsUnheld,
        /// Peers whose metrics have run out count as alive.
        DeadAllocated,
        /// Clients are not answered when their time is over.
        DeadlineIgnored,
        /// Removed peers are not remembered, so their pins stay with them.
        DepartedForgotten,
        /// Pins stay allocated to removed peers.
        DepartedHold,
        /// A recursive pin is made a direct one.
        DirectOverRecursive,
        /// Pins are removed seconds before their end.
        ExpiresEarly,
        /// Pins are not removed at their end.
        ExpirySkipped,
        /// An expiry removes whatever the pin has become since.
        ExpiryUnconditional,
        /// Pins of silent peers are moved where that is switched off.
        FailoverThoughOff,
        /// Proposals share a log entry however many bytes they come to, and entries a message.
        EntryBytesIgnored,
        /// Failover starts without a grace period.
        FailoverWithoutGrace,
        /// A pin that failed counts as pinned.
        FailureIsSuccess,
        /// A pin gets as many copies as it needs, and not as many as it may have.
        FewestCopies,
        /// Messages of a lost data folder count.
        FolderUnchecked,
        /// An operation that was overtaken is taken for the one that is wanted.
        ForgetsOvertaking,
        /// Peers with less room come first.
        FullestFirst,
        /// What not all members can read is proposed all the same.
        FutureNotHeldBack,
        /// A peer counts as down after half of the grace period.
        GraceHalved,
        /// Copies are not spread over groups of peers.
        GroupsIgnored,
        /// What does not fit into memory of a queue is forgotten.
        HeadLosesRest,
        /// Pins with copies enough are given more.
        HealthyRepaired,
        /// A pin that is changed is given to other peers than those that hold it.
        HoldersMoved,
        /// Metrics that say of themselves that they are invalid count.
        InvalidAllocated,
        /// Learners count towards majorities.
        LearnerCounted,
        /// Members that are to be removed stay.
        LeaversStay,
        /// A removal takes the votes of all but the leader.
        LivingDemoted,
        /// Reads are served from the local copy as it is.
        LocalReads,
        /// Local states that no pin of a snapshot explains are left alone.
        LocalsNotReconciled,
        /// Metrics of removed members are kept.
        MetricsKept,
        /// A change of depth is not noticed.
        ModeIgnored,
        /// The IPFS node is not given the name of a pin.
        NameDropped,
        /// The log grows without end.
        NeverCompacts,
        /// A new leader does not take up the old one's duties.
        NewLeaderRests,
        /// Proposals are applied as often as they come.
        NoDedupe,
        /// The local state is not compared with a pinset that came in a snapshot.
        NoReconcile,
        /// A peer that is told to be no member believes it, whatever it knows itself.
        NotMemberBelieved,
        /// A wish for the membership that is in the log is refused.
        NotedIsRefusal,
        /// Proposals of an earlier process are applied.
        OldBootAdmitted,
        /// A copy goes when one other peer has confirmed, however many must.
        OneConfirmation,
        /// Only one of several peers that are down loses its pins.
        OneDownOnly,
        /// Requests beyond the limit are taken.
        OpenUnlimited,
        /// A pin that is asked for with other labels or origins stays as it is.
        OptionsIgnored,
        /// Messages of another cluster count.
        OtherClustersHeard,
        /// Pauses between attempts grow beyond their limit.
        PauseUnlimited,
        /// A pin that cannot be repaired loses the places of its lost copies.
        PlaceholdersDropped,
        /// Allocations are decided from a state that the log does not compare.
        PreconditionDropped,
        /// Peers that the client prefers do not come first.
        PreferenceIgnored,
        /// A pin that makes progress is given up like one that does not.
        ProgressIgnored,
        /// A member gets a vote before it has the log.
        PromotedBehind,
        /// A read is served before what it must see is applied.
        ReadBeforeApplied,
        /// What a client wants tried again is left where it is.
        RecoverIgnored,
        /// A pin that is asked for with another end stays as it is.
        RenewalIgnored,
        /// A data folder counts as lost after one message from another.
        ReplacedAtOnce,
        /// The leader judges expiry by its own clock alone.
        OwnClockTrusted,
        /// Clients are answered when their pin is proposed.
        ReplyOnPropose,
        /// What failed is tried again without a pause.
        RetryAtOnce,
        /// What failed is tried again before what was never tried.
        RetryBeforeFresh,
        /// What failed is not tried again.
        RetryForgotten,
        /// A proposal that may be lost is made again under another id.
        RetryUnderNewId,
        /// Raft is not told that a snapshot did not arrive.
        SnapshotFailureIgnored,
        /// A snapshot that is of no use stays on the disk.
        SnapshotKept,
        /// A snapshot is installed without the windows of applied proposals.
        SnapshotWithoutWindows,
        /// A move that was decided from an older state of the pin is carried out.
        StaleAllocation,
        /// Metrics of peers that are no members are kept.
        StrangersMeasured,
        /// A pin that makes no progress is left alone.
        StuckPinStays,
        /// A copy that others are to hold goes before they do.
        SurplusAtOnce,
        /// A copy that nobody confirmed in time is not asked about again.
        SurplusForgotten,
        /// Clients are told that nothing was missing.
        SyncMiscounted,
        /// Silence is counted from before the term of the leader that counts it.
        TermNotAwaited,
        /// A pin is accepted with fewer copies than it asks for.
        TooFewCopies,
        /// Metrics live for ever.
        TtlIgnored,
        /// "It may still happen" is told as "it did not happen".
        UnknownIsRefusal,
        /// A removal that was decided from an older state of the pin is carried out.
        UnpinUnchecked,
        /// An update ignores the name that it is asked for with.
        UpdateKeepsName,
        /// An update ignores when it is to end.
        UpdateNeverEnds,
        /// A pin that updates one which is not there is accepted.
        UpdateWithoutSource,
        /// A move does not make a new version of the pin.
        VersionKept,
        /// A version is agreed on that not all members have said to read.
        VersionUnheard,
        /// A vote is forgotten when the process ends.
        VoteForgotten,
        /// Terms and votes are not synced.
        VoteUnsynced,
        /// Every member gets a vote.
        VotersUnlimited,
        /// Proposals of a new process are taken for those of the last one.
        WindowKeepsBoot,
        /// A proposal that is overtaken by a later one is dropped.
        WindowTooNarrow,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
        static SHRINK: Cell<u64> = const { Cell::new(1) };
        static RELEASE: Cell<(u8, bool)> = const { Cell::new((crate::wire::VERSION, false)) };
    }

    /// Has this thread's cores read and write as the release does whose newest version this is. The next one
    /// after [`VERSION`](crate::VERSION) has one more thing to say, and says it over and over if it `speaks`.
    pub fn pretend(version: u8, speaks: bool) {
        RELEASE.set((version, speaks));
    }

    /// Divides the limits of this thread's cores: how far windows reach back, what is kept of queues in
    /// memory, how much is looked at in one step.
    pub fn shrink(divisor: u64) {
        SHRINK.set(divisor.max(1));
    }

    pub(crate) fn scaled(limit: usize) -> usize {
        usize::try_from(limit as u64 / SHRINK.get()).map_or(limit, |limit| limit.max(2))
    }

    pub(crate) fn release() -> u8 {
        RELEASE.get().0
    }

    pub(crate) fn says_what_is_new() -> bool {
        RELEASE.get().1
    }

    /// Switches a mistake on for this thread, or all off.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    pub(crate) fn is_active(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }
}
