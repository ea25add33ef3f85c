//! Directories of an upload. They are kept in memory because later entries may go into any of them. If they
//! need much memory, those that seem complete are built, and only their CIDs are kept.

use super::adder::Added;
use super::build::{Child, Settings};
use super::name_budget::{NameBudget, UPLOAD_MAX};
use super::options::{AddOptions, HamtSize, Metadata};
use super::pb::{self, Type, Unixfs};
use super::{Name, hamt};
use crate::Cid;
use crate::{Block, Error, codec};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Maximum depth of directories; limits the recursion over them.
const DEPTH_MAX: usize = 256;
/// Memory of an entry besides its name, in bytes: its share of a tree node, the allocations of its name and
/// CID, and its place in the list from which its directory is built.
const ENTRY_COST: usize = 320;
/// Memory of a directory besides its name, in bytes: the first node of its tree has room for eleven entries.
const DIRECTORY_COST: usize = 1024;
/// Growth of an upload's memory since the last time, in bytes, at which directories that seem complete are
/// built; they also are when half of the limit is used.
const EARLY_BUILD_BYTES: usize = UPLOAD_MAX / 8;

/// A directory, with its names sorted by bytes as UnixFS requires.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: BTreeMap<Name, Entry>,
    meta: Metadata,
}

#[derive(Debug)]
enum Entry {
    Done(Done),
    Open(Box<Directory>),
    /// A directory that was built before the end of the upload, to save memory.
    Closed(Done),
}

/// Root of a finished entry, in compact form.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) cid: Box<[u8]>,
    pub(super) size: u64,
    bytes: u64,
}

impl From<Child> for Done {
    fn from(child: Child) -> Done {
        Done {
            cid: child.cid.to_bytes().into(),
            size: child.size,
            bytes: child.bytes,
        }
    }
}

impl Done {
    fn added(&self, name: Name) -> Result<Added, Error> {
        let cid = Cid::try_from(&*self.cid).map_err(|error| Error::invalid(format!("cid: {error}")))?;
        Ok(Added {
            name,
            cid,
            bytes: self.bytes,
            size: self.size,
        })
    }
}

/// All entries of an upload, by path.
#[derive(Debug)]
pub(super) struct Names {
    root: Directory,
    budget: NameBudget,
    /// Bytes in use from which directories are built early.
    early_build_at: usize,
}

/// Destination of the nodes and directories built.
pub(super) struct Output<'a> {
    pub(super) settings: &'a Settings,
    pub(super) block: &'a mut dyn FnMut(Block) -> Result<(), Error>,
    pub(super) added: &'a mut dyn FnMut(Added) -> Result<(), Error>,
}

/// Splits a path of an upload into its names.
pub(super) fn split(path: &[u8]) -> Result<Vec<&[u8]>, Error> {
    let names: Vec<&[u8]> = path
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .collect();
    if names.contains(&&b".."[..]) {
        return Err(Error::invalid(format!(
            "path {:?} leaves the upload",
            Name::from(path)
        )));
    }
    if names.len() > DEPTH_MAX {
        return Err(Error::invalid(format!("path has more than {DEPTH_MAX} names")));
    }
    Ok(names)
}

fn join(names: &[&[u8]]) -> Name {
    names.join(&b'/').into()
}

impl Default for Names {
    fn default() -> Names {
        Names {
            root: Directory::default(),
            budget: NameBudget::default(),
            early_build_at: UPLOAD_MAX / 2,
        }
    }
}

impl Names {
    /// Returns whether there is an entry with this name at the top.
    pub(super) fn has_top(&self, name: &[u8]) -> bool {
        self.root.entries.contains_key(name)
    }

    /// Returns whether it is time to [`Names::close`] directories.
    pub(super) fn needs_early_build(&self) -> bool {
        self.budget.used() >= self.early_build_at
    }

