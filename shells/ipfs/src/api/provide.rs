//! The commands `provide/stat`, `provide/clear` and `provide/once`.

use std::time::SystemTime;

use cluster_http::rpc::Failure;
use futures::stream::StreamExt;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::reply::{Reply, stream_lines};
use super::request::Call;
use super::routing::{check_may_provide, check_online, local_cids};
use crate::{Cid, ProvideStat};

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn time(time: Option<SystemTime>) -> String {
    let time = time.and_then(|time| Timestamp::try_from(time).ok());
    time.map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

/// Returns a duration in nanoseconds.
fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the statistics in the shape of Kubo's sweep provider. What this node does not measure is zero.
fn sweep(stat: &ProvideStat, peers: usize, is_joined: bool) -> Value {
    let waiting = stat.regions - stat.regions_current;
    let next_prefix = stat
        .next
        .map(|(region, _)| format!("{region:08b}"))
        .unwrap_or_default();
    let since_oldest = stat.oldest.and_then(|oldest| oldest.elapsed().ok());
    json!({
        "closed": false,
        "connectivity": { "status": if is_joined { "online" } else { "offline" }, "since": NEVER },
        "queues": {
            "pending_key_provides": stat.queued,
            "pending_region_provides": 0,
            "pending_region_reprovides": waiting,
        },
        "schedule": {
            "keys": stat.keys,
            "regions": stat.regions,
            "avg_prefix_length": prefix_length(stat.regions),
            "next_reprovide_at": time(stat.next.map(|(_, time)| time)),
            "next_reprovide_prefix": next_prefix,
        },
        "workers": {
            "max": stat.workers + 1,
            "active": stat.announcing + usize::from(stat.is_sweeping),
            "active_periodic": usize::from(stat.is_sweeping),
            "active_burst": stat.announcing,
            "dedicated_periodic": 1,
            "dedicated_burst": stat.workers,
            "queued_periodic": 0,
            "queued_burst": 0,
            "max_provide_conns_per_worker": stat.sends_max,
        },
        "timing": {
            "uptime": nanoseconds(stat.uptime),
            "reprovides_interval": nanoseconds(stat.interval),
            "cycle_start": time(stat.oldest),
            "current_time_offset": nanoseconds(since_oldest.unwrap_or_default()),
            "max_reprovide_delay": nanoseconds(stat.lag),
        },
        "operations": {
            "ongoing": {
                "region_provides": 0,
                "key_provides": stat.announcing,
                "region_reprovides": usize::from(stat.is_sweeping),
                "key_reprovides": 0,
            },
            "past": {
                "records_provided": stat.records,
                "keys_provided": stat.announced,
                "keys_failed": stat.failed,
                "keys_provided_per_minute": 0,
                "keys_reprovided_per_minute": 0,
                "reprovide_duration": 0,
                "avg_keys_per_reprovide": stat.keys as f64 / stat.regions as f64,
                "regions_reprovided_last_cycle": stat.regions_current,
            },
        },
        "network": {
            "peers": peers,
            "reachable": peers,
            "complete_keyspace_coverage": waiting == 0,
            "avg_region_size": 0,
            "avg_holders": 0,
            "replication_factor": stat.replication,
        },
    })
}

/// Returns the number of bits that name one of so many regions.
fn prefix_length(regions: usize) -> u32 {
    regions.checked_ilog2().unwrap_or(0)
}

/// Handles `provide/stat` and `stats/provide`.
pub(super) async fn stat(call: Call) -> Result<Reply, Failure> {
    check_online(&call)?;
    let stat = call.node.provide_stat();
    if !stat.is_on {
        return Err(Failure::failed(
            "stats not available: provide_strategy is \"none\", or the node joins no DHT",
        ));
    }
    let wanted = call.flag("lan", false);
    let dhts = call.node.dhts();
    let dht = dhts.iter().find(|dht| dht.is_public != wanted);
    let peers = dht.map_or(0, |dht| dht.peers);
    let is_joined = dhts.iter().any(|dht| dht.peers > 0);
    Reply::once(&json!({
        "Sweep": sweep(&stat, peers, is_joined),
        "Legacy": null,
        "FullRT": false,
    }))
}

/// Handles `provide/clear`: empties the queue of new pins, and returns their number.
pub(super) async fn clear(call: Call) -> Result<Reply, Failure> {
    let cleared = call.node.clear_provide_queue();
    match call.flag("quiet", false) {
        true => Ok(Reply::Objects(futures::stream::empty().boxed())),
        false => Reply::once(&cleared),
    }
}

/// Line of `provide/once`.
#[derive(Serialize)]
struct Queued {
    #[serde(rename = "Queued")]
    cid: String,
}

/// Handles `provide/once`: queues blocks for their announcement, with `recursive` all below them too.
pub(super) async fn once(call: Call) -> Result<Reply, Failure> {
    check_may_provide(&call).await?;
    let cids = local_cids(&call).await?;
    let recursive = call.flag("recursive", false);
    stream_lines(move |sink| async move {
        let queue = async |cid: Cid| {
            call.node.provide_later(cid).await;
            let line = Queued {
                cid: call.format_cid(&cid),
            };
            sink.send(&line).await
        };
        for cid in cids {
            queue(cid).await?;
            if !recursive {
                continue;
            }
            let mut below = call.node.offline().refs(cid, None, true);
            while let Some(link) = below.next().await.transpose()? {
                queue(link.to).await?;
            }
        }
        Ok(())
    })
}
