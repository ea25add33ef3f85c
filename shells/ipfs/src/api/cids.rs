//! The commands `cid/…`: conversion and inspection of CIDs, without the node.

use cid::Version;
use cluster_http::rpc::Failure;
use futures::stream;
use multibase::Base;
use serde::Serialize;

use super::reply::Reply;
use super::request::{Call, parse_base};
use crate::ipns::LIBP2P_KEY;
use crate::{Cid, codec, hash};

/// Multibase names with their prefixes.
const BASES: [(&str, char); 13] = [
    ("base16", 'f'),
    ("base16upper", 'F'),
    ("base32", 'b'),
    ("base32upper", 'B'),
    ("base36", 'k'),
    ("base36upper", 'K'),
    ("base58btc", 'z'),
    ("base58flickr", 'Z'),
    ("base64", 'm'),
    ("base64pad", 'M'),
    ("base64url", 'u'),
    ("base64urlpad", 'U'),
    ("base2", '0'),
];

/// Multicodec names of the codecs that this node decodes, and of keys.
const CODECS: [(&str, u64); 8] = [
    ("cbor", 0x51),
    ("raw", codec::RAW),
    ("dag-pb", codec::DAG_PB),
    ("dag-cbor", codec::DAG_CBOR),
    ("libp2p-key", LIBP2P_KEY),
    ("dag-jose", codec::DAG_JOSE),
    ("dag-json", codec::DAG_JSON),
    ("json", 0x0200),
];

/// Multihash code of SHA-256, the only one of CIDv0.
const SHA2_256: u64 = 0x12;

/// Line of the answer to `cid/format` and `cid/base32`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Formatted {
    cid_str: String,
    formatted: String,
    error_msg: String,
}

/// Entry of the listings.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CodeAndName {
    code: u64,
    name: String,
}

/// Conversion of a CID.
struct Conversion {
    format: String,
    version: Option<Version>,
    codec: Option<u64>,
    base: Option<Base>,
}

impl Conversion {
    fn read(call: &Call) -> Result<Conversion, Failure> {
        let given = |option: &str| call.text(option).filter(|text| !text.is_empty());
        let format = given("f").unwrap_or("%s").to_owned();
        if !format.contains('%') {
            return Err(Failure::failed(format!("invalid format string: {format:?}")));
        }
        let codec = given("mc").map(|name| {
            let known = CODECS.iter().find(|(known, _)| *known == name);
            let known = known.map(|(_, code)| *code);
            known.ok_or_else(|| Failure::failed(format!("unknown multicodec: {name:?}")))
        });
        let (codec, base_name) = (codec.transpose()?, given("b"));
        let version = match given("v") {
            None => base_name.map(|_| Version::V1),
            Some("0") if codec.is_some_and(|codec| codec != codec::DAG_PB) => {
                let why = "cannot convert to CIDv0 with any codec other than dag-pb";
                return Err(Failure::failed(why));
            }
            Some("0") if base_name.is_some_and(|base| base != "base58btc") => {
                let why = "cannot convert to CIDv0 with any multibase other than the implicit base58btc";
                return Err(Failure::failed(why));
            }
            Some("0") => Some(Version::V0),
            Some("1") => Some(Version::V1),
            Some(other) => return Err(Failure::failed(format!("invalid cid version: {other:?}"))),
        };
        let base = base_name.map(|name| {
            parse_base(name).ok_or_else(|| Failure::failed(format!("unsupported multibase encoding: {name}")))
        });
        Ok(Conversion {
            format,
            version,
            codec,
            base: base.transpose()?,
        })
    }

    fn apply(&self, text: &str) -> Result<String, String> {
        let mut cid = parse(text)?;
        if let Some(codec) = self.codec.filter(|codec| *codec != cid.codec()) {
            cid = Cid::new_v1(codec, *cid.hash());
        }
        cid = match self.version {
            None => cid,
            Some(Version::V0) => to_v0(&cid)?,
            Some(Version::V1) => cid.into_v1().map_err(|error| error.to_string())?,
        };
        let base = self.base.unwrap_or_else(|| base_of(&cid, text));
        fill(&self.format, &cid, base)
    }
}

fn parse(text: &str) -> Result<Cid, String> {
    hash::parse_cid(text).map_err(|why| why.to_string())
}

fn to_v0(cid: &Cid) -> Result<Cid, String> {
    if cid.codec() != codec::DAG_PB {
        return Err("can't convert non-dag-pb nodes to cidv0".to_owned());
    }
    Cid::new_v0(*cid.hash()).map_err(|error| error.to_string())
}

