//! Exports and imports at a running peer, through its REST API.
//!
//! The state of a running cluster cannot be replaced: an import adds the file's pins to those of the
//! cluster, with all their options, and removes none.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bytes::Bytes;
use cluster_api::client::{Client, ClientError, Options};
use cluster_core::{Pin, Timestamp};
use tokio::task::JoinSet;

use super::Progress;
use super::export::{Exported, unfinished};
use super::import::read;
use super::line::ImportOptions;
use crate::cluster::convert::whole_pin;
use crate::config::{Config, Folder};

/// Pins per request. A request that fails half way is repeated as a whole.
const PORTION: u64 = 512;

/// Bytes after which a request is full; the peer's limit is some times higher.
const PORTION_BYTES: usize = 1 << 20;

/// Concurrent requests: one is prepared and read while others are committed.
const AT_ONCE: usize = 4;

/// Environment variable with the token of a credential, for a peer that demands one.
const TOKEN_VARIABLE: &str = "CLUSTER_AUTH_TOKEN";

/// Result of an import into a running cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Added {
    /// Number of imported pins, those that the cluster had before included.
    pub pins: u64,
    /// Number of expired pins that were left out.
    pub expired: u64,
    /// Number of invalid pins that were left out.
    pub skipped: u64,
}

/// Writes all pins of the cluster, as known to the running peer of `folder`, in the order of their CIDs.
///
/// # Errors
/// The peer's API cannot be reached or fails, or `out` cannot be written.
pub async fn export(folder: &Folder, out: impl Write) -> anyhow::Result<Exported> {
    let client = client(&folder.config)?;
    let mut out = io::BufWriter::new(out);
    let mut pins = client.whole_allocations().await.map_err(no_answer)?;
    let mut progress = Progress::new("exported", None);
    while let Some(pin) = pins.next().await? {
        out.write_all(pin.text.as_bytes())?;
        out.write_all(b"\n")?;
        progress.one_more();
    }
    out.flush()?;
    Ok(Exported { pins: progress.count })
}

/// Adds the pins of `source` to the cluster of the running peer of `folder`, once all of them have been
/// read and checked. Repeated after an interruption, it leaves the pins that were added as they are.
///
/// # Errors
/// `source` is no export, and nothing was added; or the peer refuses a pin, and some were added.
pub async fn import(folder: &Folder, source: impl BufRead, options: &ImportOptions) -> anyhow::Result<Added> {
    let default = folder.config.cluster.default_replicas();
    let client = Arc::new(client(&folder.config)?);
    client.id().await.map_err(no_answer)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    let mut spool = Spool::new(&folder.path)?;
    let mut expired = 0;
    let skipped = read(source, options, default, |pin| {
        if pin.options.expire_at.is_some_and(|at| at <= now) {
            expired += 1;
            return Ok(());
        }
        spool.push(&pin)
    })?;
    let mut lines = spool.replay()?;
    let total = spool.pins;
    let mut progress = Progress::new("added", Some(total));
    let mut under_way = JoinSet::new();
    let mut failed = None;
    loop {
        let enough = failed.is_some() || under_way.len() >= AT_ONCE;
        let next = if enough { None } else { portion(&mut lines)? };
        if let Some((lines, pins)) = next {
            let client = Arc::clone(&client);
            under_way.spawn(async move { add(&client, lines).await.map(|()| pins) });
            continue;
        }
        match under_way.join_next().await {
            Some(Ok(Ok(pins))) => (0..pins).for_each(|_| progress.one_more()),
            Some(Ok(Err(error))) => failed = failed.or(Some(error)),
            Some(Err(error)) => failed = failed.or(Some(error.into())),
            None => break,
        }
    }
    if let Some(error) = failed {
        // Some pins of a failed request may have been added.
        let added = progress.count;
        return Err(error.context(format!(
            "at least {added} of {total} pins were added; import again to add the rest, it leaves those as \
             they are"
        )));
    }
    Ok(Added {
        pins: progress.count,
        expired,
        skipped,
    })
}

