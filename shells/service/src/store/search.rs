//! Searches of the pinset: by name, metadata, creation time, type and holder, in pages of bounded work.
//!
//! The conditions on exact names and metadata each name a part of the search index (`search_index.rs`), whose
//! pins are in the order of their creation. The search reads the smallest of them, or that of all pins, from
//! the last page's end on, and compares each candidate with all conditions: first its entry, then the pin.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use cluster_core::{Cid, PeerId, Pin, PinType, Timestamp, owner_key};
use fjall::{Iter, Readable, UserKey, UserValue};

use super::error::StoreError;
use super::reader::Listing;
use super::search_index::{self, IndexedName, Kind, Position};

/// Work of one page: entries of the index that are read, a pin counting as [`PIN_COST`]. A page that has done
/// it ends early, and the next one continues. About 20 ms.
const PAGE_WORK: usize = 20_000;

/// Work of reading one pin by its CID.
const PIN_COST: usize = 12;

/// Work of reading a pin in the order of CIDs.
const NEXT_PIN_COST: usize = 2;

/// Maximum number of entries of each exact condition that a page reads to find the one with the fewest.
const COMPARED_MAX: usize = 1024;

/// Exact conditions that are compared; more are only checked on the pins.
const LISTS_MAX: usize = 8;

/// Maximum number of pins whose name starts as asked that are sorted by time in memory. If there are more,
/// the pins of all names are read in that order: then one in at most a few hundred of a million starts so.
const SORTED_MAX: usize = 4096;

/// Comparison of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// The name equals the text.
    Exact,
    /// The name starts with the text.
    Prefix,
    /// The name contains the text.
    Partial,
}

/// Condition on the name of a pin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameMatch {
    comparison: Comparison,
    ignore_case: bool,
    /// Folded if the case is ignored.
    text: String,
}

impl NameMatch {
    /// Compares names with `text`.
    pub fn new(comparison: Comparison, ignore_case: bool, text: &str) -> Self {
        let text = match ignore_case {
            true => search_index::fold(text).into_owned(),
            false => text.to_owned(),
        };
        Self {
            comparison,
            ignore_case,
            text,
        }
    }

    /// Returns whether a name meets the condition.
    pub fn matches(&self, name: &str) -> bool {
        let compare = |name: &str| match self.comparison {
            Comparison::Exact => name == self.text,
            Comparison::Prefix => name.starts_with(&self.text),
            Comparison::Partial => name.contains(&self.text),
        };
        match self.ignore_case {
            true => compare(&search_index::fold(name)),
            false => compare(name),
        }
    }
}

/// Order of found pins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// By CID.
    #[default]
    Cid,
    /// By creation time, the latest first.
    Newest,
    /// By creation time, the earliest first.
    Oldest,
}

/// Conditions that a pin must all meet, and the order of those that do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// Owner that must hold the pin. The other conditions are on the pin as this owner sees it.
    pub owner: Option<String>,
    /// Condition on the name.
    pub name: Option<NameMatch>,
    /// Pairs that the metadata must have.
    pub metadata: BTreeMap<String, String>,
    /// Time that it must be created after.
    pub after: Option<Timestamp>,
    /// Time that it must be created before.
    pub before: Option<Timestamp>,
    /// Peer that must be allocated to hold it.
    pub holder: Option<PeerId>,
    /// Types that it may have; `None` for all.
    pub types: Option<BTreeSet<PinType>>,
    /// Order of the results.
    pub order: Order,
}

impl Search {
    /// Returns whether a pin meets all conditions.
    pub fn matches(&self, pin: &Pin) -> bool {
        match &self.owner {
            None => self.matches_as_shown(pin),
            Some(owner) => pin.seen_by(owner).is_some_and(|pin| self.matches_as_shown(&pin)),
        }
    }

    fn matches_as_shown(&self, pin: &Pin) -> bool {
        self.matches_fields(&pin.options.name, pin.timestamp, &pin.options.metadata)
            && self.holder.as_ref().is_none_or(|peer| pin.is_allocated_to(peer))
            && self
                .types
                .as_ref()
                .is_none_or(|types| types.contains(&pin.pin_type))
    }

