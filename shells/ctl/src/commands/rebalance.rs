//! Rebalancing, its progress and its settings.

use std::time::Duration;

use cluster_api::client::Answer;
use cluster_api::{Client, Query};
use indicatif::ProgressBar;

use crate::args::{Rebalance, RebalanceSettings};
use crate::failure::Failure;
use crate::output::Output;
use crate::text;

/// Pause between two queries of the progress.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) async fn rebalance(
    client: &Client,
    output: &mut Output,
    wanted: &Rebalance,
) -> Result<(), Failure> {
    if wanted.dry_run {
        return output.show(&client.rebalance().await?);
    }
    if wanted.stop {
        return output.show(&client.rebalance_end().await?);
    }
    if let Some(settings) = query(&wanted.settings) {
        return output.show(&client.rebalance_set(&settings).await?);
    }
    let started = client.rebalance_start().await?;
    if !wanted.wait {
        return output.show(&started);
    }
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    let ended = wait(client, &progress).await;
    progress.finish_and_clear();
    output.show(&ended?)
}

/// Returns the settings as parameters; `None` if there are none.
fn query(settings: &RebalanceSettings) -> Option<Query> {
    let mut query = Query::default();
    if let Some(automatic) = settings.automatic {
        query.set("automatic", automatic);
    }
    for (name, value) in [
        ("threshold", settings.threshold),
        ("moves", settings.moves),
        ("total-moves", settings.total_moves),
    ] {
        if let Some(value) = value {
            query.set(name, value);
        }
    }
    for (name, value) in [
        ("bytes-per-second", &settings.bytes_per_second),
        ("total-bytes-per-second", &settings.total_bytes_per_second),
    ] {
        if let Some(value) = value {
            query.set(name, value);
        }
    }
    (!query.encode().is_empty()).then_some(query)
}

/// Polls until the run has ended and no copy waits for its replacement.
async fn wait(client: &Client, progress: &ProgressBar) -> Result<Answer<cluster_api::Rebalance>, Failure> {
    loop {
        let answer = client.rebalance().await?;
        let waiting: u64 = answer.value.peers.iter().map(|peer| peer.copies_waiting).sum();
        if answer.value.running_since.is_none() && waiting == 0 {
            return Ok(answer);
        }
        progress.set_message(text::rebalance_progress(&answer.value));
        tokio::time::sleep(PAUSE).await;
    }
}
