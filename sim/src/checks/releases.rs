//! No peer stores records that its release cannot read, because its next process would refuse to start, and
//! no leader proposes commands of a version that the members have not agreed on.

use cluster_core::{LogEntry, StoreOp};

use super::{Findings, Step};
use crate::coverage::{Coverage, sometimes};
use crate::releases::OLD;

pub(super) fn after_write(step: &Step<'_>, op: &StoreOp, found: &mut Findings<'_>, coverage: &mut Coverage) {
    let StoreOp::Append { entries } = op else { return };
    let since = entries.iter().map(LogEntry::min_version).max().unwrap_or(OLD);
    let peer = step.peer();
    let (release, agreed) = (peer.release, peer.disk.written.members.version);
    found.require(since <= release, "releases", || {
        format!("keeps what only version {since} can read, and is of version {release}")
    });
    found.require(since <= agreed || !peer.leads(), "releases", || {
        format!("proposes what only version {since} can read, the members agree on {agreed}")
    });
    sometimes!(coverage, since > OLD, "the next release had its say");
}
