//! Hashing blocks, checking that a block is what its CID says, and reading CIDs.

use crate::store::{BLOCK_MAX, IDENTITY};
use crate::{Block, Error};
use cid::Cid;
use multihash_codetable::{Code, MultihashDigest};

/// Checks one block: its size, and its bytes against its CID.
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
        let digest = code(hash.code())
            .ok_or(Error::UnsupportedHash(block.cid))?
            .digest(&block.data);
        // Truncated digests are legal, but one shorter than 20 bytes names nothing securely.
        let kept = hash.digest().len();
        kept >= 20 && digest.digest().get(..kept) == Some(hash.digest())
    };
    if fits {
        Ok(())
    } else {
        Err(Error::Mismatch(block.cid))
    }
}

/// The hash function of a multihash code, if it is one we verify. No identity: it is no hash.
pub(crate) fn code(code: u64) -> Option<Code> {
    Code::try_from(code).ok()
}

/// The CID of a block in the given form: version, codec, hash.
pub(crate) fn name(version: cid::Version, codec: u64, hash: u64, data: &[u8]) -> Result<Cid, Error> {
    let multihash = match code(hash) {
        Some(code) => code.digest(data),
        None if hash == IDENTITY => {
            let wrapped = cid::multihash::Multihash::wrap(IDENTITY, data);
            wrapped.map_err(|_| Error::invalid("content too long for a cid"))?
        }
        None => return Err(Error::Unsupported(format!("hash function 0x{hash:x}"))),
    };
    Cid::new(version, codec, multihash).map_err(|error| Error::invalid(format!("cid: {error}")))
}

/// The CID that a text is: all of it. The `cid` crate looks for one behind any `/ipfs/`, and overlooks what
/// follows a CID.
pub(crate) fn parse(text: &str) -> Result<Cid, String> {
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
        fn a_text_is_exactly_one_cid(cid in any::cid(), garbage in "\\PC{0,12}") {
            let text = cid.to_string();
            prop_assert_eq!(parse(&text), Ok(cid));
            let path = format!("/ipfs/{text}");
            prop_assert!(parse(&path).is_err());
            let longer = [&cid.to_bytes()[..], &[0]].concat();
            prop_assert!(parse(&multibase::encode(multibase::Base::Base32Lower, longer)).is_err());
            let _ = parse(&garbage);
        }
    }
}
