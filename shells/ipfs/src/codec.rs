//! Codecs of blocks: their links, decoding to data, and conversion between codecs.

#[cfg(test)]
pub(crate) mod any;
mod cbor;
mod data;
mod jose;

pub(crate) use data::Data;

use crate::Cid;
use crate::Error;
use crate::unixfs::Name;
use crate::unixfs::pb::{self, PbNode};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Bytes without links.
pub(crate) const RAW: u64 = 0x55;
/// UnixFS and other protobuf nodes.
pub(crate) const DAG_PB: u64 = 0x70;
/// CBOR with links.
pub(crate) const DAG_CBOR: u64 = 0x71;
/// Signed or encrypted data in CBOR.
pub(crate) const DAG_JOSE: u64 = 0x85;
/// JSON with links.
pub(crate) const DAG_JSON: u64 = 0x0129;
/// Raw bytes, CBOR, JSON and public keys: supported codecs without links.
const LINKLESS: [u64; 4] = [RAW, 0x51, 0x0200, 0x72];

/// Limit on the memory of a block decoded to data, in bytes. A block of 2 MiB may be a list of a million
/// numbers.
const DATA_MAX: u64 = 256 << 20;

/// Returns whether blocks with this CID's codec never link to others.
pub(crate) fn is_leaf(cid: &Cid) -> bool {
    LINKLESS.contains(&cid.codec())
}

/// Returns the links of a block in order, with their names if the codec has them.
pub(crate) fn links(cid: &Cid, data: &Bytes) -> Result<Vec<(String, Cid)>, Error> {
    match cid.codec() {
        DAG_PB => {
            let node = PbNode::decode(cid, data)?;
            Ok(node
                .links
                .into_iter()
                .map(|link| (link.name.to_string(), link.cid))
                .collect())
        }
        DAG_CBOR => {
            let links = cbor::links(data).map_err(|why| Error::malformed(cid, format!("dag-cbor: {why}")))?;
            Ok(links.into_iter().map(|cid| (String::new(), cid)).collect())
        }
        DAG_JOSE => {
            let payload = jose::payload(&decode_cbor(cid, data)?);
            Ok(payload.map(|cid| ("link".to_owned(), cid)).into_iter().collect())
        }
        DAG_JSON => {
            let data = crate::dagjson::decode(data).map_err(|why| Error::malformed(cid, why))?;
            Ok(data.links().into_iter().map(|cid| (String::new(), cid)).collect())
        }
        codec if LINKLESS.contains(&codec) => Ok(Vec::new()),
        codec => Err(Error::Unsupported(format!("codec 0x{codec:x} of {cid}"))),
    }
}

/// Returns the size of all blocks of a DAG, as its root states it: that of the root alone for codecs without
/// sizes.
pub(crate) fn cumulative_size(cid: &Cid, data: &Bytes) -> Result<u64, Error> {
    let own = data.len() as u64;
    if cid.codec() != DAG_PB {
        return Ok(own);
    }
    let links = PbNode::decode(cid, data)?.links;
    Ok(links.iter().fold(own, |sum, link| sum.saturating_add(link.size)))
}

/// Decodes a block. A DAG-PB node becomes the map `{Data, Links}`.
pub(crate) fn decode(cid: &Cid, data: &Bytes) -> Result<Data, Error> {
    match cid.codec() {
        DAG_PB => Ok(pb_to_data(PbNode::decode(cid, data)?)),
        DAG_CBOR => decode_cbor(cid, data),
        DAG_JOSE => Ok(jose::to_json_form(decode_cbor(cid, data)?)),
        DAG_JSON => crate::dagjson::decode(data).map_err(|why| Error::malformed(cid, why)),
        RAW => Ok(Data::Bytes(data.to_vec())),
        codec => Err(Error::Unsupported(format!("codec 0x{codec:x} of {cid}"))),
    }
}

fn decode_cbor(cid: &Cid, data: &Bytes) -> Result<Data, Error> {
    let (items, maps) = cbor::count(data);
    check_memory(items, maps)?;
    cbor::decode(data).map_err(|why| Error::malformed(cid, format!("dag-cbor: {why}")))
}

