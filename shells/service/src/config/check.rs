//! Semantic checks of a configuration: ranges of single values, and values that depend on each other.

use std::fmt;
use std::ops::RangeInclusive;

use serde_json::Value;

use super::{Config, Defaults, Embedded, HttpApi, Period};

/// Path of an invalid key, and the problem.
type Wrong = (String, String);

fn wrong(key: &str, problem: impl Into<String>) -> Wrong {
    (key.to_owned(), problem.into())
}

/// Shortest election timeout that peers on one machine can keep up with.
const ELECTION_MIN: Period = Period::millis(50);
/// Maximum election timeout; a longer one is refused as a mistake: nothing can be written meanwhile.
const ELECTION_MAX: Period = Period::secs(600);
/// Maximum number of concurrent pins; no IPFS node benefits from more.
const CONCURRENT_PINS_MAX: u32 = 10_000;
/// Maximum number of accepted secrets: as many as the hello of a connection has room for beside
/// `cluster.secret`.
const ACCEPTED_SECRETS_MAX: usize = 7;
/// Range of the limit on header bytes.
const HEADER_BYTES: RangeInclusive<u32> = 1024..=1 << 20;

/// Refuses a value unless the condition holds.
fn require(holds: bool, key: impl AsRef<str>, problem: fmt::Arguments<'_>) -> Result<(), Wrong> {
    match holds {
        true => Ok(()),
        false => Err(wrong(key.as_ref(), problem.to_string())),
    }
}

/// Refuses a value outside a range.
fn require_in<T: PartialOrd + fmt::Display>(
    value: T,
    range: RangeInclusive<T>,
    key: impl AsRef<str>,
) -> Result<(), Wrong> {
    let (min, max) = (range.start(), range.end());
    let problem = format_args!("invalid value: {value}, expected {min} to {max}");
    require(range.contains(&value), key, problem)
}

/// Refuses a configuration that a peer cannot run with.
pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    replication(config)?;
    periods(config)?;
    elections(config)?;
    apis(config)?;
    require(
        !config.cluster.listen_multiaddress.is_empty(),
        "cluster.listen_multiaddress",
        format_args!("an empty list: other peers need an address"),
    )?;
    let accepted = config.cluster.accepted_secrets.len();
    let problem = format_args!("{accepted} secrets, at most {ACCEPTED_SECRETS_MAX} are accepted");
    require(
        accepted <= ACCEPTED_SECRETS_MAX,
        "cluster.accepted_secrets",
        problem,
    )?;
    let voters = config.consensus.raft.voters_max;
    let problem = format_args!("invalid value: {voters}, expected an odd number, like 7");
    require(!voters.is_multiple_of(2), "consensus.raft.voters_max", problem)?;
    let pins = config.pin_tracker.stateless.concurrent_pins;
    require_in(
        pins,
        1..=CONCURRENT_PINS_MAX,
        "pin_tracker.stateless.concurrent_pins",
    )?;
    let share = config.observations.tracing.sampling_prob;
    let problem = format_args!("invalid value: {share}, expected a share from 0 to 1");
    require(
        (0.0..=1.0).contains(&share),
        "observations.tracing.sampling_prob",
        problem,
    )?;
    storage_shares(config)?;
    require(
        !config.allocator.balanced.allocate_by.is_empty(),
        "allocator.balanced.allocate_by",
        format_args!("an empty list: name at least one metric, like \"freespace\""),
    )?;
    let connector = &config.ipfs_connector;
    if let Some(embedded) = &connector.embedded {
        public_network(embedded)?;
        scrub_fraction("embedded", embedded.scrub_fraction)?;
    }
    if let Some(kubo) = &connector.ipfshttp {
        scrub_fraction("ipfshttp", kubo.scrub_fraction)?;
    }
    let problem = match (&connector.ipfshttp, &connector.embedded) {
        (Some(_), Some(_)) => "both `ipfshttp` and `embedded` are configured: keep the one to use",
        (None, None) => "no IPFS node: add `ipfshttp` or `embedded`",
        (Some(_), None) | (None, Some(_)) => return Ok(()),
    };
    Err(wrong("ipfs_connector", problem))
}

