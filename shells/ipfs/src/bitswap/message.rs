//! Bitswap's messages and their frames.

use crate::Error;
use crate::store::BLOCK_MAX;
use bytes::{Bytes, BytesMut};
use cid::{Cid, Version};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use prost::Message as _;

/// The largest message that is read; the protocol's own limit.
pub(super) const FRAME_MAX: usize = 4 << 20;
/// The longest CID in a wantlist, bytes; Kubo's limit.
const CID_MAX: usize = 168;

/// What travels in one frame.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(message, optional, tag = "1")]
    pub(super) wantlist: Option<Wantlist>,
    /// Blocks in the form of 1.0.0: no CID, so SHA-256 is assumed.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) blocks: Vec<Bytes>,
    #[prost(message, repeated, tag = "3")]
    pub(super) payload: Vec<Payload>,
    #[prost(message, repeated, tag = "4")]
    pub(super) presences: Vec<Presence>,
    #[prost(int32, tag = "5")]
    pub(super) pending_bytes: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Wantlist {
    #[prost(message, repeated, tag = "1")]
    pub(super) entries: Vec<Entry>,
    #[prost(bool, tag = "2")]
    pub(super) full: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) cid: Bytes,
    #[prost(int32, tag = "2")]
    pub(super) priority: i32,
    #[prost(bool, tag = "3")]
    pub(super) cancel: bool,
    /// 0: the block; 1: whether it is there.
    #[prost(int32, tag = "4")]
    pub(super) want_type: i32,
    #[prost(bool, tag = "5")]
    pub(super) send_dont_have: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Payload {
    /// The CID without its digest.
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) prefix: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) data: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Presence {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) cid: Bytes,
    /// 0: has it; 1: has it not.
    #[prost(int32, tag = "2")]
    pub(super) kind: i32,
}

impl Payload {
    pub(super) fn new(cid: &Cid, data: Bytes) -> Payload {
        let mut prefix = Vec::with_capacity(16);
        let version = u64::from(cid.version());
        for number in [
            version,
            cid.codec(),
            cid.hash().code(),
            u64::from(cid.hash().size()),
        ] {
            let mut buffer = unsigned_varint::encode::u64_buffer();
            prefix.extend_from_slice(unsigned_varint::encode::u64(number, &mut buffer));
        }
        Payload {
            prefix: prefix.into(),
            data,
        }
    }

    /// The CID of these very bytes; `None` when the prefix names nothing we can check.
    pub(super) fn cid(&self) -> Option<Cid> {
        if self.data.len() > BLOCK_MAX {
            return None;
        }
        let (version, rest) = unsigned_varint::decode::u64(&self.prefix).ok()?;
        let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
        let (hash, rest) = unsigned_varint::decode::u64(rest).ok()?;
        let (length, _) = unsigned_varint::decode::u64(rest).ok()?;
        crate::hash::code(hash)?;
        let cid = crate::hash::name(Version::try_from(version).ok()?, codec, hash, &self.data).ok()?;
        (u64::from(cid.hash().size()) == length).then_some(cid)
    }
}

/// A CID from a peer, if it is one we could have.
pub(super) fn cid_of(bytes: &[u8]) -> Option<Cid> {
    let cid = if bytes.len() <= CID_MAX {
        Cid::try_from(bytes).ok()?
    } else {
        return None;
    };
    (cid.hash().code() != crate::store::IDENTITY).then_some(cid)
}

/// Reads the length of the next frame; `None` at the end of the stream.
pub(super) async fn read_length(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<usize>, Error> {
    let mut length = 0usize;
    for at in 0..5 {
        let mut byte = [0];
        let read = stream
            .read(&mut byte)
            .await
            .map_err(|error| Error::io("bitswap stream", error))?;
        if read == 0 {
            return if at == 0 {
                Ok(None)
            } else {
                Err(Error::invalid("bitswap frame is cut short"))
            };
        }
        length |= usize::from(byte[0] & 0x7f) << (7 * at);
        if byte[0] & 0x80 == 0 {
            if length > FRAME_MAX {
                return Err(Error::invalid(format!(
                    "bitswap frame of {length} bytes is above {FRAME_MAX}"
                )));
            }
            return Ok(Some(length));
        }
    }
    Err(Error::invalid("bitswap frame with a malformed length"))
}

/// Reads a frame's content. The buffer grows with what arrives, not with what is announced.
pub(super) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
) -> Result<Message, Error> {
    const STEP: usize = 256 << 10;
    let mut frame = BytesMut::with_capacity(length.min(2 * STEP));
    while frame.len() < length {
        let start = frame.len();
        frame.resize(length.min(start + STEP), 0);
        let read = stream.read_exact(&mut frame[start..]).await;
        read.map_err(|error| Error::io("bitswap stream", error))?;
    }
    Message::decode(frame.freeze()).map_err(|error| Error::invalid(format!("bitswap message: {error}")))
}

/// Writes one frame and flushes it.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> Result<(), Error> {
    let frame = message.encode_length_delimited_to_vec();
    let io = |error| Error::io("bitswap stream", error);
    stream.write_all(&frame).await.map_err(io)?;
    stream.flush().await.map_err(io)
}
