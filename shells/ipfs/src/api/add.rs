//! `add`.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use cid::Version;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use super::multipart::{Multipart, PartHead};
use super::pins::pin_name;
use super::reply::{Failure, Reply, Sink, running};
use super::request::{Call, read_part};
use crate::unixfs::{AddOptions, Added, Adder, Chunker, Finished, HashKind, Layout, Metadata};
use crate::{Adding, Block, Node};

/// The longest target a symbolic link has on any system we know.
const MAX_TARGET: usize = 4096;

/// How much of a file is read between two news about it.
const PROGRESS_STEP: u64 = 262_144;

/// Blocks on their way to nowhere when only the hash is wanted.
const HASHED: usize = 16;

#[derive(Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Event {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    hash: String,
    #[serde(skip_serializing_if = "is_zero")]
    bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    size: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    mode: String,
    #[serde(skip_serializing_if = "is_none_or_zero")]
    mtime: Option<i64>,
    #[serde(skip_serializing_if = "is_zero_nanos")]
    mtime_nsecs: u32,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_none_or_zero(number: &Option<i64>) -> bool {
    number.is_none_or(|number| number == 0)
}

fn is_zero_nanos(number: &u32) -> bool {
    *number == 0
}

/// `add`.
pub(super) async fn add(mut call: Call) -> Result<Reply, Failure> {
    let options = options(&call)?;
    let only_hash = call.flag("only-hash", false);
    let pin = call.flag("pin", true);
    let name = pin_name(call.text("pin-name"))?;
    if !name.is_empty() && !pin {
        return Err(Failure::failed("pin-name option requires pin to be set"));
    }
    let plan = Plan {
        node: call.node.clone(),
        options,
        only_hash,
    };
    // Contradicting options are a status, not a trailer.
    let target = plan.target()?;
    let parts = call.multipart()?;
    running(move |sink| async move {
        let told = Told {
            progress: call.flag("progress", false),
            silent: call.flag("silent", false),
            keep_mode: call.flag("preserve-mode", false),
            keep_mtime: call.flag("preserve-mtime", false),
            metas: BTreeMap::new(),
            call,
            sink,
        };
        upload(told, plan, target, parts, pin.then_some(name)).await
    })
}

/// The options that decide the CID, in Kubo's words where they are wrong.
fn options(call: &Call) -> Result<AddOptions, Failure> {
    if call.text("to-files").is_some_and(|to| !to.is_empty()) {
        return Err(Failure::failed("to-files is not supported by the embedded node"));
    }
    if call.flag("nocopy", false) {
        return Err(Failure::failed("nocopy is not supported by the embedded node"));
    }
    let defaults = AddOptions::default();
    let size = |option: &str, default: usize| match call.number(option) {
        None => Ok(default),
        Some(number) => usize::try_from(number)
            .map_err(|_| Failure::failed(format!("option {option:?} cannot be negative: {number}"))),
    };
    let cid_version = match call.number("cid-version") {
        None => None,
        Some(0) => Some(Version::V0),
        Some(1) => Some(Version::V1),
        Some(other) => return Err(Failure::failed(format!("unknown CID version: {other}"))),
    };
    let inline_limit = size("inline-limit", 32)?;
    if inline_limit > 128 {
        let message = format!("inline-limit {inline_limit} exceeds maximum allowed size of 128 bytes");
        return Err(Failure::failed(message));
    }
    let hash = HashKind::from_str(call.text("hash").unwrap_or_default())?;
    if hash != HashKind::Sha2_256 && cid_version == Some(Version::V0) {
        return Err(Failure::failed("CIDv0 only supports sha2-256"));
    }
    let trickle = call.flag("trickle", false);
    Ok(AddOptions {
        cid_version,
        raw_leaves: call.maybe_flag("raw-leaves"),
        chunker: Chunker::from_str(call.text("chunker").unwrap_or_default())?,
        hash,
        layout: if trickle {
            Layout::Trickle
        } else {
            Layout::Balanced
        },
        inline: call.flag("inline", false).then_some(inline_limit),
        max_file_links: size("max-file-links", defaults.max_file_links)?,
        max_directory_links: size("max-directory-links", defaults.max_directory_links)?,
        hamt_fanout: size("max-hamt-fanout", defaults.hamt_fanout)?,
        wrap: call.flag("wrap-with-directory", false),
        meta: asked_meta(call)?,
        preserve: call.flag("preserve-mode", false) || call.flag("preserve-mtime", false),
        ..defaults
    })
}

fn asked_meta(call: &Call) -> Result<Metadata, Failure> {
    let mode = call
        .number("mode")
        .filter(|mode| *mode != 0)
        .and_then(|mode| u32::try_from(mode).ok());
    let seconds = call.number("mtime").filter(|mtime| *mtime != 0);
    let nanos = call.number("mtime-nsecs").unwrap_or(0);
    if nanos != 0 && seconds.is_none() {
        let message = "option \"mtime-nsecs\" requires \"mtime\" to be provided as well";
        return Err(Failure::failed(message));
    }
    let nanos = u32::try_from(nanos)
        .ok()
        .filter(|nanos| *nanos < 1_000_000_000)
        .ok_or_else(|| Failure::failed("mtime-nsecs must be below 1000000000"))?;
    Ok(Metadata {
        mode,
        mtime: seconds.map(|seconds| (seconds, nanos)),
    })
}

