//! `add`.

mod names;
mod options;
mod told;

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::mpsc;
use tokio_util::io::StreamReader;

use self::names::{Carried, carried, entry_path};
use self::options::options;
use self::told::Told;
use super::multipart::Multipart;
use super::pins::pin_name;
use super::reply::{Failure, Reply, running};
use super::request::{Call, read_part};
use crate::unixfs::{AddOptions, Added, Adder, Finished, Metadata};
use crate::{Adding, Block, Node};

/// The longest target a symbolic link has on any system we know.
const MAX_TARGET: usize = 4096;

/// Blocks on their way to nowhere when only the hash is wanted.
const HASHED: usize = 16;

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
