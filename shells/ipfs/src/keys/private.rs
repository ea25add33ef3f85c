//! Private keys with the encoding in which they are stored, and the formats in which they are imported.

use crate::Error;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{self, KeySize};
use libp2p::PeerId;
use libp2p::identity::{DecodingError, Keypair};
use multibase::Base;

/// Default size of a new RSA key, in bits; Kubo's.
pub(crate) const RSA_SIZE: i64 = 2048;

/// Header of an Ed25519 key in PKCS #8 (RFC 8410), before its 32 bytes.
const PKCS8_ED25519: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// DER tags of the fields of an RSA key in PKCS #8 (RFC 5208).
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// Fields of libp2p's protobuf encoding of an RSA key: the type, and the tag of the data.
const PROTOBUF_RSA: [u8; 3] = [0x08, 0, 0x12];

/// A private key with its encoding in libp2p's protobuf, which libp2p cannot write for RSA.
pub(crate) struct PrivateKey {
    pub(crate) pair: Keypair,
    protobuf: Vec<u8>,
}

impl PrivateKey {
    /// Returns a new Ed25519 key.
    pub(crate) fn generate_ed25519() -> Result<PrivateKey, Error> {
        PrivateKey::from_pair(Keypair::generate_ed25519())
    }

    /// Returns a new RSA key of a size in bits. Blocks the thread, for seconds at 8192 bits.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the size is none of 2048, 3072, 4096 and 8192.
    pub(crate) fn generate_rsa(bits: i64) -> Result<PrivateKey, Error> {
        let size = match bits {
            2048 => KeySize::Rsa2048,
            3072 => KeySize::Rsa3072,
            4096 => KeySize::Rsa4096,
            8192 => KeySize::Rsa8192,
            _ => {
                return Err(Error::invalid(format!(
                    "an rsa key has 2048, 3072, 4096 or 8192 bits, not {bits}"
                )));
            }
        };
        let failed = |_| Error::invalid("generating an rsa key failed: try again");
        let pair = rsa::KeyPair::generate(size).map_err(failed)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
        PrivateKey::from_rsa_pkcs8(der.as_ref()).map_err(Error::invalid)
    }

    /// Reads a key in libp2p's protobuf encoding.
    pub(crate) fn from_protobuf(protobuf: Vec<u8>) -> Result<PrivateKey, DecodingError> {
        let pair = Keypair::from_protobuf_encoding(&protobuf)?;
        Ok(PrivateKey { pair, protobuf })
    }

    fn from_pair(pair: Keypair) -> Result<PrivateKey, Error> {
        let protobuf = pair.to_protobuf_encoding();
        let protobuf =
            protobuf.map_err(|error| Error::invalid(format!("this key cannot be stored: {error}")))?;
        Ok(PrivateKey { pair, protobuf })
    }

    /// Reads an RSA key in PKCS #8.
    fn from_rsa_pkcs8(der: &[u8]) -> Result<PrivateKey, String> {
        let pkcs1 = pkcs1(der).ok_or("no rsa key in it")?;
        let mut length = unsigned_varint::encode::usize_buffer();
        let length = unsigned_varint::encode::usize(pkcs1.len(), &mut length);
        let protobuf = [&PROTOBUF_RSA, length, pkcs1].concat();
        PrivateKey::from_protobuf(protobuf).map_err(|error| error.to_string())
    }

