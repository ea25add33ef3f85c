//! The applied pinset, as the shell keeps it on disk.

use crate::ids::{Cid, PeerId};
use crate::local::{Lane, Local, QueueKey};
use crate::pin::Pin;
use crate::time::Timestamp;

/// Reads of what batches have written, passed in like time: synchronous, cheap, and never behind the last
/// batch that `handle` returned. A store that cannot read ends the process.
pub trait PinsetView {
    /// The pin of a CID.
    fn pin(&self, cid: &Cid) -> Option<Pin>;
    /// The local state of a CID.
    fn local(&self, cid: &Cid) -> Option<Local>;
    /// Up to `limit` pins after `after`, in CID order.
    fn pins(&self, after: Option<&Cid>, limit: usize) -> Vec<Pin>;
    /// Up to `limit` local states after `after`, in CID order.
    fn locals(&self, after: Option<&Cid>, limit: usize) -> Vec<(Cid, Local)>;
    /// Up to `limit` places of a queue, `from` and later, in order.
    fn queue(&self, lane: Lane, from: Option<&QueueKey>, limit: usize) -> Vec<QueueKey>;
    /// Up to `limit` CIDs after `after` that are allocated to `peer` by name, in CID order.
    fn allocated(&self, peer: &PeerId, after: Option<&Cid>, limit: usize) -> Vec<Cid>;
    /// Up to `limit` CIDs that expire at `until` or earlier, soonest first.
    fn expiring(&self, until: Timestamp, limit: usize) -> Vec<Cid>;
}
