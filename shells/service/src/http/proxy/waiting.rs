//! How far the cluster is with a pin, for those who wait until it is held.

use std::time::Duration;

use cluster_api::{GlobalPinInfo, Pin, PinInfoShort, TrackerStatus};
use cluster_core::{Cid, Refusal};

use super::reply::Failure;
use crate::cluster::{Cluster, Error};

/// The first pause between two looks at the peers: content that the node has is pinned within milliseconds.
const POLL_FIRST: Duration = Duration::from_millis(10);

/// The longest pause; Kubo reports its progress as often. All peers are asked at each look, so a thousand
/// clients that wait cost two thousand small calls per peer and second.
const POLL: Duration = Duration::from_millis(500);

/// How far the peers are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// Enough of them hold it.
    Held,
    /// So many hold it; `active` says whether others are fetching it now.
    Working { held: u64, active: bool },
    /// Too many of those that should hold it failed. They will try again.
    Failed(String),
}

/// What the peers' statuses come to. Enough is the smallest number of copies that the pin wants; where it
/// wants all peers, all that answer and have not failed, and at least one.
pub(super) fn standing(pin: &Pin, info: &GlobalPinInfo) -> Standing {
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
        _ if held >= needed => Standing::Held,
        Some(error) if held + open < needed => Standing::Failed(error.to_owned()),
        Some(_) | None => Standing::Working { held, active },
    }
}

/// Waits until enough peers hold a pin: as many as it wants at least. `told` hears how many peers' work has
/// been seen so far: the number grows for as long as somebody gets on with it.
///
/// # Errors
/// Too many peers failed to pin, the pin was removed meanwhile, or the statuses cannot be read.
pub(super) async fn until_held<F>(
    cluster: &Cluster,
    cid: &Cid,
    pin: &Pin,
    mut told: impl FnMut(u64) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let (mut pause, mut most, mut seen) = (POLL_FIRST, 0, 0);
    // The pin may be allocated anew while it is waited for.
    let mut pin = pin.clone();
    loop {
        match standing(&pin, &cluster.status(cid.clone()).await?) {
            Standing::Held => return Ok(()),
            Standing::Failed(why) => return Err(Failure::failed(format!("pin: {why}"))),
            Standing::Working { held, active } => {
                // A peer's IPFS node gives up by itself when it gets no further, so who is at it gets on.
                seen += u64::from(held > most || active);
                most = most.max(held);
                told(seen).await?;
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
/// after finds nothing pinned. A peer that fails to unpin tries again later, and does not hold up the answer.
///
/// # Errors
/// The statuses cannot be read.
pub(super) async fn until_released(cluster: &Cluster, cid: &Cid) -> Result<(), Failure> {
    let mut pause = POLL_FIRST;
    while is_held(&cluster.status(cid.clone()).await?) {
        // It may be pinned again meanwhile.
        if cluster.allocation(cid.clone()).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(POLL);
    }
    Ok(())
}

/// Whether a peer still holds what is not in the pinset any more, or has not heard of its removal.
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
    fn a_removed_pin_is_held_until_all_that_answer_have_unpinned() {
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

    fn look(min: i32, allocations: &[&str], peers: &[(&str, TrackerStatus)]) -> Standing {
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
        standing(&pin, &info)
    }

    #[test]
    fn a_pin_is_held_when_its_fewest_copies_are() {
        use TrackerStatus::{PinError, PinQueued, Pinned, Pinning, Remote};
        let two = ["a", "b"];
        assert_eq!(
            look(2, &two, &[("a", Pinned), ("b", Pinned), ("c", Remote)]),
            Standing::Held
        );
        assert_eq!(look(1, &two, &[("a", Pinned), ("b", Pinning)]), Standing::Held);
        let working = Standing::Working {
            held: 1,
            active: true,
        };
        assert_eq!(look(2, &two, &[("a", Pinned), ("b", Pinning)]), working);
        let idle = Standing::Working {
            held: 0,
            active: false,
        };
        assert_eq!(look(1, &two, &[("a", PinError), ("b", PinQueued)]), idle);
        assert_eq!(
            look(2, &two, &[("a", Pinned), ("b", PinError)]),
            Standing::Failed("no room".to_owned())
        );
        // What others hold that should not does not count.
        assert_eq!(look(1, &["b"], &[("a", Pinned), ("b", PinQueued)]), idle);
    }

    #[test]
    fn where_all_peers_are_wanted_those_count_that_answer() {
        use TrackerStatus::{ClusterError, PinError, PinQueued, Pinned};
        assert_eq!(
            look(-1, &[], &[("a", Pinned), ("b", ClusterError)]),
            Standing::Held
        );
        assert_eq!(look(-1, &[], &[("a", Pinned), ("b", PinError)]), Standing::Held);
        let idle = Standing::Working {
            held: 1,
            active: false,
        };
        assert_eq!(look(-1, &[], &[("a", Pinned), ("b", PinQueued)]), idle);
        let failed = Standing::Failed("no room".to_owned());
        assert_eq!(look(-1, &[], &[("a", PinError), ("b", PinError)]), failed);
    }
}
