//! Drains of peers, and their progress.

use std::time::Duration;

use cluster_api::Client;
use cluster_api::client::Answer;
use indicatif::ProgressBar;

use crate::args::Drain;
use crate::failure::Failure;
use crate::output::Output;
use crate::{text, validate};

const DOING: &str = "draining the peer";

/// Pause between two queries of the progress.
const PAUSE: Duration = Duration::from_secs(1);

/// Number of queries in a row that must find the drain blocked: a metric or a restart may block it shortly.
const BLOCKED_QUERIES: u32 = 30;

pub(super) async fn drain(client: &Client, output: &mut Output, wanted: &Drain) -> Result<(), Failure> {
    let Some(peer) = &wanted.peer else {
        return output.show(&client.drains().await?);
    };
    let peer = validate::peer(peer)?;
    if wanted.undo {
        return output.show(&client.drain_end(&peer).await?);
    }
    let started = client.drain(&peer, wanted.moves, wanted.force).await?;
    if !wanted.wait {
        return output.show(&started);
    }
    let progress = ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    let ended = wait(client, &peer, &progress).await;
    progress.finish_and_clear();
    output.show(&ended?)
}

/// Polls until the peer may be removed.
async fn wait(
    client: &Client,
    peer: &str,
    progress: &ProgressBar,
) -> Result<Answer<cluster_api::Drain>, Failure> {
    let mut blocked = 0;
    loop {
        let answer = client.drain_progress(peer).await?;
        let drain = &answer.value;
        progress.set_message(text::drain_progress(drain));
        match drain.state.as_str() {
            "done" => return Ok(answer),
            "blocked" => blocked += 1,
            _ => blocked = 0,
        }
        if blocked >= BLOCKED_QUERIES {
            let example = drain.blocked_cids.join(", ");
            let why = format!(
                "{} pins cannot move, such as {example}: too few other peers are alive and have room. Add \
                 peers or room, or lower the minimum of these pins; the drain goes on by itself",
                drain.pins_left
            );
            return Err(Failure::local(DOING, why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
