//! The commands `pin/…`.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use cluster_http::rpc::{Failure, LineSender};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;

use super::kubo_types::{PIN_NAME_MAX, PinKey, PinKinds, PinLine, Pins};
use super::reply::{Reply, stream_lines};
use super::request::Call;
use crate::Cid;
use crate::unixfs::Name;
use crate::{Error, Pin, PinFilter, PinMode, Progress};

/// Interval of progress reports of a running pin.
const TICK: Duration = Duration::from_millis(500);

#[derive(Serialize)]
struct Progressed {
    #[serde(rename = "Progress", skip_serializing_if = "is_zero")]
    blocks: u64,
    #[serde(rename = "Bytes", skip_serializing_if = "is_zero")]
    bytes: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl From<Progress> for Progressed {
    fn from(progress: Progress) -> Self {
        Progressed {
            blocks: progress.blocks,
            bytes: progress.bytes,
        }
    }
}

/// Handles `pin/add`.
pub(super) async fn add(call: Call) -> Result<Reply, Failure> {
    let mode = if call.flag("recursive", true) {
        PinMode::Recursive
    } else {
        PinMode::Direct
    };
    let name = pin_name(call.text("name"))?;
    if call.flag("progress", false) {
        return stream_lines(move |sink| async move { add_with_progress(&call, mode, &name, &sink).await });
    }
    let mut pins = Vec::with_capacity(call.args.len());
    for arg in &call.args {
        let cid = call.resolve(arg).await?;
        pin(&call, cid, mode, &name, |_| ()).await?;
        pins.push(call.format_cid(&cid));
    }
    Reply::once(&Pins { pins })
}

/// Validates the length of a pin's name.
pub(super) fn pin_name(name: Option<&str>) -> Result<String, Failure> {
    let name = name.unwrap_or_default();
    if name.len() > PIN_NAME_MAX {
        let message = format!("pin name is {} bytes (max {PIN_NAME_MAX} bytes)", name.len());
        return Err(Failure::failed(message));
    }
    Ok(name.to_owned())
}

async fn pin(
    call: &Call,
    cid: Cid,
    mode: PinMode,
    name: &str,
    progress: impl Fn(Progress) + Send + Sync,
) -> Result<(), Failure> {
    match call.node.pin(cid, mode, name.to_owned(), progress).await {
        Ok(()) => Ok(()),
        Err(Error::Pinned { cid, .. }) => {
            Err(Failure::failed(format!("pin: {cid} already pinned recursively")))
        }
        Err(error) => Err(Failure::from(error).with_prefix("pin: ")),
    }
}

async fn add_with_progress(call: &Call, mode: PinMode, name: &str, sink: &LineSender) -> Result<(), Failure> {
    let seen = Mutex::new(Progress::default());
    let read = || *seen.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut pins, mut before) = (Vec::new(), Progress::default());
    for arg in &call.args {
        let cid = call.resolve(arg).await?;
        let base = before;
        let note = |progress: Progress| {
            let sum = Progress {
                blocks: base.blocks + progress.blocks,
                bytes: base.bytes + progress.bytes,
                total: base.total.saturating_add(progress.total),
            };
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = sum;
        };
        let mut work = std::pin::pin!(pin(call, cid, mode, name, note));
        let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + TICK, TICK);
        loop {
            tokio::select! {
                done = &mut work => break done?,
                _ = ticks.tick() => sink.send(&Progressed::from(read())).await?,
            }
        }
        before = read();
        pins.push(call.format_cid(&cid));
    }
    if before.blocks > 0 {
        sink.send(&Progressed::from(before)).await?;
    }
    sink.send(&Pins { pins }).await
}

/// Handles `pin/rm`.
pub(super) async fn rm(call: Call) -> Result<Reply, Failure> {
    let recursive = call.flag("recursive", true);
    let mut pins = Vec::with_capacity(call.args.len());
    for arg in &call.args {
        let cid = call.resolve(arg).await?;
        let not_pinned = || Failure::failed("not pinned or pinned indirectly");
        let held = call.node.pin_of(&cid)?.ok_or_else(not_pinned)?;
        if held.mode == PinMode::Recursive && !recursive {
            return Err(Failure::failed(format!("{cid} is pinned recursively")));
        }
        match call.node.unpin(&cid).await {
            Ok(PinMode::Recursive | PinMode::Direct) => pins.push(call.format_cid(&cid)),
            Err(Error::NotPinned(_)) => return Err(not_pinned()),
            Err(error) => return Err(error.into()),
        }
    }
    Reply::once(&Pins { pins })
}

/// Memory of a key beside its texts, in bytes: its map entry, and quotes and field names in JSON.
const KEY_BYTES: usize = 100;

#[derive(Serialize)]
struct Keys {
    #[serde(rename = "Keys", skip_serializing_if = "BTreeMap::is_empty")]
    keys: BTreeMap<String, PinKey>,
}

/// Handles `pin/ls`. Without `stream` the answer is one object, built in memory like Kubo's.
pub(super) async fn ls(call: Call) -> Result<Reply, Failure> {
    let wanted = PinKinds::parse(call.text("type").unwrap_or_default()).map_err(Failure::failed)?;
    let names = call.flag("names", false) || call.text("name").is_some_and(|name| !name.is_empty());
    let stream = call.flag("stream", false);
    let held = call.node.budget();
    let mut listed = if call.args.is_empty() {
        list(call, wanted, names)
    } else {
        let mut found = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            found.push(Ok(status(&call, arg, wanted, names).await?));
        }
        stream::iter(found).boxed()
    };
    if stream {
        return Reply::objects(listed);
    }
    let mut keys = BTreeMap::new();
    let mut held = held.holding();
    while let Some(PinLine { cid, name, kind }) = listed.try_next().await? {
        // Counted as a map key and as JSON text.
        held.grow(size_of::<PinKey>() + 2 * (cid.len() + name.len() + kind.len()) + KEY_BYTES)?;
        keys.insert(cid, PinKey { kind, name });
    }
    Reply::once(&Keys { keys })
}