    /// Reads a private key in libp2p's protobuf encoding, or an Ed25519 or RSA key in PKCS #8 and PEM.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the bytes are none.
    pub(crate) fn parse(bytes: Vec<u8>, pem: bool) -> Result<PrivateKey, Error> {
        if !pem {
            let is_pem = bytes.starts_with(b"-----BEGIN");
            return PrivateKey::from_protobuf(bytes).map_err(|error| {
                let format = "libp2p-protobuf-cleartext";
                Error::invalid(match is_pem {
                    true => format!(
                        "unexpected PEM block for format={format}: try again with format=pem-pkcs8-cleartext"
                    ),
                    false => format!("unable to unmarshall format={format}: {error}"),
                })
            });
        }
        let text = std::str::from_utf8(&bytes).ok();
        let body = text
            .and_then(|text| text.split_once("-----BEGIN PRIVATE KEY-----"))
            .and_then(|(_, rest)| rest.split_once("-----END PRIVATE KEY-----"))
            .map(|(body, _)| body.split_whitespace().collect::<String>())
            .ok_or_else(|| Error::invalid("PEM block PRIVATE KEY not found in input data"))?;
        let der = Base::Base64Pad.decode(body);
        let der = der.map_err(|error| Error::invalid(format!("parsing PKCS8 format: {error}")))?;
        match der.strip_prefix(PKCS8_ED25519) {
            Some(secret) => Keypair::ed25519_from_bytes(secret.to_vec())
                .map_err(|error| Error::invalid(format!("parsing PKCS8 format: {error}")))
                .and_then(PrivateKey::from_pair),
            None => PrivateKey::from_rsa_pkcs8(&der).map_err(|error| {
                Error::invalid(format!(
                    "parsing PKCS8 format: neither an Ed25519 key nor a usable RSA key: {error}"
                ))
            }),
        }
    }

    /// Returns the IPNS name that belongs to the key.
    pub(crate) fn id(&self) -> PeerId {
        self.pair.public().to_peer_id()
    }

    /// Returns the encoding in libp2p's protobuf.
    pub(crate) fn as_protobuf(&self) -> &[u8] {
        &self.protobuf
    }
}

/// Returns the key in PKCS #1 that a key in PKCS #8 contains.
fn pkcs1(pkcs8: &[u8]) -> Option<&[u8]> {
    let (info, _) = field(pkcs8, SEQUENCE)?;
    let (_version, rest) = field(info, INTEGER)?;
    let (_algorithm, rest) = field(rest, SEQUENCE)?;
    field(rest, OCTET_STRING).map(|(key, _)| key)
}

/// Splits DER into the content of its first field, which must have this tag, and the rest.
fn field(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        // The number of bytes that hold the length; a key needs two.
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let length = digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes PKCS #8 as PEM.
    fn pem(der: &[u8]) -> Vec<u8> {
        let body = Base::Base64Pad.encode(der);
        format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n").into_bytes()
    }

    #[test]
    fn private_keys_are_read_from_protobuf_and_pem() {
        let key = PrivateKey::generate_ed25519().unwrap();
        let read = PrivateKey::parse(key.as_protobuf().to_vec(), false).unwrap();
        assert_eq!(read.id(), key.id());
        let secret = key.pair.clone().try_into_ed25519().unwrap().secret();
        let pem = pem(&[PKCS8_ED25519, secret.as_ref()].concat());
        let read = PrivateKey::parse(pem.clone(), true).unwrap();
        assert_eq!((read.id(), read.as_protobuf()), (key.id(), key.as_protobuf()));
        let advice = PrivateKey::parse(pem, false).err().unwrap().to_string();
        assert!(advice.contains("pem-pkcs8-cleartext"), "{advice}");
        assert!(PrivateKey::parse(b"garbage".to_vec(), true).is_err());
    }

    #[test]
    fn rsa_keys_are_read_from_pem_and_from_their_stored_form() {
        let pair = rsa::KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let imported = PrivateKey::parse(pem(der.as_ref()), true).unwrap();
        let stored = PrivateKey::from_protobuf(imported.as_protobuf().to_vec()).unwrap();
        assert_eq!(stored.id(), imported.id());
        let signature = stored.pair.sign(b"message").unwrap();
        assert!(imported.pair.public().verify(b"message", &signature));
        for cut in [0, 1, 2, 30, der.as_ref().len() - 1] {
            assert!(
                PrivateKey::parse(pem(&der.as_ref()[..cut]), true).is_err(),
                "{cut}"
            );
        }
        assert!(PrivateKey::generate_rsa(1024).is_err());
    }
}