/// Refuses data that would take much memory: a value or a map is encoded in a few bytes of CBOR or JSON, and
/// held twice, as decoded and as JSON.
fn check_memory(items: u64, maps: u64) -> Result<(), Error> {
    /// Memory of a value in a list or a map, and in JSON, in bytes.
    const ITEM: u64 = 2 * 48;
    /// Memory of the smallest map, in bytes: a node of a B-tree has room for eleven entries.
    const MAP: u64 = 2 * 800;
    let held = items
        .saturating_mul(ITEM)
        .saturating_add(maps.saturating_mul(MAP));
    if held > DATA_MAX {
        return Err(Error::TooMuchMemory {
            max: DATA_MAX as usize,
        });
    }
    Ok(())
}

/// Converts a block to another codec. Like Kubo, re-encodes it even if both codecs are the same, so that
/// equal data has one CID however it was encoded.
pub(crate) fn recode(data: Bytes, input: u64, store: u64) -> Result<Bytes, Error> {
    // Used only in error texts: the actual CID is computed from the result.
    let named = crate::hash::compute_cid(cid::Version::V1, input, 0x12, &data)?;
    if input == DAG_JSON {
        let count = |bytes: &[u8]| data.iter().filter(|byte| bytes.contains(byte)).count() as u64;
        check_memory(count(b",:[{"), count(b"{"))?;
    }
    let node = decode(&named, &data)?;
    match (store, node) {
        // Not converted to data, which cannot represent links without names.
        (DAG_PB, _) if input == DAG_PB => pb::canonical(&named, &data).map(Bytes::from),
        (DAG_PB, node) => encode_pb(&node).map(Bytes::from).map_err(Error::invalid),
        (DAG_CBOR, node) => serde_ipld_dagcbor::to_vec(&node)
            .map(Bytes::from)
            .map_err(|error| Error::invalid(format!("dag-cbor: {error}"))),
        (DAG_JOSE, _) if input == DAG_JOSE => Ok(data),
        (DAG_JSON, node) => crate::dagjson::encode(&node)
            .map(Bytes::from)
            .map_err(Error::invalid),
        (RAW, Data::Bytes(bytes)) => Ok(bytes.into()),
        (RAW, _) => Err(Error::invalid("only bytes can be stored as raw")),
        (other, _) => Err(Error::Unsupported(format!("storing as codec 0x{other:x}"))),
    }
}

fn pb_to_data(node: PbNode) -> Data {
    let link = |link: pb::Link| {
        Data::Map(
            [
                ("Hash".to_owned(), Data::from(link.cid)),
                ("Name".to_owned(), Data::String(link.name.to_string())),
                ("Tsize".to_owned(), Data::Integer(i128::from(link.size))),
            ]
            .into(),
        )
    };
    let links = Data::List(node.links.into_iter().map(link).collect());
    let data = node
        .data
        .map(|data| ("Data".to_owned(), Data::Bytes(data.to_vec())));
    Data::Map(data.into_iter().chain([("Links".to_owned(), links)]).collect())
}

/// Encodes the map `{Data, Links}` as a DAG-PB node.
fn encode_pb(data: &Data) -> Result<Vec<u8>, String> {
    let Data::Map(map) = data else {
        return Err("dag-pb: not a map of Data and Links".into());
    };
    refuse_other_keys(map, &["Data", "Links"])?;
    let content = match map.get("Data") {
        None | Some(Data::Null) => None,
        Some(Data::Bytes(bytes)) => Some(Bytes::copy_from_slice(bytes)),
        Some(_) => return Err("dag-pb: Data is not bytes".into()),
    };
    let links = match map.get("Links") {
        Some(Data::List(links)) => links.iter().map(pb_link).collect::<Result<_, _>>()?,
        _ => return Err("dag-pb: Links is not a list".into()),
    };
    Ok(pb::assemble(links, content.as_ref()))
}

/// Encodes a link; returns it with its name, by which links are sorted.
fn pb_link(data: &Data) -> Result<(Name, Bytes), String> {
    let Data::Map(map) = data else {
        return Err("dag-pb: a link is not a map".into());
    };
    refuse_other_keys(map, &["Hash", "Name", "Tsize"])?;
    let Some(Data::Link(cid)) = map.get("Hash") else {
        return Err("dag-pb: a link without Hash".into());
    };
    let name = match map.get("Name") {
        None | Some(Data::Null) => None,
        Some(Data::String(name)) => Some(name.as_str()),
        Some(_) => return Err("dag-pb: Name is not a string".into()),
    };
    let size = match map.get("Tsize") {
        None | Some(Data::Null) => None,
        Some(Data::Integer(size)) => match u64::try_from(*size) {
            Ok(size) => Some(size),
            Err(_) => return Err(format!("dag-pb: Tsize {size} is out of range")),
        },
        Some(_) => return Err("dag-pb: Tsize is not a number".into()),
    };
    let mut link = Vec::new();
    pb::put_link(&mut link, &cid.to_bytes(), name.map(str::as_bytes), size);
    Ok((name.unwrap_or_default().into(), link.into()))
}

