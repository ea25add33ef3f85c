//! Hand-written encoding of UnixFS's two protobuf messages: a DAG-PB node must equal Kubo's byte for byte
//! (links before data, empty names written), which no generated encoder guarantees.

use super::Name;
use super::options::Metadata;
use crate::Cid;
use crate::Error;
use bytes::{Bytes, BytesMut};

/// Type of a UnixFS node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Raw,
    Directory,
    File,
    Metadata,
    Symlink,
    Shard,
}

/// A link of a DAG-PB node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) cid: Cid,
    pub(crate) name: Name,
    pub(crate) size: u64,
}

/// A DAG-PB node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PbNode {
    pub(crate) links: Vec<Link>,
    pub(crate) data: Option<Bytes>,
}

/// Data of a UnixFS node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unixfs {
    pub(crate) kind: Type,
    pub(crate) data: Option<Bytes>,
    pub(crate) size: Option<u64>,
    pub(crate) block_sizes: Vec<u64>,
    pub(crate) hash_type: Option<u64>,
    pub(crate) fanout: Option<u64>,
    pub(crate) meta: Metadata,
}

impl Unixfs {
    pub(crate) fn new(kind: Type) -> Unixfs {
        Unixfs {
            kind,
            data: None,
            size: None,
            block_sizes: Vec::new(),
            hash_type: None,
            fanout: None,
            meta: Metadata::default(),
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            Type::Raw => 0,
            Type::Directory => 1,
            Type::File => 2,
            Type::Metadata => 3,
            Type::Symlink => 4,
            Type::Shard => 5,
        };
        let data = self.data.as_ref().map_or(0, Bytes::len);
        let mut out = Vec::with_capacity(data + 32 + 11 * self.block_sizes.len());
        put_number(&mut out, 1, kind);
        if let Some(data) = &self.data {
            put_bytes(&mut out, 2, data);
        }
        if let Some(size) = self.size {
            put_number(&mut out, 3, size);
        }
        self.block_sizes
            .iter()
            .for_each(|size| put_number(&mut out, 4, *size));
        for (field, value) in [(5, self.hash_type), (6, self.fanout)] {
            if let Some(value) = value {
                put_number(&mut out, field, value);
            }
        }
        if let Some(mode) = self.meta.mode.filter(|mode| *mode != 0) {
            put_number(&mut out, 7, u64::from(mode));
        }
        if let Some((seconds, nanos)) = self.meta.mtime.filter(|time| *time != (0, 0)) {
            let mut time = Vec::with_capacity(16);
            put_number(&mut time, 1, seconds.cast_unsigned());
            if nanos > 0 {
                put_varint(&mut time, 2 << 3 | 5);
                time.extend_from_slice(&nanos.to_le_bytes());
            }
            put_bytes(&mut out, 8, &time);
        }
        out
    }

    pub(crate) fn decode(cid: &Cid, bytes: &Bytes) -> Result<Unixfs, Error> {
        let bad = |why: &str| Error::malformed(cid, format!("unixfs: {why}"));
        let mut node = Unixfs::new(Type::Raw);
        let mut kind = None;
        for field in Fields(bytes.clone()) {
            match field.map_err(bad)? {
                (1, Value::Number(n)) => kind = Some(n),
                (2, Value::Bytes(data)) => node.data = Some(data),
                (3, Value::Number(n)) => node.size = Some(n),
                (4, Value::Number(n)) => node.block_sizes.push(n),
                (4, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        node.block_sizes.push(take_varint(&mut packed).map_err(bad)?);
                    }
                }
                (5, Value::Number(n)) => node.hash_type = Some(n),
                (6, Value::Number(n)) => node.fanout = Some(n),
                (7, Value::Number(n)) => node.meta.mode = u32::try_from(n).ok(),
                (8, Value::Bytes(time)) => node.meta.mtime = Some(decode_time(time).map_err(bad)?),
                (_, Value::Number(_) | Value::Bytes(_) | Value::Fixed(_)) => {}
            }
        }
        node.kind = match kind {
            Some(0) => Type::Raw,
            Some(1) => Type::Directory,
            Some(2) => Type::File,
            Some(3) => Type::Metadata,
            Some(4) => Type::Symlink,
            Some(5) => Type::Shard,
            Some(_) => return Err(bad("unknown type")),
            None => return Err(bad("no type")),
        };
        Ok(node)
    }
}

/// Room that [`leaf`] needs before the content, in bytes: the tags and lengths of both messages, and the
/// type.
pub(crate) const LEAF_BEFORE: usize = 14;
/// Room that [`leaf`] needs after the content, in bytes: the size.
pub(crate) const LEAF_AFTER: usize = 6;

