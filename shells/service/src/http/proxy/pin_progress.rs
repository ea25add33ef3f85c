//! Progress of a pin at the peers, for clients that wait until it is held or released.

use std::time::Duration;

use cluster_api::{GlobalPinInfo, Pin, PinInfoShort, TrackerStatus};
use cluster_core::{Cid, Refusal};
use cluster_http::rpc::Failure;

use crate::cluster::{Cluster, Error};

/// First pause between two status requests: content that the node has is pinned within a millisecond or two.
const POLL_FIRST: Duration = Duration::from_millis(1);

/// Maximum pause; Kubo reports its progress as often. Each status request asks all peers, so a thousand
/// waiting clients cost two thousand small calls per peer and second.
const POLL: Duration = Duration::from_millis(500);

/// Progress of a pin over all peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PinProgress {
    /// Enough peers hold it.
    Held,
    /// `held` peers hold it, fewer than needed; `active` if others are fetching it now.
    Working { held: u64, active: bool },
    /// Too many of the allocated peers failed, with the first error. They will retry.
    Failed(String),
}

/// Summarises the peers' statuses. A pin needs its minimum of copies; one that is wanted at all peers needs
/// all peers that answer without an error, and at least one.
pub(super) fn pin_progress(pin: &Pin, info: &GlobalPinInfo) -> PinProgress {
    let concerned =
        |(id, _): &(&String, &PinInfoShort)| pin.allocations.is_empty() || pin.allocations.contains(*id);
    let (mut held, mut open, mut active, mut error) = (0, 0, false, None);
    for (_, peer) in info.peer_map.iter().filter(concerned) {
        match peer.status {
            TrackerStatus::Pinned | TrackerStatus::Sharded => held += 1,
            TrackerStatus::Pinning => {
                open += 1;
                active = true;
            }
            TrackerStatus::PinQueued | TrackerStatus::Undefined | TrackerStatus::UnexpectedlyUnpinned => {
                open += 1;
            }
            TrackerStatus::ClusterError | TrackerStatus::PinError | TrackerStatus::UnpinError => {
                error = error.or(Some(peer.error.as_str()));
            }
            TrackerStatus::Unpinning
            | TrackerStatus::Unpinned
            | TrackerStatus::Remote
            | TrackerStatus::UnpinQueued => {}
        }
    }
    let needed = match u64::try_from(pin.options.replication_factor_min) {
        Ok(min) => min.max(1),
        Err(_) => (held + open).max(1),
    };
    match error {
        _ if held >= needed => PinProgress::Held,
        Some(error) if held + open < needed => PinProgress::Failed(error.to_owned()),
        Some(_) | None => PinProgress::Working { held, active },
    }
}

