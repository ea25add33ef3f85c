//! Records of the DHT that other peers store at this node, within limits: provider records on disk
//! ([`ProviderRecords`]), and values in memory. Their quotas are separate.

use super::provider_records::ProviderRecords;
use super::record_database::RecordDatabase;
use crate::swarm::addresses::Scope;
use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};
use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Instant;

/// Limit on value records.
const VALUES_MAX: usize = 2048;
/// Limit on the bytes of a value and its key: the largest IPNS record.
const VALUE_MAX: usize = 10 << 10;

/// Stored records of one DHT.
#[derive(Debug)]
pub(crate) struct Records {
    providers: ProviderRecords,
    values: HashMap<RecordKey, Record>,
}

impl Records {
    /// Reads the stored records. Blocks the thread.
    pub(crate) fn load(database: RecordDatabase, scope: Scope) -> Records {
        Records {
            providers: ProviderRecords::load(database, scope),
            values: HashMap::new(),
        }
    }

    /// Removes expired values, and the expired provider records of a few keys.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.providers.expire_step();
        self.values.retain(|_, record| !record.is_expired(now));
    }

    /// Returns the numbers of provider and value records.
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.providers.len(), self.values.len())
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

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        self.providers.add(&record)
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.of(key)
    }

    /// Nothing: this node announces its own content itself.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        std::iter::empty()
    }

    fn remove_provider(&mut self, key: &RecordKey, provider: &PeerId) {
        self.providers.remove(key, provider);
    }
}
