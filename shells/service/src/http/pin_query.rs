//! Parameters of listings: conditions on pins, order, limit and cursor.

use std::collections::BTreeMap;
use std::fmt;

use cluster_api::{PinTypeFilter, Query, Time};
use cluster_core::{PinType, Timestamp};

use crate::cluster::convert;
use crate::cluster::search::{Comparison, NameMatch, Order, Position, Search};

/// Maximum number of pins in a page, which is held in memory. A listing with a higher limit is streamed.
pub(super) const PAGE_MAX: usize = 1000;

/// Prefix of parameters that name a key of the metadata.
const META_PREFIX: &str = "meta-";

/// An invalid parameter, and the reason.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadParameter {
    name: &'static str,
    why: String,
}

impl BadParameter {
    pub(super) fn new(name: &'static str, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        Self { name, why }
    }
}

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why)
    }
}

/// Returns the value of a parameter that is there and not empty, parsed.
fn parsed<T>(query: &Query, name: &'static str) -> Result<Option<T>, BadParameter>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    let text = query.get(name).filter(|text| !text.is_empty());
    let parse = |text: &str| text.parse().map_err(|error| BadParameter::new(name, error));
    text.map(parse).transpose()
}

/// Parses the conditions that all listings have: `name`, `before`, `after`, and the comparison of names, in
/// the parameter `name_match`.
pub(super) fn conditions(
    query: &Query,
    name_match: &'static str,
    metadata: BTreeMap<String, String>,
) -> Result<Search, BadParameter> {
    let (comparison, ignore_case) = match query.get(name_match) {
        None | Some("exact") => (Comparison::Exact, false),
        Some("iexact") => (Comparison::Exact, true),
        Some("prefix") => (Comparison::Prefix, false),
        Some("iprefix") => (Comparison::Prefix, true),
        Some("partial") => (Comparison::Partial, false),
        Some("ipartial") => (Comparison::Partial, true),
        Some(_) => {
            let why = "use exact, iexact, prefix, iprefix, partial or ipartial";
            return Err(BadParameter::new(name_match, why));
        }
    };
    // Every name has the empty text.
    let name = query
        .get("name")
        .filter(|text| comparison == Comparison::Exact || !text.is_empty());
    // All pins are from 1970 or later.
    let after = parsed::<Time>(query, "after")?.filter(|after| after.unix_nanos() >= 0);
    Ok(Search {
        name: name.map(|text| NameMatch::new(comparison, ignore_case, text)),
        metadata,
        after: after.map(convert::timestamp),
        before: parsed::<Time>(query, "before")?.map(convert::timestamp),
        ..Search::default()
    })
}

/// Parameters of `GET /allocations`.
#[derive(Debug)]
pub(super) struct PinQuery {
    pub(super) search: Search,
    /// Maximum number of pins in the answer.
    pub(super) limit: Option<usize>,
    /// Position to continue after.
    pub(super) cursor: Option<Position>,
}

impl PinQuery {
    /// Parses a query. Without conditions and order the pins come in the order `plain`.
    pub(super) fn parse(query: &Query, types: PinTypeFilter, plain: Order) -> Result<Self, BadParameter> {
        let meta = query.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(META_PREFIX)?;
            Some((key.to_owned(), value.to_owned()))
        });
        let mut search = conditions(query, "name-match", meta.collect())?;
        search.holder = parsed(query, "peer")?;
        search.order = match query.get("sort").unwrap_or_default() {
            // The search index is in the order of time.
            "" if search == Search::default() => plain,
            "" | "newest" => Order::Newest,
            "oldest" => Order::Oldest,
            "cid" => Order::Cid,
            _ => return Err(BadParameter::new("sort", "use cid, newest or oldest")),
        };
        if types != PinTypeFilter::ALL {
            let all = [PinType::Data, PinType::Meta, PinType::ClusterDag, PinType::Shard];
            let wanted = all
                .into_iter()
                .filter(|kind| types.matches(convert::pin_type(*kind)));
            search.types = Some(wanted.collect());
        }
        let limit = parsed::<usize>(query, "limit")?;
        if limit == Some(0) {
            return Err(BadParameter::new("limit", "0 is no positive number"));
        }
        Ok(Self {
            search,
            limit,
            cursor: parsed(query, "cursor")?,
        })
    }
}

