//! Exact numbers of the pins that meet conditions, with little work where that is possible: the number of all
//! pins is part of each batch, and the number of those with a pair in their metadata is counted once and then
//! kept up to date. With one of both, a time splits the list in two, and the shorter part is counted.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::error::StoreError;
use super::reader::{Listing, Reader};
use super::search::{List, NameMatch, Order, Search, Verdict};
use super::search_index::META_LIST;
use super::shared::lock;
use cluster_core::Timestamp;

/// Maximum number of metadata pairs whose counts are remembered: those that were asked for last.
const REMEMBERED_MAX: usize = 32;

/// Change of the number of pins in a list of a metadata pair.
pub(super) type ListChange = ([u8; META_LIST], i64);

/// Remembered numbers of pins with a metadata pair. Changed and read under the lock of the generation in use.
#[derive(Default)]
pub(super) struct ListCounts {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    lists: HashMap<[u8; META_LIST], Remembered>,
    /// Number of uses, and ids of lists, so far.
    uses: u64,
}

struct Remembered {
    /// Differs after the list was forgotten and asked for again.
    id: u64,
    /// Number when the list was first asked for, once it is counted.
    before: Option<i64>,
    change: i64,
    last_use: u64,
}

/// Knowledge of a list as of a snapshot.
enum Known {
    Count(u64),
    /// The list `id` must be counted; it has changed by `change` before the snapshot.
    Unknown {
        id: u64,
        change: i64,
    },
}

impl ListCounts {
    /// Adds the changes of a batch that is being committed.
    pub(super) fn changed(&self, changes: &[ListChange]) {
        let mut inner = lock(&self.inner);
        for (list, by) in changes {
            if let Some(list) = inner.lists.get_mut(list) {
                list.change += by;
            }
        }
    }

    /// Forgets all lists, after the pinset was replaced.
    pub(super) fn forget(&self) {
        lock(&self.inner).lists.clear();
    }

    fn ask(&self, list: [u8; META_LIST]) -> Known {
        let mut inner = lock(&self.inner);
        inner.uses += 1;
        let uses = inner.uses;
        if let Some(list) = inner.lists.get_mut(&list) {
            list.last_use = uses;
            return match list.before {
                Some(before) => Known::Count(u64::try_from(before + list.change).unwrap_or(0)),
                None => Known::Unknown {
                    id: list.id,
                    change: list.change,
                },
            };
        }
        if inner.lists.len() >= REMEMBERED_MAX {
            let oldest = inner.lists.iter().min_by_key(|(_, list)| list.last_use);
            let oldest = oldest.map(|(list, _)| *list);
            oldest.and_then(|list| inner.lists.remove(&list));
        }
        let remembered = Remembered {
            id: uses,
            before: None,
            change: 0,
            last_use: uses,
        };
        inner.lists.insert(list, remembered);
        Known::Unknown { id: uses, change: 0 }
    }

    fn counted(&self, list: [u8; META_LIST], id: u64, count: u64, change: i64) {
        let mut inner = lock(&self.inner);
        if let Some(list) = inner.lists.get_mut(&list).filter(|list| list.id == id) {
            list.before = i64::try_from(count).ok().map(|count| count - change);
        }
    }
}

impl Reader {
    /// Counts the pins that meet the conditions, as of the last batch. Without conditions on names, and with
    /// at most one pair of metadata and one time, this reads the shorter side of the time, or nothing; and
    /// once all pins with the pair. Otherwise one entry of the index for each candidate of the condition that
    /// has the fewest, or for each pin.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read or is damaged.
    pub fn count(&self, search: &Search) -> Result<u64, StoreError> {
        let current = self.shared.current.read().unwrap_or_else(PoisonError::into_inner);
        let listing = self.listing_of(&current);
        let list = search.only_list();
        let pair: Option<[u8; META_LIST]> = list
            .as_ref()
            .and_then(|list| list.prefix.as_slice().try_into().ok());
        let known = pair.map(|pair| (pair, self.shared.list_counts.ask(pair)));
        drop(current);
        let Some(list) = list else {
            return listing.count_candidates(search);
        };
        let size = match known {
            None => listing.applied()?.pins,
            Some((_, Known::Count(count))) => count,
            Some((pair, Known::Unknown { id, change })) => {
                let count = listing.count_entries(&list, &Search::default())?;
                self.shared.list_counts.counted(pair, id, count, change);
                count
            }
        };
        listing.count_side(&list, search, size)
    }
}

