//! Scrub: re-reads and re-hashes all stored blocks in the order of their keys, then walks the pins to find
//! blocks that are not stored at all. Piece by piece: the caller decides when the next one is checked, and
//! keeps the position.
//!
//! Damaged blocks are recorded in the store, and incomplete pins among the broken ones; [`super::repair`] and
//! a new pin operation then fetch copies from other peers.

use super::Node;
use crate::Multihash;
use crate::dag::{Health, HealthWalk};
use crate::reader::blocking;
use crate::store::{Store, key_of};
use crate::{Block, Cid, Error, Pin, PinMode, codec, hash};
use std::fmt;
use std::time::{Duration, Instant};

/// Maximum time of a piece, but for one block: the disk serves others in between.
const PIECE_TIME: Duration = Duration::from_millis(100);
/// Maximum bytes of a piece, but for its last block.
const PIECE_BYTES: u64 = 8 << 20;
/// Maximum number of blocks of a piece: the keys of the stored ones are held in memory.
const PIECE_BLOCKS: usize = 1024;

/// Result of a piece of a scrub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks read and hashed.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub bytes: u64,
    /// Damaged blocks among them.
    pub damaged: u64,
    /// Pins found to lack blocks, or to have damaged ones.
    pub incomplete: Vec<Cid>,
    /// Time for which the disk was busy.
    pub busy: Duration,
    /// Position to continue from; `None` if everything was checked.
    pub position: Option<String>,
}

/// Progress of a scrub.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Position {
    /// Blocks are being checked, up to this one so far.
    Blocks(Option<Cid>),
    /// All blocks were checked; pins are, up to this one so far.
    Pins(Option<Cid>),
}

impl Position {
    /// Parses a position. An unknown one is that of another kind of node: all is checked then.
    fn parse(text: &str) -> Self {
        let cid = |text: &str| Cid::try_from(text).ok();
        match text.split_once(' ') {
            Some(("block", text)) => Self::Blocks(cid(text)),
            Some(("pin", text)) => Self::Pins(cid(text)),
            None if text == "pins" => Self::Pins(None),
            Some(_) | None => Self::Blocks(None),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blocks(None) => Ok(()),
            Self::Blocks(Some(cid)) => write!(f, "block {cid}"),
            Self::Pins(None) => f.write_str("pins"),
            Self::Pins(Some(cid)) => write!(f, "pin {cid}"),
        }
    }
}

/// A scrub of a node. Holds only the walk through the pin that is being checked, which begins again after a
/// restart.
#[derive(Debug)]
pub struct Scrub {
    node: Node,
    walk: Option<(Pin, HealthWalk)>,
}

impl Node {
    /// Returns a scrub of this node.
    pub fn scrub(&self) -> Scrub {
        Scrub {
            node: self.clone(),
            walk: None,
        }
    }
}

impl Scrub {
    /// Checks the piece after a position; an empty one is the beginning.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn check(&mut self, position: &str) -> Result<Scrubbed, Error> {
        let (position, store) = (Position::parse(position), self.node.inner.store.clone());
        let walk = self.walk.take();
        let (found, walk) = blocking(move || {
            let start = Instant::now();
            let (mut found, walk) = match position {
                Position::Blocks(after) => (check_blocks(&store, after, start)?, None),
                Position::Pins(after) => check_pins(&store, after, walk, start)?,
            };
            found.busy = start.elapsed();
            Ok((found, walk))
        })
        .await?;
        self.walk = walk;
        for cid in &found.incomplete {
            if self.node.inner.broken.insert(*cid) {
                tracing::error!("the pin {cid} lacks blocks or has damaged ones; fetching them again");
            }
        }
        Ok(found)
    }
}

/// Checks stored blocks, in the order of their keys.
fn check_blocks(store: &Store, after: Option<Cid>, start: Instant) -> Result<Scrubbed, Error> {
    let mut found = Scrubbed::default();
    let mut last = after;
    let from = after.as_ref().map(key_of).unwrap_or_default();
    // Collected first: a snapshot that stays open keeps the disk space of what is deleted meanwhile.
    let keys: Vec<Vec<u8>> = store
        .keys_after(&from)?
        .take(PIECE_BLOCKS)
        .collect::<Result<_, _>>()?;
    let is_last = keys.len() < PIECE_BLOCKS;
    let mut keys = keys.into_iter();
    for key in keys.by_ref() {
        let hash = Multihash::from_bytes(&key);
        let hash = hash.map_err(|error| Error::Damaged(format!("a block's key: {error}")))?;
        let cid = Cid::new_v1(codec::RAW, hash);
        check_block(store, cid, &mut found)?;
        last = Some(cid);
        if found.bytes >= PIECE_BYTES || start.elapsed() >= PIECE_TIME {
            break;
        }
    }
    let next = if is_last && keys.len() == 0 {
        Position::Pins(None)
    } else {
        Position::Blocks(last)
    };
    found.position = Some(next.to_string());
    Ok(found)
}

fn check_block(store: &Store, cid: Cid, found: &mut Scrubbed) -> Result<(), Error> {
    match store.get(&cid) {
        // Collected in the meantime.
        Ok(None) => return Ok(()),
        Ok(Some(data)) => {
            found.bytes += data.len() as u64;
            if hash::verify(&Block { cid, data }).is_err() {
                tracing::error!("the block {cid} is damaged on the disk (its hash differs)");
                store.damage().record(&key_of(&cid));
                found.damaged += 1;
            }
        }
        Err(Error::DamagedBlock { .. }) => {
            found.bytes += store.size_of(&cid)?.unwrap_or_default();
            found.damaged += 1;
        }
        Err(error) => return Err(error),
    }
    found.blocks += 1;
    Ok(())
}

