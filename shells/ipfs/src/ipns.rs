//! IPNS: names that belong to keys, and the signed records that map a name to a path
//! ([specification](https://specs.ipfs.tech/ipns/ipns-record/)).
//!
//! This module parses, validates and creates; `names` stores records and looks them up.

mod record;

pub use record::{RECORD_MAX, Record, RecordError};

use crate::Cid;
use libp2p::PeerId;
use multibase::Base;

/// Codec of CIDs that name keys.
pub(crate) const LIBP2P_KEY: u64 = 0x72;

/// Parses an IPNS name: a peer id in base58, or a CID with the codec of keys in any base.
pub fn parse_name(text: &str) -> Option<PeerId> {
    if text.starts_with("Qm") || text.starts_with('1') {
        return text.parse().ok();
    }
    let cid = Cid::try_from(text).ok()?;
    let is_key = cid.version() == cid::Version::V1 && cid.codec() == LIBP2P_KEY;
    is_key
        .then(|| PeerId::from_bytes(&cid.hash().to_bytes()).ok())
        .flatten()
}

/// Returns the CID that names a key.
pub fn name_cid(name: &PeerId) -> Cid {
    // A peer id is a multihash of at most 64 bytes, and fits.
    let hash = cid::multihash::Multihash::from_bytes(&name.to_bytes()).unwrap_or_default();
    Cid::new_v1(LIBP2P_KEY, hash)
}

/// Formats an IPNS name in base36, the form that fits into a label of a host name.
pub fn format_name(name: &PeerId) -> String {
    let cid = name_cid(name);
    cid.to_string_of_base(Base::Base36Lower)
        .unwrap_or_else(|_| cid.to_string())
}

/// Returns the key of a name's record in a DHT.
pub fn routing_key(name: &PeerId) -> Vec<u8> {
    [b"/ipns/", &name.to_bytes()[..]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_in_all_forms_and_formatted_in_base36() {
        let canonical = "k51qzi5uqu5dlvj2baxnqndepeb86cbk3ng7n3i46uzyxzyqj2xjonzllnv0v8";
        let name = parse_name("12D3KooWRBy97UB99e3J6hiPesre1MZeuNQvfan4gBziswrRJsNK").unwrap();
        assert_eq!(format_name(&name), canonical);
        assert_eq!(parse_name(canonical), Some(name));
        assert_eq!(parse_name(&name_cid(&name).to_string()), Some(name));
        let rsa = parse_name("QmcJM7PRfkSbcM5cf1QugM5R37TLRKyJGgBEhXjLTB8uA2").unwrap();
        let canonical = "k2k4r8ol4m8kkcqz509c1rcjwunebj02gcnm5excpx842u736nja8ger";
        assert_eq!(format_name(&rsa), canonical);
        // CIDs of content are no names.
        for text in ["bafkqabtimvwgy3yk", "example.com", "", "Qm"] {
            assert_eq!(parse_name(text), None, "{text}");
        }
    }
}