impl Listing {
    /// Counts the entries of a list within the times of a search.
    fn count_entries(&self, list: &List, search: &Search) -> Result<u64, StoreError> {
        let mut count = 0;
        for entry in self.entries(list, search, None) {
            entry?;
            count += 1;
        }
        Ok(count)
    }

    /// Counts the entries of a list of `size` entries that are on one side of a time.
    fn count_side(&self, list: &List, search: &Search, size: u64) -> Result<u64, StoreError> {
        let other = match (search.after, search.before) {
            (None, None) => return Ok(size),
            (Some(_), Some(_)) => return self.count_entries(list, search),
            (Some(after), None) => Search {
                before: after.0.checked_add(1).map(Timestamp),
                ..Search::default()
            },
            (None, Some(Timestamp(0))) => return Ok(0),
            (None, Some(before)) => Search {
                after: Some(Timestamp(before.0 - 1)),
                ..Search::default()
            },
        };
        let (mut these, mut others) = (self.entries(list, search, None), self.entries(list, &other, None));
        let mut count = 0;
        loop {
            if these.next().transpose()?.is_none() {
                return Ok(count);
            }
            if others.next().transpose()?.is_none() {
                return Ok(size.saturating_sub(count));
            }
            count += 1;
        }
    }

    /// Counts by comparing all candidates of the smallest condition with the others.
    fn count_candidates(&self, search: &Search) -> Result<u64, StoreError> {
        let smallest = self.smallest_list(search, None, usize::MAX)?;
        if let (None, Some(name)) = (&smallest, search.name_prefix()) {
            return self.count_by_prefix(search, name);
        }
        let list = smallest.unwrap_or_else(List::of_all);
        let is_decided = search.is_decided_by(&list);
        let mut count = 0;
        for entry in self.entries(&list, search, None) {
            let (key, value) = entry?;
            let is_known = match self.judge(search, &list, &key, &value)? {
                Verdict::Excluded => continue,
                Verdict::Possible => is_decided,
                Verdict::Unknown => false,
            };
            let counts = is_known || {
                let at = self.position(&list, &key)?;
                search.matches(&self.indexed_pin(&at.cid)?)
            };
            count += u64::from(counts);
        }
        Ok(count)
    }

    fn count_by_prefix(&self, search: &Search, name: &NameMatch) -> Result<u64, StoreError> {
        let is_decided = search.is_decided_by(&List::of_all());
        let mut count = 0;
        for candidate in self.with_prefix(search, name) {
            let (at, is_whole) = candidate?;
            let counts = match at {
                None => false,
                Some(_) if is_whole && is_decided => true,
                Some(at) => search.matches(&self.indexed_pin(&at.cid)?),
            };
            count += u64::from(counts);
        }
        Ok(count)
    }
}

impl Search {
    /// Returns the list whose entries alone, with the times, decide on the search: that of all pins, or of a
    /// pair of metadata.
    fn only_list(&self) -> Option<List> {
        let others = Self {
            metadata: std::collections::BTreeMap::new(),
            owner: None,
            after: None,
            before: None,
            order: Order::default(),
            ..self.clone()
        };
        let pairs = self.metadata.len() + usize::from(self.owner.is_some());
        if others != Self::default() || pairs > 1 {
            return None;
        }
        Some(self.lists().pop().unwrap_or_else(List::of_all))
    }
}
