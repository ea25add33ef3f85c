//! Mutable file system of the node (MFS, `ipfs files`): one directory whose entries can be changed by path.
//!
//! Directories and files are immutable DAGs, so a change builds new ones up to the root, and replaces the
//! root at the end. The CID of the root is in the file `files-root` of the node's folder; blocks are on disk
//! before it is. Collections keep what the root reaches locally, and fetch nothing.

mod folder;
mod write;

pub(crate) use folder::Form;
pub(crate) use write::WriteOptions;

use crate::reader::blocking;
use crate::unixfs::read::{self, Entity};
use crate::unixfs::{AddOptions, Kind, Metadata, Name, build_directory};
use crate::{Cid, Error, Node, codec, dag};
use folder::{Folder, Tree};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The empty directory, with which every file system begins.
const EMPTY: &str = "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn";

/// Changes without a flush after which further ones are refused; Kubo's limit.
const UNFLUSHED_MAX: usize = 256;

/// The root of the file system.
#[derive(Debug)]
pub(crate) struct Mfs {
    file: PathBuf,
    /// Held during a change, so that none is lost.
    changing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    /// Root with all changes.
    root: Cid,
    /// Root on disk.
    flushed: Cid,
    unflushed: usize,
}

/// An entry of a directory, or the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) cid: Cid,
    /// Size of all its blocks, in bytes.
    pub(crate) size: u64,
}

/// Kind, sizes and metadata of an entry.
#[derive(Debug)]
pub(crate) struct EntryStat {
    pub(crate) cid: Cid,
    pub(crate) stat: crate::unixfs::Stat,
    pub(crate) cumulative: u64,
    pub(crate) links: usize,
}

impl Mfs {
    /// Reads the root from the node's folder.
    pub(crate) fn open(node_folder: &Path) -> Result<Mfs, Error> {
        let file = node_folder.join("files-root");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => EMPTY.to_owned(),
            Err(error) => return Err(Error::io(format!("reading {}", file.display()), error)),
        };
        let root = Cid::try_from(text.trim()).map_err(|error| {
            let advice = "write the CID of a directory into it, or remove it to begin with an empty one";
            Error::Damaged(format!("{} is not a CID ({error}); {advice}", file.display()))
        })?;
        Ok(Mfs {
            file,
            changing: tokio::sync::Mutex::new(()),
            state: Mutex::new(State {
                root,
                flushed: root,
                unflushed: 0,
            }),
        })
    }

    fn state(&self) -> State {
        *crate::store::lock(&self.state)
    }

    pub(crate) fn root(&self) -> Cid {
        self.state().root
    }

    /// Returns the roots that a collection keeps.
    pub(crate) fn kept_roots(&self) -> [Cid; 2] {
        let state = self.state();
        [state.root, state.flushed]
    }

    /// Refuses a change if too many were not flushed.
    fn check_unflushed(&self, flush: bool) -> Result<(), Error> {
        if !flush && self.state().unflushed >= UNFLUSHED_MAX {
            return Err(Error::invalid(format!(
                "reached limit of {UNFLUSHED_MAX} unflushed MFS operations. To resolve: 1) run 'ipfs files \
                 flush' to persist your changes, 2) use --flush=true (default)"
            )));
        }
        Ok(())
    }

    fn save(&self, root: Cid) -> Result<(), Error> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let saved = crate::swarm::save_private(folder, &self.file, root.to_string().as_bytes());
        saved.map_err(|error| Error::io(format!("writing {}", self.file.display()), error))
    }
}

pub(crate) fn missing() -> Error {
    Error::invalid("file does not exist")
}

/// Returns the error for a path that leads through a file to `name`.
fn not_a_directory(name: &Name) -> Error {
    Error::invalid(format!("cannot access {name}: Not a directory"))
}

