//! Records of the DHT that other peers store at this node, within limits.
//!
//! Provider and value records have separate quotas. A single provider, a single key and all together are
//! limited, so that no stranger can take the room of others or make this node hold unlimited memory. What is
//! full refuses, except that a key's oldest provider makes room for a newer one.

use crate::swarm::addresses::ADDRESSES_MAX;
use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

/// Limit on provider records; each takes up to some 500 bytes.
const PROVIDERS_MAX: usize = 65_536;
/// Limit on records of one provider: a quarter of all.
const PER_PROVIDER_MAX: usize = PROVIDERS_MAX / 4;
/// Limit on providers of one key. A reply carries 20 of them.
const PER_KEY_MAX: usize = 40;
/// Limit on the bytes of a provider record's key, as in go-libp2p-kad-dht.
const KEY_MAX: usize = 80;
/// Limit on value records.
const VALUES_MAX: usize = 2048;
/// Limit on the bytes of a value and its key: the largest IPNS record.
const VALUE_MAX: usize = 10 << 10;

/// Stored records.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Providers of a key, the oldest first.
    providers: HashMap<RecordKey, Vec<ProviderRecord>>,
    /// Number of records of each provider.
    counts: HashMap<PeerId, usize>,
    total: usize,
    values: HashMap<RecordKey, Record>,
}

impl Records {
    /// Removes expired records.
    pub(crate) fn expire(&mut self, now: Instant) {
        let counts = &mut self.counts;
        let total = &mut self.total;
        self.providers.retain(|_, records| {
            records.retain(|record| {
                let keep = !record.is_expired(now);
                if !keep {
                    *total -= 1;
                    decrement(counts, &record.provider);
                }
                keep
            });
            !records.is_empty()
        });
        self.values.retain(|_, record| !record.is_expired(now));
    }

    /// Returns the numbers of provider and value records.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.total, self.values.len())
    }
}

fn decrement(counts: &mut HashMap<PeerId, usize>, provider: &PeerId) {
    if let Some(count) = counts.get_mut(provider) {
        *count -= 1;
        if *count == 0 {
            counts.remove(provider);
        }
    }
}

impl RecordStore for Records {
    type RecordsIter<'a> = std::iter::Empty<Cow<'a, Record>>;
    type ProvidedIter<'a> = std::iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.values.get(key).map(Cow::Borrowed)
    }

    fn put(&mut self, record: Record) -> Result<()> {
        if record.value.len() + record.key.as_ref().len() > VALUE_MAX {
            return Err(Error::ValueTooLarge);
        }
        if self.values.len() >= VALUES_MAX && !self.values.contains_key(&record.key) {
            return Err(Error::MaxRecords);
        }
        self.values.insert(record.key.clone(), record);
        Ok(())
    }

    fn remove(&mut self, key: &RecordKey) {
        self.values.remove(key);
    }

    /// Nothing: others' values are not replicated.
    fn records(&self) -> Self::RecordsIter<'_> {
        std::iter::empty()
    }

    fn add_provider(&mut self, mut record: ProviderRecord) -> Result<()> {
        if record.key.as_ref().len() > KEY_MAX {
            return Err(Error::ValueTooLarge);
        }
        record.addresses.truncate(ADDRESSES_MAX);
        let known = self.providers.get_mut(&record.key);
        if let Some(records) = known {
            let old = records.iter().position(|old| old.provider == record.provider);
            if let Some(old) = old {
                records.remove(old);
                records.push(record);
                return Ok(());
            }
        }
        let count = self.counts.get(&record.provider).copied().unwrap_or(0);
        if self.total >= PROVIDERS_MAX || count >= PER_PROVIDER_MAX {
            return Err(Error::MaxProvidedKeys);
        }
        let records = self.providers.entry(record.key.clone()).or_default();
        if records.len() >= PER_KEY_MAX {
            let oldest = records.remove(0);
            self.total -= 1;
            decrement(&mut self.counts, &oldest.provider);
        }
        *self.counts.entry(record.provider).or_default() += 1;
        self.total += 1;
        records.push(record);
        Ok(())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        let mut records = self.providers.get(key).cloned().unwrap_or_default();
        records.reverse();
        records
    }

    /// Nothing: this node announces its own content itself.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        let Some(records) = self.providers.get_mut(key) else {
            return;
        };
        if let Some(position) = records.iter().position(|record| record.provider == *provider) {
            records.remove(position);
            self.total -= 1;
            decrement(&mut self.counts, provider);
        }
        if records.is_empty() {
            self.providers.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn record(key: usize, provider: PeerId) -> ProviderRecord {
        ProviderRecord::new(key.to_be_bytes().to_vec(), provider, Vec::new())
    }

    #[test]
    fn provider_records_are_limited_per_provider_per_key_and_in_total() {
        let mut records = Records::default();
        let greedy = PeerId::random();
        for key in 0..PER_PROVIDER_MAX {
            records.add_provider(record(key, greedy)).unwrap();
        }
        assert!(records.add_provider(record(PER_PROVIDER_MAX, greedy)).is_err());
        records.add_provider(record(0, greedy)).unwrap();
        assert_eq!(
            records.len().0,
            PER_PROVIDER_MAX,
            "a repeated record takes no more room"
        );
        let many: Vec<PeerId> = (0..=PER_KEY_MAX).map(|_| PeerId::random()).collect();
        for provider in &many {
            records.add_provider(record(1 << 20, *provider)).unwrap();
        }
        let kept = records.providers(&record(1 << 20, greedy).key);
        assert_eq!(kept.len(), PER_KEY_MAX);
        assert_eq!(kept[0].provider, many[PER_KEY_MAX], "the newest comes first");
        assert!(kept.iter().all(|record| record.provider != many[0]));
        let rest = (0..).find(|key| {
            records
                .add_provider(record((2 << 20) + key, PeerId::random()))
                .is_err()
        });
        assert_eq!(rest, Some(PROVIDERS_MAX - PER_PROVIDER_MAX - PER_KEY_MAX));
        assert_eq!(records.counts.values().sum::<usize>(), PROVIDERS_MAX);
    }

    #[test]
    fn expired_records_make_room() {
        let mut records = Records::default();
        let (now, provider) = (Instant::now(), PeerId::random());
        let mut old = record(1, provider);
        old.expires = Some(now);
        records.add_provider(old).unwrap();
        records.add_provider(record(2, provider)).unwrap();
        records.expire(now + Duration::from_secs(1));
        assert_eq!((records.len().0, records.counts[&provider]), (1, 1));
        records.remove_provider(&record(2, provider).key, &provider);
        assert!(records.providers.is_empty() && records.counts.is_empty() && records.total == 0);
    }
}
