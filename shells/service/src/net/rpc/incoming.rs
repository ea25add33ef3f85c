//! The called side of a call.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cluster_core::{ClusterId, PeerId, decode, encode};
use futures::AsyncReadExt;
use futures::io::{ReadHalf, WriteHalf};
use libp2p::Stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{CHUNK_MAX, Head, METHOD_MAX, READ_AHEAD, REQUEST_MAX, STRANGER_REQUEST_MAX, decode_value};
use crate::net::admission::Place;
use crate::net::error::CallError;
use crate::net::frame::{Frame, FrameReader, FrameWriter, Kind, invalid};
use crate::net::losses::LossLog;
use crate::net::shared::{OPENING_TIMEOUT, Shared};
use crate::net::streams::Protocol;

/// Time that [`Incoming::deliver`] gives the caller to read an answer: callers give up earlier.
const DELIVERY: Duration = Duration::from_secs(5);

/// Time without reading after which a caller is considered gone, and its call ends.
const STALLED: Duration = Duration::from_secs(120);

/// Maximum length of an error text sent to the caller, in bytes.
const ERROR_MAX: usize = 4 << 10;

/// A peer's call. Dropping it without [`Incoming::finish`] fails it at the caller.
#[derive(Debug)]
pub struct Incoming {
    /// The caller; proven by the handshake. A member, unless the method is open.
    pub from: PeerId,
    /// The cluster that the caller believes to be in; this peer's, unless the method is open.
    pub cluster: ClusterId,
    /// Name of the method.
    pub method: String,
    /// The encoded request.
    pub request: Bytes,
    body: Body,
    responder: Responder,
}

/// The caller's upload.
pub struct Body {
    reader: FrameReader<ReadHalf<Stream>>,
    ended: bool,
}

/// Sending end of a call's answer.
pub struct Responder {
    writer: FrameWriter<WriteHalf<Stream>>,
    _place: Place,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

/// Reads the head and the request, and queues the call.
pub(in crate::net) async fn serve(
    shared: Arc<Shared>,
    from: PeerId,
    stream: Stream,
    place: Result<Place, String>,
) {
    let meter = shared.meters.of(Protocol::Rpc);
    let (reader, writer) = stream.split();
    let reader = FrameReader::new(reader, READ_AHEAD, METHOD_MAX + 64, Arc::clone(&meter));
    let writer = FrameWriter::new(writer, meter);
    let taken = tokio::time::timeout(OPENING_TIMEOUT, take(&shared, &from, reader, writer, place)).await;
    let call = match taken {
        Ok(Ok(Some(call))) => call,
        Ok(Ok(None)) => return,
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            return shared.note_malformed(&from, "rpc", &error);
        }
        Ok(Err(error)) => return tracing::debug!(peer = %from, "a call broke off: {error}"),
        Err(_) => return tracing::debug!(peer = %from, "a call without a request"),
    };
    // The queue has room for as many calls as may be open, so this fails only when its receiver is gone.
    if let Err(error) = shared.calls.try_send(call) {
        LossLog::count(&shared.losses.overloaded);
        let mut call = match error {
            tokio::sync::mpsc::error::TrySendError::Full(call) => call,
            tokio::sync::mpsc::error::TrySendError::Closed(call) => call,
        };
        let why = "it accepts no calls at the moment, try again later";
        drop(refuse(&mut call.responder.writer, why).await);
    }
}

async fn take(
    shared: &Shared,
    from: &PeerId,
    mut reader: FrameReader<ReadHalf<Stream>>,
    mut writer: FrameWriter<WriteHalf<Stream>>,
    place: Result<Place, String>,
) -> io::Result<Option<Incoming>> {
    let Some(frame) = reader.next().await? else {
        return Ok(None);
    };
    let head: Head = match frame.kind {
        Kind::Head => decode(&frame.payload).map_err(|error| invalid(error.to_string()))?,
        Kind::Data | Kind::End | Kind::Failed | Kind::Part | Kind::Refused => {
            return Err(invalid("no head at its start"));
        }
    };
    if !shared.open_methods.contains(&head.method)
        && let Some(why) = shared.reason_to_refuse(from, &head.origin)
    {
        shared.note_refusal(from, "rpc", &why);
        refuse(&mut writer, &why).await?;
        return Ok(None);
    }
    let place = match place {
        Ok(place) => place,
        Err(why) => {
            LossLog::count(&shared.losses.overloaded);
            refuse(&mut writer, &why).await?;
            return Ok(None);
        }
    };
    let limit = if shared.is_member(from) {
        REQUEST_MAX
    } else {
        STRANGER_REQUEST_MAX
    };
    reader.set_limit(limit);
    let Some(frame) = reader.next().await? else {
        return Ok(None);
    };
    if frame.kind != Kind::Data {
        return Err(invalid("a head without a request"));
    }
    reader.set_limit(CHUNK_MAX);
    Ok(Some(Incoming {
        from: from.clone(),
        cluster: head.origin.cluster,
        method: head.method,
        request: frame.payload,
        body: Body { reader, ended: false },
        responder: Responder {
            writer,
            _place: place,
        },
    }))
}

