//! The command `add`.

mod options;
mod part_metadata;
mod report;

use cluster_http::multipart::{Multipart, PartKind};
use cluster_http::rpc::Failure;
use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use self::options::options;
use self::part_metadata::{PartMetadata, parse_field_name};
use self::report::Reporter;
use super::pins::pin_name;
use super::reply::{Reply, stream_lines};
use super::request::{Call, read_part};
use crate::mfs::parse_path;
use crate::unixfs::{AddOptions, Added, Adder, Metadata, Name};
use crate::{Block, Node, Upload};

/// Maximum length of a symbolic link's target, in bytes; no known system has longer ones.
const TARGET_MAX: usize = 4096;

/// Queued blocks when only the hash is wanted; they are dropped.
const DISCARDED_BLOCKS: usize = 16;

/// Handles `add`.
pub(super) async fn add(mut call: Call) -> Result<Reply, Failure> {
    let options = options(&call)?;
    let only_hash = call.flag("only-hash", false);
    let pin = call.flag("pin", true);
    let name = pin_name(call.text("pin-name"))?;
    if !name.is_empty() && !pin {
        return Err(Failure::failed("pin-name option requires pin to be set"));
    }
    let to_files = call
        .text("to-files")
        .filter(|to| !to.is_empty())
        .map(|to| parse_path(&to.into()));
    let to_files = to_files.transpose()?;
    if to_files.is_some() && only_hash {
        return Err(Failure::failed("to-files and only-hash exclude each other"));
    }
    let plan = Plan {
        node: call.node.clone(),
        options,
        only_hash,
    };
    // Contradictory options must fail with a status, not in a trailer.
    let target = plan.target()?;
    let parts = call.multipart()?;
    stream_lines(move |sink| async move {
        // Until the roots are in the file system.
        let _guard = to_files.as_ref().map(|_| call.node.protect_from_gc());
        let reporter = Reporter {
            to_files,
            progress: call.flag("progress", false),
            silent: call.flag("silent", false),
            keep_mode: call.flag("preserve-mode", false),
            keep_mtime: call.flag("preserve-mtime", false),
            top: PartMetadata::default(),
            call,
            sink,
        };
        upload(reporter, plan, target, parts, pin.then_some(name)).await
    })
}

/// Parameters for starting further uploads of the same kind.
struct Plan {
    node: Node,
    options: AddOptions,
    only_hash: bool,
}

impl Plan {
    fn target(&self) -> Result<Target, Failure> {
        let options = self.options.clone();
        if self.only_hash {
            Target::hash_only(options)
        } else {
            Ok(Target::Node(self.node.add(options)?))
        }
    }
}

/// The current top-level entry of the upload.
#[derive(Default)]
struct TopEntry {
    name: Name,
    /// True if it is a directory or follows one.
    directories: bool,
}

/// Position of a part among the top-level entries.
#[derive(Clone, Copy)]
struct Position {
    /// True if the part is the first of a top-level entry.
    starts_entry: bool,
    /// True if the part starts another upload.
    starts_upload: bool,
}

impl TopEntry {
    /// Records a part. Kubo adds each top-level entry on its own. Here files are added together, which costs
    /// one sync for all, until a name repeats (`is_taken`) or a directory is complete.
    fn record(&mut self, path: &[u8], directory: bool, is_taken: impl Fn(&[u8]) -> bool) -> Position {
        let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let nested = path.len() > top.len();
        let starts_entry = !nested || top != self.name.as_bytes();
        let starts_upload = starts_entry && (self.directories || (!top.is_empty() && is_taken(top)));
        if starts_entry {
            self.name = top.into();
        }
        self.directories = (self.directories && !starts_upload) || directory || nested;
        Position {
            starts_entry,
            starts_upload,
        }
    }
}

/// Destination of the blocks.
enum Target {
    Node(Upload),
    /// None: only the CIDs are wanted.
    Hash(Adder),
}

impl Target {
    fn hash_only(options: AddOptions) -> Result<Self, Failure> {
        let (sender, mut blocks) = mpsc::channel::<Block>(DISCARDED_BLOCKS);
        let adder = Adder::new(options, sender)?;
        // Ends when the adder drops the sender.
        tokio::spawn(async move { while blocks.recv().await.is_some() {} });
        Ok(Target::Hash(adder))
    }

    fn has_top(&self, name: &[u8]) -> bool {
        match self {
            Target::Node(upload) => upload.has_top(name),
            Target::Hash(adder) => adder.has_top(name),
        }
    }

    async fn make_room(&mut self, path: &[u8], built: mpsc::Sender<Added>) -> Result<(), Failure> {
        match self {
            Target::Node(upload) => upload.make_room(path, built).await?,
            Target::Hash(adder) => adder.make_room(path, built).await?,
        }
        Ok(())
    }

    async fn file(
        &mut self,
        path: &[u8],
        meta: Metadata,
        parts: &mut Multipart,
        progress: impl FnMut(u64) + Send,
    ) -> Result<Added, Failure> {
        let content = StreamReader::new(parts.content());
        Ok(match self {
            Target::Node(upload) => upload.file(path, meta, content, progress).await?,
            Target::Hash(adder) => adder.file(path, meta, content, progress).await?,
        })
    }

    async fn symlink(&mut self, path: &[u8], meta: Metadata, target: &[u8]) -> Result<Added, Failure> {
        Ok(match self {
            Target::Node(upload) => upload.symlink(path, meta, target).await?,
            Target::Hash(adder) => adder.symlink(path, meta, target).await?,
        })
    }

    fn directory(&mut self, path: &[u8], meta: Metadata) -> Result<(), Failure> {
        match self {
            Target::Node(upload) => upload.directory(path, meta)?,
            Target::Hash(adder) => adder.directory(path, meta)?,
        }
        Ok(())
    }

    /// Returns the roots.
    async fn finish(self, pin: Option<String>, built: mpsc::Sender<Added>) -> Result<Vec<Added>, Failure> {
        Ok(match self {
            Target::Node(upload) => upload.finish(pin, built).await?,
            Target::Hash(adder) => adder.finish(built).await?,
        })
    }
}

async fn upload(
    mut reporter: Reporter,
    plan: Plan,
    mut target: Target,
    mut parts: Multipart,
    pin: Option<String>,
) -> Result<(), Failure> {
    let mut any = false;
    let mut top = TopEntry::default();
    while let Some(head) = parts.next_part().await.map_err(Failure::failed)? {
        any = true;
        let (path, kind) = (head.path(), head.kind());
        let sent = parse_field_name(&head.name);
        let meta = reporter.recorded_metadata(sent);
        if !plan.options.wrap {
            let position = top.record(&path, kind == PartKind::Directory, |name| target.has_top(name));
            if position.starts_upload {
                let complete = std::mem::replace(&mut target, plan.target()?);
                reporter.finish(complete, pin.clone()).await?;
            }
            if position.starts_entry {
                reporter.top = if path.contains(&b'/') {
                    PartMetadata::default()
                } else {
                    sent
                };
            }
        }
        reporter.make_room(&mut target, &path).await?;
        match kind {
            PartKind::Directory => target.directory(&path, meta)?,
            PartKind::Symlink => {
                let link = read_part(&mut parts, TARGET_MAX).await?;
                let added = target.symlink(&path, meta, &link).await?;
                reporter.report(&added).await?;
            }
            PartKind::File => {
                let added = reporter.file(&mut target, &path, meta, &mut parts).await?;
                reporter.report(&added).await?;
            }
        }
    }
    if !any {
        return Err(Failure::failed("expected a file argument"));
    }
    reporter.finish(target, pin).await
}
