//! `dag/…` and `refs`.

use futures::stream::{StreamExt, TryStreamExt};
use serde::Serialize;
use tokio_util::io::StreamReader;

use super::blocks::{Form, check_size, codec_named, hash_named};
use super::pins::pin_name;
use super::reply::{Failure, Reply, Sink, running};
use super::repo::{Link, RefLine};
use super::request::{Call, read_part};
use crate::{Block, PinMode, Ref, codec};

/// A node of a DAG is a block in the end, and JSON takes up to four times the room.
const MAX_INPUT: usize = 8 * 1024 * 1024;

/// `dag/get`.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    match call.text("output-codec").unwrap_or("dag-json") {
        "dag-json" => {}
        other => {
            return Err(Failure::failed(format!(
                "output-codec {other:?} is not supported (use dag-json)"
            )));
        }
    }
    let json = call.node.dag_get(&Call::path(call.arg())?).await?;
    let pieces = futures::stream::once(std::future::ready(Ok(json.into()))).boxed();
    Ok(Reply::Content {
        kind: "text/plain",
        length: None,
        pieces,
    })
}

#[derive(Serialize)]
struct CidLine {
    #[serde(rename = "Cid")]
    cid: Link,
}

/// `dag/put`: one node per part.
pub(super) async fn put(mut call: Call) -> Result<Reply, Failure> {
    let named =
        |name: &str| codec_named(name).ok_or_else(|| Failure::failed(format!("unrecognized codec: {name}")));
    let input = named(call.text("input-codec").unwrap_or("dag-json"))?;
    let store = named(call.text("store-codec").unwrap_or("dag-cbor"))?;
    let hash = hash_named(call.text("hash").unwrap_or("sha2-256"))?;
    let form = Form {
        version: cid::Version::V1,
        codec: store,
        hash,
    };
    let mut parts = call.multipart()?;
    running(move |sink| async move {
        let _hold = call.node.hold();
        while parts.next_part().await.map_err(Failure::failed)?.is_some() {
            let data = codec::recode(read_part(&mut parts, MAX_INPUT).await?.into(), input, store)?;
            check_size(data.len())?;
            let cid = form.name(&data)?;
            call.node.put(Block { cid, data }).await?;
            if call.flag("pin", false) {
                call.node
                    .pin(cid, PinMode::Recursive, String::new(), |_| ())
                    .await?;
            }
            call.node.sync().await?;
            sink.send(&CidLine {
                cid: Link { cid: call.show(&cid) },
            })
            .await?;
        }
        Ok(())
    })
}

#[derive(Serialize)]
struct Resolved {
    #[serde(rename = "Cid")]
    cid: Link,
    #[serde(rename = "RemPath")]
    rest: String,
}

/// `dag/resolve`.
pub(super) async fn resolve(call: Call) -> Result<Reply, Failure> {
    let resolved = call.node.resolve(&Call::path(call.arg())?).await?;
    let rest = resolved
        .remainder
        .iter()
        .map(|segment| format!("/{segment}"))
        .collect();
    Reply::once(&Resolved {
        cid: Link {
            cid: call.show(&resolved.cid),
        },
        rest,
    })
}

#[derive(Serialize)]
struct RootLine {
    #[serde(rename = "Root")]
    root: Root,
}

#[derive(Serialize)]
struct Root {
    #[serde(rename = "Cid")]
    cid: Link,
    #[serde(rename = "PinErrorMsg")]
    pin_error: String,
}

#[derive(Serialize)]
struct StatsLine {
    #[serde(rename = "Stats")]
    stats: Stats,
}

#[derive(Serialize)]
struct Stats {
    #[serde(rename = "BlockCount")]
    blocks: u64,
    #[serde(rename = "BlockBytesCount")]
    bytes: u64,
}

/// `dag/import`: one CAR per part. Roots are pinned from what is local then.
pub(super) async fn import(mut call: Call) -> Result<Reply, Failure> {
    let mut parts = call.multipart()?;
    running(move |sink| async move {
        let _hold = call.node.hold();
        let (mut roots, mut blocks, mut bytes) = (Vec::new(), 0, 0);
        while parts.next_part().await.map_err(Failure::failed)?.is_some() {
            let car = StreamReader::new(parts.content());
            let imported = call.node.dag_import(car).await;
            let (new_roots, new_blocks, new_bytes) =
                imported.map_err(|error| Failure::from(error).within("import failed: "))?;
            roots.extend(new_roots);
            (blocks, bytes) = (blocks + new_blocks, bytes + new_bytes);
        }
        if call.flag("pin-roots", true) {
            let local = call.node.offline();
            for cid in roots {
                let pinned = local.pin(cid, PinMode::Recursive, pin_name(None)?, |_| ()).await;
                let pin_error = pinned.err().map(|error| error.to_string()).unwrap_or_default();
                sink.send(&RootLine {
                    root: Root {
                        cid: Link { cid: call.show(&cid) },
                        pin_error,
                    },
                })
                .await?;
            }
        }
        if call.flag("stats", false) {
            sink.send(&StatsLine {
                stats: Stats { blocks, bytes },
            })
            .await?;
        }
        Ok(())
    })
}