fn storage_shares(config: &Config) -> Result<(), Wrong> {
    if let Some(disk) = &config.informer.disk {
        let (low, high) = (disk.low_water_percent, disk.high_water_percent);
        require_in(high, 1..=100, "informer.disk.high_water_percent")?;
        let problem =
            format_args!("invalid value: {low}, expected at most high_water_percent, which is {high}");
        require(low <= high, "informer.disk.low_water_percent", problem)?;
    }
    let embedded = config.ipfs_connector.embedded.as_ref();
    let share = embedded.map_or(0, |embedded| embedded.gc_watermark);
    let problem = format_args!("invalid value: {share}, expected 1 to 100, or 0 for never");
    require(share <= 100, "ipfs_connector.embedded.gc_watermark", problem)
}

fn replication(config: &Config) -> Result<(), Wrong> {
    // 0 means the default.
    let or_default = |factor: i32| if factor == 0 { -1 } else { factor };
    let (min, max) = config.cluster.replication_factors();
    let problem = format_args!("invalid value: {min}, expected -1 for every peer, or at least 1");
    require(or_default(min) >= -1, "cluster.replication_factor_min", problem)?;
    let problem = format_args!(
        "invalid value: {max} with a replication_factor_min of {min}: expected at least as many, and \
         -1 for both or for neither"
    );
    let fits = max >= -1 && (max == -1) == (min == -1) && max >= min;
    require(fits, "cluster.replication_factor_max", problem)
}

fn periods(config: &Config) -> Result<(), Wrong> {
    let cluster = &config.cluster;
    let mut positive = vec![
        ("cluster.dial_peer_timeout", cluster.dial_peer_timeout),
        ("cluster.state_sync_interval", cluster.state_sync_interval),
        ("cluster.pin_recover_interval", cluster.pin_recover_interval),
        ("cluster.monitor_ping_interval", cluster.monitor_ping_interval),
        ("cluster.peer_watch_interval", cluster.peer_watch_interval),
        (
            "consensus.raft.wait_for_leader_timeout",
            config.consensus.raft.wait_for_leader_timeout,
        ),
        (
            "monitor.pubsubmon.check_interval",
            config.monitor.pubsubmon.check_interval,
        ),
    ];
    let interval = config.observations.metrics.reporting_interval;
    positive.push(("observations.metrics.reporting_interval", interval));
    let informer = &config.informer;
    let disk = informer.disk.as_ref().map(|disk| disk.metric_ttl);
    positive.extend(disk.map(|ttl| ("informer.disk.metric_ttl", ttl)));
    let queue = informer.pinqueue.as_ref().map(|queue| queue.metric_ttl);
    positive.extend(queue.map(|ttl| ("informer.pinqueue.metric_ttl", ttl)));
    let tags = informer.tags.as_ref().map(|tags| tags.metric_ttl);
    positive.extend(tags.map(|ttl| ("informer.tags.metric_ttl", ttl)));
    if let Some(kubo) = &config.ipfs_connector.ipfshttp {
        positive.extend([
            (
                "ipfs_connector.ipfshttp.ipfs_request_timeout",
                kubo.ipfs_request_timeout,
            ),
            ("ipfs_connector.ipfshttp.pin_timeout", kubo.pin_timeout),
            ("ipfs_connector.ipfshttp.unpin_timeout", kubo.unpin_timeout),
            ("ipfs_connector.ipfshttp.repogc_timeout", kubo.repogc_timeout),
        ]);
    }
    if let Some(embedded) = &config.ipfs_connector.embedded {
        positive.extend([
            ("ipfs_connector.embedded.pin_timeout", embedded.pin_timeout),
            ("ipfs_connector.embedded.unpin_timeout", embedded.unpin_timeout),
        ]);
    }
    if let Some((key, _)) = positive.iter().find(|(_, period)| period.is_zero()) {
        return Err(wrong(key, "invalid value: 0s, expected a span of time like 30s"));
    }
    let queue = informer.pinqueue.as_ref();
    require(
        queue.is_none_or(|queue| queue.weight_bucket_size > 0),
        "informer.pinqueue.weight_bucket_size",
        format_args!("invalid value: 0, expected at least 1"),
    )
}