    /// Returns whether a pin with these fields meets the conditions on them.
    pub fn matches_fields(
        &self,
        name: &str,
        created: Timestamp,
        metadata: &BTreeMap<String, String>,
    ) -> bool {
        let has = |(key, value): (&String, &String)| metadata.get(key) == Some(value);
        self.is_in_time(created)
            && self.name.as_ref().is_none_or(|asked| asked.matches(name))
            && self.metadata.iter().all(has)
    }

    fn is_in_time(&self, created: Timestamp) -> bool {
        self.before.is_none_or(|before| created < before) && self.after.is_none_or(|after| created > after)
    }

    /// Prefixes of the index, each of the pins that meet one of the conditions.
    pub(super) fn lists(&self) -> Vec<List> {
        if let Some(owner) = &self.owner {
            // The index has the names and metadata of the last owner only.
            let prefix = search_index::by_meta(&owner_key(owner), "").to_vec();
            return vec![List { prefix }];
        }
        let name = self.name.as_ref().filter(|name| {
            // Pins without a name are not indexed by it.
            name.comparison == Comparison::Exact && !name.text.is_empty()
        });
        let name = name.map(|name| List {
            prefix: search_index::by_name(&search_index::fold(&name.text)),
        });
        let meta = self.metadata.iter().map(|(key, value)| List {
            prefix: search_index::by_meta(key, value).to_vec(),
        });
        name.into_iter().chain(meta).take(LISTS_MAX).collect()
    }

    /// Returns the condition on the start of the name, if that is indexed.
    pub(super) fn name_prefix(&self) -> Option<&NameMatch> {
        let name = self.name.as_ref();
        name.filter(|name| name.comparison == Comparison::Prefix && !name.text.is_empty())
    }

    /// Returns whether a candidate of this list meets all conditions if its entry does.
    pub(super) fn is_decided_by(&self, list: &List) -> bool {
        let on_meta = match list.kind() {
            Kind::Time | Kind::Name => self.metadata.is_empty(),
            Kind::Meta => {
                let pairs = self.metadata.len() + usize::from(self.owner.is_some());
                pairs == 1 && self.name.is_none()
            }
        };
        on_meta && self.holder.is_none() && self.types.is_none()
    }
}

/// A part of the index whose entries are in the order of creation.
#[derive(Debug)]
pub(super) struct List {
    pub(super) prefix: Vec<u8>,
}

impl List {
    pub(super) fn of_all() -> Self {
        Self {
            prefix: search_index::by_time(),
        }
    }

    fn kind(&self) -> Kind {
        search_index::kind(&self.prefix)
    }
}

/// A page of a search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The next pins in the order of the search.
    pub pins: Vec<Pin>,
    /// Position to continue after; `None` when there are no more.
    pub next: Option<Position>,
}

/// A page being collected.
struct Collected<'a> {
    search: &'a Search,
    limit: usize,
    work: usize,
    page: Page,
    /// Last candidate.
    last: Option<Position>,
}

/// Continuation or end of the collection of a page.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Collected<'_> {
    /// Takes a pin that has been read for `cost`; it is a result if it meets the conditions.
    fn take(&mut self, at: Position, pin: Option<Pin>, cost: usize) -> Flow {
        let pin = pin.filter(|pin| self.search.matches(pin));
        if pin.is_some() && self.page.pins.len() >= self.limit {
            self.page.next = self.last.take();
            return Flow::Stop;
        }
        self.page.pins.extend(pin);
        self.work = self.work.saturating_sub(cost);
        if self.work == 0 {
            self.page.next = Some(at);
            return Flow::Stop;
        }
        self.last = Some(at);
        Flow::Continue
    }
}

impl Listing {
    /// Returns up to `limit` pins of a search after the position `from`. A page may hold fewer although there
    /// are more: its work is bounded.
    ///
    /// # Errors
    /// [`StoreError`] when the database cannot be read or is damaged.
    pub fn page(&self, search: &Search, from: Option<&Position>, limit: usize) -> Result<Page, StoreError> {
        let mut found = Collected {
            search,
            limit,
            work: PAGE_WORK,
            page: Page::default(),
            last: from.cloned(),
        };
        if search.order == Order::Cid {
            self.collect_by_cid(from, &mut found)?;
            return Ok(found.page);
        }
        let list = match self.smallest_list(search, from, COMPARED_MAX)? {
            Some(list) => list,
            None => match self.sorted_by_prefix(search, from)? {
                Some(sorted) => {
                    self.collect_sorted(&sorted, &mut found)?;
                    return Ok(found.page);
                }
                None => List::of_all(),
            },
        };
        self.collect_list(&list, from, &mut found)?;
        Ok(found.page)
    }

