//! The called side of the protocol: answers the calls of other members.

use std::fmt::Display;
use std::time::Duration;

use cluster_api::StatusFilter;
use cluster_core::{DecodeError, ScrubChange, decode};
use cluster_ipfs::Block;
use cluster_ipfs::backend::{Cause, Error as IpfsError};
use tokio::sync::mpsc;
use tokio::time::interval;
use tokio_stream::wrappers::ReceiverStream;

use super::blocks;
use super::{Activity, Answer, Call, Collected, OneStatus, Row};
use crate::cluster::add::GcHold;
use crate::cluster::merge::{OwnRow, Piece, PieceStream};
use crate::cluster::scrub::CHANGES_MAX;
use crate::cluster::{Cluster, Error, contexts, status_all};
use crate::metrics;
use crate::net::Incoming;

/// Interval of heartbeats, well within the caller's [`ANSWER_TIMEOUT`](super::ANSWER_TIMEOUT).
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Maximum number of blocks of one upload queued for the IPFS node: at most 16 MiB, on top of one chunk.
const BLOCKS_WAITING: usize = 8;

impl Cluster {
    /// Answers one call of another peer. The network accepts calls from members only.
    pub async fn serve_call(&self, mut incoming: Incoming) {
        let done = match (self.read_call(&incoming.request), self.inner.calls.try_acquire()) {
            // It lasts, and has a limit of its own.
            (Ok(Call::Statuses), permit) => {
                drop(permit);
                self.answer_statuses(&mut incoming).await
            }
            (Ok(call), Ok(_permit)) => self.answer(call, &mut incoming).await,
            (Ok(_), Err(_)) => Err(Error::Peer(
                "too many calls are open at this peer, try again later".to_owned(),
            )),
            (Err(error), _) => Err(error),
        };
        let from = incoming.from.clone();
        if let Err(error) = incoming.finish(done.map_err(|error| error.to_string())).await {
            tracing::debug!(%from, %error, "a call of another peer was not answered to its end");
        }
    }

    /// Decodes a call. One of a later release cannot be read; peers of an earlier release than this one run
    /// only in tests of upgrades.
    fn read_call(&self, request: &[u8]) -> Result<Call, Error> {
        let unreadable = |why: &dyn Display| Error::Peer(format!("the call cannot be read: {why}"));
        let call: Call = decode(request).map_err(|error| unreadable(&error))?;
        let (found, known) = (call.min_version(), self.inner.config.protocol);
        if found > known {
            return Err(unreadable(&DecodeError::Version { found, known }));
        }
        Ok(call)
    }

    async fn answer(&self, call: Call, incoming: &mut Incoming) -> Result<(), Error> {
        match call {
            Call::Id => {
                let identity = with_heartbeats(incoming, self.identity()).await??;
                send(incoming, &Answer::Id(Box::new(identity))).await
            }
            Call::Status { .. } | Call::Recover { .. } | Call::Sync { .. } => {
                let answer = with_heartbeats(incoming, self.answer_one(call)).await??;
                send(incoming, &Answer::Details(answer.details)).await?;
                send(incoming, &Answer::Status(answer.state)).await?;
                send(incoming, &Answer::Activity(answer.activity)).await
            }
            Call::StatusAll { filter } => self.answer_status_all(&filter, incoming).await,
            Call::RecoverAll => {
                let pieces = with_heartbeats(incoming, self.recovered_rows()).await??;
                self.answer_rows(pieces, incoming).await
            }
            Call::SyncAll => {
                let pieces = with_heartbeats(incoming, self.synced_rows()).await??;
                self.answer_rows(pieces, incoming).await
            }
            Call::PutBlocks => self.answer_put_blocks(incoming).await,
            Call::RepoGc => self.answer_garbage(incoming, false).await,
            Call::CollectGarbage => self.answer_garbage(incoming, true).await,
            Call::RepoStat { objects } => {
                let all = with_heartbeats(incoming, self.own_repository(objects)).await??;
                let answer = Answer::RepoStat {
                    size: all.size,
                    storage_max: all.storage_max,
                    objects: all.objects,
                };
                send(incoming, &answer).await
            }
            Call::Moves => {
                let own = with_heartbeats(incoming, self.own_moves()).await??;
                send(incoming, &Answer::Moves(own)).await
            }
            Call::Problems => {
                let found = with_heartbeats(incoming, self.own_problems()).await??;
                send(incoming, &Answer::Problems(found)).await
            }
            Call::Scrub { changes } => self.answer_scrub(&changes, incoming).await,
            Call::Statuses => self.answer_statuses(incoming).await,
            Call::Trace { contexts } => contexts::continue_traces(&contexts),
            Call::Links => {
                let (cluster, ipfs, ipfs_links) = self.own_links().await;
                send(
                    incoming,
                    &Answer::Links {
                        cluster,
                        ipfs,
                        ipfs_links,
                    },
                )
                .await
            }
        }
    }

    async fn answer_scrub(&self, changes: &[ScrubChange], incoming: &mut Incoming) -> Result<(), Error> {
        if changes.len() > CHANGES_MAX {
            return Err(Error::Peer("too many changes in one call".to_owned()));
        }
        let own = with_heartbeats(incoming, self.own_scrub(changes)).await?;
        let json = serde_json::to_string(&own).map_err(|error| Error::Peer(error.to_string()))?;
        send(incoming, &Answer::Scrub { json }).await
    }

