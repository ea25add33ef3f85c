//! Scrub of a Kubo daemon: `repo/verify` reads and hashes all blocks, and replaces damaged ones where Kubo
//! can (`heal`); `pin/verify` then finds pins that lack inner blocks, and [`leaves`] those that lack leaves.
//! They are unpinned, so that the peer pins them again, which fetches what they lack: Kubo fetches nothing
//! for a CID that it lists as pinned.
//!
//! No command can be slowed or continued from a position. They work no further than their answer is
//! read, though, up to the buffers between; so it is read in pieces. A daemon that is restarted begins anew.

mod leaves;

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use self::leaves::Leaves;
use super::lines::Lines;
use super::transport::Limit;
use super::{Client, parse_cid};
use crate::backend::{Cause, Error};
use crate::{Cid, Scrubbed, Unmended};

/// Maximum time of a piece.
const PIECE_TIME: Duration = Duration::from_millis(100);

/// Time limit of Kubo's search for a copy of one damaged block; it checks other blocks meanwhile.
const HEAL: &str = "?heal=true&heal-timeout=2m";

/// Maximum number of damaged blocks that are listed.
const LISTED_MAX: usize = 1 << 16;

/// Damaged blocks named by a summary.
const EXAMPLES: usize = 10;

/// Damaged blocks of the last pass, which Kubo cannot replace. Shared by the clones of a client.
#[derive(Debug, Default)]
pub(super) struct Findings {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    damaged: BTreeSet<Cid>,
    healed: u64,
}

#[derive(Deserialize)]
struct VerifyLine {
    #[serde(rename = "Msg", default)]
    message: String,
    #[serde(rename = "Progress", default)]
    progress: u64,
}

#[derive(Deserialize)]
struct PinLine {
    #[serde(rename = "Cid", default)]
    cid: String,
    #[serde(rename = "Err", default)]
    error: String,
    #[serde(rename = "Ok", default)]
    is_whole: bool,
}

/// A scrub of one daemon.
#[derive(Debug)]
pub struct Scrub {
    client: Client,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// No answer is being read.
    Idle,
    /// Blocks are being checked, so many so far.
    Blocks(Lines, u64),
    /// Pins are being checked, so many so far.
    Pins(Lines, u64),
    /// Leaves of pins are being checked.
    Leaves(Box<Leaves>),
}

impl Client {
    /// Returns a scrub of this daemon.
    pub fn scrub(&self) -> Scrub {
        Scrub {
            client: self.clone(),
            stage: Stage::Idle,
        }
    }

    /// Returns the damaged blocks of the last scrub that Kubo has not replaced.
    pub fn unmended(&self) -> Unmended {
        let state = self.findings.state.lock().unwrap_or_else(PoisonError::into_inner);
        Unmended {
            blocks: state.damaged.len() as u64,
            examples: state.damaged.iter().take(EXAMPLES).copied().collect(),
            mended_blocks: state.healed,
            ..Unmended::default()
        }
    }
}

impl Scrub {
    /// Checks for a short time from a position on; an empty one is the beginning. Begins anew if the daemon
    /// or this process was restarted.
    ///
    /// # Errors
    /// The daemon cannot be reached, refuses, or ends its answer early.
    pub async fn check(&mut self, position: &str) -> Result<Scrubbed, Error> {
        let start = Instant::now();
        let mut found = Scrubbed::default();
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        let stage = match stage {
            Stage::Idle if position == "pins" => Stage::Pins(self.verify_pins().await?, 0),
            Stage::Idle if position == "leaves" => Stage::Leaves(Box::new(Leaves::new(&self.client))),
            Stage::Leaves(leaves) if !position.is_empty() => Stage::Leaves(leaves),
            Stage::Blocks(lines, blocks) if !position.is_empty() => Stage::Blocks(lines, blocks),
            Stage::Pins(lines, pins) if !position.is_empty() => Stage::Pins(lines, pins),
            Stage::Idle | Stage::Blocks(..) | Stage::Pins(..) | Stage::Leaves(_) => {
                Stage::Blocks(self.verify_blocks().await?, 0)
            }
        };
        self.stage = match stage {
            Stage::Blocks(lines, blocks) => self.read_blocks(lines, blocks, start, &mut found).await?,
            Stage::Pins(lines, pins) => self.read_pins(lines, pins, start, &mut found).await?,
            Stage::Leaves(mut leaves) => {
                found.position = leaves.check(start, &mut found).await?;
                if found.position.is_some() {
                    Stage::Leaves(leaves)
                } else {
                    Stage::Idle
                }
            }
            Stage::Idle => Stage::Idle,
        };
        found.busy = start.elapsed();
        Ok(found)
    }