/// Parses a path of the file system: its names, and whether it ends with a slash.
pub(crate) fn parse_path(path: &Name) -> Result<(Vec<Name>, bool), Error> {
    let path = path.as_bytes();
    if path.is_empty() {
        return Err(Error::invalid("paths must not be empty"));
    }
    if !path.starts_with(b"/") {
        return Err(Error::invalid("paths must start with a leading slash"));
    }
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    if names.len() > folder::DEPTH_MAX {
        return Err(Error::invalid(format!(
            "the path has more than {} names",
            folder::DEPTH_MAX
        )));
    }
    Ok((names.into_iter().map(Name::from).collect(), path.ends_with(b"/")))
}

/// Splits a path into the folder and the last name.
fn split(path: &[Name]) -> Result<(&[Name], &Name), Error> {
    let (name, folder) = path
        .split_last()
        .ok_or_else(|| Error::invalid("the path is the root"))?;
    Ok((folder, name))
}

impl Node {
    /// Returns the root. The empty one, with which a file system begins, is stored at the first use.
    async fn files_root(&self) -> Result<Cid, Error> {
        let root = self.inner.mfs.root();
        if root.to_string() == EMPTY && !self.has(&root)? {
            let (_, _, blocks) = build_directory(AddOptions::default(), Vec::new(), Metadata::default())?;
            self.put_verified(blocks).await?;
        }
        Ok(root)
    }

    /// Returns the entry at a path of the file system.
    pub(crate) async fn files_find(&self, path: &[Name]) -> Result<Cid, Error> {
        let mut cid = self.files_root().await?;
        let reader = self.reader();
        for name in path {
            let data = reader.get(cid).await?;
            let entity = read::entity(&cid, data)?;
            if read::stat(&entity).kind != Kind::Directory {
                return Err(not_a_directory(name));
            }
            let Entity::Node(node, links) = entity else {
                return Err(not_a_directory(name));
            };
            let found = read::find(&reader, cid, node, links, name, &mut Vec::new()).await;
            cid = found.map_err(|error| {
                if matches!(error, Error::NoLink { .. }) {
                    missing()
                } else {
                    error
                }
            })?;
        }
        Ok(cid)
    }

    /// Returns kind and sizes of a file or directory.
    pub(crate) async fn files_stat(&self, cid: Cid) -> Result<EntryStat, Error> {
        let data = self.reader().get(cid).await?;
        let links = match cid.codec() {
            codec::DAG_PB | codec::RAW => codec::links(&cid, &data)?.len(),
            _ => return Err(Error::invalid("not unixfs node (proto or raw)")),
        };
        Ok(EntryStat {
            cid,
            links,
            cumulative: codec::cumulative_size(&cid, &data)?,
            stat: read::stat(&read::entity(&cid, data)?),
        })
    }

    /// Makes all changes durable; returns the entry at `path`.
    pub(crate) async fn files_flush(&self, path: &[Name]) -> Result<Cid, Error> {
        let _changing = self.inner.mfs.changing.lock().await;
        self.flush_root().await?;
        self.files_find(path).await
    }

    async fn flush_root(&self) -> Result<(), Error> {
        self.sync().await?;
        let inner = self.inner.clone();
        blocking(move || {
            let root = inner.mfs.root();
            inner.mfs.save(root)?;
            let mut state = crate::store::lock(&inner.mfs.state);
            (state.flushed, state.unflushed) = (root, 0);
            Ok(())
        })
        .await
    }

    /// Replaces the root after a change.
    async fn files_commit(&self, root: Cid, flush: bool) -> Result<(), Error> {
        {
            let mut state = crate::store::lock(&self.inner.mfs.state);
            state.root = root;
            state.unflushed += 1;
        }
        if flush { self.flush_root().await } else { Ok(()) }
    }

    async fn open_tree(&self, path: &[Name], create: Option<Form>) -> Result<Tree, Error> {
        Tree::open(self, self.files_root().await?, path, create).await
    }

