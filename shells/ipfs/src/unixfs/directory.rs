//! The directories of an upload, kept until it ends because a later entry may still go into any of them.

use super::adder::Added;
use super::build::{Child, Settings};
use super::hamt;
use super::options::{HamtSize, Metadata};
use super::pb::{Link, PbNode, Type, Unixfs};
use crate::{Block, Error, codec};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Names in one upload. Each costs about 200 bytes of memory until the upload ends.
const NAMES_MAX: usize = 4_000_000;
/// Directories in directories; bounds the recursion over them.
const DEPTH_MAX: usize = 256;

/// A directory, its names sorted by bytes as UnixFS wants them.
#[derive(Debug, Default)]
pub(super) struct Directory {
    entries: BTreeMap<String, Entry>,
    meta: Metadata,
}

#[derive(Debug)]
enum Entry {
    Done(Child),
    Directory(Directory),
}

/// Everything that was added, by path.
#[derive(Debug, Default)]
pub(super) struct Names {
    root: Directory,
    count: usize,
}

/// Splits a path of an upload into its names.
pub(super) fn split(path: &str) -> Result<Vec<&str>, Error> {
    let names: Vec<&str> = path
        .split('/')
        .filter(|name| !name.is_empty() && *name != ".")
        .collect();
    if names.contains(&"..") {
        return Err(Error::invalid(format!("path {path:?} leaves the upload")));
    }
    if names.len() > DEPTH_MAX {
        return Err(Error::invalid(format!("path has more than {DEPTH_MAX} names")));
    }
    Ok(names)
}

impl Names {
    /// Refuses a path that is taken, before its content is read.
    pub(super) fn check_free(&self, names: &[&str]) -> Result<(), Error> {
        let mut directory = &self.root;
        for (at, name) in names.iter().enumerate() {
            match directory.entries.get(*name) {
                None => return Ok(()),
                Some(Entry::Directory(below)) if at + 1 < names.len() => directory = below,
                Some(Entry::Directory(_) | Entry::Done(_)) => return Err(taken(&names[..=at])),
            }
        }
        Ok(())
    }

    pub(super) fn insert(&mut self, names: &[&str], child: Child) -> Result<(), Error> {
        self.check_free(names)?;
        let Some((last, parents)) = names.split_last() else {
            return Err(Error::invalid("an entry without a name"));
        };
        self.directory(parents)?
            .entries
            .insert((*last).to_owned(), Entry::Done(child));
        self.count += 1;
        Ok(())
    }

    /// Makes a directory and those above it, if missing.
    pub(super) fn make(&mut self, names: &[&str], meta: Metadata) -> Result<(), Error> {
        self.directory(names)?.meta = meta;
        Ok(())
    }

    fn directory(&mut self, names: &[&str]) -> Result<&mut Directory, Error> {
        if self.count + names.len() > NAMES_MAX {
            return Err(Error::invalid(format!(
                "an upload holds at most {NAMES_MAX} names"
            )));
        }
        let mut directory = &mut self.root;
        for (at, name) in names.iter().enumerate() {
            if !directory.entries.contains_key(*name) {
                self.count += 1;
            }
            let entry = directory.entries.entry((*name).to_owned());
            match entry.or_insert_with(|| Entry::Directory(Directory::default())) {
                Entry::Directory(below) => directory = below,
                Entry::Done(_) => return Err(taken(&names[..=at])),
            }
        }
        Ok(directory)
    }

    /// Builds all directories, deepest first: `(directories, roots)`.
    pub(super) fn build(
        self,
        settings: &Settings,
        out: &mut impl FnMut(Block) -> Result<(), Error>,
    ) -> Result<(Vec<Added>, Vec<Added>), Error> {
        let mut directories = Vec::new();
        if settings.options.wrap {
            build(settings, self.root, "", &mut directories, out)?;
            let roots = directories.last().cloned().into_iter().collect();
            return Ok((directories, roots));
        }
        let mut roots = Vec::new();
        for (name, entry) in self.root.entries {
            let child = match entry {
                Entry::Done(child) => child,
                Entry::Directory(directory) => build(settings, directory, &name, &mut directories, out)?,
            };
            roots.push(added(name, &child));
        }
        Ok((directories, roots))
    }
}

fn taken(names: &[&str]) -> Error {
    Error::invalid(format!("the upload has {:?} twice", names.join("/")))
}

pub(super) fn added(name: String, child: &Child) -> Added {
    Added {
        name,
        cid: child.cid,
        bytes: child.bytes,
        size: child.size,
    }
}

fn build(
    settings: &Settings,
    directory: Directory,
    path: &str,
    directories: &mut Vec<Added>,
    out: &mut impl FnMut(Block) -> Result<(), Error>,
) -> Result<Child, Error> {
    let mut links = Vec::with_capacity(directory.entries.len());
    for (name, entry) in directory.entries {
        let child = match entry {
            Entry::Done(child) => child,
            Entry::Directory(below) => {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}/{name}")
                };
                build(settings, below, &path, directories, out)?
            }
        };
        links.push(Link {
            cid: child.cid,
            name,
            size: child.size,
        });
    }
    let root = finish(settings, links, directory.meta, out)?;
    directories.push(added(path.to_owned(), &root));
    Ok(root)
}

/// A directory from its links, sharded if it is large.
fn finish(
    settings: &Settings,
    links: Vec<Link>,
    meta: Metadata,
    out: &mut impl FnMut(Block) -> Result<(), Error>,
) -> Result<Child, Error> {
    let options = &settings.options;
    let mut node = Unixfs::new(Type::Directory);
    node.meta = meta;
    let crowded = options.max_directory_links > 0 && links.len() > options.max_directory_links;
    let by_links: u64 = links
        .iter()
        .map(|link| (link.name.len() + link.cid.encoded_len()) as u64)
        .sum();
    if crowded || options.hamt_size == HamtSize::Links && by_links > options.hamt_threshold {
        return hamt::build(settings, links, meta, out);
    }
    let below: u64 = links.iter().map(|link| link.size).sum();
    let node = PbNode {
        links,
        data: Some(node.encode().into()),
    };
    let data = Bytes::from(node.encode());
    if options.hamt_size == HamtSize::Block && data.len() as u64 > options.hamt_threshold {
        return hamt::build(settings, node.links, meta, out);
    }
    let size = below + data.len() as u64;
    let (cid, block) = settings.block(codec::DAG_PB, data)?;
    block.map(&mut *out).transpose()?;
    Ok(Child { cid, size, bytes: 0 })
}
