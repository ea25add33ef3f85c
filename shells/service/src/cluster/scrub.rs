//! Scrub: this peer has its IPFS node re-read and re-hash everything that it holds, as its
//! [`Scrubber`] decides; and the state and control of the scrubs of all members.
//!
//! The node itself fetches other peers' copies of damaged blocks. Pins that lack blocks are compared, and so
//! pinned again.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cluster_api as api;
use cluster_core::{
    Now, PeerId, ScrubChange, ScrubConfig, ScrubCounts, ScrubCycle, ScrubRecord, ScrubStep, Scrubber,
};
use cluster_ipfs::Scrubbed;
use futures::StreamExt;
use tokio::sync::Notify;

use super::peers::{KnownMembers, ask_each};
use super::rpc::{self, Answer, Call};
use super::{Cluster, Error, convert, now};
use crate::config::write_private;
use crate::metrics::metrics;

/// Longest sleep while a cycle runs, so that its position is saved.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Maximum size of the file; a larger one was not written by a peer.
const FILE_MAX: u64 = 1 << 16;

/// Maximum number of changes in one call.
pub(super) const CHANGES_MAX: usize = 8;

/// Settings of a peer's scrub.
#[derive(Debug, Clone)]
pub struct ScrubSettings {
    /// File that keeps its progress and what was requested.
    pub file: PathBuf,
    /// Interval and share of the time.
    pub config: ScrubConfig,
}

/// Peers whose scrubs are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scrubbers {
    /// All members.
    All,
    /// This peer.
    Local,
    /// These members.
    Of(Vec<PeerId>),
}

/// This peer's scrub.
pub(super) struct Scrub {
    file: PathBuf,
    start: Instant,
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    scrubber: Scrubber,
    /// Reason why the node could not check the last piece; empty if it could.
    error: String,
}