/// Maximum number of connections of the embedded node; each takes some 100 KiB.
const CONNECTIONS_MAX: u32 = 10_000;
/// Maximum number of peers that announce one root.
const COPIES_MAX: u32 = 20;
/// Minimum share of the time for scrubs; a scrub without any would never end.
const SCRUB_FRACTION_MIN: f64 = 0.001;
/// Maximum number of addresses of one list.
const ADDRESSES_MAX: usize = 1000;

fn public_network(embedded: &Embedded) -> Result<(), Wrong> {
    let key = |name: &str| format!("ipfs_connector.embedded.{name}");
    let (low, high) = (embedded.connections_low_water, embedded.connections_high_water);
    require_in(high, 1..=CONNECTIONS_MAX, key("connections_high_water"))?;
    let problem = format_args!("invalid value: {low}, expected at most connections_high_water, {high}");
    require(low <= high, key("connections_low_water"), problem)?;
    let problem = format_args!("invalid value: 0s, expected a span of time like 22h");
    require(
        !embedded.provide_interval.is_zero(),
        key("provide_interval"),
        problem,
    )?;
    let copies = embedded.provide_copies;
    let problem = format_args!(
        "invalid value: {copies}, expected 1 to {COPIES_MAX}; provide_strategy \"none\" announces nothing"
    );
    require((1..=COPIES_MAX).contains(&copies), key("provide_copies"), problem)?;
    for (name, count) in [
        ("bootstrap", embedded.bootstrap.len()),
        ("delegated_routers", embedded.delegated_routers.len()),
        ("announce_multiaddress", embedded.announce_multiaddress.len()),
        (
            "no_announce_multiaddress",
            embedded.no_announce_multiaddress.len(),
        ),
    ] {
        let problem = format_args!("{count} elements, at most {ADDRESSES_MAX} are accepted");
        require(count <= ADDRESSES_MAX, key(name), problem)?;
    }
    if let Some(address) = embedded.bootstrap.iter().find(|address| address.peer().is_none()) {
        let problem = format!("{address:?} does not end in /p2p/<peer id>");
        return Err(wrong(&key("bootstrap"), problem));
    }
    Ok(())
}

fn scrub_fraction(section: &str, fraction: f64) -> Result<(), Wrong> {
    let key = format!("ipfs_connector.{section}.scrub_fraction");
    let problem = format_args!("invalid value: {fraction}, expected a share from {SCRUB_FRACTION_MIN} to 1");
    require((SCRUB_FRACTION_MIN..=1.0).contains(&fraction), key, problem)
}

fn elections(config: &Config) -> Result<(), Wrong> {
    let raft = &config.consensus.raft;
    for (key, period) in [
        ("consensus.raft.heartbeat_timeout", raft.heartbeat_timeout),
        ("consensus.raft.election_timeout", raft.election_timeout),
    ] {
        let problem =
            format_args!("invalid value: {period:?}, expected {ELECTION_MIN:?} to {ELECTION_MAX:?}");
        require((ELECTION_MIN..=ELECTION_MAX).contains(&period), key, problem)?;
    }
    Ok(())
}

fn apis(config: &Config) -> Result<(), Wrong> {
    if let Some(api) = &config.api.restapi {
        http_api("restapi", api)?;
    }
    if let Some(api) = &config.api.pinsvcapi {
        http_api("pinsvcapi", api)?;
    }
    if let Some(proxy) = &config.api.ipfsproxy {
        require_in(
            proxy.max_header_bytes,
            HEADER_BYTES,
            "api.ipfsproxy.max_header_bytes",
        )?;
    }
    Ok(())
}

