//! Statuses of a CID in the API's types.

use std::collections::BTreeMap;

use cluster_api::{GlobalPinInfo, PinInfoShort, TrackerStatus, Transfer};
use cluster_core::{Cid, Lane, Local, PeerId, Phase, Pin, PinType, Timestamp};

use super::convert;
use super::rpc::{CidStatus, OneStatus, PeerDetails};

/// Derives the status of a CID at this peer from its pin and local state. `running` says whether an
/// operation on it is running at the IPFS node, and whether that is an unpin.
pub(super) fn state(
    me: &PeerId,
    pin: Option<&Pin>,
    local: Option<&Local>,
    running: Option<bool>,
    now: Timestamp,
) -> CidStatus {
    let plain = |status, since| CidStatus {
        status,
        since,
        attempts: 0,
        fresh: false,
        error: String::new(),
    };
    if pin.is_some_and(|pin| pin.pin_type == PinType::Meta) {
        return plain(TrackerStatus::Sharded, now);
    }
    let Some(local) = local else {
        return match pin {
            None => plain(TrackerStatus::Unpinned, now),
            Some(pin) if !pin.is_allocated_to(me) => plain(TrackerStatus::Remote, now),
            Some(pin) => plain(
                if running == Some(false) {
                    TrackerStatus::Pinning
                } else {
                    TrackerStatus::PinQueued
                },
                pin.timestamp,
            ),
        };
    };
    let status = match (local.phase, running) {
        (Phase::Lost | Phase::PinError | Phase::PinQueued, Some(false)) => TrackerStatus::Pinning,
        (Phase::UnpinError | Phase::UnpinQueued, Some(true)) => TrackerStatus::Unpinning,
        (Phase::Lost, Some(true) | None) => TrackerStatus::UnexpectedlyUnpinned,
        (Phase::PinError, Some(true) | None) => TrackerStatus::PinError,
        (Phase::PinQueued, Some(true) | None) => TrackerStatus::PinQueued,
        (Phase::Pinned, _) => TrackerStatus::Pinned,
        (Phase::UnpinError, Some(false) | None) => TrackerStatus::UnpinError,
        (Phase::UnpinQueued, Some(false) | None) => TrackerStatus::UnpinQueued,
    };
    CidStatus {
        status,
        since: local.since,
        attempts: local.attempts,
        fresh: local.queued.as_ref().is_some_and(|key| key.lane == Lane::Fresh),
        error: local.error.clone(),
    }
}

/// Converts the status of a CID at a peer.
pub(super) fn peer_info(details: &PeerDetails, state: &CidStatus) -> PinInfoShort {
    PinInfoShort {
        peername: details.peername.clone(),
        ipfs_peer_id: details.ipfs_id.clone(),
        ipfs_peer_addresses: details.ipfs_addresses.clone(),
        status: state.status,
        timestamp: convert::time(state.since),
        error: state.error.clone(),
        attempt_count: u64::from(state.attempts),
        priority_pin: state.fresh,
        ..PinInfoShort::default()
    }
}

/// Returns the status at a peer, with what only the status of a single CID has.
pub(super) fn detailed_info(status: &OneStatus) -> PinInfoShort {
    let activity = &status.activity;
    let transfer = activity.transfer.map(|transfer| Transfer {
        blocks: transfer.blocks,
        bytes: transfer.bytes,
        total_bytes: transfer.total_bytes,
        updated: convert::time(transfer.updated),
    });
    PinInfoShort {
        announced: activity.announced.map(convert::time).unwrap_or_default(),
        retry_at: activity.retry_at.map(convert::time).unwrap_or_default(),
        transfer,
        ..peer_info(&status.details, &status.state)
    }
}

/// Returns the status at a peer that is not allocated.
pub(super) fn remote(details: &PeerDetails, now: Timestamp) -> PinInfoShort {
    without_attempts(details, TrackerStatus::Remote, now, "")
}

/// Returns the status at a peer that does not answer.
pub(super) fn unreachable(details: &PeerDetails, now: Timestamp, why: &str) -> PinInfoShort {
    without_attempts(details, TrackerStatus::ClusterError, now, why)
}

/// Returns the status of a CID without a pin.
pub(super) fn unpinned(details: &PeerDetails, now: Timestamp) -> PinInfoShort {
    without_attempts(details, TrackerStatus::Unpinned, now, "")
}

/// Returns the status at a peer that has not applied the pin yet.
pub(super) fn queued(details: &PeerDetails, since: Timestamp) -> PinInfoShort {
    without_attempts(details, TrackerStatus::PinQueued, since, "")
}

fn without_attempts(
    details: &PeerDetails,
    status: TrackerStatus,
    at: Timestamp,
    error: &str,
) -> PinInfoShort {
    PinInfoShort {
        peername: details.peername.clone(),
        ipfs_peer_id: details.ipfs_id.clone(),
        ipfs_peer_addresses: details.ipfs_addresses.clone(),
        status,
        timestamp: convert::time(at),
        error: error.to_owned(),
        attempt_count: 0,
        priority_pin: false,
        ..PinInfoShort::default()
    }
}

/// Returns a CID with its pin's fields, and no statuses yet.
pub(super) fn without_statuses(cid: &Cid, pin: Option<&Pin>, names: &mut PeerIdTexts) -> GlobalPinInfo {
    let mut info = GlobalPinInfo {
        cid: cid.to_string(),
        ..GlobalPinInfo::default()
    };
    if let Some(pin) = pin {
        info.name.clone_from(&pin.options.name);
        info.allocations = pin
            .allocations
            .iter()
            .map(|peer| names.of(peer).to_owned())
            .collect();
        info.origins.clone_from(&pin.options.origins);
        info.created = convert::time(pin.timestamp);
        info.metadata.clone_from(&pin.options.metadata);
    }
    info
}

/// Cache of formatted peer ids: base58 is slow, and a listing needs the same few a million times.
#[derive(Debug, Default)]
pub(super) struct PeerIdTexts {
    texts: BTreeMap<PeerId, String>,
}

impl PeerIdTexts {
    /// Formats a peer id.
    pub(super) fn of(&mut self, peer: &PeerId) -> &str {
        if !self.texts.contains_key(peer) {
            // Old pins may contain peers that have left, but never this many.
            const NAMES_MAX: usize = 4096;
            if self.texts.len() >= NAMES_MAX {
                self.texts.clear();
            }
            self.texts.insert(peer.clone(), peer.to_string());
        }
        &self.texts[peer]
    }
}
