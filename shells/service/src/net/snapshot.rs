//! Snapshots: one stream each, so that a large one does not delay Raft's messages.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::{Manifest, PeerId, RaftMessage, decode, decode_up_to, encode, encode_for_version};
use futures::io::{ReadHalf, WriteHalf};
use futures::{AsyncReadExt, Stream as Chunks, StreamExt};
use libp2p::Stream;
use serde::{Deserialize, Serialize};

use super::admission::Place;
use super::error::SnapshotError;
use super::frame::{FRAME_MAX, FrameReader, FrameWriter, Kind, invalid};
use super::losses::LossLog;
use super::shared::{OPENING_TIMEOUT, Origin, Shared};
use super::streams::Protocol;

/// Maximum size of a chunk of encoded pins, in bytes. Usual chunks have a quarter of a mebibyte; one pin that
/// the first release accepted may have eight.
pub const SNAPSHOT_CHUNK_MAX: usize = FRAME_MAX;

/// Read-ahead of a snapshot stream. Long chunks bypass it.
const READ_AHEAD: usize = 16 << 10;

/// Maximum time either side may be stuck with one chunk.
const STALLED: Duration = Duration::from_secs(60);

/// Time limit of the receiver to have all of it staged safely after the last chunk: it may have to sync
/// gigabytes to a slow disk.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(300);

/// Maximum length of the reason for a rejection, in bytes.
const REASON_MAX: usize = 4 << 10;

/// First part of a transfer, before the pins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// The Raft message that announces the snapshot.
    pub message: RaftMessage,
    /// Contents of the snapshot.
    pub manifest: Manifest,
}

#[derive(Serialize, Deserialize)]
struct Head {
    origin: Origin,
    header: SnapshotHeader,
}

/// Last part of a transfer, after the pins: the number of chunks and bytes, so that none is missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Tally {
    chunks: u64,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, chunk: &[u8]) {
        self.chunks += 1;
        self.bytes += chunk.len() as u64;
    }
}

/// Sends a snapshot, and returns when the receiver has confirmed that it has staged all of it.
pub(super) async fn send<E: Display>(
    shared: &Arc<Shared>,
    to: &PeerId,
    header: SnapshotHeader,
    chunks: impl Chunks<Item = Result<Bytes, E>> + Send,
) -> Result<(), SnapshotError> {
    let unreachable = |why| SnapshotError::Unreachable {
        peer: to.clone(),
        why,
    };
    let lost = |why: String| SnapshotError::Lost {
        peer: to.clone(),
        why,
    };
    let _place = shared
        .outbound
        .admit(to, Protocol::Snapshot, true)
        .map_err(unreachable)?;
    let opening = async { shared.link(to).await?.open(Protocol::Snapshot).await };
    let stream = tokio::time::timeout(OPENING_TIMEOUT, opening).await;
    let stream = stream
        .unwrap_or_else(|_| Err("no answer".to_owned()))
        .map_err(unreachable)?;
    let meter = shared.meters.of(Protocol::Snapshot);
    let (reader, writer) = stream.split();
    let mut reader = FrameReader::new(reader, 512, 8 << 10, Arc::clone(&meter));
    let mut writer = FrameWriter::new(writer, meter);
    // A receiver that cannot read the pins refuses the snapshot by this version.
    let head = encode_for_version(
        header.manifest.members.version,
        &Head {
            origin: shared.origin(),
            header,
        },
    );
    // The receiver may reject it at any time.
    let verdict = read_verdict(to, &mut reader);
    tokio::pin!(verdict);
    let sent = tokio::select! {
        biased;
        early = &mut verdict => return early.and(Err(lost("confirmed before its end".to_owned()))),
        sent = send_chunks(to, &mut writer, &head, chunks) => sent,
    };
    if let Err(error) = sent {
        // The receiver's reason to close the stream explains more than a broken stream. A failed source is
        // not its fault; the reset of the stream informs it.
        let said = match error {
            SnapshotError::Lost { .. } => tokio::time::timeout(Duration::from_secs(1), verdict).await.ok(),
            SnapshotError::Unreachable { .. }
            | SnapshotError::Rejected { .. }
            | SnapshotError::Source { .. } => None,
        };
        return match said {
            Some(Err(rejected @ SnapshotError::Rejected { .. })) => Err(rejected),
            Some(_) | None => Err(error),
        };
    }
    let late = |_| Err(lost(format!("not confirmed within {CONFIRM_TIMEOUT:?}")));
    tokio::time::timeout(CONFIRM_TIMEOUT, verdict)
        .await
        .unwrap_or_else(late)
}