/// The newest values so far, and the number of all.
pub(super) struct Newest<T> {
    limit: usize,
    pub(super) count: u64,
    kept: BTreeMap<(Timestamp, String), T>,
}

impl<T> Newest<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            count: 0,
            kept: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, created: Timestamp, cid: &str, value: impl FnOnce() -> T) {
        self.count += 1;
        let is_full = self.kept.len() == self.limit;
        let first = self.kept.first_key_value();
        if is_full && first.is_some_and(|((at, _), _)| created < *at) {
            return;
        }
        self.kept.insert((created, cid.to_owned()), value());
        if self.kept.len() > self.limit {
            self.kept.pop_first();
        }
    }

    /// Returns the values, the newest first.
    pub(super) fn into_sorted(self) -> Vec<T> {
        self.kept.into_values().rev().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_values_are_kept_in_order() {
        let mut newest = Newest::new(2);
        for second in [5, 1, 9, 7] {
            newest.add(Timestamp(second), "cid", || second);
        }
        assert_eq!(newest.count, 4);
        assert_eq!(newest.into_sorted(), [9, 7]);
    }

    fn parse(query: &str) -> Result<PinQuery, BadParameter> {
        PinQuery::parse(&Query::parse(query), PinTypeFilter::ALL, Order::Cid)
    }

    #[test]
    fn pins_meet_all_conditions_or_are_left_out() {
        let admits = |query: &str, name: &str| {
            let metadata = BTreeMap::from([("owner".to_owned(), "me".to_owned())]);
            let search = parse(query).unwrap().search;
            search.matches_fields(name, Timestamp(1_000_000 * 1_000_000_000), &metadata)
        };
        assert!(admits("", "Docs"));
        assert!(admits(
            "name=Docs&meta-owner=me&after=1970-01-02T00:00:00Z",
            "Docs"
        ));
        assert!(admits("name=oc&name-match=partial", "Docs"));
        assert!(admits("name=DOC&name-match=ipartial", "Docs"));
        assert!(admits(
            "name=Do&name-match=prefix&after=0001-01-01T00:00:00Z",
            "Docs"
        ));
        assert!(!admits("name=oc&name-match=iprefix", "Docs"));
        assert!(!admits("name=docs", "Docs"));
        assert!(!admits("meta-owner=you", "Docs"));
        assert!(!admits("meta-other=me", "Docs"));
        assert!(!admits("before=1970-01-02T00:00:00Z", "Docs"));
    }

    #[test]
    fn conditions_choose_the_order_of_time() {
        let order = |query: &str| parse(query).unwrap().search.order;
        assert_eq!(order("limit=5"), Order::Cid);
        assert_eq!(order("name=x"), Order::Newest);
        assert_eq!(order("meta-a=b&sort=oldest"), Order::Oldest);
        assert_eq!(order("meta-a=b&sort=cid"), Order::Cid);
    }

    #[test]
    fn invalid_parameters_are_named() {
        let refused = |query: &str| parse(query).unwrap_err().to_string();
        assert_eq!(refused("limit=0"), "limit: 0 is no positive number");
        assert!(refused("limit=many").starts_with("limit: "));
        assert_eq!(refused("sort=size"), "sort: use cid, newest or oldest");
        assert!(refused("name-match=like").starts_with("name-match: use exact"));
        assert!(refused("after=yesterday").starts_with("after: "));
        assert!(refused("peer=me").starts_with("peer: "));
        assert!(refused("cursor=12").starts_with("cursor: "));
    }
}
