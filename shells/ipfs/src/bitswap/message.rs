//! Encoding and framing of bitswap messages.
//!
//! This node writes a [`Message`] and reads a [`Received`]: an undecoded frame whose parts are decoded one by
//! one as they are processed. A decoded entry takes up to 24 times the two bytes of the smallest encoded one,
//! so decoding all at once would let a peer multiply the memory that it uses.

use crate::Cid;
use crate::Error;
use crate::store::BLOCK_MAX;
use crate::swarm::Charge;
use bytes::{Buf, Bytes, BytesMut};
use cid::Version;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use prost::Message as _;

/// Limit of a received frame, in bytes, from the protocol.
pub(super) const FRAME_MAX: usize = 4 << 20;
/// Maximum length of a CID in a wantlist, in bytes; Kubo's limit.
const CID_MAX: usize = 168;
/// Limit on fields of one message: wants, cancels, presences, blocks. That many fields of 32 bytes fill a
/// frame, and a CID with a SHA-256 digest alone has 34 bytes: only junk exceeds it.
const ITEMS_MAX: usize = FRAME_MAX / 32;

/// A message to be written, which fills one frame.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Message {
    #[prost(message, optional, tag = "1")]
    pub(super) wantlist: Option<Wantlist>,
    /// Blocks in the form of 1.0.0: without a CID, so SHA-256 is assumed.
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
    /// 0: the block is wanted; 1: its presence.
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
    /// 0: has the block; 1: lacks it.
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

    /// Computes the CID of the data; `None` if the prefix has a form that cannot be verified.
    pub(super) fn cid(&self) -> Option<Cid> {
        if self.data.len() > BLOCK_MAX {
            return None;
        }
        let (version, rest) = unsigned_varint::decode::u64(&self.prefix).ok()?;
        let (codec, rest) = unsigned_varint::decode::u64(rest).ok()?;
        let (hash, rest) = unsigned_varint::decode::u64(rest).ok()?;
        let (length, _) = unsigned_varint::decode::u64(rest).ok()?;
        if !crate::hash::is_known(hash) {
            return None;
        }
        let cid = crate::hash::compute_cid(Version::try_from(version).ok()?, codec, hash, &self.data).ok()?;
        (u64::from(cid.hash().size()) == length).then_some(cid)
    }
}

/// Parses a CID from a peer, if this node could have such a block.
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

/// Reads a frame's content. The buffer, and `charge` with it, grow with the bytes received, not with the
/// length announced.
pub(super) async fn read_message(
    stream: &mut (impl AsyncRead + Unpin),
    length: usize,
    charge: &mut Charge,
) -> Result<Received, Error> {
    const STEP: usize = 64 << 10;
    let mut frame = BytesMut::new();
    while frame.len() < length {
        let start = frame.len();
        if start == frame.capacity() {
            let capacity = length.min((2 * start).max(STEP));
            frame.reserve(capacity - start);
            charge.resize(frame.capacity());
        }
        frame.resize(length.min(start + STEP).min(frame.capacity()), 0);
        let read = stream.read_exact(&mut frame[start..]).await;
        read.map_err(|error| Error::io("bitswap stream", error))?;
    }
    Received::parse(frame.freeze())
}

/// A message from a peer, not decoded yet.
#[derive(Debug, Clone)]
pub(super) struct Received {
    frame: Bytes,
    /// True if the wantlist replaces the peer's earlier wants.
    pub(super) full: bool,
    /// True if the message contains blocks.
    pub(super) has_blocks: bool,
}

impl Received {
    /// Checks a frame's structure and counts its fields.
    ///
    /// # Errors
    /// The frame is not a bitswap message, or has more than [`ITEMS_MAX`] fields.
    pub(super) fn parse(frame: Bytes) -> Result<Received, Error> {
        let mut received = Received {
            frame,
            full: false,
            has_blocks: false,
        };
        // Stops at the first field too many: a frame of junk has two million.
        let mut left = ITEMS_MAX;
        let mut count = || {
            let room = left.checked_sub(1);
            left = room.ok_or_else(|| malformed(&format!("it has more than {ITEMS_MAX} fields")))?;
            Ok::<(), Error>(())
        };
        for field in Fields(received.frame.clone()) {
            let field = field?;
            count()?;
            match field {
                (1, Field::Bytes(wantlist)) => {
                    for field in Fields(wantlist) {
                        let field = field?;
                        count()?;
                        if let (2, Field::Varint(full)) = field {
                            received.full = full != 0;
                        }
                    }
                }
                (2 | 3, Field::Bytes(_)) => received.has_blocks = true,
                (_, Field::Bytes(_) | Field::Varint(_) | Field::Fixed) => {}
            }
        }
        Ok(received)
    }