/// Returns the base in which a CID is written.
fn base_of(cid: &Cid, text: &str) -> Base {
    let prefix = text.chars().next().unwrap_or_default();
    let known = BASES.iter().find(|(_, known)| *known == prefix);
    match (cid.version(), known.and_then(|(name, _)| parse_base(name))) {
        (Version::V1, Some(base)) => base,
        (Version::V0 | Version::V1, _) => Base::Base58Btc,
    }
}

/// Formats a CID; version 0 has no base but base58btc.
fn show(cid: &Cid, base: Base) -> Result<String, String> {
    match cid.version() {
        Version::V0 => Ok(cid.to_string()),
        Version::V1 => cid.to_string_of_base(base).map_err(|error| error.to_string()),
    }
}

/// Fills in the placeholders of a format, as go-cidutil defines them.
fn fill(format: &str, cid: &Cid, base: Base) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let encoded = |bytes: &[u8]| multibase::encode(base, bytes);
        match rest.next() {
            Some('%') => out.push('%'),
            Some('b') => out.push_str(base_name(base)),
            Some('B') => out.push(base.code()),
            Some('v') => out.push_str(if cid.version() == Version::V0 {
                "cidv0"
            } else {
                "cidv1"
            }),
            Some('V') => out.push(if cid.version() == Version::V0 { '0' } else { '1' }),
            Some('c') => out.push_str(&codec_name(cid.codec())),
            Some('C') => out.push_str(&cid.codec().to_string()),
            Some('h') => out.push_str(&hash_name(cid.hash().code())),
            Some('H') => out.push_str(&cid.hash().code().to_string()),
            Some('L') => out.push_str(&cid.hash().size().to_string()),
            Some('m') => out.push_str(&encoded(&cid.hash().to_bytes())),
            Some('M') => out.push_str(without_prefix(&encoded(&cid.hash().to_bytes()))),
            Some('d') => out.push_str(&encoded(cid.hash().digest())),
            Some('D') => out.push_str(without_prefix(&encoded(cid.hash().digest()))),
            Some('s') => out.push_str(&show(cid, base)?),
            Some('S') => out.push_str(without_prefix(&encoded(&cid.to_bytes()))),
            Some('P') => out.push_str(&format!(
                "{}-{}-{}-{}",
                if cid.version() == Version::V0 {
                    "cidv0"
                } else {
                    "cidv1"
                },
                codec_name(cid.codec()),
                hash_name(cid.hash().code()),
                cid.hash().size()
            )),
            other => {
                let found = other.map(String::from).unwrap_or_default();
                return Err(format!("unrecognized specifier in format string: %{found}"));
            }
        }
    }
    Ok(out)
}

/// Returns encoded bytes without the character that names their base.
fn without_prefix(text: &str) -> &str {
    text.get(1..).unwrap_or_default()
}

fn base_name(base: Base) -> &'static str {
    let known = BASES.iter().find(|(_, prefix)| *prefix == base.code());
    known.map_or("unknown", |(name, _)| name)
}

fn codec_name(code: u64) -> String {
    let known = CODECS.iter().find(|(_, known)| *known == code);
    known.map_or_else(|| "unknown".to_owned(), |(name, _)| (*name).to_owned())
}

fn hash_name(code: u64) -> String {
    hash::name_by_code(code).unwrap_or_else(|| "unknown".to_owned())
}

/// Handles `cid/format`.
pub(super) async fn format(call: Call) -> Result<Reply, Failure> {
    convert(&call, &Conversion::read(&call)?)
}

/// Handles `cid/base32`.
pub(super) async fn base32(call: Call) -> Result<Reply, Failure> {
    let conversion = Conversion {
        format: "%s".to_owned(),
        version: Some(Version::V1),
        codec: None,
        base: Some(Base::Base32Lower),
    };
    convert(&call, &conversion)
}

fn convert(call: &Call, conversion: &Conversion) -> Result<Reply, Failure> {
    let lines = call.text_args()?.into_iter().map(|text| {
        let (formatted, error_msg) = match conversion.apply(text) {
            Ok(formatted) => (formatted, String::new()),
            Err(why) => (String::new(), why),
        };
        Ok(Formatted {
            cid_str: text.to_owned(),
            formatted,
            error_msg,
        })
    });
    Reply::objects(stream::iter(lines.collect::<Vec<_>>()))
}

/// Handles `cid/bases`.
pub(super) async fn bases(_: Call) -> Result<Reply, Failure> {
    let bases = BASES.iter().map(|(name, prefix)| (*name, u64::from(*prefix)));
    list(bases)
}

