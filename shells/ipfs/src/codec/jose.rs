//! DAG-JOSE: signed and encrypted objects, whose bytes are presented as base64url
//! ([specification](https://ipld.io/specs/codecs/dag-jose/spec/)).

use super::Data;
use crate::Cid;
use multibase::Base;

/// Returns the CID that a signed object signs; an encrypted one has none.
pub(super) fn payload(object: &Data) -> Option<Cid> {
    let Data::Map(map) = object else { return None };
    match map.get("payload") {
        Some(Data::Bytes(bytes)) => Cid::try_from(&bytes[..]).ok(),
        _ => None,
    }
}

/// Converts an object to its JSON presentation, with the payload also as a link.
pub(super) fn to_json_form(object: Data) -> Data {
    let link = payload(&object);
    let mut shown = with_text(object);
    if let (Data::Map(map), Some(link)) = (&mut shown, link) {
        map.insert("link".to_owned(), Data::from(link));
    }
    shown
}

fn with_text(data: Data) -> Data {
    match data {
        Data::Bytes(bytes) => Data::String(Base::Base64Url.encode(bytes)),
        Data::List(list) => Data::List(list.into_iter().map(with_text).collect()),
        Data::Map(map) => Data::Map(
            map.into_iter()
                .map(|(key, value)| (key, with_text(value)))
                .collect(),
        ),
        Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Float(_) | Data::String(_) | Data::Link(_) => {
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
        let signature = Data::Map([("signature".to_owned(), Data::Bytes(vec![0xff, 0xfe]))].into());
        let object = Data::Map(
            [
                ("payload".to_owned(), Data::Bytes(cid.to_bytes())),
                ("signatures".to_owned(), Data::List(vec![signature])),
            ]
            .into(),
        );
        assert_eq!(payload(&object), Some(cid));
        let json = crate::dagjson::encode(&to_json_form(object)).unwrap();
        assert!(json.contains("\"signature\":\"__4\""), "{json}");
        assert!(json.contains(&format!("\"link\":{{\"/\":\"{cid}\"}}")), "{json}");
        let encrypted = Data::Map([("ciphertext".to_owned(), Data::Bytes(vec![1]))].into());
        assert_eq!(payload(&encrypted), None);
    }
}
