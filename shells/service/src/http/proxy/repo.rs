//! `repo/stat` and `repo/gc`, over all members as if they were one node.

use axum::body::Body;
use axum::http::Response;
use cluster_http::rpc::{Failure, stream_lines};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Proxy;
use super::call::Call;
use super::kubo_response::{json_lines, json_object};
use crate::cluster::Collected;

/// Batches of steps that wait to be sent.
const BATCHES: usize = 1;

/// Maximum number of errors joined in the final message.
const ERRORS_MAX: usize = 16;

/// The response to `repo/stat`, in Kubo's order.
#[derive(Serialize, Deserialize)]
struct Stat {
    #[serde(rename = "RepoSize")]
    size: u64,
    #[serde(rename = "StorageMax")]
    storage_max: u64,
    #[serde(rename = "NumObjects", default)]
    objects: u64,
    #[serde(rename = "RepoPath", default)]
    path: String,
    #[serde(rename = "Version", default)]
    version: String,
}

/// Answers `repo/stat`: the node's own response, with the sizes of the other members added.
pub(super) async fn stat(proxy: &Proxy, call: Call) -> Result<Response<Body>, Failure> {
    let size_only = call.options.flag(&["size-only", "s"], false)?;
    // All members count their blocks at the same time.
    let path = format!("/api/v0/repo/stat?size-only={size_only}");
    let own = proxy.upstream.object::<Stat>(&path, &call.credentials);
    let others = async { Ok(proxy.cluster.other_repositories(!size_only).await?) };
    let (mut stat, others) = tokio::try_join!(own, others)?;
    stat.size = stat.size.saturating_add(others.size);
    stat.storage_max = stat.storage_max.saturating_add(others.storage_max);
    stat.objects = stat.objects.saturating_add(others.objects);
    Ok(json_object(&stat))
}

/// A CID as Go's types show it within JSON.
#[derive(Serialize)]
struct Link {
    #[serde(rename = "/")]
    cid: String,
}

#[derive(Default, Serialize)]
struct Line {
    #[serde(rename = "Key")]
    key: Option<Link>,
    #[serde(rename = "Error", skip_serializing_if = "String::is_empty")]
    error: String,
    /// Bytes of disk that all members freed, in the last line with a key.
    #[serde(rename = "FreedBytes", skip_serializing_if = "Option::is_none")]
    freed: Option<u64>,
}

/// Answers `repo/gc`.
pub(super) async fn gc(proxy: &Proxy, call: Call) -> Result<Response<Body>, Failure> {
    let stream_errors = call.options.flag(&["stream-errors"], false)?;
    let silent = call.options.flag(&["silent"], false)? && !stream_errors;
    let cluster = proxy.cluster.clone();
    let lines = stream_lines(move |sink| async move {
        let (out, mut steps) = mpsc::channel(BATCHES);
        let collect = async move { cluster.collect_everywhere(out).await };
        let send = async {
            let (mut errors, mut failed) = (Vec::new(), false);
            let (mut last, mut freed) = (None::<Line>, None::<u64>);
            while let Some(batch) = steps.recv().await {
                for step in batch {
                    let line = match step {
                        Collected::Freed(bytes) => {
                            freed = Some(freed.unwrap_or(0).saturating_add(bytes));
                            continue;
                        }
                        Collected::Failed(error) if stream_errors => {
                            failed = true;
                            sink.send(&Line {
                                error,
                                ..Line::default()
                            })
                            .await?;
                            continue;
                        }
                        Collected::Failed(error) => {
                            failed = true;
                            if errors.len() < ERRORS_MAX {
                                errors.push(error);
                            }
                            continue;
                        }
                        Collected::Removed(_) if silent => continue,
                        Collected::Removed(cid) => Line {
                            key: Some(Link { cid }),
                            ..Line::default()
                        },
                    };
                    if let Some(line) = last.replace(line) {
                        sink.send(&line).await?;
                    }
                }
            }
            if let Some(line) = last {
                sink.send(&Line { freed, ..line }).await?;
            }
            match (failed, stream_errors) {
                (false, _) => Ok(()),
                (true, true) => Err(Failure::failed("encountered errors during gc run")),
                (true, false) => Err(Failure::failed(errors.join("; "))),
            }
        };
        let (collected, sent) = tokio::join!(collect, send);
        sent?;
        Ok(collected?)
    });
    json_lines(lines).await
}
