//! The record of a name: a path, signed by the name's key.

use crate::codec::{self, Data};
use bytes::Bytes;
use jiff::Timestamp;
use libp2p::PeerId;
use libp2p::identity::{Keypair, PublicKey};
use prost::Message;
use std::collections::BTreeMap;
use std::time::Duration;

/// Limit on an encoded record, in bytes, from the specification.
pub const RECORD_MAX: usize = 10 * 1024;

/// Text before the data that `signatureV2` covers.
const SIGNED_PREFIX: &[u8] = b"ipns-signature:";

/// Only type of validity: the record is valid until a time.
const UNTIL: i32 = 0;

/// Multihash code of the identity function: such names hold their key.
const IDENTITY: u64 = 0;

/// Reason why a record is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The record is longer than [`RECORD_MAX`].
    #[error("ipns record of {0} bytes exceeds the limit of {RECORD_MAX} bytes")]
    TooLong(usize),
    /// The bytes are not a record, or a field of it has a wrong type.
    #[error("invalid ipns record: {0}")]
    Malformed(String),
    /// The public key is missing or is not the name's.
    #[error("invalid ipns record: no public key that belongs to the name")]
    WrongKey,
    /// The signature is missing or does not match.
    #[error("record signature verification failed")]
    Signature,
    /// The fields of version 1 contradict those of version 2.
    #[error("invalid ipns record: field {0:?} did not match between protobuf and CBOR")]
    Contradiction(&'static str),
    /// The validity has passed.
    #[error("expired record")]
    Expired,
    /// The key cannot sign.
    #[error("cannot sign the ipns record: {0}")]
    Signing(String),
}

/// The record as it is encoded.
#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(bytes = "vec", optional, tag = "1")]
    value: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    signature_v1: Option<Vec<u8>>,
    #[prost(int32, optional, tag = "3")]
    validity_type: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "4")]
    validity: Option<Vec<u8>>,
    #[prost(uint64, optional, tag = "5")]
    sequence: Option<u64>,
    #[prost(uint64, optional, tag = "6")]
    ttl: Option<u64>,
    #[prost(bytes = "vec", optional, tag = "7")]
    public_key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    signature_v2: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    data: Option<Vec<u8>>,
}

/// A parsed record.
#[derive(Debug, Clone)]
pub struct Record {
    bytes: Bytes,
    encoded: Encoded,
    value: Vec<u8>,
    validity: Vec<u8>,
    valid_until: Timestamp,
    sequence: u64,
    ttl: Duration,
}

