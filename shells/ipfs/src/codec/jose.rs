//! DAG-JOSE: signed and encrypted objects, whose bytes are presented as base64url
//! ([specification](https://ipld.io/specs/codecs/dag-jose/spec/)).

use crate::{Cid, hash};
use ipld_core::ipld::Ipld;
use multibase::Base;

/// Returns the CID that a signed object signs; an encrypted one has none.
pub(super) fn payload(object: &Ipld) -> Option<Cid> {
    let Ipld::Map(map) = object else { return None };
    match map.get("payload") {
        Some(Ipld::Bytes(bytes)) => Cid::try_from(&bytes[..]).ok(),
        _ => None,
    }
}

/// Converts an object to its JSON presentation, with the payload also as a link.
pub(super) fn to_json_form(object: Ipld) -> Ipld {
    let link = payload(&object);
    let mut shown = with_text(object);
    if let (Ipld::Map(map), Some(Ok(link))) = (&mut shown, link.as_ref().map(hash::to_short)) {
        map.insert("link".to_owned(), Ipld::Link(link));
    }
    shown
}

fn with_text(data: Ipld) -> Ipld {
    match data {
        Ipld::Bytes(bytes) => Ipld::String(Base::Base64Url.encode(bytes)),
        Ipld::List(list) => Ipld::List(list.into_iter().map(with_text).collect()),
        Ipld::Map(map) => Ipld::Map(
            map.into_iter()
                .map(|(key, value)| (key, with_text(value)))
                .collect(),
        ),
        Ipld::Null | Ipld::Bool(_) | Ipld::Integer(_) | Ipld::Float(_) | Ipld::String(_) | Ipld::Link(_) => {
            data
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_object_links_to_its_payload_and_presents_bytes_as_text() {
        let cid = Cid::default();
        let signature = Ipld::Map([("signature".to_owned(), Ipld::Bytes(vec![0xff, 0xfe]))].into());
        let object = Ipld::Map(
            [
                ("payload".to_owned(), Ipld::Bytes(cid.to_bytes())),
                ("signatures".to_owned(), Ipld::List(vec![signature])),
            ]
            .into(),
        );
        assert_eq!(payload(&object), Some(cid));
        let json = crate::dagjson::encode(&to_json_form(object)).unwrap();
        assert!(json.contains("\"signature\":\"__4\""), "{json}");
        assert!(json.contains(&format!("\"link\":{{\"/\":\"{cid}\"}}")), "{json}");
        let encrypted = Ipld::Map([("ciphertext".to_owned(), Ipld::Bytes(vec![1]))].into());
        assert_eq!(payload(&encrypted), None);
    }
}