/// `dag/export`.
pub(super) async fn export(call: Call) -> Result<Reply, Failure> {
    let root = call.resolve(call.arg()).await?;
    // Read first, so that a root that is nowhere is a status and not a broken archive.
    call.node.get(root).await?;
    let pieces = call.node.dag_export(root).map_err(Failure::from).boxed();
    Ok(Reply::Content {
        kind: "application/vnd.ipld.car",
        length: None,
        pieces,
    })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DagStats {
    #[serde(skip_serializing_if = "is_zero")]
    unique_blocks: u64,
    #[serde(skip_serializing_if = "is_zero")]
    total_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    shared_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f32>,
    dag_stats: Vec<DagStat>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DagStat {
    cid: String,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    num_blocks: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// `dag/stat`, of each root for itself; the sum over several counts what they share only once per root.
pub(super) async fn stat(call: Call) -> Result<Reply, Failure> {
    let progress = call.flag("progress", true);
    running(move |sink| async move {
        let mut done = Vec::new();
        let (mut blocks, mut size) = (0, 0);
        for arg in &call.args {
            let root = call.resolve(arg).await?;
            let (count, bytes) = measure(&call, root, progress.then_some(&sink)).await?;
            (blocks, size) = (blocks + count, size + bytes);
            done.push(DagStat {
                cid: call.show(&root),
                size: bytes,
                num_blocks: count,
            });
        }
        let stats = DagStats {
            unique_blocks: blocks,
            total_size: size,
            shared_size: 0,
            ratio: Some(1.0),
            dag_stats: done,
        };
        sink.send(&stats).await
    })
}

async fn measure(call: &Call, root: cid::Cid, sink: Option<&Sink>) -> Result<(u64, u64), Failure> {
    let (mut blocks, mut bytes) = (1, call.node.get(root).await?.len() as u64);
    let mut walk = call.node.refs(root, None, true);
    while let Some(Ref { to, .. }) = walk.try_next().await? {
        blocks += 1;
        bytes += match call.node.size_of(&to)? {
            Some(size) => size,
            None => call.node.get(to).await?.len() as u64,
        };
        if let Some(sink) = sink {
            let so_far = DagStat {
                cid: call.show(&root),
                size: bytes,
                num_blocks: blocks,
            };
            sink.offer(&DagStats {
                unique_blocks: 0,
                total_size: bytes,
                shared_size: 0,
                ratio: None,
                dag_stats: vec![so_far],
            });
        }
    }
    Ok((blocks, bytes))
}

/// `refs`.
pub(super) async fn refs(call: Call) -> Result<Reply, Failure> {
    let format = match (
        call.text("format").filter(|it| !it.is_empty()),
        call.flag("edges", false),
    ) {
        (Some(format), true) if format != "<dst>" => {
            return Err(Failure::failed("using format argument with edges is not allowed"));
        }
        (_, true) => "<src> -> <dst>".to_owned(),
        (format, false) => format.unwrap_or("<dst>").to_owned(),
    };
    let depth = match (call.flag("recursive", false), call.number("max-depth")) {
        (false, _) => Some(1),
        (true, Some(depth)) => u64::try_from(depth).ok(),
        (true, None) => None,
    };
    let unique = call.flag("unique", false);
    running(move |sink| async move {
        for arg in &call.args {
            if let Err(failure) = refs_of(&call, arg, depth, unique, &format, &sink).await {
                // A root that cannot be walked is told in line, and the next one is walked.
                sink.send(&RefLine {
                    text: String::new(),
                    error: failure.message().to_owned(),
                })
                .await?;
            }
        }
        Ok(())
    })
}

async fn refs_of(
    call: &Call,
    arg: &str,
    depth: Option<u64>,
    unique: bool,
    format: &str,
    sink: &Sink,
) -> Result<(), Failure> {
    let root = call.resolve(arg).await?;
    let mut walk = call.node.refs(root, depth, unique);
    while let Some(step) = walk.try_next().await? {
        let text = format
            .replace("<src>", &call.show(&step.from))
            .replace("<dst>", &call.show(&step.to))
            .replace("<linkname>", &step.name);
        sink.send(&RefLine {
            text,
            error: String::new(),
        })
        .await?;
    }
    Ok(())
}