impl Record {
    /// Parses a record without verifying it.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] or [`RecordError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Record, RecordError> {
        if bytes.len() > RECORD_MAX {
            return Err(RecordError::TooLong(bytes.len()));
        }
        let encoded = Encoded::decode(bytes).map_err(|error| malformed(&error.to_string()))?;
        let data = encoded.data.as_deref().unwrap_or_default();
        if data.is_empty() {
            return Err(malformed("no data"));
        }
        let fields = fields(data)?;
        let validity = bytes_of(&fields, "Validity")?;
        if number_of(&fields, "ValidityType")? != u64::from(UNTIL.unsigned_abs()) {
            return Err(malformed("an unknown type of validity"));
        }
        let valid_until = std::str::from_utf8(&validity)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| malformed("its validity is not a time"))?;
        Ok(Record {
            bytes: Bytes::copy_from_slice(bytes),
            value: bytes_of(&fields, "Value")?,
            validity,
            valid_until,
            sequence: number_of(&fields, "Sequence")?,
            ttl: Duration::from_nanos(number_of(&fields, "TTL")?),
            encoded,
        })
    }

    /// Parses a record and verifies that the key of `name` signed it and that it is valid at `now`.
    ///
    /// # Errors
    /// Any but [`RecordError::Signing`].
    pub fn verified(name: &PeerId, bytes: &[u8], now: Timestamp) -> Result<Record, RecordError> {
        let record = Record::parse(bytes)?;
        record.verify(name)?;
        if record.valid_until < now {
            return Err(RecordError::Expired);
        }
        Ok(record)
    }

    /// Verifies the signature, and that the fields of version 1 equal those of version 2.
    ///
    /// # Errors
    /// [`RecordError::WrongKey`], [`RecordError::Signature`] or [`RecordError::Contradiction`].
    pub fn verify(&self, name: &PeerId) -> Result<(), RecordError> {
        let Encoded {
            data, signature_v2, ..
        } = &self.encoded;
        let signed = [SIGNED_PREFIX, data.as_deref().unwrap_or_default()].concat();
        let signature = signature_v2.as_deref().unwrap_or_default();
        if signature.is_empty() || !self.public_key(name)?.verify(&signed, signature) {
            return Err(RecordError::Signature);
        }
        if self.has_version_1() {
            self.compare_versions()?;
        }
        Ok(())
    }

    fn compare_versions(&self) -> Result<(), RecordError> {
        let old = &self.encoded;
        let differs = [
            ("Value", old.value.as_deref() != Some(&self.value)),
            ("Validity", old.validity.as_deref() != Some(&self.validity)),
            ("ValidityType", old.validity_type.unwrap_or(UNTIL) != UNTIL),
            ("Sequence", old.sequence.unwrap_or(0) != self.sequence),
            ("TTL", u128::from(old.ttl.unwrap_or(0)) != self.ttl.as_nanos()),
        ];
        match differs.iter().find(|(_, differs)| *differs) {
            Some((field, _)) => Err(RecordError::Contradiction(field)),
            None => Ok(()),
        }
    }

    /// Returns the key of a name: the name itself holds a short one, the record a long one.
    fn public_key(&self, name: &PeerId) -> Result<PublicKey, RecordError> {
        let hash = name.as_ref();
        if hash.code() == IDENTITY {
            return PublicKey::try_decode_protobuf(hash.digest()).map_err(|_| RecordError::WrongKey);
        }
        let given = self.encoded.public_key.as_deref().unwrap_or_default();
        let key = PublicKey::try_decode_protobuf(given).map_err(|_| RecordError::WrongKey)?;
        match key.to_peer_id() == *name {
            true => Ok(key),
            false => Err(RecordError::WrongKey),
        }
    }

    /// Creates a record with the fields of both versions, as Kubo does.
    ///
    /// # Errors
    /// [`RecordError::Signing`], or [`RecordError::TooLong`] with a long value.
    pub fn create(
        key: &Keypair,
        value: &str,
        sequence: u64,
        valid_until: Timestamp,
        ttl: Duration,
    ) -> Result<Record, RecordError> {
        let signing = |why: String| RecordError::Signing(why);
        let validity = valid_until.to_string().into_bytes();
        let nanos = u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX);
        let data = Data::Map(BTreeMap::from([
            ("Value".to_owned(), Data::Bytes(value.as_bytes().to_vec())),
            ("Validity".to_owned(), Data::Bytes(validity.clone())),
            ("ValidityType".to_owned(), Data::Integer(UNTIL.into())),
            ("Sequence".to_owned(), Data::Integer(sequence.into())),
            ("TTL".to_owned(), Data::Integer(nanos.into())),
        ]));
        let data = serde_ipld_dagcbor::to_vec(&data).map_err(|error| signing(error.to_string()))?;
        let sign = |bytes: &[u8]| key.sign(bytes).map_err(|error| signing(error.to_string()));
        let public = key.public();
        let holds_key = public.to_peer_id().as_ref().code() == IDENTITY;
        let encoded = Encoded {
            signature_v1: Some(sign(&[value.as_bytes(), &validity, b"EOL"].concat())?),
            signature_v2: Some(sign(&[SIGNED_PREFIX, &data].concat())?),
            public_key: (!holds_key).then(|| public.encode_protobuf()),
            value: Some(value.as_bytes().to_vec()),
            validity_type: Some(UNTIL),
            validity: Some(validity),
            sequence: Some(sequence),
            ttl: Some(nanos),
            data: Some(data),
        };
        Record::parse(&encoded.encode_to_vec())
    }

    /// Returns the encoded record.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the path that the name is mapped to. Old records hold a binary CID instead.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] if the value is neither.
    pub fn value(&self) -> Result<String, RecordError> {
        if self.value.is_empty() {
            return Ok("/ipfs/bafkqaaa".to_owned());
        }
        if self.value.starts_with(b"/") {
            let text = String::from_utf8(self.value.clone());
            return text.map_err(|_| malformed("its value is not UTF-8"));
        }
        let cid = crate::Cid::try_from(&self.value[..]).map_err(|_| malformed("its value is not a path"))?;
        Ok(format!("/ipfs/{cid}"))
    }

    /// Returns the sequence number, which grows with each change of the value.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Returns the time during which caches need not look for a newer record.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns the time until which the record is valid.
    pub fn valid_until(&self) -> Timestamp {
        self.valid_until
    }

    /// Returns whether the record has the fields of version 1 too.
    pub fn has_version_1(&self) -> bool {
        let has = |field: &Option<Vec<u8>>| field.as_ref().is_some_and(|bytes| !bytes.is_empty());
        has(&self.encoded.signature_v1) || has(&self.encoded.value)
    }

    /// Returns whether this record replaces `other`: by its sequence number, then its validity, then its
    /// bytes.
    pub fn replaces(&self, other: &Record) -> bool {
        let rank = |record: &Record| (record.sequence, record.valid_until, record.bytes.clone());
        rank(self) > rank(other)
    }
}