/// Handles `cid/codecs`: the codecs that this node decodes.
pub(super) async fn codecs(_: Call) -> Result<Reply, Failure> {
    list(CODECS.into_iter())
}

/// Handles `cid/hashes`.
pub(super) async fn hashes(_: Call) -> Result<Reply, Failure> {
    list(hash::named().into_iter())
}

fn list(entries: impl Iterator<Item = (&'static str, u64)>) -> Result<Reply, Failure> {
    let entries = entries.map(|(name, code)| CodeAndName {
        code,
        name: name.to_owned(),
    });
    Reply::once(&entries.collect::<Vec<_>>())
}

/// Answer to `cid/inspect`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inspected {
    cid: String,
    version: u8,
    multibase: InspectedBase,
    multicodec: InspectedCodec,
    multihash: InspectedHash,
    #[serde(skip_serializing_if = "String::is_empty")]
    cid_v0: String,
    cid_v1: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    error_msg: String,
}

#[derive(Default, Serialize)]
struct InspectedBase {
    prefix: String,
    name: String,
}

#[derive(Default, Serialize)]
struct InspectedCodec {
    code: u64,
    name: String,
}

#[derive(Default, Serialize)]
struct InspectedHash {
    code: u64,
    name: String,
    length: u8,
    digest: String,
}

/// Handles `cid/inspect`.
pub(super) async fn inspect(call: Call) -> Result<Reply, Failure> {
    let text = call.text_arg(0)?;
    let cid = match parse(text) {
        Ok(cid) => cid,
        Err(why) => {
            let mut error_msg = format!("invalid CID: {why}");
            if let Some(name) = crate::ipns::parse_name(text) {
                error_msg.push_str(&format!(
                    "\nNote: the value is a PeerID; inspect its CID representation instead:\n  {}",
                    crate::ipns::format_name(&name)
                ));
            }
            return Reply::once(&Inspected {
                cid: text.to_owned(),
                version: 0,
                multibase: InspectedBase::default(),
                multicodec: InspectedCodec::default(),
                multihash: InspectedHash::default(),
                cid_v0: String::new(),
                cid_v1: String::new(),
                error_msg,
            });
        }
    };
    let base = base_of(&cid, text);
    let (hash, v1) = (cid.hash(), Cid::new_v1(cid.codec(), *cid.hash()));
    let may_be_v0 = cid.codec() == codec::DAG_PB && hash.code() == SHA2_256 && hash.size() == 32;
    let v1_base = match cid.codec() {
        LIBP2P_KEY => Base::Base36Lower,
        _ => Base::Base32Lower,
    };
    let v0 = to_v0(&cid).ok().filter(|_| may_be_v0);
    Reply::once(&Inspected {
        cid: text.to_owned(),
        version: if cid.version() == Version::V0 { 0 } else { 1 },
        multibase: InspectedBase {
            prefix: base.code().to_string(),
            name: base_name(base).to_owned(),
        },
        multicodec: InspectedCodec {
            code: cid.codec(),
            name: codec_name(cid.codec()),
        },
        multihash: InspectedHash {
            code: hash.code(),
            name: hash_name(hash.code()),
            length: hash.size(),
            digest: without_prefix(&multibase::encode(Base::Base16Lower, hash.digest())).to_owned(),
        },
        cid_v0: v0.map(|cid| cid.to_string()).unwrap_or_default(),
        cid_v1: v1.to_string_of_base(v1_base).unwrap_or_else(|_| v1.to_string()),
        error_msg: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const V0: &str = "QmVr26fY1tKyspEJBniVhqxQeEjhF78XerGiqWAwraVLQH";

    #[test]
    fn formats_are_filled_in() {
        let cid = parse(V0).unwrap();
        let filled = |format: &str| fill(format, &cid, Base::Base58Btc);
        assert_eq!(
            filled("%P %% %h").as_deref(),
            Ok("cidv0-dag-pb-sha2-256-32 % sha2-256")
        );
        assert_eq!(filled("%s").as_deref(), Ok(V0));
        assert_eq!(filled("%S").as_deref(), Ok(V0));
        assert!(filled("%x").is_err() && filled("%").is_err());
    }

    #[test]
    fn only_dag_pb_converts_to_version_0() {
        let v1 = parse(V0).unwrap().into_v1().unwrap();
        assert_eq!(to_v0(&v1).unwrap().to_string(), V0);
        assert!(to_v0(&parse("bafkqaaa").unwrap()).is_err());
        assert_eq!(base_of(&v1, &v1.to_string()), Base::Base32Lower);
    }
}
