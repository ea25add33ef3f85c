//! Hashing and verifying blocks, and parsing CIDs.

use crate::Cid;
use crate::Multihash;
use crate::store::{BLOCK_MAX, IDENTITY};
use crate::{Block, Error};
use multihash_codetable::{Code, MultihashDigest};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use sha3::Shake256;
use sha3::digest::{ExtendableOutput, Update, XofReader};

/// Multihash codes that `multihash_codetable` lacks.
const SHA1: u64 = 0x11;
const SHAKE_256: u64 = 0x19;
const DOUBLE_SHA2_256: u64 = 0x56;
/// Base of the BLAKE2b codes: the code of an `n`-byte digest is `BLAKE2B + n`.
const BLAKE2B: u64 = 0xb200;
/// Length of the longest BLAKE2b digest, in bytes.
const BLAKE2B_LONGEST: usize = 64;
/// Shortest digest that identifies a block securely, in bytes; Kubo's limit too.
const DIGEST_MIN: usize = 20;

/// Hash functions that Kubo allows, by multicodec name, without the BLAKE2b family.
const NAMED: [(&str, u64); 17] = [
    ("identity", IDENTITY),
    ("sha1", SHA1),
    ("sha2-256", 0x12),
    ("sha2-512", 0x13),
    ("sha3", 0x14),
    ("sha3-512", 0x14),
    ("sha3-384", 0x15),
    ("sha3-256", 0x16),
    ("sha3-224", 0x17),
    ("shake-256", SHAKE_256),
    ("keccak-224", 0x1a),
    ("keccak-256", 0x1b),
    ("keccak-384", 0x1c),
    ("keccak-512", 0x1d),
    ("blake3", 0x1e),
    ("dbl-sha2-256", DOUBLE_SHA2_256),
    ("blake2s-256", 0xb260),
];

/// Returns the multihash code of a hash function, given its name in the multicodec table.
pub(crate) fn code_by_name(name: &str) -> Option<u64> {
    if let Some(bits) = name.strip_prefix("blake2b-") {
        let bytes = bits.parse::<usize>().ok().filter(|bits| bits % 8 == 0)? / 8;
        let allowed = (DIGEST_MIN..=BLAKE2B_LONGEST).contains(&bytes);
        return allowed.then_some(BLAKE2B + bytes as u64);
    }
    let found = NAMED.iter().find(|(known, _)| *known == name);
    found.map(|(_, code)| *code)
}

/// Returns the name in the multicodec table of a hash function that Kubo allows.
pub(crate) fn name_by_code(code: u64) -> Option<String> {
    if (BLAKE2B + DIGEST_MIN as u64..=BLAKE2B + BLAKE2B_LONGEST as u64).contains(&code) {
        return Some(format!("blake2b-{}", (code - BLAKE2B) * 8));
    }
    let found = NAMED.iter().find(|(_, known)| *known == code);
    found.map(|(name, _)| (*name).to_owned())
}

/// Returns the names and codes of the hash functions, without the BLAKE2b family but for its usual length.
pub(crate) fn named() -> Vec<(&'static str, u64)> {
    let mut all = NAMED.to_vec();
    all.push(("blake2b-256", BLAKE2B + 32));
    all
}

/// Returns whether blocks with this hash function can be verified. Identity is not a hash function.
pub(crate) fn is_known(code: u64) -> bool {
    digest(code, b"").is_some()
}

/// Hashes `data` with the function of this multihash code; `None` if it is unknown.
pub(crate) fn digest(code: u64, data: &[u8]) -> Option<Multihash> {
    let wrapped = |digest: &[u8]| Multihash::wrap(code, digest).ok();
    match code {
        SHA1 => wrapped(&Sha1::digest(data)),
        DOUBLE_SHA2_256 => wrapped(&Sha256::digest(Sha256::digest(data))),
        SHAKE_256 => {
            let mut long = [0; 64];
            Shake256::default().chain(data).finalize_xof().read(&mut long);
            wrapped(&long)
        }
        0xb214..=0xb240 => {
            let length = (code - BLAKE2B) as usize;
            wrapped(
                blake2b_simd::Params::new()
                    .hash_length(length)
                    .hash(data)
                    .as_bytes(),
            )
        }
        code => Code::try_from(code).ok()?.digest(data).resize().ok(),
    }
}

/// Verifies a block: its size, and its bytes against its CID.
pub(crate) fn verify(block: &Block) -> Result<(), Error> {
    if block.data.len() > BLOCK_MAX {
        return Err(Error::TooLarge {
            size: block.data.len(),
            max: BLOCK_MAX,
        });
    }
    let hash = block.cid.hash();
    let fits = if hash.code() == IDENTITY {
        hash.digest() == &*block.data
    } else {
        let digest = digest(hash.code(), &block.data).ok_or(Error::UnsupportedHash(block.cid))?;
        // Truncated digests are legal.
        let kept = hash.digest().len();
        kept >= DIGEST_MIN && digest.digest().get(..kept) == Some(hash.digest())
    };
    if fits {
        Ok(())
    } else {
        Err(Error::Mismatch(block.cid))
    }
}

/// Computes the CID of a block for the given version, codec and hash function.
pub(crate) fn compute_cid(version: cid::Version, codec: u64, hash: u64, data: &[u8]) -> Result<Cid, Error> {
    let multihash = match digest(hash, data) {
        Some(multihash) => multihash,
        None if hash == IDENTITY => {
            let wrapped = Multihash::wrap(IDENTITY, data);
            wrapped.map_err(|_| Error::invalid("content too long for a cid"))?
        }
        None => return Err(Error::Unsupported(format!("hash function 0x{hash:x}"))),
    };
    Cid::new(version, codec, multihash).map_err(|error| Error::invalid(format!("cid: {error}")))
}

/// Parses a CID from the whole of `text`. The `cid` crate's parser also accepts `/ipfs/` prefixes and ignores
/// bytes after the CID.
pub(crate) fn parse_cid(text: &str) -> Result<Cid, String> {
    let bytes = if cid::Version::is_v0_str(text) {
        multibase::Base::Base58Btc.decode(text)
    } else {
        multibase::decode(text).map(|(_, bytes)| bytes)
    };
    let bytes = bytes.map_err(|error| error.to_string())?;
    let mut rest = &bytes[..];
    let cid = Cid::read_bytes(&mut rest).map_err(|error| error.to_string())?;
    match rest.len() {
        0 => Ok(cid),
        more => Err(format!("{more} trailing bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::any;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parse_cid_accepts_exactly_one_cid(cid in any::cid(), garbage in "\\PC{0,12}") {
            let text = cid.to_string();
            prop_assert_eq!(parse_cid(&text), Ok(cid));
            let path = format!("/ipfs/{text}");
            prop_assert!(parse_cid(&path).is_err());
            let longer = [&cid.to_bytes()[..], &[0]].concat();
            prop_assert!(parse_cid(&multibase::encode(multibase::Base::Base32Lower, longer)).is_err());
            let _ = parse_cid(&garbage);
        }
    }
}
