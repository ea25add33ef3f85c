//! `pin/add`, `pin/rm` and `pin/update`, answered by the cluster.

use std::future::Future;

use axum::body::Body;
use axum::http::Response;
use cluster_api::{Pin, PinMode, PinOptions, Query, Time};
use cluster_core::{Cid, Refusal, without_owners};
use cluster_http::rpc::{Failure, LineSender, stream_lines};
use cluster_ipfs::api::{PIN_NAME_MAX, Pins};
use cluster_ipfs::unixfs::Name;
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::call::Call;
use super::kubo_response::{json_lines, json_object};
use super::{Proxy, pin_progress};
use crate::cluster::{Cluster, Error, convert};

#[derive(Serialize)]
struct Progressed {
    #[serde(rename = "Progress", skip_serializing_if = "is_zero")]
    progress: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[derive(Deserialize)]
struct Resolved {
    #[serde(rename = "Path")]
    path: String,
}

impl Proxy {
    /// Resolves an argument to a CID. Whatever is not a CID or `/ipfs/CID` is resolved by the node, whose
    /// error is passed on.
    pub(super) async fn resolve(&self, call: &Call, arg: &Name) -> Result<Cid, Failure> {
        let text = arg.as_text().unwrap_or_default();
        if let Ok(cid) = text.strip_prefix("/ipfs/").unwrap_or(text).parse() {
            return Ok(cid);
        }
        let limit = call.options.text(&["timeout"]).unwrap_or_default();
        let limit = if limit.is_empty() {
            String::new()
        } else {
            format!("&timeout={}", escape(limit))
        };
        let query = format!("/api/v0/resolve?arg={}{limit}", escape(arg));
        let Resolved { path } = self.upstream.object(&query, &call.credentials).await?;
        let cid = path.strip_prefix("/ipfs/").and_then(|cid| cid.parse().ok());
        cid.ok_or_else(|| Failure::failed(format!("{arg} resolves to {path}, which has no CID of its own")))
    }

