//! Records of the `meta` and `log` keyspaces, and their checksums. fjall has its own checksums; these also
//! detect a record under the wrong key, a lost entry, and a stale tail of the log.

use super::keys;
use cluster_core::{
    Applied, FIRST_VERSION, HardState, Index, LogEntry, Members, POLICY_VERSION, Policy, Term, decode,
    encode, encode_for_version,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Bytes of a checksum, at the end of a record.
const SUM: usize = 8;

/// Record that every batch rewrites.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Number of batches written, this one included.
    pub(super) seq: u64,
    /// Generation of the pinset in use.
    pub(super) generation: u64,
    /// Raft's term, vote and commit index.
    pub(super) hard_state: HardState,
    /// Applied index and number of pins.
    pub(super) applied: Applied,
    /// True until the local state has been compared with the pinset.
    pub(super) reconciling: bool,
    /// Last entry removed from the log, and its term.
    pub(super) compacted: (Index, Term),
    /// Chained checksum as of that entry.
    pub(super) compacted_chain: u64,
    /// Last entry of the log; that of `compacted` when the log is empty.
    pub(super) last: Index,
    /// Chained checksum as of the last entry.
    pub(super) chain: u64,
    /// First removed entry that is still on disk.
    pub(super) purge_from: Index,
    /// End of the removed entries still on disk, exclusive.
    pub(super) purge_to: Index,
}

impl Head {
    /// Returns a contradiction between the fields, if there is one.
    pub(super) fn contradiction(&self) -> Option<String> {
        let (compacted, applied) = (self.compacted.0, self.applied.index);
        let (commit, last) = (self.hard_state.commit, self.last);
        let ordered = compacted <= applied && applied <= commit && commit <= last;
        (!ordered).then(|| {
            format!(
                "compacted through {compacted}, applied through {applied}, committed through {commit}, last \
                 entry {last}: each must be at least the one before"
            )
        })
    }
}

/// Record that is written once, when the folder is founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Founding {
    /// Random number of the data folder.
    pub(super) incarnation: cluster_core::Incarnation,
}

/// Encodes the membership, under the version that the cluster may write: an older release refuses the
/// record.
pub(super) fn seal_members(members: &Members) -> Vec<u8> {
    seal_since(members.version, keys::MEMBERS, members)
}

/// Encodes a record, with a checksum over it and its key.
pub(super) fn seal<T: Serialize>(key: &[u8], record: &T) -> Vec<u8> {
    seal_since(FIRST_VERSION, key, record)
}

/// Encodes the policy, which only releases from [`POLICY_VERSION`] on know.
pub(super) fn seal_policy(policy: &Policy) -> Vec<u8> {
    seal_since(POLICY_VERSION, keys::POLICY, policy)
}

fn seal_since<T: Serialize>(version: u8, key: &[u8], record: &T) -> Vec<u8> {
    let mut bytes = encode_for_version(version, record);
    let sum = xxh3_64_with_seed(&bytes, xxh3_64(key));
    bytes.extend_from_slice(&sum.to_le_bytes());
    bytes
}

/// Decodes a record that [`seal`] wrote. The error describes the damage.
pub(super) fn unseal<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T, String> {
    let (body, sum) = split_sum(bytes)?;
    if sum != xxh3_64_with_seed(body, xxh3_64(key)) {
        return Err("its checksum does not match".to_owned());
    }
    decode(body).map_err(|error| error.to_string())
}

/// Encodes a log entry after one whose chained checksum is `chain`; returns the bytes and its own chained
/// checksum.
pub(super) fn chain_entry(entry: &LogEntry, chain: u64) -> (Vec<u8>, u64) {
    let mut bytes = encode(entry);
    let chain = xxh3_64_with_seed(&bytes, chain);
    bytes.extend_from_slice(&chain.to_le_bytes());
    (bytes, chain)
}

/// Decodes a log entry that [`chain_entry`] wrote after one with `chain`.
pub(super) fn unchain_entry(bytes: &[u8], chain: u64) -> Result<(LogEntry, u64), String> {
    let (body, sum) = split_sum(bytes)?;
    if sum != xxh3_64_with_seed(body, chain) {
        return Err("its checksum does not follow from the entry before".to_owned());
    }
    decode(body)
        .map(|entry| (entry, sum))
        .map_err(|error| error.to_string())
}

fn split_sum(bytes: &[u8]) -> Result<(&[u8], u64), String> {
    match bytes.split_last_chunk::<SUM>() {
        Some((body, sum)) => Ok((body, u64::from_le_bytes(*sum))),
        None => Err(format!("{} bytes are too few", bytes.len())),
    }
}
