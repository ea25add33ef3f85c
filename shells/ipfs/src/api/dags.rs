//! The commands `dag/…` and `refs`.

use std::time::Duration;

use cluster_http::rpc::{Failure, LineSender};
use futures::stream::{StreamExt, TryStreamExt};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use tokio_util::io::StreamReader;

use super::blocks::{CidFormat, check_size, codec_by_name, hash_by_name};
use super::pins::pin_name;
use super::reply::{Reply, stream_lines};
use super::repo::{Link, RefLine};
use super::request::{Call, read_part};
use crate::dag::Visited;
use crate::unixfs::Name;
use crate::{Block, PinMode, Ref, codec};

/// Size limit of a node in `dag/put`, in bytes: a node becomes one block, and JSON is up to four times
/// larger.
const INPUT_MAX: usize = 8 * 1024 * 1024;

/// Time before the deadline of a call at which its walks are cut off, to have time for reporting that.
const TIMEOUT_HEADSTART: Duration = Duration::from_millis(50);

/// Handles `dag/get`.
pub(super) async fn get(call: Call) -> Result<Reply, Failure> {
    match call.text("output-codec").unwrap_or("dag-json") {
        "dag-json" => {}
        other => {
            return Err(Failure::failed(format!(
                "output-codec {other:?} is not supported (use dag-json)"
            )));
        }
    }
    let json = call.node.dag_get(&call.dag_path(&call.arg(0)).await?).await?;
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

/// Handles `dag/put`: stores one node per part.
pub(super) async fn put(mut call: Call) -> Result<Reply, Failure> {
    let named = |name: &str| {
        codec_by_name(name).ok_or_else(|| Failure::failed(format!("unrecognized codec: {name}")))
    };
    let input = named(call.text("input-codec").unwrap_or("dag-json"))?;
    let store = named(call.text("store-codec").unwrap_or("dag-cbor"))?;
    let hash = hash_by_name(call.text("hash").unwrap_or("sha2-256"))?;
    let form = CidFormat {
        version: cid::Version::V1,
        codec: store,
        hash,
    };
    let mut parts = call.multipart()?;
    stream_lines(move |sink| async move {
        let _guard = call.node.protect_from_gc();
        while parts.next_part().await.map_err(Failure::failed)?.is_some() {
            let data = codec::recode(read_part(&mut parts, INPUT_MAX).await?.into(), input, store)?;
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
                cid: Link {
                    cid: call.format_cid(&cid),
                },
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

/// Handles `dag/resolve`.
pub(super) async fn resolve(call: Call) -> Result<Reply, Failure> {
    let resolved = call.node.resolve(&call.dag_path(&call.arg(0)).await?).await?;
    let rest = resolved
        .remainder
        .iter()
        .map(|segment| format!("/{segment}"))
        .collect();
    Reply::once(&Resolved {
        cid: Link {
            cid: call.format_cid(&resolved.cid),
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

/// Handles `dag/import`: imports one CAR per part, then pins the roots, whose blocks must be local by then.
pub(super) async fn import(mut call: Call) -> Result<Reply, Failure> {
    let mut parts = call.multipart()?;
    stream_lines(move |sink| async move {
        let _guard = call.node.protect_from_gc();
        let (mut roots, mut blocks, mut bytes) = (Vec::new(), 0, 0);
        while parts.next_part().await.map_err(Failure::failed)?.is_some() {
            let car = StreamReader::new(parts.content());
            let imported = call.node.dag_import(car).await;
            let (new_roots, new_blocks, new_bytes) =
                imported.map_err(|error| Failure::from(error).with_prefix("import failed: "))?;
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
                        cid: Link {
                            cid: call.format_cid(&cid),
                        },
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

/// Handles `dag/export`.
pub(super) async fn export(call: Call) -> Result<Reply, Failure> {
    let root = call.resolve(&call.arg(0)).await?;
    // Read before answering, so that a missing root yields an error status, not a broken archive.
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

#[derive(Clone, Serialize)]
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

/// Handles `dag/stat`: statistics of each root, and of all together, with shared blocks counted once.
pub(super) async fn stat(call: Call) -> Result<Reply, Failure> {
    let progress = call.flag("progress", true);
    stream_lines(move |sink| async move {
        let mut stats = StatCollector::default();
        for arg in &call.args {
            let root = call.resolve(arg).await?;
            measure(&call, root, &mut stats, progress.then_some(&sink)).await?;
        }
        sink.send(&stats.summary()).await
    })
}

/// Statistics of the roots walked so far.
#[derive(Default)]
struct StatCollector {
    seen: Visited,
    unique_blocks: u64,
    total_size: u64,
    roots: Vec<DagStat>,
}

impl StatCollector {
    /// Counts a block of the last root.
    fn add(&mut self, cid: &crate::Cid, size: u64) {
        if self.seen.insert(cid) {
            self.unique_blocks += 1;
            self.total_size += size;
        }
        if let Some(root) = self.roots.last_mut() {
            root.num_blocks += 1;
            root.size += size;
        }
    }

    fn summary(self) -> DagStats {
        let each: u64 = self.roots.iter().map(|root| root.size).sum();
        DagStats {
            unique_blocks: self.unique_blocks,
            total_size: self.total_size,
            shared_size: each.saturating_sub(self.total_size),
            ratio: Some(if self.total_size == 0 {
                1.0
            } else {
                each as f32 / self.total_size as f32
            }),
            dag_stats: self.roots,
        }
    }
}

async fn measure(
    call: &Call,
    root: crate::Cid,
    stats: &mut StatCollector,
    sink: Option<&LineSender>,
) -> Result<(), Failure> {
    stats.roots.push(DagStat {
        cid: call.format_cid(&root),
        size: 0,
        num_blocks: 0,
    });
    stats.add(&root, call.node.get(root).await?.len() as u64);
    let mut walk = call.node.refs(root, None, true);
    while let Some(Ref { to, .. }) = walk.try_next().await? {
        let size = match call.node.size_of(&to)? {
            Some(size) => size,
            None => call.node.get(to).await?.len() as u64,
        };
        stats.add(&to, size);
        if let Some(sink) = sink {
            sink.try_send(&DagStats {
                unique_blocks: 0,
                total_size: stats.total_size,
                shared_size: 0,
                ratio: None,
                dag_stats: stats.roots.last().cloned().into_iter().collect(),
            });
        }
    }
    Ok(())
}

/// Handles `refs`.
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
    let deadline = call
        .timeout()?
        .and_then(|limit| Instant::now().checked_add(limit));
    // The answer as a whole has this deadline, too; Kubo, however, reports it in a line.
    let deadline = deadline.and_then(|deadline| deadline.checked_sub(TIMEOUT_HEADSTART));
    stream_lines(move |sink| async move {
        for arg in &call.args {
            let walk = refs_of(&call, arg, depth, unique, &format, &sink);
            let walked = match deadline {
                Some(deadline) => timeout_at(deadline, walk)
                    .await
                    .unwrap_or_else(|_| Err(Failure::deadline())),
                None => walk.await,
            };
            if let Err(failure) = walked {
                // Report the failure of this root in a line, and continue with the next.
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
    arg: &Name,
    depth: Option<u64>,
    unique: bool,
    format: &str,
    sink: &LineSender,
) -> Result<(), Failure> {
    let root = call.resolve(arg).await?;
    let mut walk = call.node.refs(root, depth, unique);
    while let Some(step) = walk.try_next().await? {
        let text = format
            .replace("<src>", &call.format_cid(&step.from))
            .replace("<dst>", &call.format_cid(&step.to))
            .replace("<linkname>", &step.name);
        sink.send(&RefLine {
            text,
            error: String::new(),
        })
        .await?;
    }
    Ok(())
}
