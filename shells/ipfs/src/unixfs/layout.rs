//! Tree above a file's leaves, built incrementally.

use super::build::{Child, Leaf, Settings, file};
use super::options::{Layout, Metadata};
use super::pb::Type;
use crate::{Block, Error};
use bytes::Bytes;

/// Sub-trees of each depth in a trickle tree.
const TRICKLE_REPEAT: usize = 4;

/// Incremental builder of a tree: takes leaves in order and emits blocks, children first.
#[derive(Debug)]
pub(super) struct Tree {
    meta: Metadata,
    shape: Shape,
    /// First leaf of a file with metadata: as the only leaf it becomes the root, which is a different block.
    held: Option<Leaf>,
    leaves: u64,
}

#[derive(Debug)]
enum Shape {
    /// Unfinished nodes by level, parents of leaves first. A node is closed only when its successor begins,
    /// so that the root is recognised when it is built.
    Balanced(Vec<Vec<Child>>),
    /// The path of unfinished nodes from the root.
    Trickle(Vec<Frame>),
}

#[derive(Debug)]
struct Frame {
    children: Vec<Child>,
    leaves: usize,
    /// Exclusive limit on the depth of sub-trees.
    limit: Option<usize>,
    depth: usize,
    repeat: usize,
}

impl Frame {
    fn new(limit: Option<usize>) -> Frame {
        Frame {
            children: Vec::new(),
            leaves: 0,
            limit,
            depth: 1,
            repeat: 0,
        }
    }
}

impl Tree {
    pub(super) fn new(settings: &Settings, meta: Metadata) -> Tree {
        let shape = match settings.options.layout {
            Layout::Balanced => Shape::Balanced(vec![Vec::new()]),
            Layout::Trickle => Shape::Trickle(vec![Frame::new(None)]),
        };
        Tree {
            meta,
            shape,
            held: None,
            leaves: 0,
        }
    }

    pub(super) fn push(
        &mut self,
        settings: &Settings,
        leaf: Leaf,
        out: &mut Vec<Block>,
    ) -> Result<(), Error> {
        self.leaves += 1;
        let balanced = matches!(self.shape, Shape::Balanced(_));
        if self.leaves == 1 && balanced && self.meta != Metadata::default() && !settings.raw_leaves {
            self.held = Some(leaf);
            return Ok(());
        }
        if let Some(first) = self.held.take() {
            self.place(settings, first, out)?;
        }
        self.place(settings, leaf, out)
    }

    fn place(&mut self, settings: &Settings, leaf: Leaf, out: &mut Vec<Block>) -> Result<(), Error> {
        out.extend(leaf.block);
        match &mut self.shape {
            Shape::Balanced(levels) => push_node(settings, levels, 0, leaf.child, out),
            Shape::Trickle(frames) => trickle(settings, frames, leaf.child, out),
        }
    }

    pub(super) fn finish(mut self, settings: &Settings, out: &mut Vec<Block>) -> Result<Child, Error> {
        if self.leaves == 0 && settings.raw_leaves {
            let leaf = settings.raw_leaf(Bytes::new())?;
            out.extend(leaf.block);
            return Ok(leaf.child);
        }
        if self.leaves == 0 || self.held.is_some() {
            let content = self.held.take().map(|leaf| leaf.content).unwrap_or_default();
            let (root, block) = settings.single(&file(Type::File, content, self.meta))?;
            out.extend(block);
            return Ok(root);
        }
        match self.shape {
            Shape::Balanced(mut levels) => {
                if let [only] = levels.as_mut_slice()
                    && only.len() == 1
                    && let Some(root) = only.pop()
                {
                    return Ok(root);
                }
                let mut level = 0;
                loop {
                    let last = level + 1 == levels.len();
                    let meta = if last { self.meta } else { Metadata::default() };
                    let (node, block) = settings.inner(std::mem::take(&mut levels[level]), meta)?;
                    out.extend(block);
                    if last {
                        return Ok(node);
                    }
                    level += 1;
                    push_node(settings, &mut levels, level, node, out)?;
                }
            }
            Shape::Trickle(mut frames) => loop {
                let meta = if frames.len() == 1 {
                    self.meta
                } else {
                    Metadata::default()
                };
                let children = frames.pop().map(|frame| frame.children).unwrap_or_default();
                let (node, block) = settings.inner(children, meta)?;
                out.extend(block);
                match frames.last_mut() {
                    Some(parent) => parent.children.push(node),
                    None => return Ok(node),
                }
            },
        }
    }
}

/// Adds a node to a level of a balanced tree, closing full nodes.
fn push_node(
    settings: &Settings,
    levels: &mut Vec<Vec<Child>>,
    mut level: usize,
    mut child: Child,
    out: &mut Vec<Block>,
) -> Result<(), Error> {
    loop {
        if level == levels.len() {
            levels.push(Vec::new());
        }
        if levels[level].len() < settings.options.max_file_links {
            levels[level].push(child);
            return Ok(());
        }
        let full = std::mem::replace(&mut levels[level], vec![child]);
        let (node, block) = settings.inner(full, Metadata::default())?;
        out.extend(block);
        child = node;
        level += 1;
    }
}

/// Adds a leaf to a trickle tree.
fn trickle(
    settings: &Settings,
    frames: &mut Vec<Frame>,
    leaf: Child,
    out: &mut Vec<Block>,
) -> Result<(), Error> {
    loop {
        let Some(top) = frames.last_mut() else {
            frames.push(Frame::new(None));
            continue;
        };
        if top.leaves < settings.options.max_file_links {
            top.leaves += 1;
            top.children.push(leaf);
            return Ok(());
        }
        if top.repeat == TRICKLE_REPEAT {
            top.depth += 1;
            top.repeat = 0;
        }
        if top.limit.is_none_or(|limit| top.depth < limit) {
            top.repeat += 1;
            let depth = top.depth;
            frames.push(Frame::new(Some(depth)));
            continue;
        }
        let children = frames.pop().map(|frame| frame.children).unwrap_or_default();
        let (node, block) = settings.inner(children, Metadata::default())?;
        out.extend(block);
        if let Some(parent) = frames.last_mut() {
            parent.children.push(node);
        }
    }
}
