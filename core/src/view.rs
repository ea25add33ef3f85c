//! Read access to the applied pinset, which the shell keeps on disk.

use crate::ids::{Cid, PeerId};
use crate::local::{Lane, Local, QueueKey};
use crate::pin::Pin;
use crate::policy::Policy;
use crate::time::Timestamp;

/// Reads of the applied pinset and the local state. They are synchronous, cheap, and include every batch that
/// `handle` has returned. A store that cannot read must end the process.
pub trait PinsetView {
    /// Returns the pin of a CID.
    fn pin(&self, cid: &Cid) -> Option<Pin>;
    /// Returns the local state of a CID.
    fn local(&self, cid: &Cid) -> Option<Local>;
    /// Returns up to `limit` pins after `after`, in CID order.
    fn pins(&self, after: Option<&Cid>, limit: usize) -> Vec<Pin>;
    /// Returns up to `limit` local states after `after`, in CID order.
    fn locals(&self, after: Option<&Cid>, limit: usize) -> Vec<(Cid, Local)>;
    /// Returns up to `limit` keys of a queue, from `from` (inclusive), in order.
    fn queue(&self, lane: Lane, from: Option<&QueueKey>, limit: usize) -> Vec<QueueKey>;
    /// Returns up to `limit` CIDs after `after` whose allocations name `peer`, in CID order. Pins with
    /// [`Replicas::Everywhere`](crate::Replicas::Everywhere) name no peers.
    fn allocated(&self, peer: &PeerId, after: Option<&Cid>, limit: usize) -> Vec<Cid>;
    /// Returns up to `limit` CIDs that expire at `until` or earlier, soonest first.
    fn expiring(&self, until: Timestamp, limit: usize) -> Vec<Cid>;
    /// Returns the policy.
    fn policy(&self) -> Policy;
}
