//! A peer knows of each member what that member last told it, of nobody else anything, and raises an alert
//! only about what was not renewed in time.

use std::collections::BTreeSet;

use cluster_core::{Event, Message, PING, PeerId, StoreOp};

use super::heard::{Heard, member};
use super::{Found, Step};

/// The metrics that peers measure here; others are of the core's own making.
const MEASURED: [&str; 3] = [PING, "freespace", "tag:group"];

pub(super) fn after_step(step: &Step<'_>, heard: &Heard, found: &mut Found<'_>) {
    if step.events.contains(&Event::TimedOut) {
        of_alerts(step, heard, found);
    } else if concerns(step) {
        of_samples(step, heard, found);
    }
}

fn of_samples(step: &Step<'_>, heard: &Heard, found: &mut Found<'_>) {
    let Some(node) = &step.peer().node else { return };
    let (view, process) = (node.view(), heard.of(step.me));
    let members = &step.peer().disk.written.members;
    for name in [PING, "freespace"] {
        let known: BTreeSet<&PeerId> = view.metrics(step.now, name).map(|(peer, _)| peer).collect();
        for (peer, received) in view.metrics(step.now, name) {
            let is_own = *peer == step.peer().id;
            found.require(is_own || member(members, peer).is_some(), "metrics", || {
                format!("keeps {name:?} of {peer}, who is no member")
            });
            let samples = process.samples(peer, name);
            let told = samples
                .iter()
                .any(|sample| sample.metric == received.metric && sample.expires() == received.expires);
            found.require(told, "metrics", || {
                format!("takes {received:?} for the {name:?} of {peer}, which said {samples:?}")
            });
        }
        for member in members.peers.values() {
            let counts = process.can_take(step.now, &member.peer, &[name.to_owned()]);
            let is_old = process.before.contains_key(&member.peer);
            found.require(
                !counts || !is_old || known.contains(&member.peer),
                "metrics",
                || format!("has forgotten the {name:?} of {}", member.peer),
            );
        }
    }
}

fn of_alerts(step: &Step<'_>, heard: &Heard, found: &mut Found<'_>) {
    let Some(node) = &step.peer().node else { return };
    let process = heard.of(step.me);
    let now = step.now;
    for alert in node
        .view()
        .alerts()
        .take_while(|alert| alert.triggered_at == now.wall)
    {
        let name = alert.metric.metric.name.as_str();
        if !MEASURED.contains(&name) {
            continue;
        }
        let samples = process.samples(&alert.peer, name);
        let over = samples
            .iter()
            .any(|sample| sample.expires() <= now.mono || sample.at == now.mono);
        found.require(over, "metrics", || {
            format!("raises {alert:?}, it was told {samples:?}")
        });
        let is_same = |other: &&cluster_core::Alert| {
            other.peer == alert.peer && other.metric == alert.metric && other.triggered_at != now.wall
        };
        let before = node.view().alerts().find(is_same);
        found.require(before.is_none(), "metrics", || format!("raises {alert:?} again"));
    }
}

fn concerns(step: &Step<'_>) -> bool {
    let told = step.events.iter().any(|event| match event {
        Event::Received { envelope, .. } => matches!(envelope.message, Message::Metrics(_)),
        Event::Measured { .. } => true,
        Event::IpfsCompared { .. }
        | Event::IpfsFinished { .. }
        | Event::IpfsLacks { .. }
        | Event::IpfsProgressed { .. }
        | Event::Persisted { .. }
        | Event::Requested { .. }
        | Event::SnapshotReceived { .. }
        | Event::SnapshotSent { .. }
        | Event::TimedOut
        | Event::Unreachable { .. } => false,
    });
    told || step
        .writes()
        .any(|op| matches!(op, StoreOp::SetMembers { .. } | StoreOp::InstallSnapshot { .. }))
}
