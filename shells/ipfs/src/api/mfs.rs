//! The commands `files/…`: the node's mutable file system.

use cid::Version;
use cluster_http::rpc::Failure;
use futures::stream::{StreamExt, TryStreamExt};
use serde::Serialize;

use super::reply::Reply;
use super::request::Call;
use crate::mfs::{Form, WriteOptions, parse_path};
use crate::names::named;
use crate::types::split_head;
use crate::unixfs::{HashKind, Kind, Name};
use crate::{Cid, DagPath, Error};

/// Answer to `files/stat`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Stat {
    hash: String,
    size: u64,
    cumulative_size: u64,
    blocks: usize,
    #[serde(rename = "Type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_false")]
    with_locality: bool,
    #[serde(skip_serializing_if = "is_false")]
    local: bool,
    #[serde(skip_serializing_if = "is_zero")]
    size_local: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    mode: String,
    #[serde(skip_serializing_if = "is_zero_time")]
    mtime: i64,
    #[serde(skip_serializing_if = "is_zero_nanos")]
    mtime_nsecs: u32,
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_time(number: &i64) -> bool {
    *number == 0
}

fn is_zero_nanos(number: &u32) -> bool {
    *number == 0
}

/// Answer to `files/ls`.
#[derive(Serialize)]
struct Listing {
    #[serde(rename = "Entries")]
    entries: Option<Vec<Listed>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    name: String,
    #[serde(rename = "Type")]
    kind: u8,
    size: u64,
    hash: String,
}

/// Answer to `files/flush`.
#[derive(Serialize)]
struct Flushed {
    #[serde(rename = "Cid")]
    cid: String,
}

/// Returns the answer to a command without results.
fn done() -> Result<Reply, Failure> {
    Ok(Reply::Objects(futures::stream::empty().boxed()))
}

fn path(path: &Name) -> Result<Vec<Name>, Failure> {
    Ok(parse_path(path)?.0)
}

/// Returns the first argument, the root by default.
fn root_or_arg(call: &Call) -> Name {
    call.args.first().cloned().unwrap_or_else(|| Name::from("/"))
}

/// Returns the CID version and hash function that the caller asks for.
fn form(call: &Call) -> Result<Option<Form>, Failure> {
    let version = call.number("cid-version");
    let hash = call.text("hash").filter(|hash| !hash.is_empty());
    if version.is_none() && hash.is_none() {
        return Ok(None);
    }
    let code = hash
        .map(str::parse::<HashKind>)
        .transpose()?
        .unwrap_or_default()
        .code();
    let version = match (version, hash) {
        (Some(0) | None, None) => Version::V0,
        (Some(0 | 1) | None, Some(_)) | (Some(1), None) => Version::V1,
        (Some(other), _) => {
            return Err(Failure::failed(format!("unknown CID version: {other}")));
        }
    };
    Ok(Some(Form { version, hash: code }))
}

/// Returns an option that must not be negative.
fn not_negative(call: &Call, option: &str, why: &str) -> Result<Option<u64>, Failure> {
    let number = call.number(option).map(u64::try_from).transpose();
    number.map_err(|_| Failure::failed(why))
}

/// Finds an entry by its path in the file system, or content by its path.
async fn find(call: &Call, given: &Name) -> Result<Cid, Failure> {
    let is_name = |given: &Name| split_head(given).0.as_text().and_then(named).is_some();
    if given.as_bytes().starts_with(b"/ipfs/") || is_name(given) || DagPath::try_from(given).is_ok() {
        return call.resolve(given).await;
    }
    Ok(call.node.files_find(&path(given)?).await?)
}

/// Handles `files/stat`.
pub(super) async fn stat(call: Call) -> Result<Reply, Failure> {
    let format = call.text("format").is_some();
    let formats = [call.flag("hash", false), call.flag("size", false), format];
    if formats.iter().filter(|given| **given).count() > 1 {
        return Err(Failure::bad_request(
            "invalid parameters: format was set by multiple options. Only one format option is allowed",
        ));
    }
    let cid = find(&call, &call.arg(0)).await?;
    let found = call.node.files_stat(cid).await?;
    let with_locality = call.flag("with-local", false);
    let (local, size_local) = match with_locality {
        true => locality(&call, cid).await?,
        false => (false, 0),
    };
    let (mtime, mtime_nsecs) = found.stat.meta.mtime.unwrap_or_default();
    let mode = found.stat.meta.mode.filter(|mode| *mode != 0);
    Reply::once(&Stat {
        hash: call.format_cid(&found.cid),
        size: found.stat.bytes,
        cumulative_size: found.cumulative,
        blocks: found.links,
        kind: match found.stat.kind {
            Kind::Directory => "directory",
            Kind::File | Kind::Symlink => "file",
        },
        with_locality,
        local,
        size_local,
        mode: mode.map(|mode| format!("{mode:04o}")).unwrap_or_default(),
        mtime,
        mtime_nsecs,
    })
}

