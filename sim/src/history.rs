//! Requests of clients and their answers. The order of calls and returns is kept as positions in one
//! sequence.

use cluster_core::{Cid, Index, MembersWish, Pin, PinOptions, Refusal};

/// A client's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    /// Requested a pin. Most names are used once; a repeated or changed request keeps its name.
    Pin {
        name: String,
        /// Requested options.
        options: Box<PinOptions>,
        /// Owner as which the client acts.
        owner: Option<String>,
    },
    /// Requested an unpin.
    Unpin {
        /// Owner as which the client acts.
        owner: Option<String>,
    },
    /// Requested a linearizable read.
    Read,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    /// The stored pin.
    Pinned(Box<Pin>),
    /// The pin that was removed.
    Unpinned(Box<Pin>),
    /// The pin that a read returned.
    Found(Option<Box<Pin>>),
    /// Refused: the request had no effect.
    Refused(Refusal),
    /// Unknown: the request may have taken effect, or still may.
    Unknown,
}

/// One operation.
#[allow(dead_code, reason = "client and peer are for whoever reads a violation")]
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) client: u64,
    pub(crate) peer: usize,
    pub(crate) cid: Cid,
    pub(crate) call: Call,
    pub(crate) called: u64,
    /// Position of the return, and the answer.
    pub(crate) returned: Option<(u64, Heard)>,
    /// Applied index of the peer when it answered.
    pub(crate) applied: Index,
}

/// All operations, in the order in which they were called.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    next: u64,
    /// Wishes for the membership, and how often each may have been recorded.
    wishes: Vec<(MembersWish, u64)>,
}

impl History {
    /// Notes a call.
    pub(crate) fn call(&mut self, client: u64, peer: usize, cid: Cid, call: Call) -> usize {
        self.next += 1;
        let called = self.next;
        self.operations.push(Operation {
            client,
            peer,
            cid,
            call,
            called,
            returned: None,
            applied: 0,
        });
        self.operations.len() - 1
    }

    /// Notes its return.
    pub(crate) fn returns(&mut self, operation: usize, heard: Heard, applied: Index) {
        self.next += 1;
        let operation = &mut self.operations[operation];
        assert!(operation.returned.is_none(), "returns once");
        operation.returned = Some((self.next, heard));
        operation.applied = applied;
    }

    /// Notes a wish for the membership; `possible` says whether it may have been recorded.
    pub(crate) fn wished(&mut self, wish: MembersWish, possible: bool) {
        match self.wishes.iter_mut().find(|(known, _)| *known == wish) {
            Some((_, times)) => *times += u64::from(possible),
            None => self.wishes.push((wish, u64::from(possible))),
        }
    }

    /// Returns all wishes for the membership, and how often each may have been recorded.
    pub(crate) fn wishes(&self) -> &[(MembersWish, u64)] {
        &self.wishes
    }

    /// Calls that have not returned.
    pub(crate) fn open(&self) -> usize {
        self.operations
            .iter()
            .filter(|operation| operation.returned.is_none())
            .count()
    }
}
