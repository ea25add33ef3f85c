//! The caller's side of a call.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use cluster_core::{PeerId, encode};
use futures::AsyncReadExt;
use futures::io::{ReadHalf, WriteHalf};
use libp2p::Stream;
use tokio::time::Instant;

use super::{CHUNK_MAX, Deadline, Head, METHOD_MAX, READ_AHEAD, REQUEST_MAX};
use crate::net::admission::Place;
use crate::net::error::CallError;
use crate::net::frame::{FrameReader, FrameWriter, Kind};
use crate::net::losses::LossLog;
use crate::net::shared::Shared;
use crate::net::streams::Protocol;

/// Peer, method and deadline of a call, for its errors.
#[derive(Debug, Clone)]
struct Subject {
    peer: PeerId,
    method: String,
    deadline: Deadline,
    /// Latest end, for [`Deadline::Within`].
    end: Instant,
}

impl Subject {
    fn lost(&self, why: impl ToString) -> CallError {
        CallError::Lost {
            peer: self.peer.clone(),
            method: self.method.clone(),
            why: why.to_string(),
        }
    }

    fn refused(&self, why: String) -> CallError {
        CallError::Refused {
            peer: self.peer.clone(),
            method: self.method.clone(),
            why,
        }
    }

    /// Runs one step of the call within its deadline.
    async fn in_time<T>(&self, step: impl Future<Output = T>) -> Result<T, CallError> {
        let end = match self.deadline {
            Deadline::Within(_) => self.end,
            Deadline::Silence(length) => Instant::now() + length,
        };
        tokio::time::timeout_at(end, step)
            .await
            .map_err(|_| CallError::Late {
                peer: self.peer.clone(),
                method: self.method.clone(),
                after: self.deadline.length(),
            })
    }
}

/// The peer's answers to a call. Dropping it, and its [`CallSender`] if it has one, cancels the call.
pub struct Call {
    subject: Subject,
    reader: FrameReader<ReadHalf<Stream>>,
    over: bool,
    _place: Place,
}

/// The uploading side of a call.
pub struct CallSender {
    subject: Subject,
    writer: FrameWriter<WriteHalf<Stream>>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Call").field(&self.subject).finish()
    }
}

impl std::fmt::Debug for CallSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("CallSender").field(&self.subject).finish()
    }
}

/// Opens a stream and sends the request.
pub(in crate::net) async fn open(
    shared: &Arc<Shared>,
    peer: &PeerId,
    method: &str,
    request: &[u8],
    deadline: Deadline,
    upload: bool,
) -> Result<(Option<CallSender>, Call), CallError> {
    let subject = Subject {
        peer: peer.clone(),
        method: method.to_owned(),
        deadline,
        end: Instant::now() + deadline.length(),
    };
    if request.len() > REQUEST_MAX || method.len() > METHOD_MAX {
        let size = request.len();
        let why =
            format!("a request of {size} bytes for {method:?} is too long, at most {REQUEST_MAX} are sent");
        return Err(CallError::Invalid(why));
    }
    let place = shared.outbound.admit(peer, Protocol::Rpc, true).map_err(|why| {
        LossLog::count(&shared.losses.overloaded);
        subject.refused(why)
    })?;
    let unreachable = |why| CallError::Unreachable {
        peer: peer.clone(),
        why,
    };
    let opening = async { shared.link(peer).await?.open(Protocol::Rpc).await };
    let stream = subject.in_time(opening).await?.map_err(unreachable)?;
    let meter = shared.meters.of(Protocol::Rpc);
    let (reader, writer) = stream.split();
    let reader = FrameReader::new(reader, READ_AHEAD, CHUNK_MAX, Arc::clone(&meter));
    let mut writer = FrameWriter::new(writer, meter);
    let head = encode(&Head {
        origin: shared.origin(),
        method: method.to_owned(),
    });
    let ask = async {
        writer.push(Kind::Head, &head);
        writer.push(Kind::Data, request);
        if !upload {
            writer.push(Kind::End, &[]);
        }
        writer.flush().await
    };
    let asked: io::Result<()> = subject.in_time(ask).await?;
    let mut call = Call {
        subject: subject.clone(),
        reader,
        over: false,
        _place: place,
    };
    if let Err(error) = asked {
        // The peer may have sent its reason before it closed the stream.
        return match call.next().await {
            Some(Err(why)) => Err(why),
            Some(Ok(_)) | None => Err(subject.lost(error)),
        };
    }
    if upload {
        return Ok((Some(CallSender { subject, writer }), call));
    }
    Ok((None, call))
}