/// Waits for the receiver's verdict: confirmed, rejected, or lost.
async fn read_verdict(to: &PeerId, reader: &mut FrameReader<ReadHalf<Stream>>) -> Result<(), SnapshotError> {
    let lost = |why: String| SnapshotError::Lost {
        peer: to.clone(),
        why,
    };
    match reader.next().await {
        Ok(Some(frame)) => match frame.kind {
            Kind::End => Ok(()),
            Kind::Refused | Kind::Failed => Err(SnapshotError::Rejected {
                peer: to.clone(),
                why: frame.text(),
            }),
            Kind::Head | Kind::Data | Kind::Part => Err(lost("a frame out of place".to_owned())),
        },
        Ok(None) => Err(lost("the receiver gave up".to_owned())),
        Err(error) => Err(lost(error.to_string())),
    }
}

async fn send_chunks<E: Display>(
    to: &PeerId,
    writer: &mut FrameWriter<WriteHalf<Stream>>,
    head: &[u8],
    chunks: impl Chunks<Item = Result<Bytes, E>> + Send,
) -> Result<(), SnapshotError> {
    let lost = |why: String| SnapshotError::Lost {
        peer: to.clone(),
        why,
    };
    let source = |why: String| SnapshotError::Source {
        peer: to.clone(),
        why,
    };
    let stalled = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
    writer
        .send(Kind::Head, head)
        .await
        .map_err(|error| lost(error.to_string()))?;
    let mut tally = Tally::default();
    tokio::pin!(chunks);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| source(error.to_string()))?;
        if chunk.len() > SNAPSHOT_CHUNK_MAX {
            let size = chunk.len();
            return Err(source(format!(
                "a chunk of {size} bytes, at most {SNAPSHOT_CHUNK_MAX} are allowed"
            )));
        }
        tally.add(&chunk);
        let sent = tokio::time::timeout(STALLED, writer.send(Kind::Data, &chunk)).await;
        sent.unwrap_or_else(stalled)
            .map_err(|error| lost(error.to_string()))?;
    }
    writer
        .send(Kind::End, &encode(&tally))
        .await
        .map_err(|error| lost(error.to_string()))
}

/// A snapshot that a member sends. Dropping it without a verdict fails it at the sender.
pub struct IncomingSnapshot {
    /// The sender; proven by the handshake.
    pub from: PeerId,
    /// The header that precedes the pins.
    pub header: SnapshotHeader,
    reader: FrameReader<ReadHalf<Stream>>,
    writer: FrameWriter<WriteHalf<Stream>>,
    tally: Tally,
    whole: bool,
    _place: Place,
}

impl std::fmt::Debug for IncomingSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, tally, .. } = self;
        f.debug_struct("IncomingSnapshot")
            .field("from", from)
            .field("tally", tally)
            .finish_non_exhaustive()
    }
}

/// Reads the header, and queues the snapshot.
pub(super) async fn serve(shared: Arc<Shared>, from: PeerId, stream: Stream, place: Result<Place, String>) {
    let taken = tokio::time::timeout(OPENING_TIMEOUT, take(&shared, &from, stream, place)).await;
    match taken {
        Ok(Ok(Some(snapshot))) => {
            if let Err(error) = shared.snapshots.try_send(snapshot) {
                LossLog::count(&shared.losses.overloaded);
                let (tokio::sync::mpsc::error::TrySendError::Full(snapshot)
                | tokio::sync::mpsc::error::TrySendError::Closed(snapshot)) = error;
                drop(
                    snapshot
                        .reject("it accepts no snapshots at the moment, try again later")
                        .await,
                );
            }
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            shared.note_malformed(&from, "snapshot", &error);
        }
        Ok(Err(error)) => tracing::debug!(peer = %from, "a snapshot broke off: {error}"),
        Err(_) => tracing::debug!(peer = %from, "a snapshot without a header"),
    }
}