/// How to start another upload of the same kind.
struct Plan {
    node: Node,
    options: AddOptions,
    only_hash: bool,
}

impl Plan {
    fn target(&self) -> Result<Target, Failure> {
        let options = self.options.clone();
        if self.only_hash {
            Target::hashing(options)
        } else {
            Ok(Target::Node(self.node.add(options)?))
        }
    }
}

/// The top-level entries of the upload that runs.
#[derive(Default)]
struct Tops {
    names: BTreeSet<String>,
    current: String,
    directories: bool,
}

impl Tops {
    /// Notes a part; says whether it begins another upload. Kubo adds each top-level entry for itself. Here
    /// files go together, which costs one sync for all, until a name repeats or a directory is complete.
    fn begins_another(&mut self, path: &str, directory: bool) -> bool {
        let top = path.split('/').next().unwrap_or_default();
        let nested = path.contains('/');
        let begins = !nested || top != self.current;
        let another = begins && (self.directories || (!top.is_empty() && self.names.contains(top)));
        if another {
            *self = Tops::default();
        }
        if begins {
            self.names.insert(top.to_owned());
            top.clone_into(&mut self.current);
        }
        self.directories |= directory || nested;
        another
    }
}

/// Where the blocks go.
enum Target {
    Node(Adding),
    /// Nowhere: only the CIDs are wanted.
    Hash(Adder),
}

impl Target {
    fn hashing(options: AddOptions) -> Result<Self, Failure> {
        let (sender, mut blocks) = mpsc::channel::<Block>(HASHED);
        let adder = Adder::new(options, sender)?;
        // Ends when the adder does.
        tokio::spawn(async move { while blocks.recv().await.is_some() {} });
        Ok(Target::Hash(adder))
    }

    async fn file(
        &mut self,
        path: &str,
        meta: Metadata,
        parts: &mut Multipart,
        progress: impl FnMut(u64) + Send,
    ) -> Result<Added, Failure> {
        let content = StreamReader::new(parts.content());
        Ok(match self {
            Target::Node(adding) => adding.file(path, meta, content, progress).await?,
            Target::Hash(adder) => adder.file(path, meta, content, progress).await?,
        })
    }

    async fn symlink(&mut self, path: &str, meta: Metadata, target: &str) -> Result<Added, Failure> {
        Ok(match self {
            Target::Node(adding) => adding.symlink(path, meta, target).await?,
            Target::Hash(adder) => adder.symlink(path, meta, target).await?,
        })
    }

    fn directory(&mut self, path: &str, meta: Metadata) -> Result<(), Failure> {
        match self {
            Target::Node(adding) => adding.directory(path, meta)?,
            Target::Hash(adder) => adder.directory(path, meta)?,
        }
        Ok(())
    }

    async fn finish(self, pin: Option<String>) -> Result<Finished, Failure> {
        Ok(match self {
            Target::Node(adding) => adding.finish(pin).await?,
            Target::Hash(adder) => adder.finish().await?,
        })
    }
}

/// What the caller is told, and how.
struct Told {
    call: Call,
    sink: Sink,
    progress: bool,
    silent: bool,
    keep_mode: bool,
    keep_mtime: bool,
    /// What the top-level parts carried in their names; it is repeated in every line below them.
    metas: BTreeMap<String, Carried>,
}

/// A part's metadata as sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Carried {
    mode: String,
    mtime: Option<(i64, u32)>,
}

async fn upload(
    mut told: Told,
    plan: Plan,
    mut target: Target,
    mut parts: Multipart,
    pin: Option<String>,
) -> Result<(), Failure> {
    let mut any = false;
    let mut tops = Tops::default();
    while let Some(head) = parts.next_part().await.map_err(Failure::failed)? {
        any = true;
        let path = entry_path(&head);
        let directory = matches!(
            head.content_type.as_str(),
            "application/x-directory" | "multipart/form-data"
        );
        if !plan.options.wrap && tops.begins_another(&path, directory) {
            let complete = std::mem::replace(&mut target, plan.target()?);
            told.finished(complete, pin.clone()).await?;
        }
        let carried = carried(&head.name);
        let meta = told.meta(&carried);
        if carried != Carried::default() && !path.contains('/') {
            told.metas.insert(path.clone(), carried);
        }
        match head.content_type.as_str() {
            "application/x-directory" | "multipart/form-data" => target.directory(&path, meta)?,
            "application/symlink" => {
                let link = read_part(&mut parts, MAX_TARGET).await?;
                let link = String::from_utf8(link)
                    .map_err(|_| Failure::failed(format!("the target of symlink {path:?} is not UTF-8")))?;
                let added = target.symlink(&path, meta, &link).await?;
                told.added(&added).await?;
            }
            _ => {
                let added = told.file(&mut target, &path, meta, &mut parts).await?;
                told.added(&added).await?;
            }
        }
    }
    if !any {
        return Err(Failure::failed("expected a file argument"));
    }
    told.finished(target, pin).await
}