    /// Returns the wants and cancels.
    pub(super) fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> + Send + use<> {
        parts(self.frame.clone(), 1).flat_map(|wantlist| {
            parts(wantlist, 1).map(|entry| Entry::decode(entry).map_err(|error| malformed(&error)))
        })
    }

    pub(super) fn presences(&self) -> impl Iterator<Item = Result<Presence, Error>> + Send + use<> {
        parts(self.frame.clone(), 4)
            .map(|presence| Presence::decode(presence).map_err(|error| malformed(&error)))
    }

    /// Returns the blocks with a CID prefix.
    pub(super) fn payload(&self) -> impl Iterator<Item = Payload> + Send + use<> {
        parts(self.frame.clone(), 3).filter_map(|payload| Payload::decode(payload).ok())
    }

    /// Returns the blocks in the form of 1.0.0.
    pub(super) fn bare(&self) -> impl Iterator<Item = Bytes> + Send + use<> {
        parts(self.frame.clone(), 2)
    }
}

fn malformed(why: &impl std::fmt::Display) -> Error {
    Error::invalid(format!("bitswap message: {why}"))
}

/// Returns the values of one field of a validated message.
fn parts(message: Bytes, number: u64) -> impl Iterator<Item = Bytes> + Send {
    Fields(message).filter_map(move |field| match field {
        Ok((found, Field::Bytes(value))) if found == number => Some(value),
        Ok(_) | Err(_) => None,
    })
}

enum Field {
    Varint(u64),
    Bytes(Bytes),
    /// A fixed-width number of four or eight bytes, which bitswap does not use.
    Fixed,
}

/// Iterator over the fields of a protobuf message, in order. Ends after an error.
struct Fields(Bytes);

impl Fields {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..10 {
            let byte = *self.0.first()?;
            self.0.advance(1);
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn bytes(&mut self, length: u64) -> Option<Bytes> {
        let length = usize::try_from(length).ok()?;
        (length <= self.0.len()).then(|| self.0.split_to(length))
    }

