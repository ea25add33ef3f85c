//! Planted bugs: mistakes that the simulator activates one at a time, to prove that it finds them. They are
//! compiled into the simulator's build of these sources only, which sets `cfg(planted_bugs)`. In all others
//! `planted!` is the constant `false`, and this module contains nothing else.

/// Evaluates to `true` if a bug is active.
#[cfg(not(planted_bugs))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

/// Evaluates to `true` if a bug is active.
#[cfg(planted_bugs)]
macro_rules! planted {
    ($bug:ident) => {
        crate::planted::is_active(crate::planted::Bug::$bug)
    };
}

pub(crate) use planted;

/// Returns a limit of this process. The simulator runs with smaller ones, to exceed them with little input.
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
            /// A planted bug.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Bug {
                $($(#[$doc])* $name,)*
            }

            impl Bug {
                /// All bugs.
                pub const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    bugs! {
        /// A pin with precondition `Absent` replaces an existing one.
        AbsentUnchecked,
        /// Messages leave before the writes that they depend on are durable.
        AckBeforeFsync,
        /// A peer is reported to be a member when its request is recorded.
        AddedEarly,
        /// An expired metric raises alerts repeatedly.
        AlertsRepeated,
        /// The applied position is written in another batch than the state.
        AppliedApart,
        /// Failed attempts are not counted.
        AttemptsForgotten,
        /// The tracker does not cancel outdated or stuck operations.
        CancelForgotten,
        /// Compaction keeps nothing for followers that lag.
        CompactsAll,
        /// Pins are compared with the IPFS node all the time.
        ComparesAlways,
        /// Pins are never compared with the IPFS node.
        ComparesNever,
        /// A peer confirms copies that it does not hold yet.
        ConfirmsUnheld,
        /// Peers with expired metrics count as live.
        DeadAllocated,
        /// Requests are not answered at their deadline.
        DeadlineIgnored,
        /// Removed peers are not remembered, so that their pins stay allocated to them.
        DepartedForgotten,
        /// Pins stay allocated to removed peers.
        DepartedHold,
        /// A direct pin replaces a recursive one.
        DirectOverRecursive,
        /// Pins are removed seconds before their expiry.
        ExpiresEarly,
        /// Expired pins are not removed.
        ExpirySkipped,
        /// An expiry removes a pin that has changed since.
        ExpiryUnconditional,
        /// Pins of silent peers are re-allocated although that is disabled.
        FailoverThoughOff,
        /// Entries and messages are not limited by bytes.
        EntryBytesIgnored,
        /// Failover starts without a grace period.
        FailoverWithoutGrace,
        /// A failed pin counts as pinned.
        FailureIsSuccess,
        /// A pin gets its minimum number of copies, not its maximum.
        FewestCopies,
        /// Messages from lost incarnations are accepted.
        FolderUnchecked,
        /// The result of an outdated operation is taken for that of the wanted one.
        ForgetsOvertaking,
        /// Peers with less free space are preferred.
        FullestFirst,
        /// Commands that not all members can read are proposed.
        FutureNotHeldBack,
        /// A peer counts as down after half the grace period.
        GraceHalved,
        /// Copies are not spread over groups of peers.
        GroupsIgnored,
        /// Queue entries that do not fit into memory are forgotten.
        HeadLosesRest,
        /// Pins with enough copies are given more.
        HealthyRepaired,
        /// A changed pin is allocated without regard to its current holders.
        HoldersMoved,
        /// Invalid metrics are used for allocation.
        InvalidAllocated,
        /// Learners count towards majorities.
        LearnerCounted,
        /// Members that are to be removed stay.
        LeaversStay,
        /// A removal demotes all voters but the leader.
        LivingDemoted,
        /// Linearizable reads are served from the local state at once.
        LocalReads,
        /// Local states without a pin in an installed snapshot are kept.
        LocalsNotReconciled,
        /// Metrics of removed members are kept.
        MetricsKept,
        /// A change of depth is ignored.
        ModeIgnored,
        /// The name of a pin is not passed to the IPFS node.
        NameDropped,
        /// The log is never compacted.
        NeverCompacts,
        /// A new leader does not take over the duties.
        NewLeaderRests,
        /// Duplicate proposals are applied.
        NoDedupe,
        /// The local state is not reconciled with an installed snapshot.
        NoReconcile,
        /// A `NotMember` notice is believed even if it is older than this peer's own knowledge.
        NotMemberBelieved,
        /// A membership request in the log is refused at its deadline.
        NotedIsRefusal,
        /// Proposals of an earlier process are applied.
        OldBootAdmitted,
        /// A surplus copy is unpinned after one confirmation, however many are required.
        OneConfirmation,
        /// Only one of several peers that are down loses its pins.
        OneDownOnly,
        /// Requests beyond the limit are accepted.
        OpenUnlimited,
        /// A pin with other metadata or origins is not updated.
        OptionsIgnored,
        /// Messages of other clusters are accepted.
        OtherClustersHeard,
        /// Pauses between attempts exceed their limit.
        PauseUnlimited,
        /// A pin that cannot be repaired loses the allocations of its lost copies.
        PlaceholdersDropped,
        /// Allocations are proposed without the version that they were decided from.
        PreconditionDropped,
        /// Peers that the client prefers are not preferred.
        PreferenceIgnored,
        /// A pin that makes progress is cancelled like one that does not.
        ProgressIgnored,
        /// A learner becomes a voter before it has caught up.
        PromotedBehind,
        /// A read is served before its log index is applied.
        ReadBeforeApplied,
        /// A recover request does not retry anything.
        RecoverIgnored,
        /// A pin with another expiry is not updated.
        RenewalIgnored,
        /// An incarnation counts as lost after one message from another.
        ReplacedAtOnce,
        /// The leader judges expiry by its own clock alone.
        OwnClockTrusted,
        /// Clients are answered when their pin is proposed.
        ReplyOnPropose,
        /// Failed operations are retried without a pause.
        RetryAtOnce,
        /// Retries take precedence over first attempts.
        RetryBeforeFresh,
        /// Failed operations are not retried.
        RetryForgotten,
        /// A proposal that may be lost is proposed again under another id.
        RetryUnderNewId,
        /// The failure of a snapshot transfer is not reported to Raft.
        SnapshotFailureIgnored,
        /// A snapshot that is not installed stays on disk.
        SnapshotKept,
        /// A snapshot is installed without the windows of applied proposals.
        SnapshotWithoutWindows,
        /// A re-allocation that was decided from an older version of the pin is applied.
        StaleAllocation,
        /// Metrics of non-members are kept.
        StrangersMeasured,
        /// A pin that makes no progress is not cancelled.
        StuckPinStays,
        /// A surplus copy is unpinned before its new holders have theirs.
        SurplusAtOnce,
        /// A surplus copy that is not confirmed in time is not asked about again.
        SurplusForgotten,
        /// A sync reports no missing pins.
        SyncMiscounted,
        /// Silence before the leader's term counts.
        TermNotAwaited,
        /// A pin is accepted with fewer copies than it asks for.
        TooFewCopies,
        /// Metrics never expire.
        TtlIgnored,
        /// A request that may still take effect is reported to have had none.
        UnknownIsRefusal,
        /// An unpin that was decided from an older version of the pin is applied.
        UnpinUnchecked,
        /// An update ignores the requested name.
        UpdateKeepsName,
        /// An update ignores the requested expiry.
        UpdateNeverEnds,
        /// An update of a pin that does not exist is accepted.
        UpdateWithoutSource,
        /// A re-allocation does not change the version of the pin.
        VersionKept,
        /// A protocol version is agreed on that not all members have announced.
        VersionUnheard,
        /// Votes are lost on restart.
        VoteForgotten,
        /// Terms and votes are not synced.
        VoteUnsynced,
        /// Every member gets a vote.
        VotersUnlimited,
        /// Proposals of a new process are deduplicated against those of the previous one.
        WindowKeepsBoot,
        /// A proposal that arrives after a later one is dropped.
        WindowTooNarrow,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
        static SHRINK: Cell<u64> = const { Cell::new(1) };
        static RELEASE: Cell<(u8, bool)> = const { Cell::new((crate::wire::VERSION, false)) };
    }

    /// Makes this thread's cores read and write like the release with this highest version. The one after
    /// [`VERSION`](crate::VERSION) has one more command, which it proposes repeatedly if `speaks`.
    pub fn pretend(version: u8, speaks: bool) {
        RELEASE.set((version, speaks));
    }

    /// Divides the limits of this thread's cores: window width, queue heads in memory, records per step.
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

    /// Activates a bug for this thread; `None` deactivates all.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    pub(crate) fn is_active(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug)
    }
}