/// Sends a refusal. The stream is closed by being dropped.
async fn refuse(writer: &mut FrameWriter<WriteHalf<Stream>>, why: &str) -> io::Result<()> {
    writer.send(Kind::Refused, why.as_bytes()).await
}

impl Incoming {
    /// Decodes the request.
    ///
    /// # Errors
    /// [`CallError::Invalid`] when it is no `T`.
    pub fn request_as<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        decode_value(&self.request)
    }

    /// Reads the next chunk of the upload, see [`Body::next`].
    ///
    /// # Errors
    /// As [`Body::next`].
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        self.body.next().await
    }

    /// Sends a chunk of the answer, see [`Responder::respond`].
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub async fn respond(&mut self, chunk: &[u8]) -> Result<(), CallError> {
        self.responder.respond(chunk).await
    }

    /// As [`Incoming::respond`], encoded.
    ///
    /// # Errors
    /// As [`Responder::respond`].
    pub async fn respond_as<T: Serialize>(&mut self, value: &T) -> Result<(), CallError> {
        self.responder.respond(&encode(value)).await
    }

    /// Ends the call. An error in `outcome` is sent to the caller.
    ///
    /// # Errors
    /// As [`Responder::finish`].
    pub async fn finish(mut self, outcome: Result<(), String>) -> Result<(), CallError> {
        let finished = self.responder.finish_with(outcome).await;
        // An upload that was not read to its end is cut off by dropping the stream.
        if self.body.ended {
            drop(self.responder.writer.close().await);
        }
        finished
    }

    /// Ends the call, and waits until the caller has read the answer, at most five seconds: for answers after
    /// which this peer closes its connections.
    ///
    /// # Errors
    /// As [`Responder::finish`].
    pub async fn deliver(mut self) -> Result<(), CallError> {
        self.responder.finish_with(Ok(())).await?;
        // The caller drops its end of the stream when it has read the answer.
        drop(tokio::time::timeout(DELIVERY, self.body.cancelled()).await);
        Ok(())
    }

    /// Waits until the caller is gone or has cancelled. An upload is discarded meanwhile, so this is for
    /// calls without one, beside their work in a `select!`.
    pub async fn cancelled(&mut self) {
        self.body.cancelled().await;
    }

    /// Splits both directions, for answers that flow during an upload.
    pub fn split(self) -> (Body, Responder) {
        (self.body, self.responder)
    }
}

impl Body {
    /// Reads the next chunk; `None` after the last. Cancel-safe.
    ///
    /// # Errors
    /// [`CallError::Invalid`] when the caller is gone before the last chunk.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        if self.ended {
            return None;
        }
        let why = match self.reader.next().await {
            Ok(Some(Frame {
                kind: Kind::Data,
                payload,
            })) => return Some(Ok(payload)),
            Ok(Some(Frame { kind: Kind::End, .. })) => {
                self.ended = true;
                return None;
            }
            Ok(Some(frame)) => format!("a frame out of place: {:?}", frame.kind),
            Ok(None) => "the caller has disconnected".to_owned(),
            Err(error) => error.to_string(),
        };
        self.ended = true;
        Some(Err(CallError::Invalid(format!("the upload broke off: {why}"))))
    }

    /// See [`Incoming::cancelled`].
    pub async fn cancelled(&mut self) {
        while let Ok(Some(frame)) = self.reader.next().await {
            self.ended |= frame.kind == Kind::End;
        }
    }
}

impl Responder {
    /// Sends a chunk of at most [`CHUNK_MAX`] bytes, once the caller has read enough of the earlier ones.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a longer chunk, and when the caller is gone: the work can stop.
    pub async fn respond(&mut self, chunk: &[u8]) -> Result<(), CallError> {
        if chunk.len() > CHUNK_MAX {
            let size = chunk.len();
            return Err(CallError::Invalid(format!(
                "a chunk of {size} bytes is too long, at most {CHUNK_MAX} are sent"
            )));
        }
        self.write(Kind::Data, chunk).await
    }

    /// Ends the call. An error in `outcome` is sent to the caller.
    ///
    /// # Errors
    /// [`CallError::Invalid`] when the caller is gone.
    pub async fn finish(mut self, outcome: Result<(), String>) -> Result<(), CallError> {
        self.finish_with(outcome).await
    }

    async fn finish_with(&mut self, outcome: Result<(), String>) -> Result<(), CallError> {
        match outcome {
            Ok(()) => self.write(Kind::End, &[]).await,
            Err(mut why) => {
                why.truncate(why.floor_char_boundary(ERROR_MAX));
                self.write(Kind::Failed, why.as_bytes()).await
            }
        }
    }

    async fn write(&mut self, kind: Kind, payload: &[u8]) -> Result<(), CallError> {
        let gone = |why: String| CallError::Invalid(format!("the caller has disconnected: {why}"));
        match tokio::time::timeout(STALLED, self.writer.send(kind, payload)).await {
            Ok(sent) => sent.map_err(|error| gone(error.to_string())),
            Err(_) => Err(gone(format!("it has read nothing for {STALLED:?}"))),
        }
    }
}