/// Looks up the blocks of pins, in the order of their CIDs. Reads inner blocks only.
fn check_pins(
    store: &Store,
    mut after: Option<Cid>,
    mut walk: Option<(Pin, HealthWalk)>,
    start: Instant,
) -> Result<(Scrubbed, Option<(Pin, HealthWalk)>), Error> {
    let mut found = Scrubbed::default();
    loop {
        let (pin, mut current) = match walk.take() {
            Some(walk) => walk,
            None => match store.pin_after(after.as_ref())? {
                Some(pin) => {
                    let walk = HealthWalk::new(pin.cid);
                    (pin, walk)
                }
                None => return Ok((found, None)),
            },
        };
        let health = match pin.mode {
            PinMode::Recursive => match current.advance(store, PIECE_BLOCKS) {
                // Pinning it again says what is wrong.
                Err(Error::Malformed { .. }) => Some(Health::Broken),
                health => health?,
            },
            PinMode::Direct if store.has(&pin.cid)? => Some(Health::Whole),
            PinMode::Direct => Some(Health::Broken),
        };
        match health {
            None => walk = Some((pin, current)),
            Some(health) => {
                after = Some(pin.cid);
                // It may have been removed, and its blocks collected, in the meantime.
                if health == Health::Broken && store.pin_of(&pin.cid)?.is_some() {
                    found.incomplete.push(pin.cid);
                }
            }
        }
        if start.elapsed() >= PIECE_TIME || found.incomplete.len() >= PIECE_BLOCKS {
            found.position = Some(Position::Pins(after).to_string());
            return Ok((found, walk));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip_and_unknown_ones_begin_anew() {
        let cid = Cid::try_from("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy").unwrap();
        for position in [
            Position::Blocks(None),
            Position::Blocks(Some(cid)),
            Position::Pins(None),
            Position::Pins(Some(cid)),
        ] {
            assert_eq!(Position::parse(&position.to_string()), position);
        }
        for other in ["x", "block x", "verify 7"] {
            assert_eq!(Position::parse(other), Position::Blocks(None), "{other}");
        }
    }

    async fn open(folder: &std::path::Path) -> Node {
        let config = crate::Config {
            path: folder.to_owned(),
            swarm_listen: Vec::new(),
            storage_max: None,
            network: crate::PublicNetwork {
                private: true,
                ..crate::PublicNetwork::default()
            },
            fixed: std::collections::BTreeMap::new(),
        };
        Node::open(config).await.unwrap()
    }

    /// Checks everything, and returns the sum.
    async fn scrub_all(node: &Node) -> Scrubbed {
        let (mut scrub, mut sum) = (node.scrub(), Scrubbed::default());
        let mut position = Some(String::new());
        while let Some(from) = position {
            let found = scrub.check(&from).await.unwrap();
            sum.blocks += found.blocks;
            sum.bytes += found.bytes;
            sum.damaged += found.damaged;
            sum.incomplete.extend(found.incomplete);
            position = found.position;
        }
        sum
    }

    fn block(number: usize) -> Block {
        let data = bytes::Bytes::from(format!("{number:0>600}"));
        let cid = hash::compute_cid(cid::Version::V1, codec::RAW, 0x12, &data).unwrap();
        Block { cid, data }
    }

    #[tokio::test]
    async fn every_block_is_checked_once_and_missing_ones_of_pins_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let node = open(folder.path()).await;
        let blocks: Vec<Block> = (0..2500).map(block).collect();
        node.put_many(blocks.clone()).await.unwrap();
        for at in [0, 7, 9] {
            let pinned = node.pin(blocks[at].cid, PinMode::Direct, String::new(), |_| {});
            pinned.await.unwrap();
        }
        let whole = scrub_all(&node).await;
        assert_eq!((whole.blocks, whole.bytes, whole.damaged), (2500, 2500 * 600, 0));
        assert_eq!(whole.incomplete, []);
        let lost = vec![key_of(&blocks[7].cid), key_of(&blocks[8].cid)];
        node.inner.store.delete(lost, false).await.unwrap();
        let found = scrub_all(&node).await;
        assert_eq!((found.blocks, found.incomplete), (2498, vec![blocks[7].cid]));
        assert!(node.is_broken(&blocks[7].cid));
        let unmended = node.unmended();
        assert_eq!((unmended.blocks, unmended.pins), (0, 1));
        node.shutdown().await;
    }

    #[tokio::test]
    async fn restart_remembers_what_is_not_mended() {
        let folder = tempfile::tempdir().unwrap();
        let node = open(folder.path()).await;
        let (held, lost) = (block(1), block(2));
        node.put_many(vec![held.clone(), lost.clone()]).await.unwrap();
        for cid in [held.cid, lost.cid] {
            node.pin(cid, PinMode::Direct, String::new(), |_| {})
                .await
                .unwrap();
        }
        node.note_damaged(&held.cid);
        node.inner
            .store
            .delete(vec![key_of(&lost.cid)], false)
            .await
            .unwrap();
        scrub_all(&node).await;
        let file = folder.path().join("unmended");
        while std::fs::read_to_string(&file).map_or(0, |text| text.lines().count()) < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        node.shutdown().await;
        drop(node);
        let node = open(folder.path()).await;
        assert!(node.is_broken(&held.cid) && node.is_broken(&lost.cid));
        assert!(!node.has(&held.cid).unwrap(), "the damaged block does not count");
        let known = node.unmended();
        assert_eq!((known.blocks, known.pins, known.examples.len()), (1, 2, 3));
        node.put(held.clone()).await.unwrap();
        assert_eq!((node.unmended().blocks, node.unmended().mended_blocks), (0, 1));
        node.shutdown().await;
    }
}
