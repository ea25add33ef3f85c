//! Exports and imports at a peer that runs, through its REST API.
//!
//! What runs cannot be replaced: an import adds the file's pins to those that the cluster has, as a user
//! would add them, and takes none away.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use cluster_api::client::{Client, ClientError, Options};
use cluster_api::{self as api, PinTypeFilter};
use cluster_core::{Pin, PinType, Replicas, Timestamp};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::export::{Exported, unfinished};
use super::import::read;
use super::line::{Overrides, exported, factors};
use super::{Progress, SAY_INTERVAL};
use crate::config::{Config, Folder};

/// Pins that are being asked for at once. The peer takes thousands; more than this many it does not answer
/// faster.
const AT_ONCE: usize = 64;

/// A peer that is too busy, or has no leader, is asked again for this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(250);

/// What was added to a running cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Pins that the cluster has now, those among them that it had before.
    pub pins: u64,
    /// Pins that had expired already.
    pub expired: u64,
    /// Parts of sharded content, which only a peer that does not run can take.
    pub parts: u64,
}

/// Writes all pins of the cluster, as the running peer of `folder` knows them, in the order of their CIDs.
///
/// # Errors
/// The peer's API cannot be reached or fails, or `out` cannot be written.
pub async fn export(folder: &Folder, out: impl Write) -> anyhow::Result<Exported> {
    let client = client(&folder.config)?;
    let mut out = io::BufWriter::new(out);
    let mut pins = client.allocations(PinTypeFilter::ALL).await.map_err(no_answer)?;
    let mut progress = Progress::new("exported", None);
    while let Some(pin) = pins.next().await? {
        out.write_all(pin.text.as_bytes())?;
        out.write_all(b"\n")?;
        progress.one_more();
    }
    out.flush()?;
    Ok(Exported { pins: progress.count })
}

/// Adds the pins of `source` to the cluster of the running peer of `folder`, once all of it has been read and
/// checked. Done again after an interruption, it leaves what has been added as it is.
///
/// # Errors
/// `source` is no export, and nothing was added; or the peer refuses a pin, and some were added.
pub async fn import(folder: &Folder, source: impl BufRead, over: &Overrides) -> anyhow::Result<Added> {
    let default = folder.config.core(&folder.identity).default_replicas;
    let client = client(&folder.config)?;
    client.id().await.map_err(no_answer)?;
    let mut kept = Spool::new(&folder.path)?;
    read(source, over, default, |pin| kept.push(&pin))?;
    let queue = kept.replay()?;
    let (sender, receiver) = mpsc::channel(AT_ONCE);
    let receiver = Arc::new(Mutex::new(receiver));
    let done = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (client, receiver, done) = (
            self::client(&folder.config)?,
            Arc::clone(&receiver),
            Arc::clone(&done),
        );
        workers.spawn(async move {
            loop {
                let next = receiver.lock().await.recv().await;
                let Some(pin) = next else { return anyhow::Ok(()) };
                add(&client, &pin).await?;
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    drop(receiver);
    let total = kept.pins;
    let feeding = feed(queue, default, sender);
    let watching = async {
        loop {
            tokio::time::sleep(SAY_INTERVAL).await;
            tracing::info!("added {} of {total} pins", done.load(Ordering::Relaxed));
        }
    };
    let working = async {
        while let Some(ended) = workers.join_next().await {
            ended.context("adding pins")??;
        }
        anyhow::Ok(())
    };
    let working = async { tokio::try_join!(feeding, working) };
    let outcome = tokio::select! {
        outcome = working => outcome,
        () = watching => unreachable!("it has no end"),
    };
    let added = done.load(Ordering::Relaxed);
    let (skipped, ()) = outcome.with_context(|| {
        format!(
            "{added} of {total} pins were added; import again to add the rest, it leaves these as they are"
        )
    })?;
    Ok(Added {
        pins: added,
        ..skipped
    })
}

/// Passes on what can be added.
async fn feed(source: impl BufRead, default: Replicas, sender: mpsc::Sender<Pin>) -> anyhow::Result<Added> {
    let mut skipped = Added::default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = Timestamp(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX));
    let mut waiting = Vec::new();
    for line in source.lines() {
        let mut one = None;
        read(line?.as_bytes(), &Overrides::default(), default, |pin| {
            one = Some(pin);
            Ok(())
        })?;
        waiting.extend(one);
        for pin in waiting.drain(..) {
            if pin.pin_type != PinType::Data {
                skipped.parts += 1;
            } else if pin.options.expire_at.is_some_and(|at| at <= now) {
                skipped.expired += 1;
            } else if sender.send(pin).await.is_err() {
                // The workers have failed, and say why.
                return Ok(skipped);
            }
        }
    }
    Ok(skipped)
}

async fn add(client: &Client, pin: &Pin) -> anyhow::Result<()> {
    let (cid, options) = (pin.cid.to_string(), wish(pin));
    let until = Instant::now() + PATIENCE;
    loop {
        match client.pin(&cid, &options).await {
            Ok(_) => return Ok(()),
            // Too busy, no leader, an answer that may still come: to ask for the same again does no harm.
            Err(ClientError::Api(error))
                if matches!(error.code, 429 | 503 | 504) && Instant::now() < until =>
            {
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error).with_context(|| format!("the peer does not take {cid}")),
        }
    }
}

/// What to ask for to get this pin. The pin that it replaced is left out: the cluster may not have it, and
/// its options would count more than these.
fn wish(pin: &Pin) -> api::PinOptions {
    let (replication_factor_min, replication_factor_max) = factors(pin.options.replicas);
    let mut options = exported(pin).options;
    (options.replication_factor_min, options.replication_factor_max) =
        (replication_factor_min, replication_factor_max);
    options.pin_update = None;
    if options.user_allocations.is_empty() {
        // Those who have the content already are the best.
        options.user_allocations = pin.allocations.iter().map(ToString::to_string).collect();
    }
    options
}

/// A client of the peer that runs on this configuration.
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
    let options = Options {
        credentials: credentials.map(|(user, password)| (user.clone(), password.clone())),
        https: !rest.ssl_cert_file.is_empty(),
        // It listens on this machine, by our own configuration; its certificate names another address.
        no_check_certificate: true,
        ..Options::default()
    };
    Ok(Client::new(&hosts.join(","), options)?)
}

/// The address at which one that listens everywhere is reached from here.
fn reachable(listen: &str) -> String {
    listen
        .replace("/ip4/0.0.0.0/", "/ip4/127.0.0.1/")
        .replace("/ip6/::/", "/ip6/::1/")
}

fn no_answer(error: ClientError) -> anyhow::Error {
    anyhow::Error::new(error).context(
        "a peer is running on this folder, so the state is reached through its REST API, which does not \
         answer as it should: wait until it is READY, or stop it first",
    )
}

/// What has been read and found good, on disk until all of it is: a state need not fit into memory.
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
        // It has no name from here on: whatever happens to this process, nothing is left.
        std::fs::remove_file(&path).with_context(|| path.display().to_string())?;
        Ok(Self {
            file: io::BufWriter::new(file),
            pins: 0,
        })
    }

    fn push(&mut self, pin: &Pin) -> anyhow::Result<()> {
        api::json::write(&mut self.file, &exported(pin))?;
        self.file.write_all(b"\n")?;
        self.pins += 1;
        Ok(())
    }

    /// All of it, from the start.
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
