//! Handlers of `/pins…` and `/allocations…`.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery};
use axum::http::{HeaderName, HeaderValue, Response, Uri};
use axum::response::IntoResponse;
use cluster_api::{CreatedPin, OldPin, Pin, PinOptions, PinTypeFilter, Query, StatusFilter, Time};
use cluster_core::Cid;
use cluster_ipfs::unixfs::Name;
use futures::stream::{self, StreamExt};

use super::answer::{self, Answer, invalid};
use super::auth::Acting;
use super::pin_query::{PAGE_MAX, PinQuery};
use crate::cluster::search::{Order, Position};
use crate::cluster::{Cluster, Error};

/// Maximum number of CIDs in `cids`: as many as fit in its headers.
const CIDS_MAX: usize = 256;

/// Header with the value of `cursor` that continues a listing; absent at its end.
const NEXT_CURSOR: HeaderName = HeaderName::from_static("x-next-cursor");

type Hash = Result<Path<String>, PathRejection>;

fn parse(query: Option<String>) -> Query {
    Query::parse(query.as_deref().unwrap_or_default())
}

fn cid(hash: Hash) -> Result<Cid, Error> {
    let Path(hash) = hash.map_err(|error| invalid(format!("error decoding Cid: {error}")))?;
    decode(&hash)
}

fn decode(text: &str) -> Result<Cid, Error> {
    text.parse()
        .map_err(|error| invalid(format!("error decoding Cid: {error}")))
}

fn local(query: &Query) -> Result<bool, Error> {
    query.bool("local", false).map_err(invalid)
}

fn options(query: &Query) -> Result<PinOptions, Error> {
    PinOptions::from_query(query, Time::now()).map_err(invalid)
}

/// Answers GET and DELETE of `/pins/recover` and `/pins/sync`, like those of an invalid CID.
pub(super) async fn not_a_cid() -> Response<Body> {
    answer::result(decode("recover").map(|_| ()))
}

pub(super) async fn pin(Acting(cluster): Acting, hash: Hash, RawQuery(query): RawQuery) -> Answer {
    let (cid, options) = (cid(hash)?, options(&parse(query))?);
    Ok(created(&cluster.pin(cid, &options).await?))
}

fn created(pin: &Pin) -> Response<Body> {
    answer::json(&CreatedPin::from(pin))
}

pub(super) async fn unpin(Acting(cluster): Acting, hash: Hash) -> Answer {
    Ok(answer::json(&cluster.unpin(cid(hash)?).await?))
}

pub(super) async fn pin_path(Acting(cluster): Acting, uri: Uri, RawQuery(query): RawQuery) -> Answer {
    let (path, options) = (path(&uri)?, options(&parse(query))?);
    let cid = Box::pin(cluster.resolve(&path)).await?;
    Ok(created(&cluster.pin(cid, &options).await?))
}

pub(super) async fn unpin_path(Acting(cluster): Acting, uri: Uri) -> Answer {
    let path = path(&uri)?;
    let cid = Box::pin(cluster.resolve(&path)).await?;
    Ok(answer::json(&cluster.unpin(cid).await?))
}

/// Returns the IPFS path after `/pins`.
///
/// # Errors
/// The path has no valid root.
fn path(uri: &Uri) -> Result<Name, Error> {
    let bad = |why: &str| invalid(format!("error parsing path: {why}"));
    let text = uri.path().strip_prefix("/pins").unwrap_or_default();
    let path = Name::from(percent_encoding::percent_decode_str(text).collect::<Vec<u8>>());
    let text = path.to_string();
    let mut parts = text.split('/').skip(1);
    let (namespace, root) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if root.is_empty() {
        return Err(bad(&format!("{text:?} names nothing after /{namespace}/")));
    }
    if namespace != "ipns"
        && let Err(error) = root.parse::<Cid>()
    {
        return Err(bad(&format!("{text:?}: {error}")));
    }
    Ok(path)
}

/// Answers a read of the pinset: with `consistent=true` up to date, otherwise with a warning header if the
/// local copy may be stale.
async fn read(cluster: &Cluster, query: &Query, answer: impl Future<Output = Answer>) -> Answer {
    let consistent = query.bool("consistent", false).map_err(invalid)?;
    let warning = cluster.prepare_read(consistent).await?;
    // An error may be stale too.
    let response = answer.await.into_response();
    Ok(match warning {
        Some(why) => answer::with_warning(response, why),
        None => response,
    })
}

pub(super) async fn status(Acting(cluster): Acting, hash: Hash, RawQuery(query): RawQuery) -> Answer {
    let query = parse(query);
    let response = async {
        Ok(match (cid(hash)?, local(&query)?) {
            (cid, true) => answer::json(&cluster.status_local(cid).await?),
            (cid, false) => answer::json(&cluster.status(cid).await?),
        })
    };
    read(&cluster, &query, response).await
}

/// Syncs one CID (a route of Go ipfs-cluster 0.0.12).
pub(super) async fn sync(Acting(cluster): Acting, hash: Hash, RawQuery(query): RawQuery) -> Answer {
    let (cid, local) = (cid(hash)?, local(&parse(query))?);
    Ok(answer::json(&cluster.sync(cid, local).await?))
}

/// Syncs all CIDs (a route of Go ipfs-cluster 0.0.12).
pub(super) async fn sync_all(Acting(cluster): Acting, RawQuery(query): RawQuery) -> Answer {
    let local = local(&parse(query))?;
    Ok(answer::lines(cluster.sync_all(local).await?).await)
}

