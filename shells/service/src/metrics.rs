//! Metrics of the process, in the Prometheus format.
//!
//! The catalogue below is the only list of them: it makes the instruments, the `HELP` lines, and the table in
//! the manual, which a test compares. Names that begin with `ipfscluster_` and are those of the Go peer mean
//! what they mean there. Whatever happens often is counted where it happens, with atomic operations;
//! everything else is read by the [`Observer`] when it is scraped. No label takes a value that a client can
//! choose, so that the number of series is bounded.

mod history;
mod instrument;
mod observer;
mod scan;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use cluster_ipfs::backend::Stored;
use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry,
};

pub use self::history::{History, history};
use self::instrument::{COPIES, Instrument, LATENCY};
pub use self::instrument::{Description, observe_since};
pub(crate) use self::observer::peer_name;
pub use self::observer::{Observer, PEERS_MAX, Readiness};
pub(crate) use self::scan::{PinCounts, pin_counts};

/// Content type of the format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

macro_rules! catalogue {
    ($($field:ident: $kind:ty = $name:literal [$($label:literal)*] $help:literal $($buckets:ident)?;)*) => {
        /// The instruments of this process.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        /// All metrics, but those that the operating system keeps of the process.
        pub const CATALOGUE: &[Description] = &[$(Description {
            name: concat!("ipfscluster_", $name),
            kind: <$kind as Instrument>::KIND,
            labels: &[$($label),*],
            help: $help,
            buckets: [$($buckets,)? LATENCY][0],
        }),*];

        impl Metrics {
            fn new(registry: Registry) -> Self {
                let mut descriptions = CATALOGUE.iter();
                let mut next = || descriptions.next().expect("one for each field");
                $(let $field = <$kind>::register(next(), &registry);)*
                Self { registry, $($field),* }
            }
        }
    };
}