    fn field(&mut self) -> Option<(u64, Field)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => self.bytes(8).map(|_| Field::Fixed)?,
            2 => {
                let length = self.varint()?;
                Field::Bytes(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

impl Iterator for Fields {
    type Item = Result<(u64, Field), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0.clear();
        }
        Some(field.ok_or_else(|| malformed(&"a field is cut short or has an unknown type")))
    }
}

/// Writes one frame and flushes it. Blocks are written without copying them together, which would make
/// sending half as expensive again.
pub(super) async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &Message) -> Result<(), Error> {
    let io = |error| Error::io("bitswap stream", error);
    let (head, blocks) = frame(message);
    stream.write_all(&head).await.map_err(io)?;
    for (head, data) in blocks {
        stream.write_all(&head).await.map_err(io)?;
        stream.write_all(&data).await.map_err(io)?;
    }
    stream.flush().await.map_err(io)
}

/// Encodes a frame: its start with everything but the blocks, and each block with the bytes before it.
fn frame(message: &Message) -> (Vec<u8>, Vec<(Vec<u8>, Bytes)>) {
    let field = |out: &mut Vec<u8>, number: u8, length: usize| {
        let mut buffer = unsigned_varint::encode::usize_buffer();
        out.push(number << 3 | 2);
        out.extend_from_slice(unsigned_varint::encode::usize(length, &mut buffer));
    };
    let mut blocks = Vec::with_capacity(message.blocks.len() + message.payload.len());
    for data in &message.blocks {
        let mut head = Vec::with_capacity(8);
        field(&mut head, 2, data.len());
        blocks.push((head, data.clone()));
    }
    for Payload { prefix, data } in &message.payload {
        let mut inner = Vec::with_capacity(prefix.len() + 16);
        field(&mut inner, 1, prefix.len());
        inner.extend_from_slice(prefix);
        field(&mut inner, 2, data.len());
        let mut head = Vec::with_capacity(inner.len() + 8);
        field(&mut head, 3, inner.len() + data.len());
        head.extend_from_slice(&inner);
        blocks.push((head, data.clone()));
    }
    let rest = Message {
        wantlist: message.wantlist.clone(),
        presences: message.presences.clone(),
        pending_bytes: message.pending_bytes,
        ..Message::default()
    };
    let carried: usize = blocks.iter().map(|(head, data)| head.len() + data.len()).sum();
    let mut buffer = unsigned_varint::encode::usize_buffer();
    let length = unsigned_varint::encode::usize(rest.encoded_len() + carried, &mut buffer);
    let mut head = length.to_vec();
    head.extend_from_slice(&rest.encode_to_vec());
    (head, blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn charge() -> Charge {
        let pool = std::sync::Arc::new(crate::swarm::Pool::default());
        pool.account(libp2p::PeerId::random()).hold(0)
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            blocks in prop::collection::vec(bytes(300), 0..4),
            payload in prop::collection::vec((bytes(12), bytes(70_000)), 0..5),
            wants in prop::collection::vec((bytes(40), 0..2i32, any::<bool>()), 0..5),
            presences in prop::collection::vec((bytes(40), 0..2i32), 0..5),
            pending_bytes in any::<i32>(),
        ) {
            let entry = |(cid, want_type, cancel)| {
                let priority = 1;
                Entry { cid, priority, cancel, want_type, send_dont_have: true }
            };
            let message = Message {
                wantlist: (!wants.is_empty())
                    .then(|| Wantlist { entries: wants.into_iter().map(entry).collect(), full: false }),
                blocks,
                payload: payload.into_iter().map(|(prefix, data)| Payload { prefix, data }).collect(),
                presences: presences.into_iter().map(|(cid, kind)| Presence { cid, kind }).collect(),
                pending_bytes,
            };
            let read = futures::executor::block_on(async {
                let mut out = futures::io::Cursor::new(Vec::new());
                write(&mut out, &message).await.unwrap();
                let mut input = futures::io::Cursor::new(out.into_inner());
                let length = read_length(&mut input).await.unwrap().unwrap();
                let read = read_message(&mut input, length, &mut charge()).await.unwrap();
                assert_eq!(read_length(&mut input).await.unwrap(), None);
                let entries: Vec<Entry> = read.entries().map(Result::unwrap).collect();
                assert_eq!(read.has_blocks, !message.blocks.is_empty() || !message.payload.is_empty());
                Message {
                    wantlist: (!entries.is_empty()).then_some(Wantlist { entries, full: read.full }),
                    blocks: read.bare().collect(),
                    payload: read.payload().collect(),
                    presences: read.presences().map(Result::unwrap).collect(),
                    pending_bytes,
                }
            });
            prop_assert_eq!(read, message);
        }

        #[test]
        fn arbitrary_bytes_are_parsed_or_refused(garbage in bytes(100)) {
            futures::executor::block_on(async {
                let mut input = futures::io::Cursor::new(&garbage);
                if let Ok(Some(length)) = read_length(&mut input).await {
                    let _ = read_message(&mut input, length, &mut charge()).await;
                }
                let mut input = futures::io::Cursor::new(&garbage);
                let read = read_message(&mut input, garbage.len(), &mut charge()).await;
                if let Ok(read) = read {
                    read.entries().for_each(drop);
                    read.presences().for_each(drop);
                    read.payload().for_each(drop);
                }
            });
        }
    }

    #[test]
    fn frames_with_too_many_items_are_refused() {
        let junk = |items: usize| [0x22, 0].repeat(items);
        assert!(Received::parse(junk(ITEMS_MAX).into()).is_ok());
        let refused = Received::parse(junk(ITEMS_MAX + 1).into())
            .unwrap_err()
            .to_string();
        assert!(refused.contains("it has more than 131072 fields"), "{refused}");
    }
}
