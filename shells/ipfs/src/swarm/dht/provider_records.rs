//! Provider records of other peers, on disk within limits.
//!
//! An entry of the database is a key with all its providers, so that a request costs one read. Memory holds
//! only counts. A single provider, a single key and all together are limited, so that no stranger can take
//! the room of others or make this node hold unlimited data. What is full refuses, except that a key's oldest
//! provider makes room for a newer one. Expired records are not returned, and removed by a pass over the
//! entries, a few per step.

use super::record_database::RecordDatabase;
use crate::swarm::addresses::{ADDRESSES_MAX, Scope};
use libp2p::kad::store::{Error, Result};
use libp2p::kad::{ProviderRecord, RecordKey};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Limit on the providers of one key. A reply carries 20 of them.
const PER_KEY_MAX: usize = 40;
/// Limit on the bytes of a key, as in go-libp2p-kad-dht.
const KEY_MAX: usize = 80;
/// Limit on the bytes of an address that is stored; those with a domain and a certificate's hash have fewer.
const ADDRESS_BYTES_MAX: usize = 512;
/// Validity of a record from its receipt.
const VALIDITY: Duration = super::RECORD_TTL;
/// Extension of a record's validity below which an unchanged record is not written again.
const EXTENSION_MIN: Duration = Duration::from_secs(3600);
/// Number of keys that one step of removing expired records reads.
const STEP_KEYS: usize = 256;
/// Number of keys read at once when the database is loaded.
const LOADED_KEYS: usize = 4096;
/// Layout version of an entry's value.
const LAYOUT: u8 = 1;

/// Limits on all records.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// Number of records.
    records: usize,
    /// Number of records of one provider.
    per_provider: usize,
    /// Bytes of all entries.
    bytes: usize,
}

/// Limits of one DHT. Their counts take up to some 8 MiB of memory; a record has 60 to 300 bytes mostly.
const LIMITS: Limits = Limits {
    records: 262_144,
    per_provider: 65_536,
    bytes: 128 << 20,
};

/// A record in an entry's value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    provider: Vec<u8>,
    /// Seconds since 1970.
    expires: u64,
    addresses: Vec<Vec<u8>>,
}

impl Stored {
    fn from(record: &ProviderRecord, now: u64) -> Stored {
        let left = record
            .expires
            .map(|at| at.saturating_duration_since(Instant::now()));
        let addresses = record.addresses.iter().map(Multiaddr::to_vec);
        Stored {
            provider: record.provider.to_bytes(),
            expires: now + left.unwrap_or(VALIDITY).min(VALIDITY).as_secs(),
            addresses: addresses
                .filter(|address| address.len() <= ADDRESS_BYTES_MAX)
                .take(ADDRESSES_MAX)
                .collect(),
        }
    }

    /// A clock that was set back must not extend a record.
    fn is_valid(&self, now: u64) -> bool {
        self.expires > now && self.expires <= now + VALIDITY.as_secs()
    }

    fn to_record(&self, key: &RecordKey, now: u64) -> Option<ProviderRecord> {
        let left = Duration::from_secs(self.expires.saturating_sub(now));
        let addresses = self.addresses.iter();
        Some(ProviderRecord {
            key: key.clone(),
            provider: PeerId::from_bytes(&self.provider).ok()?,
            expires: Instant::now().checked_add(left),
            addresses: addresses
                .filter_map(|address| Multiaddr::try_from(address.clone()).ok())
                .collect(),
        })
    }
}

/// Providers of a key, the oldest first, and the bytes that they take on disk.
#[derive(Debug, Default)]
struct Entry {
    providers: Vec<Stored>,
    bytes: usize,
}

impl Entry {
    /// Decodes an entry; one that is unreadable has no providers.
    fn decode(key: &[u8], value: &[u8]) -> Entry {
        let providers = match value.split_first() {
            Some((&LAYOUT, rest)) => postcard::from_bytes(rest).unwrap_or_default(),
            Some(_) | None => Vec::new(),
        };
        Entry {
            providers,
            bytes: key.len() + value.len(),
        }
    }
}

fn encode(providers: &[Stored]) -> Option<Vec<u8>> {
    postcard::to_extend(providers, vec![LAYOUT]).ok()
}

fn unix_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Provider records of one DHT.
#[derive(Debug)]
pub(super) struct ProviderRecords {
    database: RecordDatabase,
    scope: Scope,
    limits: Limits,
    /// Number of records by the hash of their provider.
    counts: HashMap<u64, usize>,
    hasher: RandomState,
    total: usize,
    /// Bytes of all entries.
    bytes: usize,
    /// Key after which the next step of removing expired records begins.
    position: Vec<u8>,
}