    /// Refuses a path in use, before its content is read.
    pub(super) fn check_free(&self, names: &[&[u8]]) -> Result<(), Error> {
        let mut directory = &self.root;
        for (at, name) in names.iter().enumerate() {
            match directory.entries.get(*name) {
                None => return Ok(()),
                Some(Entry::Open(below)) if at + 1 < names.len() => directory = below,
                Some(Entry::Closed(_)) if at + 1 < names.len() => return Err(closed_error(&names[..=at])),
                Some(Entry::Open(_) | Entry::Done(_) | Entry::Closed(_)) => {
                    return Err(in_use_error(&names[..=at]));
                }
            }
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, names: &[&[u8]], child: Child) -> Result<(), Error> {
        self.check_free(names)?;
        let Some((last, parents)) = names.split_last() else {
            return Err(Error::invalid("an entry without a name"));
        };
        self.budget.charge(ENTRY_COST + last.len())?;
        let directory = self.directory(parents)?;
        directory
            .entries
            .insert(Name::from(*last), Entry::Done(child.into()));
        Ok(())
    }

    /// Creates a directory and its missing parents.
    pub(super) fn create(&mut self, names: &[&[u8]], meta: Metadata) -> Result<(), Error> {
        self.directory(names)?.meta = meta;
        Ok(())
    }

    fn directory(&mut self, names: &[&[u8]]) -> Result<&mut Directory, Error> {
        let mut directory = &mut self.root;
        for (at, name) in names.iter().enumerate() {
            if !directory.entries.contains_key(*name) {
                self.budget.charge(ENTRY_COST + DIRECTORY_COST + name.len())?;
            }
            let entry = directory.entries.entry(Name::from(*name));
            match entry.or_insert_with(|| Entry::Open(Box::default())) {
                Entry::Open(below) => directory = below,
                Entry::Done(_) => return Err(in_use_error(&names[..=at])),
                Entry::Closed(_) => return Err(closed_error(&names[..=at])),
            }
        }
        Ok(directory)
    }

    /// Builds all directories except those on `current`, the path of the next entry.
    pub(super) fn close(&mut self, current: &[Name], output: &mut Output<'_>) -> Result<(), Error> {
        close(&mut self.root, &[], current, output)?;
        self.budget.shrink_to(cost(&self.root));
        self.early_build_at = (self.budget.used() + EARLY_BUILD_BYTES).max(UPLOAD_MAX / 2);
        Ok(())
    }

    /// Builds all directories, deepest first. Returns the roots.
    pub(super) fn build(self, output: &mut Output<'_>) -> Result<Vec<Added>, Error> {
        if output.settings.options.wrap {
            let root = build(self.root, b"", output)?.added(Name::default())?;
            (output.added)(root.clone())?;
            return Ok(vec![root]);
        }
        let mut roots = Vec::new();
        for (name, entry) in self.root.entries {
            let done = finish_entry(entry, name.as_bytes(), output)?;
            roots.push(done.added(name)?);
        }
        Ok(roots)
    }
}

fn in_use_error(names: &[&[u8]]) -> Error {
    Error::invalid(format!("the upload has {:?} twice", join(names)))
}

fn closed_error(names: &[&[u8]]) -> Error {
    Error::invalid(format!(
        "the upload comes back to directory {:?}, which was completed to save memory: send the entries of \
         each directory one after the other",
        join(names)
    ))
}

pub(super) fn added(name: Name, child: &Child) -> Added {
    Added {
        name,
        cid: child.cid,
        bytes: child.bytes,
        size: child.size,
    }
}

/// Returns the bytes of memory that a directory is charged for.
fn cost(directory: &Directory) -> usize {
    let of = |(name, entry): (&Name, &Entry)| {
        let below = match entry {
            Entry::Open(below) => DIRECTORY_COST + cost(below),
            Entry::Done(_) | Entry::Closed(_) => 0,
        };
        ENTRY_COST + name.as_bytes().len() + below
    };
    directory.entries.iter().map(of).sum()
}

fn join_path(path: &[u8], name: &Name) -> Vec<u8> {
    if path.is_empty() {
        return name.as_bytes().to_vec();
    }
    [path, b"/", name.as_bytes()].concat()
}

fn close(
    directory: &mut Directory,
    path: &[u8],
    current: &[Name],
    output: &mut Output<'_>,
) -> Result<(), Error> {
    for (name, entry) in &mut directory.entries {
        let Entry::Open(open) = entry else { continue };
        let path = join_path(path, name);
        if current.first() == Some(name) {
            close(open, &path, &current[1..], output)?;
        } else {
            let open = Entry::Open(std::mem::take(open));
            *entry = Entry::Closed(finish_entry(open, &path, output)?);
        }
    }
    Ok(())
}

/// Returns the root of an entry at `path`; builds and reports an open directory.
fn finish_entry(entry: Entry, path: &[u8], output: &mut Output<'_>) -> Result<Done, Error> {
    match entry {
        Entry::Done(done) | Entry::Closed(done) => Ok(done),
        Entry::Open(directory) => {
            let done = build(*directory, path, output)?;
            (output.added)(done.added(path.into())?)?;
            Ok(done)
        }
    }
}

fn build(directory: Directory, path: &[u8], output: &mut Output<'_>) -> Result<Done, Error> {
    let mut links = Vec::with_capacity(directory.entries.len());
    for (name, entry) in directory.entries {
        let done = match entry {
            Entry::Open(_) => finish_entry(entry, &join_path(path, &name), output)?,
            Entry::Done(done) | Entry::Closed(done) => done,
        };
        links.push((name, done));
    }
    finish(links, directory.meta, output)
}

/// Builds a directory from its links, sharded if it is large.
fn finish(links: Vec<(Name, Done)>, meta: Metadata, output: &mut Output<'_>) -> Result<Done, Error> {
    let options = &output.settings.options;
    let has_too_many_links = options.max_directory_links > 0 && links.len() > options.max_directory_links;
    let by_links: u64 = links
        .iter()
        .map(|(name, done)| (name.as_bytes().len() + done.cid.len()) as u64)
        .sum();
    if has_too_many_links || options.hamt_size == HamtSize::Links && by_links > options.hamt_threshold {
        return hamt::build(links, meta, output);
    }
    let mut node = Unixfs::new(Type::Directory);
    node.meta = meta;
    let mut data = Vec::new();
    for (name, done) in &links {
        pb::put_node_link(&mut data, &done.cid, name.as_bytes(), done.size);
    }
    pb::put_node_data(&mut data, &node.encode());
    if options.hamt_size == HamtSize::Block && data.len() as u64 > options.hamt_threshold {
        return hamt::build(links, meta, output);
    }
    let below: u64 = links.iter().map(|(_, done)| done.size).sum();
    let size = below + data.len() as u64;
    inner(data.into(), size, output)
}

/// Builds a directory from the names, CIDs and sizes of its entries, sharded if it is large; returns its CID,
/// the size of all its blocks, and its own blocks.
pub(crate) fn build_directory(
    options: AddOptions,
    entries: Vec<(Name, Cid, u64)>,
    meta: Metadata,
) -> Result<(Cid, u64, Vec<Block>), Error> {
    let settings = Settings::new(options)?;
    let mut blocks = Vec::new();
    let mut output = Output {
        settings: &settings,
        block: &mut |block| {
            blocks.push(block);
            Ok(())
        },
        added: &mut |_| Ok(()),
    };
    let links = entries.into_iter().map(|(name, cid, size)| {
        let done = Done {
            cid: cid.to_bytes().into(),
            size,
            bytes: 0,
        };
        (name, done)
    });
    let root = finish(links.collect(), meta, &mut output)?.added(Name::default())?;
    Ok((root.cid, root.size, blocks))
}

/// Emits an encoded node of a directory.
pub(super) fn inner(data: Bytes, size: u64, output: &mut Output<'_>) -> Result<Done, Error> {
    let (cid, block) = output.settings.block(codec::DAG_PB, data)?;
    block.map(&mut *output.block).transpose()?;
    Ok(Child { cid, size, bytes: 0 }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unixfs::AddOptions;

    fn child(settings: &Settings, content: &'static str) -> Child {
        settings.raw_leaf(Bytes::from(content)).unwrap().child
    }

    /// Returns the roots, and the paths of directories in the order in which they were built.
    fn added(close_at: Option<usize>) -> (Vec<Added>, Vec<String>) {
        let settings = Settings::new(AddOptions::default()).unwrap();
        let mut names = Names::default();
        let mut built = Vec::new();
        let mut output = Output {
            settings: &settings,
            block: &mut |_| Ok(()),
            added: &mut |added| {
                built.push(added.name.to_string());
                Ok(())
            },
        };
        let paths: [&[&[u8]]; 5] = [
            &[b"a", b"b", b"one"],
            &[b"a", b"b", b"two"],
            &[b"a", b"c", b"three"],
            &[b"a", b"four"],
            &[b"z"],
        ];
        for (at, path) in paths.iter().enumerate() {
            if Some(at) == close_at {
                let current: Vec<Name> = path.iter().copied().map(Name::from).collect();
                let before = names.budget.used();
                names.close(&current, &mut output).unwrap();
                assert!(names.budget.used() < before);
                let late = [&b"a"[..], b"b", b"late"];
                let refused = names.insert(&late, child(&settings, "late")).unwrap_err();
                assert!(
                    refused.to_string().contains("comes back to directory \"a/b\""),
                    "{refused}"
                );
            }
            names.insert(path, child(&settings, "x")).unwrap();
        }
        let roots = names.build(&mut output).unwrap();
        (roots, built)
    }

    #[test]
    fn directories_built_early_have_the_same_cids_and_are_closed() {
        let (roots, built) = added(None);
        assert_eq!(built, ["a/b", "a/c", "a"]);
        for close_at in [2, 3] {
            assert_eq!(added(Some(close_at)), (roots.clone(), built.clone()));
        }
    }

    #[test]
    fn names_are_charged_and_refused_above_the_limit() {
        let settings = Settings::new(AddOptions::default()).unwrap();
        let mut names = Names::default();
        let long = [b'n'; 255];
        names.insert(&[&long], child(&settings, "x")).unwrap();
        assert_eq!(names.budget.used(), ENTRY_COST + 255);
        names.create(&[b"d", b"e"], Metadata::default()).unwrap();
        assert_eq!(names.budget.used(), cost(&names.root));
        names.budget.charge(UPLOAD_MAX - names.budget.used()).unwrap();
        let refused = names.insert(&[b"more"], child(&settings, "x")).unwrap_err();
        assert!(refused.to_string().contains("in several parts"), "{refused}");
    }
}
