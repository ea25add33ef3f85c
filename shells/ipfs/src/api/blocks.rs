//! The commands `block/…`.

use cid::Version;
use cluster_http::rpc::{Failure, LineSender};
use futures::StreamExt;
use serde::Serialize;

use super::reply::{Reply, stream_lines};
use super::request::{Call, read_part};
use crate::Cid;
use crate::{Block, Error, PinMode, codec, hash};

/// Size limit of a block, in bytes: the largest that other nodes accept.
const BLOCK_MAX: usize = 2 * 1024 * 1024;

/// Size of the blocks stored by one database write, in bytes: large enough to make it cheap, small enough to
/// hold in memory.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

#[derive(Serialize)]
struct Stat {
    #[serde(rename = "Key")]
    key: String,
    #[serde(rename = "Size")]
    size: u64,
}

#[derive(Serialize)]
struct Removed {
    #[serde(rename = "Hash")]
    hash: String,
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    error: String,
}

/// Handles `block/get`.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    let cid = call.resolve(&call.arg(0)).await?;
    let data = call.node.get(cid).await?;
    let pieces = futures::stream::once(std::future::ready(Ok(data))).boxed();
    Ok(Reply::Content {
        kind: "application/vnd.ipld.raw",
        length: None,
        pieces,
    })
}

/// Handles `block/stat`.
pub(super) async fn stat(call: Call) -> Result<Reply, Failure> {
    let cid = call.resolve(&call.arg(0)).await?;
    let size = match call.node.size_of(&cid)? {
        Some(size) => size,
        None => call.node.get(cid).await?.len() as u64,
    };
    Reply::once(&Stat {
        key: call.format_cid(&cid),
        size,
    })
}

/// CID version, codec and hash function that `block/put` and `dag/put` use.
#[derive(Debug, Clone, Copy)]
pub(super) struct CidFormat {
    pub(super) version: Version,
    pub(super) codec: u64,
    pub(super) hash: u64,
}

/// Returns the code of a codec, given its name.
pub(super) fn codec_by_name(name: &str) -> Option<u64> {
    Some(match name {
        "raw" => codec::RAW,
        "dag-pb" | "protobuf" | "v0" => codec::DAG_PB,
        "dag-cbor" | "cbor" => codec::DAG_CBOR,
        "dag-json" => codec::DAG_JSON,
        "dag-jose" => codec::DAG_JOSE,
        "json" => 0x0200,
        "libp2p-key" => 0x72,
        _ => return None,
    })
}

/// Returns the code of a hash function, given its name.
pub(super) fn hash_by_name(name: &str) -> Result<u64, Failure> {
    hash::code_by_name(name)
        .ok_or_else(|| Failure::failed(format!("unrecognized multihash function: {name}")))
}

impl CidFormat {
    fn of(call: &Call) -> Result<Self, Failure> {
        let hash = hash_by_name(call.text("mhtype").unwrap_or("sha2-256"))?;
        let format = call.text("format").filter(|format| !format.is_empty());
        let asked = call.text("cid-codec");
        if format.is_some() && asked.is_some_and(|asked| asked != "raw") {
            let message = "unable to use \"format\" (deprecated) and a custom \"cid-codec\" at the same time";
            return Err(Failure::failed(message));
        }
        let name = format.or(asked).unwrap_or("raw");
        let codec =
            codec_by_name(name).ok_or_else(|| Failure::failed(format!("unrecognized codec: {name}")))?;
        let version = if format == Some("v0") {
            Version::V0
        } else {
            Version::V1
        };
        let form = CidFormat { version, codec, hash };
        match call.number("mhlen") {
            // Truncated hashes are insecure; Kubo's own callers send the full length.
            Some(length) if length >= 0 && !form.has_length(length) => Err(Failure::failed(format!(
                "multihash length {length} is not supported"
            ))),
            Some(_) | None => Ok(form),
        }
    }

    fn has_length(self, length: i64) -> bool {
        let full = hash::digest(self.hash, b"").map(|digest| i64::from(digest.size()));
        full.is_none_or(|full| full == length)
    }

    pub(super) fn name(self, data: &[u8]) -> Result<Cid, Failure> {
        Ok(hash::compute_cid(self.version, self.codec, self.hash, data)?)
    }
}

/// Refuses blocks that other nodes would refuse.
pub(super) fn check_size(size: usize) -> Result<(), Failure> {
    if size <= BLOCK_MAX {
        return Ok(());
    }
    Err(Failure::failed(
        "produced block is over 2MiB: big blocks can't be exchanged with other peers. consider using UnixFS \
         for automatic chunking of bigger files, or pass --allow-big-block to override",
    ))
}

/// Handles `block/put`: stores one block per part.
pub(super) async fn put(mut call: Call) -> Result<Reply, Failure> {
    let form = CidFormat::of(&call)?;
    let mut parts = call.multipart()?;
    stream_lines(move |sink| async move {
        let _guard = call.node.protect_from_gc();
        let mut group = Group {
            call,
            sink,
            blocks: Vec::new(),
            bytes: 0,
        };
        while parts.next_part().await.map_err(Failure::failed)?.is_some() {
            let data = read_part(&mut parts, BLOCK_MAX).await;
            let data = data.or_else(|_| check_size(BLOCK_MAX + 1).map(|()| Vec::new()))?;
            let cid = form.name(&data)?;
            group
                .push(Block {
                    cid,
                    data: data.into(),
                })
                .await?;
        }
        group.store().await?;
        Ok(group.call.node.sync().await?)
    })
}

struct Group {
    call: Call,
    sink: LineSender,
    blocks: Vec<Block>,
    bytes: usize,
}

impl Group {
    async fn push(&mut self, block: Block) -> Result<(), Failure> {
        self.bytes += block.data.len();
        self.blocks.push(block);
        if self.bytes >= GROUP_BYTES || self.blocks.len() >= 1024 {
            return self.store().await;
        }
        Ok(())
    }

    /// Stores the group, and then reports its blocks, so that every reported block is stored.
    async fn store(&mut self) -> Result<(), Failure> {
        self.bytes = 0;
        let blocks = std::mem::take(&mut self.blocks);
        self.call.node.put_many(blocks.clone()).await?;
        for Block { cid, data } in blocks {
            if self.call.flag("pin", false) {
                self.call
                    .node
                    .pin(cid, PinMode::Recursive, String::new(), |_| ())
                    .await?;
            }
            self.sink
                .send(&Stat {
                    key: self.call.format_cid(&cid),
                    size: data.len() as u64,
                })
                .await?;
        }
        Ok(())
    }
}

/// Handles `block/rm`.
pub(super) async fn rm(call: Call) -> Result<Reply, Failure> {
    let (force, quiet) = (call.flag("force", false), call.flag("quiet", false));
    stream_lines(move |sink| async move {
        for arg in &call.args {
            let cid = call.resolve(arg).await?;
            let error = if force || call.node.has(&cid)? {
                match call.node.delete(&cid).await {
                    Ok(()) => String::new(),
                    Err(Error::Pinned { why, .. }) => why.to_owned(),
                    Err(error) => error.to_string(),
                }
            } else {
                format!("ipld: could not find {cid}")
            };
            if !(quiet && error.is_empty()) {
                sink.send(&Removed {
                    hash: call.format_cid(&cid),
                    error,
                })
                .await?;
            }
        }
        Ok(())
    })
}