    /// Creates a directory; with `parents` missing ones above it too, and an existing one is no error.
    pub(crate) async fn files_mkdir(
        &self,
        path: &[Name],
        parents: bool,
        form: Option<Form>,
        flush: bool,
    ) -> Result<(), Error> {
        self.inner.mfs.check_unflushed(flush)?;
        let _changing = self.inner.mfs.changing.lock().await;
        let _guard = self.protect_from_gc();
        if path.is_empty() {
            return match parents {
                true => Ok(()),
                false => Err(Error::invalid("cannot create directory '/': Already exists")),
            };
        }
        let (above, name) = split(path)?;
        let root = self.files_root().await?;
        let mut tree = Tree::open_creating(self, root, above, parents, form).await?;
        match tree.last().entry(name) {
            Some(existing) if parents => {
                let stat = self.files_stat(existing.cid).await?;
                if stat.stat.kind != Kind::Directory {
                    return Err(Error::invalid(format!("{name} is not a directory")));
                }
            }
            Some(_) => return Err(Error::invalid("file already exists")),
            None => {
                let form = form.unwrap_or(tree.last().form);
                let empty = Folder::empty(self, form).save(self).await?;
                tree.last_mut().insert(name.clone(), empty)?;
            }
        }
        let root = tree.save(self).await?;
        self.files_commit(root.cid, flush).await
    }

    /// Puts an entry at a path. An existing one is an error unless `force`d, and then must be a file.
    pub(crate) async fn files_put(
        &self,
        path: &[Name],
        cid: Cid,
        parents: bool,
        force: bool,
        flush: bool,
    ) -> Result<(), Error> {
        self.inner.mfs.check_unflushed(flush)?;
        let _changing = self.inner.mfs.changing.lock().await;
        let _guard = self.protect_from_gc();
        let _kept = self.inner.store.protect().root(cid);
        self.touch_below(cid).await?;
        let stat = self.files_stat(cid).await?;
        let (above, name) = split(path)?;
        let root = self.files_root().await?;
        let mut tree = Tree::open_creating(self, root, above, parents, None).await?;
        if let Some(existing) = tree.last().entry(name) {
            let kind = self.files_stat(existing.cid).await?.stat.kind;
            match (force, kind) {
                (false, _) => return Err(Error::invalid("directory already has entry by that name")),
                (true, Kind::Directory) => {
                    return Err(Error::invalid(format!(
                        "cannot unlink existing file: not a file: {name}"
                    )));
                }
                (true, Kind::File | Kind::Symlink) => {}
            }
        }
        let size = stat.cumulative;
        tree.last_mut().insert(name.clone(), Entry { cid, size })?;
        let root = tree.save(self).await?;
        self.files_commit(root.cid, flush).await
    }

    /// Protects the local blocks below a root from a collection that runs: its roots are read already.
    async fn touch_below(&self, root: Cid) -> Result<(), Error> {
        let store = self.inner.store.clone();
        blocking(move || {
            if !store.protect().is_collecting() {
                return Ok(());
            }
            let touch = |cid: &Cid| {
                let key = crate::store::key_of(cid);
                store.protect().touch_visited([key.as_slice()].into_iter());
            };
            touch(&root);
            dag::for_each_below(&store, root, &mut dag::Visited::default(), &mut |cid| {
                touch(&cid);
                Ok(())
            })
        })
        .await
    }

    /// Moves an entry: into `to` if that is a directory, otherwise to that name.
    pub(crate) async fn files_move(
        &self,
        from: &[Name],
        to: (Vec<Name>, bool),
        flush: bool,
    ) -> Result<(), Error> {
        self.inner.mfs.check_unflushed(flush)?;
        let _changing = self.inner.mfs.changing.lock().await;
        let _guard = self.protect_from_gc();
        let (from_folder, from_name) = split(from)?;
        let cid = self.files_find(from).await?;
        let (mut to, into) = to;
        let target = match self.files_find(&to).await {
            Ok(target) => Some(self.files_stat(target).await?.stat.kind),
            Err(Error::Invalid(_)) => None,
            Err(error) => return Err(error),
        };
        if into || target == Some(Kind::Directory) {
            to.push(from_name.clone());
        }
        if to == from {
            return Ok(());
        }
        if to.starts_with(from) {
            return Err(Error::invalid("cannot move a directory into itself"));
        }
        let size = self.files_stat(cid).await?.cumulative;
        let (to_folder, to_name) = split(&to)?;
        let mut tree = self.open_tree(to_folder, None).await?;
        tree.last_mut().insert(to_name.clone(), Entry { cid, size })?;
        let moved = tree.save(self).await?;
        let mut tree = Tree::open(self, moved.cid, from_folder, None).await?;
        tree.last_mut().remove(from_name);
        let root = tree.save(self).await?;
        self.files_commit(root.cid, flush).await
    }

