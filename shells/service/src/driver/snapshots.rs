//! Transfer of snapshots between disk and network.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cluster_core::{Event, PeerId, RaftMessage, SnapshotId};
use tokio::sync::mpsc;

use super::Handle;
use crate::metrics::metrics;
use crate::net::{IncomingSnapshot, Net, SnapshotHeader};
use crate::store::{SnapshotSource, StageError, Stager};

/// Chunks read ahead of the network, at a quarter of a mebibyte each.
const AHEAD: usize = 4;

/// Sends a snapshot; `false` when the receiver did not confirm it.
pub(super) async fn send(net: &Net, to: &PeerId, message: RaftMessage, source: SnapshotSource) -> bool {
    let header = SnapshotHeader {
        message,
        manifest: source.manifest().clone(),
    };
    let (chunks, mut receiver) = mpsc::channel(AHEAD);
    let bytes = Arc::new(AtomicU64::new(0));
    let counted = bytes.clone();
    // Reading blocks on the disk.
    tokio::task::spawn_blocking(move || {
        for chunk in source {
            let length = chunk.as_ref().map_or(0, Vec::len);
            counted.fetch_add(length as u64, Ordering::Relaxed);
            if chunks.blocking_send(chunk.map(Bytes::from)).is_err() {
                return;
            }
        }
    });
    let stream = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let (pins, index) = (header.manifest.applied.pins, header.manifest.applied.index);
    match net.send_snapshot(to, header, stream).await {
        Ok(()) => {
            note_size("sent", bytes.load(Ordering::Relaxed));
            tracing::info!("sent the state as of {index}, {pins} pins, to {to}");
            true
        }
        Err(error) => {
            tracing::warn!("the state could not be sent to {to}: {error}");
            false
        }
    }
}

/// Sets the metric of the size of the last snapshot.
fn note_size(direction: &str, bytes: u64) {
    let size = i64::try_from(bytes).unwrap_or(i64::MAX);
    metrics()
        .raft_snapshot_bytes
        .with_label_values(&[direction])
        .set(size);
}

/// Stages incoming snapshots, one after the other, and reports each to the core.
pub async fn stage(mut incoming: mpsc::Receiver<IncomingSnapshot>, stager: Stager, handle: Handle) {
    let next = AtomicU64::new(1);
    while let Some(snapshot) = incoming.recv().await {
        let id = SnapshotId(next.fetch_add(1, Ordering::Relaxed));
        let from = snapshot.from.clone();
        if let Err(error) = take(snapshot, id, &stager, &handle).await {
            tracing::warn!("a snapshot of {from} was not accepted: {error}");
        }
    }
}

/// Poll interval while the core decides on a staged snapshot, which it does at once; the next one is taken
/// only then, so that they do not pile up.
const PAUSE: Duration = Duration::from_millis(10);

async fn take(
    mut incoming: IncomingSnapshot,
    id: SnapshotId,
    stager: &Stager,
    handle: &Handle,
) -> anyhow::Result<()> {
    let SnapshotHeader { message, manifest } = incoming.header.clone();
    let (chunks, mut receiver) = mpsc::channel::<Bytes>(AHEAD);
    let (stager, expected) = (stager.clone(), manifest.clone());
    let writing = tokio::task::spawn_blocking(move || -> Result<(), StageError> {
        let mut staging = stager.stage(id, expected)?;
        while let Some(chunk) = receiver.blocking_recv() {
            if chunk.is_empty() {
                return staging.finish();
            }
            staging.push(&chunk)?;
        }
        // The sender gave up: dropping the staging frees its space.
        Err(StageError::Rejected("it broke off".to_owned()))
    });
    let mut bytes = 0;
    while let Some(chunk) = incoming.next().await {
        let chunk = chunk?;
        bytes += chunk.len() as u64;
        if chunk.is_empty() || chunks.send(chunk).await.is_err() {
            break;
        }
    }
    // An empty chunk ends the snapshot; if the writer is gone already, its error says why.
    let _ = chunks.send(Bytes::new()).await;
    drop(chunks);
    let from = incoming.from.clone();
    if let Err(error) = writing.await? {
        let _ = incoming.reject(&error.to_string()).await;
        return Err(error.into());
    }
    incoming.accept().await?;
    note_size("received", bytes);
    tracing::info!(
        "received the state as of {}, {} pins, from {from}",
        manifest.applied.index,
        manifest.applied.pins
    );
    handle.event(Event::SnapshotReceived {
        from,
        snapshot: id,
        manifest,
        message,
    });
    tokio::time::sleep(PAUSE).await;
    Ok(())
}