impl Told {
    /// The metadata to record: only what the caller asked to be kept.
    fn meta(&self, carried: &Carried) -> Metadata {
        let mode = u32::from_str_radix(&carried.mode, 8)
            .ok()
            .map(|mode| mode & 0o777);
        Metadata {
            mode: mode.filter(|_| self.keep_mode),
            mtime: carried.mtime.filter(|_| self.keep_mtime),
        }
    }

    /// A line about `name` with what its top-level part carried.
    fn event(&self, name: &str) -> Event {
        let top = name.split('/').next().unwrap_or_default();
        let carried = self.metas.get(top).cloned().unwrap_or_default();
        let (mtime, mtime_nsecs) = carried
            .mtime
            .map_or((None, 0), |(seconds, nanos)| (Some(seconds), nanos));
        Event {
            name: name.to_owned(),
            mode: carried.mode,
            mtime,
            mtime_nsecs,
            ..Event::default()
        }
    }

    async fn file(
        &self,
        target: &mut Target,
        path: &str,
        meta: Metadata,
        parts: &mut Multipart,
    ) -> Result<Added, Failure> {
        let mut last = 0;
        let tell = |bytes: u64| {
            if self.progress && bytes >= last + PROGRESS_STEP {
                last = bytes;
                self.sink.offer(&Event {
                    bytes,
                    ..self.event(path)
                });
            }
        };
        let added = target.file(path, meta, parts, tell).await?;
        if self.progress {
            // The last news is never dropped: progress bars end with it.
            self.sink
                .send(&Event {
                    bytes: added.bytes,
                    ..self.event(path)
                })
                .await?;
        }
        Ok(added)
    }

    async fn finished(&self, target: Target, pin: Option<String>) -> Result<(), Failure> {
        for added in &target.finish(pin).await?.directories {
            self.line(added).await?;
        }
        Ok(())
    }

    async fn added(&self, added: &Added) -> Result<(), Failure> {
        if self.silent {
            Ok(())
        } else {
            self.line(added).await
        }
    }

    async fn line(&self, added: &Added) -> Result<(), Failure> {
        let (hash, size) = (self.call.show(&added.cid), added.size.to_string());
        self.sink
            .send(&Event {
                hash,
                size,
                ..self.event(&added.name)
            })
            .await
    }
}

/// The path of an entry: unescaped and cleaned as Go does it, without the leading slash.
fn entry_path(head: &PartHead) -> String {
    let raw = head.filename.as_deref().unwrap_or_default();
    let spaced = raw.replace('+', " ");
    let name = if well_escaped(raw) {
        percent_decode_str(&spaced).decode_utf8_lossy()
    } else {
        raw.into()
    };
    let mut path: Vec<&str> = Vec::new();
    for segment in name.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            segment => path.push(segment),
        }
    }
    path.join("/")
}

/// Whether every `%` begins an escape; otherwise the name is meant as it is.
fn well_escaped(name: &str) -> bool {
    let after_percent = name.split('%').skip(1);
    after_percent
        .into_iter()
        .all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|it| it.is_ascii_hexdigit()))
}

/// The metadata in a field name like `file?mode=0644&mtime=1604320482&mtime-nsecs=55`.
fn carried(name: &str) -> Carried {
    let mut carried = Carried::default();
    let Some((_, query)) = name.split_once('?') else {
        return carried;
    };
    let (mut seconds, mut nanos) = (None, 0);
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match key {
            "mode" if value.bytes().all(|it| it.is_ascii_digit()) => carried.mode = value.to_owned(),
            "mtime" => seconds = value.parse().ok(),
            "mtime-nsecs" => nanos = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    carried.mtime = seconds.map(|seconds| (seconds, nanos));
    carried
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(filename: &str) -> String {
        entry_path(&PartHead {
            filename: Some(filename.to_owned()),
            ..PartHead::default()
        })
    }

    #[test]
    fn names_are_unescaped_and_cleaned_as_go_does() {
        assert_eq!(path("a%2Fb+c"), "a/b c");
        assert_eq!(path("100%"), "100%");
        assert_eq!(path("../../etc/./passwd"), "etc/passwd");
        assert_eq!(path("/a//b/../c/"), "a/c");
        assert_eq!(path(""), "");
    }

    #[test]
    fn metadata_is_read_from_the_name_of_the_field() {
        let expected = Carried {
            mode: "0644".to_owned(),
            mtime: Some((1_604_320_482, 55)),
        };
        assert_eq!(
            carried("file?mode=0644&mtime=1604320482&mtime-nsecs=55"),
            expected
        );
        assert_eq!(carried("file"), Carried::default());
        assert_eq!(carried("file?mode=x&mtime="), Carried::default());
    }
}