    /// Returns the cluster's pin of a CID.
    pub(super) async fn pin_of(&self, cid: &Cid) -> Result<Option<Pin>, Failure> {
        match self.cluster.allocation(cid.clone()).await {
            Ok(pin) => Ok(Some(pin)),
            Err(Error::Refused(Refusal::NotFound)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn escape(text: impl AsRef<[u8]>) -> String {
    percent_encode(text.as_ref(), NON_ALPHANUMERIC).to_string()
}

/// Returns when the client's time limit (`timeout`) expires.
fn deadline(call: &Call) -> Result<Option<Instant>, Failure> {
    let limit = call.options.timeout()?;
    Ok(limit.and_then(|limit| Instant::now().checked_add(limit)))
}

/// Waits for `work` until the client's deadline.
async fn with_deadline<T>(
    deadline: Option<Instant>,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let Some(deadline) = deadline else {
        return work.await;
    };
    timeout_at(deadline, work)
        .await
        .unwrap_or_else(|_| Err(Failure::failed("context deadline exceeded")))
}

/// Answers `pin/add`, when as many peers hold the pin as it needs at least. With `progress` it streams the
/// progress meanwhile. If the client disconnects or its time limit expires, the pins remain and the cluster
/// continues to pin them.
pub(super) async fn add(proxy: &Proxy, call: Call) -> Result<Response<Body>, Failure> {
    let deadline = deadline(&call)?;
    let progress = call.options.flag(&["progress"], false)?;
    let agreed = with_deadline(deadline, async {
        let mut pinned = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            let cid = proxy.resolve(&call, arg).await?;
            let pin = pin(proxy, &call, &cid).await?;
            pinned.push((cid, pin));
        }
        Ok(pinned)
    });
    let pinned = agreed.await?;
    let pins = pinned.iter().map(|(cid, _)| format_cid(&call, cid));
    let pins = Pins { pins: pins.collect() };
    if !progress {
        with_deadline(deadline, wait_until_held(&proxy.cluster, &pinned)).await?;
        return Ok(json_object(&pins));
    }
    let cluster = proxy.cluster.clone();
    let progress = stream_lines(move |sink| async move {
        with_deadline(deadline, stream_progress(cluster, pinned, &sink)).await?;
        sink.send(&pins).await
    });
    json_lines(progress).await
}

async fn wait_until_held(cluster: &Cluster, pinned: &[(Cid, Pin)]) -> Result<(), Failure> {
    for (cid, pin) in pinned {
        pin_progress::until_held(cluster, cid, pin, |_| std::future::ready(Ok(()))).await?;
    }
    Ok(())
}

async fn stream_progress(
    cluster: Cluster,
    pinned: Vec<(Cid, Pin)>,
    sink: &LineSender,
) -> Result<(), Failure> {
    let mut before = 0;
    for (cid, pin) in pinned {
        let mut latest = before;
        pin_progress::until_held(&cluster, &cid, &pin, |seen| {
            latest = before + seen;
            let line = Progressed { progress: latest };
            async move { sink.send(&line).await }
        })
        .await?;
        before = latest + 1;
    }
    sink.send(&Progressed { progress: before }).await
}

/// Formats a CID of the core in the base that the client asked for.
pub(super) fn format_cid(call: &Call, cid: &Cid) -> String {
    let parsed = cluster_ipfs::Cid::try_from(cid.as_bytes());
    parsed.map_or_else(|_| cid.to_string(), |cid| call.format_cid(&cid))
}

async fn pin(proxy: &Proxy, call: &Call, cid: &Cid) -> Result<Pin, Failure> {
    let asked = requested_options(call)?;
    let before = proxy.pin_of(cid).await?;
    let recursive = |pin: &Pin| pin.options.mode == PinMode::Recursive;
    if asked.mode == PinMode::Direct && before.as_ref().is_some_and(recursive) {
        let cid = format_cid(call, cid);
        return Err(Failure::failed(format!("pin: {cid} already pinned recursively")));
    }
    let options = match before {
        Some(before) => merged_options(before.options, asked),
        None => asked,
    };
    let done = proxy.cluster.pin(cid.clone(), &options).await;
    done.map_err(|error| Failure::from(error).with_prefix("pin: "))
}

/// Returns the pin options of a call: those of Kubo and those of the cluster's own API.
fn requested_options(call: &Call) -> Result<PinOptions, Failure> {
    let mut asked = parsed_options(call.options.query())?;
    asked.name = checked_name(call.options.text(&["name", "n"]))?;
    // The Go peer's proxy accepts `type=direct`.
    let direct = call.options.text(&["type"]) == Some("direct");
    asked.mode = if call.options.flag(&["recursive", "r"], true)? && !direct {
        PinMode::Recursive
    } else {
        PinMode::Direct
    };
    Ok(asked)
}

/// Parses the options of the cluster's own API.
pub(super) fn parsed_options(query: &str) -> Result<PinOptions, Failure> {
    let asked = PinOptions::from_query(&Query::parse(query), Time::now()).map_err(Failure::failed)?;
    convert::check_metadata(&asked.metadata).map_err(Failure::bad_request)?;
    Ok(asked)
}

/// Returns a pin's name.
///
/// # Errors
/// It is longer than [`PIN_NAME_MAX`] bytes.
pub(super) fn checked_name(name: Option<&str>) -> Result<String, Failure> {
    let name = name.unwrap_or_default();
    if name.len() > PIN_NAME_MAX {
        let message = format!("pin name is {} bytes (max {PIN_NAME_MAX} bytes)", name.len());
        return Err(Failure::failed(message));
    }
    Ok(name.to_owned())
}

/// Returns the options of a pin that is pinned again: those that Kubo's clients cannot set are kept.
fn merged_options(before: PinOptions, asked: PinOptions) -> PinOptions {
    let now = Time::now();
    let factor = |asked: i32, before: i32| if asked == 0 { before } else { asked };
    PinOptions {
        replication_factor_min: factor(asked.replication_factor_min, before.replication_factor_min),
        replication_factor_max: factor(asked.replication_factor_max, before.replication_factor_max),
        expire_at: match (asked.expire_at.is_zero(), before.expire_at > now) {
            (false, _) => asked.expire_at,
            (true, true) => before.expire_at,
            // It is about to expire, and is wanted again.
            (true, false) => Time::ZERO,
        },
        metadata: if asked.metadata.is_empty() {
            without_owners(&before.metadata)
        } else {
            asked.metadata
        },
        origins: if asked.origins.is_empty() {
            before.origins
        } else {
            asked.origins
        },
        ..asked
    }
}

/// Answers `pin/rm`, when no peer's IPFS node holds the pins any more.
pub(super) async fn rm(proxy: &Proxy, call: Call) -> Result<Response<Body>, Failure> {
    let recursive = call.options.flag(&["recursive", "r"], true)?;
    let done = with_deadline(deadline(&call)?, async {
        let mut cids = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            let cid = proxy.resolve(&call, arg).await?;
            unpin(proxy, &call, &cid, recursive).await?;
            cids.push(cid);
        }
        for cid in &cids {
            pin_progress::until_released(&proxy.cluster, cid).await?;
        }
        Ok(cids.iter().map(|cid| format_cid(&call, cid)).collect())
    });
    Ok(json_object(&Pins { pins: done.await? }))
}

async fn unpin(proxy: &Proxy, call: &Call, cid: &Cid, recursive: bool) -> Result<(), Failure> {
    let not_pinned = || Failure::failed("not pinned or pinned indirectly");
    let pin = proxy.pin_of(cid).await?.ok_or_else(not_pinned)?;
    if pin.options.mode == PinMode::Recursive && !recursive {
        let cid = format_cid(call, cid);
        return Err(Failure::failed(format!("{cid} is pinned recursively")));
    }
    match proxy.cluster.unpin(cid.clone()).await {
        Ok(_) => Ok(()),
        Err(Error::Refused(Refusal::NotFound)) => Err(not_pinned()),
        Err(error) => Err(error.into()),
    }
}

/// Answers `pin/update`, when the new pin is held and the old one, kept until then, is released.
pub(super) async fn update(proxy: &Proxy, call: Call) -> Result<Response<Body>, Failure> {
    let unpin = call.options.flag(&["unpin"], true)?;
    let done = with_deadline(deadline(&call)?, async {
        let from = proxy.resolve(&call, &call.args[0]).await?;
        let to = proxy.resolve(&call, &call.args[1]).await?;
        let recursive = |pin: &Pin| pin.options.mode == PinMode::Recursive;
        let Some(old) = proxy.pin_of(&from).await?.filter(recursive) else {
            return Err(Failure::failed("'from' cid was not recursively pinned already"));
        };
        if from != to {
            if proxy.pin_of(&to).await?.as_ref().is_some_and(recursive) {
                return Err(Failure::failed("'to' cid was already recursively pinned"));
            }
            let name = old.options.name.clone();
            let mut options = merged_options(old.options, PinOptions::default());
            options.name = name;
            options.pin_update = Some(from.to_string());
            let pin = proxy.cluster.pin(to.clone(), &options).await?;
            wait_until_held(&proxy.cluster, &[(to.clone(), pin)]).await?;
            if unpin {
                proxy.cluster.unpin(from.clone()).await?;
                pin_progress::until_released(&proxy.cluster, &from).await?;
            }
        }
        Ok(vec![format_cid(&call, &from), format_cid(&call, &to)])
    });
    Ok(json_object(&Pins { pins: done.await? }))
}
