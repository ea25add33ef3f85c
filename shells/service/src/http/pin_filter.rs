//! Conditions on pins and their order, for listings.

use std::collections::BTreeMap;
use std::fmt;

use cluster_api::{Pin, Query, Time};

/// Maximum number of pins that are sorted by time: they are held in memory.
pub(super) const SORTED_MAX: usize = 1000;

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

/// Comparison of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Exact,
    IgnoreCase,
    Partial,
    PartialIgnoreCase,
}

/// Conditions that a pin must all meet.
#[derive(Debug)]
pub(super) struct PinFilter {
    name: Option<String>,
    name_match: Match,
    before: Option<Time>,
    after: Option<Time>,
    meta: BTreeMap<String, String>,
}

impl PinFilter {
    /// Parses `name`, `before`, `after`, and the comparison of names, in the parameter `name_match`.
    pub(super) fn parse(
        query: &Query,
        name_match: &'static str,
        meta: BTreeMap<String, String>,
    ) -> Result<Self, BadParameter> {
        let time = |name: &'static str| match query.get(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|error| BadParameter::new(name, error)),
        };
        Ok(Self {
            name: query.get("name").map(str::to_owned),
            name_match: match query.get(name_match) {
                None | Some("exact") => Match::Exact,
                Some("iexact") => Match::IgnoreCase,
                Some("partial") => Match::Partial,
                Some("ipartial") => Match::PartialIgnoreCase,
                Some(_) => {
                    let why = "use exact, iexact, partial or ipartial";
                    return Err(BadParameter::new(name_match, why));
                }
            },
            before: time("before")?,
            after: time("after")?,
            meta,
        })
    }

    /// Returns whether a pin with these fields meets the conditions.
    pub(super) fn matches(&self, name: &str, created: Time, meta: &BTreeMap<String, String>) -> bool {
        let has_name = self.name.as_deref().is_none_or(|asked| match self.name_match {
            Match::Exact => name == asked,
            Match::IgnoreCase => name.to_lowercase() == asked.to_lowercase(),
            Match::Partial => name.contains(asked),
            Match::PartialIgnoreCase => name.to_lowercase().contains(&asked.to_lowercase()),
        });
        has_name
            && self.before.is_none_or(|before| created < before)
            && self.after.is_none_or(|after| created > after)
            && self.meta.iter().all(|(key, value)| meta.get(key) == Some(value))
    }
}

/// Order by time of the pin request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Newest,
    Oldest,
}

/// Parameters of `GET /allocations` beside the type of the pins.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) filter: PinFilter,
    /// Maximum number of pins in the answer.
    pub(super) limit: usize,
    /// `None` for the order of the CIDs.
    pub(super) order: Option<Order>,
}

impl Listing {
    /// Parses a query.
    pub(super) fn parse(query: &Query) -> Result<Self, BadParameter> {
        let meta = query.iter().filter_map(|(name, value)| {
            let key = name.strip_prefix(META_PREFIX)?;
            Some((key.to_owned(), value.to_owned()))
        });
        let filter = PinFilter::parse(query, "name-match", meta.collect())?;
        let order = match query.get("sort").unwrap_or_default() {
            "" | "cid" => None,
            "newest" => Some(Order::Newest),
            "oldest" => Some(Order::Oldest),
            _ => return Err(BadParameter::new("sort", "use cid, newest or oldest")),
        };
        let max = if order.is_some() { SORTED_MAX } else { usize::MAX };
        let limit = match query.get("limit").filter(|text| !text.is_empty()) {
            None => max,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=max).contains(&limit) => limit,
                Ok(_) | Err(_) if order.is_some() => {
                    let why = format!("{text:?} is not 1 to {max}, as a sorted listing needs");
                    return Err(BadParameter::new("limit", why));
                }
                Ok(_) | Err(_) => {
                    return Err(BadParameter::new(
                        "limit",
                        format!("{text:?} is no positive number"),
                    ));
                }
            },
        };
        Ok(Self { filter, limit, order })
    }

    /// Returns whether a pin belongs into the answer.
    pub(super) fn admits(&self, pin: &Pin) -> bool {
        self.filter
            .matches(&pin.options.name, pin.timestamp, &pin.options.metadata)
    }
}

/// The first values in an order of time so far, and the number of all.
pub(super) struct Ranked<T> {
    order: Order,
    limit: usize,
    pub(super) count: u64,
    kept: BTreeMap<(Time, String), T>,
}

impl<T> Ranked<T> {
    pub(super) fn new(order: Order, limit: usize) -> Self {
        Self {
            order,
            limit,
            count: 0,
            kept: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, created: Time, cid: &str, value: impl FnOnce() -> T) {
        self.count += 1;
        let is_full = self.kept.len() == self.limit;
        let last = match self.order {
            Order::Newest => self.kept.first_key_value(),
            Order::Oldest => self.kept.last_key_value(),
        };
        let is_after = last.is_some_and(|((at, _), _)| match self.order {
            Order::Newest => created <= *at,
            Order::Oldest => created >= *at,
        });
        if is_full && is_after {
            return;
        }
        self.kept.insert((created, cid.to_owned()), value());
        if self.kept.len() > self.limit {
            match self.order {
                Order::Newest => self.kept.pop_first(),
                Order::Oldest => self.kept.pop_last(),
            };
        }
    }

    /// Returns the values in their order.
    pub(super) fn into_sorted(self) -> Vec<T> {
        let values = self.kept.into_values();
        match self.order {
            Order::Newest => values.rev().collect(),
            Order::Oldest => values.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_values_are_kept_in_order() {
        for (order, expected) in [(Order::Newest, [9, 7]), (Order::Oldest, [1, 5])] {
            let mut ranked = Ranked::new(order, 2);
            for second in [5, 1, 9, 7] {
                ranked.add(Time::from_unix(second), "cid", || second);
            }
            assert_eq!(ranked.count, 4);
            assert_eq!(ranked.into_sorted(), expected);
        }
    }

    #[test]
    fn pins_meet_all_conditions_or_are_left_out() {
        let admits = |query: &str, name: &str| {
            let listing = Listing::parse(&Query::parse(query)).unwrap();
            let mut pin = Pin::default();
            pin.options.name = name.to_owned();
            pin.options.metadata.insert("owner".to_owned(), "me".to_owned());
            pin.timestamp = Time::from_unix(1_000_000);
            listing.admits(&pin)
        };
        assert!(admits("", "Docs"));
        assert!(admits(
            "name=Docs&meta-owner=me&after=1970-01-02T00:00:00Z",
            "Docs"
        ));
        assert!(admits("name=oc&name-match=partial", "Docs"));
        assert!(admits("name=DOC&name-match=ipartial", "Docs"));
        assert!(!admits("name=docs", "Docs"));
        assert!(!admits("meta-owner=you", "Docs"));
        assert!(!admits("meta-other=me", "Docs"));
        assert!(!admits("before=1970-01-02T00:00:00Z", "Docs"));
    }

    #[test]
    fn invalid_parameters_are_named() {
        let refused = |query: &str| Listing::parse(&Query::parse(query)).unwrap_err().to_string();
        assert_eq!(refused("limit=0"), "limit: \"0\" is no positive number");
        let sorted = "limit: \"1001\" is not 1 to 1000, as a sorted listing needs";
        assert_eq!(refused("limit=1001&sort=newest"), sorted);
        assert_eq!(refused("sort=size"), "sort: use cid, newest or oldest");
        assert!(refused("name-match=like").starts_with("name-match: use exact"));
        assert!(refused("after=yesterday").starts_with("after: "));
    }
}