/// Encodes a leaf around its content without a copy. The content, at least one byte, begins at
/// [`LEAF_BEFORE`] of the buffer; the bytes before it may have any value. Returns the node and the range of
/// the content in it.
pub(crate) fn leaf(kind: Type, mut buffer: BytesMut) -> (Bytes, std::ops::Range<usize>) {
    let content = buffer.len().saturating_sub(LEAF_BEFORE);
    let mut node = Unixfs::new(kind);
    node.size = Some(content as u64);
    // A node without its data is its type and its size, two bytes and the rest.
    let described = node.encode();
    let (kind, size) = described.split_at(2);
    let mut inner = Vec::with_capacity(LEAF_BEFORE);
    inner.extend_from_slice(kind);
    put_varint(&mut inner, 2 << 3 | 2);
    put_varint(&mut inner, content as u64);
    let mut head = Vec::with_capacity(LEAF_BEFORE);
    put_varint(&mut head, 1 << 3 | 2);
    put_varint(&mut head, (inner.len() + content + size.len()) as u64);
    head.extend_from_slice(&inner);
    let start = LEAF_BEFORE - head.len();
    buffer[start..LEAF_BEFORE].copy_from_slice(&head);
    buffer.extend_from_slice(size);
    (buffer.freeze().slice(start..), head.len()..head.len() + content)
}

fn decode_time(time: Bytes) -> Result<(i64, u32), &'static str> {
    let mut seconds = 0;
    let mut nanos = 0;
    for field in Fields(time) {
        match field? {
            (1, Value::Number(n)) => seconds = n.cast_signed(),
            (2, Value::Fixed(n)) => nanos = u32::try_from(n).map_err(|_| "nanoseconds out of range")?,
            (_, Value::Number(_) | Value::Bytes(_) | Value::Fixed(_)) => {}
        }
    }
    Ok((seconds, nanos))
}

impl PbNode {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let data = self.data.as_ref().map_or(0, Bytes::len);
        let names: usize = self
            .links
            .iter()
            .map(|link| link.name.as_bytes().len() + 64)
            .sum();
        let mut out = Vec::with_capacity(data + names + 8);
        for link in &self.links {
            put_node_link(&mut out, &link.cid.to_bytes(), link.name.as_bytes(), link.size);
        }
        if let Some(data) = &self.data {
            put_node_data(&mut out, data);
        }
        out
    }

    pub(crate) fn decode(cid: &Cid, bytes: &Bytes) -> Result<PbNode, Error> {
        let bad = |why: &str| Error::malformed(cid, format!("dag-pb: {why}"));
        let mut node = PbNode::default();
        for field in Fields(bytes.clone()) {
            match field.map_err(bad)? {
                (1, Value::Bytes(data)) if node.data.is_none() => node.data = Some(data),
                (2, Value::Bytes(link)) => node.links.push(decode_link(link).map_err(bad)?),
                _ => return Err(bad("unexpected field")),
            }
        }
        Ok(node)
    }
}

/// Encodes a node canonically: its links first, sorted by name. Absent fields of a link stay absent.
pub(crate) fn canonical(cid: &Cid, bytes: &Bytes) -> Result<Vec<u8>, Error> {
    let bad = |why: &str| Error::malformed(cid, format!("dag-pb: {why}"));
    let data = PbNode::decode(cid, bytes)?.data;
    let mut links = Vec::new();
    for field in Fields(bytes.clone()) {
        if let (2, Value::Bytes(link)) = field.map_err(bad)? {
            links.push((decode_link(link.clone()).map_err(bad)?.name, link));
        }
    }
    Ok(assemble(links, data.as_ref()))
}

/// Assembles a node from encoded links, each given with its name.
pub(crate) fn assemble(mut links: Vec<(Name, Bytes)>, data: Option<&Bytes>) -> Vec<u8> {
    links.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut out = Vec::new();
    for (_, link) in links {
        put_bytes(&mut out, 2, &link);
    }
    if let Some(data) = data {
        put_bytes(&mut out, 1, data);
    }
    out
}

/// Appends a link to a node being encoded. All links precede the data.
pub(crate) fn put_node_link(out: &mut Vec<u8>, cid: &[u8], name: &[u8], size: u64) {
    let mut link = Vec::with_capacity(cid.len() + name.len() + 32);
    put_link(&mut link, cid, Some(name), Some(size));
    put_bytes(out, 2, &link);
}

/// Appends the data to a node being encoded.
pub(crate) fn put_node_data(out: &mut Vec<u8>, data: &[u8]) {
    put_bytes(out, 1, data);
}

/// Appends a link with optional fields.
pub(crate) fn put_link(out: &mut Vec<u8>, cid: &[u8], name: Option<&[u8]>, size: Option<u64>) {
    put_bytes(out, 1, cid);
    if let Some(name) = name {
        put_bytes(out, 2, name);
    }
    if let Some(size) = size {
        put_number(out, 3, size);
    }
}