/// Returns whether all blocks are local, and the bytes of those that are.
async fn locality(call: &Call, root: Cid) -> Result<(bool, u64), Failure> {
    let local = call.node.offline();
    let mut complete = true;
    let mut bytes = 0;
    let mut seen = crate::dag::Visited::default();
    let mut held = local.budget().holding();
    let mut stack = vec![root];
    while let Some(cid) = stack.pop() {
        if !seen.insert(&cid) {
            continue;
        }
        match local.get(cid).await {
            Err(Error::NotFound(_)) => complete = false,
            Err(error) => return Err(error.into()),
            Ok(data) => {
                bytes += data.len() as u64;
                let links = crate::codec::links(&cid, &data)?;
                stack.extend(links.into_iter().map(|(_, cid)| cid));
                held.resize(size_of_val(&stack[..]))?;
            }
        }
    }
    Ok((complete, bytes))
}

/// Handles `files/ls`.
pub(super) async fn ls(call: Call) -> Result<Reply, Failure> {
    let path = path(&root_or_arg(&call))?;
    let cid = call.node.files_find(&path).await?;
    let found = call.node.files_stat(cid).await?;
    let long = call.flag("long", false);
    if found.stat.kind != Kind::Directory {
        let name = path.last().map(Name::to_string).unwrap_or_default();
        let entry = Listed {
            name,
            kind: 0,
            size: if long { found.stat.bytes } else { 0 },
            hash: if long {
                call.format_cid(&cid)
            } else {
                String::new()
            },
        };
        return Reply::once(&Listing {
            entries: Some(vec![entry]),
        });
    }
    let mut held = call.node.budget().holding();
    let mut listed = call.node.ls(cid, long).await?;
    let mut entries = Vec::new();
    while let Some(entry) = listed.try_next().await? {
        let target = entry.target.filter(|_| long);
        let is_directory = target.as_ref().is_some_and(|it| it.kind == Kind::Directory);
        let listed = Listed {
            name: entry.name.to_string(),
            kind: u8::from(is_directory),
            size: target.map_or(0, |target| target.bytes),
            hash: if long {
                call.format_cid(&entry.cid)
            } else {
                String::new()
            },
        };
        held.grow(size_of::<Listed>() + 2 * (listed.name.len() + listed.hash.len()) + 80)?;
        entries.push(listed);
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Reply::once(&Listing {
        entries: (!entries.is_empty()).then_some(entries),
    })
}

/// Handles `files/read`.
pub(super) async fn read(call: Call) -> Result<Reply, Failure> {
    let offset = not_negative(&call, "offset", "cannot specify negative offset")?.unwrap_or(0);
    let count = not_negative(&call, "count", "cannot specify negative 'count'")?;
    let text = call.arg(0);
    let cid = call.node.files_find(&path(&text)?).await;
    let cid = cid.map_err(|error| Failure::failed(format!("{text}: {error}")))?;
    let stat = call.node.files_stat(cid).await?.stat;
    if stat.kind != Kind::File {
        return Err(Failure::failed(format!("{text} was not a file")));
    }
    let left = stat.bytes.checked_sub(offset).ok_or_else(|| {
        let size = stat.bytes;
        Failure::failed(format!("offset was past end of file ({offset} > {size})"))
    })?;
    let length = count.map_or(left, |count| count.min(left));
    let content = call.node.cat(cid, offset, Some(length)).await?;
    Ok(Reply::Content {
        kind: "text/plain",
        length: Some(length),
        pieces: content.map_err(Failure::from).boxed(),
    })
}

/// Handles `files/write`.
pub(super) async fn write(mut call: Call) -> Result<Reply, Failure> {
    let path = path(&call.arg(0))?;
    let options = WriteOptions {
        offset: not_negative(&call, "offset", "cannot have negative write offset")?.unwrap_or(0),
        count: not_negative(&call, "count", "cannot have negative byte count")?,
        create: call.flag("create", false),
        parents: call.flag("parents", false),
        truncate: call.flag("truncate", false),
        raw_leaves: call.maybe_flag("raw-leaves"),
        form: form(&call)?,
        flush: call.flag("flush", true),
    };
    let mut parts = call.multipart()?;
    if parts.next_part().await.map_err(Failure::bad_request)?.is_none() {
        return Err(Failure::bad_request("file argument 'data' is required"));
    }
    // The write needs a stream of its own; the part is read by a task next to it.
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    let reading = async move {
        let mut content = parts.content();
        while let Some(piece) = content.next().await {
            // The write has failed, and says why.
            if sender.send(piece.map_err(std::io::Error::other)).await.is_err() {
                return;
            }
        }
    };
    let content = futures::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    let writing = call.node.files_write(&path, options, content.boxed());
    let (written, ()) = tokio::join!(writing, reading);
    written.map_err(|error| described(&path, error))?;
    done()
}

fn described(path: &[Name], error: Error) -> Failure {
    let text = error.to_string();
    let shown: Vec<String> = path.iter().map(Name::to_string).collect();
    match text.ends_with("was not a file") {
        true => Failure::failed(format!("/{} was not a file", shown.join("/"))),
        false => Failure::failed(text),
    }
}

/// Handles `files/mkdir`.
pub(super) async fn mkdir(call: Call) -> Result<Reply, Failure> {
    let path = path(&call.arg(0))?;
    let (parents, flush) = (call.flag("parents", false), call.flag("flush", true));
    call.node.files_mkdir(&path, parents, form(&call)?, flush).await?;
    done()
}

/// Handles `files/cp`.
pub(super) async fn cp(call: Call) -> Result<Reply, Failure> {
    let [source, target] = [0, 1].map(|at| call.arg(at));
    let (mut to, into) = parse_path(&target)?;
    let mut from = source.as_bytes();
    while let Some(shorter) = from.strip_suffix(b"/") {
        from = shorter;
    }
    let cid = find(&call, &Name::from(from)).await;
    let cid =
        cid.map_err(|failure| failure.with_prefix(&format!("cp: cannot get node from path {source}: ")))?;
    if into {
        let name = from.rsplit(|byte| *byte == b'/').next();
        to.push(Name::from(name.unwrap_or_default()));
    }
    if call.node.files_stat(cid).await.is_err() {
        let why = "cp: source must be a valid UnixFS (dag-pb or raw codec)";
        return Err(Failure::failed(why));
    }
    let flags = ["parents", "force"].map(|flag| call.flag(flag, false));
    let put = call
        .node
        .files_put(&to, cid, flags[0], flags[1], call.flag("flush", true))
        .await;
    put.map_err(|error| Failure::failed(format!("cp: cannot put node in path {target}: {error}")))?;
    done()
}

/// Handles `files/mv`.
pub(super) async fn mv(call: Call) -> Result<Reply, Failure> {
    let [source, target] = [0, 1].map(|at| call.arg(at));
    let to = parse_path(&target)?;
    call.node
        .files_move(&path(&source)?, to, call.flag("flush", true))
        .await?;
    done()
}

/// Handles `files/rm`.
pub(super) async fn rm(call: Call) -> Result<Reply, Failure> {
    if !call.flag("flush", true) {
        return Err(Failure::failed(
            "files rm always flushes for safety. The --flush flag cannot be set to false for this command",
        ));
    }
    let (recursive, force) = (call.flag("recursive", false), call.flag("force", false));
    let mut failures = Vec::new();
    for arg in &call.args {
        let removed = match parse_path(arg) {
            Ok((path, _)) => call.node.files_remove(&path, recursive, force).await,
            Err(error) => Err(error),
        };
        failures.extend(removed.err().map(|error| format!("{arg}: {error}")));
    }
    match failures.as_slice() {
        [] => done(),
        [only] => Err(Failure::failed(only)),
        [first, others @ ..] => Err(Failure::failed(format!("{first} (and {} more)", others.len()))),
    }
}

/// Handles `files/flush`.
pub(super) async fn flush(call: Call) -> Result<Reply, Failure> {
    let cid = call.node.files_flush(&path(&root_or_arg(&call))?).await?;
    Reply::once(&Flushed {
        cid: call.format_cid(&cid),
    })
}

/// Handles `files/chcid`.
pub(super) async fn chcid(call: Call) -> Result<Reply, Failure> {
    let path = path(&call.arg(0))?;
    if path.is_empty() {
        return Err(Failure::failed("cannot change CID format of the MFS root"));
    }
    if let Some(form) = form(&call)? {
        call.node
            .files_set_form(&path, form, call.flag("flush", true))
            .await?;
    }
    done()
}

/// Handles `files/chmod`.
pub(super) async fn chmod(call: Call) -> Result<Reply, Failure> {
    let (mode, target) = (call.text_arg(0)?, call.arg(1));
    let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777);
    let mode = mode.ok_or_else(|| Failure::failed("the mode is not an octal number up to 7777"))?;
    call.node
        .files_set_meta(&path(&target)?, Some(mode), None)
        .await?;
    done()
}

/// Handles `files/touch`.
pub(super) async fn touch(call: Call) -> Result<Reply, Failure> {
    let path = path(&call.arg(0))?;
    let nanos = not_negative(&call, "mtime-nsecs", "the nanoseconds must not be negative")?.unwrap_or(0);
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let nanos = nanos.ok_or_else(|| Failure::failed("the nanoseconds must be below a second"))?;
    let time = match call.number("mtime").filter(|seconds| *seconds != 0) {
        Some(seconds) => (seconds, nanos),
        None => {
            let now = jiff::Timestamp::now();
            (now.as_second(), now.subsec_nanosecond().unsigned_abs())
        }
    };
    call.node.files_set_meta(&path, None, Some(time)).await?;
    done()
}