catalogue! {
    // Those of the Go peer.
    pins: IntGauge = "pins" [] "Pins in the pinset";
    pins_pin_queued: IntGauge = "pins_pin_queued" [] "Pins queued at this peer";
    pins_pinning: IntGauge = "pins_pinning" [] "Pins that the IPFS node of this peer is working on";
    pins_pin_error: IntGauge = "pins_pin_error" [] "Pins that failed at this peer and are retried";
    pins_ipfs_pins: IntGauge = "pins_ipfs_pins" []
        "Pins of the cluster that the IPFS node of this peer holds";
    pins_pin_add: IntCounter = "pins_pin_add" [] "Attempts to pin at the IPFS node";
    pins_pin_add_errors: IntCounter = "pins_pin_add_errors" [] "Attempts to pin that failed";
    blocks_put: IntCounter = "blocks_put" [] "Requests that store blocks of uploads at the IPFS node";
    blocks_put_errors: IntCounter = "blocks_put_errors" [] "Requests to store blocks that failed";
    blocks_added: IntCounter = "blocks_added" [] "Blocks of uploads stored at the IPFS node";
    blocks_added_size: IntCounter = "blocks_added_size" [] "Bytes of these blocks";
    informer_disk: IntGauge = "informer_disk" [] "Last disk metric of this peer: free or used bytes";

    // The pinset.
    local_pins: IntGaugeVec = "local_pins" ["status"] "Pins tracked by this peer, by status";
    pins_under_replicated: IntGauge = "pins_under_replicated" []
        "Pins with fewer allocations at living peers than their minimum";
    oldest_queued_pin: Gauge = "oldest_queued_pin_seconds" []
        "Age of the oldest pin that waits at this peer for its first attempt; 0 if none";
    oldest_failing_pin: Gauge = "oldest_failing_pin_seconds" []
        "Time since the request of the oldest pin that fails at this peer; 0 if none";
    pinset_scan: Gauge = "pinset_scan_seconds" [] "Duration of the last count of pins by status";
    pin_first_copy: Histogram = "pin_first_copy_seconds" []
        "Time from a pin request until one peer holds it; a sample of the requests to this peer" COPIES;
    pin_all_copies: Histogram = "pin_all_copies_seconds" []
        "Time from a pin request until all its allocations hold it; a sample of those requests" COPIES;

    // Consensus.
    raft_term: IntGauge = "raft_term" [] "Current Raft term";
    raft_has_leader: IntGauge = "raft_has_leader" [] "1 if this peer knows a leader";
    raft_is_leader: IntGauge = "raft_is_leader" [] "1 if this peer leads";
    raft_leader_changes: IntCounter = "raft_leader_changes_total" [] "Changes of the known leader";
    raft_commit_index: IntGauge = "raft_commit_index" [] "Highest log index known to be committed";
    raft_applied_index: IntGauge = "raft_applied_index" [] "Highest log index applied here";
    raft_apply_lag: IntGauge = "raft_apply_lag_entries" [] "Committed entries that are not applied here";
    raft_log_entries: IntGauge = "raft_log_entries" [] "Entries of the retained log";
    raft_log_bytes: IntGauge = "raft_log_bytes" [] "Bytes of the retained log";
    raft_snapshot_bytes: IntGaugeVec = "raft_snapshot_bytes" ["direction"]
        "Bytes of the last snapshot of the state that was sent or received";
    raft_voters: IntGauge = "raft_voters" [] "Voting members";
    raft_members: IntGauge = "raft_members" [] "Members";
    raft_peer_lag: IntGaugeVec = "raft_peer_lag_entries" ["peer" "peername"]
        "Log entries that a peer lacks; at the leader only";
    messages_dropped: IntCounterVec = "core_messages_dropped_total" ["reason"]
        "Messages of other peers that the core ignored";
    commit_duration: Histogram = "commit_duration_seconds" []
        "Time from a change requested at this peer until it is committed and applied here";
    requests_refused: IntCounterVec = "requests_refused_total" ["reason"] "Changes refused at this peer";
    timer_delay: Gauge = "core_timer_delay_max_seconds" [] "Longest delay of consensus' timer";
    network_delay: Gauge = "network_delay_max_seconds" [] "Longest delay of the threads of the network";

    // The store.
    store_write: Histogram = "store_write_duration_seconds" [] "Time to write one batch, without sync";
    store_sync: Histogram = "store_sync_duration_seconds" [] "Time to make written batches durable";
    store_bytes: IntGauge = "store_bytes" [] "Size of the database: pinset, log and local state";

    // Peers.
    peer_contact: IntGaugeVec = "peer_last_contact_timestamp_seconds" ["peer" "peername"]
        "Unix time of the last ping of a member";
    peer_up: IntGaugeVec = "peer_up" ["peer" "peername"] "1 if the member's ping has not expired";
    peer_connected: IntGaugeVec = "peer_connected" ["peer" "peername"]
        "1 if a connection to the member is open";
    peer_free: IntGaugeVec = "peer_free_bytes" ["peer" "peername"] "Free space that a member reports";
    peer_pins: IntGaugeVec = "peer_pins_held" ["peer" "peername"]
        "Pins of the cluster that a member reports to hold";
    peer_queued: IntGaugeVec = "peer_pins_queued" ["peer" "peername"]
        "Pins that wait at a member for their first attempt; absent without its informer pinqueue";
    peer_voter: IntGaugeVec = "peer_voter" ["peer" "peername"] "1 if the member votes";
    peer_info: IntGaugeVec = "peer_info" ["peer" "peername" "version"]
        "1, with the version that a member reports";
    alerts: IntGauge = "alerts" [] "Alerts: metrics of members that expired";
    peer_bytes: IntCounterVec = "peer_network_bytes_total" ["protocol" "direction"]
        "Bytes between peers: messages, calls and snapshots";
    outbox_dropped: IntCounter = "peer_messages_unsent_total" []
        "Messages to peers dropped: no connection, or its queue was full";
    connections_refused: IntCounterVec = "connections_refused_total" ["reason"]
        "Connections and streams of other peers that were refused";

    // Queues.
    queue_length: IntGaugeVec = "queue_length" ["queue"] "Used places of a bounded queue";
    queue_limit: IntGaugeVec = "queue_limit" ["queue"] "All places of a bounded queue";

    // HTTP.
    http_requests: IntCounterVec = "http_requests_total" ["api" "route" "method" "status"]
        "Requests to the REST API and the IPFS proxy";
    http_duration: HistogramVec = "http_request_duration_seconds" ["api" "route" "status_class"]
        "Time from the headers of a request until those of its response, by class of status (2xx)";
    http_refused: IntCounterVec = "http_refused_total" ["api" "reason"]
        "Refusals for credentials (unauthorized, expired, scope, rate, pins, bytes) or a foreign web page";
    events_readers: IntGauge = "events_readers" [] "Open streams of events";
    events_lagged: IntCounter = "events_readers_dropped_total" []
        "Streams of events ended because they were read too slowly";

    // Tracing.
    trace_spans_exported: IntCounter = "trace_spans_exported_total" [] "Spans that the collector accepted";
    trace_spans_dropped: IntCounterVec = "trace_spans_dropped_total" ["reason"]
        "Spans lost: the queue was full, or the collector did not accept them";

    // The IPFS node.
    ipfs_up: IntGauge = "ipfs_up" [] "1 if the IPFS node answered its last check";
    ipfs_duration: HistogramVec = "ipfs_request_duration_seconds" ["operation"]
        "Time of an operation at the IPFS node";
    ipfs_errors: IntCounterVec = "ipfs_request_errors_total" ["operation"]
        "Failed operations at the IPFS node";
    ipfs_repo: IntGauge = "ipfs_repo_bytes" [] "Bytes stored by the IPFS node";
    ipfs_repo_max: IntGauge = "ipfs_repo_max_bytes" [] "Bytes that the IPFS node may store";
    ipfs_gc_runs: IntCounter = "ipfs_gc_runs_total" []
        "Garbage collections of the embedded node that the watermark has started";
    ipfs_gc_freed: IntCounter = "ipfs_gc_freed_bytes_total" [] "Bytes of disk that these collections freed";
    ipfs_blocks: IntGauge = "ipfs_blocks" [] "Blocks of the embedded node";
    ipfs_node_pins: IntGauge = "ipfs_pins" [] "Pins of the embedded node, those of others included";
    bitswap_peers: IntGauge = "bitswap_peers" [] "Nodes connected to the embedded node";
    bitswap_blocks: IntCounterVec = "bitswap_blocks_total" ["direction"]
        "Blocks exchanged by the embedded node";
    bitswap_bytes: IntCounterVec = "bitswap_bytes_total" ["direction"] "Bytes of these blocks";
    node_bytes: IntCounterVec = "ipfs_network_bytes_total" ["direction"]
        "Bytes exchanged by the embedded node with other nodes, of all protocols";
    dht_peers: IntGaugeVec = "dht_peers" ["dht"] "Peers in the embedded node's routing table of a DHT";
    dht_server: IntGaugeVec = "dht_server" ["dht"] "1 if the embedded node serves requests of a DHT";
    dht_records: IntGaugeVec = "dht_records" ["dht" "kind"]
        "Records that other nodes store at the embedded node";
    provide_lag: Gauge = "ipfs_provide_lag_seconds" []
        "Time by which the announcement of content to the DHT is overdue; 0 if it is on schedule";
    provide_oldest: IntGauge = "ipfs_provide_oldest_timestamp_seconds" []
        "Unix time of the oldest among the last announcements of all regions; 0 before the first";
    provide_regions: IntGauge = "ipfs_provide_regions_current" []
        "Regions of the keyspace, of 256, whose content was announced within the interval";
    provide_keys: IntGauge = "ipfs_provide_keys" []
        "Keys that this peer announces, as far as their regions were announced since the start";
    provide_pins: IntCounterVec = "ipfs_provide_pins_total" ["result"]
        "New pins that were announced at once, or later with their region because that failed";
    provide_records: IntCounter = "ipfs_provide_records_total" []
        "Provider records that servers of the DHT accepted";
    provide_failures: IntCounter = "ipfs_provide_failures_total" []
        "Sends of provider records to a server of the DHT that failed";

    // Moves of copies.
    moves_waiting: IntGauge = "moves_waiting" []
        "Copies of this peer that stay until their replacements are confirmed; 10,000 are counted at most";
    moves_fetched: IntCounter = "moves_fetched_bytes_total" []
        "Bytes of copies that moved to this peer while moves were limited in bytes per second";
    rebalance_passing: IntGauge = "rebalance_passing" []
        "1 while this peer passes over its pins to rebalance them";
    rebalance_planned: IntGauge = "rebalance_moves_planned" []
        "Copies that the present or last pass of the rebalancing was to move to even out the counts";
    rebalance_moved: IntCounter = "rebalance_moves_total" []
        "Copies that the rebalancing has moved away from this peer, those for zones included";
    rebalance_lost: IntCounter = "rebalance_moves_undone_total" []
        "Proposed moves of the rebalancing that did not take effect";
    drain_blocked: IntGauge = "drain_blocked_pins" [] "Pins of this peer that its drain could not move";

    // The scrub.
    scrub_blocks: IntCounter = "scrub_blocks_total" [] "Blocks that the scrub has read and hashed";
    scrub_bytes: IntCounter = "scrub_bytes_total" [] "Bytes of these blocks";
    scrub_damaged: IntCounter = "scrub_damaged_blocks_total" [] "Damaged blocks that the scrub has found";
    scrub_incomplete: IntCounter = "scrub_incomplete_pins_total" []
        "Pins that the scrub has found to lack blocks";
    scrub_failing: IntGauge = "scrub_failing" [] "1 if the IPFS node could not check the last piece";
    scrub_completed: IntGauge = "scrub_completed_timestamp_seconds" []
        "Unix time of the end of the last complete scrub; 0 before the first";
    mended: IntCounterVec = "ipfs_mended_total" ["kind"]
        "Damaged blocks replaced by copies of other peers, and pins whose blocks were fetched again";
    unmended: IntGaugeVec = "ipfs_unmended" ["kind"]
        "Damaged blocks that are not replaced yet, and pins that lack blocks";

    build_info: IntGaugeVec = "build_info" ["version"] "1, with the version of the program";
}