/// Refuses other keys, whose values would be lost.
fn refuse_other_keys(map: &BTreeMap<String, Data>, keys: &[&str]) -> Result<(), String> {
    match map.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(format!(
            "dag-pb: unexpected key {key:?}, expected one of {}",
            keys.join(", ")
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recoded(data: &'static str, input: u64, store: u64) -> Result<Bytes, String> {
        recode(Bytes::from_static(data.as_bytes()), input, store).map_err(|error| error.to_string())
    }

    #[test]
    fn recode_re_encodes_in_the_target_codec() {
        let json = recoded("{ \"b\": 1, \"a\": [true] }", DAG_JSON, DAG_JSON);
        assert_eq!(json, Ok(Bytes::from_static(b"{\"a\":[true],\"b\":1}")));
        let cbor = recoded("{\"a\":[true]}", DAG_JSON, DAG_CBOR);
        assert_eq!(cbor, Ok(Bytes::from_static(b"\xa1\x61a\x81\xf5")));
        assert_eq!(recoded("x", RAW, DAG_CBOR), Ok(Bytes::from_static(b"\x41x")));
        assert_eq!(recoded("x", RAW, RAW), Ok(Bytes::from_static(b"x")));
    }

    #[test]
    fn invalid_or_unrepresentable_data_is_refused() {
        for (data, input, store) in [
            ("[1]", DAG_JSON, RAW),
            ("[1]", DAG_JSON, DAG_PB),
            ("{", DAG_JSON, RAW),
        ] {
            assert!(recoded(data, input, store).is_err(), "{data} as 0x{store:x}");
        }
        assert!(recoded("1", DAG_JSON, 0x7777).unwrap_err().contains("0x7777"));
    }

    fn named(codec: u64, data: &[u8]) -> Cid {
        crate::hash::compute_cid(cid::Version::V1, codec, 0x12, data).unwrap()
    }

    fn links_of(codec: u64, data: &Bytes) -> Vec<Cid> {
        let links = links(&named(codec, data), data).unwrap();
        links.into_iter().map(|(_, cid)| cid).collect()
    }

    /// Generates blocks of all codecs.
    fn blocks() -> impl Strategy<Value = Bytes> {
        let cbor = any::data().prop_map(|data| serde_ipld_dagcbor::to_vec(&data).unwrap().into());
        let json = any::data().prop_map(|data| crate::dagjson::encode(&data).unwrap().into());
        let pb = any::node().prop_map(|node| node.encode().into());
        prop_oneof![cbor, json, pb, any::bytes(100)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn cbor_and_json_hold_the_same_data_and_links(data in any::data()) {
            let cbor = Bytes::from(serde_ipld_dagcbor::to_vec(&data).unwrap());
            prop_assert_eq!(&decode(&named(DAG_CBOR, &cbor), &cbor).unwrap(), &data);
            let json = recode(cbor.clone(), DAG_CBOR, DAG_JSON).unwrap();
            prop_assert_eq!(&decode(&named(DAG_JSON, &json), &json).unwrap(), &data);
            prop_assert_eq!(recode(json.clone(), DAG_JSON, DAG_JSON).unwrap(), json.clone());
            prop_assert_eq!(recode(json.clone(), DAG_JSON, DAG_CBOR).unwrap(), cbor.clone());
            let mut expected = data.links();
            expected.sort_unstable();
            for (codec, block) in [(DAG_CBOR, cbor), (DAG_JSON, json)] {
                let mut links = links_of(codec, &block);
                links.sort_unstable();
                prop_assert_eq!(&links, &expected);
            }
        }

        #[test]
        fn pb_nodes_round_trip_through_cbor_and_json(node in any::node()) {
            let block = Bytes::from(node.encode());
            let expected: Vec<Cid> = node.links.iter().map(|link| link.cid).collect();
            prop_assert_eq!(links_of(DAG_PB, &block), expected);
            let sorted = recode(block.clone(), DAG_PB, DAG_PB).unwrap();
            let mut links = node.links;
            links.sort_by(|one, other| one.name.cmp(&other.name));
            prop_assert_eq!(&sorted[..], PbNode { links, data: node.data }.encode());
            for codec in [DAG_CBOR, DAG_JSON] {
                let data = recode(block.clone(), DAG_PB, codec).unwrap();
                prop_assert_eq!(recode(data, codec, DAG_PB).unwrap(), sorted.clone());
            }
        }

        #[test]
        fn arbitrary_bytes_are_parsed_or_refused(block in any::damaged(blocks())) {
            for codec in [RAW, DAG_PB, DAG_CBOR, DAG_JSON] {
                let _ = links(&named(codec, &block), &block);
                for store in [RAW, DAG_PB, DAG_CBOR, DAG_JSON] {
                    let Ok(recoded) = recode(block.clone(), codec, store) else {
                        continue;
                    };
                    // A block that can be stored can be read back.
                    prop_assert!(decode(&named(store, &recoded), &recoded).is_ok());
                }
            }
        }
    }

    /// The expected CIDs are Kubo's.
    #[test]
    fn pb_links_are_sorted_and_absent_fields_stay_absent() {
        let nameless = "{\"Links\":[{\"Hash\":{\"/\":\"bafkqablimvwgy3y\"}}]}";
        let unsorted = "{\"Links\":[{\"Hash\":{\"/\":\"bafkqablimvwgy3y\"},\"Name\":\"b\",\"Tsize\":1},\
            {\"Hash\":{\"/\":\"bafkqablimvwgy3y\"},\"Name\":\"a\",\"Tsize\":2}]}";
        for (json, expected) in [
            (
                nameless,
                "bafybeiehwqvlswv7v4haz2pntktxk6eeync7h2p3pywmizsu2qtwk5epv4",
            ),
            (
                unsorted,
                "bafybeihyi43nuehaf2o5blwxe66eetl7g3jziwb5ar6i4jsab4oqg7vbqi",
            ),
        ] {
            let node = recoded(json, DAG_JSON, DAG_PB).unwrap();
            assert_eq!(named(DAG_PB, &node).to_string(), expected, "{json}");
            assert_eq!(recode(node.clone(), DAG_PB, DAG_PB).unwrap(), node);
        }
        let links = [("b", 1), ("a", 2)].map(|(name, size)| pb::Link {
            cid: "bafkqablimvwgy3y".parse().unwrap(),
            name: name.into(),
            size,
        });
        let node = PbNode {
            links: links.into(),
            data: None,
        };
        let sorted = recode(node.encode().into(), DAG_PB, DAG_PB).unwrap();
        assert_eq!(sorted, recoded(unsorted, DAG_JSON, DAG_PB).unwrap());
    }

    #[test]
    fn unknown_or_mistyped_pb_fields_are_refused() {
        for json in [
            "{\"Links\":[],\"x\":1}",
            "{\"Links\":[{\"Hash\":{\"/\":\"bafkqablimvwgy3y\"},\"x\":1}]}",
            "{\"Links\":[{\"Hash\":{\"/\":\"bafkqablimvwgy3y\"},\"Name\":7}]}",
            "{\"Links\":[{\"Hash\":{\"/\":\"bafkqablimvwgy3y\"},\"Tsize\":-1}]}",
            "{\"Links\":[{\"Hash\":{\"/\":\"bafkqablimvwgy3y\"},\"Tsize\":\"1\"}]}",
        ] {
            assert!(recoded(json, DAG_JSON, DAG_PB).is_err(), "{json}");
        }
    }

    #[test]
    fn endless_nesting_is_refused() {
        let deep = 1_000_000;
        for (codec, block) in [
            (DAG_CBOR, vec![0x81; deep]),
            (DAG_CBOR, b"\xa1aa".repeat(deep)),
            (DAG_JSON, vec![b'['; deep]),
            (DAG_JSON, b"{\"a\":".repeat(deep)),
        ] {
            let block = Bytes::from(block);
            let cid = named(codec, &block);
            assert!(links(&cid, &block).is_err());
            assert!(decode(&cid, &block).is_err());
        }
    }
}
