//! Sends provider and value records to chosen DHT servers.
//!
//! `libp2p-kad` can announce only to the closest peers of one key at a time, with confirmed external
//! addresses only, and does not report receipt. Here one stream carries all records for a server. A server
//! that rejects a record resets the stream, and one that stores them closes it after this node has closed its
//! side.

use super::{LAN_PROTOCOL, PUBLIC_PROTOCOL};
use crate::swarm::addresses::Scope;
use futures::{AsyncReadExt, AsyncWriteExt};
use libp2p::swarm::{Stream, StreamProtocol};
use libp2p::{Multiaddr, PeerId};
use prost::Message as _;
use std::time::Duration;
use tokio::time::timeout;

/// Time limit of sending records to one server and of its acknowledgement.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit on the bytes of a reply, which repeats the record.
const REPLY_MAX: u64 = 16 << 10;
/// Numbers of the message types.
const PUT_VALUE: i32 = 0;
const ADD_PROVIDER: i32 = 2;

/// Message of the [Kademlia protocol](https://github.com/libp2p/specs/blob/master/kad-dht/README.md).
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    record: Option<WireRecord>,
    #[prost(message, repeated, tag = "9")]
    providers: Vec<WirePeer>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireRecord {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WirePeer {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    addresses: Vec<Vec<u8>>,
}

/// Failure to send records to a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No stream could be opened.
    #[error("no stream: {0}")]
    Open(#[from] libp2p_stream::OpenStreamError),
    /// Writing failed, or the server reset the stream.
    #[error("refused or lost: {0}")]
    Io(#[from] std::io::Error),
    /// The server was too slow.
    #[error("no acknowledgement within {SEND_TIMEOUT:?}")]
    TimedOut,
    /// The reply is not that of the protocol.
    #[error("invalid reply")]
    Reply,
}

fn protocol(scope: Scope) -> StreamProtocol {
    StreamProtocol::new(match scope {
        Scope::Public => PUBLIC_PROTOCOL,
        Scope::Local | Scope::Machine => LAN_PROTOCOL,
    })
}

async fn within<T>(sending: impl Future<Output = Result<T, SendError>>) -> Result<T, SendError> {
    timeout(SEND_TIMEOUT, sending)
        .await
        .map_err(|_| SendError::TimedOut)?
}

/// Announces to a server that `provider`, this node, has the blocks of these multihashes.
pub(crate) async fn add_providers(
    mut control: libp2p_stream::Control,
    (server, scope): (PeerId, Scope),
    keys: &[Vec<u8>],
    provider: PeerId,
    addresses: &[Multiaddr],
) -> Result<(), SendError> {
    let provider = WirePeer {
        id: provider.to_bytes(),
        addresses: addresses.iter().map(Multiaddr::to_vec).collect(),
    };
    within(async {
        let mut stream = control.open_stream(server, protocol(scope)).await?;
        for key in keys {
            let message = Message {
                kind: ADD_PROVIDER,
                key: key.clone(),
                record: None,
                providers: vec![provider.clone()],
            };
            stream
                .write_all(&message.encode_length_delimited_to_vec())
                .await?;
        }
        stream.close().await?;
        // Nothing is sent in reply: the end of the stream is the acknowledgement.
        let _surplus = stream.read(&mut [0]).await?;
        Ok(())
    })
    .await
}

/// Stores a value at a server.
pub(crate) async fn put_value(
    mut control: libp2p_stream::Control,
    (server, scope): (PeerId, Scope),
    key: &[u8],
    value: &[u8],
) -> Result<(), SendError> {
    let message = Message {
        kind: PUT_VALUE,
        key: key.to_vec(),
        record: Some(WireRecord {
            key: key.to_vec(),
            value: value.to_vec(),
        }),
        providers: Vec::new(),
    };
    within(async {
        let mut stream = control.open_stream(server, protocol(scope)).await?;
        stream
            .write_all(&message.encode_length_delimited_to_vec())
            .await?;
        stream.flush().await?;
        let reply = read_reply(&mut stream).await?;
        stream.close().await?;
        let stored = reply.record.is_some_and(|record| record.value == value);
        if stored { Ok(()) } else { Err(SendError::Reply) }
    })
    .await
}

async fn read_reply(stream: &mut Stream) -> Result<Message, SendError> {
    let length = unsigned_varint::aio::read_u64(&mut *stream).await;
    let length = length.map_err(|_| SendError::Reply)?;
    if length > REPLY_MAX {
        return Err(SendError::Reply);
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| SendError::Reply)?];
    stream.read_exact(&mut bytes).await?;
    Message::decode(&bytes[..]).map_err(|_| SendError::Reply)
}