    fn collect_by_cid(&self, from: Option<&Position>, found: &mut Collected<'_>) -> Result<(), StoreError> {
        for pin in self.pins(from.map(|from| &from.cid)) {
            let pin = pin?;
            if found.take(Position::of(&pin), Some(pin), NEXT_PIN_COST) == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    fn collect_sorted(&self, sorted: &[Position], found: &mut Collected<'_>) -> Result<(), StoreError> {
        for at in sorted {
            let pin = self.indexed_pin(&at.cid)?;
            if found.take(at.clone(), Some(pin), PIN_COST) == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    fn collect_list(
        &self,
        list: &List,
        from: Option<&Position>,
        found: &mut Collected<'_>,
    ) -> Result<(), StoreError> {
        let search = found.search;
        for entry in self.entries(list, search, from) {
            let (key, value) = entry?;
            let at = self.position(list, &key)?;
            let flow = match self.judge(search, list, &key, &value)? {
                Verdict::Excluded => found.take(at, None, 1),
                Verdict::Possible | Verdict::Unknown => {
                    let pin = self.indexed_pin(&at.cid)?;
                    found.take(at, Some(pin), 1 + PIN_COST)
                }
            };
            if flow == Flow::Stop {
                break;
            }
        }
        Ok(())
    }

    /// Returns the list with the fewest entries that are left, if there is an exact condition. Reads all
    /// lists together until one of them ends; after `steps` entries the one that has come furthest has the
    /// fewest.
    pub(super) fn smallest_list(
        &self,
        search: &Search,
        from: Option<&Position>,
        steps: usize,
    ) -> Result<Option<List>, StoreError> {
        let mut lists = search.lists();
        if lists.len() < 2 {
            return Ok(lists.pop());
        }
        let mut entries: Vec<Entries> = lists
            .iter()
            .map(|list| self.entries(list, search, from))
            .collect();
        let mut furthest: Option<(Position, usize)> = None;
        for step in 0..steps {
            furthest = None;
            for (number, unread) in entries.iter_mut().enumerate() {
                let Some(entry) = unread.next() else {
                    return Ok(Some(lists.swap_remove(number)));
                };
                if step + 1 < steps {
                    entry?;
                    continue;
                }
                let at = self.position(&lists[number], &entry?.0)?;
                let is_further = furthest.as_ref().is_none_or(|(other, _)| match search.order {
                    Order::Newest => at < *other,
                    Order::Cid | Order::Oldest => at > *other,
                });
                if is_further {
                    furthest = Some((at, number));
                }
            }
        }
        Ok(furthest.map(|(_, number)| lists.swap_remove(number)))
    }

    /// Returns the positions after `from` of the pins whose names start as asked, in the order of the search;
    /// `None` if names do not matter, or too many start so.
    fn sorted_by_prefix(
        &self,
        search: &Search,
        from: Option<&Position>,
    ) -> Result<Option<Vec<Position>>, StoreError> {
        let Some(name) = search.name_prefix() else {
            return Ok(None);
        };
        let mut sorted = Vec::new();
        for (number, candidate) in self.with_prefix(search, name).enumerate() {
            if number == SORTED_MAX {
                return Ok(None);
            }
            let (at, _) = candidate?;
            sorted.extend(at.filter(|at| {
                from.is_none_or(|from| match search.order {
                    Order::Newest => at < from,
                    Order::Cid | Order::Oldest => at > from,
                })
            }));
        }
        sorted.sort_unstable();
        if search.order == Order::Newest {
            sorted.reverse();
        }
        Ok(Some(sorted))
    }

    /// The entries of the pins whose folded names start as asked: the position, unless the entry does not
    /// meet the conditions on name and time, and whether it has the whole name.
    pub(super) fn with_prefix(
        &self,
        search: &Search,
        name: &NameMatch,
    ) -> impl Iterator<Item = Result<(Option<Position>, bool), StoreError>> {
        let start = search_index::by_name_start(&search_index::fold(&name.text));
        self.snapshot
            .prefix(self.generation.search.of(&start), &start)
            .map(move |guard| {
                let (key, value) = guard.into_inner().map_err(StoreError::Read)?;
                let at = search_index::position_by_name(&key).ok_or_else(|| self.no_entry(&key))?;
                let indexed = IndexedName::parse_by_name(&key, &value).ok_or_else(|| self.no_entry(&key))?;
                let (is_named, is_whole) = match indexed {
                    IndexedName::Whole(whole) => (name.matches(whole), true),
                    IndexedName::Cut => (true, false),
                };
                let fits = is_named && search.is_in_time(at.created);
                Ok((fits.then_some(at), is_whole))
            })
    }

    /// The entries of a list within the times of the search, after `from`, in its order.
    pub(super) fn entries(&self, list: &List, search: &Search, from: Option<&Position>) -> Entries {
        let prefix = &list.prefix;
        let from = from.map(|from| from.key(prefix));
        let is_reversed = search.order == Order::Newest;
        // A position starts with eight bytes of time, and no CID with 0xff.
        let mut end = [prefix, &[0xff; 9][..]].concat();
        if let Some(before) = search.before {
            end = [prefix, &before.0.to_be_bytes()[..]].concat();
        }
        let mut start = Bound::Included(prefix.clone());
        match search.after.map(|after| after.0.checked_add(1)) {
            None => {}
            Some(Some(first)) => start = Bound::Included([prefix, &first.to_be_bytes()[..]].concat()),
            Some(None) => return Entries::empty(),
        }
        if let Some(from) = from {
            if is_reversed {
                end = end.min(from);
            } else if matches!(&start, Bound::Included(start) if *start <= from) {
                start = Bound::Excluded(from);
            }
        }
        let first = match &start {
            Bound::Included(first) | Bound::Excluded(first) => first,
            Bound::Unbounded => &end,
        };
        if *first >= end {
            return Entries::empty();
        }
        let space = self.generation.search.of(prefix);
        let range = self.snapshot.range(space, (start, Bound::Excluded(end)));
        Entries {
            iter: Some(range),
            is_reversed,
        }
    }

    /// Judges a candidate by its entry.
    pub(super) fn judge(
        &self,
        search: &Search,
        list: &List,
        key: &[u8],
        value: &[u8],
    ) -> Result<Verdict, StoreError> {
        let Some(name) = &search.name else {
            return Ok(Verdict::Possible);
        };
        let indexed = match list.kind() {
            Kind::Time => IndexedName::parse(value),
            Kind::Name => IndexedName::parse_by_name(key, value),
            Kind::Meta => return Ok(Verdict::Possible),
        };
        Ok(match indexed.ok_or_else(|| self.no_entry(key))? {
            IndexedName::Whole(whole) if name.matches(whole) => Verdict::Possible,
            IndexedName::Whole(_) => Verdict::Excluded,
            IndexedName::Cut => Verdict::Unknown,
        })
    }

    pub(super) fn position(&self, list: &List, key: &[u8]) -> Result<Position, StoreError> {
        let position = key.get(list.prefix.len()..).and_then(Position::parse);
        position.ok_or_else(|| self.no_entry(key))
    }

    /// Returns the pin of an entry.
    pub(super) fn indexed_pin(&self, cid: &Cid) -> Result<Pin, StoreError> {
        self.pin(cid)?
            .ok_or_else(|| self.mismatch(&format!("it has {cid}, which is not pinned")))
    }

    fn no_entry(&self, key: &[u8]) -> StoreError {
        self.mismatch(&format!("key {key:02x?} is invalid"))
    }

    /// Returns the error for an index that contradicts the pins; the next opening rebuilds it.
    fn mismatch(&self, what: &str) -> StoreError {
        self.shared.distrust_search_index();
        StoreError::SearchIndex(what.to_owned())
    }
}

/// Decision on a candidate from its entry alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It does not meet the condition on the name.
    Excluded,
    /// The entry meets all conditions that it has values for.
    Possible,
    /// Its name is too long for the index.
    Unknown,
}

/// Entries of a list, in the order of a search.
pub(super) struct Entries {
    iter: Option<Iter>,
    is_reversed: bool,
}

impl Entries {
    fn empty() -> Self {
        Self {
            iter: None,
            is_reversed: false,
        }
    }
}

impl Iterator for Entries {
    type Item = Result<(UserKey, UserValue), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        let iter = self.iter.as_mut()?;
        let guard = match self.is_reversed {
            true => iter.next_back(),
            false => iter.next(),
        };
        guard.map(|guard| guard.into_inner().map_err(StoreError::Read))
    }
}
