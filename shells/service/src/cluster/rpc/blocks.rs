//! Encoding of blocks in a chunk. For each block: length of its CID (one byte), CID, length of its data
//! (four bytes, big-endian), data.

use bytes::{Buf, Bytes};
use cluster_ipfs::{Block, Cid};

/// Maximum size of a block in a chunk in bytes, as in bitswap.
const BLOCK_MAX: usize = 2 << 20;

/// Encodes blocks into the pieces of a chunk, without copying their data.
pub(in crate::cluster) fn encode(blocks: &[Block]) -> Vec<Bytes> {
    let mut pieces = Vec::with_capacity(2 * blocks.len());
    for block in blocks {
        let cid = block.cid.to_bytes();
        let mut head = Vec::with_capacity(1 + cid.len() + 4);
        head.push(u8::try_from(cid.len()).unwrap_or(u8::MAX));
        head.extend_from_slice(&cid);
        head.extend_from_slice(&u32::try_from(block.data.len()).unwrap_or(u32::MAX).to_be_bytes());
        pieces.push(head.into());
        pieces.push(block.data.clone());
    }
    pieces
}

/// Decodes the blocks of a chunk, without copying their data. Does not verify their hashes: the IPFS node
/// does.
pub(in crate::cluster) fn decode(mut chunk: Bytes) -> Result<Vec<Block>, String> {
    let mut blocks = Vec::new();
    while chunk.has_remaining() {
        let length = usize::from(chunk.get_u8());
        if chunk.len() < length + 4 {
            return Err("a chunk of blocks ends within a CID".to_owned());
        }
        let cid = Cid::try_from(&chunk[..length]).map_err(|error| format!("a block's CID: {error}"))?;
        chunk.advance(length);
        let length = chunk.get_u32() as usize;
        if length > BLOCK_MAX {
            return Err(format!(
                "block {cid} of {length} bytes exceeds the limit of {BLOCK_MAX} bytes"
            ));
        }
        if chunk.len() < length {
            return Err(format!("a chunk of blocks ends within block {cid}"));
        }
        blocks.push(Block {
            cid,
            data: chunk.split_to(length),
        });
    }
    Ok(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(data: Vec<u8>) -> Block {
        let hash = cid::multihash::Multihash::wrap(0x12, &[7; 32]).unwrap();
        Block {
            cid: Cid::new_v1(0x55, hash),
            data: data.into(),
        }
    }

    fn chunk(blocks: &[Block]) -> Vec<u8> {
        encode(blocks).concat()
    }

    proptest! {
        #[test]
        fn blocks_round_trip(contents in proptest::collection::vec(any::<Vec<u8>>(), 0..5)) {
            let blocks: Vec<Block> = contents.into_iter().map(block).collect();
            prop_assert_eq!(decode(chunk(&blocks).into()).unwrap(), blocks);
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(bytes in any::<Vec<u8>>(), cut in 0_usize..60) {
            let _ = decode(bytes.into());
            let mut whole = chunk(&[block(vec![1, 2, 3])]);
            whole.truncate(cut);
            let _ = decode(whole.into());
        }
    }
}