fn malformed(why: &str) -> RecordError {
    RecordError::Malformed(why.to_owned())
}

fn fields(data: &[u8]) -> Result<BTreeMap<String, Data>, RecordError> {
    let data = Bytes::copy_from_slice(data);
    // Used only in error texts.
    let cid = crate::Cid::default();
    let cid = crate::Cid::new_v1(codec::DAG_CBOR, *cid.hash());
    match codec::decode(&cid, &data) {
        Ok(Data::Map(fields)) => Ok(fields),
        Ok(_) => Err(malformed("its data is not a map")),
        Err(error) => Err(malformed(&error.to_string())),
    }
}

fn bytes_of(fields: &BTreeMap<String, Data>, name: &str) -> Result<Vec<u8>, RecordError> {
    match fields.get(name) {
        Some(Data::Bytes(bytes)) => Ok(bytes.clone()),
        _ => Err(malformed(&format!("{name} is not bytes"))),
    }
}

fn number_of(fields: &BTreeMap<String, Data>, name: &str) -> Result<u64, RecordError> {
    let number = match fields.get(name) {
        Some(Data::Integer(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    number.ok_or_else(|| malformed(&format!("{name} is not a number from 0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "/ipfs/bafkqablimvwgy3y";

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn created(key: &Keypair, sequence: u64) -> Record {
        let until = time("2030-01-01T00:00:00.5Z");
        Record::create(key, VALUE, sequence, until, Duration::from_secs(300)).unwrap()
    }

    /// Encodes a record with changed fields, signed by `key` over its data.
    fn changed(record: &Record, key: &Keypair, change: impl FnOnce(&mut Encoded)) -> Vec<u8> {
        let mut encoded = record.encoded.clone();
        change(&mut encoded);
        if encoded.signature_v2.as_deref() == Some(b"again") {
            let data = encoded.data.clone().unwrap_or_default();
            encoded.signature_v2 = Some(key.sign(&[SIGNED_PREFIX, &data].concat()).unwrap());
        }
        encoded.encode_to_vec()
    }

    #[test]
    fn created_records_are_valid_until_their_time() {
        let key = Keypair::generate_ed25519();
        let name = key.public().to_peer_id();
        let record = created(&key, 7);
        let read = Record::verified(&name, record.bytes(), time("2029-12-31T23:59:59Z")).unwrap();
        assert_eq!(read.value().as_deref(), Ok(VALUE));
        assert_eq!((read.sequence(), read.ttl()), (7, Duration::from_secs(300)));
        assert_eq!(read.valid_until(), time("2030-01-01T00:00:00.5Z"));
        let late = Record::verified(&name, record.bytes(), time("2030-01-01T00:00:01Z"));
        assert_eq!(late.unwrap_err(), RecordError::Expired);
    }

    #[test]
    fn forged_or_contradictory_records_are_refused() {
        let key = Keypair::generate_ed25519();
        let other = Keypair::generate_ed25519();
        let name = key.public().to_peer_id();
        let record = created(&key, 1);
        let refused =
            |bytes: &[u8]| Record::verified(&name, bytes, time("2029-01-01T00:00:00Z")).unwrap_err();
        let foreign = created(&other, 1);
        assert_eq!(refused(foreign.bytes()), RecordError::Signature);
        let only_v1 = changed(&record, &key, |it| it.signature_v2 = None);
        assert_eq!(refused(&only_v1), RecordError::Signature);
        let value = changed(&record, &key, |it| it.value = Some(b"/ipfs/bafkqaaa".to_vec()));
        assert_eq!(refused(&value), RecordError::Contradiction("Value"));
        let sequence = changed(&record, &key, |it| it.sequence = Some(2));
        assert_eq!(refused(&sequence), RecordError::Contradiction("Sequence"));
        let no_data = changed(&record, &key, |it| it.data = None);
        assert_eq!(refused(&no_data), malformed("no data"));
        let long = changed(&record, &key, |it| it.public_key = Some(vec![0; RECORD_MAX]));
        assert!(matches!(refused(&long), RecordError::TooLong(_)));
        assert!(matches!(refused(b"garbage"), RecordError::Malformed(_)));
    }

    #[test]
    fn broken_or_absent_version_1_does_not_matter() {
        let key = Keypair::generate_ed25519();
        let name = key.public().to_peer_id();
        let record = created(&key, 1);
        let broken = changed(&record, &key, |it| it.signature_v1 = Some(vec![1; 64]));
        let absent = changed(&record, &key, |it| {
            *it = Encoded {
                signature_v2: it.signature_v2.take(),
                data: it.data.take(),
                ..Encoded::default()
            };
        });
        for bytes in [broken, absent] {
            let record = Record::verified(&name, &bytes, time("2029-01-01T00:00:00Z")).unwrap();
            assert_eq!(record.value().as_deref(), Ok(VALUE));
        }
    }

    #[test]
    fn negative_ttls_and_nested_data_are_refused() {
        let key = Keypair::generate_ed25519();
        let name = key.public().to_peer_id();
        let record = created(&key, 1);
        let mut fields = fields(record.encoded.data.as_deref().unwrap()).unwrap();
        fields.insert("TTL".to_owned(), Data::Integer(-1));
        let negative = serde_ipld_dagcbor::to_vec(&Data::Map(fields)).unwrap();
        for data in [negative, vec![0x81; 9000]] {
            let bytes = changed(&record, &key, |it| {
                it.data = Some(data);
                it.signature_v2 = Some(b"again".to_vec());
            });
            let refused = Record::verified(&name, &bytes, time("2029-01-01T00:00:00Z"));
            assert!(matches!(refused, Err(RecordError::Malformed(_))), "{refused:?}");
        }
    }

    #[test]
    fn higher_sequence_then_later_validity_replaces() {
        let key = Keypair::generate_ed25519();
        let (one, two) = (created(&key, 1), created(&key, 2));
        assert!(two.replaces(&one) && !one.replaces(&two) && !one.replaces(&one));
        let later = Record::create(&key, VALUE, 1, time("2031-01-01T00:00:00Z"), Duration::ZERO).unwrap();
        assert!(later.replaces(&one) && two.replaces(&later));
    }
}
