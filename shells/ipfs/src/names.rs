//! Resolving and publishing names: IPNS records in the folder `names` of the node's folder, and DNSLink.
//!
//! ```text
//! /ipns/<key>/a      record of the key    -> its value + /a
//! /ipns/<domain>/a   TXT record (dns)     -> its value + /a
//! ```
//!
//! A value may be another name; chains end after 32 steps. Records of the own keys are published again every
//! few hours, because routing systems forget them.

mod republish;

pub(crate) use republish::run as republish;

use crate::dns::DnsLinks;
use crate::ipns::{self, Record, parse_name};
use crate::keys::Keys;
use crate::reader::blocking;
use crate::types::split_head;
use crate::unixfs::Name;
use crate::{DagPath, Error, Node};
use bytes::Bytes;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use libp2p::PeerId;
use libp2p::identity::Keypair;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Steps after which a chain of names is refused; Kubo's limit.
const STEPS_MAX: usize = 32;
/// Time limit of resolving a chain.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time limit of a search for the record of a name.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(20);
/// Records that a search compares; Kubo's number.
const SEARCHED_MAX: usize = 16;
/// Time limit of sending a record to the routing systems: that of a lookup, and dials and sends after it.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(90);
/// Maximum number of records on disk, 10 KiB each at most.
const RECORDS_MAX: usize = 10_000;
/// Maximum number of looked-up names held in memory.
const CACHED_MAX: usize = 1024;
/// Limit of the time for which a looked-up record is used without another lookup.
const CACHED_TTL_MAX: Duration = Duration::from_secs(3600);

/// Time for which published records are valid; Kubo's default.
pub(crate) const LIFETIME: Duration = Duration::from_secs(48 * 3600);
/// Time for which others may use a published record without another lookup; Kubo's default.
pub(crate) const TTL: Duration = Duration::from_secs(300);

/// Source of the value of a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lookup {
    /// In memory, on disk, and in the routing systems.
    #[default]
    Cached,
    /// As [`Lookup::Cached`], but not in memory.
    Fresh,
}

/// Target of a path that may begin with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedName {
    /// Path: `/ipfs/…`, or with one step `/ipns/…` too.
    pub path: String,
    /// Time for which the answer is valid; `None` if the path has no name.
    pub ttl: Option<Duration>,
}

/// Settings of a record to publish.
#[derive(Debug, Clone)]
pub struct PublishOptions {
    /// Name or id of the key.
    pub key: String,
    /// Time for which the record is valid.
    pub lifetime: Duration,
    /// Time for which others may use the record without another lookup.
    pub ttl: Duration,
    /// Sequence number; `None` for the next one if the value changes.
    pub sequence: Option<u64>,
}

/// Records on disk and in memory, and the resolver of domains.
#[derive(Debug)]
pub(crate) struct Names {
    folder: PathBuf,
    /// Held while a record is replaced.
    changing: Mutex<()>,
    found: Mutex<HashMap<PeerId, (Record, Instant)>>,
    pub(crate) dns: DnsLinks,
    pub(crate) keys: Keys,
}

impl Names {
    pub(crate) fn new(node_folder: &Path, own: Keypair) -> Names {
        Names {
            folder: node_folder.join("names"),
            changing: Mutex::new(()),
            found: Mutex::default(),
            dns: DnsLinks::default(),
            keys: Keys::new(node_folder, own),
        }
    }

    fn path(&self, name: &PeerId) -> PathBuf {
        self.folder.join(ipns::format_name(name))
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        let what = format!("{what} the ipns records in {}", self.folder.display());
        Error::io(what, error)
    }

    /// Reads the stored record of a name; it may have expired.
    fn stored(&self, name: &PeerId) -> Result<Option<Record>, Error> {
        let bytes = match std::fs::read(self.path(name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.failed("reading", error)),
        };
        match Record::parse(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(why) => {
                tracing::warn!(
                    "the stored record of the ipns name {} is damaged: {why}",
                    ipns::format_name(name)
                );
                Ok(None)
            }
        }
    }