impl ProviderRecords {
    /// Reads what the database has. Blocks the thread.
    pub(super) fn load(database: RecordDatabase, scope: Scope) -> ProviderRecords {
        ProviderRecords::load_with(database, scope, LIMITS)
    }

    fn load_with(database: RecordDatabase, scope: Scope, limits: Limits) -> ProviderRecords {
        let mut records = ProviderRecords {
            database,
            scope,
            limits,
            counts: HashMap::new(),
            hasher: RandomState::new(),
            total: 0,
            bytes: 0,
            position: Vec::new(),
        };
        let mut after = Vec::new();
        loop {
            let entries = records.database.entries(scope, &after, LOADED_KEYS);
            for (key, value) in &entries {
                let entry = Entry::decode(key, value);
                records.bytes += entry.bytes;
                records.count(&entry.providers);
            }
            match entries.last() {
                Some((last, _)) if entries.len() == LOADED_KEYS => after = last.to_vec(),
                Some(_) | None => return records,
            }
        }
    }

    /// Returns the number of records, of which some may have expired.
    pub(super) fn len(&self) -> usize {
        if self.database.is_open() { self.total } else { 0 }
    }

    fn hash(&self, provider: &[u8]) -> u64 {
        self.hasher.hash_one(provider)
    }

    fn count(&mut self, providers: &[Stored]) {
        for stored in providers {
            let hash = self.hash(&stored.provider);
            *self.counts.entry(hash).or_default() += 1;
        }
        self.total += providers.len();
    }