/// Reads the lines for one request, and counts them; `None` at the end.
fn portion(lines: &mut impl BufRead) -> anyhow::Result<Option<(Bytes, u64)>> {
    let (mut portion, mut pins) = (Vec::new(), 0);
    while pins < PORTION && portion.len() < PORTION_BYTES && lines.read_until(b'\n', &mut portion)? > 0 {
        pins += 1;
    }
    Ok((pins > 0).then(|| (Bytes::from(portion), pins)))
}

async fn add(client: &Client, lines: Bytes) -> anyhow::Result<()> {
    let added = client.import(lines).await;
    added.context("the peer did not accept all of them")
}

/// Returns a client of the running peer with this configuration.
fn client(config: &Config) -> anyhow::Result<Client> {
    let Some(rest) = &config.api.restapi else {
        bail!("the running peer has no REST API (api.restapi is not configured): stop it first");
    };
    let hosts: Vec<String> = rest
        .http_listen_multiaddress
        .iter()
        .map(|address| reachable(&address.0.to_string()))
        .collect();
    let credentials = rest.basic_auth_credentials.as_ref();
    let credentials = credentials.and_then(|credentials| credentials.0.iter().next());
    // The configuration has no token. Where tokens alone are demanded, it comes as for `ipfs-cluster-ctl`.
    let token = std::env::var(TOKEN_VARIABLE)
        .ok()
        .filter(|token| !token.is_empty());
    let options = Options {
        token,
        credentials: credentials.map(|(user, password)| (user.clone(), password.clone())),
        https: !rest.ssl_cert_file.is_empty(),
        // It listens on this machine, by our own configuration; its certificate has another address.
        no_check_certificate: true,
        ..Options::default()
    };
    Ok(Client::new(&hosts.join(","), options)?)
}

/// Replaces an unspecified listen address by the loopback address.
fn reachable(listen: &str) -> String {
    listen
        .replace("/ip4/0.0.0.0/", "/ip4/127.0.0.1/")
        .replace("/ip6/::/", "/ip6/::1/")
}

fn no_answer(error: ClientError) -> anyhow::Error {
    anyhow::Error::new(error).context(
        "a peer is running on this folder, so the state is reached through its REST API, which does not \
         answer as it should: wait until it is READY, or stop it first. If it demands a token, set \
         CLUSTER_AUTH_TOKEN",
    )
}

/// Pins that were read and checked, kept on disk until all are: a state need not fit into memory.
struct Spool {
    file: io::BufWriter<File>,
    pins: u64,
}

impl Spool {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let path = unfinished(&folder.join("import"));
        let open = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path);
        let file = open.with_context(|| path.display().to_string())?;
        // The file has no name from here on, so it vanishes with the process.
        std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        Ok(Self {
            file: io::BufWriter::new(file),
            pins: 0,
        })
    }

    fn push(&mut self, pin: &Pin) -> anyhow::Result<()> {
        cluster_http::json::write(&mut self.file, &whole_pin(pin))?;
        self.file.write_all(b"\n")?;
        self.pins += 1;
        Ok(())
    }

    /// Reads the file from the start.
    fn replay(&mut self) -> anyhow::Result<BufReader<File>> {
        self.file.flush()?;
        let mut file = self.file.get_ref().try_clone()?;
        file.rewind()?;
        Ok(BufReader::new(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_listens_everywhere_is_reached_on_loopback() {
        assert_eq!(reachable("/ip4/0.0.0.0/tcp/9094"), "/ip4/127.0.0.1/tcp/9094");
        assert_eq!(reachable("/ip6/::/tcp/9094"), "/ip6/::1/tcp/9094");
        assert_eq!(reachable("/ip4/10.1.2.3/tcp/1"), "/ip4/10.1.2.3/tcp/1");
    }
}