    /// Removes an entry; a directory only if `recursive`. With `force`, missing and unreadable entries are no
    /// errors.
    pub(crate) async fn files_remove(
        &self,
        path: &[Name],
        recursive: bool,
        force: bool,
    ) -> Result<(), Error> {
        if path.is_empty() {
            return Err(Error::invalid("cannot delete root"));
        }
        let _changing = self.inner.mfs.changing.lock().await;
        let _guard = self.protect_from_gc();
        let (above, name) = split(path)?;
        let mut tree = match self.open_tree(above, None).await {
            Err(Error::Invalid(_)) if force => return Ok(()),
            opened => opened?,
        };
        let Some(existing) = tree.last().entry(name) else {
            return if force { Ok(()) } else { Err(missing()) };
        };
        if !force && !recursive {
            let kind = self.files_stat(existing.cid).await?.stat.kind;
            if kind == Kind::Directory {
                return Err(Error::invalid(
                    "path is a directory, use -r to remove directories",
                ));
            }
        }
        tree.last_mut().remove(name);
        let root = tree.save(self).await?;
        self.files_commit(root.cid, true).await
    }

    /// Replaces an entry by the result of `change`.
    async fn files_replace<F>(&self, path: &[Name], flush: bool, change: F) -> Result<(), Error>
    where
        F: AsyncFnOnce(&Node, Cid) -> Result<Entry, Error>,
    {
        self.inner.mfs.check_unflushed(flush)?;
        let _changing = self.inner.mfs.changing.lock().await;
        let _guard = self.protect_from_gc();
        let old = self.files_find(path).await?;
        let new = change(self, old).await?;
        let root = match split(path) {
            Err(_) => new,
            Ok((above, name)) => {
                let mut tree = self.open_tree(above, None).await?;
                tree.last_mut().insert(name.clone(), new)?;
                tree.save(self).await?
            }
        };
        self.files_commit(root.cid, flush).await
    }

    /// Changes the CID version and hash function of a directory.
    pub(crate) async fn files_set_form(&self, path: &[Name], form: Form, flush: bool) -> Result<(), Error> {
        let change = async |node: &Node, cid: Cid| {
            let mut folder = match Folder::load(node, cid).await {
                Err(Error::Invalid(_)) => return Err(Error::invalid("can only update directories")),
                loaded => loaded?,
            };
            folder.form = form;
            folder.save(node).await
        };
        self.files_replace(path, flush, change).await
    }

    /// Sets the permissions, or the time of modification, of a file or directory.
    pub(crate) async fn files_set_meta(
        &self,
        path: &[Name],
        mode: Option<u32>,
        mtime: Option<(i64, u32)>,
    ) -> Result<(), Error> {
        let change = async |node: &Node, cid: Cid| write::with_meta(node, cid, mode, mtime).await;
        self.files_replace(path, true, change).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_cleaned() {
        let names = |path: &str| {
            let (names, slash) = parse_path(&path.into()).unwrap();
            let names: Vec<String> = names.iter().map(Name::to_string).collect();
            (names.join("/"), slash)
        };
        assert_eq!(names("/a//b/../c/"), ("a/c".to_owned(), true));
        assert_eq!(names("/"), (String::new(), true));
        assert_eq!(names("/.."), (String::new(), false));
        for (path, why) in [
            ("", "must not be empty"),
            ("a/b", "must start with a leading slash"),
        ] {
            assert!(parse_path(&path.into()).unwrap_err().to_string().contains(why));
        }
        assert!(parse_path(&"/a".repeat(1000).into()).is_err());
    }
}
