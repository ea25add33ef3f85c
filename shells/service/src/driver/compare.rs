//! Comparison of the local states that count as pinned with the pins of the IPFS node. The node lists its
//! pins in its own order, so their hashes are kept, in bounded memory, and the local states are looked up
//! among them.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use cluster_core::{Event, IpfsError, Local, Missing, Mode, OpId, Phase};
use cluster_ipfs::backend::PinState;
use cluster_ipfs::{Backend, Cid, PinMode};
use futures::{StreamExt, TryStreamExt};

use super::{Handle, fail_stop};
use crate::store::{Reader, StoreError};

/// Maximum number of hashes kept at once, 32 MiB of them. A node with more pins is listed several times, once
/// per part of the hash space.
const HASHES_MAX: usize = 4 << 20;

/// Local states read at once: enough to hide the cost of the seek, few enough to hold.
const PAGE: usize = 1024;

/// Missing pins reported to the core at once: it writes all of them in one step.
const REPORT_MAX: usize = 256;

/// Concurrent queries to the IPFS node.
const QUESTIONS: usize = 8;

/// Interval of progress reports to the core.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// One comparison operation.
pub(super) struct Comparison {
    pub(super) backend: Backend,
    pub(super) reader: Reader,
    pub(super) handle: Handle,
    pub(super) op: OpId,
}

impl Comparison {
    /// Compares one CID, or all, and reports missing pins.
    pub(super) async fn run(&self, only: Option<cluster_core::Cid>) -> Result<(), IpfsError> {
        match only {
            Some(cid) => {
                let found = self.reader.local(&cid).unwrap_or_else(|error| fail_stop(&error));
                let suspects = found
                    .into_iter()
                    .filter(is_pinned)
                    .map(|local| (cid.clone(), local));
                self.verify(suspects.collect()).await
            }
            None => self.everything().await,
        }
    }

    async fn everything(&self) -> Result<(), IpfsError> {
        let mut listed = PinHashes::new(HASHES_MAX);
        let mut part = 0;
        while part < listed.parts {
            listed.hashes.clear();
            self.list(&mut listed, part).await?;
            listed.hashes.sort_unstable();
            let mut after = None;
            loop {
                let page = self.page(after).await;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                self.handle.event(Event::IpfsProgressed { op: self.op });
                let is_suspect = |(cid, local): &(cluster_core::Cid, Local)| {
                    is_pinned(local)
                        && listed.is_in_part(cid, part)
                        && !listed.contains(cid.as_bytes(), local.mode)
                };
                self.verify(page.into_iter().filter(is_suspect).collect()).await?;
            }
            part += 1;
        }
        Ok(())
    }

    /// Collects the hashes of one part of the node's pins.
    async fn list(&self, listed: &mut PinHashes, part: u64) -> Result<(), IpfsError> {
        let mut pins = self.backend.pins();
        let mut reported = Instant::now();
        while let Some((cid, mode)) = pins.try_next().await.map_err(|error| failed(&error))? {
            listed.add(&cid.to_bytes(), mode, part);
            if reported.elapsed() >= PROGRESS_INTERVAL {
                reported = Instant::now();
                self.handle.event(Event::IpfsProgressed { op: self.op });
            }
        }
        Ok(())
    }

    /// Reads the next local states. Each page has its own database snapshot: one that is kept open for long
    /// costs the database memory.
    async fn page(&self, after: Option<cluster_core::Cid>) -> Vec<(cluster_core::Cid, Local)> {
        let reader = self.reader.clone();
        let read = move || -> Result<Vec<_>, StoreError> {
            reader.listing().locals(after.as_ref()).take(PAGE).collect()
        };
        let page = tokio::task::spawn_blocking(read).await;
        page.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            .unwrap_or_else(|error| fail_stop(&error))
    }

    /// Queries the node for each of these, as they may have been pinned since it was listed, and reports
    /// the missing ones.
    async fn verify(&self, suspects: Vec<(cluster_core::Cid, Local)>) -> Result<(), IpfsError> {
        for suspects in suspects.chunks(REPORT_MAX) {
            let suspects = futures::stream::iter(suspects.to_vec());
            let asked = suspects.map(|(cid, local)| self.is_missing(cid, local));
            let answers: Vec<Option<Missing>> = asked.buffered(QUESTIONS).try_collect().await?;
            let missing: Vec<Missing> = answers.into_iter().flatten().collect();
            let op = self.op;
            if missing.is_empty() {
                self.handle.event(Event::IpfsProgressed { op });
                continue;
            }
            tracing::warn!(
                "{} pins are missing or damaged at the IPFS node though this peer did not remove them, {} \
                 among them; pinning them again",
                missing.len(),
                missing[0].cid
            );
            self.handle.event(Event::IpfsLacks { op, missing });
            // Waits until the core has handled this report, so that reports do not pile up.
            let _ = self.handle.view(|_, _| ()).await;
        }
        Ok(())
    }

