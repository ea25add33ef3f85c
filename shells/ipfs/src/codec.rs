//! The links in a block, whatever its codec.

use crate::Error;
use crate::unixfs::pb::PbNode;
use bytes::Bytes;
use cid::Cid;
use ipld_core::codec::Links;
use ipld_core::ipld::Ipld;

/// Bytes without links.
pub(crate) const RAW: u64 = 0x55;
/// UnixFS and other protobuf nodes.
pub(crate) const DAG_PB: u64 = 0x70;
/// CBOR with links.
pub(crate) const DAG_CBOR: u64 = 0x71;
/// JSON with links.
pub(crate) const DAG_JSON: u64 = 0x0129;
/// CBOR, JSON and public keys: known, and without links.
const LINKLESS: [u64; 4] = [RAW, 0x51, 0x0200, 0x72];

/// Whether blocks of this CID's codec never link to others.
pub(crate) fn is_leaf(cid: &Cid) -> bool {
    LINKLESS.contains(&cid.codec())
}

/// The links of a block in their order, with their names where the codec has them.
pub(crate) fn links(cid: &Cid, data: &Bytes) -> Result<Vec<(String, Cid)>, Error> {
    match cid.codec() {
        DAG_PB => {
            let node = PbNode::decode(cid, data)?;
            Ok(node.links.into_iter().map(|link| (link.name, link.cid)).collect())
        }
        DAG_CBOR => {
            let links = serde_ipld_dagcbor::codec::DagCborCodec::links(data);
            let links = links.map_err(|error| Error::malformed(cid, format!("dag-cbor: {error}")))?;
            Ok(links.map(|cid| (String::new(), cid)).collect())
        }
        DAG_JSON => {
            let mut links = Vec::new();
            crate::dagjson::decode(data)
                .map_err(|why| Error::malformed(cid, why))?
                .references(&mut links);
            Ok(links.into_iter().map(|cid| (String::new(), cid)).collect())
        }
        codec if LINKLESS.contains(&codec) => Ok(Vec::new()),
        codec => Err(Error::Unsupported(format!("codec 0x{codec:x} of {cid}"))),
    }
}

/// A block as IPLD data. A DAG-PB node is the map `{Data, Links}`.
pub(crate) fn decode(cid: &Cid, data: &Bytes) -> Result<Ipld, Error> {
    match cid.codec() {
        DAG_PB => Ok(pb_to_ipld(PbNode::decode(cid, data)?)),
        DAG_CBOR => serde_ipld_dagcbor::from_slice(data)
            .map_err(|error| Error::malformed(cid, format!("dag-cbor: {error}"))),
        DAG_JSON => crate::dagjson::decode(data).map_err(|why| Error::malformed(cid, why)),
        RAW => Ok(Ipld::Bytes(data.to_vec())),
        codec => Err(Error::Unsupported(format!("codec 0x{codec:x} of {cid}"))),
    }
}

/// A block in the form of another codec. As with Kubo it is written anew even when both are the same, so
/// that equal data has one CID however it was spelt; only DAG-PB, which has one form, stays as it is.
pub(crate) fn recode(data: Bytes, input: u64, store: u64) -> Result<Bytes, Error> {
    // Only for the words of an error: the real name comes from the result.
    let named = crate::hash::name(cid::Version::V1, input, 0x12, &data)?;
    let node = decode(&named, &data)?;
    match (store, node) {
        (DAG_PB, _) if input == DAG_PB => Ok(data),
        (DAG_PB, node) => encode_pb(&node).map(Bytes::from).map_err(Error::invalid),
        (DAG_CBOR, node) => serde_ipld_dagcbor::to_vec(&node)
            .map(Bytes::from)
            .map_err(|error| Error::invalid(format!("dag-cbor: {error}"))),
        (DAG_JSON, node) => Ok(crate::dagjson::encode(&node).into()),
        (RAW, Ipld::Bytes(bytes)) => Ok(bytes.into()),
        (RAW, _) => Err(Error::invalid("only bytes can be stored as raw")),
        (other, _) => Err(Error::Unsupported(format!("storing as codec 0x{other:x}"))),
    }
}

