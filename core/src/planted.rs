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

#[cfg(planted_bugs)]
pub use self::switch::{Bug, plant, pretend};
#[cfg(planted_bugs)]
pub(crate) use self::switch::{is_active, release, says_what_is_new};

#[cfg(planted_bugs)]
mod switch {
    use std::cell::Cell;

    macro_rules! bugs {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            /// A mistake.
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        /// Promises leave before the disk has them.
        AckBeforeFsync,
        /// The applied position is saved apart from the state.
        AppliedApart,
        /// The tracker does not cancel what is overtaken or stuck.
        CancelForgotten,
        /// Failover starts without a grace period.
        FailoverWithoutGrace,
        /// An operation that was overtaken is taken for the one that is wanted.
        ForgetsOvertaking,
        /// What not all members can read is proposed all the same.
        FutureNotHeldBack,
        /// Learners count towards majorities.
        LearnerCounted,
        /// Reads are served from the local copy as it is.
        LocalReads,
        /// A change of depth is not noticed.
        ModeIgnored,
        /// A new leader does not take up the old one's duties.
        NewLeaderRests,
        /// Proposals are applied as often as they come.
        NoDedupe,
        /// The local state is not compared with a pinset that came in a snapshot.
        NoReconcile,
        /// Clients are answered when their pin is proposed.
        ReplyOnPropose,
        /// What failed is not tried again.
        RetryForgotten,
        /// A proposal that may be lost is made again under another id.
        RetryUnderNewId,
        /// Raft is not told that a snapshot did not arrive.
        SnapshotFailureIgnored,
        /// A snapshot is installed without the windows of applied proposals.
        SnapshotWithoutWindows,
        /// A move that was decided from an older state of the pin is carried out.
        StaleAllocation,
        /// A pin that makes no progress is left alone.
        StuckPinStays,
        /// A copy that others are to hold goes before they do.
        SurplusAtOnce,
        /// A pin is accepted with fewer copies than it asks for.
        TooFewCopies,
        /// "It may still happen" is told as "it did not happen".
        UnknownIsRefusal,
        /// A vote is forgotten when the process ends.
        VoteForgotten,
        /// Terms and votes are not synced.
        VoteUnsynced,
    }

    thread_local! {
        static ACTIVE: Cell<Option<Bug>> = const { Cell::new(None) };
        static RELEASE: Cell<(u8, bool)> = const { Cell::new((crate::wire::VERSION, false)) };
    }

    /// Has this thread's cores read and write as the release does whose newest version this is. The next one
    /// after [`VERSION`](crate::VERSION) has one more thing to say, and says it over and over if it `speaks`.
    pub fn pretend(version: u8, speaks: bool) {
        RELEASE.set((version, speaks));
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