    /// Returns the status of one CID, after the operation of the call.
    pub(in crate::cluster) async fn answer_one(&self, call: Call) -> Result<OneStatus, Error> {
        let mut activity = Activity::default();
        let state = match call {
            Call::Status { cid } => {
                activity = self.own_activity(&cid).await?;
                self.own_state(&cid).await?.1
            }
            Call::Recover { cid } => self.recover_here(&cid).await?,
            Call::Sync { cid } => self.sync_here(&cid).await?,
            Call::Id
            | Call::StatusAll { .. }
            | Call::RecoverAll
            | Call::SyncAll
            | Call::PutBlocks
            | Call::RepoGc
            | Call::CollectGarbage
            | Call::Moves
            | Call::Problems
            | Call::Scrub { .. }
            | Call::RepoStat { .. }
            | Call::Links
            | Call::Statuses
            | Call::Trace { .. } => return Err(Error::Closed),
        };
        Ok(OneStatus {
            details: self.own_details().await,
            state,
            activity,
        })
    }

    async fn answer_status_all(&self, filter: &str, incoming: &mut Incoming) -> Result<(), Error> {
        let filter = StatusFilter::from_names(filter);
        let me = self.peer().clone();
        let (mut scan, running) = self.scan().await?;
        send(incoming, &Answer::Details(self.own_details().await)).await?;
        loop {
            let (rest, entries) = scan.next().await?;
            let Some(upto) = entries.last().map(|entry| entry.cid.clone()) else {
                return Ok(());
            };
            let rows = entries
                .into_iter()
                .filter_map(|e| status_all::row(&me, e, &running, filter))
                .collect();
            send(incoming, &Answer::Rows { rows, upto }).await?;
            scan = rest;
        }
    }

    async fn answer_rows(
        &self,
        mut pieces: PieceStream<OwnRow>,
        incoming: &mut Incoming,
    ) -> Result<(), Error> {
        send(incoming, &Answer::Details(self.own_details().await)).await?;
        while let Some(piece) = pieces.recv().await {
            match piece? {
                Piece::Details(details) => send(incoming, &Answer::Details(details)).await?,
                Piece::Rows(rows, upto) => {
                    let rows = rows
                        .into_iter()
                        .map(|row| Row {
                            cid: row.cid,
                            state: row.state,
                        })
                        .collect();
                    send(incoming, &Answer::Rows { rows, upto }).await?;
                }
            }
        }
        Ok(())
    }

    async fn answer_put_blocks(&self, incoming: &mut Incoming) -> Result<(), Error> {
        let (out, blocks) = mpsc::channel(BLOCKS_WAITING);
        let _hold = GcHold::new(&self.inner.backend);
        let backend = self.inner.backend.clone();
        let blocks = ReceiverStream::new(blocks);
        let mut storing = tokio::spawn(async move { metrics::block_put(backend.put_blocks(blocks)).await });
        let received = receive_blocks(incoming, out).await;
        let stored = with_heartbeats(incoming, &mut storing).await;
        received?;
        let stored = stored?.map_err(|_| Error::Closed)??;
        send(
            incoming,
            &Answer::Stored {
                blocks: stored.blocks,
            },
        )
        .await
    }

    /// Collects garbage and reports the steps, and the freed space if the caller knows it.
    async fn answer_garbage(&self, incoming: &mut Incoming, with_freed: bool) -> Result<(), Error> {
        let (out, mut batches) = mpsc::channel(1);
        let cluster = self.clone();
        let collecting = tokio::spawn(async move { cluster.collect_garbage(out).await });
        while let Some(mut batch) = with_heartbeats(incoming, batches.recv()).await? {
            batch.retain(|step| with_freed || !matches!(step, Collected::Freed(_)));
            send(incoming, &Answer::Collected(batch)).await?;
        }
        collecting.await.map_err(|_| Error::Closed)?
    }
}

/// Forwards the blocks of an upload. If the upload breaks off, the IPFS node gets an error; if the IPFS
/// node stops, the rest is not read.
async fn receive_blocks(
    incoming: &mut Incoming,
    out: mpsc::Sender<Result<Block, IpfsError>>,
) -> Result<(), Error> {
    while let Some(chunk) = incoming.next().await {
        let blocks = match chunk.map_err(|error| error.to_string()).and_then(blocks::decode) {
            Ok(blocks) => blocks,
            Err(error) => {
                let why = format!("the upload broke off: {error}");
                let _ = out
                    .send(Err(IpfsError::new(Cause::Cancelled, "block/put", why.clone())))
                    .await;
                return Err(Error::Peer(why));
            }
        };
        for block in blocks {
            if out.send(Ok(block)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Waits for `work` while sending heartbeats.
pub(in crate::cluster) async fn with_heartbeats<T>(
    incoming: &mut Incoming,
    work: impl Future<Output = T>,
) -> Result<T, Error> {
    let mut work = std::pin::pin!(work);
    let mut beat = interval(HEARTBEAT);
    // The first tick is immediate.
    beat.tick().await;
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = beat.tick() => send(incoming, &Answer::Working).await?,
        }
    }
}

/// Sends a part of the answer.
pub(in crate::cluster) async fn send(incoming: &mut Incoming, answer: &Answer) -> Result<(), Error> {
    Ok(incoming.respond_as(answer).await?)
}