    fn discount(&mut self, providers: &[Stored]) {
        for stored in providers {
            let hash = self.hash(&stored.provider);
            if let Some(count) = self.counts.get_mut(&hash) {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&hash);
                }
            }
        }
        self.total = self.total.saturating_sub(providers.len());
    }

    fn read(&self, key: &[u8]) -> Entry {
        let value = self.database.get(self.scope, key);
        value.map(|value| Entry::decode(key, &value)).unwrap_or_default()
    }

    /// Replaces an entry; one without providers is removed. The bytes may grow only within the limit.
    fn replace(&mut self, key: &[u8], old: &Entry, new: &[Stored]) -> Result<()> {
        let value = encode(new).ok_or(Error::ValueTooLarge)?;
        let bytes = if new.is_empty() {
            0
        } else {
            key.len() + value.len()
        };
        let total = self.bytes.saturating_sub(old.bytes) + bytes;
        if bytes > old.bytes && total > self.limits.bytes {
            return Err(Error::MaxProvidedKeys);
        }
        let is_done = match new.is_empty() {
            true => self.database.remove(self.scope, key),
            false => self.database.insert(self.scope, key, value),
        };
        if !is_done {
            return Err(Error::MaxProvidedKeys);
        }
        self.bytes = total;
        self.discount(&old.providers);
        self.count(new);
        Ok(())
    }

    /// Stores a record.
    ///
    /// # Errors
    /// The key is too long, a limit is reached, or the database is closed.
    pub(super) fn add(&mut self, record: &ProviderRecord) -> Result<()> {
        self.add_at(record, unix_now())
    }

    fn add_at(&mut self, record: &ProviderRecord, now: u64) -> Result<()> {
        let key = record.key.as_ref();
        if key.len() > KEY_MAX {
            return Err(Error::ValueTooLarge);
        }
        let added = Stored::from(record, now);
        let old = self.read(key);
        let valid = old.providers.iter().filter(|stored| stored.is_valid(now));
        let mut new: Vec<Stored> = valid.cloned().collect();
        if let Some(at) = new.iter().position(|stored| stored.provider == added.provider) {
            let known = new.remove(at);
            let extension = added.expires.saturating_sub(known.expires);
            if known.addresses == added.addresses && extension < EXTENSION_MIN.as_secs() {
                return Ok(());
            }
        } else {
            let count = self.counts.get(&self.hash(&added.provider)).copied();
            let total = self.total.saturating_sub(old.providers.len() - new.len());
            if total >= self.limits.records || count.unwrap_or(0) >= self.limits.per_provider {
                return Err(Error::MaxProvidedKeys);
            }
            if new.len() >= PER_KEY_MAX {
                new.remove(0);
            }
        }
        new.push(added);
        self.replace(key, &old, &new)
    }

    /// Returns the valid records of a key, the newest first.
    pub(super) fn of(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.of_at(key, unix_now())
    }

    fn of_at(&self, key: &RecordKey, now: u64) -> Vec<ProviderRecord> {
        let entry = self.read(key.as_ref());
        let valid = entry.providers.iter().rev().filter(|stored| stored.is_valid(now));
        valid.filter_map(|stored| stored.to_record(key, now)).collect()
    }

    /// Removes the record of a provider.
    pub(super) fn remove(&mut self, key: &RecordKey, provider: &PeerId) {
        let (key, provider) = (key.as_ref(), provider.to_bytes());
        let old = self.read(key);
        let others = old.providers.iter().filter(|stored| stored.provider != provider);
        let new: Vec<Stored> = others.cloned().collect();
        if new.len() < old.providers.len() {
            // Fails only with the database, which then stores nothing.
            let _ = self.replace(key, &old, &new);
        }
    }

    /// Removes the expired records of the next few keys.
    pub(super) fn expire_step(&mut self) {
        self.expire_step_at(unix_now());
    }

    fn expire_step_at(&mut self, now: u64) {
        if self.bytes == 0 {
            return;
        }
        let entries = self.database.entries(self.scope, &self.position, STEP_KEYS);
        for (key, value) in &entries {
            let old = Entry::decode(key, value);
            let valid = old.providers.iter().filter(|stored| stored.is_valid(now));
            let new: Vec<Stored> = valid.cloned().collect();
            if new.len() < old.providers.len() || new.is_empty() {
                // As above.
                let _ = self.replace(key, &old, &new);
            }
        }
        self.position = match entries.last() {
            Some((last, _)) if entries.len() == STEP_KEYS => last.to_vec(),
            Some(_) | None => Vec::new(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    const SMALL: Limits = Limits {
        records: 400,
        per_provider: 100,
        bytes: 1 << 20,
    };

    fn record(key: usize, provider: PeerId) -> ProviderRecord {
        let address = format!("/ip4/1.2.3.4/tcp/{}", 1 + key % 1000);
        ProviderRecord {
            addresses: vec![address.parse().unwrap()],
            ..ProviderRecord::new(key.to_be_bytes().to_vec(), provider, Vec::new())
        }
    }

    fn load(folder: &TempDir, limits: Limits) -> ProviderRecords {
        let database = RecordDatabase::open(folder.path());
        assert!(database.is_open());
        ProviderRecords::load_with(database, Scope::Public, limits)
    }

    fn opened(limits: Limits) -> (ProviderRecords, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (load(&folder, limits), folder)
    }

    #[test]
    fn provider_records_are_limited_per_provider_per_key_and_in_total() {
        let (mut records, _folder) = opened(SMALL);
        let greedy = PeerId::random();
        for key in 0..SMALL.per_provider {
            records.add(&record(key, greedy)).unwrap();
        }
        assert!(records.add(&record(SMALL.per_provider, greedy)).is_err());
        let mut moved = record(0, greedy);
        moved.addresses = vec!["/ip4/5.6.7.8/tcp/9".parse().unwrap()];
        records.add(&moved).unwrap();
        assert_eq!(
            records.len(),
            SMALL.per_provider,
            "a repeated record takes no more room"
        );
        assert_eq!(records.of(&moved.key)[0].addresses, moved.addresses);
        let many: Vec<PeerId> = (0..=PER_KEY_MAX).map(|_| PeerId::random()).collect();
        for provider in &many {
            records.add(&record(1 << 20, *provider)).unwrap();
        }
        let kept = records.of(&record(1 << 20, greedy).key);
        assert_eq!(kept.len(), PER_KEY_MAX);
        assert_eq!(kept[0].provider, many[PER_KEY_MAX], "the newest comes first");
        assert!(kept.iter().all(|record| record.provider != many[0]));
        let mut more = (0..).map(|key| record((2 << 20) + key, PeerId::random()));
        let stored = more.position(|record| records.add(&record).is_err());
        assert_eq!(stored, Some(SMALL.records - SMALL.per_provider - PER_KEY_MAX));
        assert_eq!(records.counts.values().sum::<usize>(), SMALL.records);
        let long = ProviderRecord::new(vec![0; KEY_MAX + 1], greedy, Vec::new());
        assert!(records.add(&long).is_err());
    }

    #[test]
    fn bytes_are_limited_and_long_addresses_left_out() {
        let limits = Limits { bytes: 2000, ..SMALL };
        let (mut records, _folder) = opened(limits);
        let mut stored = 0;
        while records.add(&record(stored, PeerId::random())).is_ok() {
            stored += 1;
            assert!(records.bytes <= limits.bytes);
        }
        assert!((10..100).contains(&stored), "{stored}");
        let first = records.of(&record(0, PeerId::random()).key).remove(0);
        let mut grown = first.clone();
        grown.addresses = (1..=8)
            .map(|port| format!("/ip6/::1/tcp/{port}").parse().unwrap())
            .collect();
        assert!(records.add(&grown).is_err(), "no room to grow");
        records.remove(&first.key, &first.provider);
        let name = "a".repeat(ADDRESS_BYTES_MAX);
        let mut long = record(0, PeerId::random());
        long.addresses.push(format!("/dns/{name}/tcp/1").parse().unwrap());
        records.add(&long).unwrap();
        assert_eq!(records.of(&long.key)[0].addresses, long.addresses[..1]);
    }

    #[test]
    fn restart_keeps_records_counts_and_quotas() {
        let (mut records, folder) = opened(SMALL);
        let (greedy, other) = (PeerId::random(), PeerId::random());
        for key in 0..SMALL.per_provider {
            records.add(&record(key, greedy)).unwrap();
        }
        records.add(&record(7, other)).unwrap();
        let (total, bytes) = (records.len(), records.bytes);
        records.database.close();
        assert!(records.add(&record(8, other)).is_err(), "the database is closed");
        drop(records);
        let mut records = load(&folder, SMALL);
        assert_eq!((records.len(), records.bytes), (total, bytes));
        let found = records.of(&record(7, other).key);
        let providers: Vec<PeerId> = found.iter().map(|record| record.provider).collect();
        assert_eq!(providers, [other, greedy]);
        assert_eq!(found[0].addresses, record(7, other).addresses);
        let left = found[0]
            .expires
            .unwrap()
            .saturating_duration_since(Instant::now());
        assert!(
            left > VALIDITY - Duration::from_secs(600) && left <= VALIDITY,
            "{left:?}"
        );
        assert!(records.add(&record(SMALL.per_provider, greedy)).is_err());
        records.add(&record(SMALL.per_provider, other)).unwrap();
        let local = ProviderRecords::load(records.database.clone(), Scope::Machine);
        assert_eq!(local.len(), 0, "the records of the DHTs are apart");
    }

    #[test]
    fn expired_records_are_not_returned_and_make_room() {
        let (mut records, _folder) = opened(SMALL);
        let (now, provider) = (unix_now(), PeerId::random());
        let later = now + VALIDITY.as_secs() / 2;
        let count = 2 * STEP_KEYS - 200;
        for key in 0..count {
            records.add_at(&record(key, PeerId::random()), now).unwrap();
        }
        records.add_at(&record(0, provider), later).unwrap();
        let end = now + VALIDITY.as_secs();
        let left = records.of_at(&record(0, provider).key, end);
        assert_eq!(
            left.iter().map(|record| record.provider).collect::<Vec<_>>(),
            [provider]
        );
        assert_eq!(records.len(), count + 1);
        records.expire_step_at(end);
        assert!((2..count).contains(&records.len()), "one step: {}", records.len());
        records.expire_step_at(end);
        assert_eq!((records.len(), records.counts.len()), (1, 1));
        // A clock that was set back.
        assert_eq!(records.of_at(&record(0, provider).key, now - 3600).len(), 0);
        records.remove(&record(0, provider).key, &provider);
        assert_eq!((records.len(), records.bytes, records.counts.len()), (0, 0, 0));
    }

    #[test]
    fn unchanged_record_is_written_again_only_to_extend_it() {
        let (mut records, _folder) = opened(SMALL);
        let (now, provider) = (unix_now(), PeerId::random());
        let expiry = |records: &ProviderRecords| {
            let entry = records.read(record(1, provider).key.as_ref());
            entry.providers[0].expires - VALIDITY.as_secs()
        };
        for (at, expected) in [(now, now), (now + 60, now), (now + 7200, now + 7200)] {
            records.add_at(&record(1, provider), at).unwrap();
            // The validity is counted from the receipt, some microseconds earlier.
            assert!(expiry(&records).abs_diff(expected) <= 1);
        }
        assert_eq!(records.len(), 1);
    }

    #[test]
    fn damaged_database_is_replaced_and_unreadable_entries_are_removed() {
        let (mut records, folder) = opened(SMALL);
        let kept = record(2, PeerId::random());
        records.add(&kept).unwrap();
        assert!(
            records
                .database
                .insert(Scope::Public, b"bad", vec![LAYOUT, 0xff, 1])
        );
        records.database.close();
        drop(records);
        let mut records = load(&folder, SMALL);
        assert_eq!(records.len(), 1);
        records.expire_step();
        assert!(records.database.get(Scope::Public, b"bad").is_none());
        assert_eq!(records.of(&kept.key).len(), 1);
        records.database.close();
        drop(records);
        for file in std::fs::read_dir(folder.path().join("dht_records")).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                std::fs::write(path, b"damage").unwrap();
            }
        }
        let mut records = load(&folder, SMALL);
        assert_eq!(records.len(), 0);
        records.add(&kept).unwrap();
    }
}
