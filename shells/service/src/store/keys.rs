//! Encoding of keys. Their byte order is the order in which the core reads them.

use cluster_core::{Cid, Index, Lane, Pin, QueueKey, RaftId, Timestamp};

/// Record that every batch rewrites: [`Head`](super::record::Head).
pub(super) const HEAD: &[u8] = b"head";
/// Record that never changes: [`Founding`](super::record::Founding).
pub(super) const FOUNDING: &[u8] = b"founding";
/// Record of the number of processes started on the folder.
pub(super) const BOOT: &[u8] = b"boot";
/// Record of the membership.
pub(super) const MEMBERS: &[u8] = b"members";
/// Record of the search index: [`SearchMarker`](super::search_index::SearchMarker).
pub(super) const SEARCH: &[u8] = b"search";
/// Record of the policy; absent until it first changes.
pub(super) const POLICY: &[u8] = b"policy";
/// Record written only to use up sequence numbers: see `spaces::delete` and `spaces::skip_numbers`.
pub(super) const TOUCH: &[u8] = b"touch";
/// Prefix of the windows.
pub(super) const WINDOWS: &[u8] = b"window/";

/// Prefixes of the indexes within the keyspace.
const BY_PEER: u8 = b'p';
const BY_EXPIRY: u8 = b'e';
/// Names, by which the first release indexed here.
pub(super) const BY_NAME: u8 = b'n';

/// Key of a log entry.
pub(super) fn log(index: Index) -> [u8; 8] {
    index.to_be_bytes()
}

/// Key of an origin's window.
pub(super) fn window(origin: RaftId) -> Vec<u8> {
    [WINDOWS, &origin.0.to_be_bytes()].concat()
}

/// Prefix of the index keys of a peer's CIDs.
pub(super) fn by_peer(peer: &[u8]) -> Vec<u8> {
    // A peer id has at most 64 bytes.
    let len = u8::try_from(peer.len()).unwrap_or(u8::MAX);
    [&[BY_PEER, len], peer].concat()
}

/// Prefix of the index keys of the CIDs that expire at `at`.
pub(super) fn by_expiry(at: Timestamp) -> [u8; 9] {
    let mut key = [BY_EXPIRY; 9];
    key[1..].copy_from_slice(&at.0.to_be_bytes());
    key
}

/// Range of the expiry index, end exclusive.
pub(super) const EXPIRIES: ([u8; 1], [u8; 1]) = ([BY_EXPIRY], [BY_EXPIRY + 1]);

/// Reads the CID of a key that starts with [`by_expiry`].
pub(super) fn expiry_cid(key: &[u8]) -> Option<Cid> {
    key.get(9..).and_then(|cid| Cid::from_bytes(cid).ok())
}

/// All index keys of a pin, apart from those of the search index.
pub(super) fn index(pin: &Pin) -> Vec<Vec<u8>> {
    let cid = pin.cid.as_bytes();
    let with_cid = |mut key: Vec<u8>| {
        key.extend_from_slice(cid);
        key
    };
    let mut keys = Vec::with_capacity(pin.allocations.len() + 1);
    if let Some(at) = pin.options.expire_at {
        keys.push(with_cid(by_expiry(at).to_vec()));
    }
    let peers = pin.allocations.iter();
    keys.extend(peers.map(|peer| with_cid(by_peer(peer.as_bytes()))));
    keys
}

/// Key of a queue entry.
pub(super) fn queue(key: &QueueKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(9 + key.cid.as_bytes().len());
    bytes.push(key.lane as u8);
    bytes.extend_from_slice(&key.at.to_be_bytes());
    bytes.extend_from_slice(key.cid.as_bytes());
    bytes
}

/// Range of a lane in the queue keyspace, end exclusive.
pub(super) fn lane(lane: Lane) -> ([u8; 1], [u8; 1]) {
    ([lane as u8], [lane as u8 + 1])
}

/// Parses a key that [`queue`] wrote in this lane.
pub(super) fn queue_key(lane: Lane, key: &[u8]) -> Option<QueueKey> {
    let at = key.get(1..9)?.try_into().ok().map(u64::from_be_bytes)?;
    let cid = Cid::from_bytes(key.get(9..)?).ok()?;
    Some(QueueKey { lane, at, cid })
}