fn list(call: Call, wanted: PinKinds, names: bool) -> stream::BoxStream<'static, Result<PinLine, Failure>> {
    let name = call
        .text("name")
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    let node = call.node.clone();
    let of = |mode: PinMode| {
        let filter = PinFilter {
            mode: Some(mode),
            name: name.clone(),
        };
        // Created when its turn comes, so that no snapshot is held longer than needed.
        let node = node.clone();
        stream::once(async move { node.pins(filter) })
            .flatten()
            .map_ok(move |pin| (pin, mode.as_str()))
    };
    let modes = [PinMode::Recursive, PinMode::Direct]
        .into_iter()
        .filter(|mode| shows(wanted, *mode));
    let own: Vec<_> = modes.map(|mode| of(mode).boxed()).collect();
    // Indirect pins have no name that a filter could match.
    let below = (wanted.indirect && name.is_none()).then(|| {
        let nameless = |cid| {
            (
                Pin {
                    cid,
                    mode: PinMode::Direct,
                    name: String::new(),
                },
                "indirect",
            )
        };
        call.node.indirect_pins().map_ok(nameless).boxed()
    });
    stream::iter(own.into_iter().chain(below))
        .flatten()
        .map(move |pin| {
            let (pin, kind) = pin?;
            let name = if names { pin.name } else { String::new() };
            Ok(PinLine {
                cid: call.format_cid(&pin.cid),
                name,
                kind: kind.to_owned(),
            })
        })
        .boxed()
}

fn shows(wanted: PinKinds, mode: PinMode) -> bool {
    match mode {
        PinMode::Recursive => wanted.recursive,
        PinMode::Direct => wanted.direct,
    }
}

async fn status(call: &Call, arg: &Name, wanted: PinKinds, names: bool) -> Result<PinLine, Failure> {
    let cid = call.resolve(arg).await?;
    let listed = |pin: Pin| PinLine {
        cid: call.format_cid(&pin.cid),
        name: if names { pin.name } else { String::new() },
        kind: pin.mode.as_str().to_owned(),
    };
    let own = call.node.pin_of(&cid)?;
    if let Some(pin) = own
        && shows(wanted, pin.mode)
    {
        return Ok(listed(pin));
    }
    // Also for a block that is pinned itself, if that mode is not asked for.
    if wanted.indirect
        && let Some(root) = call.node.recursive_pin_above(&cid).await?
    {
        let kind = format!("indirect through {}", call.format_cid(&root));
        return Ok(PinLine {
            cid: call.format_cid(&cid),
            name: String::new(),
            kind,
        });
    }
    Err(Failure::failed(format!("path '{arg}' is not pinned")))
}

/// Handles `pin/update`.
pub(super) async fn update(call: Call) -> Result<Reply, Failure> {
    let from = call.resolve(&call.args[0]).await?;
    let to = call.resolve(&call.args[1]).await?;
    let recursive = |pin: Option<Pin>| pin.is_some_and(|pin| pin.mode == PinMode::Recursive);
    if !recursive(call.node.pin_of(&from)?) {
        return Err(Failure::failed("'from' cid was not recursively pinned already"));
    }
    if from != to {
        if recursive(call.node.pin_of(&to)?) {
            return Err(Failure::failed("'to' cid was already recursively pinned"));
        }
        call.node.pin_update(&from, to, call.flag("unpin", true)).await?;
    }
    Reply::once(&Pins {
        pins: vec![call.format_cid(&from), call.format_cid(&to)],
    })
}

#[derive(Serialize)]
struct Verified {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Ok", skip_serializing_if = "std::ops::Not::not")]
    ok: bool,
    #[serde(rename = "BadNodes", skip_serializing_if = "Vec::is_empty")]
    bad: Vec<BadNode>,
}

#[derive(Serialize)]
struct BadNode {
    #[serde(rename = "Cid")]
    cid: String,
    #[serde(rename = "Err")]
    error: String,
}

/// Handles `pin/verify`: walks every recursive pin without asking other peers.
pub(super) async fn verify(call: Call) -> Result<Reply, Failure> {
    let verbose = call.flag("verbose", false);
    if verbose && call.flag("quiet", false) {
        let message = "the --verbose and --quiet options can not be used at the same time";
        return Err(Failure::failed(message));
    }
    let local = call.node.offline();
    stream_lines(move |sink| async move {
        let filter = PinFilter {
            mode: Some(PinMode::Recursive),
            name: None,
        };
        let mut pins = local.pins(filter);
        while let Some(pin) = pins.try_next().await? {
            let mut bad = Vec::new();
            let mut walk = local.refs(pin.cid, None, true);
            // A walk ends at its first error, so there is at most one per pin.
            while let Some(step) = walk.next().await {
                if let Err(error) = step {
                    bad.push(BadNode {
                        cid: call.format_cid(&pin.cid),
                        error: error.to_string(),
                    });
                    break;
                }
            }
            if verbose || !bad.is_empty() {
                sink.send(&Verified {
                    cid: call.format_cid(&pin.cid),
                    ok: bad.is_empty(),
                    bad,
                })
                .await?;
            }
        }
        Ok(())
    })
}
