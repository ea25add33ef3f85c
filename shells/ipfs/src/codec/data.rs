//! The [IPLD data model](https://ipld.io/docs/data-model/). Unlike the library `ipld-core`, whose digests
//! have at most 64 bytes, it holds every link that a block may have.

use std::collections::BTreeMap;

use cid::serde::CID_SERDE_PRIVATE_IDENTIFIER;
use serde::{Serialize, Serializer};

use crate::Cid;

/// Decoded data.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    String(String),
    Bytes(Vec<u8>),
    List(Vec<Data>),
    Map(BTreeMap<String, Data>),
    Link(Box<Cid>),
}

impl Data {
    /// Collects the links in the data, in order.
    pub(crate) fn links(&self) -> Vec<Cid> {
        let mut found = Vec::new();
        self.collect_links(&mut found);
        found
    }

    fn collect_links(&self, found: &mut Vec<Cid>) {
        match self {
            Data::List(list) => list.iter().for_each(|data| data.collect_links(found)),
            Data::Map(map) => map.values().for_each(|data| data.collect_links(found)),
            Data::Link(cid) => found.push(**cid),
            Data::Null
            | Data::Bool(_)
            | Data::Integer(_)
            | Data::Float(_)
            | Data::String(_)
            | Data::Bytes(_) => {}
        }
    }
}

impl From<Cid> for Data {
    fn from(link: Cid) -> Data {
        Data::Link(Box::new(link))
    }
}

/// Serializes links as the type of the `cid` crate does, by which codecs recognise them.
impl Serialize for Data {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Data::Null => to.serialize_none(),
            Data::Bool(value) => to.serialize_bool(*value),
            Data::Integer(number) => to.serialize_i128(*number),
            Data::Float(number) => to.serialize_f64(*number),
            Data::String(text) => to.serialize_str(text),
            Data::Bytes(bytes) => to.serialize_bytes(bytes),
            Data::List(list) => to.collect_seq(list),
            Data::Map(map) => to.collect_map(map),
            Data::Link(cid) => {
                to.serialize_newtype_struct(CID_SERDE_PRIVATE_IDENTIFIER, &RawBytes(cid.to_bytes()))
            }
        }
    }
}

struct RawBytes(Vec<u8>);

impl Serialize for RawBytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.0)
    }
}
