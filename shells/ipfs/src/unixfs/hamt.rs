//! Sharded directories (HAMT): a trie over the hashes of the names.

use super::Name;
use super::directory::{self, Done, Output};
use super::options::Metadata;
use super::pb::{self, Type, Unixfs};
use crate::Error;
use bytes::Bytes;

/// Multihash code of murmur3-x64-64, the hash of the names.
pub(super) const MURMUR3: u64 = 0x22;

/// Returns the first 64 bits of MurmurHash3 x64-128 with seed 0.
pub(super) fn murmur3(data: &[u8]) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mix1 = |k: u64| k.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    let mix2 = |k: u64| k.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    let (mut h1, mut h2) = (0u64, 0u64);
    let (whole, tail) = data.as_chunks::<16>();
    for block in whole {
        let k = u128::from_le_bytes(*block);
        h1 ^= mix1(k as u64);
        h1 = h1
            .rotate_left(27)
            .wrapping_add(h2)
            .wrapping_mul(5)
            .wrapping_add(0x52dc_e729);
        h2 ^= mix2((k >> 64) as u64);
        h2 = h2
            .rotate_left(31)
            .wrapping_add(h1)
            .wrapping_mul(5)
            .wrapping_add(0x3849_5ab5);
    }
    let mut last = [0; 16];
    last[..tail.len()].copy_from_slice(tail);
    let k = u128::from_le_bytes(last);
    // An all-zero tail mixes to zero, so absent and zero bytes need no distinction.
    h2 ^= mix2((k >> 64) as u64);
    h1 ^= mix1(k as u64);
    h1 ^= data.len() as u64;
    h2 ^= data.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    let finish = |mut h: u64| {
        h ^= h >> 33;
        h = h.wrapping_mul(0xff51_afd7_ed55_8ccd);
        h ^= h >> 33;
        h = h.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        h ^ h >> 33
    };
    finish(h1).wrapping_add(finish(h2))
}

/// Returns the slot of a name in a node at `depth`; `None` if its hash has no bits left.
pub(super) fn slot(hash: u64, depth: u32, fanout: usize) -> Option<usize> {
    let bits = fanout.trailing_zeros();
    let used = depth.checked_mul(bits)?;
    if used + bits > 64 {
        return None;
    }
    Some((hash << used >> (64 - bits)) as usize)
}

/// Returns the number of digits of the hexadecimal prefix of a link's name.
pub(super) fn prefix_width(fanout: usize) -> usize {
    format!("{:X}", fanout.saturating_sub(1)).len()
}

/// An entry of a sharded directory, with the hash of its name.
struct Hashed {
    hash: u64,
    name: Name,
    done: Done,
}

/// Builds the shards of a directory, deepest first, and returns its root.
pub(super) fn build(
    links: Vec<(Name, Done)>,
    meta: Metadata,
    output: &mut Output<'_>,
) -> Result<Done, Error> {
    let mut hashed: Vec<Hashed> = links
        .into_iter()
        .map(|(name, done)| Hashed {
            hash: murmur3(name.as_bytes()),
            name,
            done,
        })
        .collect();
    // Sorted by hash, the entries of each slot are adjacent at every depth.
    hashed.sort_by_key(|entry| entry.hash);
    shard(&hashed, 0, meta, output)
}

fn shard(entries: &[Hashed], depth: u32, meta: Metadata, output: &mut Output<'_>) -> Result<Done, Error> {
    let fanout = output.settings.options.hamt_fanout;
    let width = prefix_width(fanout);
    let slot_of = |entry: &Hashed| slot(entry.hash, depth, fanout);
    let mut bitfield = vec![0u8; fanout / 8];
    let mut data = Vec::new();
    let mut below = 0;
    for members in entries.chunk_by(|one, other| slot_of(one) == slot_of(other)) {
        let (first, slot) = match members.first().map(|first| (first, slot_of(first))) {
            Some((first, Some(slot))) => (first, slot),
            Some((first, None)) => {
                let why = format!("sharded directory too deep at {:?}", first.name);
                return Err(Error::invalid(why));
            }
            None => continue,
        };
        let byte = bitfield.len() - 1 - slot / 8;
        bitfield[byte] |= 1 << (slot % 8);
        let prefix = format!("{slot:0width$X}");
        let (name, size);
        if members.len() == 1 {
            name = [prefix.as_bytes(), first.name.as_bytes()].concat();
            size = first.done.size;
            pb::put_node_link(&mut data, &first.done.cid, &name, size);
        } else {
            let child = shard(members, depth + 1, Metadata::default(), output)?;
            size = child.size;
            pb::put_node_link(&mut data, &child.cid, prefix.as_bytes(), size);
        }
        below += size;
    }
    let zeros = bitfield.iter().take_while(|byte| **byte == 0).count();
    let mut node = Unixfs::new(Type::Shard);
    node.data = Some(Bytes::from(bitfield.split_off(zeros)));
    node.hash_type = Some(MURMUR3);
    node.fanout = Some(fanout as u64);
    node.meta = meta;
    pb::put_node_data(&mut data, &node.encode());
    let size = below + data.len() as u64;
    directory::inner(data.into(), size, output)
}