    /// Stores a verified record, unless a stored one replaces it.
    fn store(&self, name: &PeerId, record: &Record) -> Result<(), Error> {
        let _changing = crate::store::lock(&self.changing);
        match self.stored(name)? {
            Some(stored) if stored.replaces(record) => {
                return Err(Error::invalid("can't replace a newer value with an older value"));
            }
            Some(_) => {}
            None => self.check_count()?,
        }
        std::fs::create_dir_all(&self.folder).map_err(|error| self.failed("writing", error))?;
        let saved = crate::swarm::save_private(&self.folder, &self.path(name), record.bytes());
        saved.map_err(|error| self.failed("writing", error))
    }

    fn check_count(&self) -> Result<(), Error> {
        let files = match std::fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(self.failed("reading", error)),
        };
        if files.count() >= RECORDS_MAX {
            return Err(Error::invalid(format!(
                "there are {RECORDS_MAX} ipns records, the maximum"
            )));
        }
        Ok(())
    }

    fn cached(&self, name: &PeerId) -> Option<Record> {
        let found = crate::store::lock(&self.found);
        let (record, until) = found.get(name)?;
        (*until > Instant::now()).then(|| record.clone())
    }

    fn cache(&self, name: PeerId, record: Record) {
        let mut found = crate::store::lock(&self.found);
        let now = Instant::now();
        if found.len() >= CACHED_MAX {
            found.retain(|_, (_, until)| *until > now);
        }
        if found.len() < CACHED_MAX {
            let until = now + record.ttl().min(CACHED_TTL_MAX);
            found.insert(name, (record, until));
        }
    }
}

impl Node {
    /// Asks these DNS servers for DNSLink records from now on, instead of those of the system.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the resolver cannot be created.
    pub fn use_dns_servers(&self, servers: &[std::net::SocketAddr]) -> Result<(), Error> {
        self.inner.names.dns.use_servers(servers)
    }

    /// Resolves a path that may begin with a name (`/ipns/…`) to a path of content. Other paths are parsed.
    ///
    /// # Errors
    /// As [`Node::resolve_name`]; the path is invalid.
    pub async fn resolve_names(&self, path: &Name) -> Result<DagPath, Error> {
        let (head, segments) = split_head(path);
        let Some(head) = head.as_text().filter(|head| named(head).is_some()) else {
            return DagPath::try_from(path);
        };
        let value = self.resolve_name(head, true, Lookup::Cached).await?.path;
        let mut resolved: DagPath = value.parse()?;
        resolved.segments.extend(segments);
        Ok(resolved)
    }

    /// Resolves a path `/ipns/<name>/…`, to content if `recursive`, otherwise one step.
    ///
    /// # Errors
    /// [`Error::NoName`] if a name of the chain has no valid record; [`Error::NameLookup`] if that could not
    /// be found out.
    pub async fn resolve_name(
        &self,
        path: &str,
        recursive: bool,
        lookup: Lookup,
    ) -> Result<ResolvedName, Error> {
        let steps = if recursive { STEPS_MAX } else { 1 };
        let chain = self.follow(path, steps, lookup);
        match timeout(RESOLVE_TIMEOUT, chain).await {
            Ok(resolved) => resolved,
            Err(_) => Err(Error::NameLookup(format!("resolving {path} took too long"))),
        }
    }

    async fn follow(&self, path: &str, steps: usize, lookup: Lookup) -> Result<ResolvedName, Error> {
        let mut path = path.to_owned();
        let mut ttl: Option<Duration> = None;
        for _ in 0..steps {
            let Some((name, rest)) = named(&path) else {
                return Ok(ResolvedName { path, ttl });
            };
            let (value, step_ttl) = self.value_of(name, lookup).await?;
            let (value, rest) = (value.trim_end_matches('/'), rest.trim_start_matches('/'));
            path = match rest {
                "" => value.to_owned(),
                rest => format!("{value}/{rest}"),
            };
            ttl = Some(ttl.map_or(step_ttl, |ttl| ttl.min(step_ttl)));
        }
        if steps > 1 && named(&path).is_some() {
            return Err(Error::NoName(
                "could not resolve name (recursion limit exceeded)".to_owned(),
            ));
        }
        Ok(ResolvedName { path, ttl })
    }

