//! Directories of the file system while they are changed.

use super::{Entry, missing};
use crate::reader::stream_from_task;
use crate::request_budget::HeldBytes;
use crate::unixfs::pb::Type;
use crate::unixfs::read::{self, Entity};
use crate::unixfs::{AddOptions, HashKind, Metadata, Name, build_directory};
use crate::{Cid, Error, Node};
use cid::Version;
use futures::StreamExt;
use std::collections::BTreeMap;

/// Maximum depth of a path: a change holds and rebuilds each directory on it.
pub(super) const DEPTH_MAX: usize = 128;

/// Memory of an entry besides its name, in bytes.
const ENTRY_COST: usize = 256;

/// CID version and hash function of new nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) version: Version,
    /// Multihash code.
    pub(crate) hash: u64,
}

impl Form {
    /// Returns the form of an existing node; raw leaves have only version 1.
    pub(super) fn of(cid: &Cid) -> Form {
        let hash = cid.hash().code();
        let known = hash != crate::store::IDENTITY && crate::hash::is_known(hash);
        Form {
            version: cid.version(),
            hash: if known { hash } else { HashKind::SHA2_256.code() },
        }
    }

    pub(super) fn options(self) -> AddOptions {
        AddOptions {
            cid_version: Some(self.version),
            hash: HashKind::from_code(self.hash),
            ..AddOptions::default()
        }
    }
}

/// A directory in memory.
pub(super) struct Folder {
    entries: BTreeMap<Name, Entry>,
    meta: Metadata,
    pub(super) form: Form,
    held: HeldBytes,
}

impl Folder {
    pub(super) fn empty(node: &Node, form: Form) -> Folder {
        Folder {
            entries: BTreeMap::new(),
            meta: Metadata::default(),
            form,
            held: node.budget().holding(),
        }
    }

    /// Reads a directory, sharded or not.
    pub(super) async fn load(node: &Node, cid: Cid) -> Result<Folder, Error> {
        let reader = node.reader();
        let root = read::entity(&cid, reader.get(cid).await?)?;
        let root = match root {
            Entity::Node(root, _) if matches!(root.kind, Type::Directory | Type::Shard) => root,
            Entity::Node(..) | Entity::Raw(_) => {
                return Err(Error::invalid(format!("cannot access {cid}: Not a directory")));
            }
        };
        let mut folder = Folder {
            meta: root.meta,
            ..Folder::empty(node, Form::of(&cid))
        };
        let mut links = stream_from_task(|out| async move { read::list(&reader, cid, &out).await });
        while let Some(link) = links.next().await.transpose()? {
            let entry = Entry {
                cid: link.cid,
                size: link.size,
            };
            folder.insert(link.name, entry)?;
        }
        Ok(folder)
    }

    pub(super) fn entry(&self, name: &Name) -> Option<Entry> {
        self.entries.get(name).copied()
    }

    pub(super) fn insert(&mut self, name: Name, entry: Entry) -> Result<(), Error> {
        self.held.grow(ENTRY_COST + name.as_bytes().len())?;
        self.entries.insert(name, entry);
        Ok(())
    }

    pub(super) fn remove(&mut self, name: &Name) {
        self.entries.remove(name);
    }

    /// Sets the metadata; `None` keeps what it was.
    pub(super) fn set_meta(&mut self, mode: Option<u32>, mtime: Option<(i64, u32)>) {
        self.meta.mode = mode.or(self.meta.mode);
        self.meta.mtime = mtime.or(self.meta.mtime);
    }

    /// Builds and stores the directory.
    pub(super) async fn save(&self, node: &Node) -> Result<Entry, Error> {
        let entries = self.entries.iter();
        let entries: Vec<(Name, Cid, u64)> = entries
            .map(|(name, entry)| (name.clone(), entry.cid, entry.size))
            .collect();
        let options = AddOptions {
            hamt_threshold: node.hamt_threshold(),
            ..self.form.options()
        };
        let meta = self.meta;
        let built = crate::reader::blocking(move || build_directory(options, entries, meta));
        let (cid, size, blocks) = built.await?;
        node.put_verified(blocks).await?;
        Ok(Entry { cid, size })
    }
}

/// The directories on a path, from the root on.
pub(super) struct Tree {
    root: Folder,
    below: Vec<(Name, Folder)>,
}

impl Tree {
    /// Loads the directories on a path; missing ones are created in the given form.
    pub(super) async fn open(
        node: &Node,
        root: Cid,
        path: &[Name],
        create: Option<Form>,
    ) -> Result<Tree, Error> {
        let mut tree = Tree {
            root: Folder::load(node, root).await?,
            below: Vec::new(),
        };
        for name in path {
            let folder = match (tree.last().entry(name), create) {
                (Some(entry), _) => Folder::load(node, entry.cid).await?,
                (None, Some(form)) => Folder::empty(node, form),
                (None, None) => return Err(missing()),
            };
            tree.below.push((name.clone(), folder));
        }
        Ok(tree)
    }

    /// As [`Tree::open`]; missing directories are created if `create`, in the form of the root by default.
    pub(super) async fn open_creating(
        node: &Node,
        root: Cid,
        path: &[Name],
        create: bool,
        form: Option<Form>,
    ) -> Result<Tree, Error> {
        let form = create.then(|| form.unwrap_or(Form::of(&root)));
        Tree::open(node, root, path, form).await
    }

    pub(super) fn last(&self) -> &Folder {
        self.below.last().map_or(&self.root, |(_, folder)| folder)
    }

    pub(super) fn last_mut(&mut self) -> &mut Folder {
        self.below.last_mut().map_or(&mut self.root, |(_, folder)| folder)
    }

    /// Stores the directories, the deepest first; returns the root.
    pub(super) async fn save(mut self, node: &Node) -> Result<Entry, Error> {
        while let Some((name, folder)) = self.below.pop() {
            let entry = folder.save(node).await?;
            self.last_mut().insert(name, entry)?;
        }
        self.root.save(node).await
    }
}