impl Call {
    /// Reads the next chunk of the answer; `None` after the last. After an error, always `None`.
    ///
    /// # Errors
    /// [`CallError`] when the peer fails or refuses the call, is lost, or exceeds the deadline.
    pub async fn next(&mut self) -> Option<Result<Bytes, CallError>> {
        if self.over {
            return None;
        }
        let frame = self.subject.in_time(self.reader.next()).await;
        let error = match frame {
            Ok(Ok(Some(frame))) => match frame.kind {
                Kind::Data => return Some(Ok(frame.payload)),
                Kind::End => {
                    self.over = true;
                    return None;
                }
                Kind::Failed => CallError::Failed(frame.text()),
                Kind::Refused => self.subject.refused(frame.text()),
                Kind::Head | Kind::Part => self.subject.lost("a frame out of place"),
            },
            Ok(Ok(None)) => self.subject.lost("it gave up without an answer"),
            Ok(Err(error)) => self.subject.lost(error),
            Err(late) => late,
        };
        self.over = true;
        Some(Err(error))
    }

    /// Reads an answer of exactly one chunk.
    ///
    /// # Errors
    /// As [`Call::next`], and [`CallError::Lost`] for no chunk or more than one.
    pub async fn only(mut self) -> Result<Bytes, CallError> {
        let first = self
            .next()
            .await
            .unwrap_or_else(|| Err(self.subject.lost("an empty answer")))?;
        match self.next().await {
            None => Ok(first),
            Some(Ok(_)) => Err(self.subject.lost("more than one answer")),
            Some(Err(error)) => Err(error),
        }
    }

    /// Waits for the end of a call whose answer has no chunks.
    ///
    /// # Errors
    /// As [`Call::next`], and [`CallError::Lost`] for a chunk.
    pub async fn done(mut self) -> Result<(), CallError> {
        match self.next().await {
            None => Ok(()),
            Some(Ok(_)) => Err(self.subject.lost("an answer where none was asked for")),
            Some(Err(error)) => Err(error),
        }
    }
}

impl CallSender {
    /// Sends a chunk of at most [`CHUNK_MAX`] bytes, once the peer has read enough of the earlier ones.
    ///
    /// # Errors
    /// [`CallError::Invalid`] for a longer chunk, [`CallError::Late`] after the deadline, and
    /// [`CallError::Lost`], upon which [`Call::next`] has the peer's reason, if it sent one.
    pub async fn send(&mut self, chunk: &[u8]) -> Result<(), CallError> {
        self.send_pieces(&[chunk]).await
    }

    /// As [`CallSender::send`], for a chunk in pieces, of which the long ones are not copied together.
    ///
    /// # Errors
    /// As [`CallSender::send`].
    pub async fn send_pieces(&mut self, pieces: &[impl AsRef<[u8]>]) -> Result<(), CallError> {
        let size: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        if size > CHUNK_MAX {
            return Err(CallError::Invalid(format!(
                "a chunk of {size} bytes is too long, at most {CHUNK_MAX} are sent"
            )));
        }
        let sending = self.writer.send_pieces(Kind::Data, pieces);
        let sent = self.subject.in_time(sending).await?;
        sent.map_err(|error| self.subject.lost(error))
    }

    /// Ends the upload. A sender that is dropped without it leaves the peer waiting for more until the
    /// [`Call`] is dropped too.
    ///
    /// # Errors
    /// As [`CallSender::send`].
    pub async fn end(mut self) -> Result<(), CallError> {
        let sent = self.subject.in_time(self.writer.send(Kind::End, &[])).await?;
        sent.map_err(|error| self.subject.lost(error))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn subject(deadline: Deadline) -> Subject {
        Subject {
            peer: PeerId::from_bytes(&[[0x00, 0x24, 0x08, 0x01, 0x12, 0x20].as_slice(), &[1; 32]].concat())
                .unwrap(),
            method: "slow".to_owned(),
            deadline,
            end: Instant::now() + deadline.length(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn steps_share_the_deadline_of_their_call() {
        let subject = subject(Deadline::Within(4 * SECOND));
        for _ in 0..3 {
            subject.in_time(sleep(SECOND)).await.unwrap();
        }
        let late = subject.in_time(sleep(2 * SECOND)).await;
        assert!(matches!(late, Err(CallError::Late { after, .. }) if after == 4 * SECOND));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_deadline_restarts_with_each_step() {
        let subject = subject(Deadline::Silence(2 * SECOND));
        for _ in 0..9 {
            subject.in_time(sleep(SECOND)).await.unwrap();
        }
        let late = subject.in_time(sleep(3 * SECOND)).await;
        assert!(matches!(late, Err(CallError::Late { after, .. }) if after == 2 * SECOND));
    }
}