    /// Resolves one name to its path, and the time for which that is valid.
    async fn value_of(&self, name: &str, lookup: Lookup) -> Result<(String, Duration), Error> {
        let Some(key) = parse_name(name) else {
            let link = self.find_dnslink(name).await?;
            return Ok((link.path, link.ttl));
        };
        let record = self.find_record(&key, lookup).await?;
        let value = record.value().map_err(|why| Error::NoName(why.to_string()))?;
        Ok((value, record.ttl()))
    }

    /// Looks up the DNSLink record of a domain.
    pub(crate) async fn find_dnslink(&self, domain: &str) -> Result<crate::dns::Link, Error> {
        if self.offline {
            let why = format!("DNSLink lookup for {domain:?} failed: the request is offline");
            return Err(Error::NameLookup(why));
        }
        self.inner
            .names
            .dns
            .find(domain, self.inner.settings.private)
            .await
    }

    /// Returns the best valid record of a name.
    ///
    /// # Errors
    /// [`Error::NoName`] without one.
    pub async fn find_record(&self, name: &PeerId, lookup: Lookup) -> Result<Record, Error> {
        if lookup == Lookup::Cached
            && let Some(record) = self.inner.names.cached(name)
        {
            return Ok(record);
        }
        let (inner, key) = (self.inner.clone(), *name);
        let now = Timestamp::now();
        let stored = blocking(move || inner.names.stored(&key)).await?;
        let mut refused = None;
        let mut best: Option<Record> = None;
        if let Some(stored) = stored {
            match Record::verified(name, stored.bytes(), now) {
                Ok(record) => best = Some(record),
                Err(why) => refused = Some(why),
            }
        }
        let best = self.search_record(name, best).await;
        match best {
            Some(record) => {
                self.inner.names.cache(*name, record.clone());
                Ok(record)
            }
            None => {
                let name = ipns::format_name(name);
                Err(Error::NoName(match refused {
                    Some(why) => format!("could not resolve name {name}: {why}"),
                    None => format!("could not resolve name {name}: routing: not found"),
                }))
            }
        }
    }

    /// Asks the routing systems for a better record of a name than the known one. A known record of an own
    /// key is the best: only this node signs it.
    async fn search_record(&self, name: &PeerId, known: Option<Record>) -> Option<Record> {
        if self.offline || !self.inner.routing.is_on() {
            return known;
        }
        if known.is_some() {
            let inner = self.inner.clone();
            let keys = blocking(move || inner.names.keys.list()).await;
            if keys.is_ok_and(|keys| keys.iter().any(|key| key.id == *name)) {
                return known;
            }
        }
        let Ok(mut values) = self.get_values(ipns::routing_key(name)).await else {
            return known;
        };
        let mut best = known;
        let end = Instant::now() + SEARCH_TIMEOUT;
        for _ in 0..SEARCHED_MAX {
            let Ok(Some(value)) = timeout_at(end, values.next()).await else {
                break;
            };
            let Ok(record) = Record::verified(name, &value, Timestamp::now()) else {
                continue;
            };
            if best.as_ref().is_none_or(|best| record.replaces(best)) {
                best = Some(record);
            }
        }
        best
    }

    /// Verifies a record and stores it on this node.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the record is invalid, or older than the stored one; it cannot be written.
    pub async fn store_record(&self, name: PeerId, record: Bytes) -> Result<Record, Error> {
        let record = Record::verified(&name, &record, Timestamp::now());
        let record = record.map_err(|why| Error::invalid(why.to_string()))?;
        let (inner, stored) = (self.inner.clone(), record.clone());
        blocking(move || inner.names.store(&name, &stored)).await?;
        crate::store::lock(&self.inner.names.found).remove(&name);
        Ok(record)
    }

