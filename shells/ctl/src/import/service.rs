//! Pins of a pinning service, page by page, as in the specification
//! <https://ipfs.github.io/pinning-services-api-spec/>.

use super::source::Item;
use crate::failure::Failure;
use cluster_api::client::{FetchError, fetch_text};
use cluster_api::{Pin, PinOptions, PinType, Query, Time};
use serde::Deserialize;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::path::Path;
use std::time::Duration;

/// Pins of one page: the largest number that the specification allows.
const PAGE: usize = 1000;
/// Time for one page to arrive.
const PAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts for one page, if the service is too busy or fails.
const ATTEMPTS: u32 = 5;
/// Pause before the second attempt; it doubles with each.
const PAUSE: Duration = Duration::from_secs(1);
/// One millisecond, in nanoseconds: services show times to the millisecond.
const MILLISECOND: i64 = 1_000_000;

/// One page of the list of pins.
#[derive(Deserialize)]
struct Page {
    results: Vec<PinStatus>,
}

/// A pin with its status.
#[derive(Deserialize)]
pub(super) struct PinStatus {
    #[serde(default)]
    requestid: String,
    #[serde(default)]
    created: Option<Time>,
    pin: RequestedPin,
}

/// A pin as a client asked for it.
#[derive(Deserialize)]
struct RequestedPin {
    cid: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    origins: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

impl PinStatus {
    /// Converts to a pin of the cluster.
    pub(super) fn into_pin(self) -> Pin {
        Pin {
            options: PinOptions {
                name: self.pin.name.unwrap_or_default(),
                origins: self.pin.origins.unwrap_or_default(),
                metadata: self.pin.meta.unwrap_or_default(),
                ..PinOptions::default()
            },
            cid: self.pin.cid,
            pin_type: PinType::Data,
            max_depth: -1,
            timestamp: self.created.unwrap_or(Time::ZERO),
            ..Pin::default()
        }
    }
}

/// Reader of a pinning service.
pub(super) struct Service {
    url: String,
    token: String,
    /// Time before which the pins of the next page were created; `None` for the first page.
    before: Option<Time>,
    /// Requests of the last page. The next one overlaps it, since several pins may have one time.
    seen: HashSet<String>,
    read: VecDeque<Pin>,
    ended: bool,
}

impl Service {
    pub(super) fn new(url: &str, token_file: &Path) -> Result<Self, Failure> {
        let token = std::fs::read_to_string(token_file).map_err(|error| {
            Failure::local("reading the token", format!("{}: {error}", token_file.display()))
        })?;
        let token = token.trim().to_owned();
        if token.is_empty() {
            let error = format!("{} is empty", token_file.display());
            return Err(Failure::local("reading the token", error));
        }
        Ok(Self {
            url: url.trim_end_matches('/').to_owned(),
            token,
            before: None,
            seen: HashSet::new(),
            read: VecDeque::new(),
            ended: false,
        })
    }

    pub(super) async fn next(&mut self) -> Result<Option<Item>, Failure> {
        while self.read.is_empty() && !self.ended {
            let text = self.page().await?;
            let page: Page = serde_json::from_str(&text).map_err(|error| {
                Failure::local("reading the pinning service", format!("{}: {error}", self.url))
            })?;
            self.take(page)?;
        }
        Ok(self.read.pop_front().map(|pin| Item::Pin(Box::new(pin))))
    }

    /// Takes the pins of a page that were not on the last one.
    fn take(&mut self, page: Page) -> Result<(), Failure> {
        let is_last = page.results.len() < PAGE;
        let oldest = page.results.iter().filter_map(|status| status.created).min();
        let requests = page
            .results
            .iter()
            .map(|status| status.requestid.clone())
            .collect();
        let before = std::mem::replace(&mut self.seen, requests);
        let fresh = page
            .results
            .into_iter()
            .filter(|status| !before.contains(&status.requestid));
        self.read.extend(fresh.map(PinStatus::into_pin));
        self.ended = is_last;
        if is_last {
            return Ok(());
        }
        let next = oldest.map(|time| time.plus_nanos(MILLISECOND));
        if next.is_none() || next == self.before {
            let error = format!(
                "{} lists more than {PAGE} pins of one time, or none with a time: not all can be read",
                self.url
            );
            return Err(Failure::local("reading the pinning service", error));
        }
        self.before = next;
        Ok(())
    }

    async fn page(&self) -> Result<String, Failure> {
        let mut query = Query::default();
        query.set("status", "queued,pinning,pinned");
        query.set("limit", PAGE);
        if let Some(before) = self.before {
            query.set("before", before);
        }
        let url = format!("{}/pins?{}", self.url, query.encode());
        let (mut attempt, mut pause) = (1, PAUSE);
        loop {
            let answer = tokio::time::timeout(PAGE_TIMEOUT, fetch_text(&url, Some(&self.token))).await;
            let (error, may_pass) = match answer {
                Ok(Ok(text)) => return Ok(text),
                Ok(Err(error)) => {
                    let may_pass = match &error {
                        FetchError::Status { status, .. } => {
                            status.as_u16() == 429 || status.is_server_error()
                        }
                        FetchError::Broken(_) => true,
                        FetchError::Url(_) => false,
                    };
                    (error.to_string(), may_pass)
                }
                Err(_) => (format!("no answer within {PAGE_TIMEOUT:?}"), true),
            };
            if !may_pass || attempt == ATTEMPTS {
                return Err(Failure::local(
                    "reading the pinning service",
                    format!("{url}: {error}"),
                ));
            }
            tokio::time::sleep(pause).await;
            (attempt, pause) = (attempt + 1, pause * 2);
        }
    }
}