fn decode_link(bytes: Bytes) -> Result<Link, &'static str> {
    let mut cid = None;
    let mut name = Name::default();
    let mut size = 0;
    for field in Fields(bytes) {
        match field? {
            (1, Value::Bytes(hash)) => {
                cid = Some(Cid::try_from(&*hash).map_err(|_| "a link's cid is malformed")?)
            }
            (2, Value::Bytes(bytes)) => name = Name::from(&*bytes),
            (3, Value::Number(n)) => size = n,
            _ => return Err("unexpected field in a link"),
        }
    }
    Ok(Link {
        cid: cid.ok_or("a link without a cid")?,
        name,
        size,
    })
}

enum Value {
    Number(u64),
    Fixed(u64),
    Bytes(Bytes),
}

/// Iterator over the fields of a message, in order.
struct Fields(Bytes);

impl Iterator for Fields {
    type Item = Result<(u64, Value), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0.clear();
        }
        Some(field)
    }
}

impl Fields {
    fn field(&mut self) -> Result<(u64, Value), &'static str> {
        let tag = take_varint(&mut self.0)?;
        let value = match tag & 7 {
            0 => Value::Number(take_varint(&mut self.0)?),
            1 => Value::Fixed(take_fixed::<8>(&mut self.0).map(u64::from_le_bytes)?),
            2 => {
                let length = take_varint(&mut self.0)?;
                let length = usize::try_from(length).map_err(|_| "length out of range")?;
                if length > self.0.len() {
                    return Err("truncated");
                }
                Value::Bytes(self.0.split_to(length))
            }
            5 => Value::Fixed(take_fixed::<4>(&mut self.0).map(u32::from_le_bytes)?.into()),
            _ => return Err("unknown wire type"),
        };
        Ok((tag >> 3, value))
    }
}

fn take_fixed<const N: usize>(bytes: &mut Bytes) -> Result<[u8; N], &'static str> {
    let fixed = bytes.first_chunk::<N>().copied().ok_or("truncated")?;
    let _ = bytes.split_to(N);
    Ok(fixed)
}

fn take_varint(bytes: &mut Bytes) -> Result<u64, &'static str> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        let part = u64::from(byte & 0x7f);
        if at == 9 && part > 1 {
            return Err("varint out of range");
        }
        value |= part << (7 * at);
        if byte & 0x80 == 0 {
            let _ = bytes.split_to(at + 1);
            return Ok(value);
        }
    }
    Err("truncated varint")
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, field: u64, value: u64) {
    put_varint(out, field << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_varint(out, field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::any;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn types() -> impl Strategy<Value = Type> {
        prop::sample::select(vec![
            Type::Raw,
            Type::Directory,
            Type::File,
            Type::Metadata,
            Type::Symlink,
            Type::Shard,
        ])
    }

    fn unixfs() -> impl Strategy<Value = Unixfs> {
        let numbers = || option::of(proptest::num::u64::ANY);
        let content = (
            option::of(any::bytes(40)),
            numbers(),
            vec(proptest::num::u64::ANY, 0..4),
        );
        let mode = option::of(1..=u32::MAX);
        let mtime = (proptest::num::i64::ANY, proptest::num::u32::ANY);
        let mtime = option::of(mtime.prop_filter("is as none", |time| *time != (0, 0)));
        let shard = (numbers(), numbers());
        (types(), content, shard, mode, mtime).prop_map(|(kind, content, shard, mode, mtime)| {
            let ((data, size, block_sizes), (hash_type, fanout)) = (content, shard);
            Unixfs {
                kind,
                data,
                size,
                block_sizes,
                hash_type,
                fanout,
                meta: Metadata { mode, mtime },
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn nodes_round_trip(node in any::node(), unixfs in unixfs()) {
            let cid = Cid::default();
            prop_assert_eq!(PbNode::decode(&cid, &node.encode().into()).unwrap(), node);
            prop_assert_eq!(Unixfs::decode(&cid, &unixfs.encode().into()).unwrap(), unixfs);
        }

        #[test]
        fn leaves_are_encoded_like_nodes(kind in types(), content in vec(proptest::num::u8::ANY, 1..300)) {
            let (node, within) = leaf(kind, [&[0; LEAF_BEFORE], &content[..]].concat()[..].into());
            prop_assert_eq!(&node[within], &content[..]);
            let mut unixfs = Unixfs::new(kind);
            unixfs.size = Some(content.len() as u64);
            unixfs.data = Some(content.into());
            let expected = PbNode { links: Vec::new(), data: Some(unixfs.encode().into()) };
            prop_assert_eq!(node, expected.encode());
        }

        #[test]
        fn arbitrary_bytes_are_parsed_or_refused(
            node in any::damaged(any::node().prop_map(|node| node.encode().into())),
            unixfs in any::damaged(unixfs().prop_map(|unixfs| unixfs.encode().into())),
            garbage in any::bytes(100),
        ) {
            for bytes in [node, unixfs, garbage] {
                let _ = PbNode::decode(&Cid::default(), &bytes);
                let _ = Unixfs::decode(&Cid::default(), &bytes);
            }
        }
    }
}