    async fn is_missing(&self, cid: cluster_core::Cid, local: Local) -> Result<Option<Missing>, IpfsError> {
        let parsed = Cid::try_from(cid.as_bytes()).map_err(|error| failed(&error))?;
        let state = self
            .backend
            .pin_status(&parsed)
            .await
            .map_err(|error| failed(&error))?;
        let is_held = match (state, local.mode) {
            (PinState::Pinned(PinMode::Recursive), _) | (PinState::Pinned(PinMode::Direct), Mode::Direct) => {
                true
            }
            (PinState::Pinned(PinMode::Direct), Mode::Recursive)
            | (PinState::Indirect | PinState::Unpinned, _) => false,
        };
        let since = local.since;
        Ok((!is_held).then_some(Missing { cid, since }))
    }
}

fn is_pinned(local: &Local) -> bool {
    local.phase == Phase::Pinned
}

fn failed(error: &dyn std::fmt::Display) -> IpfsError {
    IpfsError::Failed(error.to_string())
}

/// Hashes of the IPFS node's pins, of one part of the hash space at a time. The key is random for each
/// comparison, so two CIDs whose hashes collide differ the next time.
struct PinHashes {
    key: RandomState,
    /// Maximum number of hashes kept at once.
    limit: usize,
    /// Number of parts of the hash space, a power of two.
    parts: u64,
    hashes: Vec<u64>,
}

impl PinHashes {
    fn new(limit: usize) -> Self {
        Self {
            key: RandomState::new(),
            limit,
            parts: 1,
            hashes: Vec::new(),
        }
    }

    /// Returns the hash of a CID, with the depth of its pin in the lowest bit.
    fn hash(&self, cid: &[u8], is_recursive: bool) -> u64 {
        self.key.hash_one(cid) & !1 | u64::from(is_recursive)
    }

    fn part_of(&self, hash: u64) -> u64 {
        (hash >> 1) % self.parts
    }

    /// Returns whether a CID belongs to this part.
    fn is_in_part(&self, cid: &cluster_core::Cid, part: u64) -> bool {
        self.part_of(self.hash(cid.as_bytes(), false)) == part
    }

    /// Adds a pin of this part. When there are too many, the number of parts doubles and half of the
    /// hashes, or fewer, stay: the others belong to later parts.
    fn add(&mut self, cid: &[u8], mode: PinMode, part: u64) {
        let hash = self.hash(cid, mode == PinMode::Recursive);
        if self.part_of(hash) != part {
            return;
        }
        self.hashes.push(hash);
        if self.hashes.len() > self.limit {
            // Duplicates are removed first, so that a node which repeats a pin causes no split: distinct
            // hashes always split.
            self.hashes.sort_unstable();
            self.hashes.dedup();
        }
        while self.hashes.len() > self.limit {
            self.parts *= 2;
            let parts = self.parts;
            self.hashes.retain(|hash| (hash >> 1) % parts == part);
        }
    }

    /// Returns whether a CID is pinned at this depth or deeper. The hashes must be sorted.
    fn contains(&self, cid: &[u8], mode: Mode) -> bool {
        let has = |is_recursive| self.hashes.binary_search(&self.hash(cid, is_recursive)).is_ok();
        has(true) || (mode == Mode::Direct && has(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cid(number: u8) -> cluster_core::Cid {
        cluster_core::Cid::from_bytes(&[1, 0x55, 0, 1, number]).expect("is a CID")
    }

    #[test]
    fn a_deeper_pin_counts_and_a_shallower_one_does_not() {
        let mut listed = PinHashes::new(10);
        listed.add(cid(1).as_bytes(), PinMode::Recursive, 0);
        listed.add(cid(2).as_bytes(), PinMode::Direct, 0);
        listed.hashes.sort_unstable();
        let contains = |number: u8, mode| listed.contains(cid(number).as_bytes(), mode);
        assert!(contains(1, Mode::Recursive) && contains(1, Mode::Direct) && contains(2, Mode::Direct));
        assert!(!contains(2, Mode::Recursive) && !contains(3, Mode::Direct));
    }

    #[test]
    fn more_pins_than_fit_are_compared_in_parts() {
        // The hash key is random: each round splits at other places.
        (0..1_000).for_each(|_| go_through_parts());
    }

    fn go_through_parts() {
        let mut listed = PinHashes::new(8);
        let (mut seen, mut part) = (std::collections::BTreeSet::new(), 0);
        while part < listed.parts {
            listed.hashes.clear();
            for number in (0..100).chain(0..100).chain([0; 100]) {
                listed.add(cid(number).as_bytes(), PinMode::Recursive, part);
                assert!(listed.hashes.len() <= 8);
            }
            listed.hashes.sort_unstable();
            for number in (0..100).filter(|number| listed.is_in_part(&cid(*number), part)) {
                assert!(listed.contains(cid(number).as_bytes(), Mode::Recursive));
                seen.insert(number);
            }
            assert!((100..110).all(|number| !listed.contains(cid(number).as_bytes(), Mode::Recursive)));
            part += 1;
        }
        assert_eq!(seen.len(), 100, "none is left out, in {} parts", listed.parts);
    }
}
