//! Outgoing snapshots: a consistent view of all pins and the policy, in chunks.
//!
//! A chunk is one byte of version, then pins in the order of their CIDs, each as four bytes of length,
//! big-endian, and the stored record. If there is a policy, the first chunk has it instead: the version that
//! introduced it, then the encoded record. A cluster without one sends what earlier releases read.

use cluster_core::{
    CREDENTIALS_MAX, Credential, DRAINS_MAX, Drain, FIRST_VERSION, Manifest, PIN_MAX, POLICY_VERSION, Pin,
    Policy, RebalanceChange, decode, encode_for_version,
};

use super::error::StoreError;
use super::reader::{Listing, Stream};

/// Size to which chunks are filled, in bytes: large enough for few messages, small enough to be held many
/// times over.
const CHUNK: usize = 256 << 10;

/// Maximum size of a chunk made or accepted, in bytes. A pin larger than 256 KiB gets its own chunk: the
/// first release accepted pins of up to 8 MiB, later ones [`PIN_MAX`].
pub const CHUNK_MAX: usize = 16 << 20;

const _: () = assert!(PIN_MAX < CHUNK && CHUNK < CHUNK_MAX);

/// Bytes of a pin's length.
const LEN: usize = 4;

/// A consistent view of the pinset with its manifest. An iterator over the chunks; blocks on the disk.
pub struct SnapshotSource {
    manifest: Manifest,
    /// Sent first; empty once it is.
    policy: Policy,
    pins: Stream,
    /// A pin that did not fit into the last chunk.
    left: Option<Vec<u8>>,
    ended: bool,
}

impl SnapshotSource {
    pub(super) fn new(listing: Listing) -> Result<Self, StoreError> {
        let members = listing.members()?;
        let manifest = Manifest {
            applied: listing.applied()?,
            members: members.ok_or_else(|| StoreError::Contract("nothing is founded yet".to_owned()))?,
            windows: listing.windows()?,
        };
        Ok(Self {
            manifest,
            policy: listing.policy()?,
            pins: listing.stored_pins(),
            left: None,
            ended: false,
        })
    }

    /// Description of the snapshot.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        if !self.policy.is_empty() {
            let policy = std::mem::take(&mut self.policy);
            return Ok(Some(encode_for_version(POLICY_VERSION, &policy)));
        }
        let mut chunk = Vec::with_capacity(CHUNK + CHUNK / 8);
        chunk.push(FIRST_VERSION);
        if let Some(pin) = self.left.take() {
            add(&mut chunk, &pin)?;
        }
        while chunk.len() < CHUNK {
            let Some(pair) = self.pins.next() else {
                self.ended = true;
                break;
            };
            let (_, pin) = pair?;
            if chunk.len() > 1 && chunk.len() + LEN + pin.len() > CHUNK {
                self.left = Some(pin.to_vec());
                break;
            }
            add(&mut chunk, &pin)?;
        }
        Ok((chunk.len() > 1).then_some(chunk))
    }
}

fn add(chunk: &mut Vec<u8>, pin: &[u8]) -> Result<(), StoreError> {
    let len = u32::try_from(pin.len())
        .ok()
        .filter(|_| pin.len() < CHUNK_MAX - 1 - LEN);
    let len = len.ok_or_else(|| StoreError::Damaged(format!("a pin has {} bytes", pin.len())))?;
    chunk.extend_from_slice(&len.to_be_bytes());
    chunk.extend_from_slice(pin);
    Ok(())
}

impl Iterator for SnapshotSource {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended && self.left.is_none() {
            return None;
        }
        let chunk = self.next_chunk().transpose();
        if matches!(chunk, Some(Err(_))) {
            self.ended = true;
        }
        chunk
    }
}

/// A decoded chunk.
pub(super) enum Chunk<'a> {
    /// Pins with their encodings.
    Pins(Vec<(Pin, &'a [u8])>),
    /// The policy.
    Policy(Policy),
}

/// Decodes a chunk. The error describes what is wrong.
pub(super) fn read_chunk(chunk: &[u8]) -> Result<Chunk<'_>, String> {
    if chunk.len() > CHUNK_MAX {
        return Err(format!(
            "a chunk of {} bytes, at most {CHUNK_MAX} are taken",
            chunk.len()
        ));
    }
    let (version, mut rest) = chunk.split_first().ok_or("an empty chunk")?;
    match *version {
        FIRST_VERSION => {}
        POLICY_VERSION => return read_policy(chunk).map(Chunk::Policy),
        later => {
            return Err(format!(
                "a chunk of version {later}, this release knows {POLICY_VERSION}"
            ));
        }
    }
    let mut pins = Vec::new();
    while !rest.is_empty() {
        let (len, after) = rest
            .split_first_chunk::<LEN>()
            .ok_or("a chunk ends in a length")?;
        let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
        let (bytes, after) = after.split_at_checked(len).ok_or("a chunk ends in a pin")?;
        let pin: Pin = decode(bytes).map_err(|error| format!("a pin: {error}"))?;
        pins.push((pin, bytes));
        rest = after;
    }
    Ok(Chunk::Pins(pins))
}

/// Decodes a chunk of the policy, and checks its limits and its order.
fn read_policy(chunk: &[u8]) -> Result<Policy, String> {
    let policy: Policy = decode(chunk).map_err(|error| format!("the policy: {error}"))?;
    let Policy {
        credentials,
        drains,
        rebalance,
    } = &policy;
    for (what, count, max) in [
        ("credentials", credentials.len(), CREDENTIALS_MAX),
        ("drains", drains.len(), DRAINS_MAX),
    ] {
        if count > max {
            return Err(format!("{count} {what}, at most {max} are taken"));
        }
    }
    if !credentials.is_sorted_by(|a, b| a.id < b.id) {
        return Err("the credentials are out of order".to_owned());
    }
    if !drains.is_sorted_by(|a, b| a.peer < b.peer) {
        return Err("the drains are out of order".to_owned());
    }
    let too_large = credentials.iter().map(Credential::check);
    let settings = RebalanceChange::Settings(rebalance.settings);
    let too_large = too_large.chain(drains.iter().map(Drain::check));
    let mut too_large = too_large.chain([settings.check()]);
    too_large
        .try_for_each(|checked| checked)
        .map_err(|error| error.to_string())?;
    Ok(policy)
}
