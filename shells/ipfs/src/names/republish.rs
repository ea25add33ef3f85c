//! Publishing the records of the own keys again, with a later validity, before they expire and because
//! routing systems forget them.

use super::{ANNOUNCE_TIMEOUT, LIFETIME, sign};
use crate::ipns::{Record, routing_key};
use crate::node::Inner;
use crate::reader::blocking;
use crate::routing::ContentRouting;
use libp2p::PeerId;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Delay of the first round after the start; Kubo's.
const FIRST: Duration = Duration::from_secs(60);
/// Interval of the rounds; Kubo's.
const INTERVAL: Duration = Duration::from_secs(4 * 3600);
/// Delay of the next round after a failed one; Kubo's.
const RETRY: Duration = Duration::from_secs(300);

/// Republishes until the node is closed or dropped.
pub(crate) async fn run(node: Weak<Inner>, closed: CancellationToken) {
    let mut delay = FIRST;
    while closed.run_until_cancelled(sleep(delay)).await.is_some() {
        let Some(inner) = node.upgrade() else { return };
        let routing = inner.routing.clone();
        delay = match blocking(move || extend(&inner)).await {
            Ok(records) => {
                tracing::debug!("extended {} ipns records", records.len());
                // Interrupted when the node closes.
                let announced = closed.run_until_cancelled(announce(&routing, records));
                if announced.await == Some(false) {
                    RETRY
                } else {
                    INTERVAL
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot republish ipns records; trying again in 5 minutes");
                RETRY
            }
        };
    }
}

/// Sends records to the routing systems, one after the other. Returns whether servers accepted all of them.
async fn announce(routing: &Arc<ContentRouting>, records: Vec<(PeerId, Record)>) -> bool {
    if !routing.is_on() {
        return true;
    }
    let mut all = true;
    for (name, record) in records {
        let put = routing.put_value(routing_key(&name), record.bytes().to_vec());
        let why = match timeout(ANNOUNCE_TIMEOUT, put).await {
            Ok(Ok(servers)) if servers > 0 => {
                tracing::debug!(%name, servers, "published an ipns record again");
                continue;
            }
            Ok(Ok(_)) => "no server accepted it".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {ANNOUNCE_TIMEOUT:?}"),
        };
        all = false;
        tracing::warn!(%name, %why, "cannot publish an ipns record again; trying again in 5 minutes");
    }
    all
}

/// Extends the validity of the own keys' records; returns them.
fn extend(inner: &Arc<Inner>) -> Result<Vec<(PeerId, Record)>, crate::Error> {
    let mut extended = Vec::new();
    for key in inner.names.keys.list()? {
        let (Some(last), Some(pair)) = (inner.names.stored(&key.id)?, inner.names.keys.find(&key.name)?)
        else {
            continue;
        };
        let Ok(value) = last.value() else { continue };
        // Records with a longer life than the default keep it.
        let left = last.valid_until().duration_since(jiff::Timestamp::now());
        let left = Duration::try_from(left).unwrap_or_default();
        if left > LIFETIME {
            extended.push((key.id, last));
            continue;
        }
        let record = sign(&pair, &value, last.sequence(), LIFETIME, last.ttl())?;
        inner.names.store(&key.id, &record)?;
        extended.push((key.id, record));
    }
    Ok(extended)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::PublishOptions;
    use crate::{Config, Node};

    #[tokio::test]
    async fn records_of_own_keys_are_extended_and_keep_their_sequence() {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::open(Config {
            path: folder.path().join("ipfs"),
            swarm_listen: Vec::new(),
            storage_max: None,
            network: crate::PublicNetwork::default(),
            fixed: std::collections::BTreeMap::new(),
        })
        .await
        .unwrap();
        let options = |lifetime| PublishOptions {
            key: "self".to_owned(),
            lifetime: Duration::from_secs(lifetime),
            ttl: Duration::from_secs(60),
            sequence: None,
        };
        let (name, first) = node.sign_record("/ipfs/bafkqaaa", options(3600)).await.unwrap();
        let inner = node.inner.clone();
        let extended = blocking(move || extend(&inner)).await.unwrap();
        assert_eq!(extended.len(), 1);
        assert_eq!(extended[0].0, name);
        assert!(extended[0].1.replaces(&first));
        assert_eq!(extended[0].1.sequence(), first.sequence());
        // A longer life is kept.
        let (_, long) = node
            .sign_record("/ipfs/bafkqaaa", options(360_000))
            .await
            .unwrap();
        let inner = node.inner.clone();
        let extended = blocking(move || extend(&inner)).await.unwrap();
        assert_eq!(extended[0].1.bytes(), long.bytes());
        node.shutdown().await;
    }
}