    async fn verify_blocks(&self) -> Result<Lines, Error> {
        self.state(|state| state.damaged.clear());
        let limit = Limit::Idle(self.client.config.repo_gc_timeout);
        self.client.transport.lines("repo/verify", HEAL, limit).await
    }

    async fn verify_pins(&self) -> Result<Lines, Error> {
        let limit = Limit::Idle(self.client.config.repo_gc_timeout);
        self.client
            .transport
            .lines("pin/verify", "?verbose=true", limit)
            .await
    }

    fn state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self
            .client
            .findings
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        change(&mut state)
    }

    async fn read_blocks(
        &self,
        mut lines: Lines,
        mut blocks: u64,
        start: Instant,
        found: &mut Scrubbed,
    ) -> Result<Stage, Error> {
        lines.progressed();
        let is_over = loop {
            let line: VerifyLine = match lines.next().await {
                Ok(Some(line)) => line,
                Ok(None) => break true,
                // Damaged blocks that are left make the whole call fail in the end.
                Err(error) if error.cause() == Cause::Refused && is_summary(error.message()) => break true,
                Err(error) => return Err(error),
            };
            lines.progressed();
            if let Some(damaged) = parse_damaged(&line.message) {
                self.note_damaged(damaged?, &line.message);
                found.damaged += 1;
            }
            if line.progress > blocks {
                found.blocks += line.progress - blocks;
                blocks = line.progress;
            }
            if start.elapsed() >= PIECE_TIME {
                break false;
            }
        };
        found.position = Some(if is_over {
            "pins".to_owned()
        } else {
            format!("block {blocks}")
        });
        Ok(if is_over {
            Stage::Idle
        } else {
            Stage::Blocks(lines, blocks)
        })
    }

    fn note_damaged(&self, cid: Cid, message: &str) {
        tracing::error!("a damaged block in the kubo repository: {message}");
        self.state(|state| {
            if message.ends_with(", healed") {
                state.healed += 1;
            } else if !message.contains(", removed") && state.damaged.len() < LISTED_MAX {
                // A removed one is missing in its pins, which are pinned again.
                state.damaged.insert(cid);
            }
        });
    }

    async fn read_pins(
        &self,
        mut lines: Lines,
        mut pins: u64,
        start: Instant,
        found: &mut Scrubbed,
    ) -> Result<Stage, Error> {
        lines.progressed();
        while let Some(line) = lines.next::<PinLine>().await? {
            lines.progressed();
            pins += 1;
            if !line.error.is_empty() {
                return Err(Error::from_message("pin/verify", line.error));
            }
            if !line.is_whole {
                let cid = parse_cid("pin/verify", &line.cid)?;
                tracing::error!("the pin {cid} lacks blocks at the kubo daemon; it is pinned again");
                self.client.unpin(&cid).await?;
                found.incomplete.push(cid);
            }
            if start.elapsed() >= PIECE_TIME {
                found.position = Some(format!("pin {pins}"));
                return Ok(Stage::Pins(lines, pins));
            }
        }
        found.position = Some("leaves".to_owned());
        Ok(Stage::Idle)
    }
}

/// Returns whether this is the summary of a complete `repo/verify` with damaged blocks.
fn is_summary(message: &str) -> bool {
    message.starts_with("verify complete")
}

/// Returns the CID in a message like `block CID was corrupt (…)`; `None` for other messages.
fn parse_damaged(message: &str) -> Option<Result<Cid, Error>> {
    let (cid, _) = message.strip_prefix("block ")?.split_once(" was corrupt")?;
    Some(parse_cid("repo/verify", cid))
}
