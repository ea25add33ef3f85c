//! The commands `repo/…` and `refs/local`.

use cluster_http::rpc::Failure;
use futures::stream::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::reply::{Reply, stream_lines};
use super::request::Call;
use crate::Cid;
use crate::{Block, Collected, hash};

/// A CID in the JSON form of Go's types.
#[derive(Serialize)]
pub(super) struct Link {
    #[serde(rename = "/")]
    pub(super) cid: String,
}

#[derive(Serialize)]
pub(super) struct RefLine {
    #[serde(rename = "Ref")]
    pub(super) text: String,
    #[serde(rename = "Err")]
    pub(super) error: String,
}

/// Handles `refs/local`.
pub(super) async fn local_refs(call: Call) -> Result<Reply, Failure> {
    let refs = call.node.local_refs().map_err(Failure::from);
    Reply::objects(refs.map_ok(move |cid| RefLine {
        text: call.format_cid(&cid),
        error: String::new(),
    }))
}

#[derive(Serialize)]
struct Stat {
    #[serde(rename = "RepoSize")]
    size: u64,
    #[serde(rename = "StorageMax")]
    storage_max: u64,
    #[serde(rename = "NumObjects")]
    objects: u64,
    #[serde(rename = "RepoPath")]
    path: String,
    #[serde(rename = "Version")]
    version: String,
}

/// Handles `repo/stat`.
pub(super) async fn stat(call: Call) -> Result<Reply, Failure> {
    let stat = call.node.stat()?;
    let full = !call.flag("size-only", false);
    Reply::once(&Stat {
        size: stat.repo_size,
        storage_max: stat.storage_fits,
        objects: if full { stat.num_objects } else { 0 },
        path: if full {
            stat.path.display().to_string()
        } else {
            String::new()
        },
        version: if full { stat.version } else { String::new() },
    })
}

#[derive(Default, Serialize)]
struct GcLine {
    #[serde(rename = "Key")]
    key: Option<Link>,
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    error: String,
    /// Bytes of disk freed by the collection, sent with the last key. Kubo has no such field, and its clients
    /// ignore it; they would take a separate line for a key.
    #[serde(rename = "FreedBytes", skip_serializing_if = "Option::is_none")]
    freed: Option<u64>,
}

/// Handles `repo/gc`.
pub(super) async fn gc(call: Call) -> Result<Reply, Failure> {
    let silent = call.flag("silent", false);
    let stream_errors = call.flag("stream-errors", false);
    stream_lines(move |sink| async move {
        let mut collected = call.node.gc();
        let mut last: Option<GcLine> = None;
        while let Some(step) = collected.next().await {
            let next = match step {
                Ok(Collected::Removed(_)) if silent => None,
                Ok(Collected::Removed(cid)) => Some(GcLine {
                    key: Some(Link {
                        cid: call.format_cid(&cid),
                    }),
                    ..GcLine::default()
                }),
                Ok(Collected::Freed { bytes }) => {
                    last.iter_mut().for_each(|line| line.freed = Some(bytes));
                    None
                }
                Err(error) if stream_errors => {
                    if let Some(line) = last.take() {
                        sink.send(&line).await?;
                    }
                    let error = error.to_string();
                    sink.send(&GcLine {
                        error,
                        ..GcLine::default()
                    })
                    .await?;
                    return Err(Failure::failed("encountered errors during gc run"));
                }
                Err(error) => return Err(error.into()),
            };
            if let Some(next) = next
                && let Some(line) = last.replace(next)
            {
                sink.send(&line).await?;
            }
        }
        match last {
            Some(line) => sink.send(&line).await,
            None => Ok(()),
        }
    })
}

#[derive(Serialize)]
struct Version {
    #[serde(rename = "Version")]
    version: String,
}

/// Handles `repo/version`.
pub(super) async fn version(call: Call) -> Result<Reply, Failure> {
    let version = call.node.stat()?.version;
    let number = version.strip_prefix("fs-repo@").unwrap_or(&version);
    Reply::once(&Version {
        version: number.to_owned(),
    })
}

#[derive(Serialize)]
struct Verified {
    #[serde(rename = "Msg")]
    message: String,
    #[serde(rename = "Progress")]
    progress: u64,
}

/// Handles `repo/verify`: reads and hashes every block.
pub(super) async fn verify(call: Call) -> Result<Reply, Failure> {
    stream_lines(move |sink| async move {
        let (mut seen, mut corrupt) = (0, 0);
        let mut refs = call.node.local_refs();
        while let Some(cid) = refs.try_next().await? {
            seen += 1;
            let node = call.node.clone();
            let checked = tokio::task::spawn_blocking(move || check(&node, cid));
            let fault = checked.await.map_err(|_| Failure::failed("an error occurred"))?;
            if let Some(fault) = fault {
                corrupt += 1;
                let message = format!("block {cid} was corrupt ({fault})");
                sink.send(&Verified { message, progress: 0 }).await?;
            }
            sink.try_send(&Verified {
                message: String::new(),
                progress: seen,
            });
        }
        if corrupt > 0 {
            return Err(Failure::failed(format!(
                "verify complete, {corrupt} blocks corrupt"
            )));
        }
        let message = "verify complete, all blocks validated.".to_owned();
        sink.send(&Verified { message, progress: 0 }).await
    })
}

/// Returns the fault of a block. A missing one was collected in the meantime, which is no fault.
fn check(node: &crate::Node, cid: Cid) -> Option<crate::Error> {
    match node.get_local(&cid) {
        Ok(None) => None,
        Ok(Some(data)) => {
            let fault = hash::verify(&Block { cid, data }).err();
            if fault.is_some() {
                node.note_damaged(&cid);
            }
            fault
        }
        Err(error) => Some(error),
    }
}
