//! Waiting for the peers to pin or unpin a CID, by polling its status.

use crate::failure::Failure;
use cluster_api::client::Answer;
use cluster_api::{Client, GlobalPinInfo, GoDuration, TrackerStatus, terminal};
use indicatif::ProgressBar;
use std::time::Duration;
use tokio::time::Instant;

/// First polling interval: small content is pinned within milliseconds.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// Maximum polling interval: a status of a large cluster is expensive.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Time after a change in which a peer may still report the status before it: errors are ignored until then,
/// and a changing status is polled again before it is shown.
const SETTLING: Duration = Duration::from_secs(1);

const DOING: &str = "waiting for pin status";

/// Condition to wait for.
pub(crate) struct Goal {
    pub(crate) cid: String,
    /// Target status: `Pinned` or `Unpinned`.
    pub(crate) target: TrackerStatus,
    /// Number of peers; all of them if not positive.
    pub(crate) limit: i64,
    /// Time limit.
    pub(crate) timeout: Option<GoDuration>,
}

/// Result of comparing a status with a goal.
#[derive(Debug, PartialEq, Eq)]
enum Reached {
    Yes,
    No,
    Error,
}

/// Polls until the goal is reached. An error status at any peer ends the wait as an error.
pub(crate) async fn wait_for(client: &Client, goal: &Goal) -> Result<Answer<GlobalPinInfo>, Failure> {
    let limit = goal
        .timeout
        .and_then(GoDuration::to_std)
        .filter(|limit| !limit.is_zero());
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    let looking = look(client, goal, &progress);
    let result = match limit {
        None => looking.await,
        Some(limit) => tokio::time::timeout(limit, looking)
            .await
            .unwrap_or(Err(Failure::WaitedTooLong(DOING))),
    };
    progress.finish_and_clear();
    result
}

async fn look(
    client: &Client,
    goal: &Goal,
    progress: &ProgressBar,
) -> Result<Answer<GlobalPinInfo>, Failure> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let answer = client.status(&goal.cid, false).await?;
        progress.set_message(describe(goal, &answer.value));
        match reached(goal, &answer.value) {
            Reached::Yes => return Ok(answer),
            Reached::Error if start.elapsed() >= SETTLING => {
                let target = goal.target;
                let error = format!("error has occurred while attempting to reach status: {target}");
                return Err(Failure::local(DOING, error));
            }
            Reached::Error | Reached::No => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn count(info: &GlobalPinInfo, target: TrackerStatus) -> usize {
    info.peer_map
        .values()
        .filter(|peer| peer.status == target)
        .count()
}

fn describe(goal: &Goal, info: &GlobalPinInfo) -> String {
    let (done, all) = (count(info, goal.target), wanted(goal, info));
    terminal::line(format_args!(
        "{}: {} on {done} of {all} peers",
        goal.cid, goal.target
    ))
}

/// Returns the number of peers that must have the target status.
fn wanted(goal: &Goal, info: &GlobalPinInfo) -> usize {
    match usize::try_from(goal.limit) {
        Ok(limit) if limit > 0 => limit.min(info.peer_map.len()),
        Ok(_) | Err(_) => info
            .peer_map
            .values()
            .filter(|peer| !is_excused(goal, peer.status))
            .count(),
    }
}

/// Returns whether the peer is not allocated the CID, and so need not pin it.
fn is_excused(goal: &Goal, status: TrackerStatus) -> bool {
    goal.target == TrackerStatus::Pinned && status == TrackerStatus::Remote
}

fn reached(goal: &Goal, info: &GlobalPinInfo) -> Reached {
    if info.peer_map.values().any(|peer| peer.status.is_error()) {
        Reached::Error
    } else if count(info, goal.target) >= wanted(goal, info) {
        Reached::Yes
    } else {
        Reached::No
    }
}

/// Returns the status after a change: when it has settled, or after a second.
pub(crate) async fn settled(
    client: &Client,
    cid: &str,
    target: TrackerStatus,
) -> Result<Answer<GlobalPinInfo>, Failure> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    let goal = Goal {
        cid: cid.to_owned(),
        target,
        limit: 0,
        timeout: None,
    };
    loop {
        let answer = client.status(cid, false).await?;
        if start.elapsed() + pause > SETTLING || reached(&goal, &answer.value) == Reached::Yes {
            return Ok(answer);
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster_api::PinInfoShort;

    fn outcome(target: TrackerStatus, limit: i64, statuses: &[TrackerStatus]) -> Reached {
        let goal = Goal {
            cid: "Qa".into(),
            target,
            limit,
            timeout: None,
        };
        let mut info = GlobalPinInfo::default();
        for (index, status) in statuses.iter().enumerate() {
            let peer = PinInfoShort {
                status: *status,
                ..PinInfoShort::default()
            };
            info.peer_map.insert(index.to_string(), peer);
        }
        reached(&goal, &info)
    }

    #[test]
    fn goals_count_peers_as_the_go_tool_does() {
        use TrackerStatus::{PinError, Pinned, Pinning, Remote, Unpinned, Unpinning};
        assert_eq!(outcome(Pinned, 0, &[Pinned, Remote]), Reached::Yes);
        assert_eq!(outcome(Pinned, -1, &[Pinned, Pinning]), Reached::No);
        assert_eq!(outcome(Pinned, 1, &[Pinned, Pinning]), Reached::Yes);
        assert_eq!(outcome(Pinned, 9, &[Pinned, Pinned]), Reached::Yes);
        assert_eq!(outcome(Pinned, 2, &[Pinned, Remote]), Reached::No);
        assert_eq!(outcome(Pinned, 1, &[Pinned, PinError]), Reached::Error);
        assert_eq!(outcome(Unpinned, 0, &[Unpinned, Unpinned]), Reached::Yes);
        assert_eq!(outcome(Unpinned, 0, &[Unpinned, Unpinning]), Reached::No);
        assert_eq!(outcome(Unpinned, 0, &[Unpinned, Remote]), Reached::No);
    }
}
