//! The receiving side of core messages: one stream per peer is read, the newest.

use std::io;
use std::sync::Arc;

use cluster_core::{Envelope, PeerId, decode, decode_up_to};
use futures::AsyncReadExt;
use futures::io::{ReadHalf, WriteHalf};
use libp2p::Stream;
use tokio_util::sync::CancellationToken;

use super::admission::Place;
use super::frame::{FRAME_MAX, FrameReader, FrameWriter, Kind, invalid};
use super::outbox::MESSAGE_MAX;
use super::shared::{OPENING_TIMEOUT, Origin, Shared};
use super::streams::Protocol;

/// Read-ahead of a core stream: as much as the sender gathers for one write.
const READ_AHEAD: usize = 64 << 10;

/// Maximum size of a hello, the first frame, in bytes.
const HELLO_MAX: usize = 1 << 10;

type Reader = FrameReader<ReadHalf<Stream>>;
type Writer = FrameWriter<WriteHalf<Stream>>;

/// Serves a core stream: answers its hello and forwards its messages until it ends.
pub(super) async fn serve(shared: Arc<Shared>, from: PeerId, stream: Stream, _place: Place) {
    let meter = shared.meters.of(Protocol::Core);
    let (reader, writer) = stream.split();
    let mut reader = FrameReader::new(reader, READ_AHEAD, HELLO_MAX, Arc::clone(&meter));
    let mut writer = FrameWriter::new(writer, meter);
    let welcomed = tokio::time::timeout(
        OPENING_TIMEOUT,
        answer_hello(&shared, &from, &mut reader, &mut writer),
    );
    match welcomed.await {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) => return,
        Ok(Err(error)) => return note_end(&shared, &from, &error),
        Err(_) => return tracing::debug!(peer = %from, "a core stream without a hello"),
    }
    reader.set_limit(FRAME_MAX);
    let (number, replaced) = take_over(&shared, &from);
    let mut members = shared.members.subscribe();
    tokio::select! {
        error = receive(&shared, &from, &mut reader) => note_end(&shared, &from, &error),
        () = replaced.cancelled() => tracing::debug!(peer = %from, "a newer core stream replaces this one"),
        () = async { drop(members.wait_for(|members| !members.contains(&from)).await) } => {
            let why = format!("peer {from} is no longer a member of cluster {}", shared.cluster());
            drop(tokio::time::timeout(OPENING_TIMEOUT, refuse(&mut writer, &why)).await);
        }
    }
    let mut inboxes = shared.inboxes.lock().expect("no panic while locked");
    if inboxes.get(&from).is_some_and(|(current, _)| *current == number) {
        inboxes.remove(&from);
    }
}

/// Reads the hello and answers it.
async fn answer_hello(
    shared: &Shared,
    from: &PeerId,
    reader: &mut Reader,
    writer: &mut Writer,
) -> io::Result<bool> {
    let Some(frame) = reader.next().await? else {
        return Ok(false);
    };
    if frame.kind != Kind::Head {
        return Err(invalid("no hello at its start"));
    }
    let origin: Origin = decode(&frame.payload).map_err(|error| invalid(error.to_string()))?;
    if let Some(why) = shared.reason_to_refuse(from, &origin) {
        shared.note_refusal(from, "core", &why);
        refuse(writer, &why).await?;
        return Ok(false);
    }
    writer.send(Kind::End, &[]).await?;
    Ok(true)
}

async fn refuse(writer: &mut Writer, why: &str) -> io::Result<()> {
    writer.send(Kind::Refused, why.as_bytes()).await?;
    writer.close().await
}

/// Makes this the peer's current stream and cancels the one before.
fn take_over(shared: &Shared, from: &PeerId) -> (u64, CancellationToken) {
    let (number, token) = (shared.number(), CancellationToken::new());
    let mut inboxes = shared.inboxes.lock().expect("no panic while locked");
    if let Some((_, older)) = inboxes.insert(from.clone(), (number, token.clone())) {
        older.cancel();
    }
    (number, token)
}

/// Forwards messages to the driver. While the driver lags behind nothing is read, and the sender's queue
/// fills up.
async fn receive(shared: &Shared, from: &PeerId, reader: &mut Reader) -> io::Error {
    // Parts of a message that have arrived so far.
    let mut parts: Vec<u8> = Vec::new();
    loop {
        let frame = match reader.next().await {
            Ok(Some(frame)) if matches!(frame.kind, Kind::Data | Kind::Part) => frame,
            Ok(Some(frame)) => return invalid(format!("a frame out of place: {:?}", frame.kind)),
            Ok(None) => return io::ErrorKind::UnexpectedEof.into(),
            Err(error) => return error,
        };
        let message = if frame.kind == Kind::Part || !parts.is_empty() {
            if parts.len() + frame.payload.len() > MESSAGE_MAX {
                return invalid(format!("a message of more than {MESSAGE_MAX} bytes"));
            }
            parts.extend_from_slice(&frame.payload);
            if frame.kind == Kind::Part {
                continue;
            }
            std::mem::take(&mut parts).into()
        } else {
            frame.payload
        };
        let envelope: Envelope = match decode_up_to(shared.own_version, &message) {
            Ok(envelope) => envelope,
            Err(error) => return invalid(error.to_string()),
        };
        if shared
            .core
            .received(from.clone(), envelope, message.len())
            .await
            .is_err()
        {
            return io::Error::other("the driver has ended");
        }
    }
}

/// Logs the end of a stream, and counts it as malformed if the peer violated the protocol.
fn note_end(shared: &Shared, from: &PeerId, error: &io::Error) {
    if error.kind() == io::ErrorKind::InvalidData {
        shared.note_malformed(from, "core", error);
    } else {
        tracing::debug!(peer = %from, "a core stream ended: {error}");
    }
}
