//! The command `add`.

mod names;
mod options;
mod told;

use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use self::names::{Carried, carried};
use self::options::options;
use self::told::Told;
use super::multipart::{Multipart, PartKind};
use super::pins::pin_name;
use super::reply::{Failure, Reply, running};
use super::request::{Call, read_part};
use crate::unixfs::{AddOptions, Added, Adder, Metadata, Name};
use crate::{Adding, Block, Node};

/// Maximal length of a symbolic link's target, bytes; no known system has longer ones.
const TARGET_MAX: usize = 4096;

/// Queued blocks when only the hash is wanted; they are dropped.
const HASHED: usize = 16;

/// Handles `add`.
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
    // Contradictory options must fail with a status, not in a trailer.
    let target = plan.target()?;
    let parts = call.multipart()?;
    running(move |sink| async move {
        let told = Told {
            progress: call.flag("progress", false),
            silent: call.flag("silent", false),
            keep_mode: call.flag("preserve-mode", false),
            keep_mtime: call.flag("preserve-mtime", false),
            top: Carried::default(),
            call,
            sink,
        };
        upload(told, plan, target, parts, pin.then_some(name)).await
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
            Target::hashing(options)
        } else {
            Ok(Target::Node(self.node.add(options)?))
        }
    }
}

/// The current top-level entry of the upload.
#[derive(Default)]
struct Top {
    name: Name,
    /// True if it is a directory or follows one.
    directories: bool,
}

/// Position of a part among the top-level entries.
#[derive(Clone, Copy)]
struct Place {
    /// True if the part is the first of a top-level entry.
    begins: bool,
    /// True if the part starts another upload.
    another: bool,
}

impl Top {
    /// Records a part. Kubo adds each top-level entry on its own. Here files are added together, which costs
    /// one sync for all, until a name repeats (`is_taken`) or a directory is complete.
    fn note(&mut self, path: &[u8], directory: bool, is_taken: impl Fn(&[u8]) -> bool) -> Place {
        let top = path.split(|byte| *byte == b'/').next().unwrap_or_default();
        let nested = path.len() > top.len();
        let begins = !nested || top != self.name.as_bytes();
        let another = begins && (self.directories || (!top.is_empty() && is_taken(top)));
        if begins {
            self.name = top.into();
        }
        self.directories = (self.directories && !another) || directory || nested;
        Place { begins, another }
    }
}

/// Destination of the blocks.
enum Target {
    Node(Adding),
    /// None: only the CIDs are wanted.
    Hash(Adder),
}

impl Target {
    fn hashing(options: AddOptions) -> Result<Self, Failure> {
        let (sender, mut blocks) = mpsc::channel::<Block>(HASHED);
        let adder = Adder::new(options, sender)?;
        // Ends when the adder drops the sender.
        tokio::spawn(async move { while blocks.recv().await.is_some() {} });
        Ok(Target::Hash(adder))
    }

    fn has_top(&self, name: &[u8]) -> bool {
        match self {
            Target::Node(adding) => adding.has_top(name),
            Target::Hash(adder) => adder.has_top(name),
        }
    }

    async fn make_room(&mut self, path: &[u8], told: mpsc::Sender<Added>) -> Result<(), Failure> {
        match self {
            Target::Node(adding) => adding.make_room(path, told).await?,
            Target::Hash(adder) => adder.make_room(path, told).await?,
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
            Target::Node(adding) => adding.file(path, meta, content, progress).await?,
            Target::Hash(adder) => adder.file(path, meta, content, progress).await?,
        })
    }

    async fn symlink(&mut self, path: &[u8], meta: Metadata, target: &[u8]) -> Result<Added, Failure> {
        Ok(match self {
            Target::Node(adding) => adding.symlink(path, meta, target).await?,
            Target::Hash(adder) => adder.symlink(path, meta, target).await?,
        })
    }

    fn directory(&mut self, path: &[u8], meta: Metadata) -> Result<(), Failure> {
        match self {
            Target::Node(adding) => adding.directory(path, meta)?,
            Target::Hash(adder) => adder.directory(path, meta)?,
        }
        Ok(())
    }

    async fn finish(self, pin: Option<String>, told: mpsc::Sender<Added>) -> Result<(), Failure> {
        match self {
            Target::Node(adding) => adding.finish(pin, told).await?,
            Target::Hash(adder) => adder.finish(told).await?,
        };
        Ok(())
    }
}

async fn upload(
    mut told: Told,
    plan: Plan,
    mut target: Target,
    mut parts: Multipart,
    pin: Option<String>,
) -> Result<(), Failure> {
    let mut any = false;
    let mut top = Top::default();
    while let Some(head) = parts.next_part().await.map_err(Failure::failed)? {
        any = true;
        let (path, kind) = (head.path(), head.kind());
        let carried = carried(&head.name);
        let meta = told.meta(carried);
        if !plan.options.wrap {
            let place = top.note(&path, kind == PartKind::Directory, |name| target.has_top(name));
            if place.another {
                let complete = std::mem::replace(&mut target, plan.target()?);
                told.finished(complete, pin.clone()).await?;
            }
            if place.begins {
                told.top = if path.contains(&b'/') {
                    Carried::default()
                } else {
                    carried
                };
            }
        }
        told.make_room(&mut target, &path).await?;
        match kind {
            PartKind::Directory => target.directory(&path, meta)?,
            PartKind::Symlink => {
                let link = read_part(&mut parts, TARGET_MAX).await?;
                let added = target.symlink(&path, meta, &link).await?;
                told.added(&added).await?;
            }
            PartKind::File => {
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
