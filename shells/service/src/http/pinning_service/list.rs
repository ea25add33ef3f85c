//! `GET /pins`: filters, and the newest of the matching requests.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use cluster_api::{GlobalPinInfo, PinTypeFilter, Query, StatusFilter, Time};
use cluster_core::Cid;
use futures::StreamExt;

use super::super::pin_filter::{Order, PinFilter, Ranked};
use super::records::{Failure, PinResults, PinStatus, Status};
use crate::cluster::Cluster;

/// Results without a `limit`, and the maximum of them; of the specification.
const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 1000;

/// Maximum number of CIDs in one query, from the specification.
const CIDS_MAX: usize = 10;

/// Parameters of `GET /pins`.
#[derive(Debug)]
pub(super) struct Asked {
    cids: Option<BTreeSet<Cid>>,
    filter: PinFilter,
    statuses: Vec<Status>,
    limit: usize,
}

/// The fields of a pin that filters look at.
struct Fields<'a> {
    cid: &'a str,
    name: &'a str,
    created: Time,
    meta: &'a BTreeMap<String, String>,
}

impl Asked {
    /// Parses a query.
    ///
    /// # Errors
    /// 400, with the parameter that is invalid.
    pub(super) fn parse(query: &str) -> Result<Self, Failure> {
        let query = Query::parse(query);
        let bad = |name: &str, why: &dyn std::fmt::Display| {
            Failure::new(StatusCode::BAD_REQUEST, format!("{name}: {why}"))
        };
        let limit = match query.get("limit") {
            None => LIMIT_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=LIMIT_MAX) => limit,
                _ => return Err(bad("limit", &format!("{text:?} is not 1 to {LIMIT_MAX}"))),
            },
        };
        let meta = match query.get("meta") {
            None => BTreeMap::new(),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| bad("meta", &format!("no JSON object of strings: {error}")))?,
        };
        Ok(Self {
            cids: query.get("cid").map(cids).transpose()?,
            filter: PinFilter::parse(&query, "match", meta)
                .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?,
            statuses: match query.get("status") {
                // As in the Go peer, and as the compliance tool expects; the specification suggests `pinned`.
                None => Status::ALL.map(|(_, status)| status).to_vec(),
                Some(names) => statuses(names)?,
            },
            limit,
        })
    }

    fn matches(&self, pin: &Fields<'_>) -> bool {
        let is_asked = |cids: &BTreeSet<Cid>| pin.cid.parse().is_ok_and(|cid| cids.contains(&cid));
        self.filter.matches(pin.name, pin.created, pin.meta) && self.cids.as_ref().is_none_or(is_asked)
    }

    fn wants_all_statuses(&self) -> bool {
        Status::ALL
            .iter()
            .all(|(_, status)| self.statuses.contains(status))
    }
}

fn cids(list: &str) -> Result<BTreeSet<Cid>, Failure> {
    let bad = |why: String| Failure::new(StatusCode::BAD_REQUEST, format!("cid: {why}"));
    let parse = |text: &str| text.parse().map_err(|error| bad(format!("{text:?}: {error}")));
    let cids: BTreeSet<Cid> = list.split(',').map(parse).collect::<Result<_, _>>()?;
    if cids.len() > CIDS_MAX {
        return Err(bad(format!("at most {CIDS_MAX}, not {}", cids.len())));
    }
    Ok(cids)
}

fn statuses(list: &str) -> Result<Vec<Status>, Failure> {
    let find = |name: &str| {
        let found = Status::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, status)| *status).ok_or_else(|| {
            let why = format!("status: {name:?} is not queued, pinning, pinned or failed");
            Failure::new(StatusCode::BAD_REQUEST, why)
        })
    };
    list.split(',').map(find).collect()
}

/// Lists the requests that match, newest first.
///
/// # Errors
/// Too many listings are running, or the database cannot be read.
pub(super) async fn list(cluster: &Cluster, asked: Asked) -> Result<PinResults, Failure> {
    if let Some(cids) = &asked.cids {
        let cids = cids.iter().cloned().collect();
        let rows = cluster.status_of(cids, StatusFilter::ALL, false);
        return by_status(rows, &asked).await;
    }
    if !asked.wants_all_statuses() {
        return by_status(cluster.status_all(StatusFilter::ALL).await?, &asked).await;
    }
    // Only the results need a status.
    let mut newest = Ranked::new(Order::Newest, asked.limit);
    let mut pages = std::pin::pin!(cluster.allocations(PinTypeFilter::ALL));
    while let Some(page) = pages.next().await {
        for pin in page? {
            let fields = Fields {
                cid: &pin.cid,
                name: &pin.options.name,
                created: pin.timestamp,
                meta: &pin.options.metadata,
            };
            if asked.matches(&fields) {
                newest.add(pin.timestamp, &pin.cid, || pin.cid.clone());
            }
        }
    }
    let count = newest.count;
    let cids = newest
        .into_sorted()
        .into_iter()
        .filter_map(|cid| cid.parse().ok())
        .collect();
    let mut rows = cluster.status_of(cids, StatusFilter::ALL, false);
    let mut results = Vec::new();
    while let Some(batch) = rows.next().await {
        results.extend(batch?.iter().map(PinStatus::new));
    }
    Ok(PinResults { count, results })
}

/// Lists the requests among `rows` that match.
async fn by_status(mut rows: crate::cluster::Rows, asked: &Asked) -> Result<PinResults, Failure> {
    let mut newest = Ranked::new(Order::Newest, asked.limit);
    while let Some(batch) = rows.next().await {
        for row in batch? {
            let fields = Fields {
                cid: &row.cid,
                name: &row.name,
                created: row.created,
                meta: &row.metadata,
            };
            if is_pin(&row) && asked.matches(&fields) {
                let status = PinStatus::new(&row);
                if asked.statuses.contains(&status.status) {
                    newest.add(row.created, &row.cid, || status);
                }
            }
        }
    }
    let count = newest.count;
    let results = newest.into_sorted();
    Ok(PinResults { count, results })
}

/// Returns whether a row is of a pin. Listings also have CIDs that are being unpinned.
fn is_pin(row: &GlobalPinInfo) -> bool {
    !row.created.is_zero()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_parameters_are_named() {
        for (query, name) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("status=done", "status"),
            ("match=like", "match"),
            ("before=yesterday", "before"),
            ("meta=%5B%5D", "meta"),
            ("cid=nothing", "cid"),
        ] {
            let failure = Asked::parse(query).unwrap_err();
            assert!(
                format!("{failure:?}").contains(&format!("\"{name}: ")),
                "{failure:?}"
            );
        }
        assert!(Asked::parse("limit=1000&status=queued,failed&match=ipartial&name=x&meta=%7B%7D").is_ok());
    }
}