    /// Sends a record to the DHT servers closest to its name and to the delegated routers. Without routing it
    /// stays on this node.
    ///
    /// # Errors
    /// Unless keeping it on this node is `allowed`: [`Error::Invalid`] if this handle is offline,
    /// [`Error::NameLookup`] if no server accepts the record.
    pub async fn announce_record(&self, name: &PeerId, record: &Record, allowed: bool) -> Result<(), Error> {
        if self.offline && !allowed {
            return Err(Error::invalid(
                "can't publish while offline: pass `--allow-offline` to override",
            ));
        }
        if self.offline || !self.inner.routing.is_on() {
            return Ok(());
        }
        let put = self.put_value(ipns::routing_key(name), record.bytes().to_vec());
        match timeout(ANNOUNCE_TIMEOUT, put).await {
            Ok(Ok(servers)) if servers > 0 => Ok(()),
            // The record is on this node, which publishes those of its own keys again later.
            _ if allowed => Ok(()),
            Ok(Err(error)) => Err(error),
            Ok(Ok(_)) | Err(_) => Err(Error::NameLookup(
                "no server of the routing systems accepted the record: pass `--allow-offline` to keep it on \
                 this node, which publishes it again later"
                    .to_owned(),
            )),
        }
    }

    /// Signs a record that maps a key's name to `value`, and stores it on this node.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the key is unknown, or the sequence number is not higher than the last.
    pub async fn sign_record(&self, value: &str, options: PublishOptions) -> Result<(PeerId, Record), Error> {
        let (inner, value) = (self.inner.clone(), value.to_owned());
        let (name, record) = blocking(move || {
            let key = inner.names.keys.find_by_name_or_id(&options.key)?;
            let name = key.public().to_peer_id();
            let last = inner.names.stored(&name)?;
            let sequence = next_sequence(last.as_ref(), &value, options.sequence)?;
            let record = sign(&key, &value, sequence, options.lifetime, options.ttl)?;
            inner.names.store(&name, &record)?;
            Ok((name, record))
        })
        .await?;
        crate::store::lock(&self.inner.names.found).remove(&name);
        Ok((name, record))
    }
}

/// Returns the sequence number of a new record: it grows only when the value changes, as in Kubo.
fn next_sequence(last: Option<&Record>, value: &str, asked: Option<u64>) -> Result<u64, Error> {
    match (last, asked) {
        (None, asked) => Ok(asked.unwrap_or(0)),
        (Some(last), Some(asked)) if asked <= last.sequence() => Err(Error::invalid(format!(
            "cannot set sequence number to {asked}: the last record has {}",
            last.sequence()
        ))),
        (Some(_), Some(asked)) => Ok(asked),
        (Some(last), None) => {
            let same = last.value().as_deref() == Ok(value);
            Ok(last.sequence() + u64::from(!same))
        }
    }
}

/// Signs a record that is valid from now on.
fn sign(
    key: &Keypair,
    value: &str,
    sequence: u64,
    lifetime: Duration,
    ttl: Duration,
) -> Result<Record, Error> {
    let too_long = || Error::invalid("the lifetime of the record is too long");
    let lifetime = SignedDuration::try_from(lifetime).map_err(|_| too_long())?;
    let until = Timestamp::now().checked_add(lifetime).map_err(|_| too_long())?;
    let record = Record::create(key, value, sequence, until, ttl);
    record.map_err(|why| Error::invalid(why.to_string()))
}

/// Splits a path that begins with a name into the name and the rest.
pub(crate) fn named(path: &str) -> Option<(&str, &str)> {
    let rest = match path.strip_prefix("/ipns/") {
        Some(rest) => rest,
        None => {
            let scheme = path.get(..7).filter(|it| it.eq_ignore_ascii_case("ipns://"))?;
            path.get(scheme.len()..)?
        }
    };
    Some(rest.split_once('/').unwrap_or((rest, "")))
}