impl Scrub {
    /// Continues from the file. Blocks the thread.
    pub(super) fn open(settings: &ScrubSettings) -> Self {
        let record = load(&settings.file).unwrap_or_else(|why| {
            let file = settings.file.display();
            tracing::warn!(%file, %why, "the progress of the scrub is lost: a new cycle is scheduled");
            ScrubRecord::default()
        });
        if let Some(last) = &record.last {
            publish_end(last);
        }
        Self {
            file: settings.file.clone(),
            start: Instant::now(),
            state: Mutex::new(State {
                scrubber: Scrubber::new(settings.config, record, rand::random()),
                error: String::new(),
            }),
            changed: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        Now {
            mono: cluster_core::Instant::default() + self.start.elapsed(),
            wall: now(),
        }
    }

    fn change(&self, changes: &[ScrubChange]) {
        let now = self.now();
        let mut state = self.state();
        for change in changes {
            tracing::info!(?change, "the scrub was changed");
            state.scrubber.change(now, *change);
        }
        if !changes.is_empty() {
            state.error.clear();
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Writes the record if it is due.
    async fn save(&self) {
        let record = {
            let (now, mut state) = (self.now(), self.state());
            if !state.scrubber.is_unsaved(now) {
                return;
            }
            state.scrubber.saved(now);
            state.scrubber.record().clone()
        };
        let file = self.file.clone();
        let written = tokio::task::spawn_blocking(move || store(&file, &record)).await;
        if let Ok(Err(why)) = written {
            let file = self.file.display();
            tracing::warn!(%file, %why, "the progress of the scrub is not saved");
        }
    }

    /// Records the result of a piece.
    fn checked(&self, result: Result<Scrubbed, cluster_ipfs::backend::Error>) {
        let (now, mut state) = (self.now(), self.state());
        match result {
            Ok(found) => {
                let counts = ScrubCounts {
                    blocks: found.blocks,
                    bytes: found.bytes,
                    damaged: found.damaged,
                    incomplete: found.incomplete.len() as u64,
                };
                publish(counts);
                state.error.clear();
                let is_last = found.position.is_none();
                state.scrubber.checked(now, found.busy, counts, found.position);
                if let Some(last) = state.scrubber.record().last.as_ref().filter(|_| is_last) {
                    let ScrubCounts {
                        blocks,
                        bytes,
                        damaged,
                        incomplete,
                    } = last.found;
                    tracing::info!(
                        "the scrub is complete: {blocks} blocks, {bytes} bytes, {damaged} damaged blocks, \
                         {incomplete} incomplete pins"
                    );
                    publish_end(last);
                }
            }
            Err(error) => {
                if state.error.is_empty() {
                    tracing::error!(%error, "the scrub cannot continue now; it is tried again");
                }
                metrics().scrub_failing.set(1);
                state.error = error.to_string();
                state.scrubber.failed(now);
            }
        }
    }
}

fn publish(found: ScrubCounts) {
    let metrics = metrics();
    metrics.scrub_blocks.inc_by(found.blocks);
    metrics.scrub_bytes.inc_by(found.bytes);
    metrics.scrub_damaged.inc_by(found.damaged);
    metrics.scrub_incomplete.inc_by(found.incomplete);
    metrics.scrub_failing.set(0);
}

fn publish_end(last: &ScrubCycle) {
    let seconds = i64::try_from(last.ended.0 / 1_000_000_000).unwrap_or(i64::MAX);
    metrics().scrub_completed.set(seconds);
}

fn load(file: &Path) -> Result<ScrubRecord, String> {
    let text = match std::fs::metadata(file) {
        Ok(data) if data.len() > FILE_MAX => return Err(format!("it has more than {FILE_MAX} bytes")),
        Ok(_) => std::fs::read(file).map_err(|error| error.to_string())?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(ScrubRecord::default()),
        Err(error) => return Err(error.to_string()),
    };
    serde_json::from_slice(&text).map_err(|error| error.to_string())
}

fn store(file: &Path, record: &ScrubRecord) -> Result<(), String> {
    let text = serde_json::to_vec_pretty(record).map_err(|error| error.to_string())?;
    write_private(file, &text).map_err(|error| error.to_string())
}

impl Cluster {
    /// Scrubs this peer's IPFS node, in cycles. Never returns.
    pub async fn scrub_in_cycles(self) {
        let scrub = &self.inner.scrub;
        let mut session = self.inner.backend.scrub();
        loop {
            scrub.save().await;
            let step = scrub.state().scrubber.next(scrub.now());
            match step {
                ScrubStep::Check(position) => {
                    let checked = session.check(&position).await;
                    let incomplete = match &checked {
                        Ok(found) => found.incomplete.clone(),
                        Err(_) => Vec::new(),
                    };
                    scrub.checked(checked);
                    self.pin_again(incomplete).await;
                }
                ScrubStep::Wait(None) => {
                    scrub.save().await;
                    scrub.changed.notified().await;
                }
                ScrubStep::Wait(Some(time)) => {
                    let waiting = tokio::time::timeout(time.min(SLEEP_MAX), scrub.changed.notified());
                    // Either ends the wait.
                    let _ = waiting.await;
                }
            }
        }
    }

    /// Compares pins that lack blocks, after which they are pinned again.
    async fn pin_again(&self, incomplete: Vec<cluster_ipfs::Cid>) {
        for broken in incomplete {
            let Ok(cid) = cluster_core::Cid::from_bytes(&broken.to_bytes()) else {
                continue;
            };
            if let Err(error) = self.compare(Some(cid)).await {
                // The next comparison of all pins finds it.
                tracing::debug!(%broken, %error, "an incomplete pin is not compared now");
            }
        }
    }

    /// Makes changes to the scrubs of some members, and returns their states. A failure is reported per peer.
    ///
    /// # Errors
    /// One of these peers is not a member, or this peer is shutting down.
    pub async fn scrubs(
        &self,
        whose: &Scrubbers,
        changes: &[ScrubChange],
    ) -> Result<api::GlobalScrub, Error> {
        let KnownMembers { peers } = self.known_peers().await?;
        let asked: Vec<&PeerId> = match whose {
            Scrubbers::All => peers.keys().collect(),
            Scrubbers::Local => vec![&self.inner.config.peer],
            Scrubbers::Of(named) => named.iter().collect(),
        };
        if let Some(peer) = asked.iter().find(|peer| !peers.contains_key(**peer)) {
            return Err(Error::Invalid(format!("{peer} is not a member of the cluster")));
        }
        let mut answers = ask_each(asked.into_iter(), |peer| self.scrub_of(peer, changes));
        let mut shown = api::GlobalScrub::default();
        while let Some((peer, answer)) = answers.next().await {
            let mut scrub = answer.unwrap_or_else(|error| api::Scrub {
                state: "unreachable".to_owned(),
                error: error.to_string(),
                ..api::Scrub::default()
            });
            scrub.peer = peer.to_string();
            scrub.peername.clone_from(&peers[peer].peername);
            if self.owner().is_some() {
                // They may be pins of other owners.
                scrub.unmended.clear();
            }
            shown.peer_map.insert(scrub.peer.clone(), scrub);
        }
        Ok(shown)
    }

    async fn scrub_of(&self, peer: &PeerId, changes: &[ScrubChange]) -> Result<api::Scrub, Error> {
        if *peer == self.inner.config.peer {
            return Ok(self.own_scrub(changes).await);
        }
        let call = Call::Scrub {
            changes: changes.to_vec(),
        };
        match self.call_once(peer, &call).await? {
            Some(Answer::Scrub { json }) => serde_json::from_str(&json)
                .map_err(|error| Error::Peer(format!("peer {peer} sent an invalid answer: {error}"))),
            Some(_) | None => Err(rpc::unexpected(peer)),
        }
    }

    /// Describes the damage at this peer that is not mended, and why its scrub cannot continue; `None` if all
    /// is well.
    pub(super) fn scrub_alert(&self) -> Option<String> {
        let unmended = self.inner.backend.unmended();
        let error = self.inner.scrub.state().error.clone();
        let damage = (unmended.blocks + unmended.pins > 0).then(|| {
            format!(
                "{} damaged blocks and {} incomplete pins of the IPFS node are not mended: see \
                 \"ipfs scrub\"",
                unmended.blocks, unmended.pins
            )
        });
        let stopped = (!error.is_empty()).then(|| format!("the scrub cannot continue: {error}"));
        let found: Vec<String> = damage.into_iter().chain(stopped).collect();
        (!found.is_empty()).then(|| found.join("; "))
    }

    /// Makes changes to this peer's scrub, saves them, and returns its state.
    pub(super) async fn own_scrub(&self, changes: &[ScrubChange]) -> api::Scrub {
        let scrub = &self.inner.scrub;
        scrub.change(changes);
        scrub.save().await;
        let unmended = self.inner.backend.unmended();
        let repository = self.own_repository(false).await;
        let state = scrub.state();
        let record = state.scrubber.record();
        let shown = match (record.paused, &record.cycle) {
            (true, _) => "paused",
            (false, Some(_)) => "running",
            (false, None) if state.scrubber.interval().is_zero() => "idle",
            (false, None) => "waiting",
        };
        let is_scheduled = record.cycle.is_none() && !state.scrubber.interval().is_zero();
        let next = record.next.filter(|_| is_scheduled);
        api::Scrub {
            state: shown.to_owned(),
            fraction: f64::from(state.scrubber.share()) / f64::from(cluster_core::SCRUB_SHARE_MAX),
            interval_seconds: state.scrubber.interval().as_secs(),
            repository_bytes: repository.map_or(0, |repository| repository.size),
            position: record
                .cycle
                .as_ref()
                .map(|cycle| cycle.position.clone())
                .unwrap_or_default(),
            cycle: record.cycle.as_ref().map(cycle),
            last: record.last.as_ref().map(cycle),
            next: next.map(convert::time).unwrap_or_default(),
            unmended_blocks: unmended.blocks,
            unmended_pins: unmended.pins,
            unmended: unmended.examples.iter().map(ToString::to_string).collect(),
            mended_blocks: unmended.mended_blocks,
            mended_pins: unmended.mended_pins,
            error: state.error.clone(),
            ..api::Scrub::default()
        }
    }
}

fn cycle(of: &ScrubCycle) -> api::ScrubCycle {
    let ended = Some(of.ended).filter(|ended| ended.0 > 0);
    api::ScrubCycle {
        since: convert::time(of.since),
        ended: ended.map(convert::time).unwrap_or_default(),
        blocks: of.found.blocks,
        bytes: of.found.bytes,
        damaged: of.found.damaged,
        incomplete: of.found.incomplete,
    }
}