async fn take(
    shared: &Shared,
    from: &PeerId,
    stream: Stream,
    place: Result<Place, String>,
) -> io::Result<Option<IncomingSnapshot>> {
    let meter = shared.meters.of(Protocol::Snapshot);
    let (reader, writer) = stream.split();
    // The header of a non-member is not worth memory: it is refused for its sender.
    let limit = if shared.is_member(from) {
        FRAME_MAX
    } else {
        SNAPSHOT_CHUNK_MAX
    };
    let mut reader = FrameReader::new(reader, READ_AHEAD, limit, Arc::clone(&meter));
    let mut writer = FrameWriter::new(writer, meter);
    let Some(frame) = reader.next().await? else {
        return Ok(None);
    };
    if frame.kind != Kind::Head {
        return Err(invalid("no header at its start"));
    }
    let head: Head =
        decode_up_to(shared.own_version, &frame.payload).map_err(|error| invalid(error.to_string()))?;
    if let Some(why) = shared.reason_to_refuse(from, &head.origin) {
        shared.note_refusal(from, "snapshot", &why);
        writer.send(Kind::Refused, why.as_bytes()).await?;
        return Ok(None);
    }
    let place = match place {
        Ok(place) => place,
        Err(why) => {
            LossLog::count(&shared.losses.overloaded);
            writer.send(Kind::Refused, why.as_bytes()).await?;
            return Ok(None);
        }
    };
    reader.set_limit(SNAPSHOT_CHUNK_MAX);
    let (from, header, tally) = (from.clone(), head.header, Tally::default());
    Ok(Some(IncomingSnapshot {
        from,
        header,
        reader,
        writer,
        tally,
        whole: false,
        _place: place,
    }))
}

impl IncomingSnapshot {
    /// Reads the next chunk of encoded pins; `None` when all have arrived and none is missing.
    ///
    /// # Errors
    /// [`SnapshotError::Lost`] when the sender gives up, stalls, or chunks are missing.
    pub async fn next(&mut self) -> Option<Result<Bytes, SnapshotError>> {
        if self.whole {
            return None;
        }
        let why = match tokio::time::timeout(STALLED, self.reader.next()).await {
            Ok(Ok(Some(frame))) => match frame.kind {
                Kind::Data => {
                    self.tally.add(&frame.payload);
                    return Some(Ok(frame.payload));
                }
                Kind::End if decode(&frame.payload).as_ref() == Ok(&self.tally) => {
                    self.whole = true;
                    return None;
                }
                Kind::End => format!("chunks are missing, only {} arrived", self.tally.chunks),
                Kind::Head | Kind::Failed | Kind::Part | Kind::Refused => "a frame out of place".to_owned(),
            },
            Ok(Ok(None)) => "the sender gave up".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no data received for {STALLED:?}"),
        };
        Some(Err(SnapshotError::Lost {
            peer: self.from.clone(),
            why,
        }))
    }

    /// Confirms that all of it is staged. Only after [`IncomingSnapshot::next`] returned `None`.
    ///
    /// # Errors
    /// [`SnapshotError::Lost`] when called earlier, and when the sender is gone.
    pub async fn accept(mut self) -> Result<(), SnapshotError> {
        if !self.whole {
            let why = "it was confirmed before all of it had arrived".to_owned();
            return Err(SnapshotError::Lost {
                peer: self.from.clone(),
                why,
            });
        }
        self.answer(Kind::End, "").await?;
        // The sender has all it waits for, so failing to close the stream in order does no harm.
        drop(tokio::time::timeout(STALLED, self.writer.close()).await);
        Ok(())
    }

    /// Rejects the snapshot with a reason for the sender.
    ///
    /// # Errors
    /// [`SnapshotError::Lost`] when the sender is gone.
    pub async fn reject(mut self, reason: &str) -> Result<(), SnapshotError> {
        self.answer(Kind::Refused, &reason[..reason.floor_char_boundary(REASON_MAX)])
            .await
    }

    async fn answer(&mut self, kind: Kind, text: &str) -> Result<(), SnapshotError> {
        let sent = tokio::time::timeout(STALLED, self.writer.send(kind, text.as_bytes())).await;
        let lost = |why: String| SnapshotError::Lost {
            peer: self.from.clone(),
            why,
        };
        match sent {
            Ok(sent) => sent.map_err(|error| lost(error.to_string())),
            Err(_) => Err(lost(format!("no verdict could be sent for {STALLED:?}"))),
        }
    }
}