pub(super) async fn recover(Acting(cluster): Acting, hash: Hash, RawQuery(query): RawQuery) -> Answer {
    let (cid, local) = (cid(hash)?, local(&parse(query))?);
    Ok(answer::json(&cluster.recover(cid, local).await?))
}

pub(super) async fn recover_all(Acting(cluster): Acting, RawQuery(query): RawQuery) -> Answer {
    let local = local(&parse(query))?;
    Ok(answer::lines(cluster.recover_all(local).await?).await)
}

/// Returns whether only under-replicated pins are asked for.
///
/// # Errors
/// The parameter is invalid, or another condition is given too.
fn under_replicated(query: &Query) -> Result<bool, Error> {
    if !query.bool("under-replicated", false).map_err(invalid)? {
        return Ok(false);
    }
    let is_condition = |name: &str, value: &str| match name {
        "under-replicated" | "consistent" | "whole" => false,
        "filter" => !matches!(value, "" | "all"),
        "local" => !matches!(query.bool("local", false), Ok(false)),
        _ => !value.is_empty(),
    };
    match query.iter().find(|(name, value)| is_condition(name, value)) {
        Some((name, _)) => Err(invalid(format!(
            "under-replicated cannot be combined with {name}: leave one of them out"
        ))),
        None => Ok(true),
    }
}

pub(super) async fn status_all(Acting(cluster): Acting, RawQuery(query): RawQuery) -> Answer {
    let query = parse(query);
    let response = async {
        let local = local(&query)?;
        if under_replicated(&query)? {
            return Ok(answer::lines(cluster.under_replicated().await?).await);
        }
        let filter = StatusFilter::parse(query.get("filter").unwrap_or_default());
        let filter = filter.ok_or_else(|| {
            let names = StatusFilter::names().join(", ");
            invalid(format!("invalid filter value: use one or more of {names}"))
        })?;
        let rows = match cids(&query)? {
            Some(cids) => cluster.status_of(cids, filter, local),
            None if local => cluster.status_all_local(filter).await?,
            None => cluster.status_all(filter).await?,
        };
        Ok(answer::lines(rows).await)
    };
    read(&cluster, &query, response).await
}

fn cids(query: &Query) -> Result<Option<Vec<Cid>>, Error> {
    let Some(list) = query.get("cids") else {
        return Ok(None);
    };
    let cids: Vec<Cid> = list
        .split(',')
        .map(|text| decode(text.trim()))
        .collect::<Result<_, _>>()?;
    if cids.len() > CIDS_MAX {
        return Err(invalid(format!(
            "at most {CIDS_MAX} cids in one request, not {}",
            cids.len()
        )));
    }
    Ok(Some(cids))
}

pub(super) async fn allocations(Acting(cluster): Acting, RawQuery(query): RawQuery) -> Answer {
    let query = parse(query);
    let response = async {
        let whole = query.bool("whole", false).map_err(invalid)?;
        if under_replicated(&query)? {
            return Ok(answer::lines(cluster.under_replicated_pins(whole).await?).await);
        }
        let filter = PinTypeFilter::parse(query.get("filter").unwrap_or_default());
        let filter = filter.ok_or_else(|| {
            let names = "all, pin, meta-pin, clusterdag-pin, shard-pin";
            invalid(format!("invalid filter value: use one or more of {names}"))
        })?;
        let order = match cluster.owner() {
            None => Order::Cid,
            // The index has an owner's pins in the order of time.
            Some(_) => Order::Newest,
        };
        let asked = PinQuery::parse(&query, filter, order).map_err(invalid)?;
        listed(&cluster, asked, whole).await
    };
    read(&cluster, &query, response).await
}

/// Answers with the pins that a search finds: a page with the cursor of the next one, or all of them as they
/// are read.
async fn listed(cluster: &Cluster, asked: PinQuery, whole: bool) -> Answer {
    let PinQuery {
        search,
        limit,
        cursor,
    } = asked;
    if let Some(limit) = limit.filter(|limit| *limit <= PAGE_MAX) {
        let page = cluster.search_page(search, cursor, limit, whole).await?;
        let response = answer::lines(stream::iter([Ok(page.pins)])).await;
        return Ok(with_cursor(response, page.next));
    }
    let pages = cluster.search(search, cursor, whole).await?;
    let pages = pages.scan(limit.unwrap_or(usize::MAX), |left, page| {
        let is_over = *left == 0;
        let page = page.map(|mut pins| {
            pins.truncate(*left);
            *left -= pins.len();
            pins
        });
        std::future::ready((!is_over).then_some(page))
    });
    Ok(answer::lines(pages).await)
}

/// Adds the cursor that continues a listing.
fn with_cursor(mut response: Response<Body>, next: Option<Position>) -> Response<Body> {
    let value = next.and_then(|next| HeaderValue::from_str(&next.to_string()).ok());
    if let Some(value) = value {
        response.headers_mut().insert(NEXT_CURSOR, value);
    }
    response
}

pub(super) async fn allocation(Acting(cluster): Acting, hash: Hash, RawQuery(query): RawQuery) -> Answer {
    let response = async { Ok(answer::json(&cluster.allocation(cid(hash)?).await?)) };
    read(&cluster, &parse(query), response).await
}

/// Lists the pinset as Go ipfs-cluster 0.0.12 does: as one array.
pub(super) async fn list(Acting(cluster): Acting, RawQuery(query): RawQuery) -> Answer {
    let response = async { Ok(answer::array(cluster.allocations(), OldPin::from).await) };
    read(&cluster, &parse(query), response).await
}