/// Metrics that the operating system keeps of the process: names, kinds and meanings, for the manual.
pub const PROCESS: &[(&str, &str, &str)] = &[
    (
        "process_cpu_seconds_total",
        "counter",
        "Processor time, in seconds",
    ),
    ("process_max_fds", "gauge", "Limit of open file descriptors"),
    ("process_open_fds", "gauge", "Open file descriptors"),
    ("process_resident_memory_bytes", "gauge", "Resident memory"),
    ("process_start_time_seconds", "gauge", "Unix time of the start"),
    ("process_threads", "gauge", "Threads"),
    ("process_virtual_memory_bytes", "gauge", "Virtual memory"),
];

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    {
        let process = prometheus::process_collector::ProcessCollector::for_self();
        // Only a second one of the same registry is refused.
        let _ = registry.register(Box::new(process));
    }
    let metrics = Metrics::new(registry);
    metrics
        .build_info
        .with_label_values(&[env!("CARGO_PKG_VERSION")])
        .set(1);
    metrics
});

/// Returns the metrics of this process.
pub fn metrics() -> &'static Metrics {
    &METRICS
}

impl Metrics {
    /// Returns the number of pins that the IPFS node of this peer holds; `None` before the first count.
    pub fn pins_held(&self) -> Option<u64> {
        let is_counted = self.pinset_scan.get() > 0.0;
        u64::try_from(self.pins_ipfs_pins.get())
            .ok()
            .filter(|_| is_counted)
    }

