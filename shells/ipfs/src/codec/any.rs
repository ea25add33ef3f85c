//! Generators of CIDs, data and nodes for property tests of the codecs.

use super::Data;
use crate::Cid;
use crate::Multihash;
use crate::unixfs::pb::{Link, PbNode};
use bytes::Bytes;
use proptest::collection::{btree_map, vec};
use proptest::num::f64;
use proptest::option;
use proptest::prelude::*;

pub(crate) fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z/\"\\\\]{0,8}", "\\PC{0,4}"]
}

/// Generates CIDs of both versions, with any codec and hash function.
pub(crate) fn cid() -> impl Strategy<Value = Cid> {
    let new = (any::<u64>(), any::<u64>(), vec(any::<u8>(), 0..=128))
        .prop_map(|(codec, code, digest)| Cid::new_v1(codec, Multihash::wrap(code, &digest).unwrap()));
    let old =
        any::<[u8; 32]>().prop_map(|digest| Cid::new_v0(Multihash::wrap(0x12, &digest).unwrap()).unwrap());
    prop_oneof![new, old]
}

/// Generates data that both CBOR and JSON can represent.
pub(crate) fn data() -> impl Strategy<Value = Data> {
    let floats = f64::POSITIVE | f64::NEGATIVE | f64::NORMAL | f64::SUBNORMAL | f64::ZERO;
    let leaf = prop_oneof![
        Just(Data::Null),
        any::<bool>().prop_map(Data::Bool),
        any::<i64>().prop_map(|number| Data::Integer(number.into())),
        any::<u64>().prop_map(|number| Data::Integer(number.into())),
        floats.prop_map(Data::Float),
        text().prop_map(Data::String),
        vec(any::<u8>(), 0..20).prop_map(Data::Bytes),
        cid().prop_map(Data::from),
    ];
    // JSON reserves maps with just this key for links and bytes.
    let is_free = |map: &Data| !matches!(map, Data::Map(map) if map.len() == 1 && map.contains_key("/"));
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Data::List),
            btree_map(text(), inner, 0..4)
                .prop_map(Data::Map)
                .prop_filter("reserved", is_free),
        ]
    })
}

pub(crate) fn node() -> impl Strategy<Value = PbNode> {
    let link = (cid(), text(), any::<u64>()).prop_map(|(cid, name, size)| Link {
        cid,
        name: name.into(),
        size,
    });
    (vec(link, 0..4), option::of(bytes(40))).prop_map(|(links, data)| PbNode { links, data })
}

/// Damages the input: changes a byte or truncates it; sometimes leaves it whole.
pub(crate) fn damaged(whole: impl Strategy<Value = Bytes>) -> impl Strategy<Value = Bytes> {
    (whole, any::<prop::sample::Index>(), any::<u8>(), any::<bool>()).prop_map(|(whole, at, flip, cut)| {
        let mut bytes = whole.to_vec();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at)
            } else {
                bytes[at] ^= flip
            }
        }
        bytes.into()
    })
}