fn pb_to_ipld(node: PbNode) -> Ipld {
    let link = |link: crate::unixfs::pb::Link| {
        Ipld::Map(
            [
                ("Hash".to_owned(), Ipld::Link(link.cid)),
                ("Name".to_owned(), Ipld::String(link.name)),
                ("Tsize".to_owned(), Ipld::Integer(i128::from(link.size))),
            ]
            .into(),
        )
    };
    let links = Ipld::List(node.links.into_iter().map(link).collect());
    let data = node
        .data
        .map(|data| ("Data".to_owned(), Ipld::Bytes(data.to_vec())));
    Ipld::Map(data.into_iter().chain([("Links".to_owned(), links)]).collect())
}

/// The map `{Data, Links}` as a DAG-PB node.
fn encode_pb(data: &Ipld) -> Result<Vec<u8>, String> {
    let Ipld::Map(map) = data else {
        return Err("dag-pb: not a map of Data and Links".into());
    };
    let content = match map.get("Data") {
        None | Some(Ipld::Null) => None,
        Some(Ipld::Bytes(bytes)) => Some(Bytes::copy_from_slice(bytes)),
        Some(_) => return Err("dag-pb: Data is not bytes".into()),
    };
    let links = match map.get("Links") {
        Some(Ipld::List(links)) => links.iter().map(pb_link).collect::<Result<_, _>>()?,
        _ => return Err("dag-pb: Links is not a list".into()),
    };
    Ok(PbNode { links, data: content }.encode())
}

fn pb_link(data: &Ipld) -> Result<crate::unixfs::pb::Link, String> {
    let Ipld::Map(map) = data else {
        return Err("dag-pb: a link is not a map".into());
    };
    let Some(Ipld::Link(cid)) = map.get("Hash") else {
        return Err("dag-pb: a link without Hash".into());
    };
    let name = match map.get("Name") {
        Some(Ipld::String(name)) => name.clone(),
        _ => String::new(),
    };
    let size = match map.get("Tsize") {
        Some(Ipld::Integer(size)) => u64::try_from(*size).map_err(|_| "dag-pb: Tsize is out of range")?,
        _ => 0,
    };
    Ok(crate::unixfs::pb::Link {
        cid: *cid,
        name,
        size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recoded(data: &'static str, input: u64, store: u64) -> Result<Bytes, String> {
        recode(Bytes::from_static(data.as_bytes()), input, store).map_err(|error| error.to_string())
    }

    #[test]
    fn a_block_is_written_anew_in_the_codec_it_is_stored_as() {
        let json = recoded("{ \"b\": 1, \"a\": [true] }", DAG_JSON, DAG_JSON);
        assert_eq!(json, Ok(Bytes::from_static(b"{\"a\":[true],\"b\":1}")));
        let cbor = recoded("{\"a\":[true]}", DAG_JSON, DAG_CBOR);
        assert_eq!(cbor, Ok(Bytes::from_static(b"\xa1\x61a\x81\xf5")));
        assert_eq!(recoded("x", RAW, DAG_CBOR), Ok(Bytes::from_static(b"\x41x")));
        assert_eq!(recoded("x", RAW, RAW), Ok(Bytes::from_static(b"x")));
    }

    #[test]
    fn what_a_codec_cannot_hold_or_is_not_what_it_says_is_refused() {
        for (data, input, store) in [
            ("[1]", DAG_JSON, RAW),
            ("[1]", DAG_JSON, DAG_PB),
            ("{", DAG_JSON, RAW),
        ] {
            assert!(recoded(data, input, store).is_err(), "{data} as 0x{store:x}");
        }
        assert!(recoded("1", DAG_JSON, 0x7777).unwrap_err().contains("0x7777"));
    }
}
