//! `GET /pins`: filters, and the newest of the matching requests.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use cluster_api::{GlobalPinInfo, Query, StatusFilter};
use cluster_core::Cid;
use futures::StreamExt;

use super::super::pin_query::{Newest, conditions};
use super::records::{Failure, PinResults, PinStatus, Status};
use crate::cluster::search::{Order, Search};
use crate::cluster::{Cluster, convert};

/// Results without a `limit`, and the maximum of them; of the specification.
const LIMIT_DEFAULT: usize = 10;
const LIMIT_MAX: usize = 1000;

/// Maximum number of CIDs in one query, from the specification.
const CIDS_MAX: usize = 10;

/// Pins that meet the other conditions on whose statuses peers are asked one by one. If there are more, all
/// peers list all of theirs, which takes longer than this many for some ten thousand pins.
const CANDIDATES_MAX: usize = 256;

/// Parameters of `GET /pins`.
#[derive(Debug)]
pub(super) struct Asked {
    cids: Option<BTreeSet<Cid>>,
    search: Search,
    statuses: Vec<Status>,
    limit: usize,
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
            search: Search {
                order: Order::Newest,
                ..conditions(&query, "match", meta)
                    .map_err(|error| Failure::new(StatusCode::BAD_REQUEST, error.to_string()))?
            },
            statuses: match query.get("status") {
                // As in the Go peer, and as the compliance tool expects; the specification suggests `pinned`.
                None => Status::ALL.map(|(_, status)| status).to_vec(),
                Some(names) => statuses(names)?,
            },
            limit,
        })
    }

    fn matches(&self, row: &GlobalPinInfo) -> bool {
        let is_asked = |cids: &BTreeSet<Cid>| row.cid.parse().is_ok_and(|cid| cids.contains(&cid));
        let created = convert::timestamp(row.created);
        self.search.matches_fields(&row.name, created, &row.metadata)
            && self.cids.as_ref().is_none_or(is_asked)
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
        let mut candidates = newest(cluster, &asked.search, CANDIDATES_MAX + 1).await?;
        let rows = match candidates.len() <= CANDIDATES_MAX {
            true => cluster.status_of(std::mem::take(&mut candidates), StatusFilter::ALL, false),
            false => cluster.status_all(StatusFilter::ALL).await?,
        };
        return by_status(rows, &asked).await;
    }
    let count = cluster.count(asked.search.clone()).await?;
    // Only the results need a status.
    let cids = newest(cluster, &asked.search, asked.limit).await?;
    let mut rows = cluster.status_of(cids, StatusFilter::ALL, false);
    let mut results = Vec::new();
    while let Some(batch) = rows.next().await {
        results.extend(batch?.iter().map(PinStatus::new));
    }
    Ok(PinResults { count, results })
}

/// Returns the CIDs of up to `limit` pins that a search finds.
async fn newest(cluster: &Cluster, search: &Search, limit: usize) -> Result<Vec<Cid>, Failure> {
    let mut cids: Vec<Cid> = Vec::new();
    let mut from = None;
    loop {
        let left = limit - cids.len();
        let page = cluster.search_page(search.clone(), from, left, false).await?;
        cids.extend(page.pins.iter().filter_map(|pin| pin.cid.parse::<Cid>().ok()));
        from = page.next;
        if from.is_none() || cids.len() >= limit {
            return Ok(cids);
        }
    }
}

/// Lists the requests among `rows` that match.
async fn by_status(mut rows: crate::cluster::Rows, asked: &Asked) -> Result<PinResults, Failure> {
    let mut newest = Newest::new(asked.limit);
    while let Some(batch) = rows.next().await {
        for row in batch? {
            if is_pin(&row) && asked.matches(&row) {
                let status = PinStatus::new(&row);
                if asked.statuses.contains(&status.status) {
                    newest.add(convert::timestamp(row.created), &row.cid, || status);
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