/// Waits until enough peers hold a pin: at least its minimum. `on_progress` is called with a count that grows
/// while any peer makes progress.
///
/// # Errors
/// Too many peers failed to pin, the pin was removed meanwhile, or the statuses cannot be read.
pub(super) async fn until_held<F>(
    cluster: &Cluster,
    cid: &Cid,
    pin: &Pin,
    mut on_progress: impl FnMut(u64) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let (mut pause, mut most, mut seen) = (POLL_FIRST, 0, 0);
    // The pin may be reallocated in the meantime.
    let mut pin = pin.clone();
    loop {
        match pin_progress(&pin, &cluster.status(cid.clone()).await?) {
            PinProgress::Held => return Ok(()),
            PinProgress::Failed(why) => return Err(Failure::failed(format!("pin: {why}"))),
            PinProgress::Working { held, active } => {
                // A peer's IPFS node cancels a pin without progress, so one that is still pinning makes
                // progress.
                seen += u64::from(held > most || active);
                most = most.max(held);
                on_progress(seen).await?;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL);
        match cluster.allocation(cid.clone()).await {
            Ok(latest) => pin = latest,
            Err(Error::Refused(Refusal::NotFound)) => {
                return Err(Failure::failed(
                    "pin: the pin was removed while it was being pinned",
                ));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits until no peer that answers holds a removed pin any more, so that a `block/rm` or `repo/gc` right
/// after finds nothing pinned. A peer that fails to unpin retries later and does not delay the answer.
///
/// # Errors
/// The statuses cannot be read.
pub(super) async fn until_released(cluster: &Cluster, cid: &Cid) -> Result<(), Failure> {
    let mut pause = POLL_FIRST;
    // Other owners may still hold it.
    let cluster = cluster.whole();
    while is_held(&cluster.status(cid.clone()).await?) {
        // It may have been pinned again in the meantime.
        if cluster.allocation(cid.clone()).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL);
    }
    Ok(())
}

/// Returns whether any peer still holds a removed pin, or has not applied its removal yet.
fn is_held(info: &GlobalPinInfo) -> bool {
    info.peer_map.values().any(|peer| match peer.status {
        TrackerStatus::Pinned
        | TrackerStatus::Pinning
        | TrackerStatus::PinQueued
        | TrackerStatus::Sharded
        | TrackerStatus::Unpinning
        | TrackerStatus::UnpinQueued => true,
        TrackerStatus::ClusterError
        | TrackerStatus::PinError
        | TrackerStatus::Remote
        | TrackerStatus::Undefined
        | TrackerStatus::UnexpectedlyUnpinned
        | TrackerStatus::UnpinError
        | TrackerStatus::Unpinned => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_pin_is_held_until_all_reachable_peers_have_unpinned() {
        use TrackerStatus::{ClusterError, Pinned, UnpinError, UnpinQueued, Unpinned, Unpinning};
        let held = |statuses: &[TrackerStatus]| {
            let peers = statuses.iter().enumerate().map(|(n, status)| {
                let short = PinInfoShort {
                    status: *status,
                    ..PinInfoShort::default()
                };
                (n.to_string(), short)
            });
            is_held(&GlobalPinInfo {
                peer_map: peers.collect(),
                ..GlobalPinInfo::default()
            })
        };
        for status in [Pinned, Unpinning, UnpinQueued] {
            assert!(held(&[Unpinned, status]), "{status:?}");
        }
        assert!(!held(&[Unpinned, ClusterError, UnpinError]));
    }

    fn look(min: i32, allocations: &[&str], peers: &[(&str, TrackerStatus)]) -> PinProgress {
        let mut pin = Pin::default();
        pin.options.replication_factor_min = min;
        pin.allocations = allocations.iter().map(|id| (*id).to_owned()).collect();
        let short = |status| PinInfoShort {
            status,
            error: if status == TrackerStatus::PinError {
                "no room"
            } else {
                ""
            }
            .to_owned(),
            ..PinInfoShort::default()
        };
        let info = GlobalPinInfo {
            peer_map: peers
                .iter()
                .map(|(id, status)| ((*id).to_owned(), short(*status)))
                .collect(),
            ..GlobalPinInfo::default()
        };
        pin_progress(&pin, &info)
    }

    #[test]
    fn pin_is_held_when_its_minimum_of_copies_is() {
        use TrackerStatus::{PinError, PinQueued, Pinned, Pinning, Remote};
        let two = ["a", "b"];
        assert_eq!(
            look(2, &two, &[("a", Pinned), ("b", Pinned), ("c", Remote)]),
            PinProgress::Held
        );
        assert_eq!(look(1, &two, &[("a", Pinned), ("b", Pinning)]), PinProgress::Held);
        let working = PinProgress::Working {
            held: 1,
            active: true,
        };
        assert_eq!(look(2, &two, &[("a", Pinned), ("b", Pinning)]), working);
        let idle = PinProgress::Working {
            held: 0,
            active: false,
        };
        assert_eq!(look(1, &two, &[("a", PinError), ("b", PinQueued)]), idle);
        assert_eq!(
            look(2, &two, &[("a", Pinned), ("b", PinError)]),
            PinProgress::Failed("no room".to_owned())
        );
        // Copies at peers that are not allocated do not count.
        assert_eq!(look(1, &["b"], &[("a", Pinned), ("b", PinQueued)]), idle);
    }

    #[test]
    fn pin_everywhere_needs_all_peers_that_answer() {
        use TrackerStatus::{ClusterError, PinError, PinQueued, Pinned};
        assert_eq!(
            look(-1, &[], &[("a", Pinned), ("b", ClusterError)]),
            PinProgress::Held
        );
        assert_eq!(
            look(-1, &[], &[("a", Pinned), ("b", PinError)]),
            PinProgress::Held
        );
        let idle = PinProgress::Working {
            held: 1,
            active: false,
        };
        assert_eq!(look(-1, &[], &[("a", Pinned), ("b", PinQueued)]), idle);
        let failed = PinProgress::Failed("no room".to_owned());
        assert_eq!(look(-1, &[], &[("a", PinError), ("b", PinError)]), failed);
    }
}