    /// Encodes all metrics as they are now.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(32 << 10);
        let encoded = prometheus::TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text);
        if let Err(error) = encoded {
            tracing::error!(%error, "the metrics cannot be encoded");
        }
        text
    }
}

/// Measures an operation at the IPFS node.
///
/// # Errors
/// Those of the operation.
pub async fn ipfs_operation<T, E>(
    operation: &'static str,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let start = std::time::Instant::now();
    let outcome = work.await;
    observe_since(&metrics().ipfs_duration.with_label_values(&[operation]), start);
    if outcome.is_err() {
        metrics().ipfs_errors.with_label_values(&[operation]).inc();
    }
    outcome
}

/// Measures the storing of blocks of an upload at the IPFS node.
///
/// # Errors
/// Those of the storing.
pub async fn block_put<E>(work: impl Future<Output = Result<Stored, E>>) -> Result<Stored, E> {
    metrics().blocks_put.inc();
    let stored = ipfs_operation("block_put", work).await;
    match &stored {
        Ok(stored) => {
            metrics().blocks_added.inc_by(stored.blocks);
            metrics().blocks_added_size.inc_by(stored.bytes);
        }
        Err(_) => metrics().blocks_put_errors.inc(),
    }
    stored
}

/// Returns the table of all metrics for the manual, in Markdown.
pub fn table() -> String {
    let mut table = "| metric | type | labels | meaning |\n|---|---|---|---|\n".to_owned();
    let mut row = |name: &str, kind: &str, labels: &[&str], help: &str| {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        table.push_str(&format!(
            "| `{name}` | {kind} | {} | {help} |\n",
            labels.join(", ")
        ));
    };
    for of in CATALOGUE {
        row(of.name, of.kind, of.labels, of.help);
    }
    for (name, kind, help) in PROCESS {
        row(name, kind, &[], help);
    }
    table
}
