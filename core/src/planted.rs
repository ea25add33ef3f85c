//! Planted bugs: defects that the simulator activates one at a time, to prove that it finds them. They are
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

/// Returns whether a leader of the next release proposes its new command, for tests of upgrades.
#[cfg(all(debug_assertions, not(planted_bugs)))]
pub(crate) const fn announces_news() -> bool {
    true
}

#[cfg(planted_bugs)]
pub(crate) use self::switch::scaled;
#[cfg(planted_bugs)]
pub use self::switch::{Bug, announce_news, plant, shrink};
#[cfg(planted_bugs)]
pub(crate) use self::switch::{announces_news, is_active};

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
        /// A message that is addressed to another data folder is accepted.
        AddresseeIgnored,
        /// A metric that expires for the second time raises no alert.
        AlertOnce,
        /// An expired metric raises alerts repeatedly.
        AlertsRepeated,
        /// Alerts beyond the limit are kept.
        AlertsUnlimited,
        /// A peer confirms its copy whichever version of the pin it is asked about.
        AnyVersionConfirmed,
        /// The applied position is written in another batch than the state.
        AppliedApart,
        /// Failed attempts are not counted.
        AttemptsForgotten,
        /// Votes are balanced while most of the new voters have been silent for a moment.
        BalancedUnheard,
        /// The outcome of an earlier process's proposal answers a request of this one.
        BootIgnored,
        /// The tracker does not cancel outdated or stuck operations.
        CancelForgotten,
        /// The cluster's time is computed from the clocks of any number of voters.
        ClockMajorityIgnored,
        /// The cluster's time is the later one of the two clocks in the middle.
        ClockMedianHigh,
        /// Compaction keeps nothing for followers that lag.
        CompactsAll,
        /// The log is compacted beyond the applied entry.
        CompactsUnapplied,
        /// Pins are compared with the IPFS node all the time.
        ComparesAlways,
        /// Pins are never compared with the IPFS node.
        ComparesNever,
        /// A long comparison is followed by the next one after the interval.
        ComparesWithoutRest,
        /// A peer confirms copies that it does not hold yet.
        ConfirmsUnheld,
        /// Peers with expired metrics count as live.
        DeadAllocated,
        /// Each retry moves the deadline of a request.
        DeadlineExtended,
        /// Requests are not answered at their deadline.
        DeadlineIgnored,
        /// Removed peers are not remembered, so that their pins stay allocated to them.
        DepartedForgotten,
        /// Pins stay allocated to removed peers.
        DepartedHold,
        /// A peer that was removed and added again stays on the list of departed peers.
        DepartedKept,
        /// A direct pin replaces a recursive one.
        DirectOverRecursive,
        /// A local state from before a power cut is trusted although the pin has changed since.
        DistrustDropped,
        /// A drain moves pins although fewer living peers than the minimum remain.
        DrainBelowMinimum,
        /// The drain of a peer is reported to have ended, and goes on.
        DrainNeverEnds,
        /// A drained peer passes over its pins only once.
        DrainOnePass,
        /// The drain of a peer that was removed is kept.
        DrainOutlivesPeer,
        /// A drain removes its peer from pins without a replacement.
        DrainReducesCopies,
        /// A drain has any number of moves under way.
        DrainUnlimited,
        /// Pins are allocated to peers that are being drained.
        DrainedPeersAllocated,
        /// Entries and messages are not limited by bytes.
        EntryBytesIgnored,
        /// The number of voters may be even.
        EvenVoters,
        /// All expired pins are removed at once.
        ExpiresAllAtOnce,
        /// Pins are removed seconds before their expiry.
        ExpiresEarly,
        /// Expired pins are not removed.
        ExpirySkipped,
        /// An expiry removes a pin that has changed since.
        ExpiryUnconditional,
        /// Pins of silent peers are re-allocated although that is disabled.
        FailoverThoughOff,
        /// Failover starts without a grace period.
        FailoverWithoutGrace,
        /// A failed pin counts as pinned.
        FailureIsSuccess,
        /// A pin gets its minimum number of copies, not its maximum.
        FewestCopies,
        /// A peer does not send its metrics to one whose first metrics arrive.
        FirstMetricsUnanswered,
        /// Messages from lost incarnations are accepted.
        FolderUnchecked,
        /// The result of an outdated operation counts as that of the wanted one.
        ForgetsOvertaking,
        /// A proposal that a leader has received counts as one that it has not.
        ForwardedForgotten,
        /// The newest pin in the queue starts first.
        FreshReversed,
        /// Peers with less free space are preferred.
        FullestFirst,
        /// Commands that not all members can read are proposed.
        FutureNotHeldBack,
        /// A peer counts as down after half the grace period.
        GraceHalved,
        /// Copies are not spread over groups of peers.
        GroupsIgnored,
        /// The group of peers with the least free space is chosen first.
        GroupsLightest,
        /// A removal counts on half of the remaining voters instead of a majority.
        HalfIsMajority,
        /// Queue entries that do not fit into memory are forgotten.
        HeadLosesRest,
        /// Pins with enough copies are given more.
        HealthyRepaired,
        /// A changed pin is allocated without regard to its current holders.
        HoldersMoved,
        /// An imported pin is allocated without regard to the peers that hold it.
        ImportMovesHolders,
        /// An imported pin gets the current time as its timestamp.
        ImportTimeDropped,
        /// Invalid metrics are used for allocation.
        InvalidAllocated,
        /// A peer that has joined stays on the list of peers to add.
        JoiningKept,
        /// A second snapshot makes local states trusted that the first one had left in doubt.
        LateTrusted,
        /// A leader that is to be removed does not hand over its leadership.
        LeaderStays,
        /// A leader that hears from nobody stays leader.
        LeadsAlone,
        /// Learners count towards majorities.
        LearnerCounted,
        /// Members that are to be removed stay.
        LeaversStay,
        /// A follower that cannot reach its leader waits for the whole election timeout.
        LeaseOutlivesLeader,
        /// A peer that was removed stays on the list of peers to remove.
        LeavingKept,
        /// A removal demotes all voters but the leader.
        LivingDemoted,
        /// Linearizable reads are served from the local state at once.
        LocalReads,
        /// Local states without a pin in an installed snapshot are kept.
        LocalsNotReconciled,
        /// Compaction does not reduce the count of bytes in the log.
        LogBytesDrift,
        /// A pin gets one copy more than its maximum.
        MaxExceeded,
        /// Metrics of removed members are kept.
        MetricsKept,
        /// Metrics are not sent again to a peer that was unreachable, or by a new leader.
        MetricsNotResent,
        /// A change of depth is ignored.
        ModeIgnored,
        /// The name of a pin is not passed to the IPFS node.
        NameDropped,
        /// An allocation does not prefer the peer that asks for it.
        NearIgnored,
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
        /// A peer is notified on every message that it is unknown.
        NoticesUnlimited,
        /// Proposals of an earlier process are applied.
        OldBootAdmitted,
        /// A confirmation of an older version of a pin counts.
        OldConfirmation,
        /// The answer to an earlier process's read serves a read of this one.
        OldReadsServed,
        /// A root is announced by one holder more than configured.
        OneAnnouncerTooMany,
        /// A surplus copy is unpinned after one confirmation, however many are required.
        OneConfirmation,
        /// Only one of several peers that are down loses its pins.
        OneDownOnly,
        /// Requests beyond the limit are accepted.
        OpenUnlimited,
        /// A pin with other metadata or origins is not updated.
        OptionsIgnored,
        /// The outcome of another peer's proposal answers a request of this one.
        OriginIgnored,
        /// Messages of other clusters are accepted.
        OtherClustersHeard,
        /// A snapshot of another cluster is installed.
        OtherSnapshotTaken,
        /// The leader judges expiry by its own clock alone.
        OwnClockTrusted,
        /// A pin by a second owner forgets the first.
        OwnerForgotten,
        /// Later attempts to pin are given up as soon as the first one.
        PatienceConstant,
        /// Pauses between attempts exceed their limit.
        PauseUnlimited,
        /// The reconciliation with a snapshot looks at the first chunk of pins only.
        PinsReconciledOnce,
        /// All pins go to the same of several peers of equal rank.
        PinsUnspread,
        /// A pin that cannot be repaired loses the allocations of its lost copies.
        PlaceholdersDropped,
        /// Allocations are proposed without the version that they were decided from.
        PreconditionDropped,
        /// Peers that the client prefers are not preferred.
        PreferenceIgnored,
        /// Of the peers that the client prefers, the last one comes first.
        PreferenceReversed,
        /// A pin that makes progress is cancelled like one that does not.
        ProgressIgnored,
        /// A learner becomes a voter before it has caught up.
        PromotedBehind,
        /// A key stays in the queue on disk when its CID moves to another queue.
        QueueKept,
        /// A read is served before its log index is applied.
        ReadBeforeApplied,
        /// A read is served one entry too early.
        ReadOneShort,
        /// A restart ends the comparison of the local state with a snapshot.
        ReconcilingForgotten,
        /// The request to retry all failures stops after the first chunk.
        RecoverAllStops,
        /// A recover request does not retry anything.
        RecoverIgnored,
        /// A requested retry resets the count of failed attempts.
        RecoverResetsAttempts,
        /// A removed peer starts elections.
        RemovedCampaigns,
        /// A peer does not retire when it applies its own removal.
        RemovedNoted,
        /// A copy for which a peer has no room moves to a peer with less.
        OutgrownDownhill,
        /// A copy for which a peer has no room is given up if no other peer can take it.
        OutgrownDropped,
        /// A rebalancing moves a copy again and again to a peer that has no room for it.
        RebalanceForgetsReturns,
        /// A rebalancing moves copies into zones that have one already.
        RebalanceMergesZones,
        /// A rebalancing moves several times as many copies as are needed, and begins again at once.
        RebalanceOvershoots,
        /// A rebalancing moves copies away from peers that the client prefers.
        RebalancePreferenceIgnored,
        /// A rebalancing removes copies without a replacement.
        RebalanceReducesCopies,
        /// A run of the rebalancing goes on although all peers have done their part.
        RebalanceRunUnended,
        /// Copies are moved although rebalancing is off and no run was asked for.
        RebalanceThoughOff,
        /// A rebalancing moves copies to peers that are full.
        RebalanceToFull,
        /// A rebalancing has any number of moves under way.
        RebalanceUnlimited,
        /// A removed peer leaves its clients without an answer until their deadline.
        RemovedUnanswered,
        /// A pin with another expiry is not updated.
        RenewalIgnored,
        /// A repair takes a pin from the living peers that hold it.
        RepairMovesAll,
        /// A pin is not repaired unless its minimum of copies can be reached.
        RepairNeedsAll,
        /// Pins that could not be repaired at the first look are not looked at again.
        RepairOnce,
        /// A repair ignores the peers that the client prefers.
        RepairPreferenceIgnored,
        /// A pin that is requested again resets the count of failed attempts.
        RepinResetsAttempts,
        /// A pin that is requested again unchanged is not retried.
        RepinUntouched,
        /// An incarnation counts as lost after one message from another.
        ReplacedAtOnce,
        /// Clients are answered when their pin is proposed.
        ReplyOnPropose,
        /// The report of a comparison counts although the local state has changed since.
        ReportBelieved,
        /// A rescue does not count the peers that were being added as departed.
        RescueForgetsJoining,
        /// A rescue hands out Raft ids that a lost leader has handed out.
        RescueReusesIds,
        /// Metrics of peers that a snapshot's membership does not have are kept.
        RestoreKeepsMetrics,
        /// Failed operations are retried without a pause.
        RetryAtOnce,
        /// Retries take precedence over first attempts.
        RetryBeforeFresh,
        /// Failed operations are not retried.
        RetryForgotten,
        /// A proposal that may be lost is proposed again under another id.
        RetryUnderNewId,
        /// A data folder is replaced although it has been heard from again.
        ReturnedReplaced,
        /// A revocation is acknowledged, and the credential stays.
        RevocationForgotten,
        /// A restart forgets the running cycle of the scrub.
        ScrubCycleForgotten,
        /// A scrub ends at the first damage that it finds.
        ScrubEndsAtDamage,
        /// A scrub that has checked everything begins again without an end.
        ScrubNeverEnds,
        /// A paused scrub continues.
        ScrubNeverPauses,
        /// A scrub ignores its share of the time.
        ScrubNeverRests,
        /// A copy of a snapshot's pin is confirmed in a shallower mode than the pin's.
        ShallowConfirmed,
        /// A pin with more holders than its maximum keeps only its minimum.
        ShrinksToMin,
        /// Silence is counted from the last metric instead of from its expiry.
        SilenceFromMessage,
        /// Silent peers count as living announcers indefinitely.
        SilentAnnounce,
        /// A silent learner becomes a voter.
        SilentPromoted,
        /// A wrong clock raises no alert.
        SkewUnnoticed,
        /// The failure of a snapshot transfer is not reported to Raft.
        SnapshotFailureIgnored,
        /// A snapshot that is not installed stays on disk.
        SnapshotKept,
        /// A snapshot is installed without the windows of applied proposals.
        SnapshotWithoutWindows,
        /// A re-allocation that was decided from an older version of the pin is applied.
        StaleAllocation,
        /// A request whose decision is outdated is refused instead of decided again.
        StaleIsBusy,
        /// Metrics of non-members are kept.
        StrangersMeasured,
        /// A comparison that makes no progress is not cancelled.
        StuckComparisonStays,
        /// A pin that makes no progress is not cancelled.
        StuckPinStays,
        /// A surplus copy is unpinned before its new holders have theirs.
        SurplusAtOnce,
        /// Surplus copies on disk are only read while an operation may start.
        SurplusAwaitsSlot,
        /// A surplus copy that is not confirmed in time is not asked about again.
        SurplusForgotten,
        /// A failed comparison is reported as a successful one.
        SyncFailureHidden,
        /// A request to compare all pins is answered by a comparison that was running already.
        SyncJoinsRunning,
        /// A sync reports no missing pins.
        SyncMiscounted,
        /// Silence before the leader's term counts.
        TermNotAwaited,
        /// A process that was held up runs through all the ticks that it missed.
        TicksMadeUp,
        /// A pin is accepted with fewer copies than it asks for.
        TooFewCopies,
        /// Metrics never expire.
        TtlIgnored,
        /// A pin is replaced by one of another type.
        TypeConflictIgnored,
        /// Pins of the log that a snapshot replaces are forgotten.
        UnappliedPinsForgotten,
        /// A request that may still take effect is reported to have had none.
        UnknownIsRefusal,
        /// Pins start before unpins.
        UnpinAfterFresh,
        /// A failed unpin counts as done.
        UnpinFailureIsSuccess,
        /// An owner that lets go of a pin removes it from the others, too.
        UnpinIgnoresOwners,
        /// An unpin that was decided from an older version of the pin is applied.
        UnpinUnchecked,
        /// An update is allocated without regard to the peers that hold its source.
        UpdateKeepsHolders,
        /// An update ignores the requested name.
        UpdateKeepsName,
        /// An update does not take over the options of its source.
        UpdateLosesOptions,
        /// An update ignores the requested expiry.
        UpdateNeverEnds,
        /// An update of a pin that does not exist is accepted.
        UpdateWithoutSource,
        /// The members agree on the highest version that any of them reads.
        VersionHighest,
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
        /// A returning peer starts an election without a pre-vote.
        VotesAtOnce,
        /// The window of applied proposals is half as wide as the number of open ones.
        WindowHalved,
        /// Proposals of a new process are deduplicated against those of the previous one.
        WindowKeepsBoot,
        /// A proposal that arrives after a later one is dropped.
        WindowTooNarrow,
        /// Copies that share a zone stay there although another zone has none.
        ZonesUnrepaired,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
        static SHRINK: Cell<u64> = const { Cell::new(1) };
        static NEWS: Cell<bool> = const { Cell::new(true) };
    }

    /// Makes this thread's leaders of the next release propose its new command repeatedly, or not.
    pub fn announce_news(on: bool) {
        NEWS.set(on);
    }

    /// Divides the limits of this thread's cores: window width, queue heads in memory, records per step.
    pub fn shrink(divisor: u64) {
        SHRINK.set(divisor.max(1));
    }

    pub(crate) fn scaled(limit: usize) -> usize {
        usize::try_from(limit as u64 / SHRINK.get()).map_or(limit, |limit| limit.max(2))
    }

    pub(crate) fn announces_news() -> bool {
        NEWS.get()
    }

    /// Activates a bug for this thread; `None` deactivates all.
    pub fn plant(bug: Option<Bug>) {
        ACTIVE.set(bug);
    }

    pub(crate) fn is_active(bug: Bug) -> bool {
        ACTIVE.get() == Some(bug) || is_requested(bug)
    }

    #[cfg(not(test))]
    const fn is_requested(_bug: Bug) -> bool {
        false
    }

    /// Returns whether the environment variable `PLANTED_BUG` of a run of the unit tests names `bug`.
    #[cfg(test)]
    #[allow(
        clippy::disallowed_methods,
        reason = "only a run of the unit tests reads its environment"
    )]
    fn is_requested(bug: Bug) -> bool {
        static REQUESTED: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
        let requested = REQUESTED.get_or_init(|| {
            let name = std::env::var("PLANTED_BUG").ok()?;
            let is_it = |bug: &&Bug| format!("{bug:?}") == name;
            Some(
                *Bug::ALL
                    .iter()
                    .find(is_it)
                    .expect("`PLANTED_BUG` names a planted bug"),
            )
        });
        *requested == Some(bug)
    }
}