fn http_api<D: Defaults>(name: &str, api: &HttpApi<D>) -> Result<(), Wrong> {
    let key = |key: &str| format!("api.{name}.{key}");
    require_in(api.max_header_bytes, HEADER_BYTES, key("max_header_bytes"))?;
    let problem = format_args!("TLS needs both ssl_cert_file and ssl_key_file");
    let both = api.ssl_cert_file.is_empty() == api.ssl_key_file.is_empty();
    require(both, key("ssl_cert_file"), problem)?;
    let problem =
        format_args!("an empty object refuses all users: add one, or write null for no authentication");
    let users = api.basic_auth_credentials.as_ref();
    let has_users = users.is_none_or(|users| !users.0.is_empty());
    require(has_users, key("basic_auth_credentials"), problem)
}

/// Keys that are read only for compatibility with the Go peer, and the reason that they have no effect, one a
/// line.
const WITHOUT_EFFECT: &str = "\
/cluster/enable_relay_hop there are no relays
/cluster/connection_manager members are always connected to each other, strangers never
/cluster/resource_manager limits are built in
/cluster/pubsub peers do not gossip
/cluster/pin_only_on_trusted_peers with raft, all members are trusted
/cluster/pin_only_on_untrusted_peers with raft, all members are trusted
/cluster/follower_mode followers exist only with crdt
/consensus/raft/network_timeout messages have timeouts of their own
/consensus/raft/commit_retries a lost proposal is made again until the request times out
/consensus/raft/commit_retry_delay a lost proposal is made again until the request times out
/consensus/raft/commit_timeout commits are announced at once
/consensus/raft/max_append_entries messages are limited by their bytes
/consensus/raft/snapshot_interval the state is on disk all the time
/consensus/raft/snapshot_threshold the state is on disk all the time
/consensus/raft/leader_lease_timeout it follows from election_timeout
/pin_tracker/stateless/priority_pin_max_age new pins always go before retried ones
/pin_tracker/stateless/priority_pin_max_retries new pins always go before retried ones
/pin_tracker/stateless/max_pin_queue_size the queue is on disk and has no end
/api/restapi/libp2p_listen_multiaddress http is not served over libp2p
/api/pinsvcapi/libp2p_listen_multiaddress http is not served over libp2p
/cluster/dial_peer_timeout attempts to connect have a timeout of their own
/cluster/peer_watch_interval peers learn of changes of the membership at once
/monitor/pubsubmon/check_interval metrics are looked at whenever they are sent
/ipfs_connector/ipfshttp/informer_trigger_interval everything is measured as often as a ping is sent";

/// Lists settings without effect, one sentence each.
pub(super) fn without_effect(config: &Config) -> Vec<String> {
    let json = |config: &Config| serde_json::to_value(config).unwrap_or(Value::Null);
    let (ours, defaults) = (json(config), json(&Config::default()));
    let rows = WITHOUT_EFFECT.lines().filter_map(|row| row.split_once(' '));
    let changed = rows.filter(|(key, _)| {
        let value = ours.pointer(key);
        value.is_some() && value != defaults.pointer(key)
    });
    let mut warnings: Vec<String> = changed
        .map(|(key, why)| format!("{}: has no effect: {why}", key[1..].replace('/', ".")))
        .collect();
    let measured = config.measured();
    for metric in &config.allocator.balanced.allocate_by {
        if !measured.contains(metric) {
            warnings.push(format!(
                "allocator.balanced.allocate_by: {metric:?} is not among what this peer measures ({}): it \
                 will get no pins but those of every peer",
                measured.join(", ")
            ));
        }
    }
    if config.cluster.secret.0.is_none() {
        warnings.push("cluster.secret: empty: anyone who reaches this peer can talk to it".to_owned());
    } else if config
        .cluster
        .accepted_secrets
        .iter()
        .any(|secret| secret.0.is_none())
    {
        let problem = "one is empty: anyone who reaches this peer can talk to it, without a secret too";
        warnings.push(format!("cluster.accepted_secrets: {problem}"));
    }
    warnings
}
