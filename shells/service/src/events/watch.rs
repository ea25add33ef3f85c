//! The watcher of the core: finds changes of the leader, the members and the alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_core::{Now, PING, PeerId, View};

use super::{Change, EventLog, shortened};
use crate::driver::Handle;
use crate::metrics::{metrics, peer_name};
use crate::net::Net;

/// Longest pause between two looks: connections, pings and alerts are not announced by the core.
const INTERVAL: Duration = Duration::from_secs(1);

/// State of the cluster that the watcher compares.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    leader: Option<PeerId>,
    members: BTreeSet<PeerId>,
    /// Members whose ping is valid, with their names.
    alive: BTreeMap<PeerId, String>,
    connected: BTreeSet<PeerId>,
    /// Peer and metric of each alert.
    alerts: BTreeSet<(PeerId, String)>,
}

impl Seen {
    fn read(view: View<'_>, now: Now) -> Self {
        let alive = view.metrics(now, PING);
        let alerts = view.alerts();
        Self {
            leader: view.leader().cloned(),
            members: view.members().peer_ids().cloned().collect(),
            alive: alive
                .map(|(peer, ping)| (peer.clone(), shortened(&peer_name(&ping.metric.value))))
                .collect(),
            connected: BTreeSet::new(),
            alerts: alerts
                .map(|alert| (alert.peer.clone(), alert.metric.metric.name.clone()))
                .collect(),
        }
    }

    /// Lists the changes since `before`, which knows the names of peers that are gone.
    fn changes_since(&self, before: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        let name = |peer: &PeerId| {
            let known = self.alive.get(peer).or_else(|| before.alive.get(peer));
            known.cloned().unwrap_or_default()
        };
        let peer = |kind, peer: &PeerId| Change::Peer {
            kind,
            peer: peer.clone(),
            name: name(peer),
        };
        let alive = |seen: &Self| seen.alive.keys().cloned().collect::<BTreeSet<_>>();
        let linked = |seen: &Self| &seen.connected & &seen.members;
        for (now, then, added, removed) in [
            (
                self.members.clone(),
                before.members.clone(),
                "peer_added",
                "peer_removed",
            ),
            (
                linked(self),
                linked(before),
                "peer_connected",
                "peer_disconnected",
            ),
            (alive(self), alive(before), "peer_up", "peer_down"),
        ] {
            changes.extend(now.difference(&then).map(|id| peer(added, id)));
            changes.extend(then.difference(&now).map(|id| peer(removed, id)));
        }
        if self.leader != before.leader {
            changes.push(Change::Leader(self.leader.clone()));
        }
        let alert = |kind, (peer, metric): &(PeerId, String)| Change::Alert {
            kind,
            peer: peer.clone(),
            metric: metric.clone(),
        };
        let raised = self.alerts.difference(&before.alerts);
        changes.extend(raised.map(|key| alert("alert", key)));
        let cleared = before.alerts.difference(&self.alerts);
        changes.extend(cleared.map(|key| alert("alert_cleared", key)));
        changes
    }
}

/// Appends the changes that it sees, until the core ends.
pub async fn watch(handle: Handle, net: Net, log: EventLog) {
    let mut before: Option<Seen> = None;
    let mut changes = handle.changes();
    loop {
        let Some(mut seen) = handle.view(Seen::read).await else {
            return;
        };
        seen.connected = net.connected();
        if let Some(before) = &before {
            if seen.leader != before.leader {
                metrics().raft_leader_changes.inc();
            }
            log.append(handle.now().wall, seen.changes_since(before));
        }
        before = Some(seen);
        // In time or not, the next look follows; the channel is open while this task has a handle.
        let _ = tokio::time::timeout(INTERVAL, changes.changed()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_peers_leader_and_alerts_are_found() {
        let id = |n: u8| PeerId::from_bytes(&[0, 2, n, n]).unwrap();
        let members = BTreeSet::from([id(1), id(2)]);
        let before = Seen {
            leader: Some(id(2)),
            members: members.clone(),
            alive: BTreeMap::from([(id(1), "one".to_owned()), (id(2), "two".to_owned())]),
            connected: BTreeSet::from([id(2)]),
            alerts: BTreeSet::new(),
        };
        let after = Seen {
            leader: None,
            members,
            alive: BTreeMap::from([(id(1), "one".to_owned())]),
            connected: BTreeSet::new(),
            alerts: BTreeSet::from([(id(2), PING.to_owned())]),
        };
        let kinds = |changes: &[Change]| changes.iter().map(Change::kind).collect::<Vec<_>>();
        let changes = after.changes_since(&before);
        assert_eq!(
            kinds(&changes),
            ["peer_disconnected", "peer_down", "leader", "alert"]
        );
        assert!(matches!(&changes[1], Change::Peer { name, .. } if name == "two"));
        assert_eq!(
            kinds(&before.changes_since(&after)),
            ["peer_connected", "peer_up", "leader", "alert_cleared"]
        );
        assert!(after.changes_since(&after).is_empty());
    }
}
